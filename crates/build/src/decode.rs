//! One layer blob → its uncompressed tar, on a thread of its own.
//!
//! ```text
//!  blob ──▶ gzip (all members) | zstd (all frames, window ≤ 128 MiB) | as is ──▶ SHA-256 (diff_id)
//!       ──▶ 1 MiB chunks, at most CHUNKS in flight ──▶ Tar (Read)
//! ```
//!
//! The thread is not joined: when the consumer goes away its next send fails and it ends; when its download is given up
//! its read fails and it ends.

use crate::Error;
use sha2::{Digest as _, Sha256};
use siforge_oci::{Compression, Layer};
use siforge_reference::Digest;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

/// Large enough that hand-overs cost nothing, small enough that all chunks fit the memory bound.
const CHUNK: usize = 1 << 20;
const CHUNKS: usize = 4;
/// windowLog of 27 is what `zstd --long` writes by default and what other tools accept: 128 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// Bounds shared by the layers of one build.
pub(crate) struct Budget {
    /// Uncompressed bytes still allowed.
    left: AtomicU64,
    limit: u64,
    ratio: u64,
    /// A layer may be as compressible as it likes up to this size.
    ratio_free: u64,
    cancelled: AtomicBool,
}

impl Budget {
    pub(crate) fn new(uncompressed_bytes: u64, ratio: u64, ratio_free: u64) -> Arc<Self> {
        Arc::new(Self {
            left: AtomicU64::new(uncompressed_bytes),
            limit: uncompressed_bytes,
            ratio,
            ratio_free,
            cancelled: AtomicBool::new(false),
        })
    }

    /// Makes every decoder of the build fail at its next chunk.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// A build that starts over reads everything again.
    pub(crate) fn refill(&self) {
        self.left.store(self.limit, Ordering::Relaxed);
    }

    /// Charges `bytes` more of a layer that has given `so_far` with them.
    pub(crate) fn take(&self, layer: &Layer, bytes: u64, so_far: u64) -> Result<(), Error> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(Error::Cancelled);
        }
        let left = self.left.load(Ordering::Relaxed);
        if bytes > left {
            return Err(Error::TooLarge { layer: layer.digest, limit: self.limit });
        }
        self.left.fetch_sub(bytes, Ordering::Relaxed);
        if so_far > self.ratio_free && so_far / layer.size.max(1) > self.ratio {
            return Err(Error::Ratio { layer: layer.digest, limit: self.ratio, bytes: so_far });
        }
        Ok(())
    }
}

enum Message {
    Chunk(Vec<u8>),
    /// The whole tar was read and its SHA-256 is the diff_id.
    Verified,
    Failed(Error),
}

/// The uncompressed tar of one layer.
pub(crate) struct Tar {
    messages: Receiver<Message>,
    used: Sender<Vec<u8>>,
    chunk: Vec<u8>,
    at: usize,
    verified: bool,
    failure: Option<Error>,
}

impl Tar {
    /// Starts the decoder. `blob` gives the compressed bytes; the layer names what they must decode to.
    pub(crate) fn start(blob: impl Read + Send + 'static, layer: &Layer, budget: Arc<Budget>) -> Result<Self, Error> {
        let (messages, receiver) = sync_channel(CHUNKS);
        let (used, recycled) = channel();
        let layer = layer.clone();
        std::thread::Builder::new()
            .name("decode".into())
            .spawn(move || {
                let last = match decode(blob, &layer, &budget, &messages, &recycled) {
                    Ok(true) => Message::Verified,
                    Ok(false) => return,
                    Err(error) => Message::Failed(error),
                };
                // The consumer may have gone: then nobody wants to know.
                let _ = messages.send(last);
            })
            .map_err(|source| Error::Thread { source })?;
        Ok(Self { messages: receiver, used, chunk: Vec::new(), at: 0, verified: false, failure: None })
    }

    /// Reads what is left (a tar's end is before its stream's end) and waits for the verdict on the diff_id.
    pub(crate) fn finish(mut self) -> Result<(), Error> {
        loop {
            if self.verified {
                return Ok(());
            }
            if let Some(error) = self.failure.take() {
                return Err(error);
            }
            self.next();
        }
    }

    /// Why a read failed, when it was the decoder's doing.
    pub(crate) fn failure(&mut self) -> Option<Error> {
        self.failure.take()
    }

    fn next(&mut self) {
        let old = std::mem::take(&mut self.chunk);
        if old.capacity() > 0 {
            let _ = self.used.send(old);
        }
        self.at = 0;
        match self.messages.recv() {
            Ok(Message::Chunk(chunk)) => self.chunk = chunk,
            Ok(Message::Verified) => self.verified = true,
            Ok(Message::Failed(error)) => self.failure = Some(error),
            Err(_) => self.failure = Some(Error::DecoderGone),
        }
    }
}

impl Read for Tar {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.chunk.len() {
            if self.verified {
                return Ok(0);
            }
            if let Some(error) = &self.failure {
                return Err(io::Error::other(error.to_string()));
            }
            self.next();
        }
        let n = buffer.len().min(self.chunk.len() - self.at);
        buffer[..n].copy_from_slice(&self.chunk[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

/// Ok(false): the consumer has gone.
fn decode(
    blob: impl Read + Send + 'static,
    layer: &Layer,
    budget: &Budget,
    out: &SyncSender<Message>,
    recycled: &Receiver<Vec<u8>>,
) -> Result<bool, Error> {
    let broken = |source: io::Error| match source.downcast::<siforge_oci::Error>() {
        // The blob never came: that it also does not decode says nothing.
        Ok(download) => Error::Oci(download),
        Err(source) => Error::Decode { layer: layer.digest, compression: layer.compression, source },
    };
    let mut tar = decoder(blob, &layer.compression).map_err(broken)?;
    let mut sha = Sha256::new();
    let mut total = 0;
    loop {
        let mut chunk = recycled.try_recv().unwrap_or_default();
        chunk.resize(CHUNK, 0);
        let n = fill(&mut tar, &mut chunk).map_err(broken)?;
        if n == 0 {
            break;
        }
        total += n as u64;
        budget.take(layer, n as u64, total)?;
        sha.update(&chunk[..n]);
        chunk.truncate(n);
        if out.send(Message::Chunk(chunk)).is_err() {
            return Ok(false);
        }
    }
    let got = Digest::from_bytes(sha.finalize().into());
    if got == layer.diff_id { Ok(true) } else { Err(Error::DiffId { layer: layer.digest, got, want: layer.diff_id }) }
}

fn decoder(blob: impl Read + Send + 'static, compression: &Compression) -> io::Result<Box<dyn Read + Send>> {
    Ok(match compression {
        Compression::None => Box::new(blob),
        Compression::Gzip => {
            Box::new(flate2::bufread::MultiGzDecoder::new(io::BufReader::with_capacity(256 << 10, blob)))
        }
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::new(blob)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(decoder)
        }
    })
}

/// Reads until the buffer is full or the stream ends.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut n = 0;
    while n < buffer.len() {
        match reader.read(&mut buffer[n..]) {
            Ok(0) => break,
            Ok(more) => n += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn sha(bytes: &[u8]) -> Digest {
        Digest::from_bytes(Sha256::digest(bytes).into())
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// A valid layer of `tar`'s bytes; each case changes one thing of it.
    fn layer(blob: &[u8], compression: Compression, tar: &[u8]) -> Layer {
        Layer { digest: sha(blob), size: blob.len() as u64, compression, diff_id: sha(tar), urls: vec![] }
    }

    fn check(name: &str, blob: Vec<u8>, layer: Layer, budget: Arc<Budget>, want: Result<&[u8], &str>) {
        let mut tar = Tar::start(io::Cursor::new(blob), &layer, budget).unwrap();
        let mut got = vec![];
        let read = tar.read_to_end(&mut got);
        match want {
            Ok(bytes) => {
                read.unwrap();
                assert!(got == bytes, "{name}: other bytes");
                tar.finish().unwrap();
            }
            Err(text) => {
                assert!(read.is_err(), "{name}: no error");
                let error = tar.finish().unwrap_err().to_string();
                assert!(error.contains(text), "{name}: {error}");
            }
        }
    }

    fn ample() -> Arc<Budget> {
        Budget::new(1 << 40, 250, 4 << 20)
    }

    fn text() -> Vec<u8> {
        (0..300_000_u32).flat_map(|n| (n % 251).to_le_bytes()).collect()
    }

    #[test]
    fn blobs_decode_to_their_tar() {
        let text = text();
        let (start, end) = text.split_at(1000);
        let plain = layer(&text, Compression::None, &text);
        check("plain", text.clone(), plain, ample(), Ok(&text));
        let empty = layer(&[], Compression::None, &[]);
        check("empty", vec![], empty, ample(), Ok(&[]));
        let members = [gzip(start), gzip(end)].concat();
        let gz = layer(&members, Compression::Gzip, &text);
        check("gzip of two members", members, gz, ample(), Ok(&text));
        let frame = |bytes| zstd::encode_all(bytes, 3).unwrap();
        let frames = [frame(start), frame(end)].concat();
        let zst = layer(&frames, Compression::Zstd, &text);
        check("zstd of two frames", frames, zst, ample(), Ok(&text));
        // zstd:chunked keeps its table of contents in frames that readers skip.
        let skipped = [&b"\x50\x2a\x4d\x18\x05\0\0\0table"[..]; 2].concat();
        let chunked = [&skipped[..], &frame(start), &frame(end), &skipped].concat();
        let zst = layer(&chunked, Compression::Zstd, &text);
        check("zstd:chunked", chunked, zst, ample(), Ok(&text));
    }

    #[test]
    fn damaged_blobs_say_what_is_wrong() {
        let text = text();
        let blob = gzip(&text);
        let gz = layer(&blob, Compression::Gzip, &text);
        let broken = Err("decoding layer sha256:");
        let cut = blob[..blob.len() - 9].to_vec();
        check("truncated gzip", cut, gz.clone(), ample(), broken);
        check("not gzip", text.clone(), gz.clone(), ample(), broken);
        let frame = zstd::encode_all(&text[..], 3).unwrap();
        let zst = layer(&frame, Compression::Zstd, &text);
        let cut = frame[..frame.len() - 9].to_vec();
        check("truncated zstd", cut, zst, ample(), broken);
        let other = Layer { diff_id: sha(b"other"), ..gz };
        check("another diff_id", blob, other, ample(), Err("diff_id"));
    }

    #[test]
    fn bombs_hit_a_limit() {
        let zeros = vec![0; 8 << 20];
        let bomb = gzip(&zeros);
        let layer = layer(&bomb, Compression::Gzip, &zeros);
        let ratio = Err("250 times");
        check("a bomb", bomb.clone(), layer.clone(), ample(), ratio);
        let small = Budget::new(1 << 20, 100_000, 0);
        check("too large", bomb.clone(), layer.clone(), small, Err("1048576"));
        let cancelled = ample();
        cancelled.cancel();
        check("cancelled", bomb, layer, cancelled, Err("cancelled"));
    }
}
