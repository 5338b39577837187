//! What a launcher needs to see of an image's root before it can tell what to run.
//!
//! The root is a directory descriptor, of a mount that may be detached: nothing outside of it is ever reached, since every
//! path is resolved by openat2(2) with RESOLVE_IN_ROOT and without magic links.

use crate::inspect::{Files, MAX_BYTES};
use crate::process::{self, ImageFacts, Mode, Options, Process, RunConfig};
use rustix::fs::{Dir, Mode as FileMode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

const CONFIG: &str = ".singularity.d/oci-config.json";
const ENV_DIR: &str = ".singularity.d/env";
/// The config object of an image config, which is itself bounded by this.
const CONFIG_LIMIT: u64 = crate::image_config::MAX_CONFIG_BYTES as u64;
/// Ours has seven scripts. Whoever has more is not evaluated natively anyway.
const ENV_NAMES_LIMIT: usize = 256;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("read /{path} of the image: {source}")]
    Read { path: &'static str, source: io::Error },
    #[error("/{path} of the image has more than {limit} bytes")]
    TooLarge { path: &'static str, limit: u64 },
    #[error(transparent)]
    Process(#[from] process::Error),
}

/// What was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// `/.singularity.d/oci-config.json`.
    pub oci_config: Option<Vec<u8>>,
    /// File names in `/.singularity.d/env`.
    pub env_names: Vec<OsString>,
    pub facts: ImageFacts,
}

impl Seen {
    /// Looks at an image's root.
    pub fn look(root: BorrowedFd<'_>) -> Result<Self, Error> {
        Ok(Self {
            oci_config: read(root, CONFIG, CONFIG_LIMIT)?,
            env_names: names(root, ENV_DIR)?,
            facts: ImageFacts {
                sh: open(root, "bin/sh", OFlags::PATH)?.is_some(),
                bash: open(root, "bin/bash", OFlags::PATH)?.is_some(),
                // The reference keeps what an image was built of there.
                rebuilt: open(root, ".singularity.d/bootstrap_history", OFlags::PATH)?.is_some(),
            },
        })
    }

    /// What to run: natively where that equals the image's scripts or nothing could run them, else by them.
    pub fn process(
        &self,
        caller: &[(OsString, OsString)],
        mode: Mode,
        args: &[OsString],
        options: &Options,
    ) -> Result<Process, Error> {
        // Apps and tests are scripts.
        let needed = options.app.is_some() || mode == Mode::Test;
        let scripts = needed || options.scripts || self.facts.rebuilt;
        Ok(match &self.oci_config {
            Some(json) if process::is_native(&self.env_names, true) && !scripts => {
                let config = RunConfig::parse(json)?;
                process::resolve(&config, caller, mode, args, options, &self.facts)?
            }
            // Scripts that nothing can run decide nothing.
            _ if !self.facts.sh && needed => return Err(process::Error::NoShell.into()),
            config if !self.facts.sh => {
                let config = config.as_deref().map(RunConfig::parse).transpose()?.unwrap_or_default();
                process::resolve(&config, caller, mode, args, options, &self.facts)?
            }
            _ => process::resolve_by_scripts(caller, mode, args, options)?,
        })
    }
}

/// None if it is not there (or lies behind something that is no directory).
fn open(root: BorrowedFd<'_>, path: &'static str, flags: OFlags) -> Result<Option<OwnedFd>, Error> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    match openat2(root, path, flags | OFlags::CLOEXEC, FileMode::empty(), resolve) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(errno) => Err(read_error(path, errno)),
    }
}

fn read_error(path: &'static str, source: impl Into<io::Error>) -> Error {
    Error::Read { path, source: source.into() }
}

fn read(root: BorrowedFd<'_>, path: &'static str, limit: u64) -> Result<Option<Vec<u8>>, Error> {
    // NONBLOCK: a fifo in that place must not hang the launch.
    let Some(fd) = open(root, path, OFlags::RDONLY | OFlags::NONBLOCK)? else {
        return Ok(None);
    };
    // Nearly all are smaller: one read, and one that finds the end.
    let mut bytes = Vec::with_capacity(4096);
    File::from(fd).take(limit + 1).read_to_end(&mut bytes).map_err(|source| read_error(path, source))?;
    if bytes.len() as u64 > limit {
        return Err(Error::TooLarge { path, limit });
    }
    Ok(Some(bytes))
}

fn names(root: BorrowedFd<'_>, path: &'static str) -> Result<Vec<OsString>, Error> {
    let Some(fd) = open(root, path, OFlags::RDONLY | OFlags::DIRECTORY)? else {
        return Ok(Vec::new());
    };
    let mut names = Vec::new();
    for entry in Dir::new(fd).map_err(|errno| read_error(path, errno))? {
        let entry = entry.map_err(|errno| read_error(path, errno))?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            names.push(name.to_owned());
        }
        if names.len() > ENV_NAMES_LIMIT {
            break;
        }
    }
    Ok(names)
}

/// Names that are read of a directory of metadata.
pub const NAMES_LIMIT: usize = 1 << 16;

/// A root file system's directory, as far as `inspect` looks at it.
#[derive(Debug)]
pub struct Tree<'a>(pub BorrowedFd<'a>);

impl Tree<'_> {
    fn open(&self, path: &str, flags: OFlags) -> Result<Option<OwnedFd>, TreeError> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        match openat2(self.0, path, flags | OFlags::CLOEXEC, FileMode::empty(), resolve) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(errno) => Err(TreeError { path: path.to_owned(), source: errno.into() }),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("read /{path} of the image: {source}")]
pub struct TreeError {
    path: String,
    source: io::Error,
}

impl Files for Tree<'_> {
    type Error = TreeError;

    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, TreeError> {
        let failed = |source| TreeError { path: path.to_owned(), source };
        // NONBLOCK: a fifo in that place must not hang anyone.
        let Some(fd) = self.open(path, OFlags::RDONLY | OFlags::NONBLOCK)? else {
            return Ok(None);
        };
        let file = File::from(fd);
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() || metadata.len() > MAX_BYTES {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(failed)?;
        Ok(Some(bytes))
    }

    fn names(&self, path: &str) -> Result<Vec<String>, TreeError> {
        let failed = |errno: Errno| TreeError { path: path.to_owned(), source: errno.into() };
        let Some(fd) = self.open(path, OFlags::RDONLY | OFlags::DIRECTORY)? else {
            return Ok(Vec::new());
        };
        let mut names = Vec::new();
        for entry in Dir::new(fd).map_err(failed)?.take(NAMES_LIMIT) {
            let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::fs::symlink;

    #[test]
    fn an_images_links_stay_in_the_image() {
        let dir = tempfile::tempdir().expect("temp dir");
        let root = dir.path();
        std::fs::create_dir_all(root.join(".singularity.d/env")).expect("mkdir");
        std::fs::create_dir_all(root.join("usr/bin")).expect("mkdir");
        std::fs::write(root.join("usr/bin/dash"), "").expect("write");
        symlink("/usr/bin", root.join("bin")).expect("symlink");
        symlink("dash", root.join("usr/bin/sh")).expect("symlink");
        // On the host this is a file; in the image it is nothing.
        symlink("/etc/passwd", root.join(".singularity.d/oci-config.json")).expect("symlink");
        std::fs::write(root.join(".singularity.d/env/10-x.sh"), "").expect("write");
        let fd = File::open(root).expect("open");
        let seen = Seen::look(fd.as_fd()).expect("look");
        assert_eq!(
            seen,
            Seen {
                oci_config: None,
                env_names: vec!["10-x.sh".into()],
                facts: ImageFacts { sh: true, ..ImageFacts::default() }
            }
        );
        let empty = tempfile::tempdir().expect("temp dir");
        let fd = File::open(empty.path()).expect("open");
        assert_eq!(Seen::look(fd.as_fd()).expect("look"), Seen::default());
    }

    #[test]
    fn a_root_without_a_shell_is_not_asked_for_its_scripts() {
        let argv = |sh: bool| {
            let seen = Seen { facts: ImageFacts { sh, ..ImageFacts::default() }, ..Seen::default() };
            let process = seen.process(&[], Mode::Exec, &["/tool".into()], &Options::default()).expect("process");
            process.argv
        };
        assert_eq!(argv(false), ["/tool"]);
        assert_ne!(argv(true), ["/tool"], "the image's scripts act first");
    }
}
