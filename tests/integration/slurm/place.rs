//! A store with small images, an agent, and a Slurm of two nodes with the plugin.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use siforge_reference::Digest;
use siforge_store::Access;
use siforge_tests::process::Process;
use siforge_tests::run::{Finished, run_within};
use siforge_tests::slurm::{Job, Options};
use siforge_tests::{Slurm, User, binary, need};

use crate::agent::site::{DEADLINE, Site};

/// See the module. Dropped in this order: jobs and nodes before the agent, the agent before its mounts.
pub(super) struct Place {
    pub(super) slurm: Slurm,
    pub(super) agent: Process,
    pub(super) site: Site,
    /// Of `lab/tiny`.
    pub(super) digest: Digest,
}

impl Place {
    /// With the images `lab/tiny` (for all), `lab/scripted` (its environment is made by a script) and `lab/private`.
    pub(super) fn start() -> Self {
        let site = Site::new();
        for name in ["tiny", "scripted", "private"] {
            plant(&site.path("tree").join(name));
        }
        fs::remove_file(site.path("tree/scripted/.singularity.d/oci-config.json")).expect("remove");
        let script = site.path("tree/scripted/.singularity.d/env/90-environment.sh");
        write(&script, "export GREETING=\"hello from $(cat /etc/image)\"\n", 0o755);
        let everyone = || Access { everyone: true, ..Access::default() };
        let digest = site.publish("tiny", everyone());
        site.publish("scripted", everyone());
        let other = Access { uids: vec![User::ordinary().uid + 1], ..Access::default() };
        site.publish("private", other);
        let agent = site.start(&[]);
        let hook = |name: &str| {
            let path = site.path(name);
            let text = format!(
                "#!/bin/sh\nexec {} --socket {} slurm {name} 2>>{}\n",
                binary("siforge-agent").display(),
                site.socket().display(),
                site.path("hooks.log").display(),
            );
            write(&path, &text, 0o755);
            path
        };
        let slurm = Slurm::start(Options {
            plugstack: format!(
                "required {} socket={} namespace=lab\n",
                binary("libsiforge_spank.so").display(),
                site.socket().display()
            ),
            prolog: Some(hook("prolog")),
            epilog: Some(hook("epilog")),
            ..Options::default()
        });
        Self { slurm, agent, site, digest }
    }

    /// `srun WORDS` as the ordinary user.
    pub(super) fn srun(&self, words: &[&str]) -> Finished {
        self.slurm.srun_as(User::ordinary(), words)
    }

    /// The same with variables of the client.
    pub(super) fn srun_with(&self, variables: &[(&str, &str)], words: &[&str]) -> Finished {
        let mut srun = self.slurm.command_as(User::ordinary(), "srun");
        srun.envs(variables.iter().copied()).args(words);
        run_within(DEADLINE, &mut srun)
    }

    pub(super) fn sbatch(&self, words: &[&str], script: &str) -> Job {
        self.slurm.sbatch(User::ordinary(), words, script)
    }

    /// No node has suffered.
    #[track_caller]
    pub(super) fn nodes_are_well(&self) {
        self.slurm.wait_idle(DEADLINE);
    }
}

/// A root file system of busybox, with what a builder of siforge writes for a launch.
fn plant(root: &Path) {
    let busybox = need::program("busybox");
    fs::create_dir_all(root.join("bin")).expect("create");
    fs::copy(busybox, root.join("bin/busybox")).expect("copy busybox");
    for applet in [
        "sh", "cat", "echo", "env", "id", "ls", "pwd", "readlink", "sleep", "stat", "kill", "grep", "true", "false",
        "hostname", "tail", "wc",
    ] {
        symlink("busybox", root.join("bin").join(applet)).expect("link");
    }
    for directory in ["proc", "sys", "dev", "tmp", "var/tmp", "etc", "home", "root", "opt/bin"] {
        fs::create_dir_all(root.join(directory)).expect("create");
    }
    let program = |path: &str, text: &str| write(&root.join(path), &format!("#!/bin/sh\n{text}\n"), 0o755);
    program("usr/local/bin/cowsay", "echo \"moo $*\"");
    // The host has one too, elsewhere.
    program("opt/bin/tail", "echo \"the image's tail\"");
    write(&root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n", 0o644);
    write(&root.join("etc/group"), "root:x:0:\n", 0o644);
    write(&root.join("etc/secret"), "secret\n", 0o600);
    write(&root.join("etc/image"), "tiny\n", 0o644);
    fs::create_dir_all(root.join(".singularity.d/env")).expect("create");
    write(
        &root.join(".singularity.d/oci-config.json"),
        r#"{"Env":["PATH=/opt/bin:/usr/local/bin:/usr/bin:/bin","WHO=image"]}"#,
        0o644,
    );
}

fn write(path: &PathBuf, text: &str, mode: u32) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("create");
    fs::write(path, text).expect("write");
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("chmod");
}
