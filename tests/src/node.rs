//! A node of a [`Cluster`]: containerd and kubelet in a network namespace of their own, with runc behind `siforge-runtime`.
//!
//! ```text
//!   host                                     namespace sfPORT
//!     kube-apiserver 127.0.0.1 ◀─ relay ◀── 10.213.x.1 ═veth═ 10.213.x.2 ── kubelet ─▶ containerd ─▶ shim ─▶ runc
//!                                                                            127.0.0.1: the agent's registry
//!   dir/containerd/{config.toml,root,run,cni}   dir/kubelet (a shared mount of itself)   cgroup /sfPORT
//! ```
//!
//! Handlers: `runc`, the default, and `siforge`. Nothing leaves the machine; pods reach each other and their node.

use std::fs;
use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::process::Process;
use crate::run::{Finished, run};
use crate::wait::wait_for;
use crate::{Cluster, Compression, Image, binary, images, need, ports};

/// Seconds on an idle machine.
const START: Duration = Duration::from_secs(120);
/// The image of pods' sandboxes.
const PAUSE: &str = "localhost/test/pause:1";

/// A running node; ends with the value, and so does all that it runs.
#[derive(Debug)]
pub struct Node {
    // Dropped in this order: the network and the mounts last.
    _controllers: [Process; 2],
    kubelet: Process,
    containerd: Process,
    _place: Process,
    namespace: String,
    name: String,
    bin: PathBuf,
    dir: PathBuf,
}

impl Node {
    /// Starts a node in a folder; ready when it returns. Its agent is to write `<dir>/agent/registry/hosts.toml` and to listen on
    /// `agent_socket`.
    pub fn start(cluster: &Cluster, dir: &Path, agent_socket: &Path) -> Self {
        need::root();
        let bin = cluster.node_binaries();
        let port = ports::free_port();
        let namespace = format!("sf{port}");
        let subnet = format!("10.213.{}.{{}}", (port - 20000) / 64);
        let address = |last: u16| subnet.replace("{}", &((port - 20000) % 64 * 4 + last).to_string());
        let place = make_place(dir, &namespace, &address(1), &address(2));
        let server = relay(&address(1), cluster.port());

        let containerd_dir = dir.join("containerd");
        write(&containerd_dir.join("config.toml"), &containerd_config(dir, &install_runtime(dir, agent_socket)));
        write(&containerd_dir.join("cni/10-test.conflist"), &network_config(dir));
        let mut containerd = enter(&namespace, &bin.join("containerd"));
        containerd.arg("-c").arg(containerd_dir.join("config.toml")).env("PATH", search_path(&bin));
        let containerd = Process::spawn("containerd", dir, &containerd);
        let ctr = || ctr(&bin, dir);
        containerd.wait_ready(START, "serves CRI", || run(ctr().args(["plugins", "ls"])).stdout.contains("cri "));
        import(dir, &ctr, PAUSE, &images::tiny_with(Compression::Gzip).config("Cmd", json!(["/bin/sleep", "1000000"])));

        let name = namespace.clone();
        let kubeconfig = cluster.node_kubeconfig(&name, &format!("https://{server}"));
        write(&dir.join("kubelet.yaml"), &kubelet_config(dir, &namespace, &address(2)));
        let mut kubelet = enter(&namespace, &bin.join("kubelet"));
        kubelet.arg("--config").arg(dir.join("kubelet.yaml")).arg("--kubeconfig").arg(kubeconfig);
        kubelet.arg("--root-dir").arg(dir.join("kubelet")).arg("--cert-dir").arg(dir.join("kubelet-pki"));
        kubelet.args(["--hostname-override", &name, "--node-ip", &address(2)]);
        kubelet.args(["--runtime-cgroups=/", "--oom-score-adj=0", "--v=2"]).env("PATH", search_path(&bin));
        let kubelet = Process::spawn("kubelet", dir, &kubelet);
        let ready = ["get", "node", &name, "-o", r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#];
        kubelet.wait_ready(START, "is Ready", || cluster.kubectl(&ready).stdout == "True");
        Self {
            _controllers: start_controllers(cluster, dir, &bin),
            kubelet,
            containerd,
            _place: place,
            namespace,
            name,
            bin,
            dir: dir.to_owned(),
        }
    }

    /// The Node object's name: `nodeName` of the pods that are to run here.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command in the node's network namespace.
    pub fn command(&self, program: &Path) -> Command {
        enter(&self.namespace, program)
    }

    /// containerd's `ctr` in Kubernetes' namespace.
    pub fn ctr(&self, words: &[&str]) -> Finished {
        run(ctr(&self.bin, &self.dir).args(words))
    }

    /// Puts an image into containerd.
    pub fn import(&self, name: &str, image: &Image) {
        import(&self.dir, &|| ctr(&self.bin, &self.dir), name, image);
    }

    pub fn containerd(&self) -> &Process {
        &self.containerd
    }

    pub fn kubelet(&self) -> &Process {
        &self.kubelet
    }
}

/// The scheduler, and of the controllers those that make pods of Jobs and take the taint off a node that is Ready.
fn start_controllers(cluster: &Cluster, dir: &Path, bin: &Path) -> [Process; 2] {
    let start = |name: &str, words: &[&str]| {
        let mut command = Command::new(bin.join(name));
        command
            .arg("--kubeconfig")
            .arg(cluster.kubeconfig())
            .args(["--leader-elect=false", "--bind-address=127.0.0.1"]);
        Process::spawn(name, dir, command.arg(format!("--secure-port={}", ports::free_port())).args(words))
    };
    let controllers = "--controllers=job-controller,node-lifecycle-controller";
    [start("kube-scheduler", &[]), start("kube-controller-manager", &[controllers])]
}

/// A copy of the wrapper with its settings beside it, as an installation has it.
fn install_runtime(dir: &Path, agent_socket: &Path) -> PathBuf {
    let runtime = dir.join("bin/siforge-runtime");
    write(&dir.join("bin/siforge-runtime.toml"), &format!("socket = \"{}\"\n", agent_socket.display()));
    fs::copy(binary("siforge-runtime"), &runtime).unwrap_or_else(|e| panic!("copy to {}: {e}", runtime.display()));
    let (link, hosts) = (dir.join("certs.d/siforge.dev"), dir.join("agent/registry"));
    fs::create_dir_all(dir.join("certs.d"))
        .and_then(|()| std::os::unix::fs::symlink(hosts, &link))
        .unwrap_or_else(|e| panic!("link {}: {e}", link.display()));
    runtime
}

/// The namespace with its link to the host, the kubelet's folder and the cgroup; all of it goes with the process.
fn make_place(dir: &Path, name: &str, host: &str, node: &str) -> Process {
    const SCRIPT: &str = r#"set -eu; name=$1 host=$2 node=$3 dir=$4
groups() { # mkdir|rmdir, in every hierarchy
  for root in /sys/fs/cgroup /sys/fs/cgroup/*; do
    [ -e "$root/cgroup.procs" ] || continue
    if [ "$1" = mkdir ]; then mkdir -p "$root/$name"
      for file in cpuset.cpus cpuset.mems; do [ -s "$root/$name/$file" ] || ! [ -e "$root/$file" ] || cat "$root/$file" > "$root/$name/$file"; done
    elif [ -d "$root/$name" ]; then find "$root/$name" -depth -type d -exec rmdir {} + 2> /dev/null || :; fi
  done; }
end() {
  for round in 1 2 3; do
    awk -v dir="$dir/" 'index($2, dir) == 1 {print $2}' /proc/mounts | sort -r | while read -r path; do umount -l "$path" 2> /dev/null || :; done
  done
  ip netns del "$name" || :
  groups rmdir; exit 0; }
trap end TERM INT
ip netns add "$name"
ip link add "${name}h" type veth peer name eth0 netns "$name"
ip addr add "$host/30" dev "${name}h"; ip link set "${name}h" up
ip -n "$name" link set lo up; ip -n "$name" addr add "$node/30" dev eth0; ip -n "$name" link set eth0 up
# Without a default route the kubelet finds no address of its host.
ip -n "$name" route add default via "$host"
nsenter --net="/run/netns/$name" sysctl -qw net.ipv4.ip_forward=1
mkdir -p "$dir/kubelet"; mount --bind "$dir/kubelet" "$dir/kubelet"; mount --make-rshared "$dir/kubelet"
groups mkdir
touch "$dir/place"
while :; do sleep 3600 & wait $!; done"#;
    let mut command = Command::new("bash");
    command.args(["-c", SCRIPT, "place", name, host, node]).arg(dir);
    let place = Process::spawn("place", dir, &command);
    place.wait_ready(START, "is made", || dir.join("place").exists());
    place
}

/// A command in a network namespace, and in no mount namespace of its own, as `ip netns exec` would have it.
fn enter(namespace: &str, program: &Path) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{namespace}")).arg(program);
    command
}

fn search_path(bin: &Path) -> String {
    format!("{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", bin.display())
}

fn ctr(bin: &Path, dir: &Path) -> Command {
    let mut command = Command::new(bin.join("ctr"));
    command.arg("-a").arg(dir.join("containerd/run/containerd.sock")).args(["-n", "k8s.io"]);
    command
}

fn import(dir: &Path, ctr: &dyn Fn() -> Command, name: &str, image: &Image) {
    let layout = tempfile::Builder::new().prefix("image-").tempdir_in(dir).unwrap_or_else(|e| panic!("a folder: {e}"));
    image.write_layout(layout.path());
    let archive = layout.path().join("image.tar");
    let mut skopeo = Command::new(need::program("skopeo"));
    skopeo.args(["--insecure-policy", "copy", "-q"]).arg(format!("oci:{}:image", layout.path().display()));
    run(skopeo.arg(format!("docker-archive:{}:{name}", archive.display()))).ok();
    run(ctr().args(["images", "import"]).arg(&archive)).ok();
}

/// Listens on a port of `address` and passes what comes on to a port of 127.0.0.1: the API server need not listen where other
/// machines could reach it.
fn relay(address: &str, to: u16) -> String {
    let listener = wait_for(START, "an address for the relay", || {
        TcpListener::bind((address, 0)).map_err(|error| error.to_string())
    });
    let own = listener.local_addr().unwrap_or_else(|e| panic!("address of the relay: {e}"));
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { continue };
            let (Ok(client_too), Ok(server_too)) = (client.try_clone(), server.try_clone()) else { continue };
            std::thread::spawn(move || pass(client, server));
            std::thread::spawn(move || pass(server_too, client_too));
        }
    });
    own.to_string()
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    // Whatever ends it, the other side learns that there is no more.
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

fn containerd_config(dir: &Path, runtime: &Path) -> String {
    let (root, runc) = (dir.join("containerd"), need::program("runc"));
    let root = root.display();
    let handler = |name: &str, binary: &Path, annotations: &str| {
        format!(
            "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.{name}]\n  runtime_type = 'io.containerd.runc.v2'\n  pod_annotations = [{annotations}]\n  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.{name}.options]\n    BinaryName = '{}'\n    SystemdCgroup = false\n",
            binary.display()
        )
    };
    let disabled =
        ["snapshotter.v1.btrfs", "snapshotter.v1.zfs", "snapshotter.v1.devmapper", "snapshotter.v1.blockfile"];
    let disabled = disabled.map(|plugin| format!("'io.containerd.{plugin}'")).join(", ");
    // restrict_oom_score_adj: sandboxes want -998, which takes a capability that a container's root may lack.
    format!(
        "version = 3\nroot = '{root}/root'\nstate = '{root}/run'\ndisabled_plugins = [{disabled}]\n[grpc]\n  address = '{root}/run/containerd.sock'\n[ttrpc]\n  address = '{root}/run/containerd.sock.ttrpc'\n[plugins.'io.containerd.cri.v1.images'.pinned_images]\n  sandbox = '{PAUSE}'\n[plugins.'io.containerd.cri.v1.images'.registry]\n  config_path = '{}'\n[plugins.'io.containerd.internal.v1.opt']\n  path = '{root}/opt'\n[plugins.'io.containerd.nri.v1.nri']\n  disable = true\n[plugins.'io.containerd.cri.v1.runtime']\n  netns_mounts_under_state_dir = true\n  restrict_oom_score_adj = true\n[plugins.'io.containerd.cri.v1.runtime'.cni]\n  bin_dirs = ['/usr/lib/cni']\n  conf_dir = '{root}/cni'\n[plugins.'io.containerd.cri.v1.runtime'.containerd]\n  default_runtime_name = 'runc'\n{}{}",
        dir.join("certs.d").display(),
        handler("runc", &runc, ""),
        handler("siforge", runtime, "'siforge.dev/*'"),
    )
}

fn network_config(dir: &Path) -> String {
    let ipam = json!({
        "type": "host-local", "dataDir": dir.join("ipam"), "ranges": [[{"subnet": "10.214.0.0/24"}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    });
    let bridge = json!({"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "ipam": ipam});
    json!({"cniVersion": "0.4.0", "name": "test", "plugins": [bridge]}).to_string()
}

fn kubelet_config(dir: &Path, cgroup: &str, address: &str) -> String {
    let socket = format!("unix://{}", dir.join("containerd/run/containerd.sock").display());
    // Who reaches its port is in this node's network, or on this machine as root.
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "address": address, "port": 10250, "healthzPort": 10248, "readOnlyPort": 0,
        "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs", "cgroupRoot": format!("/{cgroup}"), "failCgroupV1": false, "failSwapOn": false,
        "containerRuntimeEndpoint": socket, "imageServiceEndpoint": socket,
        "resolvConf": "", "volumePluginDir": dir.join("volumeplugins"), "podLogsDir": dir.join("pod-logs"),
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "0%", "imagefs.available": "0%", "nodefs.inodesFree": "0%"},
        "nodeStatusUpdateFrequency": "2s", "syncFrequency": "5s", "maxPods": 60,
    })
    .to_string()
}

fn write(path: &Path, text: &str) {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent)
        .and_then(|()| fs::write(path, text))
        .unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
}
