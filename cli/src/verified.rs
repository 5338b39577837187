//! SIFs of the cache, hashed before they are run.
//!
//! ```text
//! <cache>/sif/sha256/ab/<hex>.sif
//! <cache>/verified/<hex>             inode, length and ctime that the file had when its bytes were seen to have this digest
//! ```
//!
//! Hashing some GB at each launch would take longer than the launch. Whatever writes to a file changes its ctime, on every
//! node that sees it, so that a file is hashed once and then again only when it was touched.

use crate::error::Error;
use sha2::{Digest as _, Sha256};
use siforge_reference::Digest;
use siforge_store::Store;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

const BUFFER: usize = 1 << 20;

/// Whether the artifact is there and its bytes have its digest. A damaged one is removed: whoever has it open keeps it, as it is.
pub(crate) fn is_sound(store: &Store, digest: &Digest) -> Result<bool, Error> {
    let path = store.layout().artifact(digest);
    let failed = |source| Error::Read { path: path.clone(), source };
    let Some(mut file) = store.open_artifact(digest)? else {
        return Ok(false);
    };
    // Before it is read: what changes meanwhile is seen the next time.
    let identity = identity(&file).map_err(failed)?;
    if std::fs::read_to_string(memo(store, digest)).is_ok_and(|known| known == identity) {
        return Ok(true);
    }
    if hash(&mut file).map_err(failed)?.0 == *digest {
        remember(store, digest, &identity);
        return Ok(true);
    }
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
        _ => Ok(false),
    }
}

/// Notes that the artifact, which this process has just hashed and published, is sound.
pub(crate) fn note(store: &Store, digest: &Digest) {
    if let Ok(Some(file)) = store.open_artifact(digest)
        && let Ok(identity) = identity(&file)
    {
        remember(store, digest, &identity);
    }
}

/// SHA-256 and length of what is left to read of `file`.
pub(crate) fn hash(file: &mut impl Read) -> io::Result<(Digest, u64)> {
    let (mut sha, mut size, mut buffer) = (Sha256::new(), 0, vec![0; BUFFER]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((Digest::from_bytes(sha.finalize().into()), size)),
            n => {
                sha.update(&buffer[..n]);
                size += n as u64;
            }
        }
    }
}

/// Losing the note costs a hashing.
fn remember(store: &Store, digest: &Digest, identity: &str) {
    let path = memo(store, digest);
    let _ = path.parent().map(std::fs::create_dir_all);
    let _ = std::fs::write(&path, identity);
}

fn memo(store: &Store, digest: &Digest) -> PathBuf {
    store.root().join("verified").join(digest.hex())
}

fn identity(file: &File) -> io::Result<String> {
    let metadata = file.metadata()?;
    Ok(format!("{} {} {}.{:09}\n", metadata.ino(), metadata.len(), metadata.ctime(), metadata.ctime_nsec()))
}
