//! A blob that an async task writes while plain threads read it.
//!
//! ```text
//!   file   ████████████████░░░░░░░░░░░░░░░░
//!          0       ▲      ▲                ▲
//!          reader ─┘      │                └ size
//!                         └ written (the watermark): only what is below it is read
//! ```
//!
//! Readers wait at the watermark. The end of the blob is an end of file for them only when the writer found size and
//! SHA-256 right, so whoever read to the end has read the blob that the manifest names.

use crate::Error;
use sha2::{Digest as _, Sha256};
use siforge_reference::Digest;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A blob's file with its watermark. See the module.
#[derive(Debug)]
pub struct Download {
    bytes: Bytes,
    size: u64,
    /// What each reader has to find, where nobody vouches for the bytes.
    digest: Option<Digest>,
    state: Mutex<State>,
    changed: Condvar,
}

enum Bytes {
    /// The blob begins at `offset` of the file.
    File { file: Arc<File>, offset: u64 },
    /// Made anew for each reader.
    Made(Box<Make>),
}

/// Gives the same bytes whenever it is called.
pub type Make = dyn Fn() -> io::Result<Box<dyn Read + Send>> + Send + Sync;

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, offset } => write!(f, "{file:?} from {offset}"),
            Self::Made(_) => f.write_str("made"),
        }
    }
}

#[derive(Debug)]
struct State {
    written: u64,
    outcome: Option<Result<(), Error>>,
}

impl Download {
    /// A blob of `size` bytes that [`Client::fetch`](crate::Client::fetch) will write to `file`, which must be open for
    /// reading and writing. Its readers wait until a fetch is under way, so one that is never fetched must be failed.
    pub fn new(file: impl Into<Arc<File>>, size: u64) -> Arc<Self> {
        Self::with_state(Bytes::File { file: file.into(), offset: 0 }, size, State { written: 0, outcome: None })
    }

    /// A blob that is there already: `file` holds its `size` bytes, and the caller vouches for them.
    pub fn complete(file: impl Into<Arc<File>>, size: u64) -> Arc<Self> {
        Self::within(file, 0, size)
    }

    /// The same for a blob that begins at `offset` of a larger file, such as an archive.
    pub fn within(file: impl Into<Arc<File>>, offset: u64, size: u64) -> Arc<Self> {
        let bytes = Bytes::File { file: file.into(), offset };
        Self::with_state(bytes, size, State { written: size, outcome: Some(Ok(())) })
    }

    /// The same where nobody vouches for the bytes: a reader hashes what it reads, and instead of the end of another blob
    /// than that of `digest` it meets an error.
    pub fn unverified(file: impl Into<Arc<File>>, offset: u64, size: u64, digest: Digest) -> Arc<Self> {
        let bytes = Bytes::File { file: file.into(), offset };
        let state = State { written: size, outcome: Some(Ok(())) };
        Arc::new(Self { digest: Some(digest), ..Self::plain(bytes, size, state) })
    }

    /// A blob of `size` bytes that lies nowhere: `make` gives it to each reader.
    pub fn made(make: Box<Make>, size: u64) -> Arc<Self> {
        Self::with_state(Bytes::Made(make), size, State { written: size, outcome: Some(Ok(())) })
    }

    fn with_state(bytes: Bytes, size: u64, state: State) -> Arc<Self> {
        Arc::new(Self::plain(bytes, size, state))
    }

    fn plain(bytes: Bytes, size: u64, state: State) -> Self {
        Self { bytes, size, digest: None, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Reads the blob from its start. Blocks where the writer has not yet been; a failed download is an error that holds
    /// the [`Error`] (`io::Error::downcast`).
    pub fn reader(self: &Arc<Self>) -> Reader {
        Reader { download: Arc::clone(self), position: 0, made: None, sha: self.digest.map(|_| Sha256::new()) }
    }

    /// Bytes that are in the file.
    pub fn written(&self) -> u64 {
        self.lock().written
    }

    /// Bytes that there will be.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether all bytes are there and verified.
    pub fn is_complete(&self) -> bool {
        matches!(self.lock().outcome, Some(Ok(())))
    }

    /// Why the download failed, if it did.
    pub fn failure(&self) -> Option<Error> {
        self.lock().outcome.clone().and_then(Result::err)
    }

    /// Ends the download with an error, which its readers get. The first outcome stays.
    pub fn fail(&self, error: Error) {
        self.finish(Err(error));
    }

    pub(crate) fn succeed(&self) {
        self.finish(Ok(()));
    }

    fn finish(&self, outcome: Result<(), Error>) {
        self.lock().outcome.get_or_insert(outcome);
        self.changed.notify_all();
    }

    /// Writes at the watermark and moves it. There is one writer: [`Client::fetch`](crate::Client::fetch).
    pub(crate) fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let at = self.written();
        match &self.bytes {
            Bytes::File { file, offset } => file.write_all_at(bytes, offset + at)?,
            Bytes::Made(_) => return Err(io::ErrorKind::Unsupported.into()),
        }
        self.lock().written = at + bytes.len() as u64;
        self.changed.notify_all();
        Ok(())
    }

    /// The state is whole after every single assignment, so a thread that panicked while holding the lock left nothing
    /// half done.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a [`Download`] behind its watermark.
pub struct Reader {
    download: Arc<Download>,
    position: u64,
    /// What is made, once it is read.
    made: Option<Box<dyn Read + Send>>,
    /// Of what is read so far, if it is to be checked.
    sha: Option<Sha256>,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {}", self.download, self.position)
    }
}

impl Reader {
    /// Waits until there is something at the position: how many bytes, or 0 at the verified end.
    fn available(&self) -> io::Result<u64> {
        let mut state = self.download.lock();
        loop {
            match &state.outcome {
                Some(Err(error)) => return Err(io::Error::other(error.clone())),
                _ if state.written > self.position => return Ok(state.written - self.position),
                Some(Ok(())) => return Ok(0),
                None => {}
            }
            state = self.download.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// At the end: whether it was the blob that its digest says.
    fn check(&self) -> io::Result<()> {
        let (Some(want), Some(sha)) = (self.download.digest, &self.sha) else {
            return Ok(());
        };
        let got = Digest::from_bytes(sha.clone().finalize().into());
        match got == want {
            true => Ok(()),
            false => Err(io::Error::new(io::ErrorKind::InvalidData, format!("it has the digest {got}"))),
        }
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let (file, offset) = match &self.download.bytes {
            Bytes::File { file, offset } => (file, *offset),
            Bytes::Made(make) => {
                let made = match &mut self.made {
                    Some(made) => made,
                    nothing => nothing.insert(make()?),
                };
                return made.read(buffer);
            }
        };
        let available = usize::try_from(self.available()?).unwrap_or(usize::MAX).min(buffer.len());
        if available == 0 {
            return self.check().map(|()| 0);
        }
        match file.read_at(&mut buffer[..available], offset + self.position)? {
            // Below the watermark: someone else cut the file.
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the blob's file was truncated while it was read")),
            read => {
                self.position += read as u64;
                if let Some(sha) = &mut self.sha {
                    sha.update(&buffer[..read]);
                }
                Ok(read)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Operation;

    fn interrupted() -> Error {
        Error::Interrupted { operation: Operation::Tags { name: "host/x".to_owned() }, written: 3 }
    }

    #[test]
    fn a_reader_follows_the_writer() {
        let download = Download::new(tempfile::tempfile().expect("temporary file"), 300_000);
        let reader = || {
            let mut reader = download.reader();
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                reader.read_to_end(&mut bytes).map(|_| bytes)
            })
        };
        let (first, second) = (reader(), reader());
        let bytes: Vec<u8> = (0..300_000u32).map(|i| (i / 7) as u8).collect();
        for chunk in bytes.chunks(7_001) {
            download.append(chunk).expect("append");
        }
        assert!(!first.is_finished(), "the end came before the blob was verified");
        assert_eq!((download.written(), download.is_complete()), (300_000, false));
        download.succeed();
        let late = reader();
        for thread in [first, second, late] {
            assert_eq!(thread.join().expect("reader").expect("read"), bytes);
        }
    }

    #[test]
    fn a_failure_reaches_waiting_and_later_readers() {
        let download = Download::new(tempfile::tempfile().expect("temporary file"), 10);
        download.append(b"abc").expect("append");
        let mut waiting = download.reader();
        let thread = std::thread::spawn(move || waiting.read_to_end(&mut Vec::new()));
        download.fail(interrupted());
        download.succeed();
        for result in [thread.join().expect("reader"), download.reader().read_to_end(&mut Vec::new())] {
            let error = result.expect_err("failed").downcast::<Error>().expect("an Error");
            assert_eq!(error.to_string(), "reading the tags of host/x: interrupted after 3 bytes");
        }
        assert!(download.failure().is_some() && !download.is_complete());
    }

    #[test]
    fn an_unverified_blob_ends_only_when_it_is_the_right_one() {
        let file = tempfile::tempfile().expect("temporary file");
        file.write_all_at(b"..hello", 0).expect("write");
        let read = |said: &[u8]| {
            let digest = Digest::from_bytes(Sha256::digest(said).into());
            let copy = file.try_clone().expect("clone");
            let mut text = String::new();
            Download::unverified(copy, 2, 5, digest).reader().read_to_string(&mut text).map(|_| text)
        };
        assert_eq!(read(b"hello").expect("the right one"), "hello");
        let error = read(b"hellx").expect_err("another one");
        assert!(error.to_string().starts_with("it has the digest sha256:2cf24dba"), "{error}");
    }

    #[test]
    fn a_complete_blob_and_a_cut_file() {
        let file = tempfile::tempfile().expect("temporary file");
        file.write_all_at(b"hello", 0).expect("write");
        let mut text = String::new();
        Download::complete(file.try_clone().expect("clone"), 5).reader().read_to_string(&mut text).expect("read");
        assert_eq!(text, "hello");
        let cut = Download::complete(file, 9).reader().read_to_string(&mut text).expect_err("cut");
        assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
    }
}
