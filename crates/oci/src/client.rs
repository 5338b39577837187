//! `resolve`: reference → platform manifest → config.

use crate::auth::Auth;
use crate::error::Missing;
use crate::manifest::{self, Image, Manifest, Unusable};
use crate::operation::{Operation, name};
use crate::retry::Attempts;
use crate::transport::{self, Get, Transport};
use crate::{Compression, Credentials, Error, Platform, Tls, media};
use reqwest::header::CONTENT_TYPE;
use reqwest::{StatusCode, Url};
use sha2::{Digest as _, Sha256};
use siforge_reference::{Digest, ImageRef, ParseError};

/// OCI distribution spec: registries should accept manifests of 4 MiB at least; none accepts more.
const MAX_MANIFEST: u64 = 4 << 20;
/// Configs of images with long histories reach hundreds of KiB.
const MAX_CONFIG: u64 = 8 << 20;
/// Index in index in index: no tool makes more than two.
const MAX_INDEX_DEPTH: usize = 3;
/// Tags that an error lists.
const MAX_TAGS_SHOWN: usize = 10;
const MAX_TAGS_ANSWER: u64 = 1 << 20;

/// One layer of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    pub digest: Digest,
    /// Compressed bytes.
    pub size: u64,
    pub compression: Compression,
    /// SHA-256 of the uncompressed tar (the config's `rootfs.diff_ids`).
    pub diff_id: Digest,
}

/// What a reference resolved to: everything but the layers' bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    pub reference: ImageRef,
    /// Digest of the platform's manifest (not of the index).
    pub manifest_digest: Digest,
    /// As the image config has it.
    pub platform: Platform,
    /// Bottom layer first, as in the manifest.
    pub layers: Vec<Layer>,
    pub config_digest: Digest,
    /// The image config's bytes, hash-checked.
    pub config: Vec<u8>,
}

/// Reads one registry. Tokens and connections are kept between calls, which may run side by side.
#[derive(Debug)]
pub struct Client {
    registry: String,
    base: Url,
    pub(crate) http: Transport,
    pub(crate) auth: Auth,
}

/// A manifest's bytes with what is known of them.
struct Fetched {
    bytes: Vec<u8>,
    digest: Digest,
    content_type: Option<String>,
}

impl Client {
    /// A client for `registry` (`ImageRef::registry`: `docker.io`, `127.0.0.1:5000`): credentials belong to one registry,
    /// so references to others are refused.
    pub fn new(registry: &str, credentials: Option<Credentials>, tls: Tls) -> Result<Self, Error> {
        // Docker Hub's registry is not at the name that images carry (distribution/reference, normalize.go).
        let host = match registry {
            "docker.io" => "registry-1.docker.io",
            host => host,
        };
        let scheme = match tls.plain_http {
            true => "http",
            false => "https",
        };
        let base = Url::parse(&format!("{scheme}://{host}/")).ok();
        let base = base.filter(|url| url.path() == "/" && url.username().is_empty() && url.query().is_none());
        let base = base.ok_or_else(|| ParseError::Image { value: registry.to_owned() })?;
        Ok(Self {
            registry: registry.to_owned(),
            http: Transport::new(registry, &tls)?,
            auth: Auth::new(registry, base.clone(), credentials),
            base,
        })
    }

    /// Finds the image for `platform`: manifest and config, all of it verified against the reference's digest or, for a
    /// tag, against the digests that the tag's manifest gives.
    pub async fn resolve(&self, reference: &ImageRef, platform: &Platform) -> Result<Resolved, Error> {
        self.check(reference)?;
        let operation = Operation::manifest(reference);
        let fetched = match self.manifest(reference, &reference.selector(), reference.digest).await {
            Err(Error::NotFound { operation, .. }) if reference.digest.is_none() => {
                let missing = self.missing(reference).await;
                return Err(Error::NotFound { operation, missing });
            }
            result => result?,
        };
        let (image, manifest_digest) = self.image(reference, &operation, fetched, platform).await?;
        let config = self.config(reference, &image).await?;
        let config_operation = Operation::Config { digest: image.config.digest.to_string(), name: name(reference) };
        let parsed = manifest::config(&config).map_err(|error| unusable(&config_operation, error))?;
        if !serves(&parsed.platform, platform) {
            let available = vec![crate::answer::one_line(&parsed.platform.to_string(), &[])];
            return Err(Error::UnknownPlatform { operation, wanted: platform.to_string(), available });
        }
        if parsed.diff_ids.len() != image.layers.len() {
            let detail = format!("{} layers, but {} diff_ids in the config", image.layers.len(), parsed.diff_ids.len());
            return Err(Error::Malformed { operation: config_operation, detail });
        }
        let layers = image.layers.into_iter().zip(parsed.diff_ids).map(|(blob, diff_id)| Layer {
            digest: blob.digest,
            size: blob.size,
            compression: blob.compression,
            diff_id,
        });
        Ok(Resolved {
            reference: reference.clone(),
            manifest_digest,
            platform: parsed.platform,
            layers: layers.collect(),
            config_digest: image.config.digest,
            config,
        })
    }

    /// Refuses what is not of this registry, and fields that no parser would have made (they become a URL).
    pub(crate) fn check(&self, reference: &ImageRef) -> Result<(), Error> {
        if reference.registry != self.registry {
            let (client, registry) = (self.registry.clone(), reference.registry.clone());
            return Err(Error::OtherRegistry { client, registry });
        }
        let text = reference.to_string();
        let parsed: ImageRef = text.parse()?;
        match parsed.repository == reference.repository && parsed.registry == reference.registry {
            true => Ok(()),
            false => Err(ParseError::Image { value: text }.into()),
        }
    }

    pub(crate) fn url(&self, reference: &ImageRef, kind: &str, selector: &str) -> Result<Url, Error> {
        // What the grammar allows needs no escaping in a path.
        let url = self.base.join(&format!("v2/{}/{kind}/{selector}", reference.repository));
        url.map_err(|_| ParseError::Image { value: reference.to_string() }.into())
    }

    /// Follows indexes to the platform's manifest.
    async fn image(
        &self,
        reference: &ImageRef,
        operation: &Operation,
        mut fetched: Fetched,
        platform: &Platform,
    ) -> Result<(Image, Digest), Error> {
        for _ in 0..=MAX_INDEX_DEPTH {
            let parsed = manifest::parse(&fetched.bytes, fetched.content_type.as_deref());
            let entries = match parsed.map_err(|error| unusable(operation, error))? {
                Manifest::Image(image) => return Ok((image, fetched.digest)),
                Manifest::Index(entries) => entries,
            };
            let unknown = |available| Error::UnknownPlatform {
                operation: operation.clone(),
                wanted: platform.to_string(),
                available,
            };
            let chosen = &manifest::choose(&entries, platform).map_err(unknown)?.descriptor;
            fetched = self.manifest(reference, &chosen.digest.to_string(), Some(chosen.digest)).await?;
            let got = fetched.bytes.len() as u64;
            if got != chosen.size {
                let operation = Operation::Manifest { selector: chosen.digest.to_string(), name: name(reference) };
                return Err(Error::Size { operation, got, want: chosen.size });
            }
        }
        Err(Error::Limit {
            operation: operation.clone(),
            what: "depth of image indexes",
            actual: MAX_INDEX_DEPTH as u64 + 1,
            max: MAX_INDEX_DEPTH as u64,
        })
    }

    async fn manifest(&self, reference: &ImageRef, selector: &str, want: Option<Digest>) -> Result<Fetched, Error> {
        let get = Get {
            operation: Operation::Manifest { selector: selector.to_owned(), name: name(reference) },
            url: self.url(reference, "manifests", selector)?,
            accept: media::ACCEPT_MANIFEST,
            from: 0,
            digest_known: want.is_some(),
        };
        let (bytes, content_type) = self.document(reference, &get, "manifest size", MAX_MANIFEST).await?;
        let digest = sha256(&bytes);
        verify(&get.operation, &bytes, digest, want.unwrap_or(digest))?;
        Ok(Fetched { bytes, digest, content_type })
    }

    async fn config(&self, reference: &ImageRef, image: &Image) -> Result<Vec<u8>, Error> {
        let (digest, size) = (image.config.digest, image.config.size);
        let operation = Operation::Config { digest: digest.to_string(), name: name(reference) };
        if size > MAX_CONFIG {
            return Err(Error::Limit { operation, what: "config size", actual: size, max: MAX_CONFIG });
        }
        let get = Get {
            operation,
            url: self.url(reference, "blobs", &digest.to_string())?,
            accept: "*/*",
            from: 0,
            digest_known: true,
        };
        let (bytes, _) = self.document(reference, &get, "config size", MAX_CONFIG).await?;
        let got = bytes.len() as u64;
        if got != size {
            return Err(Error::Size { operation: get.operation, got, want: size });
        }
        verify(&get.operation, &bytes, sha256(&bytes), digest)?;
        Ok(bytes)
    }

    /// A whole document and its content type, with retries.
    async fn document(
        &self,
        reference: &ImageRef,
        get: &Get,
        what: &'static str,
        max: u64,
    ) -> Result<(Vec<u8>, Option<String>), Error> {
        let mut attempts = Attempts::default();
        loop {
            match self.try_document(reference, get, what, max).await {
                Ok(document) => return Ok(document),
                Err(error) => attempts.pause(error).await?,
            }
        }
    }

    async fn try_document(
        &self,
        reference: &ImageRef,
        get: &Get,
        what: &'static str,
        max: u64,
    ) -> Result<(Vec<u8>, Option<String>), Error> {
        let response = self.auth.get(&self.http, reference, get).await?;
        if response.status() != StatusCode::OK {
            return Err(self.auth.refusal(get.operation.clone(), response).await);
        }
        let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let content_type = content_type.map(str::to_owned);
        Ok((transport::body(&get.operation, response, what, max).await?, content_type))
    }

    /// What a tag's 404 is about: registries answer the same for a repository and for a tag that they do not know, but
    /// list a repository's tags only if there is one.
    async fn missing(&self, reference: &ImageRef) -> Missing {
        #[derive(serde::Deserialize)]
        struct Tags {
            #[serde(default)]
            tags: Option<Vec<String>>,
        }
        let unclear = || Missing::Manifest { detail: "no such repository or tag".to_owned() };
        let Ok(url) = self.url(reference, "tags", "list") else {
            return unclear();
        };
        let operation = Operation::Tags { name: name(reference) };
        let get = Get { operation, url, accept: "application/json", from: 0, digest_known: false };
        match self.try_document(reference, &get, "list of tags", MAX_TAGS_ANSWER).await {
            Ok((bytes, _)) => {
                let tags = serde_json::from_slice::<Tags>(&bytes).ok().and_then(|answer| answer.tags);
                let tags = tags.unwrap_or_default();
                let shown = tags.iter().take(MAX_TAGS_SHOWN).map(|tag| crate::answer::one_line(tag, &[]));
                let more = (tags.len() > MAX_TAGS_SHOWN).then(|| "…".to_owned());
                Missing::Tag { tags: shown.chain(more).collect() }
            }
            Err(Error::NotFound { .. }) => Missing::Repository,
            Err(_) => unclear(),
        }
    }
}

/// Whether an image of platform `have` may be given to who wants `wanted`. Images of old builders name no platform.
fn serves(have: &Platform, wanted: &Platform) -> bool {
    (have.os.is_empty() && have.architecture.is_empty()) || have.rank(wanted).is_some()
}

fn sha256(bytes: &[u8]) -> Digest {
    Digest::from_bytes(Sha256::digest(bytes).into())
}

fn verify(operation: &Operation, bytes: &[u8], got: Digest, want: Digest) -> Result<(), Error> {
    match got == want {
        true => Ok(()),
        false => Err(Error::Checksum {
            operation: operation.clone(),
            read: bytes.len() as u64,
            got: Box::new(got),
            want: Box::new(want),
        }),
    }
}

fn unusable(operation: &Operation, error: Unusable) -> Error {
    let operation = operation.clone();
    match error {
        Unusable::Malformed(detail) => Error::Malformed { operation, detail: crate::answer::one_line(&detail, &[]) },
        Unusable::Unsupported(detail) => {
            Error::Unsupported { operation, detail: crate::answer::one_line(&detail, &[]) }
        }
        Unusable::TooManyLayers(count) => {
            Error::Limit { operation, what: "number of layers", actual: count as u64, max: manifest::MAX_LAYERS as u64 }
        }
    }
}
