//! What a test needs of the machine. A missing thing is a failure that says how to mend it: a test that skips itself
//! has stopped testing and nobody notices.

use std::path::PathBuf;

/// Panics unless this process is root.
pub fn root() {
    assert!(is_root(), "this test needs root (it mounts, or starts daemons that change users)");
}

/// Whether this process is root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The path of a program of the machine; panics when it is not there.
pub fn program(name: &str) -> PathBuf {
    find(name).unwrap_or_else(|| panic!("{name} is not installed; run tests/scripts/install-deps.sh"))
}

/// Looks a program up in the folders of a root login: Debian puts daemons into sbin, which a user's `PATH` lacks.
pub fn find(name: &str) -> Option<PathBuf> {
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/go/bin"]
        .iter()
        .map(|dir| PathBuf::from(dir).join(name))
        .find(|path| path.is_file())
}
