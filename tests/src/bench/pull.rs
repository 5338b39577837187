//! Pull: registry → SIF, with empty caches, against Apptainer, against the floor, and again with the caches full.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::measure::Measured;
use super::report::{Bar, Report};
use super::{Bench, Who, floor, size};
use crate::Registry;
use crate::binaries::binary;
use crate::run::run;

/// Directory entries and metadata of a file system that holds the same files may differ by so much between two looks.
const SCRATCH_SLACK: u64 = 1 << 20;

/// One image of the registry and what is expected of its conversion.
pub struct Image<'a> {
    pub name: &'a str,
    /// Where it was pushed from, for the floor; none for what is too small to be judged.
    pub layout: Option<&'a Path>,
    /// CPU against Apptainer's, at most.
    pub cpu: f64,
    /// MB.
    pub memory: f64,
}

/// Our pulls with one cache, in a folder of their own.
struct Ours<'a> {
    bench: &'a Bench,
    dir: PathBuf,
}

impl<'a> Ours<'a> {
    fn new(bench: &'a Bench, dir: PathBuf) -> Self {
        fresh(&dir);
        Self { bench, dir }
    }

    fn sif(&self) -> PathBuf {
        self.dir.join("o.sif")
    }

    /// Pulls; what was cached is used.
    fn pull(&self, reference: &str, options: &[&str]) -> Measured {
        let show = |name: &str| self.dir.join(name).display().to_string();
        let (cache, tmp, out) = (show("cache"), show("tmp"), show("o.sif"));
        fresh(Path::new(&tmp));
        let siforge = binary("siforge").display().to_string();
        let env = [("SIFORGE_CACHEDIR", cache.as_str()), ("TMPDIR", tmp.as_str())];
        let words = [&[siforge.as_str(), "-q", "pull", "--force", "--no-https"], options, &[out.as_str(), reference]];
        self.bench.measure(Who::Root, 1, 1, &env, &words.concat())
    }

    fn cold(&self, reference: &str, options: &[&str]) -> Measured {
        fresh(&self.dir);
        self.pull(reference, options)
    }
}

impl Drop for Ours<'_> {
    fn drop(&mut self) {
        remove(&self.dir);
    }
}

/// Measures pulls of an image of the registry by both.
pub fn pull(bench: &Bench, report: &mut Report, registry: &Registry, image: &Image<'_>) {
    let name = image.name;
    let reference = registry.reference(&format!("{name}:latest"));
    let (peer_dir, peer_dir_here) = bench.peer_dir(name);
    let ours = Ours::new(bench, bench.dir.join(format!("pull-{name}")));
    let apptainer = || {
        fresh(&peer_dir_here);
        let out = format!("{peer_dir}/o.sif");
        let env = [("APPTAINER_CACHEDIR", peer_dir.as_str()), ("APPTAINER_TMPDIR", peer_dir.as_str())];
        bench.measure(Who::PeerRoot, 1, 1, &env, &["apptainer", "-q", "pull", "--no-https", &out, &reference])
    };
    let siforge = || ours.cold(&reference, &[]);
    let [theirs, cold] =
        <[Measured; 2]>::try_from(bench.best(vec![Box::new(apptainer), Box::new(siforge)])).unwrap_or_default();
    let peers_size = size(&peer_dir_here.join("o.sif")) as f64;
    remove(&peer_dir_here);
    report.add(&format!("apptainer pull {name}"), &theirs);
    report.add(&format!("siforge pull {name}"), &cold);
    let judged = image.layout.is_some();
    let at_most = |what: &str, value, limit| Bar::at_most(&format!("{name}: {what}"), value, limit, judged);
    report.bar(at_most("pull, cold: CPU against Apptainer", cold.cpu_ms / theirs.cpu_ms, image.cpu));
    report.bar(at_most("pull, cold: peak memory, MB", cold.peak_kib as f64 * 1.024e-3, image.memory));
    report.bar(at_most("SIF size against mksquashfs gzip-9", size(&ours.sif()) as f64 / peers_size, 1.02));
    let Some(layout) = image.layout else {
        return;
    };
    report.bar(Bar::at_least(
        &format!("{name}: processors busy in a cold pull"),
        cold.cpu_ms / cold.wall_ms,
        1.7,
        true,
    ));
    let floor = floor::floor(bench, layout);
    report.add(&format!("floor of {name}"), &floor);
    report.bar(at_most("pull, cold: CPU against the floor", cold.cpu_ms / floor.cpu_ms, 1.2));
    ours.cold(&reference, &["--compression", "zstd:9"]);
    report.bar(at_most("SIF size with zstd:9 against mksquashfs gzip-9", size(&ours.sif()) as f64 / peers_size, 0.97));
    let scratch = scratch(&bench.dir, |dir| {
        let ours = Ours::new(bench, dir.join("pull"));
        ours.pull(&reference, &[]);
        // What it leaves is no scratch.
        std::mem::forget(ours);
    });
    report.bar(at_most(
        "scratch on disk besides cache and result, MB",
        scratch as f64 / 1e6,
        SCRATCH_SLACK as f64 / 1e6,
    ));
}

/// A changed top layer, and a second image on the same base. Tags of python as make-python.sh makes them.
pub fn again(bench: &Bench, report: &mut Report, registry: &Registry) {
    let reference = |name: &str| registry.reference(name);
    let rounds = |measure: &dyn Fn() -> Measured| bench.best(vec![Box::new(measure)]).pop().unwrap_or_default();
    let ours = Ours::new(bench, bench.dir.join("again"));
    let first = rounds(&|| ours.cold(&reference("python:latest"), &[]));
    let changed = rounds(&|| {
        ours.cold(&reference("python:latest"), &[]);
        ours.pull(&reference("python:changed"), &[])
    });
    report.add("siforge pull python with a changed top layer", &changed);
    let ratio = changed.cpu_ms / first.cpu_ms;
    report.bar(Bar::at_most("python, top layer changed: CPU against the first build", ratio, 0.1, true));
    let alone = rounds(&|| ours.cold(&reference("python:new"), &[]));
    report.add("siforge pull the layers that python does not share with lolcow", &alone);
    let second = rounds(&|| {
        ours.cold(&reference("lolcow:latest"), &[]);
        ours.pull(&reference("python:latest"), &[])
    });
    report.add("siforge pull python after lolcow", &second);
    let ratio = second.cpu_ms / alone.cpu_ms;
    report.bar(Bar::at_most("python after lolcow: CPU against its own layers alone", ratio, 1.1, true));
}

/// Bytes that were on disk at some moment of `action` and are not at its end. A file system of its own shows deleted
/// files that are still open, too.
fn scratch(dir: &Path, action: impl FnOnce(&Path)) -> u64 {
    let mount = dir.join("scratch");
    fresh(&mount);
    run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=8g", "tmpfs"]).arg(&mount)).ok();
    let done = AtomicBool::new(false);
    let peak = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut peak = 0;
            while !done.load(Ordering::Relaxed) {
                peak = peak.max(used(&mount));
                std::thread::sleep(Duration::from_millis(2));
            }
            peak
        });
        action(&mount);
        done.store(true, Ordering::Relaxed);
        watcher.join().unwrap_or(u64::MAX)
    });
    let left = used(&mount);
    run(Command::new("umount").arg(&mount)).ok();
    peak.saturating_sub(left)
}

fn used(mount: &Path) -> u64 {
    let stat = rustix::fs::statvfs(mount).unwrap_or_else(|e| panic!("statvfs {}: {e}", mount.display()));
    (stat.f_blocks - stat.f_bfree) * stat.f_frsize
}

/// An empty folder in place of what was there.
fn fresh(dir: &Path) {
    let _absent = fs::remove_dir_all(dir);
    fs::create_dir_all(dir).unwrap_or_else(|e| panic!("create {}: {e}", dir.display()));
}

fn remove(dir: &Path) {
    fs::remove_dir_all(dir).unwrap_or_else(|e| panic!("remove {}: {e}", dir.display()));
}
