//! From what a user names to something that can be built.

use crate::cli::{Global, Registry};
use crate::config::Config;
use crate::error::Error;
use crate::sif_source::{self, Remote};
use crate::signed;
use siforge_build::{Limits, Source, source_tree};
use siforge_oci::{Platform, daemon, local};
use siforge_reference::{Context, Reference};
use std::fs::File;
use std::path::Path;

/// An archive in a temporary file: as much as all layers of an image may have.
const UNPACKED_BYTES: u64 = 1 << 40;

pub(crate) fn parse(config: &Config, text: &str) -> Result<Reference, Error> {
    let context = Context { default_namespace: &config.namespace, exists: &|path| path.exists() };
    Ok(Reference::parse(text, &context)?)
}

/// Everything of the image but the bytes of its layers.
pub(crate) async fn open(
    global: &Global,
    config: &Config,
    registry: &Registry,
    reference: &Reference,
) -> Result<Source, Error> {
    let platform = platform(registry)?;
    if let Reference::Docker(image) = reference {
        let keys = signed::keys(&registry.verify_key)?;
        let client = crate::registry::connect(global, config, registry, image).await?;
        let resolved = client.resolve(image, &platform).await?;
        signed::check(global, &keys, &client, image, &resolved.manifests).await?;
        return Ok(Source::registry(client, resolved));
    }
    signed::check_signable(registry, reference)?;
    if sif_source::is_sif(reference) {
        return Remote { global, config, registry, reference }.open().await;
    }
    let (reference, tmpdir) = (reference.clone(), tmpdir(config, registry).to_owned());
    if let Reference::DockerDaemon(name) = &reference {
        let host = config.docker_host.as_deref().unwrap_or(daemon::DEFAULT_HOST);
        let options = local::Options { platform: &platform, tmpdir: &tmpdir, unpacked_bytes: UNPACKED_BYTES };
        let image = daemon::image(name, host, &options).await;
        return Ok(Source::docker_archive(image.map_err(siforge_build::Error::from)?));
    }
    // A compressed archive is unpacked first: not on a thread of the runtime, or Ctrl-C would have to wait.
    let opened = tokio::task::spawn_blocking(move || {
        local_source(
            &reference,
            &local::Options { platform: &platform, tmpdir: &tmpdir, unpacked_bytes: UNPACKED_BYTES },
        )
    });
    opened.await.map_err(|error| Error::Runtime { source: std::io::Error::other(error) })?
}

fn local_source(reference: &Reference, options: &local::Options<'_>) -> Result<Source, Error> {
    let opened = match reference {
        Reference::OciLayout { path, selector } => local::layout(path, selector.as_ref(), options).map(Source::layout),
        Reference::OciArchive { path, selector } => {
            local::layout_archive(path, selector.as_ref(), options).map(Source::layout)
        }
        Reference::DockerArchive { path, selector } => {
            local::docker_archive(path, selector.as_ref(), options).map(Source::docker_archive)
        }
        Reference::Path(path) => return tree(path, options.platform),
        other => return Err(Error::Source { value: other.to_string() }),
    };
    Ok(opened.map_err(siforge_build::Error::from)?)
}

/// A local SIF, or a directory.
fn tree(path: &Path, platform: &Platform) -> Result<Source, Error> {
    let (shown, limits) = (path.display().to_string(), Limits::default());
    if path.is_dir() {
        return Ok(source_tree::directory(&shown, path, platform, &limits)?);
    }
    let file = File::open(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    Ok(source_tree::sif(&shown, file, platform, &limits)?)
}

/// Where temporary files lie.
pub(crate) fn tmpdir<'a>(config: &'a Config, registry: &'a Registry) -> &'a Path {
    registry.tmpdir.as_ref().unwrap_or(&config.tmpdir)
}

/// `--platform`, else `--arch` and `--arch-variant` on Linux, else the host's.
pub(crate) fn platform(registry: &Registry) -> Result<Platform, Error> {
    let variant = registry.arch_variant.as_deref();
    match (&registry.platform, &registry.arch) {
        (Some(text), _) => text.parse().map_err(|_| Error::Platform { value: text.clone() }),
        (None, Some(arch)) => Ok(Platform::new("linux", arch, variant)),
        (None, None) if variant.is_some() => Ok(Platform::new("linux", &Platform::host().architecture, variant)),
        (None, None) => Ok(Platform::host()),
    }
}
