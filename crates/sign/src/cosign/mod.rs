//! cosign's key-based signatures of images: a signature's bytes and the manifest in, a verdict out. Pure.
//!
//! ```text
//!   simple signing   a layer of the image at the tag sha256-<hex>.sig
//!     layer          { "critical": { "identity": { "docker-reference": NAME },
//!                                    "image": { "docker-manifest-digest": "sha256:…" },
//!                                    "type": "cosign container image signature" }, "optional": … }
//!     annotation     dev.cosignproject.cosign/signature = base64(signature of the layer's bytes)
//!
//!   bundle           the one layer of an artifact whose subject is the manifest
//!     { "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
//!       "verificationMaterial": { "publicKey": { "hint" } | "certificate": …, "tlogEntries": … },
//!       "dsseEnvelope": { "payloadType": "application/vnd.in-toto+json", "payload": base64(statement),
//!                         "signatures": [ { "sig": base64(signature of PAE) } ] }
//!     | "messageSignature": { "messageDigest": { "algorithm", "digest" }, "signature": base64(of the manifest's bytes) } }
//!     PAE            "DSSEv1" SP LEN(payloadType) SP payloadType SP LEN(payload) SP payload
//!     statement      { "_type": "https://in-toto.io/Statement/v1", "subject": [ { "digest": { "sha256": HEX } } ],
//!                      "predicateType": "https://sigstore.dev/cosign/sign/v1" }
//! ```
//! cosign `specs/SIGNATURE_SPEC.md`, sigstore `protobuf-specs/protos/sigstore_bundle.proto`, DSSE `protocol.md`, in-toto
//! `spec/v1/statement.md`.
//!
//! A signature is looked at before what it signs is parsed. Times and the entries of transparency logs are not: whoever
//! names a key trusts it whenever it signed.

mod bundle;
mod json;
mod key;
mod simple;

pub use key::{InvalidKey, Key, MAX_FILE as MAX_KEY_FILE};

use siforge_reference::Digest;
use std::collections::BTreeMap;

/// Of a layer with a simple-signing payload.
pub const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// Of a layer with a bundle, and of the artifact that has it.
pub const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// What the tag ends with that has an image's simple-signing layers.
pub const TAG_SUFFIX: &str = ".sig";
/// A payload has 236 bytes and the annotations of who signed, a bundle a few KiB and its log entries.
pub const MAX_BYTES: u64 = 1 << 20;

const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const CERTIFICATE: &str = "dev.sigstore.cosign/certificate";
const PREDICATE: &str = "dev.sigstore.bundle.predicateType";
const SIGN_PREDICATE: &str = "https://sigstore.dev/cosign/sign/v1";

/// What is to be signed: a manifest or an index.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    pub digest: Digest,
    /// Its bytes, which have that digest.
    pub bytes: &'a [u8],
}

/// A layer that a registry holds for a subject.
#[derive(Clone, Copy, Debug)]
pub struct Signature<'a> {
    pub media_type: &'a str,
    /// The layer's; anybody may have written them.
    pub annotations: &'a BTreeMap<String, String>,
    pub bytes: &'a [u8],
}

/// Why a signature counts for nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Flaw {
    #[error("made by another key")]
    OtherKey,
    #[error("made by another key, for a certificate (keyless): signatures are verified by keys alone")]
    Keyless,
    #[error("a valid signature, but of {signed}")]
    OtherImage { signed: String },
    #[error("not a signature of an image but {what}")]
    OtherPurpose { what: String },
    #[error("{what} is {actual}, at most {max} allowed")]
    Limit { what: &'static str, actual: u64, max: u64 },
    #[error("{what} not understood: {detail}")]
    Malformed { what: &'static str, detail: String },
    #[error("{what} {value:?} is not supported")]
    Unsupported { what: &'static str, value: String },
}

/// Whether one of `keys` signed `subject`: which.
pub fn verify(signature: &Signature<'_>, subject: &Subject<'_>, keys: &[Key]) -> Result<usize, Flaw> {
    let actual = signature.bytes.len() as u64;
    if actual > MAX_BYTES {
        return Err(Flaw::Limit { what: "the signature's size", actual, max: MAX_BYTES });
    }
    match signature.media_type {
        SIMPLE_SIGNING => simple::verify(signature, subject, keys),
        BUNDLE => bundle::verify(signature.bytes, subject, keys),
        other => Err(Flaw::Unsupported { what: "media type", value: shown(other) }),
    }
}

/// Whether the artifact with these annotations cannot be a signature by its own word: an SBOM, a provenance or another
/// attestation, which need not be fetched.
pub fn is_another_attestation(annotations: &BTreeMap<String, String>) -> bool {
    annotations.get(PREDICATE).is_some_and(|predicate| predicate != SIGN_PREDICATE)
}

/// The key that made `signature` of `message`.
fn signer(keys: &[Key], message: &[u8], signature: &[u8], keyless: bool) -> Result<usize, Flaw> {
    let signer = keys.iter().position(|key| key.signed(message, signature));
    signer.ok_or(if keyless { Flaw::Keyless } else { Flaw::OtherKey })
}

/// A string of others for an error.
fn shown(text: &str) -> String {
    const MAX: usize = 120;
    let line: String = text.chars().filter(|c| !c.is_control()).take(MAX).collect();
    if text.chars().count() > MAX { line + "…" } else { line }
}

#[cfg(test)]
mod tests;
