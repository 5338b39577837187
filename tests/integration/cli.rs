//! `siforge exec`, `run`, `shell` and `inspect` as root and as an ordinary user without an agent: what a command in a
//! container gets, what its caller gets back, and what is left behind.

mod damaged;
mod environment;
mod fuse;
mod mounts;
mod stays;
mod written;

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, Weak};

use serde_json::{Value, json};
use siforge_tests::{Compression, Finished, Image, Registry, Siforge, Tar, images, need, run, wait_until};

/// A registry with `tiny` and `static`, and for root and for a user the two as `out/*.sif`.
struct Site {
    registry: Registry,
    users: [Siforge; 2],
}

/// Shared by the tests that run at the same time; goes, and its folders with it, with the last of them.
fn site() -> Arc<Site> {
    static SITE: Mutex<Weak<Site>> = Mutex::new(Weak::new());
    let mut site = SITE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    site.upgrade().unwrap_or_else(|| {
        let new = Arc::new(Site::start());
        *site = Arc::downgrade(&new);
        new
    })
}

impl Site {
    fn start() -> Self {
        let registry = Registry::plain();
        registry.push("tiny", &images::tiny());
        registry.push("static", &static_image());
        let users = Siforge::both();
        for siforge in &users {
            siforge.pull(&registry, "tiny", "tiny.sif");
            siforge.pull(&registry, "static", "static.sif");
        }
        Self { registry, users }
    }
}

/// A static binary and nothing else: no shell, no /etc, no /tmp.
fn static_image() -> Image {
    let busybox = std::fs::read(need::program("busybox")).unwrap();
    Image::new()
        .layer(Tar::new().file("busybox", 0o755, busybox).finish(), Compression::Zstd)
        .config("Entrypoint", json!(["/busybox", "echo"]))
        .config("Cmd", json!(["from", "CMD"]))
        .config("Env", json!(["PATH=/", "GREETING=a b"]))
}

/// Runs as both; the exit code and, when it is 0, the whole standard output are as told.
#[track_caller]
fn check(words: &[&str], code: i32, stdout: &str) {
    for siforge in &site().users {
        let ran = siforge.run(words).fails_with(code);
        assert_eq!(ran.stdout, stdout, "{}: {ran}", siforge.who());
    }
}

/// Runs as both; fails before the command does, with a message that has these parts.
#[track_caller]
fn refused(words: &[&str], parts: &[&str]) {
    for siforge in &site().users {
        assert_refused(siforge, &siforge.run(words), parts);
    }
}

#[track_caller]
fn assert_refused(siforge: &Siforge, ran: &Finished, parts: &[&str]) {
    assert_eq!(ran.code(), 255, "{}: {ran}", siforge.who());
    assert!(ran.stdout.is_empty() && !ran.stderr.contains("panicked"), "{}: {ran}", siforge.who());
    for part in parts {
        assert!(ran.stderr.contains(part), "{}: {part:?} in {ran}", siforge.who());
    }
}

#[test]
fn exit_codes_and_signals_pass_through() {
    for pid in [&["exec"][..], &["exec", "--pid"]] {
        let exec = |words: &[&'static str]| [pid, &["tiny.sif"], words].concat();
        check(&exec(&["true"]), 0, "");
        check(&exec(&["false"]), 1, "");
        check(&exec(&["sh", "-c", "exit 7"]), 7, "");
        check(&exec(&["sh", "-c", "exit 254"]), 254, "");
        check(&exec(&["sh", "-c", "kill -TERM $$"]), 128 + 15, "");
        check(&exec(&["sh", "-c", "kill -KILL $$"]), 128 + 9, "");
        refused(&exec(&["no-such-command"]), &["no-such-command", "executable file not found in $PATH"]);
        refused(&exec(&["/no/such/command"]), &["/no/such/command", "No such file or directory"]);
        refused(&exec(&["/etc/passwd"]), &["/etc/passwd", "Permission denied"]);
    }
    refused(&["exec", "no-such.sif", "true"], &["no-such.sif"]);
    refused(&["exec", "tiny.sif"], &["COMMAND"]);
    refused(&["exec", "--no-such-option", "tiny.sif", "true"], &["--no-such-option"]);
}

/// A signal to the started process reaches the command, under an init of ours too.
#[test]
fn signals_reach_the_command() {
    for siforge in &site().users {
        for options in [&[][..], &["--pid"]] {
            let script = "trap 'echo got it; exit 9' USR1; echo ready; while :; do sleep 0.05; done";
            let mut command = siforge.command();
            command.arg("exec").args(options).args(["tiny.sif", "sh", "-c", script]);
            let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
            let mut out = child.stdout.take().unwrap();
            let mut said = [0; 6];
            out.read_exact(&mut said).unwrap();
            assert_eq!(&said, b"ready\n");
            run(Command::new("kill").args(["-USR1", &child.id().to_string()])).ok();
            let mut rest = String::new();
            out.read_to_string(&mut rest).unwrap();
            assert_eq!(
                (rest.as_str(), child.wait().unwrap().code()),
                ("got it\n", Some(9)),
                "{} {options:?}",
                siforge.who()
            );
        }
    }
}

#[test]
fn standard_streams_pass_through() {
    let bytes: Vec<u8> = (0..300_000_u32).map(|n| (n * 7 % 251) as u8).collect();
    for siforge in &site().users {
        for words in [
            &["exec", "tiny.sif", "cat"][..],
            &["exec", "--pid", "tiny.sif", "cat"],
            &["run", "tiny.sif", "cat"],
            &["shell", "tiny.sif", "-c", "cat"],
        ] {
            assert_eq!(with_input(siforge, words, &bytes), bytes, "{} {words:?}", siforge.who());
        }
        assert_eq!(with_input(siforge, &["shell", "tiny.sif"], b"echo $TINY; exit\n"), b"yes\n");
        let both = siforge.run(&["exec", "tiny.sif", "sh", "-c", "echo out; echo err >&2"]).ok();
        assert_eq!((both.stdout.as_str(), both.stderr.as_str()), ("out\n", "err\n"));
    }
}

fn with_input(siforge: &Siforge, words: &[&str], input: &[u8]) -> Vec<u8> {
    let mut command = siforge.command();
    let mut child = command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).unwrap());
        child.wait_with_output().unwrap().stdout
    })
}

#[test]
fn images_without_a_shell_run() {
    check(&["exec", "static.sif", "/busybox", "echo", "a  b"], 0, "a  b\n");
    check(&["exec", "static.sif", "busybox", "sh", "-c", "echo \"$GREETING\""], 0, "a b\n");
    check(&["run", "static.sif"], 0, "from CMD\n");
    // Without a shell nobody evaluates.
    check(&["run", "static.sif", "c d", "$GREETING"], 0, "c d $GREETING\n");
    check(&["run", "--no-eval", "static.sif", "$GREETING"], 0, "$GREETING\n");
    check(&["exec", "--pid", "static.sif", "/busybox", "sh", "-c", "exit 5"], 5, "");
    refused(&["shell", "static.sif"], &["no shell", "/bin/sh"]);
    refused(&["exec", "static.sif", "sh"], &["sh", "not found"]);
}

#[test]
fn a_directory_is_an_image() {
    for siforge in &site().users {
        let dir = siforge.dir().join("root");
        let bin = dir.join("bin");
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::copy(need::program("busybox"), bin.join("busybox")).unwrap();
        std::os::unix::fs::symlink("busybox", bin.join("sh")).unwrap();
        let path = dir.display().to_string();
        let ran = siforge.run(&["exec", &path, "sh", "-c", "echo in a directory; exit 3"]).fails_with(3);
        assert_eq!(ran.stdout, "in a directory\n", "{}", siforge.who());
        assert_refused(siforge, &siforge.run(&["exec", &path, "nothing"]), &["nothing", "not found"]);
    }
    let site = site();
    refused(&["exec", &site.users[0].out().display().to_string(), "x"], &["x"]);
}

/// `docker://` is pulled once into the cache; then only the manifest and config are asked for.
#[test]
fn images_of_a_registry_run_through_a_cache() {
    let site = site();
    for siforge in Siforge::both() {
        let exec = |options: &[&str]| {
            let reference = site.registry.reference("tiny");
            let mut command = siforge.command();
            command.args(["exec", "--no-https"]).args(options).args([&reference, "sh", "-c", "echo $TINY; exit 4"]);
            let ran = run(&mut command).fails_with(4);
            assert_eq!(ran.stdout, "yes\n", "{ran}");
            ran
        };
        let first = exec(&[]);
        assert!(first.stderr.contains("fetched"), "{first}");
        let second = exec(&[]);
        assert!(!second.stderr.contains("fetched") && !second.stderr.contains("converting"), "{second}");
        assert_eq!(exec(&["--quiet"]).stderr, "");
        let unknown = site.registry.reference("tiny:none");
        assert_refused(&siforge, &siforge.run(&["exec", "--no-https", &unknown, "true"]), &["no such tag"]);
    }
}

#[test]
fn inspect_tells_of_labels_scripts_and_objects() {
    for siforge in &site().users {
        let inspect = |words: &[&str]| siforge.run(&[&["inspect"], words, &["tiny.sif"]].concat()).ok().stdout;
        assert!(inspect(&[]).contains("org.opencontainers.image.title: tiny\n"));
        assert!(inspect(&["--deffile"]).starts_with("bootstrap: docker\nfrom: "));
        assert!(inspect(&["--runscript"]).contains("/bin/sh"));
        assert!(inspect(&["--environment"]).contains("TINY"));
        let json: Value = serde_json::from_str(&inspect(&["--all", "--json"])).unwrap();
        assert_eq!(json["data"]["attributes"]["labels"]["org.opencontainers.image.title"], "tiny", "{json}");
        assert!(inspect(&["--list-objects"]).contains("|FS (Squashfs/*System/"));
        assert_refused(siforge, &siforge.run(&["inspect", "none.sif"]), &["none.sif"]);
    }
    for siforge in &site().users {
        let version = siforge.run(&["version"]).ok().stdout;
        // cwltool's pattern.
        let parts: Vec<&str> = version.trim_end().split(" version ").collect();
        assert!(parts[0] == "siforge" && parts[1].split('.').count() == 3, "{version}");
        assert_eq!(siforge.run(&["--version"]).ok().code(), 0);
    }
}

/// The plan is printed, nothing is run or made.
#[test]
fn a_dry_run_prints_its_plan_and_does_nothing() {
    for siforge in &site().users {
        let words = ["exec", "--dry-run", "--bind", "/usr:/mnt:ro", "tiny.sif", "touch", "/tmp/siforge-dry-run-ran"];
        let plan: Value = serde_json::from_str(&siforge.run(&words).ok().stdout).unwrap();
        let text = plan.to_string();
        for part in ["touch", "/usr", "/mnt", "TINY"] {
            assert!(text.contains(part), "{part} in {plan:#}");
        }
        assert!(!PathBuf::from("/tmp/siforge-dry-run-ran").exists());
    }
}

/// For waiting on what ends by itself.
const SOON: std::time::Duration = std::time::Duration::from_secs(30);

/// Waits until neither a mount nor a loop device of this machine names the folder.
#[track_caller]
fn nothing_mounted_from(dir: &std::path::Path) {
    let dir = dir.display().to_string();
    wait_until(SOON, &format!("no mount or loop device of {dir}"), || {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let loops = run(Command::new("losetup").args(["--list", "--output", "BACK-FILE"])).ok().stdout;
        !mounts.contains(&dir) && !loops.contains(&dir)
    });
}
