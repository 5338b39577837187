//! What is ready to use: flags over environment over `/etc/siforge/agent.toml` over defaults. The only reader of the environment.
//!
//! ```toml
//! store = "/shared/siforge"           # required
//! socket = "/run/siforge/agent.sock"
//! state-dir = "/run/siforge"
//! node-name = "n1"
//! integrity = "hash"                  # or "store"
//! linger = 300                        # seconds
//! default-namespace = "default"
//! max-mounts = 128
//! registry = "127.0.0.1:577"         # default: none
//! log-format = "text"                 # or "json"
//! log = "info"
//! ```

use std::ffi::OsString;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use serde::Deserialize;

use crate::cli::{IntegrityMode, LogFormat, Options};

/// Where the configuration file stands unless told otherwise; its absence is no error.
pub const DEFAULT_FILE: &str = "/etc/siforge/agent.toml";
const DEFAULT_STATE_DIR: &str = "/run/siforge";
const DEFAULT_SOCKET: &str = "/run/siforge/agent.sock";
/// A day's worth of settings fits in a page; more is not a configuration file.
const FILE_LIMIT: u64 = 64 * 1024;
/// Beyond this a linger is a typing mistake (a year).
const LINGER_LIMIT: u64 = 366 * 24 * 3600;
/// Each mount costs a loop device and a superblock.
const MOUNTS_LIMIT: u32 = 4096;

/// Why no configuration could be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is there and can't be read, or was named and is not there.
    #[error("read configuration {path}: {source}", path = path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// The file is larger than any configuration.
    #[error("configuration {path} is larger than {FILE_LIMIT} bytes", path = path.display())]
    TooLarge { path: PathBuf },
    /// Not TOML, or a key that is not known.
    #[error("configuration {path}: {reason}", path = path.display())]
    Syntax { path: PathBuf, reason: String },
    /// One setting is out of its range.
    #[error("setting {setting}: {value:?} is {wrong}")]
    Value { setting: &'static str, value: String, wrong: &'static str },
    /// A name that the store can't hold.
    #[error("setting {setting}: {source}")]
    Name { setting: &'static str, source: siforge_store::Error },
    /// No store was named.
    #[error("no store is configured: give --store DIR, SIFORGE_STORE or `store = \"DIR\"` in {DEFAULT_FILE}")]
    NoStore,
}

/// Everything `serve` needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The store's root.
    pub store: PathBuf,
    /// Local places.
    pub local: Local,
    /// Key of the node's lease in the store.
    pub node_name: String,
    /// What is checked before a file is mounted.
    pub integrity: IntegrityMode,
    /// How long a mount without lease stays after its last use.
    pub linger: Duration,
    /// How many images may be mounted at once.
    pub max_mounts: u32,
    /// Where pods' images are served; on loopback.
    pub registry: Option<SocketAddr>,
}

/// Only root may listen on ports below it, unless an administrator has lowered it.
const PRIVILEGED: u16 = 1024;

/// What the client subcommands need as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    /// The agent's socket.
    pub socket: PathBuf,
    /// Mounts, leases, memo; on a local file system.
    pub state_dir: PathBuf,
    /// Namespace of bare names.
    pub default_namespace: String,
    /// Form of the log.
    pub log_format: LogFormat,
    /// Log filter directives.
    pub log: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    store: Option<PathBuf>,
    socket: Option<PathBuf>,
    state_dir: Option<PathBuf>,
    node_name: Option<String>,
    integrity: Option<IntegrityMode>,
    linger: Option<u64>,
    default_namespace: Option<String>,
    max_mounts: Option<u32>,
    registry: Option<SocketAddr>,
    log_format: Option<LogFormat>,
    log: Option<String>,
}

/// An environment: name → value.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// This process's environment, for [`load`], [`local`] and the Slurm hooks.
pub fn process_environment(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// Settings of `serve`.
pub fn load(options: &Options, environment: Environment<'_>, host_name: &str) -> Result<Config, Error> {
    let file = read_file(options, environment)?;
    let local = resolve_local(options, environment, &file)?;
    let node_name =
        pick_string("node-name", options.node_name.clone(), environment, "SIFORGE_NODE_NAME", file.node_name)?
            .unwrap_or_else(|| host_name.to_ascii_lowercase());
    check_name("node-name", &node_name, siforge_store::names::check_node)?;
    let linger = pick("linger", options.linger, environment, "SIFORGE_AGENT_LINGER", file.linger)?.unwrap_or(300);
    if linger > LINGER_LIMIT {
        return Err(Error::Value { setting: "linger", value: linger.to_string(), wrong: "more than a year" });
    }
    let max_mounts = pick("max-mounts", options.max_mounts, environment, "SIFORGE_AGENT_MAX_MOUNTS", file.max_mounts)?
        .unwrap_or(128);
    if max_mounts == 0 || max_mounts > MOUNTS_LIMIT {
        return Err(Error::Value {
            setting: "max-mounts",
            value: max_mounts.to_string(),
            wrong: "not between 1 and 4096",
        });
    }
    let integrity = pick_enum("integrity", options.integrity, environment, "SIFORGE_AGENT_INTEGRITY", file.integrity)?
        .unwrap_or(IntegrityMode::Hash);
    let store = pick_path(options.store.clone(), environment, "SIFORGE_STORE", file.store).ok_or(Error::NoStore)?;
    absolute("store", &store)?;
    let registry = pick("registry", options.registry, environment, "SIFORGE_AGENT_REGISTRY", file.registry)?;
    if let Some(address) = registry.filter(|address| !address.ip().is_loopback()) {
        let wrong = "not a loopback address: what is served there is for this node alone";
        return Err(Error::Value { setting: "registry", value: address.to_string(), wrong });
    }
    if let Some(address) = registry.filter(|address| address.port() >= PRIVILEGED || address.port() == 0) {
        let wrong = "not a port below 1024: others could take another while the agent is down, and be asked for images";
        return Err(Error::Value { setting: "registry", value: address.to_string(), wrong });
    }
    Ok(Config { store, local, node_name, integrity, linger: Duration::from_secs(linger), max_mounts, registry })
}

/// Settings of the client subcommands.
pub fn local(options: &Options, environment: Environment<'_>) -> Result<Local, Error> {
    let file = read_file(options, environment)?;
    resolve_local(options, environment, &file)
}

fn resolve_local(options: &Options, environment: Environment<'_>, file: &File) -> Result<Local, Error> {
    let state_dir =
        pick_path(options.state_dir.clone(), environment, "SIFORGE_AGENT_STATE_DIR", file.state_dir.clone())
            .unwrap_or_else(|| DEFAULT_STATE_DIR.into());
    absolute("state-dir", &state_dir)?;
    let socket = pick_path(options.socket.clone(), environment, "SIFORGE_AGENT_SOCKET", file.socket.clone())
        .unwrap_or_else(|| DEFAULT_SOCKET.into());
    absolute("socket", &socket)?;
    let default_namespace = pick_string(
        "default-namespace",
        options.default_namespace.clone(),
        environment,
        "SIFORGE_DEFAULT_NAMESPACE",
        file.default_namespace.clone(),
    )?
    .unwrap_or_else(|| "default".to_owned());
    check_name("default-namespace", &default_namespace, siforge_store::names::check_namespace)?;
    let log_format =
        pick_enum("log-format", options.log_format, environment, "SIFORGE_AGENT_LOG_FORMAT", file.log_format)?
            .unwrap_or(LogFormat::Text);
    let log = pick_string("log", options.log.clone(), environment, "SIFORGE_LOG", file.log.clone())?
        .unwrap_or_else(|| "info".to_owned());
    Ok(Local { socket, state_dir, default_namespace, log_format, log })
}

fn read_file(options: &Options, environment: Environment<'_>) -> Result<File, Error> {
    let named = pick_path(options.config.clone(), environment, "SIFORGE_AGENT_CONFIG", None);
    let path = named.clone().unwrap_or_else(|| DEFAULT_FILE.into());
    let mut text = String::new();
    match std::fs::File::open(&path) {
        Ok(file) => {
            file.take(FILE_LIMIT + 1)
                .read_to_string(&mut text)
                .map_err(|source| Error::Read { path: path.clone(), source })?;
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => {
            return Ok(File::default());
        }
        Err(source) => return Err(Error::Read { path, source }),
    }
    if text.len() as u64 > FILE_LIMIT {
        return Err(Error::TooLarge { path });
    }
    toml::from_str(&text).map_err(|error| Error::Syntax { path, reason: error.to_string().trim_end().to_owned() })
}

fn variable(environment: Environment<'_>, name: &str) -> Option<OsString> {
    environment(name).filter(|value| !value.is_empty())
}

fn pick_path(
    flag: Option<PathBuf>,
    environment: Environment<'_>,
    name: &str,
    file: Option<PathBuf>,
) -> Option<PathBuf> {
    flag.or_else(|| variable(environment, name).map(PathBuf::from)).or(file)
}

fn pick_string(
    setting: &'static str,
    flag: Option<String>,
    environment: Environment<'_>,
    name: &str,
    file: Option<String>,
) -> Result<Option<String>, Error> {
    pick(setting, flag, environment, name, file)
}

fn pick<T: FromStr>(
    setting: &'static str,
    flag: Option<T>,
    environment: Environment<'_>,
    name: &str,
    file: Option<T>,
) -> Result<Option<T>, Error> {
    if flag.is_some() {
        return Ok(flag);
    }
    let Some(value) = variable(environment, name) else {
        return Ok(file);
    };
    let value = value.to_string_lossy().into_owned();
    match value.parse() {
        Ok(parsed) => Ok(Some(parsed)),
        Err(_) if setting == "registry" => Err(Error::Value { setting, value, wrong: "not ADDRESS:PORT" }),
        Err(_) => Err(Error::Value { setting, value, wrong: "not a number" }),
    }
}

fn pick_enum<T: ValueEnum>(
    setting: &'static str,
    flag: Option<T>,
    environment: Environment<'_>,
    name: &str,
    file: Option<T>,
) -> Result<Option<T>, Error> {
    if flag.is_some() {
        return Ok(flag);
    }
    let Some(value) = variable(environment, name) else {
        return Ok(file);
    };
    let value = value.to_string_lossy().into_owned();
    match T::from_str(&value, false) {
        Ok(parsed) => Ok(Some(parsed)),
        Err(_) => Err(Error::Value { setting, value, wrong: "not one of the known words, see --help" }),
    }
}

fn absolute(setting: &'static str, path: &Path) -> Result<(), Error> {
    if path.is_absolute() {
        return Ok(());
    }
    Err(Error::Value { setting, value: path.display().to_string(), wrong: "not an absolute path" })
}

/// Node names and namespaces become file names in the store, which has the rule.
fn check_name(
    setting: &'static str,
    name: &str,
    check: fn(&str) -> Result<(), siforge_store::Error>,
) -> Result<(), Error> {
    check(name).map_err(|source| Error::Name { setting, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(options: &Options, environment: &[(&str, &str)], file: Option<&str>) -> Result<Config, String> {
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let path = directory.path().join("agent.toml");
        let mut options = options.clone();
        std::fs::write(&path, file.unwrap_or("")).map_err(|error| error.to_string())?;
        options.config = Some(path);
        let lookup =
            |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
        load(&options, &lookup, "host").map_err(|error| error.to_string())
    }

    fn base() -> Options {
        Options { store: Some("/store".into()), ..Options::default() }
    }

    #[test]
    fn flags_beat_environment_beats_file_beats_defaults() {
        let defaults = check(&base(), &[], None).unwrap();
        assert_eq!(defaults.linger, Duration::from_secs(300));
        assert_eq!(defaults.node_name, "host");
        assert_eq!(defaults.integrity, IntegrityMode::Hash);
        assert_eq!(defaults.local.socket, Path::new(DEFAULT_SOCKET));

        let file = "linger = 1\nnode-name = \"f\"\nintegrity = \"store\"\nstore = \"/f\"\n";
        let from_file = check(&Options::default(), &[], Some(file)).unwrap();
        assert_eq!((from_file.linger.as_secs(), from_file.node_name.as_str()), (1, "f"));
        assert_eq!((from_file.integrity, from_file.store.as_path()), (IntegrityMode::Store, Path::new("/f")));

        let environment = [("SIFORGE_AGENT_LINGER", "2"), ("SIFORGE_STORE", "/e"), ("SIFORGE_AGENT_INTEGRITY", "hash")];
        let from_environment = check(&Options::default(), &environment, Some(file)).unwrap();
        assert_eq!((from_environment.linger.as_secs(), from_environment.store.as_path()), (2, Path::new("/e")));
        assert_eq!(from_environment.integrity, IntegrityMode::Hash);

        let flags = Options { linger: Some(3), ..base() };
        let from_flags = check(&flags, &environment, Some(file)).unwrap();
        assert_eq!((from_flags.linger.as_secs(), from_flags.store.as_path()), (3, Path::new("/store")));
    }

    fn refused(options: &Options, environment: &[(&str, &str)], file: Option<&str>, expected: &str) {
        let error = check(options, environment, file).expect_err(expected);
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn bad_flags_are_named() {
        let none = Options::default();
        refused(&none, &[], None, "no store is configured");
        let flag = |options, expected| refused(&options, &[], None, expected);
        flag(Options { store: Some("s".into()), ..base() }, "setting store: \"s\" is not an absolute path");
        flag(Options { linger: Some(u64::MAX), ..base() }, "more than a year");
        flag(Options { max_mounts: Some(0), ..base() }, "setting max-mounts");
        flag(
            Options { registry: Some(([10, 0, 0, 1], 5057).into()), ..base() },
            "\"10.0.0.1:5057\" is not a loopback address",
        );
        flag(Options { registry: Some(([127, 0, 0, 1], 5057).into()), ..base() }, "not a port below 1024");
        flag(Options { node_name: Some("../x".into()), ..base() }, "setting node-name");
    }

    #[test]
    fn bad_variables_are_named() {
        let variable = |name, value, expected| refused(&base(), &[(name, value)], None, expected);
        variable("SIFORGE_AGENT_LINGER", "soon", "setting linger: \"soon\" is not a number");
        variable("SIFORGE_AGENT_REGISTRY", "5057", "setting registry: \"5057\" is not ADDRESS:PORT");
        variable("SIFORGE_AGENT_INTEGRITY", "no", "setting integrity");
    }

    #[test]
    fn bad_files_are_named() {
        let file = |text, expected| refused(&base(), &[], Some(text), expected);
        file("stroe = \"/x\"\n", "unknown field `stroe`");
        file("store", "configuration ");
    }

    #[test]
    fn a_named_file_must_exist() {
        let options = Options { config: Some("/nonexistent/agent.toml".into()), ..base() };
        let error = load(&options, &|_| None, "host").unwrap_err().to_string();
        assert!(error.contains("read configuration /nonexistent/agent.toml"), "{error}");
    }
}
