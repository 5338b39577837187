//! Launches a command in a directory or a squashfs file, to try and to time the crate without the rest of siforge:
//!
//! ```text
//! launch [OPTION…] ROOT COMMAND [ARGUMENT…]      ROOT: a directory, or (root only) a squashfs file
//!   --agent SOCKET   ROOT is a reference that the agent mounts
//!   --unlock         tries to make the agent's mount a nodev one no more, and says how that went
//!   --step           as a step's task with CAP_SYS_ADMIN and CAP_SYS_CHROOT: two processes share a namespace
//! ```

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use rustix::mount::MountFlags;
use siforge_agent_api::{Client, Connection, Limits, MountRequest};
use siforge_launch::syscall::Forked;
use siforge_launch::{Bind, Contain, Groups, Home, Host, NoMount, Plan, Request, RootFs, UserNamespace, plan};

type Failure = Box<dyn std::error::Error>;

struct Options {
    request: Request,
    dry_run: bool,
    step: bool,
    agent: Option<PathBuf>,
    unlock: bool,
    root: PathBuf,
}

fn main() -> ExitCode {
    match run() {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(255)),
        Err(e) => {
            eprintln!("FATAL:   {e}");
            ExitCode::from(255)
        }
    }
}

fn parse() -> Result<Options, Failure> {
    let mut arguments = std::env::args_os().skip(1);
    let mut request = Request { env: std::env::vars_os().collect(), ..Request::default() };
    let (mut dry_run, mut step, mut agent, mut unlock) = (false, false, None, false);
    let root = loop {
        let word = arguments.next().ok_or("no root file system given")?;
        let mut value = || arguments.next().ok_or("an option lacks its value");
        match word.to_str() {
            Some("--dry-run") => dry_run = true,
            Some("--step") => step = true,
            Some("--unlock") => unlock = true,
            Some("--agent") => agent = Some(PathBuf::from(value()?)),
            Some("--bind") => request.binds.extend(Bind::parse_list(&value()?)?),
            Some("--home") => request.home = Home::parse(&value()?)?,
            Some("--no-home") => request.home = Home::None,
            Some("--contain") => request.contain = Contain::Minimal,
            Some("--containall") => request.contain = Contain::All,
            Some("--writable-tmpfs") => request.writable_tmpfs = true,
            Some("--cwd") => request.cwd = Some(value()?.into()),
            Some("--pid") => request.namespaces.pid = true,
            Some("--net") => request.namespaces.net = true,
            Some("--hostname") => request.hostname = Some(value()?.to_string_lossy().into_owned()),
            Some("--workdir") => request.workdir = Some(value()?.into()),
            Some("--no-mount") => {
                let words = value()?.to_string_lossy().into_owned();
                for word in words.split(',') {
                    request.no_mount.push(NoMount::parse(word).ok_or("unknown word of --no-mount")?);
                }
            }
            _ => break PathBuf::from(word),
        }
    };
    request.argv = arguments.collect::<Vec<OsString>>();
    Ok(Options { request, dry_run, step, agent, unlock, root })
}

fn run() -> Result<i32, Failure> {
    let Options { request, dry_run, step, agent, unlock, root } = parse()?;
    let host = Host::observe()?;
    let plan = plan::make(&request, &host, &siforge_launch::path_kind)?;
    if dry_run {
        println!("{}", serde_json::to_string_pretty(&plan)?);
        return Ok(0);
    }
    if let Some(socket) = agent {
        return with_agent(&plan, &host, &socket, &root, unlock);
    }
    let metadata = std::fs::metadata(&root)?;
    let source = if metadata.is_dir() {
        RootFs::Directory(root)
    } else {
        RootFs::Squashfs { file: File::open(&root)?, path: root, offset: 0, size: metadata.size() }
    };
    if step {
        run_step(&plan, source)
    } else if host.uid == 0 {
        Ok(siforge_launch::begin(&plan, true)?.enter_privileged(&plan, source)?)
    } else {
        let namespace = UserNamespace::create()?;
        Ok(siforge_launch::begin(&plan, false)?.enter_user(&plan, &namespace, Groups::OwnOnly, source)?)
    }
}

/// An ordinary user's launch by the agent's mount.
fn with_agent(plan: &Plan, host: &Host, socket: &Path, reference: &Path, unlock: bool) -> Result<i32, Failure> {
    let namespace = UserNamespace::create()?;
    let handle = namespace.handle()?;
    let reference = reference.to_string_lossy().into_owned();
    let request = MountRequest { reference, idmap: host.uid != 0, ..MountRequest::default() };
    let (reply, mount) = Client::connect(socket)?.mount(&request, Some(handle.as_fd()))?;
    if unlock {
        return try_unlock(mount);
    }
    let groups = if reply.groups_mapped { Groups::MappedByAgent } else { Groups::OwnOnly };
    let begun = siforge_launch::begin(plan, false)?;
    Ok(begun.enter_user(plan, &namespace, groups, RootFs::Detached(mount))?)
}

/// What a hostile client would do: it has all capabilities in namespaces of its own.
fn try_unlock(mount: OwnedFd) -> Result<i32, Failure> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
    siforge_launch::attach(mount.as_fd(), Path::new("/tmp"))?;
    let all = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    for flag in [MountFlags::RDONLY, MountFlags::NOSUID, MountFlags::NODEV] {
        let result = rustix::mount::mount_remount("/tmp", MountFlags::BIND | all.difference(flag), "");
        println!("without {flag:?}: {result:?}");
    }
    let result = rustix::mount::mount_remount("/tmp", MountFlags::BIND | all, "");
    println!("the same: {result:?}");
    Ok(0)
}

/// Two tasks of a step: this process builds the namespace, a child joins it and runs the command.
fn run_step(plan: &Plan, source: RootFs) -> Result<i32, Failure> {
    let (ours, theirs) = UnixStream::pair()?;
    match siforge_launch::syscall::fork()? {
        Forked::Parent(_) => {
            let namespace = siforge_launch::build_namespace(plan, source)?;
            Connection::new(ours, Limits::CLIENT)?.send(b"{}".to_vec(), &[namespace.as_fd()])?;
            siforge_launch::drop_privileges()?;
            Ok(theirs_exit_code(theirs)?)
        }
        Forked::Child => {
            drop(ours);
            let frame = Connection::new(theirs, Limits::CLIENT)?.receive()?.ok_or("the builder is gone")?;
            let namespace = frame.descriptors.first().ok_or("no namespace came")?;
            siforge_launch::join_namespace(namespace.as_fd())?;
            siforge_launch::enter_directory(plan)?;
            siforge_launch::drop_privileges()?;
            let command = Command::new(&plan.argv[0]).args(&plan.argv[1..]).exec();
            Err(command.into())
        }
    }
}

/// Waits for the only child.
fn theirs_exit_code(theirs: UnixStream) -> Result<i32, Failure> {
    drop(theirs);
    match rustix::process::wait(rustix::process::WaitOptions::empty())? {
        Some((_, status)) => Ok(status.exit_status().unwrap_or(255)),
        None => Err("no child to wait for".into()),
    }
}
