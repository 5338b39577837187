//! Definition files → an image: base layers as they are, and one more layer of what the sections made.
//!
//! ```text
//!  for each stage, in a worker that has mounts of its own (launch::in_workshop):
//!    base ─ mounted ─▶ N/lower ┐
//!                      N/upper ┴─ overlay ─▶ N/root      %pre ▶ apps ▶ %files from ▶ %setup ▶ %files ▶ %post ▶ metadata ▶ %test
//!  the last stage's N/upper ─ source_tree::upper ─▶ a layer ─▶ on top of the base's own layers (packs) ─▶ SIF
//! ```
//! So a base is neither unpacked nor compressed again. A stage without a base (scratch, debootstrap …) has no overlay: its
//! root is N/upper itself.
//!
//! What an image's `.singularity.d` holds in the end lies in the upper layer; the runtime's own scripts are added as for
//! every image.

mod bootstrap;
mod copy;
mod error;
mod metadata;
mod root;
mod script;

pub use bootstrap::{Bootstrap, ROOT, Tool};
pub use error::Error;

use crate::source::Source;
use crate::{Limits, source_tree};
use copy::{Copy, How};
use root::Root;
use script::Scripts;
use siforge_definition::{Definition, Stage};
use siforge_launch::Bind;
use siforge_sif::image_config::{self, BASE_FOLDER, Base, ImageConfig, MAX_BASE, MAX_BASE_FILE};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a stage starts from.
pub enum Lower {
    /// A detached mount of an image. `foreign`: it is an image of its own right, whose definition becomes history; else it is
    /// what siforge made of an OCI image.
    Mount { mount: OwnedFd, foreign: bool },
    /// A sandbox, or an image that was unpacked; `foreign` as above.
    Directory { path: PathBuf, foreign: bool },
    /// The root file system is empty at first, or a tool of a distribution fills it.
    Nothing(Option<Vec<Tool>>),
}

/// What is to be done, and for whom.
pub struct Job<'a> {
    pub definition: &'a Definition,
    /// The file's name, for messages.
    pub file: &'a str,
    /// An empty directory on a local disk, which the caller removes.
    pub work: &'a Path,
    /// What relative sources of %files are relative to.
    pub directory: &'a Path,
    /// The host's environment, for %pre, %setup, and tools.
    pub environment: &'a [(OsString, OsString)],
    pub architecture: &'a str,
    /// Unix seconds: the image's time.
    pub now: i64,
    /// For %post and %test.
    pub binds: &'a [Bind],
    /// Variables for %post and %test.
    pub variables: &'a [(OsString, OsString)],
    /// Names of the sections that are carried out; empty: all.
    pub sections: &'a [String],
    pub no_test: bool,
    /// The builder is root in a user namespace without other ids: what changes owners and identities is feigned.
    pub root_alone: bool,
    /// Labels and help of a base give way.
    pub force: bool,
    /// What goes on.
    pub say: &'a dyn Fn(&str),
    /// What the user should know.
    pub warn: &'a dyn Fn(&str),
}

/// What the last stage left.
pub struct Made {
    /// Its layer over the base.
    upper: PathBuf,
    base: Base,
}

impl Made {
    /// The image: what was made, over `base`, which is the image that the last stage started from.
    pub fn over(&self, shown: &str, base: Source, limits: &Limits) -> Result<Source, crate::Error> {
        let (layer, download) = source_tree::upper(shown, &self.upper, limits)?;
        Ok(base.with_layer(shown, layer, download, self.base.clone()))
    }

    /// The root file system itself, where the last stage had no base.
    pub fn upper(&self) -> &Path {
        &self.upper
    }
}

/// Makes the root file systems of all stages. `lowers`: one for each. In a worker of [`siforge_launch::in_workshop`], by a
/// process of one thread, with root's rights in its user namespace.
pub fn make(job: &Job<'_>, lowers: Vec<Lower>) -> Result<Made, Error> {
    // The reference's: what scripts make is writable by its group.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o002));
    let mut done: Vec<Place> = Vec::new();
    for (number, (stage, lower)) in job.definition.stages.iter().zip(lowers).enumerate() {
        let maker = Maker { job, stage, done: &done };
        let place = maker.make(number, lower)?;
        done.push(place);
    }
    let last = done.pop().ok_or_else(|| Error::at("build", job.file)(rustix::io::Errno::INVAL))?;
    let base = Base { time: Some(job.now), complete: true, ..keep(&last.root)? };
    Ok(Made { upper: last.upper, base })
}

/// Where a stage is made.
struct Place {
    root: Root,
    upper: PathBuf,
}

struct Maker<'a> {
    job: &'a Job<'a>,
    stage: &'a Stage,
    done: &'a [Place],
}

impl Maker<'_> {
    fn make(&self, number: usize, lower: Lower) -> Result<Place, Error> {
        let Self { job, stage, .. } = self;
        let dir = job.work.join(number.to_string());
        fs::create_dir(&dir).map_err(Error::at("make directory", &dir))?;
        let scripts = Scripts { job, dir: &dir };
        if let Some(pre) = self.wanted("pre", &stage.pre) {
            scripts.on_host("pre", pre, &dir.join("root"))?;
        }
        let place = self.place(&dir, lower)?;
        let root = &place.root;
        self.apps(root)?;
        if self.wants("files") {
            self.files_of_stages(root)?;
        }
        if let Some(setup) = self.wanted("setup", &stage.setup) {
            scripts.on_host("setup", setup, &root.path)?;
        }
        if self.wants("files") {
            self.files_of_host(root)?;
        }
        let install = siforge_definition::render::install(&stage.apps);
        let post = self.wanted("post", &stage.post);
        if post.is_some() || stage.apps.iter().any(|app| app.install.is_some()) {
            scripts.post(post, &install, root)?;
        }
        self.metadata(root)?;
        if !job.no_test
            && let Some(test) = self.wanted("test", &stage.test)
        {
            scripts.test(test, root)?;
        }
        Ok(place)
    }

    fn wants(&self, section: &str) -> bool {
        let sections = self.job.sections;
        sections.is_empty() || sections.iter().any(|wanted| wanted == section || wanted == "all")
    }

    fn wanted<'s>(
        &self,
        section: &str,
        script: &'s Option<siforge_definition::Script>,
    ) -> Option<&'s siforge_definition::Script> {
        script.as_ref().filter(|_| self.wants(section))
    }

    /// The stage's root, with all that every image has.
    fn place(&self, dir: &Path, lower: Lower) -> Result<Place, Error> {
        let make = |name: &str| {
            let path = dir.join(name);
            fs::create_dir(&path).map_err(Error::at("make directory", &path))?;
            Ok::<_, Error>(path)
        };
        let upper = make("upper")?;
        fs::set_permissions(&upper, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .map_err(Error::at("set the mode of", &upper))?;
        let (below, foreign) = match lower {
            Lower::Nothing(tools) => {
                if let Some(tools) = tools {
                    self.fill(&tools, &upper)?;
                }
                let root = Root::open(&upper)?;
                self.first_files(&root)?;
                return Ok(Place { root, upper });
            }
            Lower::Mount { mount, foreign } => {
                let path = make("lower")?;
                siforge_launch::attach(mount.as_fd(), &path)?;
                (path, foreign)
            }
            Lower::Directory { path, foreign } => (path, foreign),
        };
        let (work, path) = (make("work")?, make("root")?);
        // What the overlay shows of its root directory is the upper's.
        like(&below, &upper)?;
        let overlay = siforge_launch::writable_overlay(&below, &upper, &work)?;
        siforge_launch::attach(overlay.as_fd(), &path)?;
        let root = Root::open(&path)?;
        // A launcher that reads it would not look at the scripts, which the sections may change.
        let gone = [image_config::OCI_CONFIG_NAME, "Singularity"];
        for name in &gone[..if foreign { 1 } else { 2 }] {
            root.remove(&Path::new(BASE_FOLDER).join(name))?;
        }
        if foreign {
            self.first_files(&root)?;
        }
        Ok(Place { root, upper })
    }

    /// Makes the root by a distribution's own tool.
    fn fill(&self, tools: &[Tool], path: &Path) -> Result<(), Error> {
        let search = self.job.environment.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.clone());
        let search = search.unwrap_or_default();
        let there = |program: &str| std::env::split_paths(&search).any(|dir| dir.join(program).is_file());
        let Some(tool) = tools.iter().find(|tool| there(&tool.program)) else {
            let names: Vec<_> =
                tools.iter().map(|tool| format!("{} (package {})", tool.program, tool.package)).collect();
            let problem = format!("the host lacks {}: install it", names.join(" and "));
            let line = self.stage.header.fields.first().map_or(1, |field| field.line);
            return Err(Error::Header { file: self.job.file.to_owned(), line, problem });
        };
        (self.job.say)(&format!("running {}", tool.program));
        let path = path.to_string_lossy();
        let status = Command::new(&tool.program)
            .args(tool.arguments.iter().map(|word| word.replace(ROOT, &path)))
            .env_clear()
            .envs(self.job.environment.iter().map(|(name, value)| (name, value)))
            .status()
            .map_err(|source| Error::Tool { program: tool.program.clone(), source })?;
        match script::code(status) {
            0 => Ok(()),
            code => Err(Error::ToolFailed { program: tool.program.clone(), code }),
        }
    }

    /// What an image that never was one has: the runtime's scripts, links and mount points.
    fn first_files(&self, root: &Root) -> Result<(), Error> {
        let config = ImageConfig::default();
        let source = image_config::Source { bootstrap: String::new(), from: String::new(), time: Some(self.job.now) };
        let contents = image_config::plan(&config, &source, &BTreeMap::new())?;
        let not_there = |path: &Path| root.stat(path).is_none();
        for file in &contents.files {
            let path = Path::new(&file.path);
            let skipped = file.path.ends_with(image_config::OCI_CONFIG_NAME)
                || file.path.ends_with(".singularity.d/Singularity")
                || file.path.ends_with(".singularity.d/labels.json");
            match &file.kind {
                image_config::FileKind::Directory => drop(root.make_dirs(path)?),
                image_config::FileKind::Regular(bytes) if !skipped && not_there(path) => {
                    let empty = file.path.ends_with(".singularity.d/runscript");
                    let bytes = if empty { NO_RUNSCRIPT } else { bytes };
                    root.write(path, bytes, file.mode.into())?;
                }
                image_config::FileKind::Symlink(target) if not_there(path) => root.symlink(path, target)?,
                _ => {}
            }
        }
        for dir in &contents.missing_dirs {
            root.make_dirs(Path::new(dir.path))?;
        }
        for file in contents.missing_files.iter().filter(|file| not_there(Path::new(file.path))) {
            root.write(Path::new(file.path), b"", file.mode.into())?;
        }
        Ok(())
    }

    fn apps(&self, root: &Root) -> Result<(), Error> {
        for (put, directory) in metadata::apps(self.stage)? {
            let path = Path::new(&put.path);
            if directory {
                root.make_dirs(path)?;
            } else {
                root.write(path, &put.bytes, put.mode)?;
            }
        }
        let host = Root::host()?;
        let copy = Copy { from: &host, directory: self.job.directory, to: root, how: How::Anew };
        for app in &self.stage.apps {
            let home = siforge_definition::render::app_destination(app, "");
            app.files.iter().try_for_each(|pair| copy.pair(self.job.file, pair, Some(home.trim_end_matches('/'))))?;
        }
        Ok(())
    }

    fn files_of_stages(&self, root: &Root) -> Result<(), Error> {
        for files in &self.stage.files {
            // The parser has seen to it that the stage is there.
            let number = files.from.as_deref().and_then(|name| self.job.definition.stage(name));
            if let Some(from) = number.and_then(|number| self.done.get(number)) {
                let copy = Copy { from: &from.root, directory: Path::new("/"), to: root, how: How::AsIs };
                files.pairs.iter().try_for_each(|pair| copy.pair(self.job.file, pair, None))?;
            }
        }
        Ok(())
    }

    fn files_of_host(&self, root: &Root) -> Result<(), Error> {
        let host = Root::host()?;
        let copy = Copy { from: &host, directory: self.job.directory, to: root, how: How::Anew };
        let files = self.stage.files.iter().filter(|files| files.from.is_none());
        files.flat_map(|files| &files.pairs).try_for_each(|pair| copy.pair(self.job.file, pair, None))
    }

    fn metadata(&self, root: &Root) -> Result<(), Error> {
        let labels = Path::new(script::LABELS);
        let post_labels = root.read(labels, MAX_BASE_FILE)?.unwrap_or_default();
        root.remove(labels)?;
        let facts = metadata::Facts {
            base: &keep(root)?,
            text: &self.job.definition.text,
            architecture: self.job.architecture,
            now: self.job.now,
            force: self.job.force,
            wanted: &|section| self.wants(section),
            post_labels: &metadata::label_lines(&String::from_utf8_lossy(&post_labels)),
        };
        let (put, warnings) = metadata::sections(self.stage, &facts)?;
        warnings.iter().for_each(|warning| (self.job.warn)(warning));
        for file in &put {
            root.write(Path::new(&file.path), &file.bytes, file.mode)?;
        }
        // What the base's own layers do not hold has to lie in the upper one.
        for name in
            ["env/10-docker2singularity.sh", "env/90-environment.sh", "env/94-appsbase.sh", "runscript", "startscript"]
        {
            let path = Path::new(BASE_FOLDER).join(name);
            if let Some(bytes) = root.read(&path, MAX_BASE_FILE)?
                && !put.iter().any(|file| Path::new(&file.path) == path)
            {
                root.write(&path, &bytes, 0o755)?;
            }
        }
        Ok(())
    }
}

/// Where neither base nor definition says what to run.
const NO_RUNSCRIPT: &[u8] = b"#!/bin/sh\necho \"the image has no runscript: use exec or shell\" >&2\nexit 1\n";

/// Gives `to` the mode and owner of `from`.
fn like(from: &Path, to: &Path) -> Result<(), Error> {
    let stat = rustix::fs::stat(from).map_err(Error::at("look at", from))?;
    let owner = (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid));
    match rustix::fs::chown(to, Some(owner.0), Some(owner.1)) {
        // An owner that this user namespace does not have.
        Ok(()) | Err(rustix::io::Errno::INVAL) => {}
        Err(errno) => return Err(Error::at("set the owner of", to)(errno)),
    }
    rustix::fs::chmod(to, rustix::fs::Mode::from_raw_mode(stat.st_mode & 0o7777))
        .map_err(Error::at("set the mode of", to))
}

/// What `.singularity.d` holds.
fn keep(root: &Root) -> Result<Base, Error> {
    let mut base = Base::default();
    let mut bytes = 0;
    for folder in ["", "env", "bootstrap_history"] {
        for name in root.names(&Path::new(BASE_FOLDER).join(folder))? {
            let Some(name) = name.to_str() else { continue };
            let below = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
            let path = Path::new(BASE_FOLDER).join(&below);
            if root.is_dir(&path) {
                continue;
            }
            let Some(text) = root.read(&path, MAX_BASE_FILE)? else { continue };
            bytes += text.len() as u64;
            if bytes > MAX_BASE {
                return Err(Error::TooLarge { path: BASE_FOLDER.into(), limit: MAX_BASE });
            }
            base.files.insert(below, text);
        }
    }
    for app in root.names(Path::new(image_config::APPS_FOLDER))? {
        for file in image_config::APP_FILES {
            let path = Path::new(image_config::APPS_FOLDER).join(&app).join("scif").join(file);
            let Some(text) = root.read(&path, MAX_BASE_FILE)? else { continue };
            bytes += text.len() as u64;
            if bytes > MAX_BASE {
                return Err(Error::TooLarge { path, limit: MAX_BASE });
            }
            base.files.insert(path.to_string_lossy().into_owned(), text);
        }
    }
    Ok(base)
}
