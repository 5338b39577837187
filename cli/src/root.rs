//! From what was named to a root file system: a ladder, whose rung and reason `-v` tells.
//!
//! | target | root | ordinary user |
//! |---|---|---|
//! | store image | agent's mount; without agent and with SIFORGE_STORE: own loop mount | agent's mount, id-mapped; else as a .sif |
//! | .sif file; docker://, oci:, archives (cache) | own loop mount | served over FUSE; without /dev/fuse: unpacked into the cache |
//! | directory | as it is | as it is |

use crate::cli::{Global, Registry};
use crate::config::Config;
use crate::error::Error;
use crate::sif_source::Remote;
use crate::{fuse, partition, source, unpacked};
use siforge_agent_api::{Client, MountRequest};
use siforge_launch::{Groups, RootFs, Subordinate, UserNamespace};
use siforge_reference::{Reference, StoreRef};
use siforge_sif::{Partition, Sif};
use siforge_store::Store;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A root that can be looked at and launched.
pub(crate) struct Opened {
    pub(crate) root: OwnedRoot,
    /// The user namespace that this process is in already, and who mapped its groups.
    pub(crate) namespace: Option<(UserNamespace, Groups)>,
    /// APPTAINER_CONTAINER.
    pub(crate) container: OsString,
    /// APPTAINER_NAME.
    pub(crate) name: OsString,
    /// A directory, which its user may have changed.
    pub(crate) sandbox: bool,
}

/// A root that is there, or that an agent was asked for.
pub(crate) enum Opening {
    Ready(Opened),
    Asked(Asked),
}

/// A request that the agent works on.
pub(crate) struct Asked {
    client: Client,
    reference: StoreRef,
    namespace: Option<UserNamespace>,
}

impl Opening {
    pub(crate) fn finish(self, global: &Global) -> Result<Opened, Error> {
        match self {
            Self::Ready(opened) => Ok(opened),
            Self::Asked(asked) => asked.finish(global),
        }
    }
}

impl Asked {
    fn finish(mut self, global: &Global) -> Result<Opened, Error> {
        let (reply, mount) = self.client.mounted()?;
        let reference = &self.reference;
        note(global, format_args!("{reference}: the agent's mount of {} (revision {})", reply.digest, reply.revision));
        let groups = if reply.groups_mapped { Groups::MappedByAgent } else { Groups::OwnOnly };
        Ok(Opened {
            root: OwnedRoot::Mount(mount),
            namespace: self.namespace.map(|namespace| (namespace, groups)),
            container: reply.path_hint.map_or_else(|| container_of(reference), OsString::from),
            name: reference.name.clone().into(),
            sandbox: false,
        })
    }
}

/// A descriptor of the root directory, and what the launch makes of it.
pub(crate) enum OwnedRoot {
    Mount(OwnedFd),
    Directory { fd: OwnedFd, path: PathBuf },
}

impl OwnedRoot {
    pub(crate) fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        match self {
            Self::Mount(fd) | Self::Directory { fd, .. } => fd.as_fd(),
        }
    }

    pub(crate) fn into_root(self) -> RootFs {
        match self {
            Self::Mount(fd) => RootFs::Detached(fd),
            Self::Directory { path, .. } => RootFs::Directory(path),
        }
    }
}

/// Who the process is when it has opened an image.
pub(crate) enum Identity {
    /// Root, who needs no user namespace.
    Unchanged,
    /// The caller, in a user namespace.
    Caller,
    /// Root, in a user namespace with these ids besides.
    Root(Option<Subordinate>),
}

impl Identity {
    fn is_unchanged(&self) -> bool {
        matches!(self, Self::Unchanged)
    }

    /// Moves this process into a user namespace.
    fn namespace(&self) -> Result<UserNamespace, Error> {
        Ok(match self {
            Self::Unchanged | Self::Caller => UserNamespace::create()?,
            Self::Root(subordinate) => UserNamespace::create_as_root(subordinate.as_ref())?,
        })
    }

    /// Moves this process into a user namespace, if it needs one.
    fn enter(&self) -> Result<Option<UserNamespace>, Error> {
        (!self.is_unchanged()).then(|| self.namespace()).transpose()
    }

    fn entered(&self) -> Result<Option<(UserNamespace, Groups)>, Error> {
        Ok(self.enter()?.map(|namespace| (namespace, Groups::OwnOnly)))
    }
}

/// Opens `image`, or asks the agent to; the process has the identity afterwards.
pub(crate) fn open(
    global: &Global,
    config: &Config,
    registry: &Registry,
    identity: Identity,
    image: &OsStr,
) -> Result<Opening, Error> {
    let identity = &identity;
    let reference = parse(config, image)?;
    Remote { global, config, registry, reference: &reference }.check()?;
    let opened = match reference {
        Reference::Store(reference) => return store_image(global, config, identity, reference),
        Reference::Path(path) if path.is_dir() => directory(identity, &path),
        Reference::Path(path) => sif_file(global, config, identity, &path, image),
        // Made into a SIF first, which then stays in the cache.
        Reference::Docker(_)
        | Reference::OciLayout { .. }
        | Reference::OciArchive { .. }
        | Reference::DockerArchive { .. }
        | Reference::DockerDaemon(_)
        | Reference::Oras(_)
        | Reference::Http(_) => {
            let (path, file) = cached(global, config, registry, image)?;
            sif(global, config, identity, &path, file, image)
        }
    };
    opened.map(Opening::Ready)
}

/// Paths need not be UTF-8; everything else does.
pub(crate) fn parse(config: &Config, image: &OsStr) -> Result<Reference, Error> {
    let Some(text) = image.to_str() else {
        let path = Path::new(image);
        return if path.exists() {
            Ok(Reference::Path(path.to_owned()))
        } else {
            Err(Error::NotUtf8 { value: image.to_owned() })
        };
    };
    source::parse(config, text)
}

fn store_image(global: &Global, config: &Config, identity: &Identity, reference: StoreRef) -> Result<Opening, Error> {
    let mut client = match Client::connect(&config.agent_socket) {
        Ok(client) => client,
        Err(error) => {
            let Some(store) = &config.store else {
                return Err(error.into());
            };
            note(global, format_args!("no agent ({error}): opening the store {} directly", store.display()));
            let (path, file) = store_artifact(store, &reference)?;
            return sif(global, config, identity, &path, file, &container_of(&reference)).map(Opening::Ready);
        }
    };
    // After the connection: its credentials are the caller's in any case, and a refused connection leaves us as we were.
    let idmap = !nix::unistd::geteuid().is_root();
    let namespace = identity.enter()?;
    // The groups of one in which the caller is root are mapped already.
    let handle = match identity {
        Identity::Root(_) => None,
        _ => namespace.as_ref().map(UserNamespace::handle).transpose()?,
    };
    let request = MountRequest { reference: reference.to_string(), idmap, ..MountRequest::default() };
    client.ask_mount(&request, handle.as_ref().map(AsFd::as_fd))?;
    Ok(Opening::Asked(Asked { client, reference, namespace }))
}

fn container_of(reference: &StoreRef) -> OsString {
    reference.to_string().into()
}

/// The artifact that a ref names, opened with the caller's own rights.
pub(crate) fn store_artifact(root: &Path, reference: &StoreRef) -> Result<(PathBuf, File), Error> {
    let store = Store::open(root)?;
    let missing = || Error::NoSuchImage { reference: reference.to_string(), store: root.to_owned() };
    let digest = match &reference.digest {
        Some(digest) => *digest,
        None => {
            let current = store.read_ref(&reference.namespace, &reference.name)?;
            current.ok_or_else(missing)?.content.digest
        }
    };
    let file = store.open_artifact(&digest)?.ok_or_else(missing)?;
    Ok((store.layout().artifact(&digest), file))
}

fn directory(identity: &Identity, path: &Path) -> Result<Opened, Error> {
    let fd = File::open(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    Ok(Opened {
        root: OwnedRoot::Directory { fd: fd.into(), path: path.to_owned() },
        namespace: identity.entered()?,
        container: path.into(),
        name: path.file_name().unwrap_or(path.as_os_str()).to_owned(),
        sandbox: true,
    })
}

fn sif_file(
    global: &Global,
    config: &Config,
    identity: &Identity,
    path: &Path,
    shown: &OsStr,
) -> Result<Opened, Error> {
    let file = File::open(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    sif(global, config, identity, path, file, shown)
}

/// Over FUSE if the host allows it, else unpacked.
fn for_user(
    global: &Global,
    config: &Config,
    identity: &Identity,
    path: &Path,
    file: File,
    partition: &Partition,
) -> Result<(OwnedRoot, Option<(UserNamespace, Groups)>), Error> {
    let (namespace, reason) = match fuse::mount(path, &file, partition, || identity.namespace()) {
        Ok((mount, namespace)) => {
            note(global, format_args!("{}: served over FUSE", path.display()));
            return Ok((OwnedRoot::Mount(mount), Some((namespace, Groups::OwnOnly))));
        }
        Err(refused) => (refused.namespace, refused.reason),
    };
    note(global, format_args!("{}: not over FUSE: {reason}", path.display()));
    let root = unpacked::open(&config.cache, path, file, partition, |reason| note(global, reason))?;
    let fd = File::open(&root).map_err(|source| Error::Read { path: root.clone(), source })?;
    let namespace = namespace.map_or_else(|| identity.namespace(), Ok)?;
    Ok((OwnedRoot::Directory { fd: fd.into(), path: root }, Some((namespace, Groups::OwnOnly))))
}

/// Root mounts the partition itself; an ordinary user cannot.
fn sif(
    global: &Global,
    config: &Config,
    identity: &Identity,
    path: &Path,
    file: File,
    shown: &OsStr,
) -> Result<Opened, Error> {
    let sif_error = |source| Error::Sif { path: path.to_owned(), source };
    let sif = Sif::open(file).map_err(sif_error)?;
    let partition = partition::runnable(&sif, path)?;
    let file = sif.into_file();
    let (root, namespace) = if !identity.is_unchanged() {
        for_user(global, config, identity, path, file, &partition)?
    } else {
        note(global, format_args!("{}: own loop mount", path.display()));
        let mount = siforge_launch::mount_squashfs(file.as_fd(), path, partition.offset, partition.size)?;
        (OwnedRoot::Mount(mount), None)
    };
    let name = path.file_name().unwrap_or(shown).to_owned();
    Ok(Opened { root, namespace, container: shown.to_owned(), name, sandbox: false })
}

/// Pulls in a process of its own: a user namespace can be made only by a process that never had a second thread. The SIF,
/// and its path in the cache; without cache it lies in a file without a name, which ends with the container.
pub(crate) fn cached(
    global: &Global,
    config: &Config,
    registry: &Registry,
    image: &OsStr,
) -> Result<(PathBuf, File), Error> {
    let failed = |source| Error::Runtime { source };
    let program = std::fs::read_link("/proc/self/exe").map_err(failed)?;
    let mut command = Command::new(program);
    command
        .args(global.is_quiet().then_some("--quiet"))
        .arg("cache-image")
        .args(registry.to_arguments())
        .arg("--")
        .arg(image)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    // It has said why.
    let refused = || Error::NotPulled { image: image.to_owned() };
    if registry.disable_cache {
        let tmpdir = source::tmpdir(config, registry);
        let file = crate::files::temporary(tmpdir)?;
        let copy = file.try_clone().map_err(|source| Error::Temporary { path: tmpdir.to_owned(), source })?;
        let status = command.stdout(copy).status().map_err(failed)?;
        return if status.success() { Ok((image.into(), file)) } else { Err(refused()) };
    }
    let output = command.output().map_err(failed)?;
    match output.stdout.strip_suffix(b"\n") {
        Some(path) if output.status.success() => {
            use std::os::unix::ffi::OsStrExt;
            let path = PathBuf::from(OsStr::from_bytes(path));
            let file = File::open(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
            Ok((path, file))
        }
        _ => Err(refused()),
    }
}

pub(crate) fn note(global: &Global, message: impl std::fmt::Display) {
    if global.verbose > 0 {
        eprintln!("siforge: {message}");
    }
}
