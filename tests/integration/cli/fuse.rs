//! The rung for ordinary users on a host without an agent: the image is served by a process of their own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use siforge_tests::run::run_within;
use siforge_tests::{Siforge, User, fuse, overlay, wait_until};

use super::site;

/// Far more than anything here takes, on the busiest machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// Reads names, attributes and contents.
const LOOK: &str = "ls -lR /bin /etc /usr; cat /bin/* /etc/* > /dev/null";

/// A user with an image of its own, where /dev/fuse has this mode.
fn user(mode: u32, device: &Path) -> Siforge {
    overlay::private_mounts();
    fuse::device(device, mode);
    let siforge = Siforge::user(User::ordinary());
    let sif = siforge.out().join("tiny.sif");
    fs::copy(site().users[1].out().join("tiny.sif"), &sif).unwrap();
    siforge.give(&sif);
    siforge
}

#[track_caller]
fn check(siforge: &Siforge, words: &[&str], code: i32, stdout: &str) {
    let ran = run_within(DEADLINE, siforge.command().args(words));
    assert_eq!((ran.code(), ran.stdout.as_str()), (code, stdout), "{words:?}: {ran}");
}

#[track_caller]
fn no_servers(siforge: &Siforge) {
    wait_until(DEADLINE, "no server is left", || fuse::servers(siforge.dir()).is_empty());
}

#[test]
fn images_are_served_to_their_users() {
    let device = tempfile::tempdir().unwrap();
    let siforge = user(0o666, device.path());
    let ran = siforge.run(&["-v", "exec", "tiny.sif", "true"]).ok();
    assert!(ran.stderr.contains("tiny.sif: served over FUSE"), "{ran}");
    let owner = format!("{}\n", siforge.uid());
    for (words, code, stdout) in [
        (&["exec", "tiny.sif", "sh", "-c", "exit 3"][..], 3, ""),
        (&["exec", "tiny.sif", "stat", "-c", "%u", "/bin"], 0, &owner),
        (&["exec", "--pid", "--containall", "tiny.sif", "sh", "-c", "echo in; exit 4"], 4, "in\n"),
        (&["exec", "--writable-tmpfs", "tiny.sif", "sh", "-c", "echo new > /new && cat /new"], 0, "new\n"),
        (
            &["exec", "--bind", "/usr:/not/there/yet", "tiny.sif", "sh", "-c", "ls -d /not/there/yet/bin"],
            0,
            "/not/there/yet/bin\n",
        ),
        (&["exec", "tiny.sif", "sh", "-c", "kill -9 $$"], 137, ""),
        (&["exec", "tiny.sif", "nothing"], 255, ""),
    ] {
        check(&siforge, words, code, stdout);
    }
    assert!(!siforge.cache().join("unpacked").exists());
    no_servers(&siforge);
}

#[test]
fn images_of_registries_are_served_out_of_the_cache() {
    let device = tempfile::tempdir().unwrap();
    let (siforge, site) = (user(0o666, device.path()), site());
    let reference = site.registry.reference("tiny");
    let ran = siforge.run(&["-v", "exec", "--no-https", &reference, "echo", "hello"]).ok();
    assert!(ran.stdout == "hello\n" && ran.stderr.contains("served over FUSE"), "{ran}");
    assert!(!siforge.cache().join("unpacked").exists());
    no_servers(&siforge);
}

/// The server stays as long as anybody is in the container, and no longer; its caller does not wait for it.
#[test]
fn servers_live_as_long_as_their_containers() {
    let device = tempfile::tempdir().unwrap();
    let siforge = user(0o666, device.path());
    let out = siforge.out();
    let script = "(exec > /dev/null 2>&1; while [ ! -e go ]; do sleep 0.1; done; ls /bin > listing; mv listing done) &";
    check(&siforge, &["exec", "tiny.sif", "sh", "-c", script], 0, "");
    let servers = fuse::servers(siforge.dir());
    assert_eq!(servers.len(), 1);
    // A batch system that asks every process of the job to end; those that still have work need their files.
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT, Signal::SIGUSR1] {
        kill(Pid::from_raw(servers[0].cast_signed()), signal).unwrap();
    }
    fs::write(out.join("go"), "").unwrap();
    wait_until(DEADLINE, "the background process reads the image", || out.join("done").exists());
    assert!(fs::read_to_string(out.join("done")).unwrap().contains("sh\n"));
    no_servers(&siforge);
}

#[test]
fn where_the_device_is_closed_images_are_unpacked() {
    let device = tempfile::tempdir().unwrap();
    let siforge = user(0o600, device.path());
    let ran = siforge.run(&["-v", "exec", "tiny.sif", "echo", "hello"]).ok();
    assert_eq!(ran.stdout, "hello\n");
    for part in ["not over FUSE: open /dev/fuse: Permission denied", "0666", "unpacking to"] {
        assert!(ran.stderr.contains(part), "{part}: {ran}");
    }
    assert!(siforge.cache().join("unpacked").exists());
}

/// Bytes of the image changed anywhere behind its superblock: the command runs or does not, and all comes to an end.
#[test]
fn damaged_images_harm_nobody() {
    let device = tempfile::tempdir().unwrap();
    let siforge = user(0o666, device.path());
    let good = fs::read(siforge.out().join("tiny.sif")).unwrap();
    let path = siforge.out().join("damaged.sif");
    for round in 0..20_usize {
        let mut bytes = good.clone();
        for step in 0..8 {
            let back = (round * 613 + step * 211) % (if round % 2 == 0 { 6000 } else { good.len() - 40_000 });
            let at = good.len() - 1 - back;
            bytes[at] ^= (round * 37 + step * 11 + 1) as u8;
        }
        fs::write(&path, &bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let ran = run_within(DEADLINE, siforge.command().args(["exec", "damaged.sif", "sh", "-c", LOOK]));
        assert!(!ran.output().contains("panicked"), "{ran}");
    }
    no_servers(&siforge);
}
