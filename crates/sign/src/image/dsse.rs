//! DSSE envelopes: signatures by keys in PEM (sylabs/sif `pkg/integrity/dsse.go`, DSSE `envelope.md`, `protocol.md`).
//!
//! ```text
//! {"payloadType":"application/vnd.sylabs.sif-metadata+json","payload":base64(text),"signatures":[{"keyid":"SHA256:…","sig":base64}]}
//! signed: "DSSEv1" SP LEN(payloadType) SP payloadType SP LEN(payload) SP payload
//! ```

use super::pem::SecretPem;
use super::pgp::Signer;
use super::{Error, Flaw};
use crate::cosign::Key;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

const PAYLOAD_TYPE: &str = "application/vnd.sylabs.sif-metadata+json";
/// Most signatures of an envelope that are tried: each costs a verification per key.
const MAX_SIGNATURES: usize = 16;

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Envelope {
    payload_type: String,
    payload: String,
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Deserialize, Serialize)]
struct EnvelopeSignature {
    #[serde(default)]
    keyid: String,
    sig: String,
}

impl Envelope {
    /// None if the bytes are something else.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().filter(|envelope: &Self| envelope.payload_type == PAYLOAD_TYPE)
    }

    /// An envelope of the text, signed.
    pub(super) fn sign(text: &str, key: &SecretPem) -> Result<String, Error> {
        let failed = |why: &str| Error::Key { fingerprint: key.public().fingerprint().to_owned(), why: why.to_owned() };
        let signature = key.sign(&signed(text.as_bytes())).ok_or_else(|| failed("the key does not fit together"))?;
        let signature = EnvelopeSignature { keyid: key.id(), sig: STANDARD.encode(signature) };
        let envelope =
            Self { payload_type: PAYLOAD_TYPE.into(), payload: STANDARD.encode(text), signatures: vec![signature] };
        serde_json::to_string(&envelope).map_err(|source| Error::Text { source })
    }

    /// Who signed, and the text that was signed.
    pub(super) fn check(&self, keys: &[Key]) -> Result<(Signer, String), Flaw> {
        let invalid = |why: &str| Flaw::Invalid { why: format!("DSSE envelope: {why}") };
        if self.signatures.len() > MAX_SIGNATURES {
            return Err(invalid("it has more than 16 signatures"));
        }
        let decoded = |text: &str, what: &str| {
            STANDARD.decode(text).map_err(|error| invalid(&format!("the {what} is no base64: {error}")))
        };
        if keys.is_empty() {
            return Err(Flaw::UnknownKey { key: "in PEM that --key or --certificate must name".into() });
        }
        let payload = decoded(&self.payload, "payload")?;
        let signed = signed(&payload);
        for signature in &self.signatures {
            let signature = decoded(&signature.sig, "signature")?;
            if let Some(key) = keys.iter().find(|key| key.signed(&signed, &signature)) {
                let signer = Signer { name: None, fingerprint: key.fingerprint().to_owned(), created: None };
                let text = String::from_utf8(payload).map_err(|_| invalid("the payload is not UTF-8"))?;
                return Ok((signer, text));
            }
        }
        Err(invalid("no signature in it is by the key that was given"))
    }
}

/// DSSE's pre-authentication encoding.
fn signed(payload: &[u8]) -> Vec<u8> {
    let start = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), payload.len());
    [start.as_bytes(), payload].concat()
}
