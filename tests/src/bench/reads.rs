//! Reading the result: `import numpy, scipy, pandas` from our partition and from mksquashfs's of the same tree, mounted by
//! the kernel, in turn.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use super::Bench;
use super::report::{Bar, Report};
use crate::binaries::binary;
use crate::run::run;
use crate::{Registry, need};

const RUNS: usize = 21;
const IMPORT: &str = "import numpy, scipy, scipy.linalg, pandas";

/// A mounted squashfs, until it is dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(file: &Path, offset: u64, at: &Path) -> Self {
        fs::create_dir_all(at).unwrap_or_else(|e| panic!("create {}: {e}", at.display()));
        let options = format!("ro,loop,offset={offset}");
        run(Command::new("mount").args(["-t", "squashfs", "-o", &options]).arg(file).arg(at)).ok();
        Self(at.to_owned())
    }

    /// Milliseconds of one import.
    fn import(&self) -> f64 {
        let mut command = Command::new("chroot");
        command.arg(&self.0).args(["/usr/bin/env", "-i", "PATH=/usr/bin:/bin", "OPENBLAS_NUM_THREADS=1"]);
        command.args(["python3", "-B", "-c", IMPORT]).stdin(Stdio::null());
        let begun = Instant::now();
        let status = command.status().unwrap_or_else(|e| panic!("start chroot: {e}"));
        assert!(status.success(), "python in {}: {status}", self.0.display());
        begun.elapsed().as_secs_f64() * 1e3
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run(Command::new("umount").arg(&self.0)).ok();
    }
}

/// Measures imports with full and with empty page caches.
pub fn reads(bench: &Bench, report: &mut Report, registry: &Registry) {
    let dir = bench.dir.join("reads");
    fs::create_dir_all(&dir).unwrap_or_else(|e| panic!("create {}: {e}", dir.display()));
    let sif = dir.join("python.sif");
    let mut pull = Command::new(binary("siforge"));
    pull.args(["-q", "pull", "--no-https"]).arg(&sif).arg(registry.reference("python:latest"));
    run(pull.env("SIFORGE_CACHEDIR", dir.join("cache"))).ok();
    let ours = Mounted::new(&sif, partition_offset(&sif), &dir.join("ours"));
    let peer = dir.join("peer.squashfs");
    let mut pack = Command::new(need::program("mksquashfs"));
    pack.arg(&ours.0).arg(&peer).args(["-comp", "zstd", "-Xcompression-level", "3", "-b", "128K"]);
    run(pack.args(["-quiet", "-no-progress"])).ok();
    let theirs = Mounted::new(&peer, 0, &dir.join("theirs"));
    for (state, cold) in [("warm", false), ("cold", true)] {
        let (mut our_times, mut their_times) = (Vec::new(), Vec::new());
        for _ in 0..RUNS {
            for (mounted, times) in [(&ours, &mut our_times), (&theirs, &mut their_times)] {
                if cold {
                    drop_caches();
                }
                times.push(mounted.import());
            }
        }
        let ratio = median(&mut our_times) / median(&mut their_times);
        let what = format!("python, {state}: import numpy, scipy, pandas against mksquashfs zstd-3 128 KiB");
        report.bar(Bar::at_most(&what, ratio, 1.05, true));
    }
    drop((ours, theirs));
    fs::remove_dir_all(&dir).unwrap_or_else(|e| panic!("remove {}: {e}", dir.display()));
}

/// The first page that begins as a squashfs does.
pub(super) fn partition_offset(sif: &Path) -> u64 {
    let bytes = fs::read(sif).unwrap_or_else(|e| panic!("read {}: {e}", sif.display()));
    let page = bytes.chunks(4096).position(|page| page.starts_with(b"hsqs"));
    page.unwrap_or_else(|| panic!("no squashfs in {}", sif.display())) as u64 * 4096
}

pub(super) fn drop_caches() {
    run(&mut Command::new("sync")).ok();
    fs::write("/proc/sys/vm/drop_caches", "3").unwrap_or_else(|e| panic!("drop the page cache: {e}"));
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
