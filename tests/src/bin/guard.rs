//! `siforge-test-guard GRACE_MS COMMAND…`: runs a command and ends it, and all it started, when stdin closes.
//!
//! It is the child subreaper of what it starts (prctl(2), PR_SET_CHILD_SUBREAPER): a daemon that forks twice, or a job
//! whose slurmstepd died, comes back as its child and is found. A `k` on stdin before it closes means: keep the command
//! until it ends by itself. stdout reports `pid N` and, at the command's end,
//! `exit N`; the command's own output goes to stderr.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, wait};

static ENDED: AtomicBool = AtomicBool::new(false);
/// Held while the command is reaped or signalled, so that a signal never meets a reused pid.
static REAPING: Mutex<()> = Mutex::new(());

fn main() -> ExitCode {
    match guard() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("siforge-test-guard: {error}");
            ExitCode::from(125)
        }
    }
}

fn guard() -> Result<(), String> {
    let mut words = std::env::args_os().skip(1);
    let grace = words
        .next()
        .and_then(|ms| ms.to_str()?.parse().ok())
        .map(Duration::from_millis)
        .ok_or("usage: GRACE_MS COMMAND…")?;
    let program = words.next().ok_or("usage: GRACE_MS COMMAND…")?;
    set_child_subreaper(Some(getpid())).map_err(|e| format!("become the child subreaper: {e}"))?;
    let log = std::io::stderr().as_fd().try_clone_to_owned().map_err(|e| format!("share stderr: {e}"))?;
    let child = Command::new(&program)
        .args(words)
        .stdin(Stdio::null())
        .stdout(log)
        .process_group(0)
        .spawn()
        .map_err(|e| format!("start {}: {e}", program.display()))?;
    report("pid", child.id());
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or("no pid")?;
    let ender = std::thread::spawn(move || end_at_eof(pid, grace));
    reap(pid);
    ender.join().map_err(|_| "the thread that ends the command panicked".to_owned())
}

/// Waits for every child, adopted ones too, until none is left.
fn reap(command: Pid) {
    loop {
        // Peeked without the lock (it may block), reaped with it.
        match rustix::process::waitid(
            rustix::process::WaitId::All,
            rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT,
        ) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return,
            Ok(_) => {}
        }
        let _lock = REAPING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if pid == command {
                ENDED.store(true, Ordering::SeqCst);
                let status = ExitStatus::from_raw(status.as_raw());
                report("exit", status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)));
            }
        }
    }
}

fn end_at_eof(command: Pid, grace: Duration) {
    let mut byte = [0];
    let mut kept = false;
    while std::io::stdin().read(&mut byte).is_ok_and(|n| n > 0) {
        kept |= byte == *b"k";
    }
    // Kept: the command outlives the harness; its own end (somebody's kill) is then ours.
    while kept && !ENDED.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(200));
    }
    {
        let _lock = REAPING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if !ENDED.load(Ordering::SeqCst) {
            let _gone_meanwhile = kill_process(command, Signal::TERM);
        }
    }
    let start = Instant::now();
    while !ENDED.load(Ordering::SeqCst) && start.elapsed() < grace {
        std::thread::sleep(Duration::from_millis(5));
    }
    loop {
        let left = descendants();
        if left.is_empty() {
            return;
        }
        for pid in left {
            let _gone_meanwhile = kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// All processes below this one, by the parent pids of /proc (proc_pid_stat(5)).
fn descendants() -> Vec<Pid> {
    let entries = std::fs::read_dir("/proc").map(|dir| dir.flatten().collect::<Vec<_>>()).unwrap_or_default();
    let parents: Vec<(i32, i32)> = entries
        .iter()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, parent(&entry.path())?)))
        .collect();
    let mut found = vec![getpid().as_raw_nonzero().get()];
    let mut at = 0;
    while let Some(&pid) = found.get(at) {
        found.extend(parents.iter().filter(|(_, parent)| *parent == pid).map(|(child, _)| *child));
        at += 1;
    }
    found.into_iter().skip(1).filter_map(Pid::from_raw).collect()
}

fn parent(proc_dir: &std::path::Path) -> Option<i32> {
    let stat = std::fs::read_to_string(proc_dir.join("stat")).ok()?;
    // The command name, in parentheses, may hold blanks and parentheses itself.
    let after_name = &stat[stat.rfind(')')? + 1..];
    after_name.split_whitespace().nth(1)?.parse().ok()
}

fn report(word: &str, number: impl std::fmt::Display) {
    // A harness that is gone reads no report; its closed pipe ends us anyway.
    let _ = writeln!(std::io::stdout(), "{word} {number}");
}
