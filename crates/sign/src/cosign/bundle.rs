//! Sigstore bundles.

use super::{BUNDLE, Flaw, SIGN_PREDICATE, Subject, json, shown, signer};
use crate::cosign::Key;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::BTreeMap;

/// The media type as versions before 0.3 wrote it, with their successor's number.
const BUNDLE_PARAMETER: &str = "application/vnd.dev.sigstore.bundle+json;version=0.3";
const IN_TOTO: &str = "application/vnd.in-toto+json";
const STATEMENTS: [&str; 2] = ["https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"];
/// A signature of an image has one subject.
const MAX_SUBJECTS: usize = 64;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    #[serde(alias = "media_type")]
    media_type: String,
    #[serde(default, alias = "verification_material")]
    verification_material: Option<Material>,
    #[serde(default, alias = "dsse_envelope")]
    dsse_envelope: Option<Envelope>,
    #[serde(default, alias = "message_signature")]
    message_signature: Option<Message>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Material {
    #[serde(default)]
    certificate: Option<IgnoredAny>,
    #[serde(default, alias = "x509_certificate_chain")]
    x509_certificate_chain: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    #[serde(alias = "payload_type")]
    payload_type: String,
    signatures: Vec<Sig>,
}

#[derive(Deserialize)]
struct Sig {
    sig: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message {
    #[serde(default, alias = "message_digest")]
    message_digest: Option<MessageDigest>,
    signature: String,
}

#[derive(Deserialize)]
struct MessageDigest {
    #[serde(default)]
    algorithm: String,
    #[serde(default)]
    digest: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<StatementSubject>,
    predicate_type: String,
}

#[derive(Deserialize)]
struct StatementSubject {
    #[serde(default)]
    digest: BTreeMap<String, String>,
}

pub(super) fn verify(bytes: &[u8], subject: &Subject<'_>, keys: &[Key]) -> Result<usize, Flaw> {
    let bundle: Bundle = json::parse(bytes, "bundle")?;
    if bundle.media_type != BUNDLE && bundle.media_type != BUNDLE_PARAMETER {
        return Err(Flaw::Unsupported { what: "bundle of media type", value: shown(&bundle.media_type) });
    }
    let keyless = bundle
        .verification_material
        .is_some_and(|material| material.certificate.is_some() || material.x509_certificate_chain.is_some());
    match (bundle.dsse_envelope, bundle.message_signature) {
        (Some(envelope), None) => verify_envelope(&envelope, subject, keys, keyless),
        (None, Some(message)) => verify_message(&message, subject, keys, keyless),
        (Some(_), Some(_)) => Err(json::malformed("bundle", "both an envelope and a message signature")),
        (None, None) => Err(json::malformed("bundle", "neither an envelope nor a message signature")),
    }
}

fn verify_envelope(envelope: &Envelope, subject: &Subject<'_>, keys: &[Key], keyless: bool) -> Result<usize, Flaw> {
    // The specification of the bundle: "MUST contain only one signature".
    let [signature] = envelope.signatures.as_slice() else {
        let detail = format!("{} signatures in the envelope, not one", envelope.signatures.len());
        return Err(json::malformed("bundle", &detail));
    };
    let payload = json::base64(&envelope.payload, "payload")?;
    let signature = json::base64(&signature.sig, "signature")?;
    let key = signer(keys, &pae(&envelope.payload_type, &payload), &signature, keyless)?;
    if envelope.payload_type != IN_TOTO {
        let what = format!("a payload of type {:?}", shown(&envelope.payload_type));
        return Err(Flaw::OtherPurpose { what });
    }
    let statement: Statement = json::parse(&payload, "statement")?;
    is_of(&statement, subject).map(|()| key)
}

/// Whether the statement says that the subject is signed.
fn is_of(statement: &Statement, subject: &Subject<'_>) -> Result<(), Flaw> {
    if !STATEMENTS.contains(&statement.kind.as_str()) {
        return Err(Flaw::Unsupported { what: "statement of type", value: shown(&statement.kind) });
    }
    if statement.predicate_type != SIGN_PREDICATE {
        let what = format!("an attestation ({})", shown(&statement.predicate_type));
        return Err(Flaw::OtherPurpose { what });
    }
    if statement.subject.len() > MAX_SUBJECTS {
        let (actual, max) = (statement.subject.len() as u64, MAX_SUBJECTS as u64);
        return Err(Flaw::Limit { what: "the number of the statement's subjects", actual, max });
    }
    let hex = subject.digest.hex();
    let mut digests = statement.subject.iter().filter_map(|subject| subject.digest.get("sha256"));
    match digests.clone().any(|digest| *digest == hex) {
        true => Ok(()),
        false => {
            let signed = digests.next().map_or_else(|| "nothing".to_owned(), |hex| format!("sha256:{}", shown(hex)));
            Err(Flaw::OtherImage { signed })
        }
    }
}

fn verify_message(message: &Message, subject: &Subject<'_>, keys: &[Key], keyless: bool) -> Result<usize, Flaw> {
    let signature = json::base64(&message.signature, "signature")?;
    // The digest is only a help to find the signed bytes; what counts is the signature.
    if let Some(MessageDigest { algorithm, digest }) = &message.message_digest
        && algorithm == "SHA2_256"
    {
        let digest = json::base64(digest, "digest")?;
        if digest != subject.digest.bytes() {
            let hex: String = digest.iter().take(32).map(|byte| format!("{byte:02x}")).collect();
            return Err(json::malformed("bundle", &format!("it says that it is of sha256:{hex}")));
        }
    }
    signer(keys, subject.bytes, &signature, keyless)
}

/// What a DSSE signature signs.
fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let start = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [start.as_bytes(), payload].concat()
}
