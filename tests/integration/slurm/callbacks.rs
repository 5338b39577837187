//! The ground that the plugin is built on: what Slurm makes of a SPANK callback that fails on a node. For this a plugin in
//! C fails in one callback after the other. The values are those of Slurm 22.05.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use siforge_tests::slurm::Options;
use siforge_tests::{Slurm, User, need, run};

use crate::agent::site::DEADLINE;

/// What became of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Outcome {
    /// Whether the command ran: on the host, though the plugin had failed.
    ran: bool,
    /// srun's exit code, or that of the batch job.
    code: i32,
    /// Whether the node is drained.
    drained: bool,
}

struct Ground {
    slurm: Slurm,
    control: PathBuf,
    _dir: tempfile::TempDir,
}

impl Ground {
    fn start(word: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("siforge-spank-").tempdir().expect("make a folder");
        siforge_tests::image::open_to_all(dir.path());
        let (source, plugin) = (dir.path().join("failing.c"), dir.path().join("failing.so"));
        fs::write(&source, include_str!("failing.c")).expect("write");
        let mut compiler = Command::new(need::program("cc"));
        compiler.args(["-shared", "-fPIC", "-o"]).arg(&plugin).arg(&source);
        run(&mut compiler).ok();
        let control = dir.path().join("control");
        fs::write(&control, "").expect("write");
        let slurm = Slurm::start(Options {
            nodes: 1,
            plugstack: format!("{word} {} {}\n", plugin.display(), control.display()),
            ..Options::default()
        });
        Self { slurm, control, _dir: dir }
    }

    fn drained(&self) -> bool {
        self.slurm.node_states().iter().any(|(_, state)| state.starts_with("drain"))
    }

    /// The node works again.
    fn mend(&self) {
        fs::write(&self.control, "").expect("write");
        if self.drained() {
            let update = ["update", "nodename=n1", "state=resume"];
            run(self.slurm.command("scontrol").args(update)).ok();
        }
        self.slurm.wait_idle(DEADLINE);
    }

    fn srun(&self, callback: &str) -> Outcome {
        fs::write(&self.control, callback).expect("write");
        let finished = self.slurm.srun_as(User::ordinary(), &["echo", "payload"]);
        let outcome =
            Outcome { ran: finished.stdout.contains("payload"), code: finished.code(), drained: self.drained() };
        self.mend();
        outcome
    }

    fn sbatch(&self, callback: &str) -> Outcome {
        fs::write(&self.control, callback).expect("write");
        let job = self.slurm.sbatch(User::ordinary(), &[], "#!/bin/sh\necho payload\n");
        let code = job.exit_code.split(':').next().and_then(|code| code.parse().ok());
        assert_eq!(job.state == "COMPLETED", job.exit_code == "0:0", "{job:?}");
        let outcome =
            Outcome { ran: job.output.contains("payload"), code: code.expect("exit code"), drained: self.drained() };
        self.mend();
        outcome
    }
}

/// The command did not run, and the node is as before.
const fn failed(code: i32) -> Outcome {
    Outcome { ran: false, code, drained: false }
}

/// The command ran, on the host, and all looks well.
const UNNOTICED: Outcome = Outcome { ran: true, code: 0, drained: false };

/// Nothing ran, the job is shown as completed, and the node is out of service.
const DRAINED: Outcome = Outcome { ran: false, code: 0, drained: true };

#[test]
fn of_a_required_plugin() {
    let ground = Ground::start("required");
    let check = |callback: &str, srun: Outcome, sbatch: Outcome| {
        assert_eq!(ground.srun(callback), srun, "srun, {callback}");
        assert_eq!(ground.sbatch(callback), sbatch, "sbatch, {callback}");
    };
    check("none", UNNOTICED, UNNOTICED);
    for callback in ["init", "init_post_opt", "user_init", "task_post_fork"] {
        check(callback, failed(0), DRAINED);
    }
    check("task_init_privileged", failed(1), failed(1));
    check("task_init", failed(1), failed(1));
    check("task_exit", UNNOTICED, UNNOTICED);
    // The one way that says what we mean.
    check("exit", failed(77), failed(77));
}

#[test]
fn of_an_optional_plugin() {
    let ground = Ground::start("optional");
    for callback in ["init_post_opt", "user_init", "task_post_fork", "task_init_privileged", "task_init"] {
        assert_eq!(ground.srun(callback), UNNOTICED, "srun, {callback}");
        assert_eq!(ground.sbatch(callback), UNNOTICED, "sbatch, {callback}");
    }
    assert_eq!(ground.srun("exit"), failed(77));
    assert_eq!(ground.sbatch("exit"), failed(77));
}
