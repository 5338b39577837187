//! Definition files built by ordinary users, on hosts that give them ids and /dev/fuse, and on hosts that do not: the image that
//! root builds, but for owners where there are none.

use super::unsquashed;
use siforge_tests::{Finished, Listing, Registry, Siforge, fuse, images, overlay, run, user::User, wait_until};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(60);

const DEFINITION: &str = "Bootstrap: docker
From: {{ REGISTRY }}/tiny
%setup
    id -u > $APPTAINER_ROOTFS/setup
%files
    given /opt/given
%post
    mkdir -p /opt/d
    echo a > /opt/d/a
    ln /opt/d/a /opt/d/b
    chown 33:44 /opt/d/a
    ln -s a /opt/d/link
    chown -h 5:6 /opt/d/link
    mknod /opt/fifo p
    chmod 2750 /opt/d
    echo ada:x:1000:1000::/home/ada:/bin/sh >> /etc/passwd
    mkdir -p /home/ada
    chown 1000:1000 /home/ada
    su ada -c 'id -u' > /tmp/who
    mv /tmp/who /opt/who
    chgrp nogroup /etc/passwd
    rm -rf /usr /bin/vi
    mkdir /usr
    echo T_LABEL label >> $APPTAINER_LABELS
%environment
    export T_X=x
%test
    test -f /opt/given
";

/// What a host gives its users.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Host {
    pub(crate) fuse: bool,
    pub(crate) ids: bool,
}

impl Host {
    /// For this thread and its children; `dir` is where its parts lie.
    fn enter(self, dir: &Path, user: &User) {
        overlay::private_mounts();
        let device = dir.join("device");
        fs::create_dir(&device).unwrap();
        fuse::device(&device, if self.fuse { 0o666 } else { 0o600 });
        let ids = dir.join("ids");
        let text = if self.ids { format!("{}:200000:65536\n", user.name) } else { String::new() };
        fs::write(&ids, text).unwrap();
        for file in ["/etc/subuid", "/etc/subgid"] {
            if !Path::new(file).exists() {
                fs::write(file, "").unwrap();
            }
            run(Command::new("mount").arg("--bind").arg(&ids).arg(file)).ok();
        }
    }
}

/// Runs `test` in each kind of host, in a thread whose mounts are its own.
pub(crate) fn on_every_host(test: impl Fn(Host, &Siforge) + Copy + Send + Sync + 'static) {
    for (fuse, ids) in [(true, true), (true, false), (false, true), (false, false)] {
        let host = Host { fuse, ids };
        let thread = std::thread::spawn(move || {
            let user = User::ordinary();
            let siforge = Siforge::user(user);
            host.enter(siforge.dir(), user);
            test(host, &siforge);
        });
        assert!(thread.join().is_ok(), "{host:?}");
    }
}

fn build(siforge: &Siforge, registry: &Registry, definition: &str, words: &[&str]) -> Finished {
    let registry = format!("REGISTRY={}", registry.address());
    let (tmp, out) = (siforge.dir().join("tmp"), siforge.out());
    fs::create_dir_all(&tmp).unwrap();
    siforge.give(&tmp);
    fs::write(out.join("x.def"), definition).unwrap();
    fs::write(out.join("given"), "given\n").unwrap();
    let mut command = siforge.command();
    command.current_dir(&out).args(["build", "--no-https", "--build-arg", &registry, "--tmpdir"]).arg(&tmp);
    let built = run(command.arg("--force").args(words).arg("x.def"));
    let left: Vec<_> = fs::read_dir(&tmp).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
    built
}

fn listing(siforge: &Siforge, sif: &str, owners: bool) -> Listing {
    // That the tests were run by another user is no difference; nor is when.
    let (dir, root) = unsquashed(&siforge.out().join(sif), siforge.dir());
    let mut listing = Listing::of(&root).without(|name| name == "opt/who" || name == ".singularity.d/labels.json");
    for entry in listing.0.values_mut() {
        entry.mtime = 0;
        if !owners {
            entry.owner = (0, 0);
        }
    }
    drop(dir);
    listing
}

#[test]
fn users_build_what_root_builds() {
    on_every_host(|host, siforge| {
        let registry = Registry::plain();
        registry.push("tiny:latest", &images::tiny());
        let root = Siforge::root();
        build(&root, &registry, DEFINITION, &["x.sif"]).ok();
        let built = build(siforge, &registry, DEFINITION, &["x.sif"]).ok();
        assert_eq!(built.stderr.contains("all files will belong to root"), !host.ids, "{built}");

        // An unpacked base has lost its owners; there are none but root in this one.
        let wrong = listing(siforge, "x.sif", host.ids).differences(&listing(&root, "x.sif", host.ids));
        assert!(wrong.is_empty(), "{host:?}: {wrong}");
        let exec = |words: &[&str]| {
            let sif = siforge.out().join("x.sif").display().to_string();
            siforge.run(&[&["exec", &sif], words].concat()).ok().stdout
        };
        assert_eq!(
            exec(&["sh", "-c", "cat /opt/who /setup; echo $T_X"]),
            format!("{}\n0\nx\n", if host.ids { 1000 } else { 0 })
        );
        // The file itself is the caller's.
        let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(siforge.out().join("x.sif")).unwrap());
        assert_eq!(owner, siforge.uid());

        // A sandbox of it is the caller's own, too.
        build(siforge, &registry, DEFINITION, &["--sandbox", "box"]).ok();
        let owner_of = |path: &str| fs::symlink_metadata(siforge.out().join(path)).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&owner_of("box/opt/d/a")), siforge.uid());
    });
}

#[test]
fn a_failed_build_of_a_user_says_so() {
    on_every_host(|host, siforge| {
        let registry = Registry::plain();
        registry.push("tiny:latest", &images::tiny());
        let text = "Bootstrap: docker\nFrom: {{ REGISTRY }}/tiny\n%post\n    chown 33 /etc\n    exit 7\n";
        let failed = build(siforge, &registry, text, &["x.sif"]).fails_with(255);
        assert!(failed.stderr.contains("x.def:3: %post failed with exit code 7"), "{host:?}: {failed}");
        assert!(!siforge.out().join("x.sif").exists());
    });
}

#[test]
fn an_interrupted_build_of_a_user_leaves_nothing() {
    on_every_host(|host, siforge| {
        let registry = Registry::plain();
        registry.push("tiny:latest", &images::tiny());
        let text = "Bootstrap: docker\nFrom: {{ REGISTRY }}/tiny\n%post\n    mkdir /d; echo > /d/f; chown -R 33 /d\n    sleep 2718\n";
        fs::write(siforge.out().join("x.def"), text).unwrap();
        let tmp = siforge.dir().join("tmp");
        fs::create_dir(&tmp).unwrap();
        siforge.give(&tmp);
        let argument = format!("REGISTRY={}", registry.address());
        for signal in ["INT", "TERM", "KILL"] {
            let mut command = siforge.command();
            command.current_dir(siforge.out()).args(["-q", "build", "--no-https", "--build-arg", &argument]);
            command.arg("--tmpdir").arg(&tmp).args(["x.sif", "x.def"]);
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            wait_until(DEADLINE, "%post runs", || commands().contains("sleep 2718"));
            Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
            assert!(!child.wait().unwrap().success(), "{host:?} {signal}");
            // The kernel ends the worker of one that was killed.
            wait_until(DEADLINE, "what it started has ended", || {
                !commands().contains("sleep 2718") && fuse::servers(siforge.dir()).is_empty()
            });
            assert!(!siforge.out().join("x.sif").exists());
            let left = fs::read_dir(&tmp).unwrap().count();
            assert_eq!(left, usize::from(signal == "KILL"), "{host:?} {signal}");
        }
    });
}

fn commands() -> String {
    let commands = fs::read_dir("/proc").unwrap().filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok());
    commands.map(|words| String::from_utf8_lossy(&words).replace('\0', " ") + "\n").collect()
}
