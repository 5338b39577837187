//! `make demo`: the whole on one machine, from `kubectl apply` to a cow in a Slurm job.
//!
//! ```text
//!   registry ─▶ operator ◀─ etcd + kube-apiserver          all in one folder below /tmp, on free ports of 127.0.0.1
//!                  ▼
//!                store ─▶ agent ─▶ siforge run, srun --sif
//! ```

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::binaries::{binary, source_root};
use crate::process::Process;
use crate::run::{Finished, run, run_within};
use crate::user::User;
use crate::{Cluster, Registry, Slurm, config, images, need, site};

/// A conversion of lolcow takes seconds; a large image from far away, minutes.
const BUILD: Duration = Duration::from_secs(1800);
/// Epilogs take a moment.
const IDLE: Duration = Duration::from_secs(60);

/// All that runs; dropped from the last to the first.
struct Site {
    slurm: Slurm,
    agent: Process,
    operator: Process,
    cluster: Cluster,
    registry: Registry,
    socket: PathBuf,
}

/// Shows what works here: everything for root, the part without daemons of its own for an ordinary user.
pub fn demo() {
    let dir = PathBuf::from(format!("/tmp/siforge-demo-{}", std::process::id()));
    fs::create_dir(&dir)
        .and_then(|()| fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)))
        .unwrap_or_else(|e| panic!("create {}: {e}", dir.display()));
    tempfile::env::override_temp_dir(&dir)
        .unwrap_or_else(|other| panic!("temporary files are in {} already", other.display()));
    let start = Instant::now();
    let _cleanup = Cleanup(&dir);
    if need::is_root() {
        as_root(&dir)
    } else {
        as_user(&dir)
    }
    println!("\nAll of it took {:.1} s.", start.elapsed().as_secs_f64());
}

/// Removes the folder, also after a panic, unless everything is to stay.
struct Cleanup<'a>(&'a Path);

impl Drop for Cleanup<'_> {
    fn drop(&mut self) {
        if !config::demo_keep() {
            let _what_is_still_mounted_stays = fs::remove_dir_all(self.0);
        }
    }
}

fn as_root(dir: &Path) {
    let site = bring_up(dir);
    apply(dir, &site);
    launch(&site);
    if config::demo_keep() {
        keep(dir, site);
    } else {
        step("everything down again", || drop_site(site));
        println!("\nNothing is running any more. `make demo KEEP=1` leaves it, to play with.");
    }
}

/// From the object to its SIF in the store.
fn apply(dir: &Path, site: &Site) {
    let manifest = manifest(dir, &site.registry);
    let manifest = manifest.to_string_lossy().into_owned();
    step("kubectl apply -f examples/lolcow.yaml", || site.cluster.kubectl(&["apply", "-f", &manifest]).ok());
    step("kubectl wait --for=condition=Ready singularityimage/lolcow", || {
        let mut wait = site.cluster.kubectl_command();
        run_within(BUILD, wait.args(["wait", "--for=condition=Ready", "--timeout=30m", "singularityimage/lolcow"])).ok()
    });
    step("kubectl get singularityimages", || site.cluster.kubectl(&["get", "singularityimages"]).ok());
}

/// The image at a shell and in Slurm.
fn launch(site: &Site) {
    let siforge = binary("siforge");
    let user = User::ordinary();
    let as_user = |args: &[&str]| run(user.command(&siforge).args(args).env("SIFORGE_AGENT_SOCKET", &site.socket));
    step("siforge run lolcow                              (root)", || {
        run(Command::new(&siforge).args(["run", "lolcow"]).env("SIFORGE_AGENT_SOCKET", &site.socket)).ok()
    });
    step("siforge run lolcow                              (an ordinary user)", || as_user(&["run", "lolcow"]).ok());
    step("siforge exec lolcow cowsay \"an ordinary user\"", || {
        as_user(&["exec", "lolcow", "cowsay", "an ordinary user"]).ok()
    });
    step("srun --sif=lolcow sh -c 'fortune | cowsay'      (a Slurm job of that user)", || {
        site.slurm.srun_as(user, &["--sif=lolcow", "sh", "-c", "fortune | cowsay"]).ok()
    });
    step("srun -N2 --sif=lolcow cowsay -f tux …           (on two nodes)", || {
        site.slurm.srun_as(user, &["-N2", "-l", "--sif=lolcow", "cowsay", "-f", "tux", "moo"]).ok()
    });
    step("sinfo                                           (the nodes are idle)", || {
        site.slurm.wait_idle(IDLE);
        run(&mut site.slurm.command("sinfo")).ok()
    });
}

fn bring_up(dir: &Path) -> Site {
    let registry = step("a registry", Registry::plain);
    if config::demo_image().is_none() {
        step("lolcow of real Debian packages, pushed to it", || images::push_lolcow(&registry, "lolcow:latest"));
    }
    let cluster = step("etcd and kube-apiserver", Cluster::start);
    step("kubectl apply -f crds/singularityimages.siforge.dev.yaml", || {
        let crd = source_root().join("crds/singularityimages.siforge.dev.yaml");
        run(cluster.kubectl_command().args(["apply", "--server-side", "-f"]).arg(crd)).ok();
        cluster.kubectl(&["wait", "--for=condition=Established", "crd/singularityimages.siforge.dev"]).ok()
    });
    let store = dir.join("store");
    make_dir(&store);
    let operator = step("the operator", || site::start_operator(dir, &store, &cluster.kubeconfig()));
    let socket = dir.join("agent.sock");
    let agent = step("the node agent", || site::start_agent(dir, &store, &socket));
    let slurm = step("Slurm: munge, slurmctld, two slurmd with the plugin", || site::start_slurm(dir, &socket));
    Site { slurm, agent, operator, cluster, registry, socket }
}

/// examples/lolcow.yaml with the reference of the local registry, or of `IMAGE`.
fn manifest(dir: &Path, registry: &Registry) -> PathBuf {
    let example = source_root().join("examples/lolcow.yaml");
    let text = fs::read_to_string(&example).unwrap_or_else(|e| panic!("read {}: {e}", example.display()));
    let line = match config::demo_image() {
        Some(image) => format!("      reference: {}", image.trim_start_matches("docker://")),
        None => format!("      reference: {}/lolcow:latest\n      tls: {{plainHTTP: true}}", registry.address()),
    };
    let lines: Vec<&str> =
        text.lines().map(|old| if old.trim_start().starts_with("reference:") { line.as_str() } else { old }).collect();
    let path = dir.join("lolcow.yaml");
    fs::write(&path, lines.join("\n") + "\n").unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
    path
}

fn drop_site(site: Site) {
    // Named, so that the order is seen: users of a part before the part.
    let Site { slurm, agent, operator, cluster, registry, socket: _ } = site;
    drop(slurm);
    drop(agent);
    drop(operator);
    drop(cluster);
    drop(registry);
}

fn keep(dir: &Path, site: Site) {
    let kubectl = site.cluster.bin_dir().join("kubectl");
    let environment = [
        ("KUBECONFIG", site.cluster.kubeconfig()),
        ("SLURM_CONF", site.slurm.conf()),
        ("SIFORGE_AGENT_SOCKET", site.socket.clone()),
    ];
    let Site { slurm, agent, operator, cluster, registry, socket: _ } = site;
    let mut pids = slurm.keep().0;
    pids.extend([agent.keep(), operator.keep()]);
    pids.extend(cluster.keep().0);
    pids.extend(registry.keep().0);
    let exports: String =
        environment.iter().map(|(name, path)| format!("export {name}={}\n", path.display())).collect();
    let bin = [binary("siforge"), kubectl]
        .map(|path| path.parent().unwrap_or(Path::new("/")).display().to_string())
        .join(":");
    let pids = pids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
    let write = |name: &str, text: String| {
        let path = dir.join(name);
        fs::write(&path, text).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
        path
    };
    let env = write("env.sh", format!("{exports}export PATH={bin}:$PATH\n"));
    // The daemons in this order, each given time; their guards end what they leave.
    let stop = write(
        "stop.sh",
        format!(
            "for pid in {pids}; do\n  kill $pid 2>/dev/null\n  for _ in $(seq 100); do kill -0 $pid 2>/dev/null || break; sleep 0.1; done\n  kill -9 $pid 2>/dev/null\ndone\nrm -rf {}\n",
            dir.display()
        ),
    );
    println!(
        "\nIt is all still running, in {}. To go on:\n  . {}\n  siforge run lolcow\n  srun --sif=lolcow cowsay hello\n  kubectl describe singularityimage lolcow\nTo end it:\n  sh {}",
        dir.display(),
        env.display(),
        stop.display()
    );
}

/// Without root: a conversion and a launch of a .sif by a user, with no daemon but a registry.
fn as_user(dir: &Path) {
    println!(
        "Not root: this shows conversion and launch by an ordinary user. Left out, since they need root:\nthe operator with a Kubernetes API server, the node agent (one kernel mount per image), Slurm with `srun --sif`.\n"
    );
    let siforge = binary("siforge");
    let command = |args: &[&str]| run(Command::new(&siforge).args(args).current_dir(dir));
    let local = config::demo_image().is_none().then(|| step("a registry", Registry::plain));
    let (reference, flags): (String, &[&str]) = match (&local, config::demo_image()) {
        (Some(registry), _) => {
            // Real Debian packages need root to be installed; busybox does not.
            step("an image of busybox, pushed to it", || registry.push("tiny:latest", &images::tiny()));
            (registry.reference("tiny:latest"), &["--no-https"])
        }
        (None, image) => (image.unwrap_or_default(), &[]),
    };
    step(&format!("siforge build image.sif {reference}"), || {
        command(&[&["build"], flags, &["image.sif", &reference]].concat()).ok()
    });
    step("siforge inspect image.sif", || command(&["inspect", "image.sif"]).ok());
    step("siforge exec image.sif cat /etc/passwd", || command(&["exec", "image.sif", "cat", "/etc/passwd"]).ok());
    if config::demo_keep() {
        println!("\nTo go on:\n  {} shell {}", siforge.display(), dir.join("image.sif").display());
    }
}

/// What a step shows when it is done: the output of a command, nothing of a daemon.
trait Shown {
    fn shown(&self) -> String {
        String::new()
    }
}

impl Shown for Finished {
    fn shown(&self) -> String {
        self.output()
    }
}

impl Shown for String {}
impl Shown for Registry {}
impl Shown for Cluster {}
impl Shown for Slurm {}
impl Shown for Process {}
impl Shown for () {}

/// Does a step and prints what it was, how long it took and what it said.
fn step<T: Shown>(what: &str, action: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let value = action();
    println!("{:7.2} s  {what}", start.elapsed().as_secs_f64());
    for line in value.shown().lines() {
        println!("             {line}");
    }
    value
}

fn make_dir(path: &Path) {
    fs::create_dir(path).unwrap_or_else(|e| panic!("create {}: {e}", path.display()));
}
