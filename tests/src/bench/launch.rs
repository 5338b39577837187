//! Launch: `exec IMAGE true`, one after the other and 16 at once.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::measure::Measured;
use super::report::{Bar, Report};
use super::{Bench, Who};
use crate::binaries::{binary, source_root};
use crate::run::run;
use crate::{Registry, need};

/// Launches of one measurement: enough for a median, few enough for Apptainer's 150 ms.
const RUNS: usize = 30;
const AT_ONCE: usize = 16;

/// What is launched.
pub struct Images<'a> {
    /// A .sif of tiny.
    pub sif: &'a Path,
    /// tiny as the agent knows it, and the agent's socket.
    pub name: &'a str,
    pub socket: &'a Path,
    pub registry: &'a Registry,
}

struct Case {
    name: &'static str,
    who: Who,
    /// The agent's socket that the launcher is told.
    socket: String,
    words: Vec<String>,
}

/// Measures launches of both, as root and as a user, against the bare C program.
pub fn launch(bench: &Bench, report: &mut Report, images: &Images<'_>) {
    let (peer_sif, peer_dir) = pull_for_peer(bench, images.registry);
    let cases = cases(bench, images, &peer_sif);
    let one = all(bench, &cases, RUNS, 1);
    for (case, measured) in cases.iter().zip(&one) {
        report.add(case.name, measured);
    }
    judge(report, &one);
    let many = all(bench, &cases, 4 * AT_ONCE, AT_ONCE);
    for (case, measured) in cases.iter().zip(&many) {
        report.add(&format!("{}, {AT_ONCE} at once", case.name), measured);
    }
    fs::remove_dir_all(&peer_dir).unwrap_or_else(|e| panic!("remove {}: {e}", peer_dir.display()));
}

/// In pairs of root and user: pivot, with the agent, without it, Apptainer.
fn cases(bench: &Bench, images: &Images<'_>, peer_sif: &str) -> Vec<Case> {
    let text = |path: &Path| path.display().to_string();
    let (pivot, rootfs) = (text(&build_pivot(&bench.dir)), text(&make_rootfs(&bench.dir)));
    let (siforge, sif) = (text(&binary("siforge")), text(images.sif));
    let socket = text(images.socket);
    let case = |name, who, socket: &str, words: &[&str]| Case {
        name,
        who,
        socket: socket.into(),
        words: words.iter().chain(&["/bin/true"]).map(|word| String::from(*word)).collect(),
    };
    let (with, without) = ([&siforge, "exec", images.name], [&siforge, "exec", &sif]);
    let theirs = ["apptainer", "-q", "exec", peer_sif];
    // A name that nothing listens on: the launcher finds no agent.
    let none = "/nonexistent/agent.sock";
    vec![
        case("pivot, root", Who::Root, none, &[&pivot, &rootfs]),
        case("pivot, user", Who::User, none, &[&pivot, "-u", &rootfs]),
        case("siforge exec with the agent, root", Who::Root, &socket, &with),
        case("siforge exec with the agent, user", Who::User, &socket, &with),
        case("siforge exec a .sif without the agent, root", Who::Root, none, &without),
        case("siforge exec a .sif without the agent, user", Who::User, none, &without),
        case("apptainer exec, root", Who::PeerRoot, none, &theirs),
        case("apptainer exec, user", Who::PeerUser, none, &theirs),
    ]
}

fn judge(report: &mut Report, measured: &[Measured]) {
    let [pivot_root, pivot_user, agent_root, agent_user, .., peer_root, peer_user] = measured else {
        return;
    };
    for (who, ours, bare, peer) in
        [("root", agent_root, pivot_root, peer_root), ("user", agent_user, pivot_user, peer_user)]
    {
        let name = format!("exec true with the agent, {who}");
        report.bar(Bar::at_most(&format!("{name}, against pivot"), ours.wall_ms / bare.wall_ms, 2.0, true));
        report.bar(Bar::at_least(
            &format!("{name}: times faster than Apptainer"),
            peer.wall_ms / ours.wall_ms,
            20.0,
            true,
        ));
    }
}

fn all(bench: &Bench, cases: &[Case], runs: usize, at_once: usize) -> Vec<Measured> {
    let one = |case: &Case| {
        let words: Vec<&str> = case.words.iter().map(String::as_str).collect();
        bench.measure(case.who, runs, at_once, &[("SIFORGE_AGENT_SOCKET", &case.socket)], &words)
    };
    bench.best(cases.iter().map(|case| Box::new(move || one(case)) as Box<dyn FnMut() -> Measured>).collect())
}

/// tiny as Apptainer's own SIF: its path in the tree, and the folder to remove.
fn pull_for_peer(bench: &Bench, registry: &Registry) -> (String, PathBuf) {
    let (dir, here) = bench.peer_dir("launch");
    fs::create_dir_all(&here).unwrap_or_else(|e| panic!("create {}: {e}", here.display()));
    let sif = format!("{dir}/tiny.sif");
    let env = [("APPTAINER_CACHEDIR", dir.as_str()), ("APPTAINER_TMPDIR", dir.as_str())];
    bench.measure(
        Who::PeerRoot,
        1,
        1,
        &env,
        &["apptainer", "-q", "pull", "--no-https", &sif, &registry.reference("tiny:latest")],
    );
    allow(&here);
    allow(&here.join("tiny.sif"));
    (sif, here)
}

fn build_pivot(dir: &Path) -> PathBuf {
    let (source, program) = (source_root().join("tests/bench/pivot.c"), dir.join("pivot"));
    run(Command::new(need::program("gcc")).args(["-O2", "-static", "-o"]).arg(&program).arg(source)).ok();
    program
}

/// The least root file system: busybox.
fn make_rootfs(dir: &Path) -> PathBuf {
    let root = dir.join("rootfs");
    let made = fs::create_dir_all(root.join("bin"))
        .and_then(|()| fs::create_dir_all(root.join("proc")))
        .and_then(|()| fs::copy(need::program("busybox"), root.join("bin/busybox")))
        .and_then(|_| symlink("busybox", root.join("bin/true")));
    made.unwrap_or_else(|e| panic!("make {}: {e}", root.display()));
    root
}

fn allow(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .unwrap_or_else(|e| panic!("chmod {}: {e}", path.display()));
}
