//! The program `siforge` as root or as an ordinary user, without an agent, with cache and output in a folder of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::registry::Registry;
use crate::run::{Finished, run};
use crate::user::User;
use crate::{binary, need};

/// Who runs it, and where: `dir/cache`, `dir/out`.
#[derive(Debug)]
pub struct Siforge {
    user: Option<User>,
    dir: tempfile::TempDir,
}

impl Siforge {
    pub fn root() -> Self {
        need::root();
        let dir =
            tempfile::Builder::new().prefix("siforge-root-").tempdir().unwrap_or_else(|e| panic!("make a folder: {e}"));
        Self { user: None, dir }.prepared()
    }

    pub fn user(user: &User) -> Self {
        let dir = user.tempdir();
        Self { user: Some(user.clone()), dir }.prepared()
    }

    /// Root, and the ordinary user.
    pub fn both() -> [Self; 2] {
        [Self::root(), Self::user(User::ordinary())]
    }

    fn prepared(self) -> Self {
        crate::image::open_to_all(self.dir.path());
        for dir in [self.cache(), self.out()] {
            fs::create_dir(&dir).unwrap_or_else(|e| panic!("create {}: {e}", dir.display()));
            self.give(&dir);
        }
        self
    }

    /// Makes a file or folder the user's.
    pub fn give(&self, path: &Path) {
        if let Some(user) = &self.user {
            std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid))
                .unwrap_or_else(|e| panic!("chown {}: {e}", path.display()));
        }
    }

    /// `root` or `user`, for messages.
    pub fn who(&self) -> &'static str {
        if self.user.is_some() { "user" } else { "root" }
    }

    pub fn uid(&self) -> u32 {
        self.user.as_ref().map_or(0, |user| user.uid)
    }

    pub fn home(&self) -> PathBuf {
        self.user.as_ref().map_or_else(|| "/root".into(), |user| user.home.clone())
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    pub fn out(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    /// The program with a small environment, in `out`.
    pub fn command(&self) -> Command {
        self.launched_by(&[])
    }

    /// The same behind other words: `["taskset", "-c", "0"]`.
    pub fn launched_by(&self, words: &[&str]) -> Command {
        let program = binary("siforge");
        let first = words.first().map_or(program.as_os_str(), std::ffi::OsStr::new);
        let mut command = match &self.user {
            Some(user) => user.command(first),
            None => Command::new(first),
        };
        command.args(words.iter().skip(1));
        if !words.is_empty() {
            command.arg(&program);
        }
        let name = self.user.as_ref().map_or("root", |user| &user.name);
        command
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.home())
            .env("USER", name)
            .env("SIFORGE_CACHEDIR", self.cache())
            .env("SIFORGE_AGENT_SOCKET", "/nonexistent/agent.sock")
            .current_dir(self.out());
        command
    }

    pub fn run(&self, words: &[&str]) -> Finished {
        run(self.command().args(words))
    }

    /// Pulls `name` of a registry without TLS as `out/<file>`.
    pub fn pull(&self, registry: &Registry, name: &str, file: &str) -> PathBuf {
        self.run(&["pull", "--no-https", file, &registry.reference(name)]).ok();
        self.out().join(file)
    }

    /// Every name below the folder, sorted; what a failed command must not add to.
    pub fn files(&self) -> Vec<String> {
        let listing = crate::listing::Listing::of(self.dir());
        let files = listing.0.into_iter().filter(|(_, entry)| !entry.mode.starts_with('d'));
        files.map(|(name, _)| name).collect()
    }
}
