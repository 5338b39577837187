//! `fetch`: a layer's blob into its [`Download`], resumed where it broke, verified at the end.
//!
//! ```text
//!   chunks ─▶ batch of 256 KiB ─▶ blocking thread: SHA-256, write at the watermark, move it
//!      ▲                                              │
//!      └── broken: GET with Range: bytes=<position>- ◀┘      the hash goes on from where it was
//! ```

use crate::answer::one_line;
use crate::operation::name;
use crate::transport::{Get, Transport, refused, without_query};
use crate::{Client, Download, Error, Layer, Operation, Tls};
use reqwest::header::CONTENT_RANGE;
use reqwest::{Response, Url};
use sha2::{Digest as _, Sha256};
use siforge_reference::{Digest, ImageRef};
use std::io;
use std::sync::Arc;

/// Bytes that are hashed and written at once: far above the cost of going to another thread, small enough that readers
/// are not kept waiting.
const BATCH: usize = 256 << 10;
/// A try that brought this many bytes was not in vain: it opens a new row of tries. There are networks that reset every
/// connection after 64 KiB.
const PROGRESS: u64 = 32 << 10;

impl Client {
    /// Writes `layer`'s blob into `into`, which it ends in every case (also when this future is dropped): complete, or
    /// failed with the error that is returned.
    pub async fn fetch(&self, reference: &ImageRef, layer: &Layer, into: Arc<Download>) -> Result<(), Error> {
        if into.is_complete() {
            return Ok(());
        }
        let operation = Operation::Blob { digest: layer.digest.to_string(), name: name(reference) };
        let _end = EndOnDrop { download: &into, operation: &operation };
        let result = self.write(reference, layer, &operation, &into).await;
        match &result {
            Ok(()) => into.succeed(),
            Err(error) => into.fail(error.clone()),
        }
        result
    }

    async fn write(
        &self,
        reference: &ImageRef,
        layer: &Layer,
        operation: &Operation,
        into: &Arc<Download>,
    ) -> Result<(), Error> {
        // For the check alone: each place has a name of its own for the image.
        self.locate(reference)?;
        if into.size() != layer.size {
            return Err(Error::Size { operation: operation.clone(), got: into.size(), want: layer.size });
        }
        let mut sink = Sink {
            operation: operation.clone(),
            download: Arc::clone(into),
            hasher: Sha256::new(),
            batch: Vec::new(),
            position: 0,
        };
        self.fetch_anywhere(reference, layer, &mut sink).await?;
        sink.flush().await?;
        let got = Digest::from_bytes(sink.hasher.finalize().into());
        match got == layer.digest {
            true => Ok(()),
            false => Err(Error::Checksum {
                operation: sink.operation,
                read: sink.position,
                got: Box::new(got),
                want: Box::new(layer.digest),
            }),
        }
    }

    /// From the first place that has it: mirrors, registry, and for a foreign layer the URLs that its manifest gives. A
    /// place goes on where the one before it failed.
    async fn fetch_anywhere(&self, reference: &ImageRef, layer: &Layer, sink: &mut Sink) -> Result<(), Error> {
        let mut failed = Vec::new();
        for place in self.places() {
            let here = &place.locate(reference)?;
            sink.operation = Operation::Blob { digest: layer.digest.to_string(), name: name(here) };
            match place.with_tries(Where::Registry(here), layer, sink).await {
                Err(error) if !matches!(error, Error::Write { .. }) => failed.push(error),
                result => return result,
            }
        }
        if matches!(failed.last(), Some(Error::NotFound { .. })) {
            for url in &layer.urls {
                match self.fetch_elsewhere(reference, layer, url, sink).await {
                    Err(error) if !matches!(error, Error::Write { .. }) => failed.push(error),
                    result => return result,
                }
            }
        }
        match failed.pop() {
            Some(error) => Err(error.after(failed)),
            None => Ok(()),
        }
    }

    /// A foreign layer's other place. It is told nothing of the registry: no credentials, no client certificate; and its
    /// explanations are not shown, since an image could name any address that this machine reaches.
    async fn fetch_elsewhere(
        &self,
        reference: &ImageRef,
        layer: &Layer,
        url: &str,
        sink: &mut Sink,
    ) -> Result<(), Error> {
        let shown = Url::parse(url).map_or_else(|_| one_line(url, &[]), |url| without_query(&url));
        let blob = format!("{} of {}", layer.digest, name(reference));
        sink.operation = Operation::Foreign { blob, url: shown };
        let unsupported =
            |detail: &str| Error::Unsupported { operation: sink.operation.clone(), detail: detail.to_owned() };
        let parsed = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let mut url = parsed.ok_or_else(|| unsupported("only http and https URLs are followed"))?;
        if url.set_username("").is_err() || url.set_password(None).is_err() {
            return Err(unsupported("only http and https URLs are followed"));
        }
        let tls = Tls { proxies: self.http.proxies.clone(), ..Tls::default() };
        let mut http = Transport::new(url.host_str().unwrap_or_default(), &url, &tls, &tls)?;
        http.idle = self.http.idle;
        self.with_tries(Where::Url(&http, &url), layer, sink).await
    }

    async fn with_tries(&self, place: Where<'_>, layer: &Layer, sink: &mut Sink) -> Result<(), Error> {
        let mut attempts = match place {
            Where::Registry(_) => self.http.attempts(),
            Where::Url(http, _) => http.attempts(),
        };
        loop {
            let before = sink.position;
            let Err(error) = self.stream(&place, layer, sink).await else {
                return Ok(());
            };
            // What could not be written is lost, and the hash with it: only a new download can begin again.
            if matches!(error, Error::Write { .. }) {
                return Err(error);
            }
            if sink.position - before >= PROGRESS {
                attempts.progress();
            }
            attempts.pause(error).await?;
        }
    }

    /// One try: from the sink's position to the end.
    async fn stream(&self, place: &Where<'_>, layer: &Layer, sink: &mut Sink) -> Result<(), Error> {
        let get = |url| Get {
            operation: sink.operation.clone(),
            url,
            accept: "*/*",
            from: sink.position,
            digest_known: true,
        };
        let (http, mut response) = match place {
            Where::Registry(reference) => {
                let url = self.url(reference, "blobs", &layer.digest.to_string())?;
                (&self.http, self.auth.get(&self.http, reference, &get(url)).await?)
            }
            Where::Url(http, url) => (*http, http.get(&get((*url).clone()), None).await?),
        };
        let mut skip = match self.start(&response, layer, sink)? {
            // The server ignores ranges: what is there already is passed over.
            Start::At(skip) => skip,
            Start::Refused => {
                let operation = sink.operation.clone();
                return Err(match place {
                    Where::Registry(_) => self.auth.refusal(operation, response).await,
                    Where::Url(..) => refused(operation, &response),
                });
            }
        };
        while let Some(chunk) = http.chunk(&sink.operation, &mut response).await? {
            let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(chunk.len());
            skip -= skipped as u64;
            sink.push(&chunk[skipped..], layer.size).await?;
        }
        match sink.position == layer.size {
            true => Ok(()),
            false => Err(sink.wrong_size(sink.position, layer.size)),
        }
    }

    /// How many bytes of the body come before the sink's position.
    fn start(&self, response: &Response, layer: &Layer, sink: &Sink) -> Result<Start, Error> {
        match response.status().as_u16() {
            200 => match response.content_length() {
                Some(length) if length != layer.size => Err(sink.wrong_size(length, layer.size)),
                _ => Ok(Start::At(sink.position)),
            },
            206 => {
                let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
                match range.and_then(content_range) {
                    Some((_, Some(total))) if total != layer.size => Err(sink.wrong_size(total, layer.size)),
                    Some((start, _)) if start == sink.position => Ok(Start::At(0)),
                    _ => Err(Error::Malformed {
                        operation: sink.operation.clone(),
                        detail: format!("Content-Range {range:?} for a request from byte {}", sink.position),
                    }),
                }
            }
            // Nothing is behind the position, but the blob should go on there.
            416 => Err(sink.wrong_size(sink.position, layer.size)),
            _ => Ok(Start::Refused),
        }
    }
}

/// Where a blob is asked for.
enum Where<'a> {
    Registry(&'a ImageRef),
    Url(&'a Transport, &'a Url),
}

enum Start {
    At(u64),
    Refused,
}

/// Start and total of `bytes <start>-<end>/<total|*>`.
fn content_range(header: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = header.strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some((start.trim().parse().ok()?, total.trim().parse().ok()))
}

/// Hashes and writes what came.
struct Sink {
    operation: Operation,
    download: Arc<Download>,
    hasher: Sha256,
    batch: Vec<u8>,
    /// Bytes received, those of the batch included.
    position: u64,
}

impl Sink {
    async fn push(&mut self, bytes: &[u8], size: u64) -> Result<(), Error> {
        let position = self.position + bytes.len() as u64;
        if position > size {
            return Err(self.wrong_size(position, size));
        }
        self.batch.extend_from_slice(bytes);
        self.position = position;
        match self.batch.len() >= BATCH {
            true => self.flush().await,
            false => Ok(()),
        }
    }

    /// Hashing is as slow as the network and writing may be slower, so neither is done on the async threads.
    async fn flush(&mut self) -> Result<(), Error> {
        let (mut hasher, batch) = (std::mem::take(&mut self.hasher), std::mem::take(&mut self.batch));
        let download = Arc::clone(&self.download);
        let written = tokio::task::spawn_blocking(move || {
            hasher.update(&batch);
            download.append(&batch).map(|()| (hasher, batch))
        });
        let (hasher, batch) = written
            .await
            .map_err(io::Error::other)
            .flatten()
            .map_err(|source| Error::Write { operation: self.operation.clone(), source: Arc::new(source) })?;
        (self.hasher, self.batch) = (hasher, batch);
        self.batch.clear();
        Ok(())
    }

    fn wrong_size(&self, got: u64, want: u64) -> Error {
        Error::Size { operation: self.operation.clone(), got, want }
    }
}

/// Readers must not wait for a fetch that was dropped.
struct EndOnDrop<'a> {
    download: &'a Download,
    operation: &'a Operation,
}

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        // The first outcome stays, so this is for a fetch without one.
        let written = self.download.written();
        self.download.fail(Error::Interrupted { operation: self.operation.clone(), written });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Compression, Tls};
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Gives `body` to every request, and counts them.
    fn serve(body: Vec<u8>) -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address").to_string();
        let requests = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
                if lines.any(|line| line.is_empty()) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
                // The client may have gone: it has what it wants.
                let _ = (&stream).write_all(head.as_bytes()).and_then(|()| (&stream).write_all(&body));
            }
        });
        (address, requests)
    }

    /// The bytes that were not written are lost for this download: going on behind them would make a full disk look like
    /// a wrong checksum.
    #[tokio::test]
    async fn a_failing_disk_is_not_tried_again() {
        let body = vec![7; 3 * BATCH];
        let (address, requests) = serve(body.clone());
        let tls = Tls { plain_http: true, ..Tls::default() };
        let client = Client::new(&address, None, tls).expect("client");
        let reference = format!("{address}/x:v1").parse().expect("reference");
        let digest = Digest::from_bytes(Sha256::digest(&body).into());
        let layer =
            Layer { digest, size: body.len() as u64, compression: Compression::None, diff_id: digest, urls: vec![] };
        let unwritable = tempfile::NamedTempFile::new().expect("temporary file");
        let file = std::fs::File::open(unwritable.path()).expect("open for reading");
        let download = Download::new(file, layer.size);
        let error = client.fetch(&reference, &layer, Arc::clone(&download)).await;
        assert!(matches!(error, Err(Error::Write { .. })), "{error:?}");
        assert!(matches!(download.failure(), Some(Error::Write { .. })));
        // How to log in, then the blob.
        assert_eq!(requests.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn content_ranges() {
        let check = |header: &str, expect| assert_eq!(content_range(header), expect, "{header}");
        check("bytes 5-9/10", Some((5, Some(10))));
        check("bytes 5-9/*", Some((5, None)));
        check("bytes */10", None);
        check("items 5-9/10", None);
        check("", None);
    }
}
