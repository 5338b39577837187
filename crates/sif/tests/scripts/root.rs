//! A small root file system with what an image gets, and programs run in it.

use siforge_sif::image_config::{FileKind, ImageConfig, Source, plan};
use siforge_sif::process::{Pair, RunConfig};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Shell {
    Dash,
    Busybox,
}

/// Held while programs are written and while processes are spawned: a child that is forked in another thread holds a copy of the
/// descriptor a program is being written through until its exec, and until then that program cannot be run (ETXTBSY).
static SPAWN: Mutex<()> = Mutex::new(());

fn spawn_lock() -> MutexGuard<'static, ()> {
    SPAWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A root file system with a shell, `env`, `printf`, and what the plan adds.
pub(crate) fn root_with(config_json: &str, shell: Shell) -> (tempfile::TempDir, RunConfig) {
    let _lock = spawn_lock();
    let root = tempfile::tempdir().unwrap();
    let config = ImageConfig::parse(config_json.as_bytes()).unwrap();
    let source = Source { bootstrap: "docker".into(), from: "r.example/a@sha256:0".into(), time: None };
    let contents = plan(&config, &source, &BTreeMap::new()).unwrap();
    for directory in &contents.missing_dirs {
        std::fs::create_dir_all(root.path().join(directory.path)).unwrap();
    }
    for file in &contents.files {
        let path = root.path().join(&file.path);
        match &file.kind {
            FileKind::Directory => std::fs::create_dir_all(&path).unwrap(),
            FileKind::Regular(bytes) => {
                std::fs::write(&path, bytes).unwrap();
                std::fs::set_permissions(&path, PermissionsExt::from_mode(u32::from(file.mode))).unwrap();
            }
            FileKind::Symlink(target) => std::os::unix::fs::symlink(target, &path).unwrap(),
        }
    }
    let bin = root.path().join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    std::fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
    for applet in ["env", "printf", "sh"] {
        if !(applet == "sh" && shell == Shell::Dash) {
            std::os::unix::fs::symlink("busybox", bin.join(applet)).unwrap();
        }
    }
    if shell == Shell::Dash {
        std::fs::copy("/bin/dash", bin.join("sh")).unwrap();
        for library in libraries("/bin/dash") {
            let target = root.path().join(library.strip_prefix('/').unwrap());
            std::fs::create_dir_all(target.parent().unwrap()).unwrap();
            std::fs::copy(&library, target).unwrap();
        }
    }
    let run = RunConfig::parse(&contents.oci_config_json).unwrap();
    (root, run)
}

fn libraries(program: &str) -> Vec<String> {
    let output = Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned).collect()
}

/// Runs argv with exactly this environment; stdout.
pub(crate) fn run_in(root: &Path, env: &[Pair], argv: &[OsString]) -> Vec<u8> {
    let path = env.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.clone()).unwrap_or_default();
    // chroot(1) searches argv[0] by its own PATH, which is then the image's.
    let lock = spawn_lock();
    let child = Command::new("/usr/bin/unshare")
        .args(["-r", "/usr/sbin/chroot"])
        .arg(root)
        .args(argv)
        .env_clear()
        .envs(env.iter().map(|(name, value)| (name, value)))
        .env("PATH", path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(lock);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{argv:?}: {}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{argv:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

pub(crate) fn split_nul(bytes: &[u8]) -> Vec<OsString> {
    bytes.split(|byte| *byte == 0).map(|part| OsString::from_vec(part.to_vec())).collect()
}

/// What `env -0` printed, without what shells add of their own.
pub(crate) fn environment(bytes: &[u8]) -> BTreeMap<OsString, OsString> {
    let mut env = BTreeMap::new();
    for entry in bytes.split(|byte| *byte == 0).filter(|entry| !entry.is_empty()) {
        let at = entry.iter().position(|byte| *byte == b'=').unwrap();
        env.insert(OsString::from_vec(entry[..at].to_vec()), OsString::from_vec(entry[at + 1..].to_vec()));
    }
    for own in ["PWD", "OLDPWD", "SHLVL", "_"] {
        env.remove(OsStr::new(own));
    }
    env
}
