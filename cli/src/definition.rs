//! `build OUTPUT.sif FILE.def`.
//!
//! ```text
//!  this process      bases into the cache (each by a process of its own) ─ waits, kills on Ctrl-C ─ removes the work folder
//!   └ worker         mounts of its own: stages ─ the last one's layer over its base's ─▶ OUTPUT.sif
//! ```

use crate::cli::{Build, Global, Registry, Sections};
use crate::config::Config;
use crate::error::Error;
use crate::{launch, pull, root, source};
use siforge_build::definition::{self, Bootstrap, Job, Lower};
use siforge_build::{Destination, Limits, Source, source_tree};
use siforge_definition::{Arguments, Definition, Keyword, MAX_BYTES};
use siforge_launch::{Bind, Subordinate, UserNamespace};
use siforge_reference::Reference;
use siforge_sif::{Partition, Sif};
use siforge_store::Blobs;
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// A file of arguments is written by hand.
const ARGUMENTS_LIMIT: u64 = 1 << 20;

/// What a stage starts from, at hand.
enum Base {
    /// A SIF; `reference` names the image that siforge made it of, with the manifest's digest. None: a SIF that somebody
    /// brought.
    Sif {
        path: PathBuf,
        file: File,
        reference: Option<Reference>,
    },
    Directory(PathBuf),
    Nothing(Option<Vec<definition::Tool>>),
}

/// Options that mean nothing without a definition file.
pub(crate) fn refuse_sections(options: &Sections) -> Result<(), Error> {
    match *options == Sections::default() {
        true => Ok(()),
        false => Err(Error::OnlyDefinition),
    }
}

/// Returns the exit code.
pub(crate) fn build(global: &Global, config: &Config, options: &Build, path: &Path) -> Result<i32, Error> {
    let (definition, file) = parse(global, options, path)?;
    let recipe = pull::recipe(&options.format)?;
    if !options.format.force && options.output.symlink_metadata().is_ok() {
        return Err(siforge_build::Error::Exists { path: options.output.clone() }.into());
    }
    let registry = &options.registry;
    let platform = source::platform(registry)?;
    let prepared = Prepared {
        global,
        config,
        options,
        file: &file,
        binds: binds(&options.definition)?,
        variables: variables(&options.definition)?,
        architecture: platform.architecture.clone(),
        definition,
    };
    // By processes of their own, which are the user himself.
    let bases = prepared.bases()?;
    let namespace = if nix::unistd::geteuid().is_root() { None } else { Some(become_root(global)?) };
    let tmpdir = source::tmpdir(config, registry);
    let work = tempfile::Builder::new()
        .prefix("siforge-build-")
        .tempdir_in(tmpdir)
        .map_err(|source| Error::Temporary { path: tmpdir.to_owned(), source })?;
    let code = siforge_launch::in_workshop(|| match prepared.work(bases, work.path(), namespace.as_ref(), &recipe) {
        Ok(()) => 0,
        Err(error) => {
            crate::report(&error);
            i32::from(crate::FAILURE)
        }
    })?;
    let path = work.path().to_owned();
    work.close().map_err(|source| Error::Temporary { path, source })?;
    Ok(code)
}

/// An ordinary user builds in a user namespace in which he is root.
fn become_root(global: &Global) -> Result<UserNamespace, Error> {
    let uid = nix::unistd::geteuid();
    let user = nix::unistd::User::from_uid(uid).ok().flatten();
    let subordinate = Subordinate::find(uid.as_raw(), user.as_ref().map(|user| &*user.name));
    let namespace = UserNamespace::create_as_root(subordinate.as_ref().ok())?;
    if !namespace.has_other_ids() {
        let why = subordinate.err().unwrap_or_else(|| "newuidmap or newgidmap failed".into());
        warn(global, &format!("all files will belong to root, as no other ids can be had: {why}"));
    }
    Ok(namespace)
}

/// The definition file, and its name for messages.
fn parse(global: &Global, options: &Build, path: &Path) -> Result<(Definition, String), Error> {
    let file = path.display().to_string();
    let sections = &options.definition;
    let text = match &sections.build_arg_file {
        Some(path) => Some(crate::files::read_limited(path, ARGUMENTS_LIMIT)?),
        None => None,
    };
    let text = text.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let words = sections.build_arg.iter().map(String::as_str);
    let wrong = |problem| Error::BuildArgument { problem };
    let (arguments, mut warnings) = Arguments::read(text.as_deref(), words).map_err(wrong)?;
    let definition = Definition::parse(&file, &crate::files::read_limited(path, MAX_BYTES + 1)?, &arguments)?;
    if !definition.unused_arguments.is_empty() {
        let names = definition.unused_arguments.join(", ");
        match sections.warn_unused_build_args {
            true => warnings.push(format!("not mentioned in {file}: the build arguments {names}")),
            false => return Err(Error::UnusedBuildArguments { file, names }),
        }
    }
    warnings.extend(definition.warnings.iter().cloned());
    warnings.iter().for_each(|warning| warn(global, warning));
    Ok((definition, file))
}

fn warn(global: &Global, warning: &str) {
    if !global.is_quiet() {
        eprintln!("warning: {warning}");
    }
}

fn binds(sections: &Sections) -> Result<Vec<Bind>, Error> {
    let mut binds = Vec::new();
    for text in &sections.bind {
        binds.extend(Bind::parse_list(text)?);
    }
    Ok(binds)
}

fn variables(sections: &Sections) -> Result<Vec<(OsString, OsString)>, Error> {
    let mut variables = Vec::new();
    for text in &sections.env {
        variables.extend(launch::pairs(text)?);
    }
    Ok(variables)
}

struct Prepared<'a> {
    global: &'a Global,
    config: &'a Config,
    options: &'a Build,
    file: &'a str,
    binds: Vec<Bind>,
    variables: Vec<(OsString, OsString)>,
    architecture: String,
    definition: Definition,
}

impl Prepared<'_> {
    fn registry(&self) -> &Registry {
        &self.options.registry
    }

    /// Fetches what the stages start from.
    fn bases(&self) -> Result<Vec<Base>, Error> {
        self.definition.stages.iter().map(|stage| self.base(stage)).collect()
    }

    fn base(&self, stage: &siforge_definition::Stage) -> Result<Base, Error> {
        let asked = Bootstrap::of(self.file, &stage.header, &self.architecture).map_err(siforge_build::Error::from)?;
        let signers = stage.header.field(Keyword::Fingerprints);
        if let (Some(field), false) = (signers, matches!(&asked, Bootstrap::Local(path) if !Path::new(path).is_dir())) {
            return Err(Error::Fingerprints { file: self.file.to_owned(), line: field.line });
        }
        match asked {
            Bootstrap::Scratch => Ok(Base::Nothing(None)),
            Bootstrap::Tools(tools) => Ok(Base::Nothing(Some(tools))),
            Bootstrap::Local(path) if Path::new(&path).is_dir() => Ok(Base::Directory(path.into())),
            Bootstrap::Local(path) => {
                let path = PathBuf::from(path);
                let file = File::open(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
                if let Some(field) = signers {
                    crate::verify::require_signers(self.config, &path, &file, &field.value)?;
                }
                Ok(Base::Sif { path, file, reference: None })
            }
            Bootstrap::Image(image) => {
                let reference = source::parse(self.config, &image)?;
                let (path, file) = root::cached(self.global, self.config, self.registry(), image.as_ref())?;
                let made_of =
                    (!crate::sif_source::is_sif(&reference)).then(|| pinned(reference, &path, &file)).transpose()?;
                Ok(Base::Sif { path, file, reference: made_of })
            }
        }
    }

    /// In the worker: all stages, then the image.
    fn work(
        &self,
        bases: Vec<Base>,
        work: &Path,
        namespace: Option<&UserNamespace>,
        recipe: &siforge_build::Recipe,
    ) -> Result<(), Error> {
        let (last, lowers) = self.lowers(bases, namespace)?;
        let directory = std::env::current_dir().map_err(|source| Error::Read { path: ".".into(), source })?;
        let quiet = self.global.is_quiet();
        let say = |what: &str| {
            if !quiet {
                eprintln!("siforge: {what}");
            }
        };
        let job = Job {
            definition: &self.definition,
            file: self.file,
            work,
            directory: &directory,
            environment: &self.config.environment,
            architecture: &self.architecture,
            now: self.config.source_date_epoch.unwrap_or_else(now),
            binds: &self.binds,
            variables: &self.variables,
            sections: &self.options.definition.section,
            no_test: self.options.definition.notest,
            root_alone: namespace.is_some_and(|namespace| !namespace.has_other_ids()),
            force: self.options.format.force,
            say: &say,
            warn: &|what| warn(self.global, what),
        };
        let made = definition::make(&job, lowers).map_err(siforge_build::Error::from)?;
        self.write(&made, last, recipe)
    }

    /// Mounts the bases; and the last of them once more, as the source of its layers.
    fn lowers(&self, bases: Vec<Base>, namespace: Option<&UserNamespace>) -> Result<(Option<Base>, Vec<Lower>), Error> {
        let mut lowers = Vec::new();
        let mut last = None;
        for base in bases {
            let lower = match &base {
                Base::Nothing(tools) => Lower::Nothing(tools.clone()),
                Base::Directory(path) => Lower::Directory { path: path.clone(), foreign: true },
                Base::Sif { path, file, reference } => {
                    let failed = |source| Error::Sif { path: path.clone(), source };
                    let copy = file.try_clone().map_err(|source| Error::Read { path: path.clone(), source })?;
                    let partition = Sif::open(copy).and_then(|sif| sif.primary_partition()).map_err(failed)?;
                    self.lower(namespace, path, file, &partition, reference.is_none())?
                }
            };
            lowers.push(lower);
            last = Some(base);
        }
        Ok((last, lowers))
    }

    /// Root mounts the image, anybody else serves it over FUSE, or unpacks it where he may not.
    fn lower(
        &self,
        namespace: Option<&UserNamespace>,
        path: &Path,
        file: &File,
        partition: &Partition,
        foreign: bool,
    ) -> Result<Lower, Error> {
        let Some(namespace) = namespace else {
            let mount = siforge_launch::mount_squashfs(file.as_fd(), path, partition.offset, partition.size)?;
            return Ok(Lower::Mount { mount, foreign });
        };
        match crate::fuse::mount_for_root(namespace, path, file, partition) {
            Ok(mount) => Ok(Lower::Mount { mount, foreign }),
            Err(reason) => {
                root::note(self.global, format_args!("{}: not over FUSE: {reason}", path.display()));
                let copy = file.try_clone().map_err(|source| Error::Read { path: path.to_owned(), source })?;
                let note = |reason: std::fmt::Arguments<'_>| root::note(self.global, reason);
                let path = crate::unpacked::open(&self.config.cache, path, copy, partition, note)?;
                Ok(Lower::Directory { path, foreign })
            }
        }
    }

    fn write(&self, made: &definition::Made, base: Option<Base>, recipe: &siforge_build::Recipe) -> Result<(), Error> {
        let Self { global, config, options, .. } = self;
        let registry = self.registry();
        crate::files::make_private(&config.cache)?;
        let cache = Blobs::at(&config.cache.join("blobs"))?;
        let pulled = pull::block_on(async {
            let base = self.source(base).await?;
            let source = made.over(self.file, base, &Limits::default())?;
            let destination = Destination { path: &options.output, force: options.format.force, cache: &cache };
            pull::write(global, config, registry, &source, recipe, destination).await
        })?;
        if !global.is_quiet() {
            eprintln!("{}: {} bytes, image digest {}", options.output.display(), pulled.size, pulled.digest);
        }
        Ok(())
    }

    /// The layers below the definition's own.
    async fn source(&self, base: Option<Base>) -> Result<Source, Error> {
        let platform = source::platform(self.registry())?;
        let limits = Limits::default();
        match base {
            None | Some(Base::Nothing(_)) => Ok(Source::nothing(platform)),
            Some(Base::Directory(path)) => {
                Ok(source_tree::directory(&path.display().to_string(), &path, &platform, &limits)?)
            }
            Some(Base::Sif { path, file, reference: None }) => {
                Ok(source_tree::sif(&path.display().to_string(), file, &platform, &limits)?)
            }
            Some(Base::Sif { path, file, reference: Some(reference) }) => {
                let source = source::open(self.global, self.config, self.registry(), &reference).await?;
                let made_of = manifest(&path, &file)?;
                match source.image().manifest_digest == made_of {
                    true => Ok(source),
                    false => Err(Error::BaseChanged { image: reference.to_string() }),
                }
            }
        }
    }
}

/// The reference with the digest of the manifest that its SIF was made of, so that it means the same later.
fn pinned(reference: Reference, path: &Path, file: &File) -> Result<Reference, Error> {
    let digest = manifest(path, file)?;
    Ok(match reference {
        Reference::Docker(mut image) => {
            image.digest = Some(digest);
            Reference::Docker(image)
        }
        other => other,
    })
}

/// What the SIF in the cache says that it was made of.
fn manifest(path: &Path, file: &File) -> Result<siforge_reference::Digest, Error> {
    let copy = file.try_clone().map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let sif = Sif::open(copy).map_err(|source| Error::Sif { path: path.to_owned(), source })?;
    siforge_build::manifest_of(&sif).ok_or_else(|| Error::NoProvenance { path: path.to_owned() })
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.ok().and_then(|since| since.as_secs().try_into().ok()).unwrap_or_default()
}
