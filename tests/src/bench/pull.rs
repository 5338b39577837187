//! Pull: registry → SIF, with empty caches.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::measure::Measured;
use super::report::{Bar, Report};
use super::{Bench, Who, size};
use crate::Registry;
use crate::binaries::binary;
use crate::run::run;

/// Directory entries and metadata of a file system that holds the same files may differ by so much between two looks.
const SCRATCH_SLACK: u64 = 1 << 20;

/// Measures pulls of an image of the registry by both.
pub fn pull(bench: &Bench, report: &mut Report, registry: &Registry, name: &str) {
    let reference = registry.reference(&format!("{name}:latest"));
    let (peer_dir, peer_dir_here) = bench.peer_dir(name);
    let dir = bench.dir.join(format!("pull-{name}"));
    let apptainer = || {
        fresh(&peer_dir_here);
        let out = format!("{peer_dir}/o.sif");
        let env = [("APPTAINER_CACHEDIR", peer_dir.as_str()), ("APPTAINER_TMPDIR", peer_dir.as_str())];
        bench.measure(Who::PeerRoot, 1, 1, &env, &["apptainer", "-q", "pull", "--no-https", &out, &reference])
    };
    let siforge = || {
        fresh(&dir);
        ours(bench, &dir, &reference)
    };
    let [theirs, ours] =
        <[Measured; 2]>::try_from(bench.best(vec![Box::new(apptainer), Box::new(siforge)])).unwrap_or_default();
    let ratio = size(&dir.join("o.sif")) as f64 / size(&peer_dir_here.join("o.sif")) as f64;
    report.add(&format!("apptainer pull {name}"), &theirs);
    report.add(&format!("siforge pull {name}"), &ours);
    let judged = name == "lolcow";
    report.bar(Bar::at_most(
        &format!("pull {name}, cold: CPU against Apptainer"),
        ours.cpu_ms / theirs.cpu_ms,
        0.1,
        judged,
    ));
    report.bar(Bar::at_most(&format!("pull {name}: peak memory, MB"), ours.peak_kib as f64 * 1.024e-3, 150.0, judged));
    report.bar(Bar::at_most(&format!("{name}: SIF size against Apptainer's gzip"), ratio, 1.03, judged));
    if judged {
        let scratch = scratch(&bench.dir, |dir| {
            self::ours(bench, dir, &reference);
        });
        report.bar(Bar::at_most(
            &format!("pull {name}: scratch on disk besides cache and result, MB"),
            scratch as f64 / 1e6,
            SCRATCH_SLACK as f64 / 1e6,
            true,
        ));
    }
    for dir in [&dir, &peer_dir_here] {
        fs::remove_dir_all(dir).unwrap_or_else(|e| panic!("remove {}: {e}", dir.display()));
    }
}

fn ours(bench: &Bench, dir: &Path, reference: &str) -> Measured {
    let show = |name: &str| dir.join(name).display().to_string();
    let (cache, tmp, out) = (show("cache"), show("tmp"), show("o.sif"));
    fresh(Path::new(&tmp));
    let siforge = binary("siforge").display().to_string();
    let env = [("SIFORGE_CACHEDIR", cache.as_str()), ("TMPDIR", tmp.as_str())];
    bench.measure(Who::Root, 1, 1, &env, &[&siforge, "-q", "pull", "--no-https", &out, reference])
}

/// Bytes that were on disk at some moment of `action` and are not at its end. A file system of its own shows deleted
/// files that are still open, too.
fn scratch(dir: &Path, action: impl FnOnce(&Path)) -> u64 {
    let mount = dir.join("scratch");
    fresh(&mount);
    run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=4g", "tmpfs"]).arg(&mount)).ok();
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
