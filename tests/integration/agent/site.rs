//! A store with small images and an agent on it, in a folder of their own.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use siforge_agent_api::{Client, Limits};
use siforge_reference::Digest;
use siforge_sif::{Arch, Draft};
use siforge_store::{Access, Provenance, RefContent, Store, Visibility};
use siforge_tests::process::Process;
use siforge_tests::run::{Finished, run};
use siforge_tests::{User, binary, config, need, wait_until};

/// What an agent or a small mount may take on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
/// The file that every image has.
pub(crate) const FILE: &str = "hello";

/// See the module.
pub(crate) struct Site {
    dir: tempfile::TempDir,
    pub(crate) store: Store,
}

impl Site {
    /// An empty store.
    pub(crate) fn new() -> Self {
        need::root();
        let dir = tempfile::Builder::new().prefix("siforge-agent-").tempdir().expect("make a folder");
        // Other users reach the socket and the client through it.
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).expect("open the folder");
        let store = Store::init(&dir.path().join("store"), None).expect("make a store");
        Self { dir, store }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("state/agent.sock")
    }

    /// Where the artifact of a digest is, as the kernel names a loop device's file.
    pub(crate) fn artifact(&self, digest: &Digest) -> PathBuf {
        fs::canonicalize(self.store.layout().artifact(digest)).expect("path of an artifact")
    }

    pub(crate) fn mount_point(&self, digest: &Digest) -> PathBuf {
        self.path("state/mounts").join(digest.hex())
    }

    /// `siforge-agent` with this site's settings.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(binary("siforge-agent"));
        command.args(words).env_clear();
        command.arg("--store").arg(self.path("store")).arg("--state-dir").arg(self.path("state"));
        command.arg("--socket").arg(self.socket()).args(["--node-name", "n1", "--log", "debug"]);
        command
    }

    /// Starts an agent and waits until it answers. It runs until the value is dropped; its mounts stay until the site is.
    pub(crate) fn start(&self, words: &[&str]) -> Process {
        let agent = Process::spawn("agent", &self.path("log"), &self.command(&[&["serve"], words].concat()));
        agent.wait_ready(DEADLINE, "answers", || Client::connect(&self.socket()).is_ok());
        agent
    }

    /// A connection as root.
    pub(crate) fn client(&self) -> Client {
        Client::connect_with(&self.socket(), Limits { idle: DEADLINE, ..Limits::CLIENT }).expect("connect to the agent")
    }

    /// Publishes an image `lab/<name>` that holds [`FILE`] with its name, owned by root.
    pub(crate) fn publish(&self, name: &str, access: Access) -> Digest {
        let squashfs = self.squashfs(name);
        let draft = Draft::new(Arch::Amd64, [7; 16], 1, Vec::new()).expect("draft a SIF");
        let pending = self.store.begin().expect("begin an artifact");
        let bytes = fs::read(&squashfs).expect("read the squashfs");
        pending.file().write_all_at(&bytes, draft.partition_offset()).expect("write the partition");
        let len = draft.finish(pending.file(), bytes.len() as u64).expect("finish the SIF");
        let digest = Digest::from_bytes(Sha256::digest(fs::read(pending.path()).expect("read the SIF")).into());
        let linked = self.store.publish(pending, &digest, len, Visibility::Public).expect("publish");
        let source = Provenance {
            reference: format!("docker://registry/{name}:latest"),
            digest,
            recipe: digest,
            builder_version: "test".into(),
        };
        let content = RefContent {
            namespace: "lab".into(),
            name: name.into(),
            digest,
            size: len,
            platform: "linux/amd64".into(),
            source,
            access,
            published_at: 0,
        };
        self.store.write_ref(&content, 0, 3).expect("write the ref");
        linked.settle().expect("settle");
        digest
    }

    fn squashfs(&self, name: &str) -> PathBuf {
        let tree = self.path("tree").join(name);
        fs::create_dir_all(&tree).expect("make a tree");
        fs::write(tree.join(FILE), name).expect("write a file");
        // More than a block that does not compress: damage in it leaves the structure whole.
        let noise: Vec<u8> = (0..8192u32).flat_map(|n| Sha256::digest(n.to_le_bytes())).collect();
        fs::write(tree.join("noise"), noise).expect("write a file");
        let file = self.path(&format!("{name}.squashfs"));
        let mut command = Command::new(need::program("mksquashfs"));
        command.arg(&tree).arg(&file).args(["-noappend", "-quiet", "-no-progress", "-all-root"]);
        run(&mut command).ok();
        file
    }

    /// The client program, where every user can run it.
    fn client_program(&self) -> PathBuf {
        let copy = self.path("client");
        if !copy.exists() {
            fs::copy(built_client(), &copy).expect("copy the client");
        }
        copy
    }

    /// Runs the client to its end as a user (root when None); its JSON line.
    pub(crate) fn ask(&self, user: Option<&User>, reference: &str, options: &[&str]) -> Value {
        let finished = run(&mut self.client_command(user, reference, options)).ok();
        serde_json::from_str(&finished.stdout).unwrap_or_else(|e| panic!("{e}: {finished}"))
    }

    fn client_command(&self, user: Option<&User>, reference: &str, options: &[&str]) -> Command {
        let program = self.client_program();
        let mut command = user.map_or_else(|| Command::new(&program), |user| user.command(&program));
        command.arg(self.socket()).args([reference, FILE]).args(options);
        command
    }

    /// A client that keeps its mount.
    pub(crate) fn hold(&self, user: Option<&User>, reference: &str) -> Holder {
        let mut command = self.client_command(user, reference, &["hold"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("start the client");
        let stdin = child.stdin.take().expect("stdin of the client");
        let stdout = BufReader::new(child.stdout.take().expect("stdout of the client"));
        let mut holder = Holder { child, stdin, stdout };
        assert_eq!(holder.answer()["error"], Value::Null);
        holder
    }

    /// The agent's state as root sees it.
    pub(crate) fn status(&self) -> Value {
        let finished = run(&mut self.command(&["status", "--json"])).ok();
        serde_json::from_str(&finished.stdout).unwrap_or_else(|e| panic!("{e}: {finished}"))
    }

    pub(crate) fn slurm(&self, hook: &str, environment: &[(&str, &str)]) -> Finished {
        run(self.command(&["slurm", hook]).envs(environment.iter().copied()))
    }

    /// Loop devices that are bound to an artifact.
    pub(crate) fn loops(&self, digest: &Digest) -> usize {
        let wanted = self.artifact(digest);
        let devices = fs::read_dir("/sys/block").expect("list block devices").flatten();
        devices
            .filter_map(|device| fs::read_to_string(device.path().join("loop/backing_file")).ok())
            .filter(|file| Path::new(file.trim_end_matches('\n')) == wanted)
            .count()
    }

    /// Mounts at an artifact's mount point.
    pub(crate) fn mounts(&self, digest: &Digest) -> usize {
        let wanted = self.mount_point(digest);
        let mountinfo = fs::read_to_string("/proc/self/mountinfo").expect("read mountinfo");
        mountinfo.lines().filter(|line| line.split(' ').nth(4).is_some_and(|path| Path::new(path) == wanted)).count()
    }

    pub(crate) fn wait_loops(&self, digest: &Digest, count: usize) {
        wait_until(DEADLINE, &format!("{count} loop devices of {digest}"), || self.loops(digest) == count);
    }

    /// Digests in the node's lease.
    pub(crate) fn leased(&self) -> Vec<Digest> {
        let lease = self.store.read_lease("n1").expect("read the lease");
        lease.map(|lease| lease.digests.into_iter().collect()).unwrap_or_default()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // Agents were declared after the site and are gone; what they mounted is not.
        let finished = run(&mut self.command(&["cleanup"]));
        if !std::thread::panicking() {
            finished.ok();
        }
    }
}

/// A running client with a mount.
pub(crate) struct Holder {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Holder {
    /// Reads [`FILE`] through the mount once more.
    pub(crate) fn read(&mut self) -> String {
        self.stdin.write_all(b"\n").expect("ask the client");
        self.answer()["content"].as_str().expect("content").to_owned()
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("read the client's answer");
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // It may have ended by itself; waiting for it is what matters.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The agent's example client, built once with the profile of this test.
fn built_client() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let own = std::env::current_exe().expect("path of the test");
        let profile = own.parent().and_then(Path::parent).expect("folder of the profile");
        let target = profile.parent().expect("target folder");
        let mut cargo = Command::new(config::cargo());
        cargo.args(["build", "-q", "-p", "siforge-node-agent", "--example", "client", "--target-dir"]).arg(target);
        cargo.current_dir(siforge_tests::binaries::source_root());
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        siforge_tests::run::run_within(Duration::from_secs(1800), &mut cargo).ok();
        profile.join("examples/client")
    })
}
