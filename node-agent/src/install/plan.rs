//! What has to change on a node so that its containerd knows the runtime handler `siforge`. Pure.
//!
//! | containerd | what it reads | what is changed |
//! |---|---|---|
//! | 2.x (configuration version 3 and later) | drop-ins of a folder that it imports, key by key over what is there | a drop-in of our own; `imports` of the main file where no folder is imported |
//! | 1.6, 1.7 (version 2) | a drop-in's plugin section **instead of** the main file's | a marked block at the end of the main file, and `config_path` in its own section |
//!
//! What the default runtime has, the handler gets too: SystemdCgroup, base_runtime_spec, and the program that is behind it.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

/// Name of the runtime handler, and of the RuntimeClass's `handler`.
pub const HANDLER: &str = "siforge";
/// Whose images the agent serves.
const REGISTRY: &str = "siforge.dev";
const DROP_IN: &str = "siforge.toml";
const BEGIN: &str = "# siforge: begin (siforge-agent install-runtime wrote this, uninstall-runtime removes it)\n";
const END: &str = "# siforge: end\n";
/// Marks a line of ours in a section of the administrator's.
const OWN_LINE: &str = " # siforge";
/// Where hosts of registries are configured, if nobody has said where.
const CERTS: &str = "/etc/containerd/certs.d";

/// Version 2 has one plugin for both, later ones one each.
const CRI: &str = "io.containerd.grpc.v1.cri";
const CRI_RUNTIME: &str = "io.containerd.cri.v1.runtime";
const CRI_IMAGES: &str = "io.containerd.cri.v1.images";

/// What is there.
#[derive(Debug, Clone)]
pub struct Found<'a> {
    /// Of the main file.
    pub path: &'a Path,
    /// Its text; None: there is no such file.
    pub main: Option<&'a str>,
    /// The file in the folder that it imports which has our name.
    pub drop_in: Option<&'a str>,
    /// What containerd makes of it and of what it imports: `containerd config dump`.
    pub effective: &'a Table,
    /// Where the wrapper is, or will be.
    pub wrapper: &'a Path,
    /// The agent's folder with the registry's hosts.toml.
    pub hosts: &'a Path,
}

/// What is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// Files and their text; None: the file goes.
    pub files: Vec<(PathBuf, Option<String>)>,
    /// A link and where it points; None: the link goes.
    pub link: (PathBuf, Option<PathBuf>),
    /// The program that is behind the default runtime, if it is not the one in PATH.
    pub behind: Option<PathBuf>,
}

/// Why the configuration is left to its administrator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("containerd's configuration has version {0}: 2 and later are known")]
    Version(i64),
    #[error("{path} is not TOML: {reason}", path = path.display())]
    Syntax { path: PathBuf, reason: String },
    #[error("containerd has a runtime {HANDLER} already, which {path} says nothing of: remove it first", path = path.display())]
    Foreign { path: PathBuf },
    #[error("{path} was not written by siforge-agent, or was changed: move it away first", path = path.display())]
    NotOurs { path: PathBuf },
    #[error("{path} has a beginning of siforge's block and no end: remove what is left of it first", path = path.display())]
    Unended { path: PathBuf },
    #[error(
        "containerd's default runtime is {0:?}, which is no path: write it as one, so that siforge-runtime finds it"
    )]
    Behind(String),
    #[error("with siforge's block at its end {path} is no TOML ({reason}): write its plugins as tables, each with its own header", path = path.display())]
    Unfit { path: PathBuf, reason: String },
    #[error(
        "containerd's configuration has registry.{0}, which it takes only without config_path: move them to hosts.toml files (containerd's docs/hosts.md), and set config_path"
    )]
    OldRegistries(&'static str),
    #[error("{path} sets imports in a form that is not edited here: add {glob:?} to it", path = path.display())]
    Imports { path: PathBuf, glob: String },
    #[error("{path} sets config_path to nothing: set it to {CERTS:?}, or remove the line", path = path.display())]
    ConfigPath { path: PathBuf },
}

/// What installs the handler.
pub fn install(found: &Found<'_>) -> Result<Changes, Refusal> {
    let version = version(found.effective)?;
    let (runtime, images) = if version >= 3 { (CRI_RUNTIME, CRI_IMAGES) } else { (CRI, CRI) };
    let containerd = at(found.effective, &["plugins", runtime, "containerd"]);
    let registry = at(found.effective, &["plugins", images, "registry"]);
    for old in ["mirrors", "configs"] {
        if registry.and_then(|registry| at(registry, &[old])).is_some_and(|table| !table.is_empty()) {
            return Err(Refusal::OldRegistries(old));
        }
    }
    let default = containerd.and_then(|table| table.get("default_runtime_name")).and_then(Value::as_str);
    let default = containerd.and_then(|table| at(table, &["runtimes", default.unwrap_or("runc")]));
    let handler = handler(runtime, found.wrapper, default);
    let set = text(registry, "config_path").unwrap_or_default();
    // Folders between colons; the first is asked first.
    let certs = set.split(':').find(|path| !path.is_empty()).unwrap_or(CERTS);
    // What this set before it sets again.
    let config_path = (set.is_empty() || set == CERTS).then_some(certs);
    whole_block(found)?;
    let main = found.main.map(without_ours);
    if version == 2 && has_handler(containerd) && main.as_deref() == found.main {
        return Err(Refusal::Foreign { path: found.path.to_owned() });
    }
    let files = match version {
        2 => vec![(found.path.to_owned(), Some(in_main(found.path, main.as_deref(), &handler, config_path)?))],
        _ => drop_in(found, version, images, &handler, config_path)?,
    };
    let behind = default.and_then(|default| text(at(default, &["options"]), "BinaryName")).unwrap_or_default();
    if !behind.is_empty() && !Path::new(behind).is_absolute() {
        return Err(Refusal::Behind(behind.to_owned()));
    }
    let behind = (!behind.is_empty() && Path::new(behind) != found.wrapper).then(|| behind.into());
    Ok(Changes { files, link: (Path::new(certs).join(REGISTRY), Some(found.hosts.to_owned())), behind })
}

/// What takes it out again. The wrapper stays: containers that run know it by its path, and without a marker it is only a step
/// on the way to the runtime behind it.
pub fn uninstall(found: &Found<'_>) -> Result<Changes, Refusal> {
    let version = version(found.effective)?;
    let images = if version >= 3 { CRI_IMAGES } else { CRI };
    let registry = at(found.effective, &["plugins", images, "registry"]);
    let set = text(registry, "config_path").unwrap_or_default();
    let certs = set.split(':').find(|path| !path.is_empty()).unwrap_or(CERTS);
    whole_block(found)?;
    let main = found.main.map(without_ours).filter(|main| Some(main.as_str()) != found.main);
    let mut files: Vec<_> = main.map(|main| (found.path.to_owned(), Some(main))).into_iter().collect();
    if version >= 3 {
        let folder = imported(found)?.unwrap_or_else(|| folder_beside(found.path));
        own(found, &folder)?;
        files.push((folder.join(DROP_IN), None));
    }
    Ok(Changes { files, link: (Path::new(certs).join(REGISTRY), None), behind: None })
}

fn version(effective: &Table) -> Result<i64, Refusal> {
    match effective.get("version").and_then(Value::as_integer).unwrap_or(1) {
        version @ 2.. => Ok(version),
        version => Err(Refusal::Version(version)),
    }
}

fn at<'t>(table: &'t Table, path: &[&str]) -> Option<&'t Table> {
    path.iter().try_fold(table, |table, name| table.get(*name)?.as_table())
}

fn text<'t>(table: Option<&'t Table>, name: &str) -> Option<&'t str> {
    table?.get(name)?.as_str()
}

fn has_handler(containerd: Option<&Table>) -> bool {
    containerd.and_then(|table| at(table, &["runtimes", HANDLER])).is_some()
}

/// A TOML string: JSON's escapes are TOML's, too.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The handler's tables.
fn handler(plugin: &str, wrapper: &Path, default: Option<&Table>) -> String {
    let table = format!("plugins.\"{plugin}\".containerd.runtimes.{HANDLER}");
    let spec = text(default, "base_runtime_spec").filter(|spec| !spec.is_empty());
    let spec = spec.map(|spec| format!("  base_runtime_spec = {}\n", quoted(spec))).unwrap_or_default();
    let systemd =
        default.and_then(|default| at(default, &["options"])).and_then(|options| options.get("SystemdCgroup"));
    let systemd = systemd.and_then(Value::as_bool).unwrap_or_default();
    format!(
        "[{table}]\n  runtime_type = \"io.containerd.runc.v2\"\n  pod_annotations = [\"siforge.dev/*\"]\n{spec}\
         [{table}.options]\n  BinaryName = {}\n  SystemdCgroup = {systemd}\n",
        quoted(&wrapper.to_string_lossy()),
    )
}

/// A file of our own, in a folder that containerd imports.
fn drop_in(
    found: &Found<'_>,
    version: i64,
    images: &str,
    handler: &str,
    config_path: Option<&str>,
) -> Result<Vec<(PathBuf, Option<String>)>, Refusal> {
    let mut files = Vec::new();
    let folder = match imported(found)? {
        Some(folder) => folder,
        None => {
            let folder = folder_beside(found.path);
            let glob = folder.join("*.toml").display().to_string();
            files.push((found.path.to_owned(), Some(with_import(found, version, &glob)?)));
            folder
        }
    };
    own(found, &folder)?;
    let registry =
        config_path.map(|path| format!("[plugins.\"{images}\".registry]\n  config_path = {}\n", quoted(path)));
    // Of a later version than containerd's own it would be refused; of an earlier one it is migrated.
    let text = format!("{BEGIN}version = 3\n{handler}{}{END}", registry.unwrap_or_default());
    files.push((folder.join(DROP_IN), Some(text)));
    Ok(files)
}

/// The folder of the first `…/*.toml` that the main file imports. What containerd's dump says of imports is not asked: it names a
/// folder by default, and does not read it (2.4).
fn imported(found: &Found<'_>) -> Result<Option<PathBuf>, Refusal> {
    imported_by(found.path, found.main.unwrap_or_default())
}

fn imported_by(path: &Path, main: &str) -> Result<Option<PathBuf>, Refusal> {
    let main = parsed(path, main)?;
    let imports = main.get("imports").and_then(Value::as_array).into_iter().flatten();
    let mut folders = imports.filter_map(|import| import.as_str()?.strip_suffix("/*.toml")).map(PathBuf::from);
    Ok(folders.find(|folder| folder.is_absolute()))
}

/// Where the drop-in is looked for.
pub(super) fn drop_in_path(path: &Path, main: Option<&str>) -> PathBuf {
    let found = main.and_then(|main| imported_by(path, main).ok().flatten());
    found.unwrap_or_else(|| folder_beside(path)).join(DROP_IN)
}

/// A file of our name in the folder has to be of ours.
fn own(found: &Found<'_>, folder: &Path) -> Result<(), Refusal> {
    let ours = found.drop_in.is_none_or(|text| text.starts_with(BEGIN) && text.ends_with(END));
    if ours { Ok(()) } else { Err(Refusal::NotOurs { path: folder.join(DROP_IN) }) }
}

fn whole_block(found: &Found<'_>) -> Result<(), Refusal> {
    let main = found.main.unwrap_or_default();
    match main.matches(BEGIN).count() == main.matches(END).count() {
        true => Ok(()),
        false => Err(Refusal::Unended { path: found.path.to_owned() }),
    }
}

fn folder_beside(main: &Path) -> PathBuf {
    main.parent().unwrap_or(Path::new("/")).join("conf.d")
}

/// The main file, importing `glob` besides.
fn with_import(found: &Found<'_>, version: i64, glob: &str) -> Result<String, Refusal> {
    let Some(main) = found.main else {
        return Ok(format!("version = {}\nimports = [{}]\n", version.min(3), quoted(glob)));
    };
    let refused = || Refusal::Imports { path: found.path.to_owned(), glob: glob.to_owned() };
    let before = parsed(found.path, main)?;
    let changed = match before.get("imports").map(|imports| imports.as_array().map(Vec::as_slice)) {
        // Top-level keys come before the first table.
        None => format!("imports = [{}]{OWN_LINE}\n{main}", quoted(glob)),
        Some(Some([])) => main.replacen("imports = []", &format!("imports = [{}]{OWN_LINE}", quoted(glob)), 1),
        Some(_) => return Err(refused()),
    };
    let after = parsed(found.path, &changed).map_err(|_| refused())?;
    let is_there = after.get("imports").and_then(Value::as_array).is_some_and(|imports| !imports.is_empty());
    if is_there { Ok(changed) } else { Err(refused()) }
}

/// The main file with the block at its end, and `config_path` where its section is.
fn in_main(path: &Path, main: Option<&str>, handler: &str, config_path: Option<&str>) -> Result<String, Refusal> {
    let main = main.unwrap_or("version = 2\n");
    let before = parsed(path, main)?;
    let mut block = handler.to_owned();
    let mut text = main.to_owned();
    if let Some(certs) = config_path {
        let line = format!("  config_path = {}", quoted(certs));
        match at(&before, &["plugins", CRI, "registry"]) {
            None => block += &format!("[plugins.\"{CRI}\".registry]\n{line}\n"),
            Some(registry) if text_of(registry) == Some(certs) => {}
            Some(registry) if registry.contains_key("config_path") => {
                return Err(Refusal::ConfigPath { path: path.to_owned() });
            }
            Some(_) => text = below_header(&text, &line).ok_or(Refusal::ConfigPath { path: path.to_owned() })?,
        }
    }
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    let text = format!("{text}{BEGIN}{block}{END}");
    match parsed(path, &text) {
        Ok(_) => Ok(text),
        Err(Refusal::Syntax { path, reason }) => Err(Refusal::Unfit { path, reason }),
        Err(other) => Err(other),
    }
}

fn text_of(registry: &Table) -> Option<&str> {
    text(Some(registry), "config_path")
}

/// The text with a line of ours behind the header of the registry's section.
fn below_header(text: &str, line: &str) -> Option<String> {
    let headers = [format!("[plugins.\"{CRI}\".registry]"), format!("[plugins.'{CRI}'.registry]")];
    let mut out = String::new();
    let mut done = false;
    for old in text.split_inclusive('\n') {
        out += old;
        if !done && headers.iter().any(|header| old.trim() == header) {
            if !old.ends_with('\n') {
                out.push('\n');
            }
            out += &format!("{line}{OWN_LINE}\n");
            done = true;
        }
    }
    done.then_some(out)
}

/// The text as it was before it was edited here.
fn without_ours(text: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    for line in text.split_inclusive('\n') {
        match line {
            BEGIN => inside = true,
            END if inside => inside = false,
            _ if inside || line.trim_end().ends_with(OWN_LINE) => {}
            line => out += line,
        }
    }
    out
}

fn parsed(path: &Path, text: &str) -> Result<Table, Refusal> {
    text.parse().map_err(|error: toml::de::Error| Refusal::Syntax {
        path: path.to_owned(),
        reason: error.to_string().lines().next().unwrap_or_default().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAIN: &str = "/etc/containerd/config.toml";

    fn check(
        name: &str,
        main: Option<&str>,
        effective: &str,
        expect: Result<&[(&str, &[&str])], &str>,
    ) -> Option<Changes> {
        let effective: Table = effective.parse().expect(name);
        let found = Found {
            path: Path::new(MAIN),
            main,
            drop_in: None,
            effective: &effective,
            wrapper: Path::new("/opt/siforge/bin/siforge-runtime"),
            hosts: Path::new("/run/siforge/registry"),
        };
        match (install(&found), expect) {
            (Ok(changes), Ok(files)) => {
                assert_eq!(changes.files.len(), files.len(), "{name}: {changes:?}");
                for ((path, text), (expected, parts)) in changes.files.iter().zip(files) {
                    let text = text.as_deref().expect(name);
                    assert_eq!(path, Path::new(expected), "{name}");
                    text.parse::<Table>().unwrap_or_else(|error| panic!("{name}: {error}\n{text}"));
                    parts.iter().for_each(|part| assert!(text.contains(part), "{name}: no {part:?} in\n{text}"));
                }
                Some(changes)
            }
            (Err(refusal), Err(words)) => {
                assert!(refusal.to_string().contains(words), "{name}: {refusal}");
                None
            }
            (got, _) => panic!("{name}: {got:?}"),
        }
    }

    #[test]
    fn version_3_gets_a_drop_in() {
        let drop_in = "/etc/containerd/conf.d/siforge.toml";
        let effective = "version = 4\nimports = ['/etc/containerd/conf.d/*.toml']\n\
            [plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = ''\n\
            [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]\nbase_runtime_spec = '/etc/spec.json'\n\
            [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]\nBinaryName = '/usr/sbin/runc'\nSystemdCgroup = true\n";
        let imports = "version = 3\nimports = ['/etc/containerd/conf.d/*.toml']\n";
        let parts: &[&str] = &[
            "[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.siforge]",
            "BinaryName = \"/opt/siforge/bin/siforge-runtime\"",
            "SystemdCgroup = true",
            "base_runtime_spec = \"/etc/spec.json\"",
            "config_path = \"/etc/containerd/certs.d\"",
        ];
        let changes = check("imported", Some(imports), effective, Ok(&[(drop_in, parts)])).expect("changes");
        assert_eq!(changes.behind, Some("/usr/sbin/runc".into()));
        let link = ("/etc/containerd/certs.d/siforge.dev".into(), Some("/run/siforge/registry".into()));
        assert_eq!(changes.link, link);

        let import = "imports = [\"/etc/containerd/conf.d/*.toml\"]";
        check("no file", None, effective, Ok(&[(MAIN, &[import]), (drop_in, parts)]));
        check(
            "no imports",
            Some("version = 3\n[debug]\n"),
            effective,
            Ok(&[(MAIN, &[import, "[debug]"]), (drop_in, parts)]),
        );
        check("empty", Some("imports = []\nversion = 3\n"), effective, Ok(&[(MAIN, &[import]), (drop_in, parts)]));
        check("other", Some("imports = ['/x.toml']\n"), effective, Err("add \"/etc/containerd/conf.d/*.toml\""));
        let mirrors =
            effective.replace("config_path = ''", "[plugins.'io.containerd.cri.v1.images'.registry.mirrors.x]");
        check("mirrors", Some(imports), &mirrors, Err("registry.mirrors"));
        let own = effective.replace("config_path = ''", "config_path = '/etc/certs:/other'");
        let changes = check("config_path", Some(imports), &own, Ok(&[(drop_in, &parts[..4])])).expect("changes");
        assert_eq!(changes.link.0, Path::new("/etc/certs/siforge.dev"));
    }

    #[test]
    fn version_2_is_edited_and_mended() {
        let effective = "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.registry]\nconfig_path = ''\n";
        let runtime = "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.siforge]";
        let certs = "config_path = \"/etc/containerd/certs.d\"";
        let whole = |main: &str, parts: &[&str]| {
            let changes = check(main, Some(main), effective, Ok(&[(MAIN, parts)])).expect("changes");
            let after = changes.files[0].1.clone().expect("a text");
            // A second time it is the same, and without it what was there before.
            let again = effective.replace("config_path = ''", "config_path = '/etc/containerd/certs.d'");
            check("again", Some(&after), &again, Ok(&[(MAIN, &[&after])]));
            let found_table: Table = effective.parse().expect("a table");
            let (path, hosts) = (Path::new(MAIN), Path::new("/h"));
            let found =
                Found { path, main: Some(&after), drop_in: None, effective: &found_table, wrapper: path, hosts };
            let gone = uninstall(&found).expect("changes");
            assert_eq!(gone.files, [(path.to_owned(), Some(main.to_owned()))]);
        };
        whole("version = 2\n", &[runtime, certs]);
        whole(
            "version = 2\n[plugins]\n  [plugins.\"io.containerd.grpc.v1.cri\".registry]\n    x = 1\n",
            &[runtime, certs],
        );
        check("no file", None, effective, Ok(&[(MAIN, &["version = 2", runtime, certs])]));
        let empty = "[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"\"\n";
        check("empty", Some(empty), effective, Err("config_path to nothing"));
        check("rubbish", Some("version = \n"), effective, Err("is not TOML"));
        check("cut off", Some(&format!("version = 2\n{BEGIN}")), effective, Err("no end"));
        let inline = "version = 2\nplugins = {\"io.containerd.grpc.v1.cri\" = {}}\n";
        check("inline", Some(inline), effective, Err("each with its own header"));
        let bare = format!(
            "{effective}[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc.options]\nBinaryName = 'crun'\n"
        );
        check("bare", Some("version = 2\n"), &bare, Err("\"crun\", which is no path"));
        let foreign = "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.siforge]\n";
        check("foreign", Some(foreign), foreign, Err("remove it first"));
        check("version 1", Some(""), "version = 1\n", Err("version 1"));
    }
}
