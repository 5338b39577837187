//! `resolve`: reference → platform manifest → config.

use crate::auth::Auth;
use crate::error::Missing;
use crate::manifest::{self, Image, Manifest, Unusable};
use crate::operation::{Operation, name};
use crate::transport::{Get, Transport};
use crate::{Compression, Credentials, Error, Platform, Tls, media};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName};
use reqwest::{StatusCode, Url};
use sha2::{Digest as _, Sha256};
use siforge_reference::{Digest, ImageRef, ParseError};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// OCI distribution spec: registries should accept manifests of 4 MiB at least; none accepts more.
pub(crate) const MAX_MANIFEST: u64 = 4 << 20;
/// Configs of images with long histories reach hundreds of KiB.
pub(crate) const MAX_CONFIG: u64 = 8 << 20;
/// Index in index in index: no tool makes more than two.
pub(crate) const MAX_INDEX_DEPTH: usize = 3;
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
    /// Where a foreign layer is besides the registry; such hosts are sent no credentials.
    pub urls: Vec<String>,
}

/// A manifest or an index, hash-checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    pub digest: Digest,
    pub bytes: Vec<u8>,
}

/// What a reference resolved to: everything but the layers' bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    pub reference: ImageRef,
    /// Digest of the platform's manifest (not of the index).
    pub manifest_digest: Digest,
    /// What the reference named (an index perhaps) first, the platform's manifest last: a signature may be of any.
    pub manifests: Vec<Document>,
    /// As the image config has it.
    pub platform: Platform,
    /// Bottom layer first, as in the manifest.
    pub layers: Vec<Layer>,
    pub config_digest: Digest,
    /// The image config's bytes, hash-checked.
    pub config: Vec<u8>,
}

/// Reads one registry, or for one image its mirrors first. Tokens and connections are kept between calls, which may run
/// side by side.
#[derive(Debug)]
pub struct Client {
    /// As references name it.
    registry: String,
    /// Where the one repository of this client is, when that is not what references call it.
    moved: Option<Moved>,
    base: Url,
    pub(crate) http: Transport,
    pub(crate) auth: Auth,
    /// Asked in order before this one.
    mirrors: Vec<Client>,
    /// Which of them (their number is this client) the last image was found at.
    found: AtomicUsize,
    /// Mirrors that cannot be asked at all.
    passed_over: Vec<Error>,
}

/// A repository's name and what it is called where it is.
#[derive(Debug)]
struct Moved {
    from: String,
    registry: String,
    repository: String,
}

/// A place where an image is, and how it is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// `HOST[:PORT]`.
    pub registry: String,
    pub repository: String,
    pub credentials: Option<Credentials>,
    pub tls: Tls,
    /// How other hosts are spoken with that the registry points at: its token server, a redirect's.
    pub elsewhere: Tls,
    /// Where no TLS is spoken, HTTP will do.
    pub try_http: bool,
}

/// A manifest's bytes with what is known of them.
struct Fetched {
    bytes: Vec<u8>,
    digest: Digest,
    content_type: Option<String>,
}

impl Client {
    /// A client for `registry` (`ImageRef::registry`: `docker.io`, `127.0.0.1:5000`): credentials belong to one registry,
    /// so references to others are refused. Hosts that it points at are spoken with in the same way, but for the client's
    /// own certificate.
    pub fn new(registry: &str, credentials: Option<Credentials>, tls: Tls) -> Result<Self, Error> {
        Self::with(registry, credentials, &tls, &Tls { identity: None, ..tls.clone() })
    }

    fn with(registry: &str, credentials: Option<Credentials>, tls: &Tls, elsewhere: &Tls) -> Result<Self, Error> {
        let base = base(registry, tls)?;
        Ok(Self {
            registry: registry.to_owned(),
            moved: None,
            http: Transport::new(registry, &base, tls, elsewhere)?,
            auth: Auth::new(registry, base.clone(), credentials),
            base,
            mirrors: Vec::new(),
            found: AtomicUsize::new(0),
            passed_over: Vec::new(),
        })
    }

    /// A client for one image's repository, at several places: the last is the registry itself, those before it are its
    /// mirrors. What it resolves carries the image's own name all the same.
    pub async fn connect(image: &ImageRef, endpoints: Vec<Endpoint>) -> Result<Self, Error> {
        let (mut clients, mut passed_over) = (Vec::new(), Vec::new());
        let last = endpoints.len().saturating_sub(1);
        for (at, endpoint) in endpoints.into_iter().enumerate() {
            match Self::at(image, endpoint).await {
                Ok(client) => clients.push(client),
                Err(error) if at < last => passed_over.push(error),
                Err(error) => return Err(error.after(passed_over)),
            }
        }
        let registry = clients.pop().ok_or_else(|| ParseError::Image { value: image.to_string() })?;
        // There is another place to go on at: a mirror that is down must not cost each request its pauses.
        for mirror in &mut clients {
            mirror.http.tries = 1;
        }
        Ok(Self { mirrors: clients, passed_over, ..registry })
    }

    /// Why mirrors are not asked.
    pub fn passed_over(&self) -> &[Error] {
        &self.passed_over
    }

    async fn at(image: &ImageRef, endpoint: Endpoint) -> Result<Self, Error> {
        let Endpoint { registry, repository, credentials, mut tls, elsewhere, try_http } = endpoint;
        let mut client = Self::with(&registry, credentials.clone(), &tls, &elsewhere)?;
        if try_http && !tls.plain_http && !client.auth.answers(&client.http).await? {
            tls.plain_http = true;
            client = Self::with(&registry, credentials, &tls, &elsewhere)?;
        }
        let moved = Moved { from: image.repository.clone(), registry, repository };
        Ok(Self { registry: image.registry.clone(), moved: Some(moved), ..client })
    }

    /// How long a registry may be silent before a request counts as broken; 60 s unless told.
    #[must_use]
    pub fn with_idle_timeout(mut self, idle: Duration) -> Self {
        self.http.idle = idle;
        self.mirrors = self.mirrors.into_iter().map(|mirror| mirror.with_idle_timeout(idle)).collect();
        self
    }

    /// Whether the registry takes this client's credentials; false when it takes anybody. An error says why it does not.
    pub async fn verify(&self) -> Result<bool, Error> {
        self.auth.verify(&self.http).await
    }

    /// The places that can have what was resolved last, and then this registry.
    pub(crate) fn places(&self) -> impl Iterator<Item = &Self> {
        self.mirrors.iter().chain([self]).skip(self.found.load(Ordering::Relaxed))
    }

    /// Finds the image for `platform`: manifest and config, all of it verified against the reference's digest or, for a
    /// tag, against the digests that the tag's manifest gives.
    pub async fn resolve(&self, reference: &ImageRef, platform: &Platform) -> Result<Resolved, Error> {
        let mut failed = self.passed_over.clone();
        for (at, mirror) in self.mirrors.iter().enumerate() {
            match mirror.resolve_here(reference, platform).await {
                Ok(resolved) => {
                    self.found.store(at, Ordering::Relaxed);
                    return Ok(resolved);
                }
                Err(error) => failed.push(error),
            }
        }
        self.found.store(self.mirrors.len(), Ordering::Relaxed);
        self.resolve_here(reference, platform).await.map_err(|error| error.after(failed))
    }

    async fn resolve_here(&self, reference: &ImageRef, platform: &Platform) -> Result<Resolved, Error> {
        let named = reference;
        let reference = &self.locate(reference)?;
        let operation = Operation::manifest(reference);
        let fetched = match self.manifest(reference, &reference.selector(), reference.digest).await {
            Err(Error::NotFound { operation, .. }) if reference.digest.is_none() => {
                let missing = self.missing(reference).await;
                return Err(Error::NotFound { operation, missing });
            }
            result => result?,
        };
        let (image, manifest_digest, manifests) = self.image(reference, &operation, fetched, platform).await?;
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
            urls: blob.urls,
        });
        Ok(Resolved {
            reference: named.clone(),
            manifest_digest,
            manifests,
            platform: parsed.platform,
            layers: layers.collect(),
            config_digest: image.config.digest,
            config,
        })
    }

    /// What this registry calls the image. Refuses what is not of this registry, and fields that no parser would have made
    /// (they become a URL).
    pub(crate) fn locate(&self, reference: &ImageRef) -> Result<ImageRef, Error> {
        let text = reference.to_string();
        let parsed: ImageRef = text.parse()?;
        if parsed.repository != reference.repository || parsed.registry != reference.registry {
            return Err(ParseError::Image { value: text }.into());
        }
        let other = || Error::OtherRegistry { client: self.name(), registry: reference.registry.clone() };
        if reference.registry != self.registry {
            return Err(other());
        }
        match &self.moved {
            None => Ok(parsed),
            Some(Moved { from, .. }) if *from != reference.repository => Err(other()),
            Some(Moved { registry, repository, .. }) => {
                Ok(ImageRef { registry: registry.clone(), repository: repository.clone(), ..parsed })
            }
        }
    }

    fn name(&self) -> String {
        match &self.moved {
            None => self.registry.clone(),
            Some(moved) => format!("{}/{}", self.registry, moved.from),
        }
    }

    pub(crate) fn url(&self, reference: &ImageRef, kind: &str, selector: &str) -> Result<Url, Error> {
        // What the grammar allows needs no escaping in a path.
        let url = self.base.join(&format!("v2/{}/{kind}/{selector}", reference.repository));
        url.map_err(|_| ParseError::Image { value: reference.to_string() }.into())
    }

    /// Follows indexes to the platform's manifest, which is the last of the documents.
    async fn image(
        &self,
        reference: &ImageRef,
        operation: &Operation,
        mut fetched: Fetched,
        platform: &Platform,
    ) -> Result<(Image, Digest, Vec<Document>), Error> {
        let mut documents = Vec::new();
        for _ in 0..=MAX_INDEX_DEPTH {
            let parsed = manifest::parse(&fetched.bytes, fetched.content_type.as_deref());
            documents.push(Document { digest: fetched.digest, bytes: fetched.bytes });
            let entries = match parsed.map_err(|error| unusable(operation, error))? {
                Manifest::Image(image) => return Ok((image, fetched.digest, documents)),
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

    /// A manifest as it is.
    pub(crate) async fn manifest_bytes(&self, reference: &ImageRef) -> Result<Document, Error> {
        self.document_at(reference, &reference.selector(), reference.digest).await
    }

    /// The manifest of a tag or digest, as it is.
    pub(crate) async fn document_at(
        &self,
        reference: &ImageRef,
        selector: &str,
        want: Option<Digest>,
    ) -> Result<Document, Error> {
        let Fetched { bytes, digest, .. } = self.manifest(reference, selector, want).await?;
        Ok(Document { digest, bytes })
    }

    /// For pushes: tokens are asked for both directions.
    #[must_use]
    pub fn for_push(mut self) -> Self {
        self.auth.actions = "pull,push";
        self
    }

    async fn manifest(&self, reference: &ImageRef, selector: &str, want: Option<Digest>) -> Result<Fetched, Error> {
        let get = Get {
            operation: Operation::Manifest { selector: selector.to_owned(), name: name(reference) },
            url: self.url(reference, "manifests", selector)?,
            accept: media::ACCEPT_MANIFEST,
            from: 0,
            digest_known: want.is_some(),
        };
        let (bytes, headers) = self.document(reference, &get, "manifest size", MAX_MANIFEST).await?;
        let content_type = text(&headers, CONTENT_TYPE);
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

    /// A whole document and the answer's headers, with retries.
    pub(crate) async fn document(
        &self,
        reference: &ImageRef,
        get: &Get,
        what: &'static str,
        max: u64,
    ) -> Result<(Vec<u8>, HeaderMap), Error> {
        let mut attempts = self.http.attempts();
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
    ) -> Result<(Vec<u8>, HeaderMap), Error> {
        let response = self.auth.get(&self.http, reference, get).await?;
        if response.status() != StatusCode::OK {
            return Err(self.auth.refusal(get.operation.clone(), response).await);
        }
        let headers = response.headers().clone();
        Ok((self.http.body(&get.operation, response, what, max).await?, headers))
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

pub(crate) fn text(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// A registry's root URL.
fn base(registry: &str, tls: &Tls) -> Result<Url, Error> {
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
    base.ok_or_else(|| ParseError::Image { value: registry.to_owned() }.into())
}

/// Whether an image of platform `have` may be given to who wants `wanted`. Images of old builders name no platform.
pub(crate) fn serves(have: &Platform, wanted: &Platform) -> bool {
    (have.os.is_empty() && have.architecture.is_empty()) || have.rank(wanted).is_some()
}

pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    Digest::from_bytes(Sha256::digest(bytes).into())
}

pub(crate) fn verify(operation: &Operation, bytes: &[u8], got: Digest, want: Digest) -> Result<(), Error> {
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
        Unusable::TooDeep(depth) => {
            Error::Limit { operation, what: "depth of the JSON", actual: depth as u64, max: manifest::MAX_DEPTH as u64 }
        }
    }
}
