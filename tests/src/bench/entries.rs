//! An image of very many files: memory per entry, and time that grows as the number of entries does.

use std::process::Command;

use super::report::{Bar, Report};
use super::{Bench, Who};
use crate::binaries::binary;
use crate::image::{Compression, Image};
use crate::{Registry, Tar};

const LAYERS: usize = 10;
/// Regular files of one layer, in folders of a thousand.
const FILES: usize = 100_000;
/// MiB that do not depend on the number of entries, and bytes that do.
const MEMORY_MIB: f64 = 192.0;
const MEMORY_PER_ENTRY: f64 = 500.0;

/// Converts an image of half a million files, and one of a million.
pub fn entries(bench: &Bench, report: &mut Report, registry: &Registry) {
    let half = pull(bench, registry, LAYERS / 2);
    let whole = pull(bench, registry, LAYERS);
    report.add("siforge pull 500,000 files", &half);
    report.add("siforge pull 1,000,000 files", &whole);
    let limit = (MEMORY_MIB * 1_048_576.0 + MEMORY_PER_ENTRY * (LAYERS * FILES) as f64) / 1e6;
    report.bar(Bar::at_most("1,000,000 files: peak memory, MB", whole.peak_kib as f64 * 1.024e-3, limit, true));
    let growth = whole.cpu_ms / half.cpu_ms / 2.0;
    report.bar(Bar::at_most("1,000,000 files: CPU for each against 500,000", growth, 1.15, true));
}

fn pull(bench: &Bench, registry: &Registry, layers: usize) -> super::measure::Measured {
    let image = (0..layers).fold(Image::new(), |image, number| image.layer(layer(number), Compression::Gzip));
    let name = format!("files-{layers}:latest");
    registry.push(&name, &image);
    let dir = bench.dir.join("entries");
    let (out, cache) = (dir.join("o.sif").display().to_string(), dir.join("cache").display().to_string());
    std::fs::create_dir_all(&dir).unwrap_or_else(|e| panic!("create {}: {e}", dir.display()));
    let siforge = binary("siforge").display().to_string();
    let reference = registry.reference(&name);
    let words = [siforge.as_str(), "-q", "pull", "--no-https", "--disable-cache", &out, &reference];
    let measured = bench.measure(Who::Root, 1, 1, &[("SIFORGE_CACHEDIR", &cache)], &words);
    crate::run::run(Command::new("rm").arg("-rf").arg(&dir)).ok();
    measured
}

/// Files of a few bytes, all different; each layer replaces some of the one below.
fn layer(number: usize) -> Vec<u8> {
    let mut tar = Tar::new();
    for at in 0..FILES {
        if at % 1000 == 0 {
            tar = tar.dir(&format!("layer{number}/{}", at / 1000), 0o755);
        }
        tar = tar.file(&format!("layer{number}/{}/{at}", at / 1000), 0o644, format!("file {at} of layer {number}\n"));
    }
    tar.finish()
}
