//! Simple signing: the payload is the layer, its signature an annotation.

use super::{CERTIFICATE, Flaw, SIGNATURE, Signature, Subject, json, shown, signer};
use crate::cosign::Key;
use serde::Deserialize;

const TYPE: &str = "cosign container image signature";

#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

/// `identity` is not among it: cosign does not compare it either (`SimpleClaimVerifier`), so that a copy of an image with
/// its signatures stays signed wherever it goes.
#[derive(Deserialize)]
struct Critical {
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

pub(super) fn verify(layer: &Signature<'_>, subject: &Subject<'_>, keys: &[Key]) -> Result<usize, Flaw> {
    let encoded = layer.annotations.get(SIGNATURE);
    let encoded = encoded.ok_or_else(|| json::malformed("layer", "it has no annotation with a signature"))?;
    let signature = json::base64(encoded, "signature")?;
    let keyless = layer.annotations.get(CERTIFICATE).is_some_and(|pem| !pem.is_empty());
    let key = signer(keys, layer.bytes, &signature, keyless)?;
    let Payload { critical } = json::parse(layer.bytes, "payload")?;
    if critical.kind != TYPE {
        return Err(Flaw::OtherPurpose { what: format!("{:?}", shown(&critical.kind)) });
    }
    match critical.image.digest == subject.digest.to_string() {
        true => Ok(key),
        false => Err(Flaw::OtherImage { signed: shown(&critical.image.digest) }),
    }
}
