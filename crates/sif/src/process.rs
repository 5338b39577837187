//! What a launch runs: environment and argv, as the image's own scripts would give them, without a shell. Pure.

use std::ffi::OsString;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Exec,
    Run,
    Shell,
}

/// What the launcher saw in the image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageFacts {
    /// `/bin/sh` is there.
    pub sh: bool,
    /// `/bin/bash` is there.
    pub bash: bool,
}

/// The caller's choices (`--cleanenv`, `--env`, `--no-eval`, `--shell`) and how the image is called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub cleanenv: bool,
    /// `--env` and `--env-file`, later ones win.
    pub env: Vec<(OsString, OsString)>,
    /// `--no-eval`, or the variables APPTAINER_NO_EVAL, SINGULARITY_NO_EVAL (which are looked up by [`resolve`] itself).
    pub no_eval: bool,
    /// `--shell`.
    pub shell: Option<OsString>,
    /// The image's path or reference: APPTAINER_CONTAINER.
    pub container: OsString,
    /// The file name, for prompts: APPTAINER_NAME.
    pub name: OsString,
    /// Value of HOME inside.
    pub home: Option<OsString>,
}

/// What to execve: `argv[0]` without a slash is searched in the environment's PATH, in the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Sorted by name.
    pub env: Vec<(OsString, OsString)>,
    pub argv: Vec<OsString>,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("the image's oci-config.json is no valid JSON: {reason}")]
    Config { reason: String },
    #[error("no command to execute")]
    NoCommand,
    #[error("the image has neither ENTRYPOINT nor CMD and no /bin/sh: name a command to run")]
    NothingToRun,
    #[error("the image has no shell: neither /bin/bash nor /bin/sh")]
    NoShell,
}

/// The part of an image config that a launch needs: `/.singularity.d/oci-config.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunConfig {
    pub env: Vec<String>,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub working_dir: Option<String>,
    pub user: Option<String>,
}

impl RunConfig {
    pub fn parse(_json: &[u8]) -> Result<Self, Error> {
        todo!()
    }
}

/// Native evaluation: right only for images of which [`is_native`] is true.
pub fn resolve(
    _config: &RunConfig,
    _caller: &[(OsString, OsString)],
    _mode: Mode,
    _args: &[OsString],
    _options: &Options,
    _image: &ImageFacts,
) -> Result<Process, Error> {
    todo!()
}

/// By the image's own scripts (`/bin/sh` in the image runs env/*.sh, then acts): for foreign images.
pub fn resolve_by_scripts(
    _caller: &[(OsString, OsString)],
    _mode: Mode,
    _args: &[OsString],
    _options: &Options,
) -> Result<Process, Error> {
    todo!()
}

/// Whether native evaluation equals the scripts: `/.singularity.d/env` (the given file names) holds only what we write, and
/// `/.singularity.d/oci-config.json` is there.
pub fn is_native(_env_names: &[OsString], _has_oci_config: bool) -> bool {
    todo!()
}
