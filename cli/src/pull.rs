//! `pull`, and `build` of anything but a definition file: an image becomes a SIF file; and the same into the per-user cache for `exec docker://…`.

use crate::cli::{CacheImage, Format, Global, Pull, Push, Registry};
use crate::config::Config;
use crate::error::Error;
use crate::sif_source::{self, Remote};
use crate::terminal::Display;
use crate::turn::Turn;
use crate::{mksquashfs, source, verified};
use siforge_build::{Codec, Destination, Limits, Progress, Pulled, Recipe, Reuse, Settings, Source};
use siforge_reference::Reference;
use siforge_store::{Blobs, Store};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
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

pub(crate) fn convert(
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
    let remote = Remote { global, config, registry, reference };
    remote.check()?;
    if sif_source::is_sif(reference) {
        return keep(remote, format, path);
    }
    crate::files::make_private(&config.cache)?;
    let cache = Blobs::at(&config.cache.join("blobs"))?;
    cache.sweep_dead()?;
    let pulled = block_on(async {
        let source = source::open(global, config, registry, reference).await?;
        let _turn = match registry.disable_cache {
            true => Turn::free(),
            false => Turn::wait(global, &config.cache, &source.key(&recipe)).await,
        };
        let destination = Destination { path, force: format.force, cache: &cache };
        write(global, config, registry, &source, &recipe, destination).await
    })?;
    if !global.is_quiet() {
        eprintln!("{}: {} bytes, image digest {}", path.display(), pulled.size, pulled.digest);
    }
    Ok(())
}

/// Builds the image into the per-user cache unless it is there, and prints the SIF's path. With `--disable-cache` the SIF
/// itself goes to standard output, which is a file then.
pub(crate) fn cache_image(global: &Global, config: &Config, options: &CacheImage) -> Result<(), Error> {
    let reference = source::parse(config, &options.source)?;
    let remote = Remote { global, config, registry: &options.registry, reference: &reference };
    remote.check()?;
    if options.registry.disable_cache {
        return to_standard_output(remote);
    }
    crate::files::make_private(&config.cache)?;
    let store = Store::init(&config.cache, None)?;
    store.sweep_dead()?;
    let path = match sif_source::is_sif(&reference) {
        true => block_on(remote.cached(&store))?,
        false => block_on(built(remote, &store))?,
    };
    println!("{}", path.display());
    Ok(())
}

/// The image's SIF in the cache.
async fn built(remote: Remote<'_>, store: &Store) -> Result<PathBuf, Error> {
    let Remote { global, config, registry, reference } = remote;
    let source = source::open(global, config, registry, reference).await?;
    let recipe = Recipe::default();
    let _turn = Turn::wait(global, &config.cache, &source.key(&recipe)).await;
    loop {
        let progress = Progress::new();
        let display = Display::start(progress.clone(), global.is_quiet());
        let built = siforge_build::build(store, &source, &recipe, &settings(config, registry), progress).await;
        drop(display);
        let built = built?;
        report(global, &built.warnings);
        if !built.reused {
            verified::note(store, &built.digest);
            return Ok(built.path);
        }
        let (there, digest) = (store.clone(), built.digest);
        if sif_source::blocking(move || verified::is_sound(&there, &digest)).await? {
            return Ok(built.path);
        }
        // It was damaged and is gone: the record of it does not count any more.
    }
}

fn to_standard_output(remote: Remote<'_>) -> Result<(), Error> {
    let failed = |source| Error::Read { path: "/dev/stdout".into(), source };
    let out = File::from(io::stdout().as_fd().try_clone_to_owned().map_err(failed)?);
    let Remote { global, config, registry, reference } = remote;
    if sif_source::is_sif(reference) {
        block_on(remote.download(&out))?;
        return Ok(());
    }
    let tmpdir = source::tmpdir(config, registry);
    // Blobs that are on their way lie there, too.
    let dir = tempfile::tempdir_in(tmpdir).map_err(|source| Error::Temporary { path: tmpdir.to_owned(), source })?;
    let (path, cache) = (dir.path().join("sif"), Blobs::at(&dir.path().join("blobs"))?);
    block_on(async {
        let source = source::open(global, config, registry, reference).await?;
        write(
            global,
            config,
            registry,
            &source,
            &Recipe::default(),
            Destination { path: &path, force: false, cache: &cache },
        )
        .await
    })?;
    let read = |source| Error::Read { path: path.clone(), source };
    io::copy(&mut File::open(&path).map_err(read)?, &mut &out).map_err(failed)?;
    Ok(())
}

pub(crate) async fn write(
    global: &Global,
    config: &Config,
    registry: &Registry,
    source: &Source,
    recipe: &Recipe,
    destination: Destination<'_>,
) -> Result<Pulled, Error> {
    let progress = Progress::new();
    let display = Display::start(progress.clone(), global.is_quiet());
    let pulled = siforge_build::pull(source, recipe, &settings(config, registry), destination, progress).await;
    drop(display);
    let pulled = pulled?;
    report(global, &pulled.warnings);
    Ok(pulled)
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

pub(crate) fn recipe(format: &Format) -> Result<Recipe, Error> {
    if let Some(text) = &format.mksquashfs_args {
        return mksquashfs::recipe(text).map_err(|why| Error::MksquashfsArguments { value: text.clone(), why });
    }
    let block_size = format.block_size.saturating_mul(1024);
    if !block_size.is_power_of_two() || !(64 << 10..=1 << 20).contains(&block_size) {
        return Err(Error::BlockSize { value: format.block_size });
    }
    Ok(Recipe { codec: codec(&format.compression)?, block_size, ..Recipe::default() })
}

fn codec(text: &str) -> Result<Codec, Error> {
    codec_of(text).ok_or_else(|| Error::Compression { value: text.to_owned() })
}

pub(crate) fn codec_of(text: &str) -> Option<Codec> {
    let (name, level) = match text.split_once(':') {
        Some((name, level)) => (name, Some(level.parse::<i32>().ok()?)),
        None => (text, None),
    };
    match (name, level) {
        ("zstd", None) => Some(Codec::Zstd { level: 3 }),
        ("zstd", Some(level @ 1..=22)) => Some(Codec::Zstd { level }),
        ("gzip", None) => Some(Codec::Gzip { level: 9 }),
        ("gzip", Some(level @ 1..=12)) => Some(Codec::Gzip { level }),
        ("lz4", None) => Some(Codec::Lz4 { level: 0 }),
        ("lz4", Some(level @ 0..=12)) => Some(Codec::Lz4 { level }),
        ("xz", None) => Some(Codec::Xz { level: 6 }),
        ("xz", Some(level @ 0..=9)) => Some(Codec::Xz { level }),
        ("none", None) => Some(Codec::None),
        _ => None,
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
