//! `siforge-agent install-runtime` with real containerds: what they make of the configuration, before, after, and after that.

use siforge_tests::{Cluster, Finished, binary, need, overlay, run};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const MAIN: &str = "/etc/containerd/config.toml";
const WRAPPER: &str = "/opt/siforge/bin/siforge-runtime";
const LINK: &str = "/etc/containerd/certs.d/siforge.dev";

/// A machine with this containerd, for this thread and its children; its /etc/containerd and /opt are empty.
struct Machine {
    containerd: PathBuf,
}

impl Machine {
    fn new(containerd: &Path, main: Option<&str>) -> Self {
        overlay::private_mounts();
        for dir in ["/etc/containerd", "/opt"] {
            fs::create_dir_all(dir).unwrap();
            run(Command::new("mount").args(["-t", "tmpfs", "tmpfs", dir])).ok();
        }
        if let Some(main) = main {
            fs::write(MAIN, main).unwrap();
        }
        Self { containerd: containerd.to_owned() }
    }

    fn agent(&self, words: &[&str]) -> Finished {
        let mut command = Command::new(binary("siforge-agent"));
        command.args(words).arg("--containerd").arg(&self.containerd);
        run(command.arg("--wrapper").arg(binary("siforge-runtime")))
    }

    fn dump(&self) -> String {
        let config = if Path::new(MAIN).exists() { MAIN } else { "/dev/null" };
        run(Command::new(&self.containerd).args(["--config", config, "config", "dump"])).ok().stdout
    }

    fn has_handler(&self) -> bool {
        self.dump().contains("runtimes.siforge]")
    }
}

/// All files of the two folders.
fn files() -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut pending = vec![PathBuf::from("/etc/containerd"), "/opt".into()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            match (metadata.is_dir(), metadata.is_symlink()) {
                (true, _) => pending.push(path),
                (_, true) => {
                    found.push((path.clone(), fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()))
                }
                _ => found.push((path.clone(), fs::read(&path).unwrap())),
            }
        }
    }
    found.sort();
    found
}

/// Debian's, and the one of the tests' Go module.
fn containerds() -> [PathBuf; 2] {
    [need::program("containerd"), Cluster::shared().node_binaries().join("containerd")]
}

fn on_each(test: impl Fn(&Path) + Copy + Send + 'static) {
    for containerd in containerds() {
        let shown = containerd.display().to_string();
        assert!(std::thread::spawn(move || test(&containerd)).join().is_ok(), "{shown}");
    }
}

const CONFIGURED: [(&str, &str); 2] = [
    (
        "version = 2",
        "version = 2\n[plugins]\n  [plugins.\"io.containerd.grpc.v1.cri\"]\n    [plugins.\"io.containerd.grpc.v1.cri\".registry]\n    [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\n      runtime_type = \"io.containerd.runc.v2\"\n      [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\n        SystemdCgroup = true\n        BinaryName = \"/usr/sbin/runc\"\n",
    ),
    ("version = 2", "version = 2\n"),
];

#[test]
fn the_runtime_is_installed_and_removed() {
    on_each(|containerd| {
        for main in [None, Some(CONFIGURED[1].1), Some(CONFIGURED[0].1)] {
            let containerd = containerd.to_owned();
            let tested = std::thread::spawn(move || {
                let machine = Machine::new(&containerd, main);
                let before = files();
                let shown = machine.agent(&["install-runtime", "--dry-run"]).ok();
                assert!(shown.stdout.contains("BinaryName = \"/opt/siforge/bin/siforge-runtime\""), "{shown}");
                assert_eq!(files(), before);
                assert!(!machine.has_handler());

                machine.agent(&["install-runtime"]).ok();
                let dump = machine.dump();
                assert!(machine.has_handler() && dump.contains(WRAPPER) && dump.contains("siforge.dev/*"), "{dump}");
                assert!(dump.contains("/etc/containerd/certs.d"), "{dump}");
                assert_eq!(fs::read_link(LINK).unwrap(), Path::new("/run/siforge/registry"));
                assert_eq!(fs::metadata(WRAPPER).unwrap().permissions().mode() & 0o7777, 0o755);
                let settings = fs::read_to_string(format!("{WRAPPER}.toml")).unwrap();
                assert!(settings.contains("socket = \"/run/siforge/agent.sock\""), "{settings}");
                let configured = main == Some(CONFIGURED[0].1);
                assert_eq!(settings.contains("runtime = \"/usr/sbin/runc\""), configured, "{settings}");
                assert_eq!(dump.matches("SystemdCgroup = true").count(), if configured { 2 } else { 0 }, "{dump}");

                let after = files();
                let again = machine.agent(&["install-runtime"]).ok();
                assert!(again.stdout.contains("is so already"), "{again}");
                assert_eq!(files(), after);

                machine.agent(&["uninstall-runtime"]).ok();
                assert!(!machine.has_handler() && !Path::new(LINK).is_symlink());
                assert!(Path::new(WRAPPER).is_file());
                if let Some(main) = main {
                    assert_eq!(fs::read_to_string(MAIN).unwrap(), main);
                }
            });
            assert!(tested.join().is_ok(), "{main:?}");
        }
    });
}

#[test]
fn what_is_left_to_the_administrator() {
    on_each(|containerd| {
        let check = |main: &str, expect: &str| {
            let (containerd, main, expect) = (containerd.to_owned(), main.to_owned(), expect.to_owned());
            let tested = std::thread::spawn(move || {
                let machine = Machine::new(&containerd, Some(&main));
                let before = files();
                let refused = machine.agent(&["install-runtime"]).fails_with(1);
                assert!(refused.stderr.contains(&expect), "{refused}");
                assert_eq!(files(), before);
            });
            assert!(tested.join().is_ok());
        };
        let mirrors = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"docker.io\"]\n  endpoint = [\"https://x\"]\n";
        check(mirrors, "registry.mirrors");
        check("version = \n", "does not read");
        check(
            "version = 2\n# siforge: begin (siforge-agent install-runtime wrote this, uninstall-runtime removes it)\n",
            "no end",
        );
    });
}
