//! Our SIF files in Apptainer's hands, and Apptainer's in ours.

use std::process::Command;

use siforge_tests::apptainer::Apptainer;
use siforge_tests::{Finished, Registry, User, binary, images, run};

/// Runs words in the tree as somebody.
type Run = fn(&Apptainer, &[&str]) -> Finished;

/// A folder with `ours.sif`, made from tiny by `siforge build`.
fn with_our_sif() -> Apptainer {
    let apptainer = Apptainer::new();
    let registry = Registry::plain();
    registry.push("tiny", &images::tiny());
    let mut build = siforge(&apptainer);
    build
        .args(["build", "--no-https"])
        .arg(apptainer.here().join("ours.sif"))
        .arg(registry.reference("tiny"));
    run(&mut build).ok();
    apptainer
}

fn siforge(apptainer: &Apptainer) -> Command {
    let mut command = Command::new(binary("siforge"));
    command
        .env("SIFORGE_CACHEDIR", apptainer.here().join("cache"))
        .env("SIFORGE_AGENT_SOCKET", "/nonexistent/agent.sock");
    command.current_dir("/");
    command
}

#[test]
fn apptainer_execs_runs_and_inspects_our_sif() {
    let apptainer = with_our_sif();
    let sif = apptainer.there("ours.sif");
    let file = run(Command::new("file").arg(apptainer.here().join("ours.sif"))).ok();
    assert!(
        file.stdout.contains("run-singularity script executable"),
        "{file}"
    );
    let runs: [(&str, Run); 2] = [("root", Apptainer::root), ("user", Apptainer::user)];
    for (who, run) in runs {
        let said = run(
            &apptainer,
            &[
                "apptainer",
                "-q",
                "exec",
                &sif,
                "sh",
                "-c",
                "echo $TINY; test ! -e /bin/reboot",
            ],
        )
        .ok();
        assert_eq!(said.stdout, "yes\n", "{who}");
        let said = run(
            &apptainer,
            &["apptainer", "-q", "run", &sif, "echo", "from run"],
        )
        .ok();
        assert_eq!(said.stdout, "from run\n", "{who}");
        run(
            &apptainer,
            &["apptainer", "-q", "exec", &sif, "sh", "-c", "exit 7"],
        )
        .fails_with(7);
    }
    let labels = apptainer.root(&["apptainer", "inspect", &sif]).ok();
    assert!(
        labels
            .stdout
            .contains("org.opencontainers.image.title: tiny"),
        "{labels}"
    );
    let objects = apptainer.root(&["apptainer", "sif", "list", &sif]).ok();
    assert!(
        objects.stdout.contains("FS (Squashfs/*System/amd64)"),
        "{objects}"
    );
}

#[test]
fn we_exec_apptainers_sif() {
    let apptainer = with_our_sif();
    let registry = Registry::plain();
    registry.push("tiny", &images::tiny());
    let theirs = apptainer.there("theirs.sif");
    apptainer
        .root(&[
            "apptainer",
            "-q",
            "pull",
            "--no-https",
            &theirs,
            &registry.reference("tiny"),
        ])
        .ok();
    let here = apptainer.here().join("theirs.sif");
    let script = ["sh", "-c", "echo $TINY; exit 3"];
    let ran = run(siforge(&apptainer).arg("exec").arg(&here).args(script)).fails_with(3);
    assert_eq!(ran.stdout, "yes\n");
    let user = User::ordinary();
    let cache = user.tempdir();
    // The tree is below root's home.
    let copy = cache.path().join("theirs.sif");
    std::fs::copy(&here, &copy).unwrap();
    let mut exec = user.command(binary("siforge"));
    exec.env("SIFORGE_CACHEDIR", cache.path().join("cache"))
        .env("SIFORGE_AGENT_SOCKET", "/nonexistent/agent.sock");
    let ran = run(exec.arg("exec").arg(&copy).args(script)).fails_with(3);
    assert_eq!(ran.stdout, "yes\n");
}
