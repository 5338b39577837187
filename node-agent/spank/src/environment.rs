//! The image's environment, put into the task's.
//!
//! SPANK can set and unset variables of a task, but not replace its command. So where the image's own scripts have to
//! decide, they run once, ahead of the command, and what they leave behind is what the command gets.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::process::{Command, Stdio};

use siforge_sif::process::Process;

use crate::error::Error;

/// Name and value.
pub(crate) type Pair = (OsString, OsString);

/// The longest environment that execve(2) takes is below this.
const LIMIT: u64 = 8 << 20;

/// A change of one variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Set(OsString, OsString),
    Unset(OsString),
}

/// What makes `after` of `before`.
pub(crate) fn changes(before: &[Pair], after: &[Pair]) -> Vec<Change> {
    // Of a name that is there twice, getenv(3) sees the first.
    let mut old: BTreeMap<&OsStr, &OsStr> = BTreeMap::new();
    for (name, value) in before {
        old.entry(name).or_insert(value);
    }
    let new: BTreeMap<&OsStr, &OsStr> =
        after.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str())).collect();
    let gone = old.keys().filter(|name| !new.contains_key(*name));
    let set = new.iter().filter(|(name, value)| old.get(*name) != Some(*value));
    gone.map(|name| Change::Unset((*name).to_owned()))
        .chain(set.map(|(name, value)| Change::Set((*name).to_owned(), (*value).to_owned())))
        .collect()
}

/// `NAME=value`; `None` without a name.
pub(crate) fn pair(text: &[u8]) -> Option<Pair> {
    let at = text.iter().position(|byte| *byte == b'=')?;
    (at > 0).then(|| (owned(&text[..at]), owned(&text[at + 1..])))
}

fn owned(bytes: &[u8]) -> OsString {
    OsString::from_vec(bytes.to_vec())
}

/// What a program is that shows the environment it is given, as execve(2) took it.
pub(crate) fn printer() -> [OsString; 2] {
    ["cat".into(), "/proc/self/environ".into()]
}

/// Runs the image's scripts around [`printer`], in this process's namespaces and with its rights.
pub(crate) fn by_scripts(process: &Process) -> Result<Vec<Pair>, Error> {
    use std::io::Read;
    let failed = |reason: String| Error::Scripts { reason };
    let Some((program, words)) = process.argv.split_first() else {
        return Err(failed("nothing to run".to_owned()));
    };
    let mut child = Command::new(program)
        .args(words)
        .env_clear()
        .envs(process.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| failed(format!("start {}: {error}", program.display())))?;
    let mut bytes = Vec::new();
    let read = child.stdout.take().map(|stdout| stdout.take(LIMIT).read_to_end(&mut bytes));
    let status = child.wait();
    match (read, status) {
        (Some(Ok(_)), Ok(status)) if status.success() => Ok(bytes.split(|byte| *byte == 0).filter_map(pair).collect()),
        (Some(Err(error)), _) | (_, Err(error)) => Err(failed(error.to_string())),
        (_, Ok(status)) => Err(failed(status.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &[&str]) -> Vec<Pair> {
        text.iter().filter_map(|text| pair(text.as_bytes())).collect()
    }

    #[test]
    fn differences() {
        let check = |before: &[&str], after: &[&str], expect: &[Change]| {
            assert_eq!(changes(&pairs(before), &pairs(after)), expect, "{before:?} {after:?}");
        };
        let set = |name: &str, value: &str| Change::Set(name.into(), value.into());
        let unset = |name: &str| Change::Unset(name.into());
        check(&["A=1"], &["A=1"], &[]);
        check(&["A=1"], &["A=2"], &[set("A", "2")]);
        check(&["A=1"], &["B=1"], &[unset("A"), set("B", "1")]);
        check(&["A=1", "A=2"], &["A=1"], &[]);
        check(&[], &["A="], &[set("A", "")]);
    }

    #[test]
    fn variables() {
        assert_eq!(pair(b"A=b=c"), Some(("A".into(), "b=c".into())));
        assert_eq!(pair(b"A="), Some(("A".into(), "".into())));
        assert_eq!(pair(b"=x"), None);
        assert_eq!(pair(b"x"), None);
    }

    #[test]
    fn scripts_leave_their_environment() {
        let process = |script: &str| Process {
            argv: ["/bin/sh", "-c", script].iter().map(OsString::from).collect(),
            env: pairs(&["PATH=/usr/bin:/bin", "A=1"]),
        };
        let env = by_scripts(&process("export B='two\nlines'; exec cat /proc/self/environ")).expect("scripts");
        assert!(env.contains(&("B".into(), "two\nlines".into())), "{env:?}");
        assert!(env.contains(&("A".into(), "1".into())), "{env:?}");
        by_scripts(&process("exit 3")).expect_err("a script fails");
    }
}
