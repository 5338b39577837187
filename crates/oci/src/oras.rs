//! `oras://`: a SIF in a registry, read and written.
//!
//! ```text
//!   manifest { "config": { application/vnd.sylabs.sif.config.v1+json, "{}" },
//!              "layers": [ { application/vnd.sylabs.sif.layer.v1.sif, digest, size, annotations: { …title: NAME } } ] }
//!
//!   push     the blobs that the registry lacks:   POST /v2/<repository>/blobs/uploads/  ─▶ 202, Location
//!                                                 PUT  <Location>?digest=sha256:…           the whole blob
//!            PUT /v2/<repository>/manifests/<tag>
//! ```
//! As SingularityCE and Apptainer write it (`pkg/oras`); OCI distribution spec 1.1, "Pushing a blob monolithically".

use crate::manifest::Descriptor;
use crate::operation::name;
use crate::transport::Get;
use crate::{Client, Compression, Document, Error, Layer, Operation};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use reqwest::{Method, Response, Url};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use siforge_reference::{Digest, ImageRef};
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

const CONFIG: &str = "application/vnd.sylabs.sif.config.v1+json";
const SIF: &str = "application/vnd.sylabs.sif.layer.v1.sif";
/// What Singularity 3.0 to 3.2 wrote, its spelling included.
const OLD_SIF: &str = "appliciation/vnd.sylabs.sif.layer.tar";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const TITLE: &str = "org.opencontainers.image.title";
const EMPTY: &[u8] = b"{}";
/// An upload may take as long as its bytes take at 64 KiB/s.
const SLOWEST: u64 = 64 << 10;

/// What a request sends.
enum Body {
    Nothing,
    Bytes(Vec<u8>),
    File { file: Arc<File>, size: u64 },
}

impl Client {
    /// The SIF that `reference` names, as a blob to [`fetch`](Client::fetch), and its manifest.
    pub async fn sif(&self, reference: &ImageRef) -> Result<(Layer, Document), Error> {
        #[derive(Deserialize)]
        struct Artifact {
            #[serde(default)]
            layers: Vec<Descriptor>,
        }
        let here = &self.locate(reference)?;
        let operation = Operation::manifest(here);
        let manifest = self.manifest_bytes(here).await?;
        let malformed = |detail| Error::Malformed { operation: operation.clone(), detail };
        let artifact: Artifact = serde_json::from_slice(&manifest.bytes)
            .map_err(|error| malformed(crate::answer::one_line(&error.to_string(), &[])))?;
        match artifact.layers.as_slice() {
            [layer] if layer.media_type == SIF || layer.media_type == OLD_SIF => {
                let (blob, size) = (layer.digest, layer.size);
                let sif = Layer { digest: blob, size, compression: Compression::None, diff_id: blob, urls: vec![] };
                Ok((sif, manifest))
            }
            _ => {
                let detail = "it is no SIF; for a container image write docker://".to_owned();
                Err(Error::Unsupported { operation, detail })
            }
        }
    }

    /// Writes `file`, a SIF of `size` bytes and this digest, as `reference`; gives the manifest's digest. `title` is the
    /// name that tools may give it when they pull it.
    pub async fn push_sif(
        &self,
        reference: &ImageRef,
        file: File,
        (digest, size): (Digest, u64),
        title: &str,
    ) -> Result<Digest, Error> {
        let here = &self.locate(reference)?;
        let empty = sha256(EMPTY);
        self.upload(here, &empty, Body::Bytes(EMPTY.to_vec())).await?;
        self.upload(here, &digest, Body::File { file: Arc::new(file), size }).await?;
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": { "mediaType": CONFIG, "digest": empty, "size": EMPTY.len() },
            "layers": [{ "mediaType": SIF, "digest": digest, "size": size, "annotations": { TITLE: title } }],
        });
        let bytes = manifest.to_string().into_bytes();
        let (operation, digest) = (Operation::Push { what: here.selector(), name: name(here) }, sha256(&bytes));
        let url = self.url(here, "manifests", &here.selector())?;
        let response = self.put(here, &operation, Method::PUT, url, MANIFEST, Body::Bytes(bytes)).await?;
        match response.status().is_success() {
            true => Ok(digest),
            false => Err(self.auth.refusal(operation, response).await),
        }
    }

    /// Sends a blob unless the registry has it.
    async fn upload(&self, reference: &ImageRef, digest: &Digest, body: Body) -> Result<(), Error> {
        let size = match &body {
            Body::Nothing => 0,
            Body::Bytes(bytes) => bytes.len() as u64,
            Body::File { size, .. } => *size,
        };
        let blob = Layer { digest: *digest, size, compression: Compression::None, diff_id: *digest, urls: vec![] };
        if self.holds(reference, &blob).await? {
            return Ok(());
        }
        let operation = Operation::Push { what: digest.to_string(), name: name(reference) };
        let start = self.url(reference, "blobs", "uploads/")?;
        let response = self.put(reference, &operation, Method::POST, start.clone(), "", Body::Nothing).await?;
        if response.status().as_u16() != 202 {
            return Err(self.auth.refusal(operation, response).await);
        }
        let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let url = location.and_then(|location| start.join(location).ok()).filter(|url| url.scheme() == start.scheme());
        let mut url = url.ok_or_else(|| Error::Malformed {
            operation: operation.clone(),
            detail: "no readable Location for the upload".to_owned(),
        })?;
        url.query_pairs_mut().append_pair("digest", &digest.to_string());
        let response = self.put(reference, &operation, Method::PUT, url, "application/octet-stream", body).await?;
        match response.status().is_success() {
            true => Ok(()),
            false => Err(self.auth.refusal(operation, response).await),
        }
    }

    async fn holds(&self, reference: &ImageRef, blob: &Layer) -> Result<bool, Error> {
        let get = Get {
            operation: Operation::Push { what: blob.digest.to_string(), name: name(reference) },
            url: self.url(reference, "blobs", &blob.digest.to_string())?,
            accept: "*/*",
            from: blob.size.saturating_sub(1),
            digest_known: true,
        };
        let response = self.auth.get(&self.http, reference, &get).await?;
        Ok(matches!(response.status().as_u16(), 200 | 206))
    }

    /// One request that changes something. It is not repeated by itself, and redirects are not followed.
    async fn put(
        &self,
        reference: &ImageRef,
        operation: &Operation,
        method: Method,
        url: Url,
        content_type: &str,
        body: Body,
    ) -> Result<Response, Error> {
        // What is sent elsewhere goes without the registry's credentials.
        let own = self.url(reference, "blobs", "")?.origin() == url.origin();
        let authorization = if own { self.auth.authorization(&self.http, reference).await? } else { None };
        let mut request = self.http.request(method, url.clone());
        if !content_type.is_empty() {
            request = request.header(CONTENT_TYPE, content_type);
        }
        let (request, patience) = match body {
            Body::Nothing => (request.header(CONTENT_LENGTH, 0), 0),
            Body::Bytes(bytes) => (request.body(bytes), 0),
            Body::File { file, size } => {
                let unreadable =
                    |source: io::Error| Error::Write { operation: operation.clone(), source: source.into() };
                let file = tokio::fs::File::from_std(file.try_clone().map_err(unreadable)?);
                (request.header(CONTENT_LENGTH, size).body(reqwest::Body::from(file)), size / SLOWEST)
            }
        };
        let patience = Duration::from_secs(patience);
        self.http.send_once(operation, &url, request, authorization.as_ref(), patience).await
    }
}

fn sha256(bytes: &[u8]) -> Digest {
    Digest::from_bytes(Sha256::digest(bytes).into())
}
