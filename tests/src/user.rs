//! An ordinary user of the machine, as whom commands run.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use crate::{need, run::run};

/// An account in the machine's passwd (Slurm looks users up by name).
#[derive(Debug, Clone)]
pub struct User {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub home: PathBuf,
}

impl User {
    /// The account with this uid; made as `siforge-test-<uid>` when there is none.
    pub fn with_uid(uid: u32) -> Self {
        need::root();
        static ADDING: std::sync::Mutex<()> = std::sync::Mutex::new(());
        let _one_at_a_time = ADDING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        Self::lookup(uid).unwrap_or_else(|| {
            let (id, name) = (uid.to_string(), format!("siforge-test-{uid}"));
            // Another test binary may have added it meanwhile: the look-up decides, not useradd.
            let added = run(Command::new(need::program("useradd")).args(["-m", "-u", &id, "-s", "/bin/sh", &name]));
            Self::lookup(uid).unwrap_or_else(|| panic!("no user {uid} after: {added}"))
        })
    }

    /// The user of most tests, uid 1000.
    pub fn ordinary() -> &'static Self {
        static USER: OnceLock<User> = OnceLock::new();
        USER.get_or_init(|| Self::with_uid(1000))
    }

    /// A command as this user, with its groups, `HOME` and `USER`, in its home.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(need::program("setpriv"));
        command
            .args(["--reuid", &self.uid.to_string(), "--regid", &self.gid.to_string(), "--init-groups", "--"])
            .arg(program)
            .env("HOME", &self.home)
            .env("USER", &self.name)
            .env("LOGNAME", &self.name)
            .env_remove("XDG_RUNTIME_DIR")
            .env_remove("XDG_CACHE_HOME")
            .current_dir(&self.home);
        command
    }

    /// A new folder that belongs to this user, removed with the value.
    pub fn tempdir(&self) -> tempfile::TempDir {
        let dir =
            tempfile::Builder::new().prefix("siforge-user-").tempdir().unwrap_or_else(|e| panic!("make a folder: {e}"));
        std::os::unix::fs::chown(dir.path(), Some(self.uid), Some(self.gid))
            .unwrap_or_else(|e| panic!("chown {}: {e}", dir.path().display()));
        dir
    }

    fn lookup(uid: u32) -> Option<Self> {
        let line = run(Command::new("getent").args(["passwd", &uid.to_string()])).stdout;
        let fields: Vec<&str> = line.trim_end().split(':').collect();
        let [name, _, uid, gid, _, home, _] = fields[..] else {
            return None;
        };
        Some(Self { name: name.into(), uid: uid.parse().ok()?, gid: gid.parse().ok()?, home: home.into() })
    }
}
