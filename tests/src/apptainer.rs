//! The reference implementation: Apptainer in a Debian sid tree, set up once per machine by
//! tests/bench/setup-apptainer.sh.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use crate::run::{Finished, run, run_within};
use crate::{binaries, config, need};

/// Two minutes with a near mirror.
const SETUP: Duration = Duration::from_secs(1800);

/// A folder that both see: `/tmp/<name>` in the tree is `here` on the host. Removed with the value.
#[derive(Debug)]
pub struct Apptainer {
    enter: PathBuf,
    dir: tempfile::TempDir,
}

impl Apptainer {
    /// A new folder for an Apptainer that is there or is made now.
    pub fn new() -> Self {
        need::root();
        static SETUP_DONE: OnceLock<()> = OnceLock::new();
        SETUP_DONE.get_or_init(|| {
            let script = binaries::source_root().join("tests/bench/setup-apptainer.sh");
            run_within(SETUP, Command::new("bash").arg(script)).ok();
        });
        let peers = config::peers_dir();
        let dir = tempfile::Builder::new()
            .prefix("siforge-")
            .tempdir_in(peers.join("work"))
            .unwrap_or_else(|e| panic!("make a folder: {e}"));
        crate::image::open_to_all(dir.path());
        Self { enter: peers.join("enter"), dir }
    }

    /// The folder on the host.
    pub fn here(&self) -> &Path {
        self.dir.path()
    }

    /// A file of the folder as the tree sees it.
    pub fn there(&self, name: &str) -> String {
        let dir = self.dir.path().file_name().unwrap_or_default();
        format!("/tmp/{}/{name}", dir.to_string_lossy())
    }

    /// Runs a command in the tree as root.
    pub fn root(&self, words: &[&str]) -> Finished {
        run(Command::new(&self.enter).args(words))
    }

    /// Runs a command in the tree as its user `peer`, uid 1000.
    pub fn user(&self, words: &[&str]) -> Finished {
        run(Command::new(&self.enter).args(["-u", "peer"]).args(words))
    }
}

impl Default for Apptainer {
    fn default() -> Self {
        Self::new()
    }
}
