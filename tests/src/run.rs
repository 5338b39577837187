//! Commands that end: run with a deadline, output kept.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Longer than anything a test runs in one command, shorter than a human's patience with a hung CI.
pub const DEADLINE: Duration = Duration::from_secs(300);

/// What a command left behind.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The command line, for messages.
    pub command: String,
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    pub elapsed: Duration,
}

impl Finished {
    /// Exit code, or 128 + signal as shells say it.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    pub fn success(&self) -> bool {
        self.status.success()
    }

    /// Panics with the whole output unless the command succeeded.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert!(self.success(), "failed: {self}");
        self
    }

    /// Panics with the whole output unless the command failed with `code`.
    #[track_caller]
    pub fn fails_with(self, code: i32) -> Self {
        assert_eq!(self.code(), code, "expected exit code {code}: {self}");
        self
    }

    /// stdout and stderr in one text.
    pub fn output(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { command, status, stdout, stderr, elapsed } = self;
        write!(f, "{command} ({status}, {elapsed:?})\n--- stdout\n{stdout}\n--- stderr\n{stderr}\n---")
    }
}

/// Runs to the end within [`DEADLINE`]; stdin is empty.
#[track_caller]
pub fn run(command: &mut Command) -> Finished {
    run_within(DEADLINE, command)
}

/// Runs a program by name with arguments, panics when it fails, gives its stdout.
#[track_caller]
pub fn sh(program: &str, args: &[&str]) -> String {
    run(Command::new(program).args(args)).ok().stdout
}

/// Runs to the end; a command that takes longer than `deadline` is killed and is a panic with its output.
#[track_caller]
pub fn run_within(deadline: Duration, command: &mut Command) -> Finished {
    let line = describe(command);
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("start {line}: {e}"));
    let stdout = reader(child.stdout.take());
    let stderr = reader(child.stderr.take());
    let mut late = false;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if !late && start.elapsed() > deadline => {
                late = true;
                child.kill().unwrap_or_else(|e| panic!("kill {line}: {e}"));
            }
            Ok(None) => std::thread::sleep(Duration::from_millis(2)),
            Err(e) => panic!("wait for {line}: {e}"),
        }
    };
    let elapsed = start.elapsed();
    // A grandchild may hold the pipes of a killed command open: what it would still write is not waited for.
    let finished = Finished { command: line, status, stdout: text(stdout, late), stderr: text(stderr, late), elapsed };
    assert!(!late, "not done within {deadline:?}: {finished}");
    assert!(!crate::registry::shows_password(&finished.output()), "a password was printed: {finished}");
    finished
}

type Reader = std::sync::mpsc::Receiver<Vec<u8>>;

fn reader(pipe: Option<impl Read + Send + 'static>) -> Reader {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 8192];
        let Some(mut pipe) = pipe else { return };
        while let Ok(n @ 1..) = pipe.read(&mut buffer) {
            if sender.send(buffer[..n].to_vec()).is_err() {
                return;
            }
        }
    });
    receiver
}

fn text(reader: Reader, late: bool) -> String {
    let mut bytes = Vec::new();
    while let Ok(chunk) =
        if late { reader.recv_timeout(Duration::from_millis(200)) } else { reader.recv().map_err(Into::into) }
    {
        bytes.extend(chunk);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}
