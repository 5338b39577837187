//! A one-machine Slurm: munged, slurmctld and some slurmd, from Debian's packages, without systemd.
//!
//! ```text
//!   dir/etc/slurm.conf, plugstack.conf, cgroup.conf     SLURM_CONF points at the first
//!   dir/munge/munge.{key,socket}                        munged runs as its own user and insists on these owners
//!   dir/ctld, dir/spool.<node>, dir/log                 state; jobs run in dir/work
//! ```
//! Several slurmd run on one host because each node name has its own port (slurm.conf(5), NodeName: Port;
//! slurmd(8), -N).

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::process::Process;
use crate::run::{Finished, run, run_within};
use crate::user::User;
use crate::wait::{wait_for, wait_until};
use crate::{need, ports};

/// One to two seconds on an idle machine.
const START: Duration = Duration::from_secs(60);
/// A job of a test, its queue time included.
const JOB: Duration = Duration::from_secs(120);

/// What differs from a Slurm without plugins and scripts.
#[derive(Debug, Clone)]
pub struct Options {
    pub nodes: u32,
    /// Text of plugstack.conf.
    pub plugstack: String,
    /// Full paths of programs, with arguments in a script if need be.
    pub prolog: Option<PathBuf>,
    pub epilog: Option<PathBuf>,
    /// Lines appended to slurm.conf.
    pub extra_conf: String,
    /// Environment of slurmctld and slurmd: the plugin's settings, for example.
    pub env: Vec<(String, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 2,
            plugstack: String::new(),
            prolog: None,
            epilog: None,
            extra_conf: String::new(),
            env: Vec::new(),
        }
    }
}

/// How a batch job ended.
#[derive(Debug, Clone)]
pub struct Job {
    pub id: u32,
    /// `COMPLETED`, `FAILED`, …
    pub state: String,
    /// `code:signal` as scontrol shows it.
    pub exit_code: String,
    /// stdout and stderr of the batch script.
    pub output: String,
}

/// A running Slurm; ends, and its folder goes, with the value.
#[derive(Debug)]
pub struct Slurm {
    // Dropped in this order: jobs, the nodes and the controller before munge.
    slurmds: Vec<Process>,
    slurmctld: Process,
    munged: Process,
    options: Options,
    dir: TempDir,
}

impl Slurm {
    pub fn start(options: Options) -> Self {
        need::root();
        let dir = tempfile::Builder::new()
            .prefix("siforge-slurm-")
            .tempdir()
            .unwrap_or_else(|e| panic!("make a folder: {e}"));
        make_folders(dir.path(), options.nodes);
        let munged = start_munge(dir.path());
        write_conf(dir.path(), &options);
        let slurmctld = spawn("slurmctld", dir.path(), &options, &["-D", "-c"]);
        let slurmds = (1..=options.nodes).map(|n| spawn_slurmd(dir.path(), &options, n)).collect();
        let slurm = Self { slurmds, slurmctld, munged, options, dir };
        slurm.wait_idle(START);
        slurm
    }

    /// slurm.conf, the value of `SLURM_CONF`.
    pub fn conf(&self) -> PathBuf {
        conf(self.dir.path())
    }

    /// A folder that every user may write, where jobs are started.
    pub fn work_dir(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    /// A Slurm client as root.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(need::program(program));
        command.env("SLURM_CONF", self.conf()).current_dir(self.work_dir());
        command
    }

    /// A Slurm client as a user.
    pub fn command_as(&self, user: &User, program: &str) -> Command {
        let mut command = user.command(need::program(program));
        command.env("SLURM_CONF", self.conf()).current_dir(self.work_dir());
        command
    }

    /// `srun ARGS` as root, to the end.
    pub fn srun(&self, args: &[&str]) -> Finished {
        run_within(JOB, self.command("srun").args(args))
    }

    /// `srun ARGS` as a user, to the end.
    pub fn srun_as(&self, user: &User, args: &[&str]) -> Finished {
        run_within(JOB, self.command_as(user, "srun").args(args))
    }

    /// Submits a batch script (its text) and waits for the end of the job.
    pub fn sbatch(&self, user: &User, args: &[&str], script: &str) -> Job {
        let path = tempfile::Builder::new()
            .prefix("job-")
            .suffix(".sh")
            .tempfile_in(self.work_dir())
            .unwrap_or_else(|e| panic!("make a job script: {e}"));
        fs::write(&path, script).unwrap_or_else(|e| panic!("write {}: {e}", path.path().display()));
        allow(path.path(), 0o755);
        let output = path.path().with_extension("out");
        let mut sbatch = self.command_as(user, "sbatch");
        sbatch.arg("--parsable").arg("-o").arg(&output).args(args).arg(path.path());
        let submitted = run(&mut sbatch).ok();
        let id: u32 = submitted.stdout.trim().parse().unwrap_or_else(|e| panic!("job id: {e}: {submitted}"));
        self.wait_job(id, &output)
    }

    fn wait_job(&self, id: u32, output: &Path) -> Job {
        wait_for(JOB, &format!("job {id} ends"), || {
            let shown = run(self.command("scontrol").args(["show", "job", "-o", &id.to_string()])).stdout;
            let field = |name: &str| {
                shown.split_whitespace().find_map(|word| word.strip_prefix(name)).unwrap_or_default().to_owned()
            };
            let state = field("JobState=");
            if ["", "PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED"].contains(&state.as_str()) {
                return Err(shown);
            }
            let output = fs::read_to_string(output).unwrap_or_default();
            Ok(Job { id, state, exit_code: field("ExitCode="), output })
        })
    }

    /// `(name, state)` of every node, as `sinfo -o %T` says it: `idle`, `drained`, `down*`, …
    pub fn node_states(&self) -> Vec<(String, String)> {
        let shown = run(self.command("sinfo").args(["-h", "-N", "-o", "%N %T"])).stdout;
        shown
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(name, state)| (name.into(), state.trim().into()))
            .collect()
    }

    /// Waits until all nodes are idle; panics with their states and reasons.
    pub fn wait_idle(&self, deadline: Duration) {
        wait_for(deadline, "all Slurm nodes idle", || {
            let states = self.node_states();
            if states.len() == self.options.nodes as usize && states.iter().all(|(_, state)| state == "idle") {
                return Ok(());
            }
            let daemons = self.slurmds.iter().chain([&self.slurmctld, &self.munged]);
            assert!(daemons.into_iter().all(Process::is_running), "a daemon of Slurm ended; {}", self.logs());
            let reasons = run(self.command("sinfo").args(["-R", "-o", "%n %E"])).stdout;
            Err(format!("{states:?}\n{reasons}\n{}", self.logs()))
        });
    }

    /// The ends of all daemons' logs.
    pub fn logs(&self) -> String {
        let daemons = self.slurmds.iter().chain([&self.slurmctld, &self.munged]);
        daemons.map(|daemon| crate::process::tail(daemon.log_path())).collect::<Vec<_>>().join("\n")
    }

    /// Ends and starts the slurmd of a node again (`n1` is 0).
    pub fn restart_node(&mut self, index: usize) {
        let node = u32::try_from(index + 1).unwrap_or(1);
        self.slurmds[index].terminate();
        self.slurmds[index] = spawn_slurmd(self.dir.path(), &self.options, node);
        wait_until(START, "slurmd is back", || {
            self.node_states().iter().any(|(name, state)| *name == format!("n{node}") && state == "idle")
        });
    }

    /// Leaves it running: pids and the folder.
    pub fn keep(mut self) -> (Vec<u32>, PathBuf) {
        let Self { slurmds, slurmctld, munged, .. } = &mut self;
        let pids = slurmds.iter_mut().chain([slurmctld, munged]).map(Process::keep_running).collect();
        self.dir.disable_cleanup(true);
        (pids, self.dir.path().to_path_buf())
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        // Ends steps while there is a slurmd that can: what is left is killed with the guards.
        let jobs = run(self.command("squeue").args(["-h", "-o", "%A"])).stdout;
        for job in jobs.split_whitespace() {
            run(self.command("scancel").arg(job));
        }
    }
}

fn conf(dir: &Path) -> PathBuf {
    dir.join("etc/slurm.conf")
}

fn make_folders(dir: &Path, nodes: u32) {
    allow(dir, 0o755);
    let spools = (1..=nodes).map(|n| format!("spool.n{n}"));
    for name in ["etc", "munge", "ctld", "log", "run", "work"].map(String::from).into_iter().chain(spools) {
        let path = dir.join(name);
        fs::create_dir(&path).unwrap_or_else(|e| panic!("create {}: {e}", path.display()));
        allow(&path, 0o755);
    }
    allow(&dir.join("work"), 0o1777);
}

fn start_munge(dir: &Path) -> Process {
    let munge = dir.join("munge");
    let ids = |flag: &str| {
        run(Command::new("id").args([flag, "munge"]))
            .ok()
            .stdout
            .trim()
            .parse::<u32>()
            .unwrap_or_else(|e| panic!("id of munge: {e}"))
    };
    let (uid, gid) = (ids("-u"), ids("-g"));
    let key = munge.join("munge.key");
    fs::write(&key, random_key()).unwrap_or_else(|e| panic!("write {}: {e}", key.display()));
    allow(&key, 0o400);
    for path in [&munge, &key] {
        chown(path, Some(uid), Some(gid)).unwrap_or_else(|e| panic!("chown {}: {e}", path.display()));
    }
    let mut command = Command::new(need::program("setpriv"));
    command
        .args(["--reuid", "munge", "--regid", "munge", "--clear-groups"])
        .arg(need::program("munged"))
        .arg("--foreground");
    for (flag, name) in
        [("key-file", "key"), ("socket", "socket"), ("pid-file", "pid"), ("log-file", "log"), ("seed-file", "seed")]
    {
        command.arg(format!("--{flag}={}", munge.join(format!("munge.{name}")).display()));
    }
    let munged = Process::spawn("munged", &dir.join("log"), &command);
    let socket = munge.join("munge.socket");
    munged.wait_ready(START, "makes a credential", || {
        socket.exists() && run(Command::new(need::program("munge")).arg("-n").arg("-S").arg(&socket)).success()
    });
    munged
}

fn random_key() -> Vec<u8> {
    let mut key = vec![0; 1024];
    std::io::Read::read_exact(
        &mut fs::File::open("/dev/urandom").unwrap_or_else(|e| panic!("open /dev/urandom: {e}")),
        &mut key,
    )
    .unwrap_or_else(|e| panic!("read /dev/urandom: {e}"));
    key
}

fn spawn(daemon: &str, dir: &Path, options: &Options, args: &[&str]) -> Process {
    let mut command = Command::new(need::program(daemon));
    command
        .args(args)
        .arg("-f")
        .arg(conf(dir))
        .env("SLURM_CONF", conf(dir))
        .envs(options.env.iter().cloned())
        .current_dir(dir);
    let name =
        args.last().filter(|_| daemon == "slurmd").map_or_else(|| daemon.to_owned(), |node| format!("{daemon}.{node}"));
    Process::spawn(&name, &dir.join("log"), &command)
}

fn spawn_slurmd(dir: &Path, options: &Options, node: u32) -> Process {
    spawn("slurmd", dir, options, &["-D", "-N", &format!("n{node}")])
}

/// slurm.conf(5). SlurmUser is root: munge is the only part that needs an account of its own.
fn write_conf(dir: &Path, options: &Options) {
    let host = run(Command::new("hostname").arg("-s")).ok().stdout.trim().to_owned();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let show = dir.display();
    let mut text = format!(
        "ClusterName=siforge\nSlurmctldHost={host}(127.0.0.1)\nSlurmctldPort={}\nSlurmUser=root\nSlurmdUser=root\n\
         AuthType=auth/munge\nAuthInfo=socket={show}/munge/munge.socket\nCredType=cred/munge\n\
         StateSaveLocation={show}/ctld\nSlurmdSpoolDir={show}/spool.%n\nSlurmctldPidFile={show}/run/slurmctld.pid\nSlurmdPidFile={show}/run/slurmd.%n.pid\n\
         SlurmctldDebug=verbose\nSlurmdDebug=verbose\nProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\n\
         SelectType=select/cons_tres\nSelectTypeParameters=CR_Core\nJobAcctGatherType=jobacct_gather/none\nAccountingStorageType=accounting_storage/none\n\
         JobCompType=jobcomp/none\nMpiDefault=none\nReturnToService=2\nSlurmctldTimeout=30\nSlurmdTimeout=30\nMessageTimeout=20\nKillWait=5\n\
         SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0\nPrologFlags=Alloc\nPlugStackConfig={show}/etc/plugstack.conf\n",
        ports::free_port()
    );
    for (key, path) in [("Prolog", &options.prolog), ("Epilog", &options.epilog)] {
        if let Some(path) = path {
            let _ = writeln!(text, "{key}={}", path.display());
        }
    }
    for n in 1..=options.nodes {
        let _ = writeln!(
            text,
            "NodeName=n{n} NodeHostname={host} NodeAddr=127.0.0.1 Port={} CPUs={cpus} RealMemory=512 State=UNKNOWN",
            ports::free_port()
        );
    }
    let _ = writeln!(
        text,
        "PartitionName=all Nodes=n[1-{}] Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO",
        options.nodes
    );
    text += &options.extra_conf;
    for (name, contents) in
        [("slurm.conf", text.as_str()), ("plugstack.conf", &options.plugstack), ("cgroup.conf", "CgroupAutomount=no\n")]
    {
        let path = dir.join("etc").join(name);
        fs::write(&path, contents).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
    }
}

fn allow(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .unwrap_or_else(|e| panic!("chmod {}: {e}", path.display()));
}
