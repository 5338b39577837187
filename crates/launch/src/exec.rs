//! Carries a [`Plan`] out. Two front doors for a launch, and the parts that a task of a step needs.

use std::convert::Infallible;
use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use nix::sched::CloneFlags;
use rustix::mount::MountPropagationFlags;

use crate::userns::DENIED;
use crate::{Error, Groups, Plan, RootFs, UserNamespace, feign, mounts, process, syscall};

/// A launch that has begun, see [`begin`].
#[derive(Debug)]
pub struct Begun {
    privileged: bool,
    /// None: all is still to be done, by the init of a new pid namespace.
    binds: Option<Vec<mounts::Opened>>,
}

/// Does what needs no root yet, so that it can be done while an agent looks for one: makes the namespaces of `plan` and
/// opens its binds in them. `privileged`: with CAP_SYS_ADMIN and without a user namespace; else the process is in its new
/// user namespace already. Command and environment of the plan may still be missing.
pub fn begin(plan: &Plan, privileged: bool) -> Result<Begun, Error> {
    if plan.namespaces.pid {
        return Ok(Begun { privileged, binds: None });
    }
    unshare(plan, privileged)?;
    Ok(Begun { privileged, binds: Some(open_binds(plan, privileged)?) })
}

impl Begun {
    /// Launches as an ordinary user, in the user namespace just made. Without a pid namespace it does not return: this
    /// process becomes the command. With one, the result is the command's exit code (128+n after signal n). `plan` is
    /// the one that it began with.
    pub fn enter_user(
        self,
        plan: &Plan,
        namespace: &UserNamespace,
        groups: Groups,
        root: RootFs,
    ) -> Result<i32, Error> {
        namespace.map_groups(groups)?;
        self.enter(plan, root)
    }

    /// Launches with CAP_SYS_ADMIN and without a user namespace. Result as of [`Begun::enter_user`].
    pub fn enter_privileged(self, plan: &Plan, root: RootFs) -> Result<i32, Error> {
        self.enter(plan, root)
    }

    fn enter(self, plan: &Plan, root: RootFs) -> Result<i32, Error> {
        if plan.argv.is_empty() {
            return Err(Error::NoCommand);
        }
        let Some(binds) = self.binds else {
            unshare(plan, self.privileged)?;
            let set_up = || set_up(plan, open_binds(plan, self.privileged)?, root);
            return process::with_init(set_up, || run(plan));
        };
        set_up(plan, binds, root)?;
        match run(plan)? {}
    }
}

/// The command, in the namespaces that are set up.
fn run(plan: &Plan) -> Result<Infallible, Error> {
    enter_directory(plan)?;
    if plan.no_new_privileges {
        no_new_privileges()?;
    }
    if plan.feign_ids {
        syscall::install_filter(&feign::filter()).map_err(Error::call("install the filter of system calls"))?;
    }
    process::execute(plan)
}

fn unshare(plan: &Plan, privileged: bool) -> Result<(), Error> {
    let mut flags = CloneFlags::CLONE_NEWNS;
    flags.set(CloneFlags::CLONE_NEWPID, plan.namespaces.pid);
    flags.set(CloneFlags::CLONE_NEWIPC, plan.namespaces.ipc);
    flags.set(CloneFlags::CLONE_NEWUTS, plan.namespaces.uts);
    flags.set(CloneFlags::CLONE_NEWNET, plan.namespaces.net);
    nix::sched::unshare(flags).map_err(|errno| Error::Call {
        operation: "make namespaces",
        source: errno.into(),
        hint: match errno {
            nix::Error::EPERM | nix::Error::EACCES if !privileged => Some(DENIED),
            nix::Error::EPERM => Some("CAP_SYS_ADMIN is needed"),
            _ => None,
        },
    })
}

fn set_up(plan: &Plan, binds: Vec<mounts::Opened>, root: RootFs) -> Result<(), Error> {
    if let Some(hostname) = &plan.hostname {
        nix::unistd::sethostname(hostname).map_err(Error::call("set the host name"))?;
    }
    if plan.namespaces.net {
        syscall::loopback_up().map_err(Error::call("bring the loopback up"))?;
    }
    mounts::switch_root(plan, binds, root)
}

/// In the new mount namespace, before anything else is mounted there.
fn open_binds(plan: &Plan, privileged: bool) -> Result<Vec<mounts::Opened>, Error> {
    if privileged {
        // In a new user namespace all mounts are slaves already; here nothing of ours may reach the host.
        let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        rustix::mount::mount_change(c"/", slave).map_err(Error::call("make the mounts slaves of the host's"))?;
    }
    mounts::open_binds(plan)
}

/// For a step's first task: builds the mount namespace of `plan` around this process (working directory: `/`) and
/// returns a descriptor of it for the other tasks. Needs CAP_SYS_ADMIN; paths are used with the process's own rights.
pub fn build_namespace(plan: &Plan, root: RootFs) -> Result<OwnedFd, Error> {
    nix::sched::unshare(CloneFlags::CLONE_NEWNS).map_err(Error::call("make a mount namespace"))?;
    // Now, because an image need not have a /proc.
    let path = Path::new("/proc/self/ns/mnt");
    let namespace = File::open(path).map(OwnedFd::from).map_err(Error::path("open", path))?;
    mounts::switch_root(plan, open_binds(plan, true)?, root)?;
    Ok(namespace)
}

/// For a step's other tasks: joins what [`build_namespace`] returned. Needs CAP_SYS_ADMIN and CAP_SYS_CHROOT. The
/// working directory is then `/`: see [`enter_directory`].
pub fn join_namespace(namespace: BorrowedFd<'_>) -> Result<(), Error> {
    rustix::thread::move_into_link_name_space(namespace, Some(rustix::thread::LinkNameSpaceType::Mount))
        .map_err(Error::call("join the step's mount namespace"))
}

/// Goes to the plan's working directory, inside.
pub fn enter_directory(plan: &Plan) -> Result<(), Error> {
    for (index, directory) in plan.cwd.iter().enumerate() {
        match rustix::process::chdir(directory.as_path()) {
            Ok(()) => return Ok(()),
            Err(errno) if plan.cwd_required || index + 1 == plan.cwd.len() => {
                return Err(Error::path("change to working directory", directory)(errno));
            }
            Err(_) => {}
        }
    }
    Ok(())
}

/// Gives all capabilities up, for good: the sets are emptied, keep-capabilities is unset, no_new_privs is set.
pub fn drop_privileges() -> Result<(), Error> {
    no_new_privileges()?;
    // Not there before Linux 4.3, when there was nothing to clear either.
    let _ = rustix::thread::clear_ambient_capability_set();
    let none = rustix::thread::CapabilitySet::empty();
    let sets = rustix::thread::CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, sets).map_err(Error::call("drop capabilities"))?;
    rustix::thread::set_keep_capabilities(false).map_err(Error::call("unset keep-capabilities"))
}

fn no_new_privileges() -> Result<(), Error> {
    rustix::thread::set_no_new_privs(true).map_err(Error::call("set no_new_privs"))
}
