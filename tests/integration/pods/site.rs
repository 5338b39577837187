//! A cluster with one node, the operator and an agent, and a namespace that enforces Pod Security `restricted`.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use siforge_tests::run::Finished;
use siforge_tests::wait::wait_for;
use siforge_tests::{Cluster, Compression, Node, Process, Registry, Tar, binary, images, site};

/// A pod from nothing to its end on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);

/// See the module; dropped from the first to the last.
pub(super) struct Site {
    pub(super) agent: Process,
    pub(super) node: Node,
    _operator: Process,
    registry: Registry,
    pub(super) cluster: &'static Cluster,
    pub(super) namespace: String,
    dir: tempfile::TempDir,
}

impl Site {
    pub(super) fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("siforge-pods-").tempdir().unwrap();
        let cluster = Cluster::shared();
        site::install_crd(cluster);
        let class = "{apiVersion: node.k8s.io/v1, kind: RuntimeClass, metadata: {name: siforge}, handler: siforge}";
        cluster.apply(class).ok();
        let namespace = restricted_namespace(cluster);
        let registry = Registry::plain();
        let proof = Tar::new().file("proof", 0o644, "made of layers\n").finish();
        registry.push("tiny:latest", &images::tiny().layer(proof, Compression::Gzip));

        let store = dir.path().join("store");
        std::fs::create_dir(&store).unwrap();
        let operator = site::start_operator(dir.path(), &store, &cluster.kubeconfig());
        let node = Node::start(cluster, dir.path(), &site::socket_in(dir.path()));
        let agent = start_agent(dir.path(), &node);
        let site = Self { agent, node, _operator: operator, registry, cluster, namespace, dir };
        site.publish("tiny");
        site
    }

    /// Makes a SingularityImage of `tiny` that pods of every namespace may use, and waits until it is Ready.
    pub(super) fn publish(&self, name: &str) {
        site::publish(self.cluster, &self.namespace, name, &format!("{}/tiny:latest", self.registry.address()));
    }

    /// Starts a pod of one container, given as the rest of its YAML, in an image of the namespace.
    pub(super) fn run_pod(&self, pod: &str, image: &str, container: &str) {
        self.run_pod_in(&self.namespace, pod, &format!("{}/{image}", self.namespace), container);
    }

    pub(super) fn run_pod_in(&self, namespace: &str, pod: &str, image: &str, container: &str) {
        let node = self.node.name();
        let yaml = format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {pod}, namespace: {namespace}}}, spec: {{nodeName: {node}, runtimeClassName: siforge, restartPolicy: Never, terminationGracePeriodSeconds: 1, containers: [{{name: c, image: \"siforge.dev/{image}\", {container}}}]}}}}"
        );
        self.cluster.apply(&yaml).ok();
    }

    /// Waits until a pod has ended well, and gives what it wrote.
    pub(super) fn finished(&self, pod: &str) -> String {
        wait_for(DEADLINE, &format!("pod {pod} succeeds"), || match self.field(pod, "{.status.phase}").as_str() {
            "Succeeded" => Ok(()),
            "Failed" => panic!("pod {pod} failed: {}{}", self.log(pod), self.described(pod)),
            phase => Err(format!("{phase}; {}", self.described(pod))),
        });
        self.log(pod).ok().stdout
    }

    pub(super) fn log(&self, pod: &str) -> Finished {
        self.cluster.kubectl(&["logs", "-n", &self.namespace, pod])
    }

    pub(super) fn field(&self, pod: &str, path: &str) -> String {
        let output = format!("jsonpath={path}");
        self.cluster.kubectl(&["get", "pod", "-n", &self.namespace, pod, "-o", &output]).stdout
    }

    pub(super) fn described(&self, pod: &str) -> String {
        let described = self.cluster.kubectl(&["describe", "pod", "-n", &self.namespace, pod]).stdout;
        let logs = [self.node.containerd().log_path(), self.agent.log_path()].map(siforge_tests::process::tail);
        format!("{described}\n{}", logs.join("\n"))
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

fn restricted_namespace(cluster: &Cluster) -> String {
    let namespace = cluster.namespace();
    cluster.kubectl(&["label", "namespace", &namespace, "pod-security.kubernetes.io/enforce=restricted"]).ok();
    namespace
}

/// The agent in the node's network, where its registry is on loopback.
fn start_agent(dir: &std::path::Path, node: &Node) -> Process {
    let socket = site::socket_in(dir);
    let mut command: Command = node.command(&binary("siforge-agent"));
    command.arg("--store").arg(dir.join("store")).arg("--socket").arg(&socket);
    command.arg("--state-dir").arg(dir.join("agent")).args(["--node-name", "test", "--registry", "127.0.0.1:5057"]);
    command.args(["serve", "--unmount-on-exit"]);
    let agent = Process::spawn("agent", dir, &command);
    agent.wait_ready(DEADLINE, "listens", || std::os::unix::net::UnixStream::connect(&socket).is_ok());
    agent
}
