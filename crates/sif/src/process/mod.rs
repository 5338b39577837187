//! What a launch runs: environment and argv. Pure.
//!
//! Two ways with one result (a test compares them):
//!
//! - [`resolve`]: native. For images that siforge wrote ([`is_native`]): from `/.singularity.d/oci-config.json`, no shell in the image
//!   needed, nothing forked.
//! - [`resolve_by_scripts`]: the image's own `env/*.sh` decide, sourced by the image's /bin/sh. For every other image.
//!
//! How the environment comes about (Apptainer 1.4 `internal/pkg/util/fs/files/action_scripts.go` and `internal/pkg/util/env`, as
//! observed):
//!
//! ```text
//! caller's environment ─┬─ SINGULARITYENV_X, APPTAINERENV_X, --env ──────────▶ injected      (PATH, …PREPEND_PATH: see below)
//!                       ├─ SINGULARITY_…, APPTAINER_…, PATH, LD_LIBRARY_PATH, HOME ─▶ dropped
//!                       └─ the rest (with --cleanenv: TERM and proxies) ─────▶ host
//!
//! 0 the launch     HOME, APPTAINER_NAME, SINGULARITY_NAME, …
//! 1 image ENV      PATH outright, completed by the default directories; others unless injected or set by 0
//! 2 injected       $NAME in values is expanded unless NO_EVAL
//! 3 99-base        LD_LIBRARY_PATH += /.singularity.d/libs, PS1
//! 4 99-runtimevars PATH prepended, appended, replaced by the caller
//! 5 host           only what nothing above has set
//! ```

mod argv;
mod caller;
mod native;
mod wrapper;

use std::ffi::{OsStr, OsString};

/// Name → value.
pub type Pair = (OsString, OsString);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Exec,
    Run,
    Shell,
    Test,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Run => "run",
            Self::Shell => "shell",
            Self::Test => "test",
        }
    }
}

/// What the launcher saw in the image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageFacts {
    /// `/bin/sh` is there.
    pub sh: bool,
    /// `/bin/bash` is there.
    pub bash: bool,
    /// Another build went over the image: what its oci-config.json says may be its scripts' no more.
    pub rebuilt: bool,
}

/// The caller's choices and how the image is called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `--cleanenv`
    pub cleanenv: bool,
    /// `--env` and `--env-file`; later ones win, and win over SINGULARITYENV_ and APPTAINERENV_ variables.
    pub env: Vec<Pair>,
    /// `--no-eval`; the variables APPTAINER_NO_EVAL and SINGULARITY_NO_EVAL say the same and are looked up here.
    pub no_eval: bool,
    /// `--shell`; SINGULARITY_SHELL and APPTAINER_SHELL say the same.
    pub shell: Option<OsString>,
    /// The image's path or reference: APPTAINER_CONTAINER.
    pub container: OsString,
    /// The image's file name: APPTAINER_NAME.
    pub name: OsString,
    /// The binds as the user gave them: APPTAINER_BIND.
    pub bind: OsString,
    /// `--app`: a SCIF app of the image.
    pub app: Option<String>,
    /// Leave the environment to the image's scripts: someone may have changed them.
    pub scripts: bool,
    /// HOME inside.
    pub home: Option<OsString>,
}

/// What to execve: an `argv[0]` without a slash is searched in the PATH of `env`, inside the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Sorted by name, each name once.
    pub env: Vec<Pair>,
    /// Never empty.
    pub argv: Vec<OsString>,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("the image's oci-config.json has {len} bytes, at most {MAX_CONFIG_BYTES} are read")]
    TooLarge { len: usize },
    #[error("the image's oci-config.json is no valid JSON: {reason}")]
    Config { reason: String },
    #[error("no command to execute")]
    NoCommand,
    #[error("the image has neither ENTRYPOINT nor CMD: name a command to run")]
    NothingToRun,
    #[error("the image has no shell: neither /bin/bash nor /bin/sh")]
    NoShell,
}

use crate::image_config::{Config, MAX_CONFIG_BYTES};

/// The part of an image config that a launch needs: `/.singularity.d/oci-config.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunConfig {
    /// `NAME=value`, in order.
    pub env: Vec<String>,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    /// For --compat; ignored here.
    pub working_dir: Option<String>,
    /// For --compat; ignored here.
    pub user: Option<String>,
}

impl RunConfig {
    pub fn parse(json: &[u8]) -> Result<Self, Error> {
        if json.len() > MAX_CONFIG_BYTES {
            return Err(Error::TooLarge { len: json.len() });
        }
        let config: Config =
            serde_json::from_slice(json).map_err(|error| Error::Config { reason: error.to_string() })?;
        Ok(Self::from(&config))
    }
}

impl From<&Config> for RunConfig {
    fn from(config: &Config) -> Self {
        let non_empty = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        Self {
            env: config.env.clone(),
            entrypoint: config.entrypoint.clone(),
            cmd: config.cmd.clone(),
            working_dir: non_empty(&config.working_dir),
            user: non_empty(&config.user),
        }
    }
}

/// Native evaluation: right only for images of which [`is_native`] is true. `caller`: the environment of whoever launches.
pub fn resolve(
    config: &RunConfig,
    caller: &[Pair],
    mode: Mode,
    args: &[OsString],
    options: &Options,
    image: &ImageFacts,
) -> Result<Process, Error> {
    let caller = caller::sort(caller, options);
    let argv = argv::native(config, mode, args, &caller, image)?;
    Ok(Process { env: native::environment(config, &caller, mode, &argv, options), argv })
}

/// By the image's own scripts: the process is the image's /bin/sh, which sources `env/*.sh` and then acts as `actions/*` do.
pub fn resolve_by_scripts(caller: &[Pair], mode: Mode, args: &[OsString], options: &Options) -> Result<Process, Error> {
    if mode == Mode::Exec && args.is_empty() {
        return Err(Error::NoCommand);
    }
    let caller = caller::sort(caller, options);
    Ok(wrapper::process(&caller, mode, args, options))
}

/// File names in `/.singularity.d/env` of an image that siforge wrote from a registry.
const ENV_FILES: [&str; 7] = [
    "01-base.sh",
    "10-docker2singularity.sh",
    "90-environment.sh",
    "94-appsbase.sh",
    "95-apps.sh",
    "99-base.sh",
    "99-runtimevars.sh",
];

/// Whether native evaluation equals the scripts: `/.singularity.d/env` (the given file names) holds only what we write, and
/// `/.singularity.d/oci-config.json`, which only siforge writes, and only when %environment is empty, is there.
pub fn is_native<S: AsRef<OsStr>>(env_names: &[S], has_oci_config: bool) -> bool {
    let ours = |name: &OsStr| ENV_FILES.iter().any(|known| *known == name);
    let sourced = |name: &OsStr| name.as_encoded_bytes().ends_with(b".sh");
    has_oci_config && env_names.iter().map(AsRef::as_ref).filter(|name| sourced(name)).all(ours)
}

/// PATH of an image that sets none, and the directories that every image's PATH is completed by.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const PROMPT: &str = "Apptainer> ";
const LIBS: &str = "/.singularity.d/libs";
