//! The main path: a SingularityImage is applied, a user runs in it at a shell and in Slurm jobs; what goes wrong fails
//! the job and never the node.

use std::time::Duration;

use siforge_tests::{Cluster, Finished, Process, Registry, Slurm, User, binary, images, run, site};

/// Everything a site has; dropped from the last to the first.
struct Site {
    slurm: Slurm,
    agent: Process,
    _operator: Process,
    _registry: Registry,
    dir: tempfile::TempDir,
    namespace: String,
}

impl Site {
    fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("siforge-e2e-").tempdir().unwrap();
        siforge_tests::image::open_to_all(dir.path());
        let registry = Registry::plain();
        registry.push("tiny:latest", &images::tiny());
        let cluster = Cluster::shared();
        site::install_crd(cluster);
        let namespace = cluster.namespace();
        let (store, socket) = (dir.path().join("store"), site::socket_in(dir.path()));
        std::fs::create_dir(&store).unwrap();
        let operator = site::start_operator(dir.path(), &store, &cluster.kubeconfig());
        let agent = site::start_agent(dir.path(), &store, &socket);
        let slurm = site::start_slurm(dir.path(), &socket);
        site::publish(cluster, &namespace, "tiny", &format!("{}/tiny:latest", registry.address()));
        Self { slurm, agent, _operator: operator, _registry: registry, dir, namespace }
    }

    /// `sif://namespace/tiny`.
    fn image(&self) -> String {
        format!("sif://{}/tiny", self.namespace)
    }

    fn siforge(&self, user: &User, words: &[&str]) -> Finished {
        let mut siforge = user.command(binary("siforge"));
        run(siforge.args(words).env("SIFORGE_AGENT_SOCKET", site::socket_in(self.dir.path())))
    }

    fn mounts(&self) -> usize {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        mounts
            .lines()
            .filter(|line| line.contains(&*self.dir.path().to_string_lossy()) && line.contains(" squashfs "))
            .count()
    }
}

#[test]
fn from_kubectl_apply_to_a_slurm_job() {
    let site = Site::start();
    let user = User::ordinary();
    let image = site.image();

    let ran = site.siforge(user, &["exec", &image, "sh", "-c", "echo $TINY $(id -u); exit 5"]).fails_with(5);
    assert_eq!(ran.stdout, format!("yes {}\n", user.uid));

    let option = format!("--sif={image}");
    let step =
        site.slurm.srun_as(user, &["-N2", "--ntasks-per-node=2", &option, "sh", "-c", "echo $TINY $(id -u)"]).ok();
    assert_eq!(step.stdout, format!("yes {}\n", user.uid).repeat(4), "{step}");
    site.slurm.srun_as(user, &[&option, "sh", "-c", "exit 9"]).fails_with(9);
    assert_eq!(site.mounts(), 1, "one kernel mount of the node for all launches");

    let unknown = format!("--sif=sif://{}/unknown", site.namespace);
    let failed = site.slurm.srun_as(user, &[&unknown, "sh", "-c", "echo on the host"]);
    assert!(!failed.success() && !failed.stdout.contains("on the host"), "{failed}");
    assert!(failed.stderr.contains("unknown"), "the message names the image: {failed}");
    let script = format!("#!/bin/sh\nsrun {unknown} echo on the host\n");
    let job = site.slurm.sbatch(user, &[], &script);
    assert_eq!(job.state, "FAILED", "{job:?}");
    assert!(!job.output.contains("on the host\n"), "{job:?}");
    site.slurm.wait_idle(Duration::from_secs(30));

    assert_eq!(site.agent.terminate(), 0, "{}", site.agent.log());
    assert_eq!(site.mounts(), 0, "the agent unmounts at its end");
}
