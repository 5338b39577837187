//! `make bench`: siforge and Apptainer on the same work, in turn in one run, against the bars we set ourselves.
//!
//! The machine may be busy with other things: CPU seconds and ratios within one run are comparable, wall times of two
//! runs are not. So each pair is measured in alternating rounds, and the best of each figure counts.

pub mod definition;
pub mod entries;
pub mod floor;
pub mod fuse;
pub mod image;
pub mod launch;
pub mod measure;
pub mod pull;
pub mod reads;
pub mod report;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use measure::Measured;

use crate::run::run_within;
use crate::user::User;
use crate::{config, need};

/// Apptainer's pull of a large image on a busy machine.
const ONE: Duration = Duration::from_secs(1200);

/// Who runs a command, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// On the host.
    Root,
    /// On the host, uid 1000.
    User,
    /// In the Debian tree with Apptainer.
    PeerRoot,
    PeerUser,
}

/// What the parts of the benchmark share.
pub struct Bench {
    /// This program, where an ordinary user can run it.
    program: PathBuf,
    /// The Debian tree with Apptainer.
    peers: PathBuf,
    /// Scratch, removed at the end.
    pub dir: PathBuf,
    pub rounds: usize,
}

impl Bench {
    pub fn new(dir: PathBuf, program: PathBuf, rounds: usize) -> Self {
        need::root();
        let peers = config::peers_dir();
        assert!(
            peers.join("enter").is_file(),
            "no Apptainer in {}: run tests/bench/setup-apptainer.sh",
            peers.display()
        );
        // The tree sees its folder `work` as /tmp.
        let inside = peers.join("work/siforge-bench");
        std::fs::copy(&program, &inside)
            .unwrap_or_else(|e| panic!("copy {} to {}: {e}", program.display(), inside.display()));
        Self { program, peers, dir, rounds }
    }

    /// A folder of this run in the tree: its path there, and its path on the host.
    pub fn peer_dir(&self, name: &str) -> (String, PathBuf) {
        let name = format!("siforge-bench-{}-{name}", std::process::id());
        (format!("/tmp/{name}"), self.peers.join("work").join(name))
    }

    /// Runs a command and measures it.
    pub fn measure(&self, who: Who, runs: usize, at_once: usize, env: &[(&str, &str)], words: &[&str]) -> Measured {
        let mut command = self.prefix(who);
        command.arg("env").args(env.iter().map(|(name, value)| format!("{name}={value}")));
        match who {
            Who::Root | Who::User => command.arg(&self.program),
            Who::PeerRoot | Who::PeerUser => command.arg("/tmp/siforge-bench"),
        };
        command.args(["measure", &runs.to_string(), &at_once.to_string()]).args(words);
        let finished = run_within(ONE, &mut command).ok();
        let value = serde_json::from_str(&finished.stdout).ok().and_then(|value| Measured::from_json(&value));
        value.unwrap_or_else(|| panic!("no measurement: {finished}"))
    }

    /// Runs some commands in turn, several rounds: of each the best time and the worst memory.
    pub fn best(&self, mut commands: Vec<Box<dyn FnMut() -> Measured + '_>>) -> Vec<Measured> {
        let mut best: Vec<Option<Measured>> = vec![None; commands.len()];
        for _ in 0..self.rounds {
            for (command, best) in commands.iter_mut().zip(&mut best) {
                let now = command();
                *best = Some(best.take().map_or_else(|| now.clone(), |before| before.better(&now)));
            }
        }
        best.into_iter().map(Option::unwrap_or_default).collect()
    }

    fn prefix(&self, who: Who) -> Command {
        let enter = || Command::new(self.peers.join("enter"));
        match who {
            Who::Root => Command::new("env"),
            Who::User => User::ordinary().command("env"),
            Who::PeerRoot => enter(),
            Who::PeerUser => {
                let mut command = enter();
                command.args(["-u", "peer"]);
                command
            }
        }
    }
}

/// Bytes of a file.
pub fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map(|metadata| metadata.len()).unwrap_or_else(|e| panic!("size of {}: {e}", path.display()))
}
