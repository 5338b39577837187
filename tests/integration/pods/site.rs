//! A cluster with one node, the operator and an agent, and a namespace that enforces Pod Security `restricted`.

use std::ops::Deref;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use siforge_tests::process::tail;
use siforge_tests::run::run_within;
use siforge_tests::wait::wait_for;
use siforge_tests::{Cluster, Compression, Image, Node, Process, Registry, Tar, binary, images, site};

/// A pod from nothing to its end on a busy machine.
pub(super) const DEADLINE: Duration = Duration::from_secs(120);
/// A conversion of a small image with an unoptimised build on a busy machine.
const READY: Duration = Duration::from_secs(600);

/// See the module; dropped from the first to the last.
pub(super) struct Site {
    pub(super) agent: Process,
    pub(super) node: Node,
    _operator: Process,
    registry: Registry,
    pods: Pods,
    dir: tempfile::TempDir,
}

/// The pods of a namespace.
pub(super) struct Pods {
    pub(super) cluster: &'static Cluster,
    pub(super) namespace: String,
    node: String,
    logs: Vec<std::path::PathBuf>,
}

impl Deref for Site {
    type Target = Pods;

    fn deref(&self) -> &Pods {
        &self.pods
    }
}

impl Site {
    /// Has the image `tiny`, for all namespaces.
    pub(super) fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("siforge-pods-").tempdir().unwrap();
        let cluster = Cluster::shared();
        site::install_crd(cluster);
        let class = "{apiVersion: node.k8s.io/v1, kind: RuntimeClass, metadata: {name: siforge}, handler: siforge}";
        cluster.apply(class).ok();
        let registry = Registry::plain();
        let store = dir.path().join("store");
        std::fs::create_dir(&store).unwrap();
        let operator = site::start_operator(dir.path(), &store, &cluster.kubeconfig());
        let node = Node::start(cluster, dir.path(), &site::socket_in(dir.path()));
        let agent = start_agent(dir.path(), &node);
        let logs = [agent.log_path(), node.containerd().log_path()].map(Into::into).to_vec();
        let pods = Pods { cluster, namespace: restricted_namespace(cluster), node: node.name().to_owned(), logs };
        let site = Self { agent, node, _operator: operator, registry, pods, dir };
        site.push("tiny", &with_proof());
        site.publish("tiny", "All");
        site.push("late", &images::tiny());
        site
    }

    pub(super) fn push(&self, name: &str, image: &Image) {
        self.registry.push(&format!("{name}:latest"), image);
    }

    /// Makes a SingularityImage of what was pushed under its name, and waits until it is Ready.
    pub(super) fn publish(&self, name: &str, from: &str) {
        let manifest =
            site::image_manifest(&self.namespace, name, &format!("{}/{name}:latest", self.registry.address()));
        self.cluster.apply(&manifest.replace("from: All", &format!("from: {from}"))).ok();
        let object = format!("singularityimage/{name}");
        let mut wait = self.cluster.kubectl_command();
        wait.args(["wait", "--for=condition=Ready", "--timeout=590s", "-n", &self.namespace, &object]);
        run_within(READY, &mut wait).ok();
    }

    /// Another namespace of the same policy.
    pub(super) fn other_namespace(&self) -> Pods {
        let Pods { cluster, node, logs, .. } = &self.pods;
        Pods { cluster, namespace: restricted_namespace(cluster), node: node.clone(), logs: logs.clone() }
    }

    /// Starts a pod in an image of the namespace.
    pub(super) fn run_pod(&self, pod: &str, image: &str, container: &str) {
        self.run_pod_of(pod, &format!("siforge.dev/{}/{image}", self.namespace), container);
    }

    /// What the shadow of an image is marked with.
    pub(super) fn marker(&self, name: &str) -> String {
        let (namespace, digest) = (&self.namespace, self.digest(name));
        serde_json::json!({"format": 1, "namespace": namespace, "name": name, "digest": digest}).to_string()
    }

    /// One that takes the place of an agent that was killed.
    pub(super) fn start_agent(&self) -> Process {
        start_agent(self.dir.path(), &self.node)
    }

    /// Mount points of a file system type below the site's folder.
    pub(super) fn mounts(&self, kind: &str) -> Vec<String> {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let below =
            |line: &&str| line.contains(&*self.dir.path().to_string_lossy()) && line.contains(&format!(" {kind} "));
        mounts.lines().filter(below).map(str::to_owned).collect()
    }

    /// How often the kernel has an image mounted.
    pub(super) fn mounts_of(&self, name: &str) -> usize {
        let digest = self.digest(name);
        self.mounts("squashfs").iter().filter(|line| line.contains(digest.trim_start_matches("sha256:"))).count()
    }

    fn digest(&self, name: &str) -> String {
        let path = "jsonpath={.status.artifacts[0].digest}";
        self.cluster.kubectl(&["get", "singularityimage", name, "-n", &self.namespace, "-o", path]).ok().stdout
    }
}

impl Pods {
    /// Starts a pod of one container, given by its image and the rest of its YAML.
    pub(super) fn run_pod_of(&self, pod: &str, image: &str, container: &str) {
        let Self { namespace, node, .. } = self;
        let pull = if image.starts_with("localhost/") { ", imagePullPolicy: Never" } else { "" };
        let yaml = format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {pod}, namespace: {namespace}}}, spec: {{nodeName: {node}, runtimeClassName: siforge, restartPolicy: Never, terminationGracePeriodSeconds: 1, enableServiceLinks: false, containers: [{{name: c, image: \"{image}\"{pull}, {container}}}]}}}}"
        );
        self.cluster.apply(&yaml).ok();
    }

    pub(super) fn wait_phase(&self, pod: &str, wanted: &str) {
        let over = |phase: &str| phase == "Failed" || phase == "Succeeded";
        wait_for(DEADLINE, &format!("pod {pod} is {wanted}"), || match self.field(pod, "{.status.phase}") {
            phase if phase == wanted => Ok(()),
            phase if over(&phase) => panic!("pod {pod} is {phase}: {}{}", self.log(pod), self.described(pod)),
            phase => Err(format!("{phase}; {}", self.described(pod))),
        });
    }

    /// Waits until a pod has ended well, and gives what it wrote.
    pub(super) fn finished(&self, pod: &str) -> String {
        self.wait_phase(pod, "Succeeded");
        self.log(pod)
    }

    /// Waits until the pod's container waits for its image, and says why.
    pub(super) fn waits_for(&self, pod: &str, reason: &str) {
        self.says(pod, "{.status.containerStatuses[0].state.waiting.message}", reason);
    }

    /// Waits until the pod has failed before its container began, and says why.
    pub(super) fn fails_with(&self, pod: &str, reason: &str) {
        self.says(pod, "{.status.containerStatuses[0].state.terminated.message}", reason);
        assert_eq!(self.field(pod, "{.status.containerStatuses[0].state.terminated.reason}"), "StartError");
    }

    fn says(&self, pod: &str, path: &str, reason: &str) {
        wait_for(DEADLINE, &format!("pod {pod} says: {reason}"), || match self.field(pod, path).contains(reason) {
            true => Ok(()),
            false => Err(self.described(pod)),
        });
    }

    fn log(&self, pod: &str) -> String {
        let log = self.cluster.kubectl(&["logs", "-n", &self.namespace, pod]);
        format!("{}{}", log.stdout, log.stderr)
    }

    fn field(&self, pod: &str, path: &str) -> String {
        let output = format!("jsonpath={path}");
        self.cluster.kubectl(&["get", "pod", "-n", &self.namespace, pod, "-o", &output]).stdout
    }

    fn described(&self, pod: &str) -> String {
        let described = self.cluster.kubectl(&["describe", "pod", "-n", &self.namespace, pod]).stdout;
        let logs: Vec<String> = self.logs.iter().map(|path| tail(path)).collect();
        format!("{described}\n{}", logs.join("\n"))
    }
}

/// An image with a file that no other has.
pub(super) fn with_proof() -> Image {
    let proof = Tar::new().file("proof", 0o644, "made of layers\n").finish();
    images::tiny().layer(proof, Compression::Gzip)
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
    command.arg("--state-dir").arg(dir.join("agent")).args(["--node-name", "test", "--registry", "127.0.0.1:577"]);
    command.args(["--linger", "20", "serve", "--unmount-on-exit"]);
    let agent = Process::spawn("agent", dir, &command);
    agent.wait_ready(DEADLINE, "listens", || UnixStream::connect(&socket).is_ok());
    agent
}
