//! OCI images made in memory and pushed to a registry by skopeo.
//!
//! ```text
//!   layout/oci-layout               {"imageLayoutVersion":"1.0.0"}
//!   layout/index.json               → manifest, or → image index → manifests
//!   layout/blobs/sha256/<hex>       layers, config, manifest
//! ```
//! OCI image-spec 1.1: image-layout.md, manifest.md, config.md.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::registry::Registry;
use crate::run::run;

/// How a layer's tar stands in the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    Plain,
    Gzip,
    Zstd,
}

/// What manifests and layers are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Oci,
    /// Docker's image manifest version 2, schema 2; knows no zstd.
    DockerSchema2,
}

/// An image: layers in order, the `config` member of the image configuration, a platform.
#[derive(Debug, Clone)]
pub struct Image {
    layers: Vec<(Vec<u8>, Compression)>,
    config: Value,
    architecture: String,
    format: Format,
}

impl Default for Image {
    fn default() -> Self {
        Self { layers: Vec::new(), config: json!({}), architecture: "amd64".into(), format: Format::Oci }
    }
}

impl Image {
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a layer on top: the bytes of a tar (see [`crate::Tar::finish`]).
    pub fn layer(mut self, tar: Vec<u8>, compression: Compression) -> Self {
        self.layers.push((tar, compression));
        self
    }

    /// Sets one member of the configuration: `("Env", json!(["PATH=/bin"]))`, `("Cmd", json!(["sh"]))`, `("Entrypoint", …)`.
    pub fn config(mut self, key: &str, value: Value) -> Self {
        self.config[key] = value;
        self
    }

    /// Go's name of the architecture; `amd64` when not called.
    pub fn architecture(mut self, architecture: &str) -> Self {
        self.architecture = architecture.into();
        self
    }

    /// Pushed as Docker schema 2.
    pub fn docker_schema2(mut self) -> Self {
        self.format = Format::DockerSchema2;
        self
    }

    /// Writes an OCI layout whose only image is this one, tagged `image`; gives the manifest's digest.
    pub fn write_layout(&self, dir: &Path) -> String {
        let manifest = self.write_blobs(dir);
        write_index(dir, &manifest);
        digest_of(&manifest)
    }

    /// The manifest's descriptor, after all blobs are written.
    fn write_blobs(&self, dir: &Path) -> Value {
        let layers: Vec<Value> = self.layers.iter().map(|(tar, how)| write_layer(dir, tar, *how)).collect();
        let diff_ids: Vec<String> = self.layers.iter().map(|(tar, _)| sha256(tar)).collect();
        let config = json!({
            "created": "2024-01-01T00:00:00Z", "architecture": self.architecture, "os": "linux", "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = write_json(dir, "application/vnd.oci.image.config.v1+json", &config);
        let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": layers});
        let mut manifest = write_json(dir, "application/vnd.oci.image.manifest.v1+json", &manifest);
        manifest["platform"] = json!({"architecture": self.architecture, "os": "linux"});
        manifest
    }
}

/// Pushes an image as `name` (`repository` or `repository:tag`); gives the digest of the manifest in the registry.
pub fn push(registry: &Registry, name: &str, image: &Image) -> String {
    let dir = temp();
    image.write_layout(dir.path());
    copy(registry, name, dir.path(), "image", image.format, false)
}

/// Pushes an image index of several platforms as `name`; gives the digest of the index.
pub fn push_index(registry: &Registry, name: &str, images: &[Image]) -> String {
    let dir = temp();
    let manifests: Vec<Value> = images.iter().map(|image| image.write_blobs(dir.path())).collect();
    let media_type = "application/vnd.oci.image.index.v1+json";
    let index = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": manifests});
    let index = write_json(dir.path(), media_type, &index);
    write_index(dir.path(), &index);
    let format = if images.iter().any(|image| image.format == Format::DockerSchema2) {
        Format::DockerSchema2
    } else {
        Format::Oci
    };
    copy(registry, name, dir.path(), "image", format, true)
}

/// Pushes the image `image` of an OCI layout with skopeo; gives the digest that the registry has.
pub fn copy(
    registry: &Registry,
    name: &str,
    layout: &Path,
    image: &str,
    format: Format,
    all_platforms: bool,
) -> String {
    let digest_file = temp().path().join("digest");
    fs::create_dir_all(digest_file.parent().unwrap_or(Path::new("/"))).unwrap_or_else(|e| panic!("make a folder: {e}"));
    let mut skopeo = Command::new(crate::need::program("skopeo"));
    skopeo.args(["--insecure-policy", "copy", "-q", "--format", if format == Format::Oci { "oci" } else { "v2s2" }]);
    if all_platforms {
        skopeo.arg("--all");
    }
    if format == Format::Oci {
        // Else it compresses plain layers.
        skopeo.arg("--preserve-digests");
    }
    match registry.ca_dir() {
        Some(dir) => skopeo.arg("--dest-cert-dir").arg(dir),
        None => skopeo.arg("--dest-tls-verify=false"),
    };
    if let Some((user, password)) = registry.credentials() {
        skopeo.arg("--dest-creds").arg(format!("{user}:{password}"));
    }
    skopeo.arg("--digestfile").arg(&digest_file);
    run(skopeo.arg(format!("oci:{}:{image}", layout.display())).arg(registry.reference(name))).ok();
    let digest = fs::read_to_string(&digest_file).unwrap_or_else(|e| panic!("read {}: {e}", digest_file.display()));
    let _ = fs::remove_dir_all(digest_file.parent().unwrap_or(&digest_file));
    digest.trim().to_owned()
}

fn temp() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("siforge-image-").tempdir().unwrap_or_else(|e| panic!("make a folder: {e}"))
}

fn write_layer(dir: &Path, tar: &[u8], compression: Compression) -> Value {
    match compression {
        Compression::Plain => write_blob(dir, "application/vnd.oci.image.layer.v1.tar", tar),
        Compression::Gzip => write_blob(dir, "application/vnd.oci.image.layer.v1.tar+gzip", &gzip(tar)),
        Compression::Zstd => write_blob(dir, "application/vnd.oci.image.layer.v1.tar+zstd", &zstd(tar)),
    }
}

/// gzip with the time field 0.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(bytes).and_then(|()| encoder.finish()).unwrap_or_else(|e| panic!("gzip into memory: {e}"))
}

/// zstd, level 3.
pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    ::zstd::encode_all(bytes, 3).unwrap_or_else(|e| panic!("zstd into memory: {e}"))
}

/// `sha256:<hex>` of some bytes.
pub fn sha256(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn write_json(dir: &Path, media_type: &str, value: &Value) -> Value {
    write_blob(dir, media_type, value.to_string().as_bytes())
}

fn write_blob(dir: &Path, media_type: &str, bytes: &[u8]) -> Value {
    let digest = sha256(bytes);
    write(&dir.join("blobs").join(digest.replace(':', "/")), bytes);
    json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
}

fn write_index(dir: &Path, descriptor: &Value) {
    let mut descriptor = descriptor.clone();
    descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": "image"});
    write(&dir.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#);
    write(&dir.join("index.json"), json!({"schemaVersion": 2, "manifests": [descriptor]}).to_string().as_bytes());
}

fn write(path: &Path, bytes: &[u8]) {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent)
        .and_then(|()| fs::write(path, bytes))
        .unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
}

fn digest_of(descriptor: &Value) -> String {
    descriptor["digest"].as_str().unwrap_or_default().to_owned()
}

/// Lets everybody read and enter a folder.
pub fn open_to_all(dir: &Path) {
    let mode = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    fs::set_permissions(dir, mode).unwrap_or_else(|e| panic!("chmod {}: {e}", dir.display()));
}
