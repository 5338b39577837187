//! `build --sandbox`: an image as a directory that can be changed.
//!
//! ```text
//! .NAME.siforge-<pid>-…   beside NAME: being unpacked, or a SIF that it comes from, or what NAME was before; the next build
//!                         of NAME removes those of dead processes
//! NAME                    complete: renamed into place
//! ```
//!
//! A SIF is unpacked as it lies there. Of anything else a SIF is made first: in the cache, as for a launch, or beside NAME.

use crate::cli::{Build, Global};
use crate::config::Config;
use crate::error::Error;
use crate::sif_source::blocking;
use crate::{definition, partition, pull, root, signed};
use siforge_reference::Reference;
use siforge_sif::{Partition, Sif};
use siforge_squashfs::read::{Owners, Reader, UnpackOptions, Unpacked, unpack_as};
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tempfile::TempDir;

/// `definition`: the source is one. Returns the exit code.
pub(crate) fn build(
    global: &Global,
    config: &Config,
    options: &Build,
    reference: &Reference,
    definition: bool,
) -> Result<i32, Error> {
    let target = Target::new(&options.output)?;
    if !options.format.force && !target.is_free() {
        return Err(siforge_build::Error::Exists { path: options.output.clone() }.into());
    }
    target.sweep();
    // Goes when the sandbox is there.
    let beside = target.temporary()?;
    let from = Build { output: beside.path.join("sif"), ..options.clone() };
    let (path, file) = match reference {
        Reference::Path(path) if definition => {
            // Namespaces of a build are no place to unpack from: children and threads would be born into them.
            let code = siforge_launch::in_child(|| {
                definition::build(global, config, &from, path).unwrap_or_else(|error| {
                    crate::report(&error);
                    i32::from(crate::FAILURE)
                })
            })?;
            if code != 0 {
                return Ok(code);
            }
            let file = open(&from.output)?;
            (from.output, file)
        }
        Reference::Path(path) if path.is_dir() => {
            let quiet = Global { quiet: true, ..global.clone() };
            pull::convert(&quiet, config, &from.registry, &from.format, reference, &from.output)?;
            let file = open(&from.output)?;
            (from.output, file)
        }
        Reference::Path(path) => {
            signed::check_signable(&options.registry, reference)?;
            (path.clone(), open(path)?)
        }
        _ => root::cached(global, config, &options.registry, options.source.as_ref())?,
    };
    let sif = Sif::open(file).map_err(|source| Error::Sif { path: path.clone(), source })?;
    let partition = partition::runnable(&sif, &path)?;
    let unpacked = unpack(&target, &path, sif.into_file(), partition, owners(options), options.sandbox.fix_perms)?;
    if !global.is_quiet() {
        for warning in unpacked.warnings {
            eprintln!("warning: {}: {warning}", options.output.display());
        }
        eprintln!("{}: unpacked", options.output.display());
    }
    Ok(0)
}

fn open(path: &Path) -> Result<File, Error> {
    File::open(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

fn owners(options: &Build) -> Owners {
    match (nix::unistd::geteuid().is_root(), options.sandbox.keep_owners) {
        (true, _) => Owners::True,
        (false, true) => Owners::Recorded,
        (false, false) => Owners::Caller,
    }
}

/// Unpacks beside the target and gives it its name.
fn unpack(
    target: &Target,
    path: &Path,
    file: File,
    partition: Partition,
    owners: Owners,
    open: bool,
) -> Result<Unpacked, Error> {
    let tree = target.temporary()?;
    let stop = Arc::new(AtomicBool::new(false));
    let (into, from) = (tree.path.clone(), path.to_owned());
    let unpacked = pull::block_on(async {
        // Ctrl-C drops this work, and block_on then waits for the thread.
        let guard = StopOnDrop(stop.clone());
        let work = blocking(move || {
            let failed = |source| Error::Squashfs { path: from.clone(), source };
            let reader = Reader::open(Arc::new(file), partition.offset, partition.size).map_err(failed)?;
            let how = UnpackOptions { owners, open, stop: Some(&stop) };
            unpack_as(&reader, &into, &how).map_err(failed)
        });
        let unpacked = work.await;
        drop(guard);
        unpacked
    })?;
    target.place(tree)?;
    Ok(unpacked)
}

struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The sandbox that is to be.
struct Target {
    path: PathBuf,
    parent: PathBuf,
    /// Of the temporary names, up to the process id.
    prefix: String,
}

impl Target {
    fn new(path: &Path) -> Result<Self, Error> {
        let no_name = || Error::SandboxName { path: path.to_owned() };
        let name = path.file_name().ok_or_else(no_name)?;
        let parent = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        Ok(Self {
            path: parent.join(name),
            parent: parent.to_owned(),
            prefix: format!(".{}.siforge-", name.to_string_lossy()),
        })
    }

    /// Nothing is there, or an empty directory.
    fn is_free(&self) -> bool {
        match std::fs::read_dir(&self.path) {
            Ok(mut entries) => entries.next().is_none(),
            Err(_) => self.path.symlink_metadata().is_err(),
        }
    }

    fn temporary(&self) -> Result<Temporary, Error> {
        let dir = tempfile::Builder::new()
            .prefix(&format!("{}{}-", self.prefix, std::process::id()))
            .tempdir_in(&self.parent)
            .map_err(|source| Error::Unpack { path: self.path.clone(), source })?;
        Ok(Temporary { path: TempDir::keep(dir) })
    }

    /// Removes what dead processes left. Best effort: what stays is only a waste.
    fn sweep(&self) {
        let dead = |name: &str| {
            let pid = name.strip_prefix(&self.prefix).and_then(|rest| rest.split('-').next()).map(str::parse::<u32>);
            matches!(pid, Some(Ok(pid)) if !Path::new("/proc").join(pid.to_string()).exists())
        };
        for entry in std::fs::read_dir(&self.parent).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(dead) {
                let _ = remove(&entry.path());
            }
        }
    }

    /// What has the name already goes once the new one has it.
    fn place(&self, tree: Temporary) -> Result<(), Error> {
        let failed = |source| Error::Unpack { path: self.path.clone(), source };
        if self.is_free() {
            return std::fs::rename(&tree.path, &self.path).map_err(failed);
        }
        let before = self.temporary()?;
        let aside = before.path.join("before");
        std::fs::rename(&self.path, &aside).map_err(failed)?;
        std::fs::rename(&tree.path, &self.path).map_err(|error| {
            // The first error is told; if this one fails too, the next build finds the old sandbox aside.
            let _ = std::fs::rename(&aside, &self.path);
            failed(error)
        })
    }
}

/// A directory that goes with the value, unless it has got another name. (A [`TempDir`] would stay where a mode of the image
/// shuts its owner out.)
struct Temporary {
    path: PathBuf,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = remove(&self.path);
    }
}

fn remove(path: &Path) -> io::Result<()> {
    if std::fs::remove_dir_all(path).is_ok() {
        return Ok(());
    }
    open_directories(path);
    std::fs::remove_dir_all(path)
}

/// Gives the owner all rights on the directories of a tree. No symlink is followed.
fn open_directories(path: &Path) {
    let is_directory = |path: &Path| path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
    let mut left = vec![path.to_owned()];
    while let Some(path) = left.pop().filter(|path| is_directory(path)) {
        let _ = std::fs::set_permissions(&path, Permissions::from_mode(0o700));
        let below = std::fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path());
        left.extend(below.filter(|path| is_directory(path)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_that_shut_their_owner_out_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let shut = dir.path().join("a/b/c");
        std::fs::create_dir_all(&shut).unwrap();
        std::fs::write(shut.join("file"), "x").unwrap();
        for path in [&shut, &dir.path().join("a/b"), &dir.path().join("a")] {
            std::fs::set_permissions(path, Permissions::from_mode(0o000)).unwrap();
        }
        remove(&dir.path().join("a")).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn sandboxes_have_a_name() {
        let check = |path: &str, expect: Option<(&str, &str)>| {
            let target = Target::new(Path::new(path)).ok();
            let found = target.as_ref().map(|target| (target.path.to_str().unwrap(), target.prefix.as_str()));
            assert_eq!(found, expect, "{path}");
        };
        check("box", Some(("./box", ".box.siforge-")));
        check("/a/box/", Some(("/a/box", ".box.siforge-")));
        check("/", None);
        check("..", None);
    }
}
