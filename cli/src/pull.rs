//! `pull` and `build`: an image becomes a SIF file; and the same into the per-user cache for `exec docker://…`.

use crate::cli::{Build, CacheImage, Format, Global, Pull, Push, Registry};
use crate::config::Config;
use crate::error::Error;
use crate::sif_source::{self, Remote};
use crate::source;
use crate::terminal::Display;
use siforge_build::{Codec, Destination, Limits, Progress, Recipe, Reuse, Settings};
use siforge_reference::Reference;
use siforge_store::{Blobs, Store};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) fn pull(global: &Global, config: &Config, options: &Pull) -> Result<(), Error> {
    let (output, source) = match options.arguments.as_slice() {
        [source] => (None, source),
        [output, source] => (Some(PathBuf::from(output)), source),
        // clap has checked the number.
        _ => return Err(Error::PullArguments),
    };
    let reference = source::parse(config, source)?;
    let path = output.or_else(|| options.name.clone()).unwrap_or_else(|| reference.sif_file_name().into());
    let path = match &options.dir {
        Some(dir) => dir.join(path),
        None => path,
    };
    convert(global, config, &options.registry, &options.format, &reference, &path)
}

pub(crate) fn build(global: &Global, config: &Config, options: &Build) -> Result<(), Error> {
    let reference = source::parse(config, &options.source)?;
    convert(global, config, &options.registry, &options.format, &reference, &options.output)
}

/// A SIF stays as it is, with its signatures.
fn keep(remote: Remote<'_>, format: &Format, path: &Path) -> Result<(), Error> {
    let (digest, size) = block_on(remote.pull(path, format.force))?;
    if !remote.global.is_quiet() {
        eprintln!("{}: {size} bytes, {digest}", path.display());
    }
    Ok(())
}

pub(crate) fn push(global: &Global, config: &Config, options: &Push) -> Result<(), Error> {
    let digest = block_on(sif_source::push(global, config, options))?;
    if !global.is_quiet() {
        eprintln!("{}: pushed as {digest}", options.destination);
    }
    Ok(())
}

fn convert(
    global: &Global,
    config: &Config,
    registry: &Registry,
    format: &Format,
    reference: &Reference,
    path: &Path,
) -> Result<(), Error> {
    let recipe = recipe(format)?;
    // Before anything is fetched: a file in the way is the most common mistake.
    if !format.force && path.symlink_metadata().is_ok() {
        return Err(siforge_build::Error::Exists { path: path.to_owned() }.into());
    }
    if sif_source::is_sif(reference) {
        return keep(Remote { global, config, registry, reference }, format, path);
    }
    crate::files::make_private(&config.cache)?;
    let cache = Blobs::at(&config.cache.join("blobs"))?;
    cache.sweep_dead()?;
    let pulled = block_on(async {
        let source = source::open(global, config, registry, reference).await?;
        let progress = Progress::new();
        let display = Display::start(progress.clone(), global.is_quiet());
        let destination = Destination { path, force: format.force, cache: &cache };
        let pulled = siforge_build::pull(&source, &recipe, &settings(config, registry), destination, progress).await;
        drop(display);
        Ok(pulled?)
    })?;
    report(global, &pulled.warnings);
    if !global.is_quiet() {
        eprintln!("{}: {} bytes, image digest {}", path.display(), pulled.size, pulled.digest);
    }
    Ok(())
}

/// Builds the image into the per-user cache unless it is there, and prints the SIF's path.
pub(crate) fn cache_image(global: &Global, config: &Config, options: &CacheImage) -> Result<(), Error> {
    let reference = source::parse(config, &options.source)?;
    let registry = &options.registry;
    crate::files::make_private(&config.cache)?;
    let store = Store::init(&config.cache, None)?;
    store.sweep_dead()?;
    if sif_source::is_sif(&reference) {
        let remote = Remote { global, config, registry, reference: &reference };
        let path = block_on(remote.cached(&store.blobs()?))?;
        println!("{}", path.display());
        return Ok(());
    }
    let built = block_on(async {
        let source = source::open(global, config, registry, &reference).await?;
        let progress = Progress::new();
        let display = Display::start(progress.clone(), global.is_quiet());
        let recipe = Recipe::default();
        let built = siforge_build::build(&store, &source, &recipe, &settings(config, registry), progress).await;
        drop(display);
        Ok(built?)
    })?;
    report(global, &built.warnings);
    println!("{}", built.path.display());
    Ok(())
}

fn report(global: &Global, warnings: &[String]) {
    if !global.is_quiet() {
        for warning in warnings {
            eprintln!("warning: {warning}");
        }
    }
}

fn settings(config: &Config, registry: &Registry) -> Settings {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    Settings {
        parallel_blobs: usize::from(registry.jobs),
        limits: Limits::default(),
        reuse: if registry.disable_cache { Reuse::Never } else { Reuse::Own },
        cache_bytes: Some(config.cache_bytes),
        ..Settings::for_processors(processors)
    }
}

fn recipe(format: &Format) -> Result<Recipe, Error> {
    let block_size = format.block_size.saturating_mul(1024);
    if !block_size.is_power_of_two() || !(64 << 10..=1 << 20).contains(&block_size) {
        return Err(Error::BlockSize { value: format.block_size });
    }
    Ok(Recipe { codec: codec(&format.compression)?, block_size, ..Recipe::default() })
}

fn codec(text: &str) -> Result<Codec, Error> {
    let wrong = || Error::Compression { value: text.to_owned() };
    let (name, level) = match text.split_once(':') {
        Some((name, level)) => (name, Some(level.parse::<i32>().map_err(|_| wrong())?)),
        None => (text, None),
    };
    match (name, level) {
        ("zstd", None) => Ok(Codec::Zstd { level: 3 }),
        ("zstd", Some(level @ 1..=22)) => Ok(Codec::Zstd { level }),
        ("gzip", None) => Ok(Codec::Gzip { level: 9 }),
        ("gzip", Some(level @ 1..=12)) => Ok(Codec::Gzip { level }),
        ("lz4", None) => Ok(Codec::Lz4 { level: 0 }),
        ("lz4", Some(level @ 0..=12)) => Ok(Codec::Lz4 { level }),
        ("xz", None) => Ok(Codec::Xz { level: 6 }),
        ("xz", Some(level @ 0..=9)) => Ok(Codec::Xz { level }),
        ("none", None) => Ok(Codec::None),
        _ => Err(wrong()),
    }
}

/// How long an exit waits for threads that are in their last block or write a blob through to the disk. What a slower
/// disk leaves is swept by the next pull.
const LAST_WRITES: Duration = Duration::from_secs(5);

/// Runs `work` until it ends or the user presses Ctrl-C; either way nothing half-written stays.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|source| Error::Runtime { source })?;
    let result = runtime.block_on(async {
        let interrupted = tokio::signal::ctrl_c();
        let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
            .map_err(|source| Error::Runtime { source })?;
        tokio::select! {
            result = work => result,
            _ = interrupted => Err(Error::Interrupted { signal: "SIGINT" }),
            _ = terminated.recv() => Err(Error::Interrupted { signal: "SIGTERM" }),
        }
    });
    // What writes on a thread of its own removes its unnamed files when it ends.
    runtime.shutdown_timeout(LAST_WRITES);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compression_is_a_codec_and_a_level() {
        let check = |text: &str, expect: Option<Codec>| assert_eq!(codec(text).ok(), expect, "{text}");
        check("zstd", Some(Codec::Zstd { level: 3 }));
        check("zstd:19", Some(Codec::Zstd { level: 19 }));
        check("gzip:6", Some(Codec::Gzip { level: 6 }));
        check("gzip", Some(Codec::Gzip { level: 9 }));
        check("lz4", Some(Codec::Lz4 { level: 0 }));
        check("lz4:12", Some(Codec::Lz4 { level: 12 }));
        check("xz:9", Some(Codec::Xz { level: 9 }));
        check("none", Some(Codec::None));
        for wrong in
            ["", "zstd:0", "zstd:23", "gzip:13", "zstd:x", "lz4:13", "xz:10", "xz:-1", "none:1", "lzo", "zstd:3:4"]
        {
            check(wrong, None);
        }
    }
}
