//! `https://…/x.sif`: a SIF on a web server.

use crate::transport::{Get, Transport, without_query};
use crate::{Error, Operation, Tls};
use reqwest::{StatusCode, Url};
use sha2::{Digest as _, Sha256};
use siforge_reference::{Digest, ParseError};
use std::fs::File;
use std::io;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;

/// `url` for people, without password and query.
pub fn shown(url: &str) -> String {
    Url::parse(url).map_or_else(|_| "a malformed URL".to_owned(), |url| without_query(&url))
}

/// Writes what `url` gives to `to`, an empty file; gives its size and digest. At most `max` bytes; more, or another digest
/// than `want`, is an error. Redirects are followed; without `want` they may not leave TLS.
pub async fn download(url: &str, want: Option<Digest>, tls: &Tls, to: &File, max: u64) -> Result<(Digest, u64), Error> {
    let parsed = Url::parse(url).map_err(|_| ParseError::Url { value: crate::answer::one_line(url, &[]) })?;
    let operation = Operation::Download { url: without_query(&parsed) };
    let transport = Transport::new(parsed.host_str().unwrap_or_default(), &parsed, tls, tls)?;
    let get = Get { operation: operation.clone(), url: parsed, accept: "*/*", from: 0, digest_known: want.is_some() };
    let mut response = transport.get(&get, None).await?;
    if response.status() != StatusCode::OK {
        let hint = "the server may want a login, which https:// sources do not have".to_owned();
        return Err(crate::transport::refusal(operation, response, hint, &[]).await);
    }
    let length = response.content_length();
    let unwritable = |source: io::Error| Error::Write { operation: operation.clone(), source: Arc::new(source) };
    let mut file = tokio::fs::File::from_std(to.try_clone().map_err(unwritable)?);
    let (mut sha, mut size) = (Sha256::new(), 0);
    while let Some(chunk) = transport.chunk(&operation, &mut response).await? {
        size += chunk.len() as u64;
        if size > max {
            return Err(Error::Limit { operation, what: "size", actual: size, max });
        }
        sha.update(&*chunk);
        file.write_all(&chunk).await.map_err(unwritable)?;
    }
    file.flush().await.map_err(unwritable)?;
    if let Some(want) = length.filter(|length| *length != size) {
        return Err(Error::Size { operation, got: size, want });
    }
    let got = Digest::from_bytes(sha.finalize().into());
    match want {
        Some(want) if want != got => {
            Err(Error::Checksum { operation, read: size, got: Box::new(got), want: Box::new(want) })
        }
        _ => Ok((got, size)),
    }
}
