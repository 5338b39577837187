//! Settings, of a file: a container engine calls a runtime with its own words and environment, where there is no place for ours.
//!
//! ```toml
//! socket = "/run/siforge/agent.sock"
//! runtime = "/usr/bin/runc"           # default: runc in PATH, else crun
//! ```
//!
//! The file stands beside the program (`siforge-runtime.toml`), else it is `/etc/siforge/runtime.toml`, else there is none.

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use siforge_agent_api::DEFAULT_SOCKET;

const DEFAULT_FILE: &str = "/etc/siforge/runtime.toml";
const RUNTIMES: [&str; 2] = ["runc", "crun"];
/// Where programs are if nothing says so.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// There are no usable settings.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("read configuration {path}: {source}", path = path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("configuration {path}: {reason}", path = path.display())]
    Syntax { path: PathBuf, reason: String },
    #[error("neither {} is in PATH: name one in {DEFAULT_FILE}, `runtime = \"/usr/bin/runc\"`", RUNTIMES.join(" nor "))]
    NoRuntime,
}

/// See the module.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) socket: PathBuf,
    pub(crate) runtime: PathBuf,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    socket: Option<PathBuf>,
    runtime: Option<PathBuf>,
}

pub(crate) fn load() -> Result<Settings, Error> {
    let beside = std::env::current_exe().ok().map(|program| program.with_extension("toml"));
    let file = match beside.map(|path| read(&path)).transpose()?.flatten() {
        Some(file) => file,
        None => read(Path::new(DEFAULT_FILE))?.unwrap_or_default(),
    };
    let path = std::env::var_os("PATH").filter(|path| !path.is_empty()).unwrap_or_else(|| DEFAULT_PATH.into());
    settings(file, std::env::split_paths(&path))
}

fn settings(file: File, path: impl Iterator<Item = PathBuf>) -> Result<Settings, Error> {
    let directories: Vec<PathBuf> = path.filter(|directory| directory.is_absolute()).collect();
    let found = || RUNTIMES.iter().flat_map(|name| directories.iter().map(move |directory| directory.join(name)));
    let runtime = file.runtime.or_else(|| found().find(|path| path.is_file())).ok_or(Error::NoRuntime)?;
    Ok(Settings { socket: file.socket.unwrap_or_else(|| DEFAULT_SOCKET.into()), runtime })
}

fn read(path: &Path) -> Result<Option<File>, Error> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::Read { path: path.to_owned(), source }),
    };
    let file = toml::from_str(&text);
    file.map(Some).map_err(|error: toml::de::Error| Error::Syntax {
        path: path.to_owned(),
        reason: error.to_string().trim_end().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_is_configured_or_found() {
        let directory = tempfile::tempdir().unwrap();
        let path =
            || [PathBuf::from("relative"), directory.path().join("none"), directory.path().to_owned()].into_iter();
        assert!(matches!(settings(File::default(), path()), Err(Error::NoRuntime)));
        for name in ["crun", "runc"] {
            std::fs::write(directory.path().join(name), "").unwrap();
            let found = settings(File::default(), path()).unwrap();
            assert_eq!(found, Settings { socket: DEFAULT_SOCKET.into(), runtime: directory.path().join(name) });
        }
        let file = directory.path().join("x.toml");
        std::fs::write(&file, "runtime = \"/r\"\nsocket = \"/s\"\n").unwrap();
        let found = settings(read(&file).unwrap().unwrap(), path()).unwrap();
        assert_eq!(found, Settings { socket: "/s".into(), runtime: "/r".into() });
        std::fs::write(&file, "runtme = 1\n").unwrap();
        assert!(read(&file).unwrap_err().to_string().contains("unknown field `runtme`"));
        assert!(read(&directory.path().join("missing")).unwrap().is_none());
    }
}
