//! The image that stands for an artifact in a pod: the image's own config, and one layer of a few kB. Pure and deterministic: equal
//! bytes on every node, so that its digest can be pinned.
//!
//! ```text
//!   manifest ─┬─ config   the artifact's, with this layer's diff_id
//!             └─ layer    etc/passwd, etc/group     users by name, supplementary groups: looked up before a container has its root
//!                         .siforge-image            what tells the runtime whose root it is to be:
//!                                                   {"format":1,"namespace":"lab","name":"cow","digest":"sha256:…"}
//! ```
//!
//! `Volumes` are left out of the config: container runtimes would fill them from the layer, which has none of the image's files.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use siforge_agent_api::{MARKER, Marker};
use siforge_reference::Digest;
use siforge_store::Shadow;

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";
/// One tar record; files are padded to it.
const RECORD: usize = 512;

/// Bytes with their digest and media type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    pub media_type: &'static str,
    pub digest: Digest,
    pub bytes: Vec<u8>,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    pub manifest: Blob,
    pub config: Blob,
    pub layer: Blob,
}

#[derive(Serialize)]
struct Config<'a> {
    architecture: &'a str,
    os: &'static str,
    config: Value,
    rootfs: Rootfs,
}

#[derive(Serialize)]
struct Rootfs {
    r#type: &'static str,
    diff_ids: [String; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    media_type: &'static str,
    config: Descriptor,
    layers: [Descriptor; 1],
    annotations: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: &'static str,
    digest: String,
    size: usize,
}

impl Blob {
    fn new(media_type: &'static str, bytes: Vec<u8>) -> Self {
        Blob { media_type, digest: Digest::from_bytes(Sha256::digest(&bytes).into()), bytes }
    }

    fn json(media_type: &'static str, value: &impl Serialize) -> Self {
        // Structs of strings, numbers and JSON always serialise.
        Blob::new(media_type, serde_json::to_vec(value).unwrap_or_default())
    }

    fn descriptor(&self) -> Descriptor {
        Descriptor { media_type: self.media_type, digest: self.digest.to_string(), size: self.bytes.len() }
    }
}

impl Image {
    /// The shadow of `namespace/name` where it points at the shadow's artifact.
    pub fn new(namespace: &str, name: &str, shadow: &Shadow) -> Self {
        let marker = Marker::new(namespace, name, &shadow.digest.to_string());
        let mut files = BTreeMap::from([(MARKER, serde_json::to_vec(&marker).unwrap_or_default())]);
        let accounts = [("etc/passwd", &shadow.passwd), ("etc/group", &shadow.group)];
        files.extend(accounts.into_iter().filter_map(|(path, text)| Some((path, text.clone()?.into_bytes()))));
        let layer = Blob::new(LAYER_TYPE, tar(&files));
        let mut config = sorted(&shadow.config);
        if let Value::Object(fields) = &mut config {
            fields.retain(|name, _| name != "Volumes");
        }
        let config = Config {
            architecture: &shadow.architecture,
            os: "linux",
            config,
            rootfs: Rootfs { r#type: "layers", diff_ids: [layer.digest.to_string()] },
        };
        let config = Blob::json(CONFIG_TYPE, &config);
        let manifest = Manifest {
            schema_version: 2,
            media_type: MANIFEST_TYPE,
            config: config.descriptor(),
            layers: [layer.descriptor()],
            annotations: BTreeMap::from([("dev.siforge.image", format!("{namespace}/{name}@{}", shadow.digest))]),
        };
        Image { manifest: Blob::json(MANIFEST_TYPE, &manifest), config, layer }
    }

    /// The part with this digest.
    pub fn part(self, digest: &Digest) -> Option<Blob> {
        [self.manifest, self.config, self.layer].into_iter().find(|blob| blob.digest == *digest)
    }
}

/// The same JSON with every object's fields in order, however this program's JSON library keeps them.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields: BTreeMap<&String, Value> = fields.iter().map(|(name, value)| (name, sorted(value))).collect();
            Value::Object(fields.into_iter().map(|(name, value)| (name.clone(), value)).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

/// A tar of regular files and the directory `etc`, in ustar (POSIX.1-1988): no owner but root, no time but 1970.
fn tar(files: &BTreeMap<&'static str, Vec<u8>>) -> Vec<u8> {
    let mut tar = Vec::new();
    if files.keys().any(|path| path.starts_with("etc/")) {
        tar.extend(header("etc/", 0o755, 0, b'5'));
    }
    for (path, bytes) in files {
        let mode = if *path == MARKER { 0o444 } else { 0o644 };
        tar.extend(header(path, mode, bytes.len(), b'0'));
        tar.extend(bytes);
        tar.resize(tar.len().next_multiple_of(RECORD), 0);
    }
    tar.resize(tar.len() + 2 * RECORD, 0);
    tar
}

fn header(path: &str, mode: u32, size: usize, kind: u8) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    let mut put = |at: usize, text: &[u8]| record[at..at + text.len()].copy_from_slice(text);
    put(0, path.as_bytes());
    put(100, format!("{mode:07o}").as_bytes());
    put(108, b"0000000\x000000000");
    put(124, format!("{size:011o}").as_bytes());
    put(136, b"00000000000");
    put(156, &[kind]);
    put(257, b"ustar\x0000");
    // The checksum counts its own field as spaces.
    put(148, b"        ");
    let sum: u32 = record.iter().map(|byte| u32::from(*byte)).sum();
    record[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    record
}

#[cfg(test)]
mod tests {
    use super::*;
    use siforge_store::shadows::Parts;

    fn image(config: &str, passwd: Option<&str>) -> Image {
        let parts = Parts { config: config.into(), passwd: passwd.map(Into::into), group: None };
        Image::new("lab", "cow", &Shadow::new(Digest::from_bytes([7; 32]), "amd64", &parts))
    }

    #[test]
    fn equal_shadows_give_equal_bytes() {
        let one = image(r#"{"Env":["A=1"],"Cmd":["cow"]}"#, Some("root:x:0:0"));
        let other = image(r#"{"Cmd":["cow"],"Env":["A=1"]}"#, Some("root:x:0:0"));
        assert_eq!(one, other);
        // Pinned digests hold: a change here changes every pod's imageID and makes a new format.
        let expected = "sha256:e82b1aba95180723e05e0c2e32163123e0d772ee6a1538fafb31d2634b0a7650";
        assert_eq!(one.manifest.digest.to_string(), expected);
        assert_ne!(image("{}", None), image("{}", Some("")));
    }

    #[test]
    fn the_parts_name_each_other() {
        let image = image(r#"{"User":"cow","Volumes":{"/data":{}}}"#, Some("cow:x:7:7"));
        let parse = |blob: &Blob| serde_json::from_slice::<Value>(&blob.bytes).unwrap();
        let (manifest, config) = (parse(&image.manifest), parse(&image.config));
        assert_eq!(manifest["config"]["digest"], image.config.digest.to_string());
        assert_eq!(manifest["layers"][0]["digest"], image.layer.digest.to_string());
        assert_eq!(manifest["layers"][0]["size"], image.layer.bytes.len());
        assert_eq!(config["rootfs"]["diff_ids"][0], image.layer.digest.to_string());
        assert_eq!(config["config"], serde_json::json!({"User": "cow"}));
        for blob in [&image.manifest, &image.config, &image.layer] {
            assert_eq!(image.clone().part(&blob.digest).as_ref(), Some(blob));
        }
        assert_eq!(image.part(&Digest::from_bytes([0; 32])), None);
    }

    #[test]
    fn the_layer_is_a_tar() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("layer.tar");
        std::fs::write(&path, image("{}", Some("root:x:0:0")).layer.bytes).unwrap();
        let out = std::process::Command::new("tar").arg("-xvf").arg(&path).arg("-C").arg(directory.path()).output();
        let out = out.unwrap();
        assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
        assert_eq!(String::from_utf8_lossy(&out.stdout), "etc/\n.siforge-image\netc/passwd\n");
        assert_eq!(std::fs::read_to_string(directory.path().join("etc/passwd")).unwrap(), "root:x:0:0");
        let marker: Marker = serde_json::from_slice(&std::fs::read(directory.path().join(MARKER)).unwrap()).unwrap();
        assert_eq!((marker.namespace.as_str(), marker.name.as_str()), ("lab", "cow"));
    }
}
