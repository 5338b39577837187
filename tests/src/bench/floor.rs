//! The floor: what a conversion costs at the least, by the fastest tool for each step.
//!
//! ```text
//!   igzip -d            of each layer blob              SHA-256 (openssl)  of each blob
//!   tar2sqfs zstd-3     of one tar of the merged tree   SHA-256            of each layer's tar
//!                                                       SHA-256            of the squashfs
//! ```
//! No network, no unpacking, no merging: a program that does those too can only come near.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::measure::Measured;
use super::{Bench, Who};
use crate::need;
use crate::run::{run, run_within};
use std::time::Duration;

/// Unpacking a large image.
const UNPACK: Duration = Duration::from_secs(1200);

/// Measures the steps for the image `image` of an OCI layout and sums them up; the peak is the largest step's.
pub fn floor(bench: &Bench, layout: &Path) -> Measured {
    let dir = bench.dir.join("floor");
    fs::create_dir_all(&dir).unwrap_or_else(|e| panic!("create {}: {e}", dir.display()));
    let blobs = layers(layout);
    let tars: Vec<PathBuf> = (0..blobs.len()).map(|number| dir.join(format!("{number}.tar"))).collect();
    for (blob, tar) in blobs.iter().zip(&tars) {
        shell(&format!("{} -d -c {} > {}", need::program("igzip").display(), blob.display(), tar.display()));
    }
    let merged = merged(layout, &dir);
    let squashfs = dir.join("floor.squashfs");
    let steps = || {
        let step = |text: String| bench.measure(Who::Root, 1, 1, &[], &["sh", "-c", &text]);
        vec![
            step(format!("for blob in {}; do igzip -d -c $blob > /dev/null; done", list(&blobs))),
            step(format!("openssl dgst -sha256 {}", list(&blobs))),
            step(format!("openssl dgst -sha256 {}", list(&tars))),
            step(format!(
                "{} -q -f -c zstd -X level=3 -b 262144 {} < {}",
                need::program("tar2sqfs").display(),
                squashfs.display(),
                merged.display()
            )),
            step(format!("openssl dgst -sha256 {}", squashfs.display())),
        ]
    };
    let floor =
        bench.best(vec![Box::new(|| steps().iter().fold(Measured::default(), |sum, step| sum.then(step)))]).pop();
    fs::remove_dir_all(&dir).unwrap_or_else(|e| panic!("remove {}: {e}", dir.display()));
    floor.unwrap_or_default()
}

/// The layer blobs of the image `image`, bottom first.
fn layers(layout: &Path) -> Vec<PathBuf> {
    let json = |path: PathBuf| -> Value {
        let text = fs::read(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
        serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    };
    let blob = |digest: &Value| {
        let digest = digest.as_str().unwrap_or_else(|| panic!("no digest in {}", layout.display()));
        layout.join("blobs").join(digest.replace(':', "/"))
    };
    let index = json(layout.join("index.json"));
    let named = |entry: &&Value| entry["annotations"]["org.opencontainers.image.ref.name"] == "image";
    let entry = index["manifests"].as_array().and_then(|entries| entries.iter().find(named));
    let entry = entry.unwrap_or_else(|| panic!("no image `image` in {}", layout.display()));
    let manifest = json(blob(&entry["digest"]));
    manifest["layers"].as_array().into_iter().flatten().map(|layer| blob(&layer["digest"])).collect()
}

/// One tar of the tree that all layers make.
fn merged(layout: &Path, dir: &Path) -> PathBuf {
    let (bundle, tar) = (dir.join("bundle"), dir.join("merged.tar"));
    let image = format!("{}:image", layout.display());
    run_within(UNPACK, Command::new(need::program("umoci")).args(["unpack", "--image", &image]).arg(&bundle)).ok();
    let mut pack = Command::new("tar");
    pack.args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "-C"]).arg(bundle.join("rootfs"));
    run_within(UNPACK, pack.arg("-cf").arg(&tar).arg(".")).ok();
    fs::remove_dir_all(&bundle).unwrap_or_else(|e| panic!("remove {}: {e}", bundle.display()));
    tar
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" ")
}

fn shell(text: &str) {
    run(Command::new("sh").args(["-c", text])).ok();
}
