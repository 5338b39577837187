//! The real cosign, and signatures of the same formats by the suite's own code: openssl signs, curl uploads.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::image::sha256;
use crate::registry::Registry;
use crate::run::{Finished, run, run_within};
use crate::{binaries, config};

/// From nothing on two busy cores, module download included.
const BUILD: Duration = Duration::from_secs(1200);
/// The version that tests/cosign/go.mod requires; part of the cache folder's name.
pub const COSIGN_VERSION: &str = "3.1.3";

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const SIMPLE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
pub const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// The folder with cosign and referrers, built from the Go module of tests/cosign into the cache, once.
pub fn binaries() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT
        .get_or_init(|| {
            let dir = config::cache_dir().join(format!("cosign-{COSIGN_VERSION}"));
            let script = binaries::source_root().join("tests/scripts/build-cosign.sh");
            run_within(BUILD, Command::new("bash").arg(script).arg(&dir)).ok();
            dir
        })
        .clone()
}

/// How cosign writes a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// The `.sig` tag.
    Simple,
    Bundle,
}

impl Layout {
    fn flag(self) -> String {
        format!("--new-bundle-format={}", self == Self::Bundle)
    }
}

/// Keys of every kind, below a folder that is also cosign's home.
#[derive(Debug)]
pub struct Signer {
    dir: tempfile::TempDir,
}

/// A key pair in files.
#[derive(Debug, Clone)]
pub struct KeyPair {
    /// As openssl reads it.
    private: PathBuf,
    /// As cosign reads it.
    cosign: PathBuf,
    pub public: PathBuf,
}

impl Signer {
    pub fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("siforge-cosign-")
            .tempdir()
            .unwrap_or_else(|e| panic!("make a folder: {e}"));
        Self { dir }
    }

    /// A new pair; `algorithm` as `openssl genpkey` has it: `EC:P-256`, `EC:P-384`, `RSA:2048`, `ED25519`.
    pub fn pair(&self, name: &str, algorithm: &str) -> KeyPair {
        let path = |end: &str| self.dir.path().join(format!("{name}.{end}"));
        let (private, public) = (path("pem"), path("pub"));
        let mut openssl = Command::new("openssl");
        match algorithm.split_once(':') {
            Some(("EC", curve)) => {
                openssl.args(["genpkey", "-algorithm", "EC", "-pkeyopt"]).arg(format!("ec_paramgen_curve:{curve}"))
            }
            Some((_, bits)) => {
                openssl.args(["genpkey", "-algorithm", "RSA", "-pkeyopt"]).arg(format!("rsa_keygen_bits:{bits}"))
            }
            None => openssl.args(["genpkey", "-algorithm", algorithm]),
        };
        run(openssl.arg("-out").arg(&private)).ok();
        run(Command::new("openssl").args(["pkey", "-pubout", "-in"]).arg(&private).arg("-out").arg(&public)).ok();
        let prefix = self.dir.path().join(format!("{name}-cosign"));
        let mut import = self.cosign(&["import-key-pair", "--key"]);
        run(import.arg(&private).arg("--output-key-prefix").arg(&prefix)).ok();
        KeyPair { private, cosign: prefix.with_file_name(format!("{name}-cosign.key")), public }
    }

    /// The real program, in a home of its own, without a password for its keys.
    fn cosign(&self, words: &[&str]) -> Command {
        let mut command = Command::new(binaries().join("cosign"));
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", self.dir.path()).env("COSIGN_PASSWORD", "");
        command.args(words).current_dir(self.dir.path());
        command
    }

    /// `cosign sign` by the real program, in a registry without TLS; `name` is `repository:tag` or `repository@digest`.
    pub fn sign(&self, registry: &Registry, name: &str, pair: &KeyPair, layout: Layout, more: &[&str]) {
        let mut sign = self.cosign(&["sign", "--yes", "--tlog-upload=false", "--use-signing-config=false", "--key"]);
        sign.arg(&pair.cosign).arg(layout.flag()).args(more);
        run(sign.arg(format!("{}/{name}", registry.address()))).ok();
    }

    /// `cosign verify` by the real program.
    pub fn verify(&self, registry: &Registry, name: &str, pair: &KeyPair, layout: Layout, more: &[&str]) -> Finished {
        let mut verify = self.cosign(&["verify", "--insecure-ignore-tlog", "--key"]);
        verify.arg(&pair.public).arg(layout.flag()).args(more);
        run(verify.arg(format!("{}/{name}", registry.address())))
    }

    /// Base64 of a signature with SHA-256 by openssl.
    pub fn signature(&self, pair: &KeyPair, message: &[u8]) -> String {
        let (input, output) = (self.dir.path().join("message"), self.dir.path().join("signature"));
        write(&input, message);
        let mut openssl = Command::new("openssl");
        openssl.args(["dgst", "-sha256", "-sign"]).arg(&pair.private).arg("-out").arg(&output).arg(&input);
        run(&mut openssl).ok();
        STANDARD.encode(fs::read(&output).unwrap_or_else(|e| panic!("read {}: {e}", output.display())))
    }

    /// A layer with a simple-signing payload and its annotation.
    pub fn simple(&self, pair: &KeyPair, payload: &[u8]) -> Layer {
        let signature = self.signature(pair, payload);
        let annotations = json!({ "dev.cosignproject.cosign/signature": signature });
        Layer { media_type: SIMPLE, annotations, bytes: payload.to_vec() }
    }

    /// A bundle with a DSSE envelope.
    pub fn dsse(&self, pair: &KeyPair, payload_type: &str, payload: &[u8]) -> Layer {
        let mut pae = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
        pae.extend_from_slice(payload);
        let signature = self.signature(pair, &pae);
        bundle(&json!({ "dsseEnvelope": { "payload": STANDARD.encode(payload), "payloadType": payload_type,
                        "signatures": [{ "sig": signature }] } }))
    }

    /// A bundle with a signature of the manifest's bytes.
    pub fn message(&self, pair: &KeyPair, manifest: &[u8]) -> Layer {
        let digest = sha256(manifest);
        let raw: Vec<u8> =
            (7..digest.len()).step_by(2).map(|at| u8::from_str_radix(&digest[at..at + 2], 16).unwrap_or(0)).collect();
        bundle(
            &json!({ "messageSignature": { "messageDigest": { "algorithm": "SHA2_256", "digest": STANDARD.encode(raw) },
                        "signature": self.signature(pair, manifest) } }),
        )
    }
}

impl Default for Signer {
    fn default() -> Self {
        Self::new()
    }
}

fn bundle(content: &Value) -> Layer {
    let mut bundle = json!({ "mediaType": BUNDLE, "verificationMaterial": { "publicKey": { "hint": "" } } });
    for (name, value) in content.as_object().into_iter().flatten() {
        bundle[name] = value.clone();
    }
    Layer { media_type: BUNDLE, annotations: json!({}), bytes: bundle.to_string().into_bytes() }
}

/// What cosign's payload says of a manifest.
pub fn payload(reference: &str, digest: &str) -> Value {
    json!({ "critical": { "identity": { "docker-reference": reference }, "image": { "docker-manifest-digest": digest },
            "type": "cosign container image signature" }, "optional": null })
}

/// What a bundle's statement says of a manifest.
pub fn statement(digest: &str, predicate: &str) -> Value {
    json!({ "_type": "https://in-toto.io/Statement/v1", "subject": [{ "digest": { "sha256": &digest[7..] } }],
            "predicateType": predicate, "predicate": {} })
}

/// A layer of an artifact.
#[derive(Debug, Clone)]
pub struct Layer {
    pub media_type: &'static str,
    pub annotations: Value,
    pub bytes: Vec<u8>,
}

/// Puts layers as the image at the tag `sha256-<hex>.sig`.
pub fn attach_tag(registry: &Registry, repository: &str, digest: &str, layers: &[Layer]) {
    let config = blob(registry, repository, "application/vnd.oci.image.config.v1+json", b"{}");
    let layers: Vec<Value> = layers.iter().map(|layer| descriptor(registry, repository, layer)).collect();
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers });
    put(registry, repository, &format!("sha256-{}.sig", &digest[7..]), MANIFEST, &manifest);
}

/// Puts each layer as an artifact whose subject is the manifest, and the index of them at the tag `sha256-<hex>`, as a
/// client does for a registry without the referrers API; gives their digests.
pub fn attach_referrers(registry: &Registry, repository: &str, digest: &str, layers: &[Layer]) -> Vec<String> {
    let empty = "application/vnd.oci.empty.v1+json";
    let config = blob(registry, repository, empty, b"{}");
    let mut entries = Vec::new();
    for layer in layers {
        let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": layer.media_type, "config": config,
            "layers": [descriptor(registry, repository, layer)],
            "subject": { "mediaType": MANIFEST, "digest": digest, "size": 2 } });
        let bytes = manifest.to_string();
        let artifact = sha256(bytes.as_bytes());
        put(registry, repository, &artifact, MANIFEST, &manifest);
        entries.push(
            json!({ "mediaType": MANIFEST, "digest": artifact, "size": bytes.len(), "artifactType": layer.media_type }),
        );
    }
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries });
    put(registry, repository, &format!("sha256-{}", &digest[7..]), INDEX, &index);
    entries.iter().map(|entry| entry["digest"].as_str().unwrap_or_default().to_owned()).collect()
}

fn descriptor(registry: &Registry, repository: &str, layer: &Layer) -> Value {
    let mut descriptor = blob(registry, repository, layer.media_type, &layer.bytes);
    descriptor["annotations"] = layer.annotations.clone();
    descriptor
}

/// A manifest's bytes.
pub fn manifest(registry: &Registry, repository: &str, digest: &str) -> Vec<u8> {
    let url = format!("http://{}/v2/{repository}/manifests/{digest}", registry.address());
    let accept = format!("Accept: {MANIFEST}, {INDEX}");
    run(Command::new("curl").args(["-sSf", "-H", &accept, &url])).ok().stdout.into_bytes()
}

/// Uploads a blob to a registry without TLS; gives its descriptor.
fn blob(registry: &Registry, repository: &str, media_type: &str, bytes: &[u8]) -> Value {
    let dir = tempfile::tempdir().unwrap_or_else(|e| panic!("make a folder: {e}"));
    let (file, digest) = (dir.path().join("blob"), sha256(bytes));
    write(&file, bytes);
    let start = format!("http://{}/v2/{repository}/blobs/uploads/", registry.address());
    let show = ["-sSf", "-o", "/dev/null", "-D", "-", "-X", "POST"];
    let headers = run(Command::new("curl").args(show).arg(&start)).ok().stdout;
    let location =
        headers.lines().find_map(|line| line.strip_prefix("Location: ")).unwrap_or_default().trim().to_owned();
    let location =
        if location.starts_with('/') { format!("http://{}{location}", registry.address()) } else { location };
    let url = format!("{location}{}digest={digest}", if location.contains('?') { '&' } else { '?' });
    let kind = "Content-Type: application/octet-stream";
    run(Command::new("curl").args(["-sSf", "-H", kind, "-X", "PUT", &url, "--data-binary"]).arg(at(&file))).ok();
    json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
}

fn put(registry: &Registry, repository: &str, selector: &str, media_type: &str, manifest: &Value) {
    let dir = tempfile::tempdir().unwrap_or_else(|e| panic!("make a folder: {e}"));
    let file = dir.path().join("manifest");
    write(&file, manifest.to_string().as_bytes());
    let url = format!("http://{}/v2/{repository}/manifests/{selector}", registry.address());
    let kind = format!("Content-Type: {media_type}");
    run(Command::new("curl").args(["-sSf", "-H", &kind, "-X", "PUT", &url, "--data-binary"]).arg(at(&file))).ok();
}

fn at(file: &Path) -> String {
    format!("@{}", file.display())
}

fn write(path: &Path, bytes: &[u8]) {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent)
        .and_then(|()| fs::write(path, bytes))
        .unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
}
