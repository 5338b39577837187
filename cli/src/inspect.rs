//! `inspect` and `run-help`: what an image says of itself. Nothing is mounted; of an image in a registry no layer is fetched.
//!
//! | image | where it is from |
//! |---|---|
//! | SIF | its object inspect-metadata.json; without one its files, by the squashfs reader |
//! | directory | its files |
//! | docker://, archives, … | manifest and config: what a build would write |

use crate::cli::{Global, Inspect, RunHelp};
use crate::config::Config;
use crate::error::Error;
use crate::{partition, pull, root, sif_source, source};
use siforge_reference::Reference;
use siforge_sif::inspect::{self, Files, MAX_BYTES, Metadata, Wanted};
use siforge_sif::observe::{self, Tree};
use siforge_sif::{DataType, Sif, show};
use siforge_squashfs::read::{Body, Inode, Reader};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

pub(crate) fn inspect(global: &Global, config: &Config, options: &Inspect) -> Result<(), Error> {
    if options.list_objects {
        let path = Path::new(&options.image);
        print!("{}", show::list(open(path)?.descriptors()));
        return Ok(());
    }
    let metadata = metadata(global, config, options)?;
    let wanted = Wanted {
        labels: options.labels,
        deffile: options.deffile,
        runscript: options.runscript,
        startscript: options.startscript,
        test: options.test,
        environment: options.environment,
        helpfile: options.helpfile,
        list_apps: options.list_apps,
        all: options.all,
        app: options.app.clone(),
    };
    if let Some(app) = wanted.app.as_ref().filter(|app| !wanted.all && !metadata.apps.contains_key(*app)) {
        return Err(no_app(&options.image, app, &metadata));
    }
    let selected = metadata.select(&wanted);
    if options.json || options.all {
        let json = selected.json().map_err(|source| Error::Metadata { path: options.image.clone().into(), source })?;
        let mut out = io::stdout().lock();
        // A closed standard output is no reason to fail.
        let _ = out.write_all(&json).and_then(|()| out.write_all(b"\n"));
        return Ok(());
    }
    print!("{}", selected.text(&wanted));
    Ok(())
}

pub(crate) fn run_help(global: &Global, config: &Config, options: &RunHelp) -> Result<(), Error> {
    let asked = Inspect {
        helpfile: true,
        app: options.app.clone(),
        image: options.image.clone(),
        registry: options.registry.clone(),
        ..Inspect::default()
    };
    let metadata = metadata(global, config, &asked)?;
    let help = match &options.app {
        None => Some(&metadata.helpfile),
        Some(app) => metadata.apps.get(app).map(|app| &app.helpfile),
    };
    match (help, &options.app) {
        (None, Some(app)) => return Err(no_app(&options.image, app, &metadata)),
        (Some(help), _) if !help.is_empty() => println!("{help}"),
        _ => println!("No help sections were defined for this image"),
    }
    Ok(())
}

fn no_app(image: &OsStr, app: &str, metadata: &Metadata) -> Error {
    let there: Vec<_> = metadata.apps.keys().cloned().collect();
    Error::NoApp { image: image.to_owned(), app: app.to_owned(), there: there.join(", ") }
}

fn metadata(global: &Global, config: &Config, options: &Inspect) -> Result<Metadata, Error> {
    let reference = root::parse(config, &options.image)?;
    match &reference {
        Reference::Path(path) if path.is_dir() => {
            let failed = |source| Error::Read { path: path.clone(), source };
            let tree = File::open(path).map_err(failed)?;
            Ok(Metadata::gather(&Tree(tree.as_fd()))?)
        }
        Reference::Path(path) => of_sif(path, open(path)?),
        _ if sif_source::is_sif(&reference) => {
            let (path, file) = root::cached(global, config, &options.registry, &options.image)?;
            of_sif(&path, Sif::open(file).map_err(|source| Error::Sif { path: path.clone(), source })?)
        }
        Reference::Store(store) => {
            let Some(place) = &config.store else {
                return Err(Error::InspectStore { value: store.to_string() });
            };
            let (path, file) = root::store_artifact(place, store)?;
            of_sif(&path, Sif::open(file).map_err(|source| Error::Sif { path: path.clone(), source })?)
        }
        _ => {
            let source = pull::block_on(source::open(global, config, &options.registry, &reference))?;
            let json = siforge_build::inspect_json(source.image())?;
            parse(Path::new(&options.image), &json)
        }
    }
}

fn open(path: &Path) -> Result<Sif, Error> {
    let file = File::open(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    Sif::open(file).map_err(|source| Error::Sif { path: path.to_owned(), source })
}

fn parse(path: &Path, json: &[u8]) -> Result<Metadata, Error> {
    Metadata::parse(json).map_err(|source| Error::Metadata { path: path.to_owned(), source })
}

fn of_sif(path: &Path, sif: Sif) -> Result<Metadata, Error> {
    if let Some(descriptor) = sif.find(DataType::GenericJson, inspect::OBJECT_NAME) {
        let json = sif.object(descriptor, MAX_BYTES);
        return parse(path, &json.map_err(|source| Error::Sif { path: path.to_owned(), source })?);
    }
    let partition = partition::runnable(&sif, path)?;
    let failed = |source| Error::Squashfs { path: path.to_owned(), source };
    let reader = Reader::open(Arc::new(sif.into_file()), partition.offset, partition.size).map_err(failed)?;
    Metadata::gather(&Squashfs(&reader)).map_err(failed)
}

/// The files of a partition. Symlinks are followed nowhere: what the reference and siforge write in `/.singularity.d` has none.
struct Squashfs<'a>(&'a Reader);

impl Squashfs<'_> {
    fn find(&self, path: &str) -> Result<Option<Inode>, siforge_squashfs::read::Error> {
        let mut inode = self.0.root()?;
        for name in path.split('/') {
            if !matches!(inode.body, Body::Directory(_)) {
                return Ok(None);
            }
            let Some(entry) = self.0.lookup(&inode, name.as_bytes())? else {
                return Ok(None);
            };
            inode = self.0.entry_inode(&entry)?;
        }
        Ok(Some(inode))
    }
}

impl Files for Squashfs<'_> {
    type Error = siforge_squashfs::read::Error;

    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, Self::Error> {
        match self.find(path)? {
            Some(inode) => match &inode.body {
                Body::File(file) if file.size <= MAX_BYTES => {
                    let mut bytes = Vec::new();
                    self.0.read_file(&inode, &mut bytes)?;
                    Ok(Some(bytes))
                }
                _ => Ok(None),
            },
            None => Ok(None),
        }
    }

    fn names(&self, path: &str) -> Result<Vec<String>, Self::Error> {
        match self.find(path)? {
            Some(inode) if matches!(inode.body, Body::Directory(_)) => {
                let entries = self.0.read_dir(&inode)?.take(observe::NAMES_LIMIT);
                entries.map(|entry| Ok(String::from_utf8_lossy(&entry?.name).into_owned())).collect()
            }
            _ => Ok(Vec::new()),
        }
    }
}
