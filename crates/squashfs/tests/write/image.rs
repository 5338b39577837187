//! Images as tests make and mount them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use siforge_rootfs::{ApplyError, Limits, Merge, Outcome, Tree, Visibility};
use siforge_squashfs::write::{Codec, Error, Finished, Options, Writer};
use tempfile::TempDir;

use crate::layer::{self, Entry};

pub(crate) const ZSTD: Codec = Codec::Zstd { level: 3 };
pub(crate) const GZIP: Codec = Codec::Gzip { level: 6 };
pub(crate) const LZ4: Codec = Codec::Lz4 { level: 0 };
pub(crate) const LZ4HC: Codec = Codec::Lz4 { level: 12 };
pub(crate) const XZ: Codec = Codec::Xz { level: 6 };

pub(crate) fn options(codec: Codec, block_kib: u32, threads: usize) -> Options {
    Options { codec, block_size: block_kib << 10, threads, mtime: 1_600_000_000, ..Options::default() }
}

pub(crate) struct Image {
    pub(crate) directory: TempDir,
    pub(crate) path: PathBuf,
    pub(crate) offset: u64,
    pub(crate) finished: Finished,
}

/// Merges layers, topmost first, into an image that begins at `offset` of its file.
pub(crate) fn try_build(layers: &[Vec<Entry>], options: &Options, offset: u64) -> Result<Image, Error> {
    let tars: Vec<_> = layers.iter().map(|layer| layer::tar(layer)).collect();
    build_tars(&tars, options, offset)
}

fn build_tars(layers: &[Vec<u8>], options: &Options, offset: u64) -> Result<Image, Error> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    let mut known = Visibility::default();
    loop {
        let file = File::options().create(true).truncate(true).read(true).write(true).open(&path).unwrap();
        let mut writer = Writer::new(file, offset, options.clone())?;
        match merge(layers, known, &mut writer)? {
            Ok(tree) => {
                let finished = writer.finish(&tree)?;
                return Ok(Image { directory, path, offset, finished });
            }
            Err(map) => known = map,
        }
    }
}

fn merge(layers: &[Vec<u8>], known: Visibility, writer: &mut Writer) -> Result<Result<Tree, Visibility>, Error> {
    let mut merge = Merge::new(Limits::default(), known);
    for layer in layers {
        match merge.apply_tar(&mut &layer[..], writer) {
            Ok(()) => {}
            Err(ApplyError::Contents(error)) => return Err(error),
            Err(error) => panic!("{error}"),
        }
    }
    match merge.finish(0).unwrap() {
        Outcome::Done { tree, .. } => Ok(Ok(tree)),
        Outcome::Restart(map) => Ok(Err(map)),
    }
}

pub(crate) fn build(layers: &[Vec<Entry>], options: &Options) -> Image {
    try_build(layers, options, 0).unwrap()
}

pub(crate) fn build_tar(layer: &[u8], options: &Options) -> Image {
    build_tars(&[layer.to_vec()], options, 0).unwrap()
}

impl Image {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let file = std::fs::read(&self.path).unwrap();
        assert_eq!(file.len() as u64, self.offset + self.finished.bytes, "the file ends with the image");
        file[self.offset as usize..].to_vec()
    }

    pub(crate) fn mount(&self) -> Mount {
        let at = self.directory.path().join("mount");
        std::fs::create_dir(&at).unwrap();
        let options = format!("loop,ro,offset={}", self.offset);
        run(Command::new("mount").args(["-t", "squashfs", "-o", &options]).arg(&self.path).arg(&at));
        Mount(at)
    }

    /// Extracts with unsquashfs.
    pub(crate) fn extract(&self) -> PathBuf {
        let into = self.directory.path().join("extracted");
        let offset = self.offset.to_string();
        run(Command::new("unsquashfs").args(["-no-progress", "-offset", &offset, "-d"]).arg(&into).arg(&self.path));
        into
    }
}

pub(crate) struct Mount(PathBuf);

impl Mount {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        run(Command::new("umount").arg(&self.0));
    }
}

pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}
