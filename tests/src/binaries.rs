//! The project's own binaries, built once per run.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use crate::config;
use crate::run::run_within;

/// A cold build of the heaviest binary on two busy cores.
const BUILD_DEADLINE: Duration = Duration::from_secs(1800);

/// Package that a binary comes from.
const PACKAGES: [(&str, &str); 7] = [
    ("siforge", "siforge-cli"),
    ("siforge-operator", "siforge-operator"),
    ("siforge-agent", "siforge-node-agent"),
    ("siforge-runtime", "siforge-runtime"),
    ("libsiforge_spank.so", "siforge-spank"),
    ("siforge-test-guard", "siforge-tests"),
    ("siforge-bench", "siforge-tests"),
];

/// The path of `siforge`, `siforge-operator`, `siforge-agent`, `siforge-runtime`, `libsiforge_spank.so` or `siforge-test-guard`.
///
/// From `SIFORGE_BIN_DIR` when that is set; else built by Cargo with the profile and into the target folder of the
/// running test binary.
pub fn binary(name: &str) -> PathBuf {
    static BUILT: OnceLock<Mutex<HashMap<String, PathBuf>>> = OnceLock::new();
    let mut built = BUILT.get_or_init(Mutex::default).lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    built.entry(name.to_owned()).or_insert_with(|| locate(name)).clone()
}

/// The root of the source tree.
pub fn source_root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn locate(name: &str) -> PathBuf {
    let own_dir = profile_dir();
    let path = match config::bin_dir() {
        Some(dir) => dir.join(name),
        // Cargo builds the binaries of this package before its integration tests.
        None if name == "siforge-test-guard" => own_dir.join(name),
        None => {
            build(name, &own_dir);
            own_dir.join(name)
        }
    };
    assert!(path.is_file(), "{} is not there", path.display());
    let path = path.canonicalize().unwrap_or_else(|e| panic!("path of {}: {e}", path.display()));
    if reachable_by_all(&path) { path } else { public_copy(name, &path) }
}

/// Whether an ordinary user can execute a file: a checkout below /root is closed to them.
fn reachable_by_all(path: &Path) -> bool {
    path.ancestors()
        .skip(1)
        .all(|dir| fs::metadata(dir).is_ok_and(|metadata| metadata.permissions().mode() & 0o001 != 0))
}

/// A copy below /tmp, the same for every run from this folder.
fn public_copy(name: &str, path: &Path) -> PathBuf {
    let origin = crate::image::sha256(path.as_os_str().as_encoded_bytes());
    let dir = PathBuf::from(format!("/tmp/siforge-bin-{}", &origin[7..19]));
    let (new, copy) = (dir.join(format!(".{name}.{}", std::process::id())), dir.join(name));
    // Renamed into place: another test binary may be executing the old one.
    fs::create_dir_all(&dir)
        .and_then(|()| fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)))
        .and_then(|()| fs::copy(path, &new))
        .and_then(|_| fs::set_permissions(&new, fs::Permissions::from_mode(0o755)))
        .and_then(|()| fs::rename(&new, &copy))
        .unwrap_or_else(|e| panic!("copy {} to {}: {e}", path.display(), copy.display()));
    copy
}

/// `target/debug` or `target/release`: where the running binary (there, or in `deps/`) was built.
fn profile_dir() -> PathBuf {
    let exe = std::env::current_exe().unwrap_or_else(|e| panic!("path of the running binary: {e}"));
    let dir = exe.parent().unwrap_or_else(|| panic!("{} has no folder", exe.display()));
    let dir = if dir.ends_with("deps") { dir.parent().unwrap_or(dir) } else { dir };
    dir.to_path_buf()
}

fn build(name: &str, profile_dir: &Path) {
    let (_, package) =
        PACKAGES.iter().find(|(binary, _)| *binary == name).unwrap_or_else(|| panic!("unknown binary {name}"));
    let target = profile_dir.parent().unwrap_or(profile_dir);
    let mut cargo = Command::new(config::cargo());
    cargo.args(["build", "-q", "-p", package]).arg("--target-dir").arg(target).current_dir(source_root());
    if profile_dir.ends_with("release") {
        cargo.arg("--release");
    }
    run_within(BUILD_DEADLINE, &mut cargo).ok();
}
