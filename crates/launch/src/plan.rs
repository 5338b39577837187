//! From a [`Request`] and a [`Host`] to a [`Plan`]: every decision of a launch, none of its acts.
//!
//! Defaults are those of Apptainer 1.4's apptainer.conf: /proc, /sys and /dev of the host, $HOME, /tmp, /var/tmp,
//! the working directory, /etc/resolv.conf, /etc/hosts, /etc/localtime, and the user's passwd and group entries
//! (reference: internal/pkg/runtime/engine/apptainer/container_linux.go).

use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

use serde::{Serialize, Serializer};

use crate::host::{Host, UserEntry};
use crate::request::{Bind, Contain, Home, Namespaces, NoMount, Overlay, Request};

mod minimal_dev;

/// Size of the tmpfs that holds a contained /tmp, home or the writable layer: apptainer.conf's `sessiondir max size`.
pub const SESSION_SIZE_MIB: u32 = 64;

/// Directories that are never bound as working directory: they would hide the image's own (the reference's list).
const SYSTEM_DIRECTORIES: [&str; 10] = ["/", "/etc", "/bin", "/mnt", "/usr", "/var", "/opt", "/sbin", "/lib", "/lib64"];

/// What lies at a path, symlinks followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PathKind {
    /// A directory.
    Directory,
    /// Anything else.
    File,
}

/// A launch, decided. Serialised (lossily for non-UTF-8 names) by `--dry-run`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The caller's user id, mapped to itself in a user namespace.
    pub uid: u32,
    /// The caller's group id, likewise.
    pub gid: u32,
    /// New namespaces besides mount (and user).
    pub namespaces: Namespaces,
    /// Host name to set.
    pub hostname: Option<String>,
    /// A writable tmpfs over the image.
    pub writable_tmpfs: bool,
    /// A directory that keeps what is written.
    pub overlay: Option<Overlay>,
    /// The root itself is written.
    pub writable: bool,
    /// Host directories to make before binding (`--workdir`), mode 01777 less umask.
    pub create: Vec<PathBuf>,
    /// In the order in which they are attached.
    pub mounts: Vec<Mount>,
    /// Set no_new_privs: always but for root, as the reference.
    pub no_new_privileges: bool,
    /// System calls that change owners and ids do nothing and succeed: for a root that is alone in its user namespace.
    pub feign_ids: bool,
    /// Working directories inside; the first that exists is used.
    pub cwd: Vec<PathBuf>,
    /// Whether the first of `cwd` must exist.
    pub cwd_required: bool,
    /// The environment.
    #[serde(serialize_with = "lossy_pairs")]
    pub env: Vec<(OsString, OsString)>,
    /// Program and arguments.
    #[serde(serialize_with = "lossy_words")]
    pub argv: Vec<OsString>,
}

/// One mount inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mount {
    /// What is shown.
    pub source: Source,
    /// Where, inside; absolute.
    #[serde(serialize_with = "lossy_path")]
    pub target: PathBuf,
    /// What the mount point must be.
    pub kind: PathKind,
    /// MOUNT_ATTR_RDONLY.
    pub read_only: bool,
    /// MOUNT_ATTR_NODEV; nosuid is always set.
    pub nodev: bool,
    /// Whether the launch fails when it cannot be had.
    pub required: bool,
}

/// What a mount shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A path of the host, recursively; propagation from the host stays on (slave).
    Bind(#[serde(serialize_with = "lossy_path")] PathBuf),
    /// A new procfs for a new pid namespace.
    Proc,
    /// An empty tmpfs of at most so many MiB, with this mode.
    Tmpfs {
        /// Limit.
        size_mib: u32,
        /// Mode of its root.
        mode: u32,
    },
    /// The tmpfs of a minimal /dev, with these symlinks (name, target) and empty mount points.
    Dev {
        /// Name in /dev → what it points to.
        links: Vec<(&'static str, &'static str)>,
        /// Empty files, to bind devices on.
        files: Vec<&'static str>,
        /// Empty directories.
        directories: Vec<&'static str>,
    },
    /// A new devpts instance.
    Devpts,
    /// A new mqueue, for a new IPC namespace.
    Mqueue,
    /// The image's own passwd with this entry added, if it lacks one for the user.
    Passwd(UserEntry),
    /// The image's own group file with these groups added, as far as it lacks them.
    Group {
        /// Member to list.
        user: String,
        /// Id and name.
        groups: Vec<(u32, String)>,
    },
    /// A file with this text.
    Text(String),
}

impl Mount {
    fn bind(source: impl Into<PathBuf>, target: impl Into<PathBuf>, kind: PathKind) -> Mount {
        let source = Source::Bind(source.into());
        Mount { source, target: target.into(), kind, read_only: false, nodev: true, required: false }
    }

    fn made(source: Source, target: impl Into<PathBuf>, kind: PathKind) -> Mount {
        Mount { source, target: target.into(), kind, read_only: false, nodev: true, required: true }
    }
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A bind's source does not exist.
    #[error("bind {}: no such file or directory on the host", .0.display())]
    NoSource(PathBuf),
    /// `--home` names something that is no directory.
    #[error("home {}: not a directory on the host", .0.display())]
    NoHome(PathBuf),
    /// A bind would hide the whole image.
    #[error("bind {}: cannot be mounted over / of the container", .0.display())]
    OverRoot(PathBuf),
    /// A path inside has to be absolute.
    #[error("{what} {}: not an absolute path", path.display())]
    Relative {
        /// Which option.
        what: &'static str,
        /// Its value.
        path: PathBuf,
    },
}

/// Decides a launch. Command and environment may still be missing: an image that is not there yet may decide about them. `kind` says what lies at a path of the host ([`crate::path_kind`]).
pub fn make(request: &Request, host: &Host, kind: &dyn Fn(&Path) -> Option<PathKind>) -> Result<Plan, PlanError> {
    let mut maker = Maker { request, host, kind, mounts: Vec::with_capacity(16), create: Vec::new() };
    maker.kernel();
    maker.files();
    maker.home()?;
    maker.temporary();
    maker.scratch()?;
    maker.working_directory();
    maker.binds()?;
    maker.accounts();
    let namespaces = maker.namespaces();
    let cwd = maker.cwd()?;
    Ok(Plan {
        uid: host.uid,
        gid: host.gid,
        namespaces,
        hostname: request.hostname.clone(),
        writable_tmpfs: request.writable_tmpfs,
        overlay: request.overlay.clone(),
        writable: request.writable,
        create: maker.create,
        mounts: maker.mounts,
        no_new_privileges: host.uid != 0,
        feign_ids: false,
        cwd,
        cwd_required: request.cwd.is_some(),
        env: request.env.clone(),
        argv: request.argv.clone(),
    })
}

struct Maker<'a> {
    request: &'a Request,
    host: &'a Host,
    kind: &'a dyn Fn(&Path) -> Option<PathKind>,
    mounts: Vec<Mount>,
    create: Vec<PathBuf>,
}

impl Maker<'_> {
    fn contained(&self) -> bool {
        self.request.contain != Contain::No
    }

    fn namespaces(&self) -> Namespaces {
        let all = self.request.contain == Contain::All;
        let asked = self.request.namespaces;
        Namespaces {
            pid: asked.pid || all,
            ipc: asked.ipc || all,
            uts: asked.uts || self.request.hostname.is_some(),
            net: asked.net,
        }
    }

    fn left_out(&self, what: NoMount, path: &str) -> bool {
        self.request.no_mount.iter().any(|no| *no == what || matches!(no, NoMount::Path(p) if p == Path::new(path)))
    }

    fn exists(&self, path: &Path) -> bool {
        (self.kind)(path).is_some()
    }

    fn kernel(&mut self) {
        let namespaces = self.namespaces();
        if !self.left_out(NoMount::Proc, "/proc") {
            // A new procfs shows the new pid namespace; without one the kernel allows only a bind of the host's.
            self.mounts.push(if namespaces.pid {
                Mount::made(Source::Proc, "/proc", PathKind::Directory)
            } else {
                Mount { required: true, ..Mount::bind("/proc", "/proc", PathKind::Directory) }
            });
        }
        if !self.left_out(NoMount::Sys, "/sys") {
            self.mounts.push(Mount::bind("/sys", "/sys", PathKind::Directory));
        }
        if self.left_out(NoMount::Dev, "/dev") {
        } else if self.contained() {
            let pts = !self.left_out(NoMount::Devpts, "/dev/pts");
            minimal_dev::mounts(&mut self.mounts, namespaces.ipc, pts, self.kind);
        } else {
            self.mounts.push(Mount {
                nodev: false,
                required: true,
                ..Mount::bind("/dev", "/dev", PathKind::Directory)
            });
        }
    }

    /// The single files of /etc. They are optional: an image and a host can do without.
    fn files(&mut self) {
        for path in ["/etc/localtime", "/etc/hosts"] {
            if !self.left_out(NoMount::BindPaths, path) && self.exists(Path::new(path)) {
                self.mounts.push(Mount::bind(path, path, PathKind::File));
            }
        }
        let resolver = "/etc/resolv.conf";
        if !self.left_out(NoMount::Path(resolver.into()), resolver) && self.exists(Path::new(resolver)) {
            self.mounts.push(Mount::bind(resolver, resolver, PathKind::File));
        }
        if let Some(hostname) = &self.request.hostname {
            let text = Source::Text(format!("{hostname}\n"));
            self.mounts.push(Mount { required: false, ..Mount::made(text, "/etc/hostname", PathKind::File) });
        }
    }

    fn home(&mut self) -> Result<(), PlanError> {
        if self.left_out(NoMount::Home, "/home") {
            return Ok(());
        }
        let (source, target) = match &self.request.home {
            Home::None => return Ok(()),
            Home::At { source, target } => {
                if (self.kind)(source) != Some(PathKind::Directory) {
                    return Err(PlanError::NoHome(source.clone()));
                }
                (source.clone(), target.clone())
            }
            Home::Default => match &self.host.user {
                Some(user) if user.home.is_absolute() && user.home != Path::new("/") => {
                    (user.home.clone(), user.home.clone())
                }
                _ => return Ok(()),
            },
        };
        if target.parent().is_none() {
            return Err(PlanError::OverRoot(source));
        }
        let asked = matches!(self.request.home, Home::At { .. });
        if self.contained() && !asked {
            self.contained_directory("home", &target, 0o700);
        } else if self.exists(&source) {
            self.mounts.push(Mount { required: asked, ..Mount::bind(source, target, PathKind::Directory) });
        }
        Ok(())
    }

    /// A directory of `--workdir`, or an empty tmpfs.
    fn contained_directory(&mut self, name: &str, target: &Path, mode: u32) {
        match &self.request.workdir {
            Some(workdir) => {
                let source = workdir.join(name);
                self.create.push(source.clone());
                self.mounts.push(Mount { required: true, ..Mount::bind(source, target, PathKind::Directory) });
            }
            None => {
                let tmpfs = Source::Tmpfs { size_mib: SESSION_SIZE_MIB, mode };
                self.mounts.push(Mount::made(tmpfs, target, PathKind::Directory));
            }
        }
    }

    fn temporary(&mut self) {
        for (path, name) in [("/tmp", "tmp"), ("/var/tmp", "var_tmp")] {
            if self.left_out(NoMount::Tmp, path) {
                continue;
            }
            if self.contained() {
                self.contained_directory(name, Path::new(path), 0o1777);
            } else if self.exists(Path::new(path)) {
                self.mounts.push(Mount::bind(path, path, PathKind::Directory));
            }
        }
    }

    fn scratch(&mut self) -> Result<(), PlanError> {
        for path in &self.request.scratch {
            if !path.is_absolute() || path.parent().is_none() {
                return Err(PlanError::Relative { what: "scratch", path: path.clone() });
            }
            let name = Path::new("scratch").join(path.strip_prefix("/").unwrap_or(path));
            self.contained_directory(&name.to_string_lossy(), path, 0o700);
        }
        Ok(())
    }

    /// The working directory, unless it is seen already, is the image's business, or was asked for by name.
    fn working_directory(&mut self) {
        let cwd = &self.host.cwd;
        let virtual_file_system = ["/proc", "/sys", "/dev"].iter().any(|top| cwd.starts_with(top));
        if self.contained()
            || self.request.cwd.is_some()
            || virtual_file_system
            || !cwd.is_absolute()
            || SYSTEM_DIRECTORIES.iter().any(|dir| cwd == Path::new(dir))
            || self.left_out(NoMount::Cwd, "")
            || self.shown(cwd)
            || !self.exists(cwd)
        {
            return;
        }
        self.mounts.push(Mount::bind(cwd, cwd, PathKind::Directory));
    }

    /// Whether the innermost mount at or above `path` shows the host's own file there.
    fn shown(&self, path: &Path) -> bool {
        let innermost =
            self.mounts.iter().filter(|m| path.starts_with(&m.target)).max_by_key(|m| m.target.components().count());
        matches!(innermost, Some(Mount { source: Source::Bind(source), target, .. }) if source == target)
    }

    fn binds(&mut self) -> Result<(), PlanError> {
        for bind in &self.request.binds {
            let Bind { source, target, read_only, optional } = bind;
            let source = self.host.cwd.join(source);
            let target = if target.is_absolute() { target.clone() } else { self.host.cwd.join(target) };
            if normal(&target) == Path::new("/") {
                return Err(PlanError::OverRoot(source));
            }
            match (self.kind)(&source) {
                Some(kind) => {
                    let mount = Mount::bind(source, target, kind);
                    self.mounts.push(Mount { read_only: *read_only, required: !optional, ..mount });
                }
                None if *optional => {}
                None => return Err(PlanError::NoSource(source)),
            }
        }
        Ok(())
    }

    fn accounts(&mut self) {
        if let Some(user) = &self.host.user {
            let home = self.request.home.target(&user.home).to_path_buf();
            let entry = UserEntry { home, ..user.clone() };
            let passwd = Mount::made(Source::Passwd(entry), "/etc/passwd", PathKind::File);
            self.mounts.push(Mount { required: false, ..passwd });
        }
        if !self.host.group_names.is_empty() {
            let user = self.host.user.as_ref().map(|u| u.name.clone()).unwrap_or_default();
            let source = Source::Group { user, groups: self.host.group_names.clone() };
            let group = Mount::made(source, "/etc/group", PathKind::File);
            self.mounts.push(Mount { required: false, ..group });
        }
    }

    fn cwd(&self) -> Result<Vec<PathBuf>, PlanError> {
        if let Some(cwd) = &self.request.cwd {
            if !cwd.is_absolute() {
                return Err(PlanError::Relative { what: "cwd", path: cwd.clone() });
            }
            return Ok(vec![cwd.clone()]);
        }
        let mut candidates = Vec::with_capacity(3);
        if !self.contained() && self.host.cwd.is_absolute() {
            candidates.push(self.host.cwd.clone());
        }
        let default = self.host.user.as_ref().map_or(Path::new("/"), |user| &user.home);
        let home = self.request.home.target(default);
        if home.is_absolute() && !candidates.iter().any(|c| c == home) {
            candidates.push(home.to_path_buf());
        }
        if !candidates.iter().any(|c| c == Path::new("/")) {
            candidates.push(PathBuf::from("/"));
        }
        Ok(candidates)
    }
}

/// The path without `.` and `..`, by name alone.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::ParentDir => {
                out.pop();
            }
            Component::Normal(name) => out.push(name),
            _ => {}
        }
    }
    out
}

fn lossy_path<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

fn lossy_words<S: Serializer>(words: &[OsString], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(words.iter().map(|w| w.to_string_lossy()))
}

fn lossy_pairs<S: Serializer>(pairs: &[(OsString, OsString)], serializer: S) -> Result<S::Ok, S::Error> {
    let text = |s: &OsStr| s.to_string_lossy().into_owned();
    serializer.collect_map(pairs.iter().map(|(name, value)| (text(name), text(value))))
}

#[cfg(test)]
mod tests;
