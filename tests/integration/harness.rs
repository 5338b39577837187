//! The harness itself: real parts come up, answer, and go away with what they started.

use std::process::Command;
use std::time::Duration;

use siforge_tests::registry::{Auth, Options};
use siforge_tests::{
    Cluster, Compression, Image, Process, Registry, Slurm, Tar, User, images, push_index, run, slurm, wait_until,
};

const SOON: Duration = Duration::from_secs(20);

fn is_alive(pid: u32) -> bool {
    // A zombie whose parent has not looked yet is not alive.
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn a_dropped_process_takes_its_descendants_along() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    // The inner shell leaves its session and its parent, as daemons do.
    command.args(["-c", "setsid sh -c 'echo inner $$; exec sleep 1000' & sleep 1000"]);
    let process = Process::spawn("daemon", dir.path(), &command);
    process.wait_ready(SOON, "says its pid", || process.log().contains("inner "));
    let inner: u32 = process.log().trim().trim_start_matches("inner ").parse().unwrap();
    let outer = process.pid();
    assert!(is_alive(inner) && is_alive(outer));
    process.kill9();
    assert_eq!(process.exit_code(), Some(137));
    assert!(is_alive(inner), "kill -9 ends the daemon alone");
    drop(process);
    wait_until(SOON, "both are gone", || !is_alive(inner) && !is_alive(outer));
}

#[test]
fn registries_of_every_kind_take_and_serve_an_image() {
    let image = Image::new().layer(Tar::new().file("hello", 0o644, "hello").finish(), Compression::Gzip);
    for tls in [false, true] {
        for auth in [Auth::None, Auth::Htpasswd, Auth::Token] {
            let registry = Registry::start(Options { tls, auth });
            let digest = registry.push("public/hello:v1", &image);
            assert!(digest.starts_with("sha256:"), "{digest}");
            assert!(registry.blob_path(&digest).is_file(), "{tls} {auth:?}");
            let anonymous = inspect(&registry, "public/hello:v1", false);
            assert_eq!(anonymous.success(), auth != Auth::Htpasswd, "{tls} {auth:?}: {anonymous}");
            assert!(inspect(&registry, "public/hello:v1", true).ok().stdout.contains("amd64"), "{tls} {auth:?}");
        }
    }
}

fn inspect(registry: &Registry, name: &str, known: bool) -> siforge_tests::Finished {
    let mut skopeo = Command::new("skopeo");
    skopeo.args(["inspect", "--config", "--raw"]);
    match registry.ca_dir() {
        Some(dir) => skopeo.arg("--cert-dir").arg(dir),
        None => skopeo.arg("--tls-verify=false"),
    };
    match registry.credentials().filter(|_| known) {
        Some((user, password)) => skopeo.arg("--creds").arg(format!("{user}:{password}")),
        None => skopeo.arg("--no-creds"),
    };
    run(skopeo.arg(registry.reference(name)))
}

#[test]
fn a_registry_serves_indexes_schema_2_and_comes_back() {
    let mut registry = Registry::plain();
    let layer = || Tar::new().file("a", 0o644, "a").finish();
    let images = ["amd64", "arm64"].map(|arch| Image::new().layer(layer(), Compression::Zstd).architecture(arch));
    let index = push_index(&registry, "multi", &images);
    let raw = |registry: &Registry, name: &str| {
        run(Command::new("skopeo").args(["inspect", "--raw", "--tls-verify=false", &registry.reference(name)]))
            .ok()
            .stdout
    };
    assert!(raw(&registry, &format!("multi@{index}")).contains("arm64"));
    registry.push("docker", &Image::new().layer(layer(), Compression::Gzip).docker_schema2());
    assert!(raw(&registry, "docker").contains("application/vnd.docker.distribution.manifest.v2+json"));
    registry.stop();
    assert!(!inspect(&registry, "docker", false).success());
    registry.restart();
    inspect(&registry, "docker", false).ok();
}

#[test]
fn a_cluster_answers_kubectl_and_asks_rbac_about_whom_we_are() {
    let cluster = Cluster::shared();
    let namespace = cluster.namespace();
    cluster
        .apply(&format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a, namespace: {namespace}}}\ndata: {{k: v}}\n"
        ))
        .ok();
    assert_eq!(cluster.get(&namespace, "configmap", "a").unwrap()["data"]["k"], "v");
    assert!(cluster.get(&namespace, "configmap", "b").unwrap_err().contains("not found"));
    let stranger = cluster.kubeconfig_for("stranger", &["nobodies"]);
    let mut kubectl = Command::new(cluster.bin_dir().join("kubectl"));
    let refused = run(kubectl.args(["get", "configmaps", "-n", &namespace, "--kubeconfig"]).arg(stranger));
    assert!(refused.stderr.contains("User \"stranger\" cannot list"), "{refused}");
}

#[test]
fn slurm_runs_steps_and_jobs_of_a_user_and_leaves_nothing() {
    let slurm = Slurm::start(slurm::Options::default());
    let user = User::ordinary();
    let ran = slurm.srun_as(user, &["-N2", "--ntasks-per-node=1", "id", "-u"]).ok();
    assert_eq!(ran.stdout.split_whitespace().collect::<Vec<_>>(), [user.uid.to_string(), user.uid.to_string()]);
    let job = slurm.sbatch(user, &[], "#!/bin/sh\necho out; exit 3\n");
    assert_eq!((job.state.as_str(), job.exit_code.as_str(), job.output.as_str()), ("FAILED", "3:0", "out\n"));
    slurm.wait_idle(SOON);
    // A step that runs when Slurm goes down goes with it.
    let dir = user.tempdir();
    let file = dir.path().join("pid");
    let mut srun = slurm.command_as(user, "srun");
    srun.args(["sh", "-c", &format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 1000", file.display())]);
    let step = Process::spawn("srun", dir.path(), &srun);
    step.wait_ready(SOON, "runs", || file.exists());
    let pid: u32 = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
    assert!(is_alive(pid));
    drop(slurm);
    wait_until(SOON, "the step is gone", || !is_alive(pid));
}

#[test]
fn lolcow_has_what_a_hard_image_has() {
    let registry = Registry::plain();
    images::push_lolcow(&registry, "lolcow");
    let config = inspect(&registry, "lolcow", false).ok().stdout;
    assert!(config.contains("fortune | cowsay | lolcat"), "{config}");
    let layout = images::lolcow_layout();
    let list = run(Command::new("bash").args(["-c", LIST_LAYERS, "list"]).arg(&layout)).ok().stdout;
    for needle in ["usr/games/cowsay", "usr/games/lolcat", "/.wh.", ".wh..wh..opq", "link to usr/games/fortune"] {
        assert!(list.contains(needle), "no {needle} in the layers");
    }
}

/// Lists every layer of the layout `$1`.
const LIST_LAYERS: &str = r#"set -eu; cd "$1/blobs/sha256"
manifest=$(jq -r '.manifests[] | select(.annotations["org.opencontainers.image.ref.name"] == "image").digest[7:]' ../../index.json)
jq -r '.layers[].digest[7:]' "$manifest" | while read -r layer; do tar -tvzf "$layer"; done"#;

#[test]
fn a_kept_process_lives_until_somebody_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "sleep 1000 & echo child $!; wait"]);
    let process = Process::spawn("kept", dir.path(), &command);
    process.wait_ready(SOON, "says its child", || process.log().contains("child "));
    let child: u32 = process.log().trim().trim_start_matches("child ").parse().unwrap();
    let pid = process.keep();
    // The guard reads the farewell within milliseconds; what matters is that it then does nothing.
    let died = siforge_tests::wait::holds_within(Duration::from_secs(1), &mut || !is_alive(pid));
    assert!(!died && is_alive(child));
    run(Command::new("kill").arg(pid.to_string())).ok();
    wait_until(SOON, "both are gone", || !is_alive(pid) && !is_alive(child));
}
