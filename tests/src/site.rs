//! The project's own daemons, started as a site would: what demo, benchmarks and end-to-end tests share.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::binaries::{binary, source_root};
use crate::process::Process;
use crate::run::{Finished, run, run_within};
use crate::{Cluster, Slurm, ports, slurm};

const START: Duration = Duration::from_secs(60);
/// A conversion of a small image with an unoptimised build on a busy machine.
const READY: Duration = Duration::from_secs(600);

/// Applies the committed CRD and waits until the API server serves it.
pub fn install_crd(cluster: &Cluster) -> Finished {
    let crd = source_root().join("crds/singularityimages.siforge.dev.yaml");
    let mut apply = cluster.kubectl_command();
    run(apply.args(["apply", "--server-side", "-f"]).arg(crd)).ok();
    let name = "crd/singularityimages.siforge.dev";
    cluster.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", name]).ok()
}

/// `siforge-operator run` on a store that it makes if need be; ready when it returns. Log: `<dir>/operator.log`.
pub fn start_operator(dir: &Path, store: &Path, kubeconfig: &Path) -> Process {
    let address = format!("127.0.0.1:{}", ports::free_port());
    let mut command = Command::new(binary("siforge-operator"));
    command.args(["run", "--init-store", "--metrics-addr", &address, "--store"]).arg(store);
    command.env("KUBECONFIG", kubeconfig);
    let operator = Process::spawn("operator", dir, &command);
    let url = format!("http://{address}/readyz");
    operator
        .wait_ready(START, "answers /readyz", || run(Command::new("curl").args(["-fsS", "-m", "2", &url])).success());
    operator
}

/// `siforge-agent serve` on a store, with this socket; unmounts everything when it ends. Log: `<dir>/agent.log`.
pub fn start_agent(dir: &Path, store: &Path, socket: &Path) -> Process {
    let mut command = Command::new(binary("siforge-agent"));
    command.arg("--store").arg(store).arg("--socket").arg(socket);
    command.arg("--state-dir").arg(dir.join("agent")).args(["--node-name", "test"]);
    command.args(["serve", "--unmount-on-exit"]);
    let agent = Process::spawn("agent", dir, &command);
    agent.wait_ready(START, "listens", || UnixStream::connect(socket).is_ok());
    agent
}

/// Two nodes with the SPANK plugin and the agent's prolog and epilog.
pub fn start_slurm(dir: &Path, socket: &Path) -> Slurm {
    let hook = |name: &str| {
        let path = dir.join(name);
        let agent = binary("siforge-agent");
        let text = format!("#!/bin/sh\nexec {} --socket {} slurm {name}\n", agent.display(), socket.display());
        fs::write(&path, text)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)))
            .unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
        path
    };
    let plugin = binary("libsiforge_spank.so");
    Slurm::start(slurm::Options {
        plugstack: format!("required {} socket={}\n", plugin.display(), socket.display()),
        prolog: Some(hook("prolog")),
        epilog: Some(hook("epilog")),
        ..slurm::Options::default()
    })
}

/// A SingularityImage of a reference (without `docker://`) of a plain HTTP registry that everyone may launch, as YAML.
pub fn image_manifest(namespace: &str, name: &str, reference: &str) -> String {
    format!(
        "apiVersion: siforge.dev/v1alpha1\nkind: SingularityImage\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  source: {{docker: {{reference: \"{reference}\", tls: {{plainHTTP: true}}}}}}\n  access: {{namespaces: {{from: All}}}}\n"
    )
}

/// Applies [`image_manifest`] and waits until the operator has published the image.
pub fn publish(cluster: &Cluster, namespace: &str, name: &str, reference: &str) {
    cluster.apply(&image_manifest(namespace, name, reference)).ok();
    let object = format!("singularityimage/{name}");
    let mut wait = cluster.kubectl_command();
    run_within(READY, wait.args(["wait", "--for=condition=Ready", "--timeout=590s", "-n", namespace, &object])).ok();
}

/// Where the agent of a site listens: short, since a Unix socket's path has 107 bytes at most.
pub fn socket_in(dir: &Path) -> PathBuf {
    dir.join("agent.sock")
}
