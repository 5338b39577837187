//! `--verify-key`: an image is taken only if one of the keys signed its manifest, or the index that it was found by.
//!
//! Between resolving and the first byte of a layer. What is fetched afterwards has the digest that was verified.

use crate::cli::{Global, Registry};
use crate::error::Error;
use siforge_oci::{Attached, Client, Content, Document, Wanted, http_sif, one_line};
use siforge_reference::{Digest, ImageRef, Reference};
use siforge_sign::cosign::{self, Key, Signature, Subject};
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

const WANTED: Wanted<'static> = Wanted {
    tag_suffix: cosign::TAG_SUFFIX,
    artifact_type: cosign::BUNDLE,
    layer_types: &[cosign::SIMPLE_SIGNING, cosign::BUNDLE],
    max_bytes: cosign::MAX_BYTES,
    skip: cosign::is_another_attestation,
};
/// Findings that an error tells.
const SHOWN: usize = 8;

/// The keys of `--verify-key`; none: nothing is verified.
#[derive(Debug)]
pub(crate) struct Keys {
    files: Vec<PathBuf>,
    keys: Vec<Key>,
}

/// An image without a signature that counts.
#[derive(Debug, thiserror::Error)]
pub(crate) struct NotSigned {
    image: String,
    /// What a signature could have been of.
    digests: Vec<Digest>,
    files: Vec<PathBuf>,
    findings: BTreeSet<String>,
}

impl fmt::Display for NotSigned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { image, digests, files, findings } = self;
        let digests: Vec<_> = digests.iter().map(Digest::to_string).collect();
        let files: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
        write!(f, "{image}: no signature of {} by {}; found: ", digests.join(" or "), files.join(" or "))?;
        if findings.is_empty() {
            return f.write_str("none at all; nothing was built");
        }
        let shown: Vec<_> = findings.iter().take(SHOWN).map(String::as_str).collect();
        f.write_str(&shown.join("; "))?;
        match findings.len().saturating_sub(SHOWN) {
            0 => f.write_str("; nothing was built"),
            more => write!(f, "; and {more} more; nothing was built"),
        }
    }
}

pub(crate) fn keys(files: &[PathBuf]) -> Result<Keys, Error> {
    let keys = files.iter().map(|path| key(path)).collect::<Result<_, _>>()?;
    Ok(Keys { files: files.to_owned(), keys })
}

fn key(path: &Path) -> Result<Key, Error> {
    let text = crate::files::read_limited(path, cosign::MAX_KEY_FILE)?;
    Key::from_pem(&text).map_err(|source| Error::VerifyKey { path: path.to_owned(), source })
}

/// `--verify-key` where nothing could be verified is refused: who gives it relies on it.
pub(crate) fn check_signable(registry: &Registry, reference: &Reference) -> Result<(), Error> {
    let value = match reference {
        _ if registry.verify_key.is_empty() => return Ok(()),
        Reference::Docker(_) | Reference::Oras(_) => return Ok(()),
        Reference::Http(url) => http_sif::shown(url),
        other => other.to_string(),
    };
    Err(Error::NotSignable { value })
}

/// Whether one of the keys signed one of `documents`, by what the image's places have: the mirror first.
pub(crate) async fn check(
    global: &Global,
    keys: &Keys,
    client: &Client,
    image: &ImageRef,
    documents: &[Document],
) -> Result<(), Error> {
    if keys.keys.is_empty() {
        return Ok(());
    }
    let mut findings = BTreeSet::new();
    let last = client.attached_places().saturating_sub(1);
    for place in 0..=last {
        for document in documents {
            let attached = match client.attached(place, image, &document.digest, &WANTED).await {
                Ok(attached) => attached,
                // There is another place to go on at.
                Err(error) if place < last => {
                    findings.insert(error.to_string());
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            match judge(&attached, document, &keys.keys) {
                Ok(key) => {
                    tell(global, keys, key, image, document);
                    return Ok(());
                }
                Err(flaws) => findings.extend(flaws),
            }
        }
    }
    let (files, digests) = (keys.files.clone(), documents.iter().map(|document| document.digest).collect());
    Err(Error::NotSigned(Box::new(NotSigned { image: image.to_string(), digests, files, findings })))
}

fn tell(global: &Global, keys: &Keys, key: usize, image: &ImageRef, document: &Document) {
    if let (false, Some(file), Some(key)) = (global.is_quiet(), keys.files.get(key), keys.keys.get(key)) {
        let (digest, print) = (document.digest, key.fingerprint());
        eprintln!("info: {image}: {digest} is signed by the key {} ({print})", file.display());
    }
}

/// Which key signed the document, or what is wrong with each thing that there is.
fn judge(attached: &[Attached], document: &Document, keys: &[Key]) -> Result<usize, Vec<String>> {
    let subject = Subject { digest: document.digest, bytes: &document.bytes };
    let mut flaws = Vec::new();
    for Attached { at, media_type, annotations, content } in attached {
        let flaw = match content {
            Content::Bytes(bytes) => {
                match cosign::verify(&Signature { media_type, annotations, bytes }, &subject, keys) {
                    Ok(key) => return Ok(key),
                    Err(flaw) => flaw.to_string(),
                }
            }
            Content::Unreadable(why) => why.clone(),
        };
        flaws.push(one_line(&format!("{at}: {flaw}")));
    }
    Err(flaws)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_image_digest_keys_and_findings() {
        let check = |findings: &[String], expect: &str| {
            let digests = vec![Digest::from_bytes([0; 32]), Digest::from_bytes([1; 32])];
            let files = vec!["/a.pub".into(), "/b.pub".into()];
            let findings = findings.iter().cloned().collect();
            let text = NotSigned { image: "host/x:v1".into(), digests, files, findings }.to_string();
            let start = format!(
                "host/x:v1: no signature of sha256:{} or sha256:{} by /a.pub or /b.pub; found: ",
                "00".repeat(32),
                "01".repeat(32)
            );
            assert_eq!(text, format!("{start}{expect}"));
        };
        check(&[], "none at all; nothing was built");
        check(&["a".into(), "a".into(), "b".into()], "a; b; nothing was built");
        let many: Vec<_> = (0..10).map(|n| n.to_string()).collect();
        check(&many, "0; 1; 2; 3; 4; 5; 6; 7; and 2 more; nothing was built");
    }
}
