//! A task's way into the image. From the raising of capabilities to their end everything happens here.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::thread::{CapabilitySet, CapabilitySets};
use siforge_agent_api::{Client, MountRequest};
use siforge_launch::{Bind, Host, Plan, Request, RootFs};
use siforge_sif::observe::Seen;
use siforge_sif::process::{Mode, Options};

use crate::environment::{self, Change, Pair};
use crate::error::Error;
use crate::share::Handover;

/// Of root's capabilities those that mounts, setns and pivot_root take. Without CAP_DAC_OVERRIDE every path is used with
/// the user's own rights: root-only files stay closed, and a home on a root-squashed file system stays open.
const RAISED: CapabilitySet = CapabilitySet::SYS_ADMIN.union(CapabilitySet::SYS_CHROOT);

/// Where PMIx keeps the sockets of its server; clients inside must reach them.
const PMIX_DIRECTORY: &str = "PMIX_SERVER_TMPDIR";

/// One task, and where it is to go.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) socket: PathBuf,
    /// As the agent understands it.
    pub(crate) image: String,
    pub(crate) binds: Vec<Bind>,
    /// The user's binds as typed.
    pub(crate) bind_text: OsString,
    pub(crate) argv: Vec<OsString>,
    pub(crate) environment: Vec<Pair>,
}

/// In the task, as root: what is permitted stays so when the user changes.
pub(crate) fn keep_capabilities() -> Result<(), Error> {
    rustix::thread::set_keep_capabilities(true).map_err(|errno| Error::Call {
        operation: "keep capabilities over the change to the user",
        source: errno.into(),
    })
}

fn raise_capabilities() -> Result<(), Error> {
    let sets = CapabilitySets { effective: RAISED, permitted: RAISED, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets)
        .map_err(|errno| Error::Call { operation: "raise CAP_SYS_ADMIN and CAP_SYS_CHROOT", source: errno.into() })
}

impl Step {
    /// Enters; the first task of the step makes the namespace, the others wait for it. What is left to slurmstepd: changes
    /// of the environment.
    pub(crate) fn enter(&self, first: bool, handover: Option<&Handover>) -> Result<Vec<Change>, Error> {
        // All that needs no capability comes before there is one: NSS modules, the agent's answer, the user's paths.
        let host = Host::observe().map_err(self.launch())?;
        let plan = self.plan(&host)?;
        let container = match handover {
            Some(handover) if !first => {
                let (namespace, container) = handover.wait()?;
                raise_capabilities()?;
                siforge_launch::join_namespace(namespace.as_fd()).map_err(self.launch())?;
                container
            }
            _ => {
                let (mount, container) = self.ask_agent()?;
                raise_capabilities()?;
                let namespace =
                    siforge_launch::build_namespace(&plan, RootFs::Detached(mount)).map_err(self.launch())?;
                if let Some(handover) = handover {
                    handover.entered(namespace.as_fd(), &container)?;
                }
                container
            }
        };
        siforge_launch::enter_directory(&plan).map_err(self.launch())?;
        siforge_launch::drop_privileges().map_err(self.launch())?;
        self.environment(&host, container)
    }

    fn plan(&self, host: &Host) -> Result<Plan, Error> {
        let mut binds = self.binds.clone();
        let pmix = self.environment.iter().find(|(name, _)| name == PMIX_DIRECTORY);
        binds.extend(pmix.map(|(_, directory)| Bind { optional: true, ..Bind::same(directory) }));
        let request = Request { argv: self.argv.clone(), binds, ..Request::default() };
        siforge_launch::plan::make(&request, host, &siforge_launch::path_kind)
            .map_err(|source| Error::Plan { image: self.image.clone(), source })
    }

    /// The image from the agent, who sees the user at the other end, and the container's name.
    fn ask_agent(&self) -> Result<(OwnedFd, OsString), Error> {
        let failed = |source| Error::Agent { image: self.image.clone(), source };
        let request = MountRequest { reference: self.image.clone(), ..MountRequest::default() };
        let mut client = Client::connect(&self.socket).map_err(failed)?;
        let (reply, mount) = client.mount(&request, None).map_err(failed)?;
        let container = reply.path_hint.map_or_else(|| OsString::from(&self.image), OsString::from);
        Ok((mount, container))
    }

    /// Inside: what the image makes of the environment.
    fn environment(&self, host: &Host, container: OsString) -> Result<Vec<Change>, Error> {
        let root = File::open("/").map_err(|source| Error::Call { operation: "open the image's root", source })?;
        let options = Options {
            container,
            name: self.image_name().into(),
            bind: self.bind_text.clone(),
            home: host.user.as_ref().map(|user| user.home.clone().into()),
            ..Options::default()
        };
        let env = self.evaluate(root.as_fd(), &options)?;
        Ok(environment::changes(&self.environment, &env))
    }

    fn evaluate(&self, root: BorrowedFd<'_>, options: &Options) -> Result<Vec<Pair>, Error> {
        let failed = |source| Error::Look { image: self.image.clone(), source };
        let seen = Seen::look(root).map_err(failed)?;
        let decide = |argv: &[OsString]| seen.process(&self.environment, Mode::Exec, argv, options).map_err(failed);
        let process = decide(&self.argv)?;
        if process.argv == self.argv {
            return Ok(process.env);
        }
        environment::by_scripts(&decide(&environment::printer())?)
    }

    /// The last part of the reference.
    fn image_name(&self) -> &str {
        let name = self.image.split('@').next().unwrap_or_default();
        name.rsplit('/').next().unwrap_or_default()
    }

    fn launch(&self) -> impl Fn(siforge_launch::Error) -> Error {
        |source| Error::Launch { image: self.image.clone(), source }
    }
}
