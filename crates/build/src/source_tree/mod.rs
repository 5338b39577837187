//! A tree of files as an image: a SIF's root file system, or a directory.
//!
//! ```text
//!   squashfs partition ─ squashfs.rs ─┐
//!   directory ────────── directory.rs ┴─▶ Walk: items, names sorted ─▶ tar.rs: one layer's tar ─▶ the pipeline
//! ```
//!
//! The tree becomes **one layer, a tar stream** that is made while it is read and never stored, and not a tree handed to
//! the squashfs writer past the pipeline: so it has a diff_id, from which the image digest, layer packs and the check that
//! nothing changed meanwhile follow as for any layer. The price is that the tree is read twice, first for the diff_id.
//! The stream is a function of the tree alone: names in byte order, no time of access, no inode number.
//!
//! A SIF of unknown origin goes through the hardened reader and is written anew: what is published is what our writer
//! wrote, whatever the partition held.

mod directory;
mod squashfs;
mod tar;

use crate::recipe::RATIO_FREE_BYTES;
use crate::source::{Image, Name, Source, Supply};
use crate::{Error, Limits};
use sha2::{Digest as _, Sha256};
use siforge_oci::{Compression, Download, Layer, Platform};
use siforge_reference::Digest;
use siforge_sif::image_config::{APP_FILES, APPS_FOLDER, BASE_FOLDER, Base, MAX_BASE, MAX_BASE_FILE};
use siforge_sif::{Arch, Filesystem, Sif};
use siforge_squashfs::read::Reader;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use tar::TarStream;

/// One name of a tree, parents before children.
pub(crate) struct Item {
    /// Relative to the root, which itself is empty.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: Kind,
    /// 0o7777.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds since 1970.
    pub(crate) mtime: i64,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The same for all names of a file that has several.
    pub(crate) inode: Option<(u64, u64)>,
}

pub(crate) enum Kind {
    /// Opaque: what lower layers have in it is hidden.
    Directory {
        opaque: bool,
    },
    /// Hides a name of the layers below.
    Whiteout,
    File {
        size: u64,
        contents: Box<dyn Read + Send>,
    },
    Symlink {
        target: Vec<u8>,
    },
    Device {
        block: bool,
        major: u32,
        minor: u32,
    },
    Fifo,
}

/// Gives the items of a tree, in an order that the tree alone decides.
pub(crate) trait Walk: Send {
    fn next(&mut self) -> io::Result<Option<Item>>;
}

/// Levels of directories.
const MAX_DEPTH: usize = 4096;

/// A SIF of whatever origin. It must be for `platform`; `limits` bound what it may unpack to.
pub fn sif(shown: &str, file: File, platform: &Platform, limits: &Limits) -> Result<Source, Error> {
    let wrong = |source| Error::ForeignSif { image: shown.to_owned(), source };
    let sif = Sif::open(file).map_err(wrong)?;
    let partition = sif.primary_partition().map_err(wrong)?;
    let refused = |detail: String| Error::Foreign { image: shown.to_owned(), detail };
    if partition.filesystem != Filesystem::Squashfs {
        let name = partition.filesystem.name();
        return Err(refused(match partition.filesystem {
            Filesystem::EncryptedSquashfs | Filesystem::GocryptfsSquashfs => {
                "it is encrypted; siforge does not read encrypted images, apptainer does".to_owned()
            }
            _ => format!("its root file system is {name}; only squashfs is read"),
        }));
    }
    let mut platform = platform.clone();
    if partition.arch != Arch::Unknown && partition.arch.go_name() != platform.architecture {
        let there = partition.arch.go_name();
        return Err(refused(format!("no image for platform {platform}; it is for linux/{there}: give --arch {there}")));
    }
    platform.os = "linux".to_owned();
    // A few KiB of squashfs can hold files of any length: bounded as a layer's are.
    let bytes = partition.size.saturating_mul(limits.ratio).max(RATIO_FREE_BYTES).min(limits.uncompressed_bytes);
    let limits = Limits { uncompressed_bytes: bytes, ..*limits };
    let created = sif.header().ctime.clamp(0, u32::MAX.into());
    let file = Arc::new(sif.into_file());
    let broken = |source: siforge_squashfs::read::Error| Error::Tree {
        image: shown.to_owned(),
        source: io::Error::other(source),
    };
    let reader = Arc::new(Reader::open(file, partition.offset, partition.size).map_err(broken)?);
    let walk = move || Ok(Box::new(squashfs::Walker::new(reader.clone())?) as Box<dyn Walk>);
    source(shown, Box::new(walk), platform, Some(created), &limits)
}

/// The upper layer of an overlay, or a root file system that was made in a directory, as one layer; owners as they are.
/// `shown` is for messages.
pub(crate) fn upper(shown: &str, path: &Path, limits: &Limits) -> Result<(Layer, Arc<Download>), Error> {
    let path = path.to_owned();
    let walk = move || Ok(Box::new(directory::Walker::new(&path, directory::What::Upper)?) as Box<dyn Walk>);
    layer(shown, Box::new(walk), limits).map(|(layer, download, _)| (layer, download))
}

/// A directory that holds a root file system. For anyone but root, and for a root that is alone in its user namespace, all
/// that is in it belongs to root in the image.
pub fn directory(shown: &str, path: &Path, platform: &Platform, limits: &Limits) -> Result<Source, Error> {
    let (path, keep_owners) = (path.to_owned(), nix::unistd::geteuid().is_root() && siforge_launch::has_other_ids());
    let what = if keep_owners { directory::What::Tree } else { directory::What::TreeOfRoot };
    let walk = move || Ok(Box::new(directory::Walker::new(&path, what)?) as Box<dyn Walk>);
    source(shown, Box::new(walk), platform.clone(), None, limits)
}

type MakeWalk = dyn Fn() -> io::Result<Box<dyn Walk>> + Send + Sync;

/// `created`: the image's time; None: that of the newest file.
fn source(
    shown: &str,
    walk: Box<MakeWalk>,
    platform: Platform,
    created: Option<i64>,
    limits: &Limits,
) -> Result<Source, Error> {
    let (layer, download, scan) = layer(shown, walk, limits)?;
    let base = Base { time: Some(created.unwrap_or(scan.newest)), ..scan.base };
    // Its digest names the source, as that of a manifest does.
    let config = serde_json::json!({
        "architecture": platform.architecture,
        "os": platform.os,
        "rootfs": { "type": "layers", "diff_ids": [scan.diff_id] },
        "time": base.time,
    });
    let config = config.to_string().into_bytes();
    Ok(Source {
        image: Image {
            name: Name::local("localimage", shown, None),
            manifest_digest: Digest::from_bytes(Sha256::digest(&config).into()),
            platform,
            layers: vec![layer],
            config,
            base,
        },
        supply: Supply::Local(vec![download]),
    })
}

/// The tree as a layer, and what its first reading showed.
fn layer(shown: &str, walk: Box<MakeWalk>, limits: &Limits) -> Result<(Layer, Arc<Download>, Scan), Error> {
    let failed = |source| Error::Tree { image: shown.to_owned(), source };
    let scan = scan(TarStream::collecting(walk().map_err(failed)?), limits).map_err(failed)?;
    let layer = Layer {
        digest: scan.diff_id,
        size: scan.size,
        compression: Compression::None,
        diff_id: scan.diff_id,
        urls: Vec::new(),
    };
    let make = move || Ok(Box::new(TarStream::new(walk()?)) as Box<dyn Read + Send>);
    let download = Download::made(Box::new(make), scan.size);
    Ok((layer, download, scan))
}

/// What the first reading of a tree shows.
struct Scan {
    diff_id: Digest,
    size: u64,
    newest: i64,
    base: Base,
}

fn scan(mut tar: TarStream, limits: &Limits) -> io::Result<Scan> {
    let (mut sha, mut size, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 20]);
    loop {
        let n = tar.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        size += n as u64;
        if size > limits.uncompressed_bytes || tar.items() > limits.files {
            let (bytes, files) = (limits.uncompressed_bytes, limits.files);
            return Err(io::Error::other(format!("it has more than {bytes} bytes or {files} names")));
        }
        sha.update(&buffer[..n]);
    }
    let Collector { base, newest, .. } = tar.into_collected();
    Ok(Scan { diff_id: Digest::from_bytes(sha.finalize().into()), size, newest, base })
}

/// Keeps what [`Base`] wants to know of a tree while it goes by.
#[derive(Default)]
struct Collector {
    base: Base,
    bytes: u64,
    /// The latest mtime.
    newest: i64,
}

impl Collector {
    /// Takes a copy of a file of `.singularity.d`; the item then gives the same bytes again.
    fn look(&mut self, item: &mut Item) -> io::Result<()> {
        self.newest = self.newest.max(item.mtime);
        let (Ok(path), Kind::File { size, contents }) = (std::str::from_utf8(&item.path), &mut item.kind) else {
            return Ok(());
        };
        let name = match path.strip_prefix(BASE_FOLDER) {
            Some(name) => name.to_owned(),
            None if is_of_app(path) => format!("/{path}"),
            None => return Ok(()),
        };
        self.bytes += *size;
        if *size > MAX_BASE_FILE || self.bytes > MAX_BASE {
            return Ok(());
        }
        let mut bytes = Vec::new();
        contents.read_to_end(&mut bytes)?;
        *contents = Box::new(io::Cursor::new(bytes.clone()));
        self.base.files.insert(name, bytes);
        Ok(())
    }
}

/// Whether a path is one of those that tell of a SCIF app.
fn is_of_app(path: &str) -> bool {
    let rest = path.strip_prefix(&APPS_FOLDER[1..]).and_then(|rest| rest.split_once("/scif/"));
    rest.is_some_and(|(app, file)| !app.contains('/') && APP_FILES.contains(&file))
}

#[cfg(test)]
mod tests;
