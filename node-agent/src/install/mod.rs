//! `siforge-agent install-runtime` and `uninstall-runtime`: the node's containerd learns, or forgets, the runtime handler `siforge`.
//!
//! ```text
//!   <prefix>/siforge-runtime        the wrapper, replaced by rename: containers that run go on with the one they know by this path
//!   <prefix>/siforge-runtime.toml   its settings: the agent's socket, the runtime behind it
//!   containerd's configuration      see [`plan`]; each file replaced whole, all put back if containerd then reads it otherwise
//!   <config_path>/siforge.dev       ─▶ <state>/registry, where the agent writes hosts.toml
//! ```
//! containerd reads its configuration when it starts: a restart, which containers outlive, is left to the administrator.

pub mod plan;

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use plan::{Changes, Found, HANDLER, Refusal};
use toml::Table;

/// Most bytes of a configuration, and of a dump of it.
const CONFIG_LIMIT: u64 = 4 << 20;
const WRAPPER: &str = "siforge-runtime";

/// Where things are.
#[derive(Debug, Clone)]
pub struct Places {
    /// containerd's main configuration file.
    pub config: PathBuf,
    /// The program containerd.
    pub containerd: PathBuf,
    /// Folder of the wrapper.
    pub prefix: PathBuf,
    /// The wrapper that is installed.
    pub wrapper: PathBuf,
    /// The agent's socket and state folder.
    pub socket: PathBuf,
    pub state_dir: PathBuf,
}

/// Why the runtime is not installed. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{operation} {path}: {source}", path = path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("{path} has more than {CONFIG_LIMIT} bytes", path = path.display())]
    TooLarge { path: PathBuf },
    #[error("{program} does not read {config}: {said}", program = program.display(), config = config.display())]
    Dump { program: PathBuf, config: PathBuf, said: String },
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("with the new configuration {program} has no runtime {HANDLER}: all is as it was", program = program.display())]
    NotTaken { program: PathBuf },
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { operation, path, source }
}

/// Installs, or says what would be done; the lines are for people.
pub fn install(places: &Places, dry_run: bool) -> Result<Vec<String>, Error> {
    let main = read(&places.config)?;
    let drop_in = read(&plan::drop_in_path(&places.config, main.as_deref()))?;
    let effective = dump(places)?;
    let wrapper = places.prefix.join(WRAPPER);
    let hosts = places.state_dir.join("registry");
    let found = Found {
        path: &places.config,
        main: main.as_deref(),
        drop_in: drop_in.as_deref(),
        effective: &effective,
        wrapper: &wrapper,
        hosts: &hosts,
    };
    let changes = plan::install(&found)?;
    let settings = settings(places, changes.behind.as_deref());
    let settings_path = wrapper.with_extension("toml");
    let mut lines = told(&changes)?;
    lines.insert(0, format!("{} copied to {}", places.wrapper.display(), wrapper.display()));
    lines.insert(1, format!("{} written:\n{settings}", settings_path.display()));
    if dry_run {
        return Ok(lines);
    }
    let program = fs::read(&places.wrapper).map_err(failed("read", &places.wrapper))?;
    let before: Vec<_> = [&wrapper, &settings_path].map(|path| (path.clone(), fs::read(path).ok())).into();
    // Before containerd is told of it.
    let placed = replace(&wrapper, &program, 0o755).and_then(|()| replace(&settings_path, settings.as_bytes(), 0o644));
    let undo = match placed.and_then(|()| apply(&changes)) {
        Ok(undo) => Undo { programs: before, ..undo },
        Err(error) => {
            put_back(before);
            return Err(error);
        }
    };
    match dump(places).map(|after| has_handler(&after)) {
        Ok(true) => {}
        taken => {
            undo.undo();
            taken?;
            return Err(Error::NotTaken { program: places.containerd.clone() });
        }
    }
    lines.push(
        "containerd takes this up when it is restarted: systemctl restart containerd (running containers stay)".into(),
    );
    Ok(lines)
}

/// Takes it out again, but for the wrapper.
pub fn uninstall(places: &Places, dry_run: bool) -> Result<Vec<String>, Error> {
    let main = read(&places.config)?;
    let drop_in = read(&plan::drop_in_path(&places.config, main.as_deref()))?;
    let effective = dump(places)?;
    let wrapper = places.prefix.join(WRAPPER);
    let hosts = places.state_dir.join("registry");
    let found = Found {
        path: &places.config,
        main: main.as_deref(),
        drop_in: drop_in.as_deref(),
        effective: &effective,
        wrapper: &wrapper,
        hosts: &hosts,
    };
    let changes = plan::uninstall(&found)?;
    let mut lines = told(&changes)?;
    lines.push(format!("{} stays: containers that run know it by this path", wrapper.display()));
    if !dry_run {
        apply(&changes)?;
        lines.push("containerd takes this up when it is restarted: systemctl restart containerd".into());
    }
    Ok(lines)
}

fn settings(places: &Places, behind: Option<&Path>) -> String {
    let line = |name: &str, path: &Path| format!("{name} = {}\n", plan::quoted(&path.to_string_lossy()));
    let behind = behind.map(|path| line("runtime", path)).unwrap_or_default();
    line("socket", &places.socket) + &behind
}

fn has_handler(effective: &Table) -> bool {
    let plugins = effective.get("plugins").and_then(toml::Value::as_table);
    plugins.is_some_and(|plugins| {
        plugins.values().any(|plugin| {
            let runtimes = plugin.get("containerd").and_then(|containerd| containerd.get("runtimes"));
            runtimes.and_then(|runtimes| runtimes.get(HANDLER)).is_some()
        })
    })
}

/// What containerd makes of its configuration.
fn dump(places: &Places) -> Result<Table, Error> {
    let program = &places.containerd;
    // Version 1.6 refuses to read a file that is missing.
    let config = if places.config.exists() { &places.config } else { Path::new("/dev/null") };
    let output = Command::new(program).arg("--config").arg(config).args(["config", "dump"]).output();
    let output = output.map_err(failed("run", program))?;
    let wrong = |said: String| Error::Dump { program: program.clone(), config: places.config.clone(), said };
    if output.stdout.len() as u64 > CONFIG_LIMIT {
        return Err(Error::TooLarge { path: places.config.clone() });
    }
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(wrong(said.lines().last().unwrap_or("it says nothing").to_owned()));
    }
    String::from_utf8_lossy(&output.stdout).parse().map_err(|error: toml::de::Error| wrong(error.to_string()))
}

/// None: no such file.
fn read(path: &Path) -> Result<Option<String>, Error> {
    use std::io::Read;
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("open", path)(error)),
    };
    let mut text = String::new();
    file.take(CONFIG_LIMIT + 1).read_to_string(&mut text).map_err(failed("read", path))?;
    if text.len() as u64 > CONFIG_LIMIT { Err(Error::TooLarge { path: path.to_owned() }) } else { Ok(Some(text)) }
}

fn told(changes: &Changes) -> Result<Vec<String>, Error> {
    let mut lines = Vec::new();
    for (path, text) in &changes.files {
        let before = read(path)?;
        lines.push(match (text, before) {
            (None, None) => continue,
            (None, Some(_)) => format!("{} removed", path.display()),
            (Some(text), before) if before.as_ref() == Some(text) => format!("{} is so already", path.display()),
            (Some(text), _) => format!("{} written:\n{text}", path.display()),
        });
    }
    let (link, to) = &changes.link;
    match to {
        Some(to) => lines.push(format!("{} linked to {}", link.display(), to.display())),
        None if link.is_symlink() => lines.push(format!("{} removed", link.display())),
        None => {}
    }
    Ok(lines)
}

/// What was there before.
struct Undo {
    files: Vec<(PathBuf, Option<String>)>,
    link: (PathBuf, Option<PathBuf>),
    /// The wrapper and its settings.
    programs: Vec<(PathBuf, Option<Vec<u8>>)>,
}

/// Best effort, as [`Undo::undo`].
fn put_back(files: Vec<(PathBuf, Option<Vec<u8>>)>) {
    for (path, bytes) in files {
        let mode = if path.extension().is_none() { 0o755 } else { 0o644 };
        let _ = match bytes {
            Some(bytes) => replace(&path, &bytes, mode).is_ok(),
            None => fs::remove_file(&path).is_ok(),
        };
    }
}

impl Undo {
    /// Best effort: the error that led here is the one that is told.
    fn undo(self) {
        for (path, text) in self.files {
            let _ = put(&path, text.as_deref());
        }
        let _ = point(&self.link.0, self.link.1.as_deref());
        put_back(self.programs);
    }
}

/// Makes all changes, or none.
fn apply(changes: &Changes) -> Result<Undo, Error> {
    let (link, to) = &changes.link;
    let mut undo = Undo { files: Vec::new(), link: (link.clone(), fs::read_link(link).ok()), programs: Vec::new() };
    for (path, text) in &changes.files {
        let before = read(path)?;
        if before == *text {
            continue;
        }
        undo.files.push((path.clone(), before));
        if let Err(error) = put(path, text.as_deref()) {
            undo.undo();
            return Err(error);
        }
    }
    match point(link, to.as_deref()) {
        Ok(()) => Ok(undo),
        Err(error) => {
            undo.undo();
            Err(error)
        }
    }
}

fn put(path: &Path, text: Option<&str>) -> Result<(), Error> {
    match text {
        Some(text) => {
            let mode = fs::metadata(path).map_or(0o644, |metadata| metadata.permissions().mode() & 0o777);
            replace(path, text.as_bytes(), mode)
        }
        None => match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
            _ => Ok(()),
        },
    }
}

/// A link that is there already and is none is left alone, and told.
fn point(link: &Path, to: Option<&Path>) -> Result<(), Error> {
    if link.is_symlink() {
        fs::remove_file(link).map_err(failed("remove", link))?;
    }
    let Some(to) = to else {
        return Ok(());
    };
    if let Some(folder) = link.parent() {
        fs::create_dir_all(folder).map_err(failed("create", folder))?;
    }
    std::os::unix::fs::symlink(to, link).map_err(failed("link", link))
}

/// Writes beside and renames: whoever opens it has the old or the new one, whole.
fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
    // A link of a configuration management stays one.
    let path = &path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed("create", folder))?;
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".siforge-new");
    let beside = PathBuf::from(beside);
    let mut options = fs::OpenOptions::new();
    let mut file =
        options.write(true).create(true).truncate(true).mode(mode).open(&beside).map_err(failed("create", &beside))?;
    file.set_permissions(fs::Permissions::from_mode(mode)).map_err(failed("set the mode of", &beside))?;
    file.write_all(bytes).map_err(failed("write", &beside))?;
    file.sync_all().map_err(failed("write", &beside))?;
    fs::rename(&beside, path).map_err(failed("rename to", path))
}
