//! The caller's environment, sorted into what is injected, what comes along and what is dropped. Pure.

use super::{Options, Pair};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

/// With --cleanenv, what comes along all the same (apptainer `internal/pkg/util/env/clean.go`).
const ALWAYS: [&str; 11] = [
    "TERM",
    "http_proxy",
    "HTTP_PROXY",
    "https_proxy",
    "HTTPS_PROXY",
    "no_proxy",
    "NO_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "ftp_proxy",
    "FTP_PROXY",
];
/// What means another thing in an image than on the host, or is set by the launch.
const NEVER: [&str; 5] = ["HOME", "PATH", "LD_LIBRARY_PATH", "PS1", "PROMPT_COMMAND"];

/// The caller's environment, sorted out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) injected: BTreeMap<OsString, OsString>,
    pub(super) host: BTreeMap<OsString, OsString>,
    /// SINGULARITYENV_PATH, …_PREPEND_PATH, …_APPEND_PATH.
    pub(super) path: Option<OsString>,
    pub(super) prepend_path: Option<OsString>,
    pub(super) append_path: Option<OsString>,
    pub(super) no_eval: bool,
    pub(super) shell: Option<OsString>,
}

pub(super) fn sort(caller: &[Pair], options: &Options) -> Caller {
    let mut sorted = Caller { no_eval: options.no_eval, ..Caller::default() };
    let mut singularity = BTreeMap::new();
    let mut apptainer = BTreeMap::new();
    for (name, value) in caller {
        if let Some(name) = strip(name, "SINGULARITYENV_") {
            singularity.insert(name, value.clone());
        } else if let Some(name) = strip(name, "APPTAINERENV_") {
            apptainer.insert(name, value.clone());
        } else if strip(name, "SINGULARITY_").is_some() || strip(name, "APPTAINER_").is_some() {
            sorted.take_option(name, value);
        } else if comes_along(name, options.cleanenv) {
            sorted.host.insert(name.clone(), value.clone());
        }
    }
    if options.cleanenv {
        sorted.host.insert("LANG".into(), "C".into());
    }
    let given = options.env.iter().cloned();
    for (name, value) in singularity.into_iter().chain(apptainer).chain(given) {
        sorted.inject(name, value);
    }
    if options.shell.is_some() {
        sorted.shell.clone_from(&options.shell);
    }
    sorted
}

impl Caller {
    fn inject(&mut self, name: OsString, value: OsString) {
        match name.to_str() {
            Some("PATH") => self.path = Some(value),
            Some("PREPEND_PATH") => self.prepend_path = Some(value),
            Some("APPEND_PATH") => self.append_path = Some(value),
            // HOME is the launch's affair (--home), as in the reference.
            Some("HOME" | "") => {}
            _ => {
                self.injected.insert(name, value);
            }
        }
    }

    fn take_option(&mut self, name: &OsStr, value: &OsStr) {
        match name.to_str() {
            Some("SINGULARITY_NO_EVAL" | "APPTAINER_NO_EVAL") => self.no_eval |= is_true(value),
            Some("SINGULARITY_SHELL") if self.shell.is_none() => self.shell = non_empty(value),
            Some("APPTAINER_SHELL") => self.shell = non_empty(value).or(self.shell.take()),
            _ => {}
        }
    }
}

/// As Go's strconv.ParseBool, by which the reference reads its switches.
fn is_true(value: &OsStr) -> bool {
    ["1", "t", "T", "true", "TRUE", "True"].iter().any(|word| *word == value)
}

fn non_empty(value: &OsStr) -> Option<OsString> {
    Some(value.to_owned()).filter(|value| !value.is_empty())
}

fn comes_along(name: &OsStr, cleanenv: bool) -> bool {
    let is = |known: &&str| **known == *name;
    !NEVER.iter().any(is) && (!cleanenv || ALWAYS.iter().any(is))
}

fn strip(name: &OsStr, prefix: &str) -> Option<OsString> {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    name.as_bytes().strip_prefix(prefix.as_bytes()).map(|rest| OsString::from_vec(rest.to_vec()))
}
