//! What the user asked for, as typed; the grammar of `--bind` and `--home` is Apptainer 1.4's.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// One launch, as asked. `Default` is `exec` without options (and without a command).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Program and arguments; a program without `/` is looked up in the PATH of `env`, inside.
    pub argv: Vec<OsString>,
    /// The whole environment inside.
    pub env: Vec<(OsString, OsString)>,
    /// `--cwd`, `--pwd`: must exist inside.
    pub cwd: Option<PathBuf>,
    /// `--bind`, `--mount`.
    pub binds: Vec<Bind>,
    /// `--home`, `--no-home`.
    pub home: Home,
    /// `--contain`, `--containall`.
    pub contain: Contain,
    /// `--writable-tmpfs`.
    pub writable_tmpfs: bool,
    /// `--overlay`.
    pub overlay: Option<Overlay>,
    /// `--writable`: what is written goes into the root itself, which is a directory then.
    pub writable: bool,
    /// `--pid`, `--ipc`, `--uts`, `--net`.
    pub namespaces: Namespaces,
    /// `--no-mount`.
    pub no_mount: Vec<NoMount>,
    /// `--hostname`; implies the UTS namespace.
    pub hostname: Option<String>,
    /// `--workdir`: where /tmp and /var/tmp (and home with `--contain`) live on the host.
    pub workdir: Option<PathBuf>,
    /// `--scratch`: empty directories inside.
    pub scratch: Vec<PathBuf>,
}

/// A directory of the host that keeps what is written over an image, in its `upper`; `work` is the kernel's.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Overlay {
    pub directory: PathBuf,
    /// What it holds is shown, and nothing is written.
    pub read_only: bool,
}

impl Overlay {
    /// Parses `DIRECTORY[:ro|rw]`, as the reference does.
    pub fn parse(text: &OsStr) -> Overlay {
        let bytes = text.as_bytes();
        let (directory, read_only) = match (bytes.strip_suffix(b":ro"), bytes.strip_suffix(b":rw")) {
            (Some(directory), _) => (directory, true),
            (None, Some(directory)) => (directory, false),
            (None, None) => (bytes, false),
        };
        Overlay { directory: OsStr::from_bytes(directory).into(), read_only }
    }
}

/// Which namespaces are new besides mount (and user).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Namespaces {
    /// New process ids, with an init of ours.
    pub pid: bool,
    /// New System V IPC and POSIX queues.
    pub ipc: bool,
    /// New host name.
    pub uts: bool,
    /// A network of its own, with nothing but a loopback.
    pub net: bool,
}

/// How much of the host is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Contain {
    /// The defaults.
    #[default]
    No,
    /// `--contain`: minimal /dev, empty /tmp, /var/tmp and home.
    Minimal,
    /// `--containall`: the same, with pid and ipc namespaces.
    All,
}

/// What is at $HOME inside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Home {
    /// The user's home, at its own path.
    #[default]
    Default,
    /// `--no-home`: not mounted (unless the working directory lies in it).
    None,
    /// `--home SOURCE[:TARGET]`.
    At {
        /// On the host.
        source: PathBuf,
        /// Inside.
        target: PathBuf,
    },
}

impl Home {
    /// Parses `SOURCE[:TARGET]`; TARGET defaults to SOURCE.
    pub fn parse(text: &OsStr) -> Result<Home, BindError> {
        let mut parts = split(text.as_bytes(), b':').into_iter();
        let source = absolute(parts.next().unwrap_or_default(), text)?;
        let target = match parts.next() {
            Some(target) => absolute(target, text)?,
            None => source.clone(),
        };
        match parts.next() {
            None => Ok(Home::At { source, target }),
            Some(_) => Err(BindError::TooManyParts { text: text.to_owned() }),
        }
    }

    /// Target inside, if one is asked for or `default` is to be used.
    pub(crate) fn target<'a>(&'a self, default: &'a Path) -> &'a Path {
        match self {
            Home::At { target, .. } => target,
            _ => default,
        }
    }
}

/// A path of the host shown inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// On the host; relative paths are taken from the working directory.
    pub source: PathBuf,
    /// Inside; absolute.
    pub target: PathBuf,
    /// Whether it may only be read.
    pub read_only: bool,
    /// Whether it is left out when the source does not exist (binds of a site or of Slurm; a user's are errors then).
    pub optional: bool,
}

/// Why a `--bind` or `--home` cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// No source.
    #[error("bind {text:?}: the source path is empty")]
    EmptySource {
        /// As given.
        text: OsString,
    },
    /// The target inside must be absolute.
    #[error("bind {text:?}: the path {path:?} inside the container is not absolute")]
    RelativeTarget {
        /// As given.
        text: OsString,
        /// The offending part.
        path: PathBuf,
    },
    /// More than source, target and options.
    #[error("bind {text:?}: more than SOURCE:TARGET:OPTIONS (write a colon within a path as \\:)")]
    TooManyParts {
        /// As given.
        text: OsString,
    },
    /// An option other than ro and rw.
    #[error("bind {text:?}: option {option:?} is not supported: use ro or rw")]
    UnknownOption {
        /// As given.
        text: OsString,
        /// The option.
        option: OsString,
    },
}

impl Bind {
    /// The same path inside and outside.
    pub fn same(path: impl Into<PathBuf>) -> Bind {
        let source = path.into();
        Bind { target: source.clone(), source, read_only: false, optional: false }
    }

    /// Parses `SRC[:DEST[:ro|rw]][,SRC…]`, `\:` and `\,` escaped: the argument of `--bind` and of APPTAINER_BIND.
    pub fn parse_list(text: &OsStr) -> Result<Vec<Bind>, BindError> {
        let mut binds: Vec<Bind> = Vec::new();
        for item in split(text.as_bytes(), b',') {
            if item.is_empty() {
                continue;
            }
            // As in Apptainer, `src:dst:ro,…`: a lone word of the option set belongs to the bind before it.
            match (item.as_slice(), binds.last_mut()) {
                (b"ro", Some(last)) => last.read_only = true,
                (b"rw", Some(last)) => last.read_only = false,
                _ => binds.push(Bind::parse(OsStr::from_bytes(&item))?),
            }
        }
        Ok(binds)
    }

    fn parse(text: &OsStr) -> Result<Bind, BindError> {
        let mut parts = split(text.as_bytes(), b':').into_iter().map(unescape);
        let source = parts.next().unwrap_or_default();
        if source.is_empty() {
            return Err(BindError::EmptySource { text: text.to_owned() });
        }
        let source = PathBuf::from(OsString::from_vec(source));
        let target = match parts.next() {
            Some(target) if !target.is_empty() => absolute(target, text)?,
            _ => source.clone(),
        };
        let read_only = match parts.next().as_deref() {
            None | Some(b"rw" | b"") => false,
            Some(b"ro") => true,
            Some(option) => {
                let option = OsStr::from_bytes(option).to_owned();
                return Err(BindError::UnknownOption { text: text.to_owned(), option });
            }
        };
        match parts.next() {
            None => Ok(Bind { source, target, read_only, optional: false }),
            Some(_) => Err(BindError::TooManyParts { text: text.to_owned() }),
        }
    }
}

/// Splits at unescaped separators; escapes stay (a list is split by `,`, its items later by `:`).
fn split(text: &[u8], separator: u8) -> Vec<Vec<u8>> {
    let mut parts = vec![Vec::new()];
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        let last = parts.len() - 1;
        if byte == separator {
            parts.push(Vec::new());
        } else {
            parts[last].push(byte);
            if byte == b'\\' {
                parts[last].extend(bytes.next());
            }
        }
    }
    parts
}

/// Removes the backslash before `:`, `,` and `\`; any other backslash is part of the name.
fn unescape(text: Vec<u8>) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.into_iter().peekable();
    while let Some(byte) = bytes.next() {
        match (byte, bytes.peek()) {
            (b'\\', Some(b':' | b',' | b'\\')) => out.extend(bytes.next()),
            _ => out.push(byte),
        }
    }
    out
}

fn absolute(path: Vec<u8>, text: &OsStr) -> Result<PathBuf, BindError> {
    let path = PathBuf::from(OsString::from_vec(path));
    if path.is_absolute() { Ok(path) } else { Err(BindError::RelativeTarget { text: text.to_owned(), path }) }
}

/// What `--no-mount` can leave out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoMount {
    /// /proc
    Proc,
    /// /sys
    Sys,
    /// /dev
    Dev,
    /// /dev/pts of a minimal /dev
    Devpts,
    /// The home directory
    Home,
    /// /tmp and /var/tmp
    Tmp,
    /// The working directory
    Cwd,
    /// /etc/hosts, /etc/localtime and what the site's configuration binds
    BindPaths,
    /// One of those, by its path inside
    Path(PathBuf),
}

impl NoMount {
    /// One word of the option's comma-separated list; `None` if it means nothing.
    pub fn parse(word: &str) -> Option<NoMount> {
        match word {
            "proc" => Some(NoMount::Proc),
            "sys" => Some(NoMount::Sys),
            "dev" => Some(NoMount::Dev),
            "devpts" => Some(NoMount::Devpts),
            "home" => Some(NoMount::Home),
            "tmp" => Some(NoMount::Tmp),
            "cwd" => Some(NoMount::Cwd),
            "bind-paths" => Some(NoMount::BindPaths),
            path if path.starts_with('/') => Some(NoMount::Path(PathBuf::from(path))),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(source: &str, target: &str, read_only: bool) -> Bind {
        Bind { source: source.into(), target: target.into(), read_only, optional: false }
    }

    #[test]
    fn bind_lists() {
        let check = |text: &str, expect: Result<Vec<Bind>, &str>| {
            let got = Bind::parse_list(OsStr::new(text)).map_err(|e| e.to_string());
            assert_eq!(got, expect.map_err(str::to_owned), "{text}");
        };
        check("/a", Ok(vec![bind("/a", "/a", false)]));
        check("/a:/b", Ok(vec![bind("/a", "/b", false)]));
        check("/a:/b:ro", Ok(vec![bind("/a", "/b", true)]));
        check("/a:/b:rw,/c", Ok(vec![bind("/a", "/b", false), bind("/c", "/c", false)]));
        check("/a:/b,ro,/c::ro", Ok(vec![bind("/a", "/b", true), bind("/c", "/c", true)]));
        check("rel:/b", Ok(vec![bind("rel", "/b", false)]));
        check("/a\\:b\\,c:/d", Ok(vec![bind("/a:b,c", "/d", false)]));
        check("", Ok(vec![]));
        check(":/b", Err("bind \":/b\": the source path is empty"));
        check("/a:b", Err("bind \"/a:b\": the path \"b\" inside the container is not absolute"));
        check("/a:/b:exec", Err("bind \"/a:/b:exec\": option \"exec\" is not supported: use ro or rw"));
        check(
            "/a:/b:ro:x",
            Err("bind \"/a:/b:ro:x\": more than SOURCE:TARGET:OPTIONS (write a colon within a path as \\:)"),
        );
    }

    #[test]
    fn homes() {
        let at = |source: &str, target: &str| Ok(Home::At { source: source.into(), target: target.into() });
        assert_eq!(Home::parse(OsStr::new("/a")), at("/a", "/a"));
        assert_eq!(Home::parse(OsStr::new("/a:/b")), at("/a", "/b"));
        assert!(Home::parse(OsStr::new("a")).is_err());
        assert!(Home::parse(OsStr::new("/a:/b:/c")).is_err());
    }
}
