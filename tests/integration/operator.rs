//! The operator's binary against a real API server and a real registry: what people and `kubectl` see.
//!
//! Every test has a namespace, a store and an operator of its own that looks at this namespace alone; the API server is shared.

mod archive;
mod faults;
mod life;
mod schema;

use serde_json::Value;
use siforge_store::{Ref, Store};
use siforge_tests::wait::wait_for;
use siforge_tests::{Cluster, Compression, Image, Process, Registry, Tar, binary, free_port, run};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;
use tempfile::TempDir;

/// A small image takes a second on an idle machine.
const SOON: Duration = Duration::from_secs(90);

fn cluster() -> &'static Cluster {
    static READY: OnceLock<()> = OnceLock::new();
    let cluster = Cluster::shared();
    READY.get_or_init(|| {
        let crd = run(Command::new(binary("siforge-operator")).arg("crd")).ok().stdout;
        cluster.apply(&crd).ok();
        let args = ["wait", "--for=condition=Established", "--timeout=60s", "crd/singularityimages.siforge.dev"];
        cluster.kubectl(&args).ok();
    });
    cluster
}

/// A namespace, a store, an operator.
struct Site {
    cluster: &'static Cluster,
    namespace: String,
    dir: TempDir,
    port: u16,
    operator: Option<Process>,
}

impl Site {
    fn new() -> Self {
        let mut site = Self::without_operator();
        site.start();
        site
    }

    fn without_operator() -> Self {
        let cluster = cluster();
        let dir = tempfile::Builder::new().prefix("siforge-site-").tempdir().expect("tempdir");
        Self { cluster, namespace: cluster.namespace(), dir, port: free_port(), operator: None }
    }

    fn store_path(&self) -> std::path::PathBuf {
        self.dir.path().join("store")
    }

    fn store(&self) -> Store {
        Store::open(&self.store_path()).expect("open the store")
    }

    fn published(&self, name: &str) -> Option<Ref> {
        self.store().read_ref(&self.namespace, name).expect("read the ref")
    }

    /// Looks at the site's namespace; its Lease is in `lease_namespace`.
    fn command_in(&self, lease_namespace: &str) -> Command {
        let mut command = Command::new(binary("siforge-operator"));
        command.arg("run").arg("--init-store").arg("--store").arg(self.store_path());
        command.args(["--namespace", &self.namespace, "--lease-namespace", lease_namespace, "--lease-duration", "6"]);
        command.arg(format!("--metrics-addr=127.0.0.1:{}", self.port)).env("KUBECONFIG", self.cluster.kubeconfig());
        command
    }

    fn start(&mut self) {
        let command = self.command_in(&self.namespace);
        self.start_with(&command);
    }

    fn start_with(&mut self, command: &Command) {
        let process = Process::spawn("operator", self.dir.path(), command);
        process.wait_ready(SOON, "leads", || {
            self.get("/metrics").is_ok_and(|text| text.lines().any(|line| line == "siforge_leader 1"))
        });
        self.operator = Some(process);
    }

    fn operator(&self) -> &Process {
        self.operator.as_ref().expect("the operator runs")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("operator.log")).unwrap_or_default()
    }

    /// The body of what the operator's HTTP server answers with 200.
    fn get(&self, path: &str) -> Result<String, String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).map_err(|e| e.to_string())?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").map_err(|e| e.to_string())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(|e| e.to_string())?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("no head")?;
        if head.starts_with("HTTP/1.1 200 ") { Ok(body.to_owned()) } else { Err(head.to_owned()) }
    }

    /// The value of a series of /metrics, labels included in the name.
    fn metric(&self, series: &str) -> f64 {
        let text = self.get("/metrics").expect("scrape");
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(series))
            .unwrap_or_else(|| panic!("{series} is missing in\n{text}"));
        line.trim().parse().expect(line)
    }

    /// Applies a SingularityImage with this spec (a YAML flow mapping).
    fn apply(&self, name: &str, spec: &str) {
        self.cluster.apply(&self.manifest(name, spec)).ok();
    }

    fn manifest(&self, name: &str, spec: &str) -> String {
        format!(
            "apiVersion: siforge.dev/v1alpha1\nkind: SingularityImage\nmetadata: {{name: \"{name}\", namespace: {}}}\nspec: {spec}\n",
            self.namespace
        )
    }

    fn kubectl(&self, args: &[&str]) -> String {
        self.cluster.kubectl(&[&["-n", &self.namespace], args].concat()).ok().stdout
    }

    fn object(&self, name: &str) -> Value {
        self.cluster.get(&self.namespace, "sif", name).expect(name)
    }

    /// Waits with kubectl itself; says what stands in the object and in the log otherwise.
    fn wait_ready(&self, name: &str) -> Value {
        let args = ["wait", "-n", &self.namespace, "--for=condition=Ready", "--timeout=90s", &format!("sif/{name}")];
        let waited = self.cluster.kubectl(&args);
        assert!(waited.success(), "{}\n{:#}\n{}", waited.output(), self.object(name)["status"], self.log());
        self.object(name)
    }

    /// Waits until the condition has this status and reason, for the object's generation; gives its message.
    fn wait_condition(&self, name: &str, kind: &str, status: &str, reason: &str) -> String {
        wait_for(SOON, &format!("{name}: {kind}={status} {reason}"), || {
            let object = self.object(name);
            let found = condition(&object, kind).ok_or_else(|| format!("{:#}", object["status"]))?;
            let same = found["status"] == status
                && found["reason"] == reason
                && found["observedGeneration"] == object["metadata"]["generation"];
            if same {
                Ok(found["message"].as_str().unwrap_or_default().to_owned())
            } else {
                Err(format!("{:#}", object["status"]))
            }
        })
    }

    /// Names of unfinished files anywhere in the store.
    fn leftovers(&self) -> Vec<String> {
        let mut found = Vec::new();
        walk(&self.store_path(), &mut |path| {
            if path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(siforge_store::layout::TEMP_PREFIX))
            {
                found.push(path.display().to_string());
            }
        });
        found
    }
}

fn walk(dir: &Path, visit: &mut dyn FnMut(&Path)) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        visit(&path);
        if path.is_dir() {
            walk(&path, visit);
        }
    }
}

fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

/// One small layer whose contents tell images apart.
fn image(text: &str) -> Image {
    let layer = Tar::new().dir("etc", 0o755).file("etc/motd", 0o644, text).finish();
    Image::new().layer(layer, Compression::Gzip).config("Cmd", serde_json::json!(["/bin/true"]))
}

/// `{source: {docker: …}}` for a plain-HTTP registry.
fn docker(registry: &Registry, name: &str) -> String {
    format!("{{source: {{docker: {{reference: \"{}/{name}\", tls: {{plainHTTP: true}}}}}}}}", registry.address())
}

/// The same with more members of spec: `, suspend: true`.
fn docker_and(registry: &Registry, name: &str, more: &str) -> String {
    let spec = docker(registry, name);
    format!("{}, {more}}}", spec.strip_suffix('}').expect("a mapping"))
}
