//! What of runc's command line counts here: which command it is, of which bundle, and where errors are logged. Pure.
//!
//! ```text
//!   runc [--root DIR] [--log FILE] [--log-format json] [--systemd-cgroup] … create --bundle DIR … ID
//! ```
//!
//! Flags are Go's: one dash or two, `--flag value` or `--flag=value`. Words that are not known are passed over, for runc to judge.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Global flags of runc and crun that take a value as a word of its own.
const GLOBAL: [&[u8]; 6] = [b"log", b"log-format", b"root", b"criu", b"rootless", b"cgroup-manager"];
/// Those of `create` and `run`.
const CREATE: [&[u8]; 6] = [b"bundle", b"b", b"console-socket", b"pid-file", b"preserve-fds", b"pidfd-socket"];

/// See the module.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Invocation {
    /// `--log`
    pub(crate) log: Option<PathBuf>,
    /// `--log-format json`
    pub(crate) log_is_json: bool,
    /// The bundle of a container that is about to be made.
    pub(crate) creates: Option<PathBuf>,
}

impl Invocation {
    /// Of the words after the program's name.
    pub(crate) fn parse(words: &[OsString]) -> Self {
        let mut invocation = Invocation::default();
        let mut words = words.iter().map(OsString::as_os_str);
        let mut command = None;
        while let Some(word) = words.next() {
            let Some(flag) = Flag::parse(word) else {
                if command.is_some() {
                    // The container's name: flags end here.
                    break;
                }
                command = Some(word);
                if word == "create" || word == "run" {
                    invocation.creates = Some(PathBuf::from("."));
                }
                continue;
            };
            let valued: &[&[u8]] = if command.is_some() { &CREATE } else { &GLOBAL };
            let value = match flag.value {
                None if valued.contains(&flag.name) => words.next().map(OsStr::as_bytes),
                value => value,
            };
            let Some(value) = value.map(OsStr::from_bytes) else { continue };
            match (command.is_some(), flag.name) {
                (false, b"log") => invocation.log = Some(value.into()),
                (false, b"log-format") => invocation.log_is_json = value == "json",
                (true, b"bundle" | b"b") if invocation.creates.is_some() => invocation.creates = Some(value.into()),
                _ => {}
            }
        }
        invocation
    }
}

struct Flag<'a> {
    name: &'a [u8],
    value: Option<&'a [u8]>,
}

impl<'a> Flag<'a> {
    fn parse(word: &'a OsStr) -> Option<Self> {
        let dashed = word.as_bytes().strip_prefix(b"-")?;
        let text = dashed.strip_prefix(b"-").unwrap_or(dashed);
        let mut parts = text.splitn(2, |byte| *byte == b'=');
        Some(Flag { name: parts.next()?, value: parts.next() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, log: Option<&str>, log_is_json: bool, creates: Option<&str>) {
        let words: Vec<OsString> = line.split_whitespace().map(Into::into).collect();
        let expected = Invocation { log: log.map(Into::into), log_is_json, creates: creates.map(Into::into) };
        assert_eq!(Invocation::parse(&words), expected, "{line}");
    }

    #[test]
    fn lines_of_container_engines() {
        // As containerd's shim, podman's conmon and people write them.
        let shim =
            "--root /r --log /b/log.json --log-format json --systemd-cgroup create --bundle /b --pid-file /b/init.pid";
        check(&format!("{shim} ID"), Some("/b/log.json"), true, Some("/b"));
        check(&format!("{shim} --console-socket /tmp/create ID"), Some("/b/log.json"), true, Some("/b"));
        check("--root=/r --log=/l --log-format=json create -b /b ID", Some("/l"), true, Some("/b"));
        check("-log /l -log-format text run -bundle=/b -d ID", Some("/l"), false, Some("/b"));
        check("create ID", None, false, Some("."));
        check("--root create --log /l delete --force ID", Some("/l"), false, None);
        check("--log /l exec --process /p --bundle /b ID", Some("/l"), false, None);
        check("--log /l exec ID create --bundle /b", Some("/l"), false, None);
        check("create ID --bundle /b", None, false, Some("."));
        check("features", None, false, None);
        check("--version", None, false, None);
        check("", None, false, None);
        check("--log", None, false, None);
        check("create --bundle", None, false, Some("."));
    }
}
