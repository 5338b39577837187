//! DSSE envelopes: signatures by keys in PEM (sylabs/sif `pkg/integrity/dsse.go`, DSSE `envelope.md`, `protocol.md`).
//!
//! ```text
//! {"payloadType":"application/vnd.sylabs.sif-metadata+json","payload":base64(text),"signatures":[{"keyid":"SHA256:…","sig":base64}]}
//! signed: "DSSEv1" SP LEN(payloadType) SP payloadType SP LEN(payload) SP payload
//! ```

use super::Flaw;
use super::pgp::Signer;
use crate::cosign::Key;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

const PAYLOAD_TYPE: &str = "application/vnd.sylabs.sif-metadata+json";
/// Most signatures of an envelope that are tried: each costs a verification per key.
const MAX_SIGNATURES: usize = 16;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Envelope {
    payload_type: String,
    payload: String,
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Deserialize)]
struct EnvelopeSignature {
    sig: String,
}

impl Envelope {
    /// None if the bytes are something else.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().filter(|envelope: &Self| envelope.payload_type == PAYLOAD_TYPE)
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
        let start = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), payload.len());
        let signed = [start.as_bytes(), &payload].concat();
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
