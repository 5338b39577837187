//! A Kubernetes control plane of etcd and kube-apiserver on 127.0.0.1: what controllers talk to, without nodes.
//!
//! ```text
//!   dir/pki/ca.{crt,key} apiserver.{crt,key} sa.{key,pub}    made by openssl
//!   dir/tokens.csv       token,user,uid,"groups"             kube-apiserver --token-auth-file
//!   dir/admin.kubeconfig                                     system:masters
//!   dir/<user>.kubeconfig                                    Cluster::kubeconfig_for: the same token, impersonating
//! ```
//! There is no controller manager: service accounts, garbage collection of owned objects and Endpoints do not happen.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use crate::process::Process;
use crate::run::{Finished, run, run_within};
use crate::{binaries, config, ports};

/// Six seconds on an idle machine.
const START: Duration = Duration::from_secs(120);
/// kube-apiserver from nothing on two busy cores, module download included.
const BUILD: Duration = Duration::from_secs(3000);
/// The version that tests/kube/go.mod requires; part of the cache folder's name.
pub const KUBE_VERSION: &str = "1.36.3";

/// A running API server; ends, and its folder goes, with the value.
#[derive(Debug)]
pub struct Cluster {
    // Dropped in this order: the API server before its etcd.
    apiserver: Process,
    etcd: Process,
    port: u16,
    bin: PathBuf,
    dir: TempDir,
}

impl Cluster {
    /// One for the whole test binary; tests keep apart by [`Cluster::namespace`].
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    pub fn start() -> Self {
        let bin = kube_binaries();
        let dir =
            tempfile::Builder::new().prefix("siforge-kube-").tempdir().unwrap_or_else(|e| panic!("make a folder: {e}"));
        make_keys(dir.path());
        let [etcd_port, peer_port, port] = [(); 3].map(|()| ports::free_port());
        let etcd = Process::spawn("etcd", dir.path(), &etcd_command(&bin, dir.path(), etcd_port, peer_port));
        let apiserver =
            Process::spawn("kube-apiserver", dir.path(), &apiserver_command(&bin, dir.path(), port, etcd_port));
        let cluster = Self { apiserver, etcd, port, bin, dir };
        cluster.write_kubeconfig("admin", "{token: admin-token}");
        let ready = || {
            cluster.kubectl(&["get", "--raw", "/readyz"]).success()
                && cluster.kubectl(&["get", "namespace", "default"]).success()
        };
        cluster.apiserver.wait_ready(START, "answers /readyz", ready);
        cluster
    }

    /// The kubeconfig of an administrator.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("admin.kubeconfig")
    }

    /// A kubeconfig that acts as this user and these groups, by impersonation: RBAC is asked about them, not about us.
    pub fn kubeconfig_for(&self, user: &str, groups: &[&str]) -> PathBuf {
        let groups = groups.iter().map(|group| format!("\"{group}\"")).collect::<Vec<_>>().join(", ");
        self.write_kubeconfig(
            &user.replace(':', "-"),
            &format!("{{token: admin-token, as: \"{user}\", as-groups: [{groups}]}}"),
        )
    }

    /// A kubeconfig of a node's kubelet, which reaches the API server by another address.
    pub fn node_kubeconfig(&self, node: &str, server: &str) -> PathBuf {
        let user = format!("{{token: admin-token, as: \"system:node:{node}\", as-groups: [\"system:nodes\"]}}");
        self.write_kubeconfig_for(
            &format!("node-{node}"),
            &user,
            &format!("server: \"{server}\", tls-server-name: localhost"),
        )
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Folder with what a node needs, too: kubelet, containerd, its shim, ctr.
    pub fn node_binaries(&self) -> PathBuf {
        static BUILT: OnceLock<PathBuf> = OnceLock::new();
        BUILT.get_or_init(|| build_binaries(&["node"])).clone()
    }

    /// `https://127.0.0.1:PORT`.
    pub fn server(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// The kubectl of the API server's version, as administrator.
    pub fn kubectl(&self, args: &[&str]) -> Finished {
        run(self.kubectl_command().args(args))
    }

    /// The same for callers that add to the command.
    pub fn kubectl_command(&self) -> Command {
        let mut command = Command::new(self.bin.join("kubectl"));
        // Its discovery cache would otherwise go to ~/.kube and outlive this cluster.
        command
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .arg("--cache-dir")
            .arg(self.dir.path().join("kubectl-cache"));
        command
    }

    /// `kubectl apply` of manifests given as text.
    pub fn apply(&self, yaml: &str) -> Finished {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let path = self.dir.path().join(format!("apply-{}.yaml", COUNT.fetch_add(1, Ordering::Relaxed)));
        write(&path, yaml);
        run(self.kubectl_command().args(["apply", "--server-side", "--force-conflicts", "-f"]).arg(path))
    }

    /// Makes a namespace with a name that no other test has.
    pub fn namespace(&self) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        self.kubectl(&["create", "namespace", &name]).ok();
        name
    }

    /// An object as JSON, or the reason why there is none.
    pub fn get(&self, namespace: &str, kind: &str, name: &str) -> Result<serde_json::Value, String> {
        let got = self.kubectl(&["get", "-n", namespace, kind, name, "-o", "json"]);
        if !got.success() {
            return Err(got.stderr);
        }
        serde_json::from_str(&got.stdout).map_err(|e| format!("kubectl's JSON of {kind} {name}: {e}"))
    }

    /// The end of the API server's log.
    pub fn log(&self) -> String {
        crate::process::tail(self.apiserver.log_path())
    }

    /// Pids of the API server and etcd.
    pub fn pids(&self) -> [u32; 2] {
        [self.apiserver.pid(), self.etcd.pid()]
    }

    /// Folder with kube-apiserver, etcd and kubectl.
    pub fn bin_dir(&self) -> &Path {
        &self.bin
    }

    /// Leaves it running: pids and the folder.
    pub fn keep(self) -> (Vec<u32>, PathBuf) {
        let Self { apiserver, etcd, port: _, bin: _, dir } = self;
        (vec![apiserver.keep(), etcd.keep()], dir.keep())
    }

    fn write_kubeconfig(&self, name: &str, user: &str) -> PathBuf {
        self.write_kubeconfig_for(name, user, &format!("server: \"{}\"", self.server()))
    }

    fn write_kubeconfig_for(&self, name: &str, user: &str, server: &str) -> PathBuf {
        let path = self.dir.path().join(format!("{name}.kubeconfig"));
        let ca = self.dir.path().join("pki/ca.crt");
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: test\ncontexts: [{{name: test, context: {{cluster: test, user: test}}}}]\nclusters: [{{name: test, cluster: {{{server}, certificate-authority: \"{}\"}}}}]\nusers: [{{name: test, user: {user}}}]\n",
            ca.display()
        );
        write(&path, &text);
        path
    }
}

fn etcd_command(bin: &Path, dir: &Path, port: u16, peer_port: u16) -> Command {
    let (client, peer) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer_port}"));
    let mut command = Command::new(bin.join("etcd"));
    command.args(["--name", "test", "--log-level", "warn"]).arg("--data-dir").arg(dir.join("etcd"));
    // Durability against a power cut is of no use to a test, and fsync is most of etcd's time on a slow disk.
    command.arg("--unsafe-no-fsync");
    command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
    command.args([
        "--listen-peer-urls",
        &peer,
        "--initial-advertise-peer-urls",
        &peer,
        "--initial-cluster",
        &format!("test={peer}"),
    ]);
    command
}

fn apiserver_command(bin: &Path, dir: &Path, port: u16, etcd_port: u16) -> Command {
    let pki = dir.join("pki");
    let mut command = Command::new(bin.join("kube-apiserver"));
    let mut path = |flag: &str, name: &str| {
        command.arg(format!("--{flag}={}", pki.join(name).display()));
    };
    path("tls-cert-file", "apiserver.crt");
    path("tls-private-key-file", "apiserver.key");
    path("client-ca-file", "ca.crt");
    path("service-account-key-file", "sa.pub");
    path("service-account-signing-key-file", "sa.key");
    path("token-auth-file", "tokens.csv");
    command
        .args(["--service-account-issuer=https://kubernetes.default.svc", "--service-cluster-ip-range=10.96.0.0/24"]);
    command.args(["--authorization-mode=Node,RBAC", "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1"]);
    // The admission plugin gives no pods service accounts: nobody would make them here.
    command.args(["--disable-admission-plugins=ServiceAccount", "--allow-privileged=true"]);
    // A node of the tests has a name that no DNS knows.
    command.arg("--kubelet-preferred-address-types=InternalIP");
    command.arg(format!("--secure-port={port}")).arg(format!("--etcd-servers=http://127.0.0.1:{etcd_port}"));
    command
}

fn make_keys(dir: &Path) {
    const SCRIPT: &str = r"set -eu; mkdir -p $1/pki; cd $1/pki
ec='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
openssl req -x509 $ec -keyout ca.key -out ca.crt -days 30 -subj /CN=siforge-test-kube-ca -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign
openssl req $ec -keyout apiserver.key -out apiserver.csr -subj /CN=kube-apiserver
printf 'subjectAltName=IP:127.0.0.1,IP:10.96.0.1,DNS:localhost,DNS:kubernetes.default.svc\nextendedKeyUsage=serverAuth\n' > apiserver.ext
openssl x509 -req -in apiserver.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -out apiserver.crt -extfile apiserver.ext
openssl genrsa -out sa.key 2048; openssl rsa -in sa.key -pubout -out sa.pub
echo 'admin-token,admin,admin,system:masters' > tokens.csv";
    run(Command::new("sh").args(["-c", SCRIPT, "keys"]).arg(dir)).ok();
}

/// The folder with kube-apiserver, etcd and kubectl: `KUBEBUILDER_ASSETS`, else built from the Go modules of tests/kube
/// into the cache, once.
pub fn kube_binaries() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT
        .get_or_init(|| {
            if let Some(dir) = config::kube_assets() {
                for name in ["kube-apiserver", "etcd", "kubectl"] {
                    assert!(dir.join(name).is_file(), "KUBEBUILDER_ASSETS={} has no {name}", dir.display());
                }
                return dir;
            }
            build_binaries(&[])
        })
        .clone()
}

fn build_binaries(parts: &[&str]) -> PathBuf {
    let dir = config::cache_dir().join(format!("kube-{KUBE_VERSION}"));
    let script = binaries::source_root().join("tests/scripts/build-kube.sh");
    run_within(BUILD, Command::new("bash").arg(script).arg(&dir).args(parts)).ok();
    dir
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
}
