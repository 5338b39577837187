//! A daemon that ends with its value, and with the test binary whatever ends that.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::binaries::binary;
use crate::wait::{holds_within, wait_for, wait_until};

/// How long a daemon may take to end after SIGTERM before it is killed: slurmd and kube-apiserver take seconds.
const GRACE: Duration = Duration::from_secs(10);

/// A running daemon under `siforge-test-guard`; its output goes to a log file.
#[derive(Debug)]
pub struct Process {
    name: String,
    guard: Child,
    /// The guard ends everything when this closes.
    control: Option<ChildStdin>,
    pid: u32,
    kept: bool,
    exit: Arc<Mutex<Option<i32>>>,
    log: PathBuf,
}

impl Process {
    /// Starts a command; stdout and stderr are appended to `<dir>/<name>.log`. Of the command, its words, folder and
    /// single variables count: `env_clear` and redirections cannot be seen in it and get lost.
    pub fn spawn(name: &str, dir: &Path, command: &Command) -> Self {
        let log = dir.join(format!("{name}.log"));
        fs::create_dir_all(dir).unwrap_or_else(|e| panic!("create {}: {e}", dir.display()));
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap_or_else(|e| panic!("open {}: {e}", log.display()));
        let mut guard =
            guarded(command).stderr(file).spawn().unwrap_or_else(|e| panic!("start the guard of {name}: {e}"));
        let control = guard.stdin.take();
        let exit = Arc::new(Mutex::new(None));
        let reports = read_reports(&mut guard, Arc::clone(&exit));
        let pid = reports
            .recv_timeout(Duration::from_secs(10))
            .unwrap_or_else(|_| panic!("{name} did not start; {}", tail(&log)));
        Self { name: name.into(), guard, control, pid, kept: false, exit, log }
    }

    /// The daemon's own pid, not the guard's.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// All it wrote so far.
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Exit code (128 + signal for a signal), once it has ended.
    pub fn exit_code(&self) -> Option<i32> {
        *self.exit.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub fn is_running(&self) -> bool {
        self.exit_code().is_none()
    }

    /// Sends a signal to the daemon alone.
    pub fn signal(&self, signal: Signal) {
        if !self.is_running() {
            return;
        }
        let pid =
            i32::try_from(self.pid).ok().and_then(Pid::from_raw).unwrap_or_else(|| panic!("pid of {}", self.name));
        kill_process(pid, signal).unwrap_or_else(|e| panic!("signal {}: {e}", self.name));
    }

    /// `kill -9`, and waits for the end. What the daemon had started lives on until the value is dropped.
    pub fn kill9(&self) {
        self.signal(Signal::KILL);
        wait_until(GRACE, &format!("{} ends by SIGKILL", self.name), || !self.is_running());
    }

    /// SIGTERM, and waits for the end; gives the exit code.
    pub fn terminate(&self) -> i32 {
        self.signal(Signal::TERM);
        wait_for(GRACE, &format!("{} ends by SIGTERM", self.name), || self.exit_code().ok_or_else(|| tail(&self.log)))
    }

    /// Waits for a condition while the daemon runs; panics with the end of its log when it dies or the time is up.
    #[track_caller]
    pub fn wait_ready(&self, deadline: Duration, what: &str, mut condition: impl FnMut() -> bool) {
        let ready = holds_within(deadline, &mut || !self.is_running() || condition());
        let state =
            self.exit_code().map_or_else(|| format!("not within {deadline:?}"), |code| format!("ended with {code}"));
        assert!(ready && self.is_running(), "{}: {what}: {state}; {}", self.name, tail(&self.log));
    }

    /// Lets it run on after this process ends, until somebody ends it; gives its pid. For `make demo KEEP=1`.
    pub fn keep(mut self) -> u32 {
        self.keep_running()
    }

    /// [`Process::keep`] for a value that cannot be moved out of its owner.
    pub fn keep_running(&mut self) -> u32 {
        if let Some(mut control) = self.control.take() {
            control.write_all(b"k").unwrap_or_else(|e| panic!("tell the guard of {} to keep it: {e}", self.name));
        }
        self.kept = true;
        self.pid
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        drop(self.control.take());
        // The guard itself kills after GRACE: more than that and a second means that the kernel holds a process.
        let ended = holds_within(GRACE + Duration::from_secs(10), &mut || matches!(self.guard.try_wait(), Ok(Some(_))));
        if !ended && !std::thread::panicking() {
            panic!("{} does not end; {}", self.name, tail(&self.log));
        }
        let shown = crate::registry::shows_password(&self.log());
        if shown && !std::thread::panicking() {
            panic!("{} wrote a password into {}", self.name, self.log.display());
        }
    }
}

/// The guard's command line for a command, with the same environment and folder.
fn guarded(command: &Command) -> Command {
    let mut guard = Command::new(binary("siforge-test-guard"));
    guard.arg(GRACE.as_millis().to_string()).arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => guard.env(key, value),
            None => guard.env_remove(key),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        guard.current_dir(dir);
    }
    std::os::unix::process::CommandExt::process_group(&mut guard, 0);
    guard.stdin(Stdio::piped()).stdout(Stdio::piped());
    guard
}

/// Follows the guard's reports (`pid N`, `exit N`); the pid comes by the channel.
fn read_reports(guard: &mut Child, exit: Arc<Mutex<Option<i32>>>) -> Receiver<u32> {
    let (sender, receiver) = channel();
    let Some(stdout) = guard.stdout.take() else {
        return receiver;
    };
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            match line.split_once(' ') {
                Some(("pid", pid)) => drop(pid.parse().map(|pid| sender.send(pid))),
                Some(("exit", code)) => {
                    *exit.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = code.parse().ok()
                }
                _ => {}
            }
        }
    });
    receiver
}

/// The last lines of a log, for messages.
pub fn tail(log: &Path) -> String {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    format!("end of {}:\n{}", log.display(), lines[lines.len().saturating_sub(40)..].join("\n"))
}
