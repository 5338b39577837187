//! Whether a registry gives a blob to the client's credentials, without fetching it.

use crate::operation::name;
use crate::transport::Get;
use crate::{Client, Error, Layer, Operation};
use siforge_reference::ImageRef;

impl Client {
    /// True when a GET of the blob would be answered with it. Asked with a Range for the last byte, since some registries
    /// answer HEAD of a blob from a cache that knows nothing of permissions; of a server that ignores ranges the body is
    /// not read.
    pub async fn has_blob(&self, reference: &ImageRef, layer: &Layer) -> Result<bool, Error> {
        for place in self.places() {
            if place.has_blob_here(reference, layer).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn has_blob_here(&self, reference: &ImageRef, layer: &Layer) -> Result<bool, Error> {
        let reference = &self.locate(reference)?;
        let operation = Operation::Blob { digest: layer.digest.to_string(), name: name(reference) };
        let get = Get {
            url: self.url(reference, "blobs", &layer.digest.to_string())?,
            operation: operation.clone(),
            accept: "*/*",
            from: layer.size.saturating_sub(1),
            digest_known: true,
        };
        let response = self.auth.get(&self.http, reference, &get).await?;
        match response.status().as_u16() {
            200 | 206 => Ok(true),
            401 | 403 | 404 => Ok(false),
            _ => Err(self.auth.refusal(operation, response).await),
        }
    }
}
