//! What is checked before the kernel mounts an artifact.
//!
//! | mode    | checks |
//! |---------|--------|
//! | `store` | a regular file that neither group nor others can write; SIF header and descriptors; one squashfs partition, whose superblock has the right magic and says no more bytes than the partition holds |
//! | `hash`  | the same, and SHA-256 over the whole file equals the digest, once per file and node |
//!
//! The file is hashed through the descriptor that the loop device is then bound to, so what is mounted is the inode that was
//! hashed. The memo is keyed by (device, inode, size, mtime, ctime): ctime cannot be set back by who writes the file, short of
//! root on the file server. Squashfs itself is parsed by the kernel alone (superblock: fs/squashfs/squashfs_fs.h).

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use siforge_reference::Digest;
use siforge_sif::{Filesystem, Partition, Sif};

use crate::cli::IntegrityMode;
use crate::state_file;

/// The memo forgets the oldest beyond this many files.
const MEMO_LIMIT: usize = 4096;
/// Bytes read at once: the kernel reads ahead by itself, and several hashes at once stay small beside the memory limit.
const CHUNK: usize = 256 << 10;
/// `hsqs`, little endian.
const SQUASHFS_MAGIC: u32 = 0x7371_7368;
/// Bytes of the squashfs superblock.
const SUPERBLOCK: usize = 96;
/// Where the superblock holds `bytes_used`.
const BYTES_USED: usize = 40;

/// Why an artifact is not mounted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A read failed.
    #[error("{operation} of artifact {digest}: {source}")]
    Read { operation: &'static str, digest: Digest, source: io::Error },
    /// It is a directory, a device, …
    #[error("artifact {digest} is not a regular file")]
    NotAFile { digest: Digest },
    /// Someone other than the builder can change it under the kernel.
    #[error(
        "artifact {digest} may be written by others (mode {mode:04o}): the store's files must be writable by the builder alone"
    )]
    Writable { digest: Digest, mode: u32 },
    /// The SIF's structure is broken.
    #[error("artifact {digest} is damaged: {source}")]
    Sif { digest: Digest, source: siforge_sif::Error },
    /// The partition is of another kind.
    #[error("artifact {digest} holds no squashfs but {found:?}: only squashfs is mounted")]
    NotSquashfs { digest: Digest, found: Filesystem },
    /// The superblock does not fit the partition.
    #[error("artifact {digest} is damaged: {reason}")]
    Superblock { digest: Digest, reason: &'static str },
    /// The bytes are not those that the digest names.
    #[error("artifact {digest} is damaged: its bytes hash to {found}; publish the image again or restore the file")]
    Hash { digest: Digest, found: Digest },
    /// It changed while it was read.
    #[error("artifact {digest} changed while it was hashed")]
    Changed { digest: Digest },
}

impl Error {
    /// Whether the artifact itself is at fault, rather than the way to it.
    pub fn is_damage(&self) -> bool {
        !matches!(self, Error::Read { .. })
    }
}

/// A file as it was when it was hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct FileKey {
    device: u64,
    inode: u64,
    size: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

impl FileKey {
    fn of(metadata: &Metadata) -> Self {
        FileKey {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            ctime: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Hashed {
    file: FileKey,
    digest: String,
    order: u64,
}

/// Checks artifacts, and remembers which files it hashed.
#[derive(Debug)]
pub struct Verifier {
    mode: IntegrityMode,
    memo_path: PathBuf,
    memo: Mutex<BTreeMap<FileKey, (Digest, u64)>>,
}

impl Verifier {
    /// A memo that can't be read is begun anew: it saves work, it decides nothing by itself.
    pub fn new(mode: IntegrityMode, memo_path: PathBuf) -> Self {
        let saved: Vec<Hashed> = match state_file::read(&memo_path) {
            Ok(saved) => saved.unwrap_or_default(),
            Err(error) => {
                tracing::warn!(%error, "starting with an empty memo of verified files");
                Vec::new()
            }
        };
        let memo = saved
            .into_iter()
            .take(MEMO_LIMIT)
            .filter_map(|hashed| Some((hashed.file, (hashed.digest.parse().ok()?, hashed.order))))
            .collect();
        Verifier { mode, memo_path, memo: Mutex::new(memo) }
    }

    /// Checks `file` as the configuration says; where its squashfs lies.
    pub fn verify(&self, file: &File, digest: &Digest) -> Result<Partition, Error> {
        let partition = structure(file, digest)?;
        if self.mode == IntegrityMode::Hash {
            let found = self.hash(file, digest)?;
            if found != *digest {
                return Err(Error::Hash { digest: *digest, found });
            }
        }
        Ok(partition)
    }

    /// The file's digest, from the memo if it was hashed as it is.
    fn hash(&self, file: &File, digest: &Digest) -> Result<Digest, Error> {
        let failed = |operation| move |source| Error::Read { operation, digest: *digest, source };
        let before = FileKey::of(&file.metadata().map_err(failed("stat"))?);
        if let Some((found, _)) = self.lock().get(&before) {
            return Ok(*found);
        }
        let mut hasher = Sha256::new();
        let mut chunk = vec![0; CHUNK];
        let mut offset = 0;
        loop {
            match file.read_at(&mut chunk, offset) {
                Ok(0) => break,
                Ok(n) => {
                    hasher.update(&chunk[..n]);
                    offset += n as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(failed("read")(source)),
            }
        }
        let after = FileKey::of(&file.metadata().map_err(failed("stat"))?);
        if after != before || offset != before.size {
            return Err(Error::Changed { digest: *digest });
        }
        let found = Digest::from_bytes(hasher.finalize().into());
        self.remember(before, &found);
        Ok(found)
    }

    fn remember(&self, file: FileKey, digest: &Digest) {
        let mut memo = self.lock();
        let order = memo.values().map(|(_, order)| *order).max().unwrap_or(0) + 1;
        memo.insert(file, (*digest, order));
        while memo.len() > MEMO_LIMIT {
            let oldest = memo.iter().min_by_key(|(_, (_, order))| *order).map(|(key, _)| *key);
            let Some(oldest) = oldest else { break };
            memo.remove(&oldest);
        }
        let saved: Vec<Hashed> = memo
            .iter()
            .map(|(file, (digest, order))| Hashed { file: *file, digest: digest.to_string(), order: *order })
            .collect();
        // Without the memo on disk the next agent hashes once more, no worse: said here, since nobody above waits for it.
        if let Err(error) = state_file::write(&self.memo_path, &saved) {
            tracing::warn!(%error, "the memo of verified files is not saved");
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<FileKey, (Digest, u64)>> {
        self.memo.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The checks that both modes make.
fn structure(file: &File, digest: &Digest) -> Result<Partition, Error> {
    let failed = |operation| move |source| Error::Read { operation, digest: *digest, source };
    let metadata = file.metadata().map_err(failed("stat"))?;
    if !metadata.is_file() {
        return Err(Error::NotAFile { digest: *digest });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o022 != 0 {
        return Err(Error::Writable { digest: *digest, mode });
    }
    let broken = |source| Error::Sif { digest: *digest, source };
    let again = file.try_clone().map_err(failed("duplicate the descriptor"))?;
    let partition = Sif::open(again).and_then(|sif| sif.primary_partition()).map_err(broken)?;
    if partition.filesystem != Filesystem::Squashfs {
        return Err(Error::NotSquashfs { digest: *digest, found: partition.filesystem });
    }
    let damaged = |reason| Error::Superblock { digest: *digest, reason };
    if partition.offset % 512 != 0 {
        return Err(damaged("its partition does not start at a sector"));
    }
    let mut superblock = [0; SUPERBLOCK];
    match file.read_exact_at(&mut superblock, partition.offset) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(damaged("its partition is cut off"));
        }
        result => result.map_err(failed("read the superblock"))?,
    }
    if superblock[..4] != SQUASHFS_MAGIC.to_le_bytes() {
        return Err(damaged("its partition has no squashfs magic"));
    }
    let mut used = [0; 8];
    used.copy_from_slice(&superblock[BYTES_USED..BYTES_USED + 8]);
    if u64::from_le_bytes(used) > partition.size {
        return Err(damaged("its squashfs is longer than its partition"));
    }
    Ok(partition)
}

#[cfg(test)]
mod tests {
    use super::*;
    use siforge_sif::{Arch, Draft};
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    /// A SIF whose partition is a superblock and zeros: all that is looked at here.
    fn write_sif(path: &Path) -> (File, Digest) {
        let draft = Draft::new(Arch::Amd64, [1; 16], 0, Vec::new()).unwrap();
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path).unwrap();
        let mut superblock = [0; SUPERBLOCK];
        superblock[..4].copy_from_slice(b"hsqs");
        superblock[BYTES_USED..BYTES_USED + 8].copy_from_slice(&8192u64.to_le_bytes());
        file.write_all_at(&superblock, draft.partition_offset()).unwrap();
        draft.finish(&file, 8192).unwrap();
        file.set_permissions(std::fs::Permissions::from_mode(0o644)).unwrap();
        (file, sha256(path))
    }

    fn sha256(path: &Path) -> Digest {
        Digest::from_bytes(Sha256::digest(std::fs::read(path).unwrap()).into())
    }

    fn partition_offset() -> u64 {
        Draft::new(Arch::Amd64, [1; 16], 0, Vec::new()).unwrap().partition_offset()
    }

    fn check(mode: IntegrityMode, change: impl FnOnce(&File), expected: Result<(), &str>) {
        let directory = tempfile::tempdir().unwrap();
        let (file, digest) = write_sif(&directory.path().join("a.sif"));
        change(&file);
        let verifier = Verifier::new(mode, directory.path().join("verified.json"));
        match (verifier.verify(&file, &digest), expected) {
            (Ok(partition), Ok(())) => assert_eq!(partition.offset, partition_offset()),
            (Err(error), Err(expected)) => {
                let text = crate::node::chain(&error);
                assert!(text.contains(expected), "{text}");
                assert!(text.contains(&digest.to_string()) && error.is_damage(), "{text}");
            }
            (found, _) => panic!("{expected:?}: {found:?}"),
        }
    }

    #[test]
    fn each_damage_is_refused_with_its_reason() {
        use IntegrityMode::{Hash, Store};
        let write = |offset: u64, bytes: &'static [u8]| move |file: &File| file.write_all_at(bytes, offset).unwrap();
        let cut = |len: u64| move |file: &File| file.set_len(len).unwrap();
        let chmod = |mode| move |file: &File| file.set_permissions(std::fs::Permissions::from_mode(mode)).unwrap();
        let partition = partition_offset();
        for mode in [Hash, Store] {
            check(mode, |_| {}, Ok(()));
            check(mode, cut(64), Err("truncated SIF"));
            check(mode, cut(partition + 100), Err("truncated SIF"));
            check(mode, write(32, b"NOT_MAGIC"), Err("invalid SIF magic"));
            check(mode, write(partition, b"xxxx"), Err("no squashfs magic"));
            check(mode, write(partition + BYTES_USED as u64, &[0, 0, 1]), Err("longer than its partition"));
            check(mode, chmod(0o666), Err("may be written by others (mode 0666)"));
        }
        check(Hash, write(partition + 5000, b"x"), Err("its bytes hash to sha256:"));
        check(Store, write(partition + 5000, b"x"), Ok(()));
    }

    #[test]
    fn a_file_is_hashed_once_and_again_when_it_changed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sif");
        let memo = directory.path().join("verified.json");
        let (file, digest) = write_sif(&path);
        let hashed = || state_file::read::<Vec<Hashed>>(&memo).unwrap().map_or(0, |memo| memo.len());
        for _ in 0..2 {
            // A new agent each time: the memo is what survives.
            Verifier::new(IntegrityMode::Hash, memo.clone()).verify(&file, &digest).unwrap();
            assert_eq!(hashed(), 1);
        }
        file.write_all_at(b"x", partition_offset() + 5000).unwrap();
        let verifier = Verifier::new(IntegrityMode::Hash, memo.clone());
        let found = sha256(&path);
        for _ in 0..2 {
            let error = verifier.verify(&file, &digest).unwrap_err();
            assert!(matches!(&error, Error::Hash { found: bytes, .. } if *bytes == found), "{error}");
            assert_eq!(hashed(), 2);
        }
        std::fs::write(&memo, "nonsense").unwrap();
        Verifier::new(IntegrityMode::Hash, memo).verify(&file, &found).unwrap();
    }
}
