//! A SIF that is there: unpacked into a sandbox, and looked at, against Apptainer.

use std::cell::Cell;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use super::measure::Measured;
use super::report::{Bar, Report};
use super::{Bench, Who};
use crate::binaries::binary;
use crate::run::run;

/// Bytes that a large image has besides its root: what looks at its metadata must not look at them.
const LARGE: u64 = 2 << 30;
/// A look takes milliseconds.
const LOOKS: usize = 50;

/// Measures both with lolcow's SIF, and with one of 2 GB.
pub fn image(bench: &Bench, report: &mut Report, lolcow: &Path) {
    let (there, here) = bench.peer_dir("image");
    fs::create_dir_all(&here).unwrap_or_else(|e| panic!("create {}: {e}", here.display()));
    let siforge = binary("siforge").display().to_string();
    let path = |name: &str| here.join(name).display().to_string();
    let cache = bench.dir.join("image-cache").display().to_string();
    let own = |words: &[&str]| run(Command::new(&siforge).args(words).env("SIFORGE_CACHEDIR", &cache)).ok();
    own(&["-q", "build", &path("cow.sif"), &format!("oci:{}:image", lolcow.display())]);

    let env = [("SIFORGE_CACHEDIR", cache.as_str()), ("APPTAINER_TMPDIR", there.as_str())];
    // Each into a new folder, and none removed before the end: ext4 makes files slowly while it remembers those that went just now.
    let count = Cell::new(0);
    let sandbox = |who, program: &str, folder: &str| {
        count.set(count.get() + 1);
        let (out, sif) = (format!("{folder}/box{}", count.get()), format!("{folder}/cow.sif"));
        bench.measure(who, 1, 1, &env, &[program, "-q", "build", "--sandbox", &out, &sif])
    };
    let here_text = here.display().to_string();
    let [theirs, ours] = <[Measured; 2]>::try_from(bench.best(vec![
        Box::new(|| sandbox(Who::PeerRoot, "apptainer", &there)),
        Box::new(|| sandbox(Who::Root, &siforge, &here_text)),
    ]))
    .unwrap_or_default();
    report.add("apptainer build --sandbox lolcow.sif", &theirs);
    report.add("siforge build --sandbox lolcow.sif", &ours);
    report.bar(Bar::at_most("lolcow: SIF to sandbox: CPU against Apptainer", ours.cpu_ms / theirs.cpu_ms, 0.5, true));

    let hole = here.join("hole");
    File::create(&hole).and_then(|file| file.set_len(LARGE)).unwrap_or_else(|e| panic!("make {}: {e}", hole.display()));
    own(&["sif", "add", "--datatype", "7", &path("cow.sif"), &path("hole")]);
    for (what, words) in [("inspect --all", &["inspect", "--all"][..]), ("sif list", &["sif", "list"])] {
        let look = |who, program: &str, folder: &str| {
            let sif = format!("{folder}/cow.sif");
            bench.measure(who, LOOKS, 1, &env, &[&[program][..], words, &[&sif]].concat())
        };
        let [theirs, ours] = <[Measured; 2]>::try_from(bench.best(vec![
            Box::new(|| look(Who::PeerRoot, "apptainer", &there)),
            Box::new(|| look(Who::Root, &siforge, &here_text)),
        ]))
        .unwrap_or_default();
        report.add(&format!("apptainer {what} of 2 GB"), &theirs);
        report.add(&format!("siforge {what} of 2 GB"), &ours);
        let bar = format!("{what} of 2 GB: CPU against Apptainer");
        report.bar(Bar::at_most(&bar, ours.cpu_ms / theirs.cpu_ms, 1.0 / 20.0, true));
    }
    let _ = fs::remove_dir_all(&here);
}
