//! What others attached to a manifest: signatures and the like, found by its digest.
//!
//! ```text
//!   GET /v2/<repository>/manifests/sha256-<hex><suffix>          an image whose layers are the things (cosign's tag)
//!   GET /v2/<repository>/referrers/sha256:<hex>?artifactType=…   an index of the artifacts whose subject it is
//!        404: GET /v2/<repository>/manifests/sha256-<hex>        the same index, by the clients that wrote the artifacts
//!   GET /v2/<repository>/manifests/<artifact>                    each artifact's manifest
//!   GET /v2/<repository>/blobs/<layer>
//! ```
//! OCI distribution spec 1.1, "Listing Referrers" and "Referrers Tag Schema"; cosign `specs/SIGNATURE_SPEC.md`.
//!
//! Everybody who may push can attach: each thing that cannot be read is handed on as such, so that it takes nothing from
//! the others. An answer that may be another one the next time is an error.

use crate::answer::one_line;
use crate::client::{MAX_MANIFEST, sha256, text, verify};
use crate::error::{Kind, Missing};
use crate::manifest::{Unusable, check_depth};
use crate::operation::name;
use crate::transport::Get;
use crate::{Client, Document, Error, Operation};
use reqwest::Url;
use reqwest::header::LINK;
use serde::Deserialize;
use siforge_reference::{Digest, ImageRef};
use std::collections::{BTreeMap, HashMap};

const ACCEPT_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Artifacts and layers of one manifest that are looked at; cosign's own limit for layers is 1000.
const MAX_ATTACHED: usize = 256;
/// Pages of an answer to a question for referrers.
const MAX_PAGES: usize = 16;

/// What is looked for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// What the tag ends with that has layers of `layer_types`.
    pub tag_suffix: &'a str,
    pub artifact_type: &'a str,
    /// Of layers.
    pub layer_types: &'a [&'a str],
    /// Bytes of a layer.
    pub max_bytes: u64,
    /// Whether an artifact with these annotations need not be looked at.
    pub skip: fn(&BTreeMap<String, String>) -> bool,
}

/// One layer of an artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Where it is, for messages: a tag or a digest.
    pub at: String,
    pub media_type: String,
    /// The layer's.
    pub annotations: BTreeMap<String, String>,
    pub content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    Bytes(Vec<u8>),
    /// Why there are none.
    Unreadable(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Artifact {
    #[serde(default)]
    layers: Vec<Entry>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Entry>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(default)]
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

impl Client {
    /// How many places can have what is attached to the image that was resolved last: its mirror first, the registry last.
    pub fn attached_places(&self) -> usize {
        self.places().count()
    }

    /// What the `place`th place has for `subject`. A place that has nothing is no error.
    pub async fn attached(
        &self,
        place: usize,
        image: &ImageRef,
        subject: &Digest,
        wanted: &Wanted<'_>,
    ) -> Result<Vec<Attached>, Error> {
        let Some(client) = self.places().nth(place) else {
            return Ok(Vec::new());
        };
        let image = &client.locate(image)?;
        let mut found = Found { client, image, wanted, blobs: HashMap::new(), things: Vec::new(), count: 0 };
        let tag = format!("sha256-{}{}", subject.hex(), wanted.tag_suffix);
        match client.document_at(image, &tag, None).await {
            Ok(artifact) => found.layers_of(&tag, &artifact).await?,
            Err(error) => found.passed_over(&tag, error)?,
        }
        for entry in client.referrers(image, subject, wanted.artifact_type).await? {
            found.artifact(&entry).await?;
        }
        Ok(found.things)
    }

    /// The artifacts of this type whose subject is `subject`.
    async fn referrers(&self, image: &ImageRef, subject: &Digest, artifact_type: &str) -> Result<Vec<Entry>, Error> {
        let operation = Operation::Referrers { digest: subject.to_string(), name: name(image) };
        let mut url = self.url(image, "referrers", &subject.to_string())?;
        url.query_pairs_mut().append_pair("artifactType", artifact_type);
        let mut entries = Vec::new();
        for page in 0..MAX_PAGES {
            let (get, origin) = (index_get(&operation, url), self.url(image, "referrers", "")?);
            let (bytes, headers) = match self.document(image, &get, "size of the list of referrers", MAX_MANIFEST).await
            {
                Ok(answer) => answer,
                Err(error) if page == 0 && is_unknown_endpoint(&error) => {
                    return self.referrers_by_tag(image, subject, artifact_type).await;
                }
                Err(error) => return Err(error),
            };
            entries.extend(index(&operation, &bytes, artifact_type)?);
            check_count(&operation, entries.len())?;
            match text(&headers, LINK).and_then(|link| next_page(&get.url, &link)) {
                Some(next) if next.origin() == origin.origin() => url = next,
                _ => return Ok(entries),
            }
        }
        let (actual, max) = (MAX_PAGES as u64 + 1, MAX_PAGES as u64);
        Err(Error::Limit { operation, what: "number of pages", actual, max })
    }

    /// Registries without the API: clients keep the index as a tag.
    async fn referrers_by_tag(
        &self,
        image: &ImageRef,
        subject: &Digest,
        artifact_type: &str,
    ) -> Result<Vec<Entry>, Error> {
        let tag = format!("sha256-{}", subject.hex());
        let operation = Operation::Manifest { selector: tag.clone(), name: name(image) };
        match self.document_at(image, &tag, None).await {
            Ok(document) => {
                let entries = index(&operation, &document.bytes, artifact_type)?;
                check_count(&operation, entries.len()).map(|()| entries)
            }
            Err(Error::NotFound { .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

fn index_get(operation: &Operation, url: Url) -> Get {
    Get { operation: operation.clone(), url, accept: ACCEPT_INDEX, from: 0, digest_known: false }
}

/// The specification has 404 alone; these are what registries without the API answer too.
fn is_unknown_endpoint(error: &Error) -> bool {
    matches!(error, Error::NotFound { .. } | Error::Status { status: 400 | 405 | 406, .. })
}

/// What some registries take for an artifact's type: that of its empty config.
const NO_TYPE: &str = "application/vnd.oci.empty.v1+json";

/// The entries of the type, and those of none: such an artifact's own manifest tells.
fn index(operation: &Operation, bytes: &[u8], artifact_type: &str) -> Result<Vec<Entry>, Error> {
    let index: Index = parse(operation, bytes)?;
    let of_type = |entry: &Entry| match entry.artifact_type.as_deref() {
        None | Some("" | NO_TYPE) => true,
        Some(other) => other == artifact_type,
    };
    Ok(index.manifests.into_iter().filter(of_type).collect())
}

fn check_count(operation: &Operation, count: usize) -> Result<(), Error> {
    let (actual, max) = (count as u64, MAX_ATTACHED as u64);
    match actual > max {
        false => Ok(()),
        true => {
            Err(Error::Limit { operation: operation.clone(), what: "number of things attached to it", actual, max })
        }
    }
}

fn parse<'a, T: Deserialize<'a>>(operation: &Operation, bytes: &'a [u8]) -> Result<T, Error> {
    let malformed = |detail: &str| Error::Malformed { operation: operation.clone(), detail: one_line(detail, &[]) };
    check_depth(bytes).map_err(|error| match error {
        Unusable::TooDeep(depth) => malformed(&format!("its JSON is {depth} deep")),
        _ => malformed("its JSON cannot be used"),
    })?;
    serde_json::from_slice(bytes).map_err(|error| malformed(&error.to_string()))
}

/// `Link: <URL>; rel="next"` (RFC 8288).
fn next_page(page: &Url, link: &str) -> Option<Url> {
    let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    let is_next = |parameter: &str| matches!(parameter.trim(), "rel=\"next\"" | "rel=next");
    parameters.split(';').any(is_next).then(|| page.join(target).ok()).flatten()
}

/// What is found at one place for one subject.
struct Found<'a> {
    client: &'a Client,
    image: &'a ImageRef,
    wanted: &'a Wanted<'a>,
    /// Signatures by several keys are of the same payload.
    blobs: HashMap<Digest, Vec<u8>>,
    things: Vec<Attached>,
    /// Layers that were looked at.
    count: usize,
}

impl Found<'_> {
    /// An artifact that an index names.
    async fn artifact(&mut self, entry: &Entry) -> Result<(), Error> {
        if entry.annotations.as_ref().is_some_and(self.wanted.skip) {
            return Ok(());
        }
        let selector = entry.digest.to_string();
        match self.client.document_at(self.image, &selector, Some(entry.digest)).await {
            Ok(artifact) => self.layers_of(&selector, &artifact).await,
            Err(error) => self.passed_over(&selector, error),
        }
    }

    async fn layers_of(&mut self, at: &str, artifact: &Document) -> Result<(), Error> {
        let operation = Operation::Manifest { selector: at.to_owned(), name: name(self.image) };
        let Artifact { layers, annotations } = match parse(&operation, &artifact.bytes) {
            Ok(artifact) => artifact,
            Err(error) => return self.passed_over(at, error),
        };
        if annotations.as_ref().is_some_and(self.wanted.skip) {
            return Ok(());
        }
        self.count += layers.len();
        check_count(&operation, self.count)?;
        for layer in layers.into_iter().filter(|layer| self.wanted.layer_types.contains(&layer.media_type.as_str())) {
            match self.blob(&layer).await {
                Ok(bytes) => self.add(at, layer, Content::Bytes(bytes)),
                Err(error) if is_its_own_fault(&error) => self.add(at, layer, Content::Unreadable(error.to_string())),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn add(&mut self, at: &str, layer: Entry, content: Content) {
        let (at, media_type, annotations) = (at.to_owned(), layer.media_type, layer.annotations.unwrap_or_default());
        self.things.push(Attached { at, media_type, annotations, content });
    }

    /// A tag that is not there is no news; what is not as it should be is handed on.
    fn passed_over(&mut self, at: &str, error: Error) -> Result<(), Error> {
        match error {
            Error::NotFound { missing: Missing::Manifest { .. }, .. } if at.ends_with(self.wanted.tag_suffix) => Ok(()),
            error if is_its_own_fault(&error) => {
                let content = Content::Unreadable(error.to_string());
                let (media_type, annotations) = (String::new(), BTreeMap::new());
                self.things.push(Attached { at: at.to_owned(), media_type, annotations, content });
                Ok(())
            }
            error => Err(error),
        }
    }

    async fn blob(&mut self, layer: &Entry) -> Result<Vec<u8>, Error> {
        if let Some(bytes) = self.blobs.get(&layer.digest) {
            return Ok(bytes.clone());
        }
        let operation = Operation::Blob { digest: layer.digest.to_string(), name: name(self.image) };
        let (what, max) = ("size", self.wanted.max_bytes);
        if layer.size > max {
            return Err(Error::Limit { operation, what, actual: layer.size, max });
        }
        let url = self.client.url(self.image, "blobs", &layer.digest.to_string())?;
        let get = Get { operation, url, accept: "*/*", from: 0, digest_known: true };
        let (bytes, _) = self.client.document(self.image, &get, what, max).await?;
        verify(&get.operation, &bytes, sha256(&bytes), layer.digest)?;
        self.blobs.insert(layer.digest, bytes.clone());
        Ok(bytes)
    }
}

/// Whether the thing itself is at fault and not the way to it.
fn is_its_own_fault(error: &Error) -> bool {
    matches!(error.kind(), Kind::NotFound | Kind::Protocol | Kind::Limit | Kind::Integrity | Kind::Unsupported)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages() {
        let page: Url = "https://host/v2/x/referrers/sha256:00?artifactType=a".parse().expect("URL");
        let check = |link: &str, expect: Option<&str>| {
            assert_eq!(next_page(&page, link).as_ref().map(Url::as_str), expect, "{link}");
        };
        check("</v2/x/referrers/sha256:00?n=2>; rel=\"next\"", Some("https://host/v2/x/referrers/sha256:00?n=2"));
        check("<https://other/v2>; a=b; rel=next", Some("https://other/v2"));
        check("</v2>; rel=\"prev\"", None);
        check("</v2>", None);
        check("/v2; rel=\"next\"", None);
        check("", None);
    }

    #[test]
    fn indexes() {
        let operation = Operation::Referrers { digest: "sha256:00".to_owned(), name: "host/x".to_owned() };
        let check = |text: &str, expect: Result<usize, &str>| match (index(&operation, text.as_bytes(), "a/b"), expect)
        {
            (Ok(entries), Ok(count)) => assert_eq!(entries.len(), count, "{text}"),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (other, _) => panic!("{text}: {:?}", other.map(|entries| entries.len())),
        };
        let entry = |kind: &str| format!(r#"{{"digest":"sha256:{}","size":1{kind}}}"#, "0".repeat(64));
        let index = |kinds: &[&str]| {
            let entries: Vec<_> = kinds.iter().map(|kind| entry(kind)).collect();
            format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","))
        };
        check(&index(&[]), Ok(0));
        check(&index(&["", r#","artifactType":"a/b""#, r#","artifactType":"c/d""#, r#","artifactType":"""#]), Ok(3));
        check("{}", Err("reading the referrers of sha256:00 in host/x: answer not understood: missing field"));
        check("<html>", Err("answer not understood"));
        check(r#"{"manifests":[{"digest":"md5:0","size":1}]}"#, Err("answer not understood"));
        check(&format!("{}{}", "[".repeat(99), "]".repeat(99)), Err("its JSON is 33 deep"));
        assert!(check_count(&operation, MAX_ATTACHED).is_ok());
        assert!(
            check_count(&operation, MAX_ATTACHED + 1).is_err_and(|error| error.to_string().contains("at most 256"))
        );
    }
}
