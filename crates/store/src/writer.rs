//! Who wrote an unfinished file, from its name: so that what a dead build left can be told from what a live one is writing.
//!
//! ```text
//! .tmp-<boot>.<pidns>.<pid>.<start>.<number>       boot: 8 hex of the kernel's boot id; pidns: inode of the pid namespace;
//!                                                  start: the process's start time in clock ticks since boot
//! ```
//!
//! Only a process on the same boot and in the same pid namespace can say that the writer is dead. For all others a file counts as
//! abandoned when it has not changed for a grace period on the observer's own clock.

use crate::layout::TEMP_PREFIX;
use std::sync::atomic::{AtomicU64, Ordering};

/// One process on one machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writer {
    pub boot: String,
    pub pid_namespace: String,
    pub pid: u32,
    pub start: u64,
}

/// What can be known about an unfinished file's writer from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    Alive,
    Dead,
    /// Another machine, another pid namespace, or a name that is not ours.
    Unknown,
}

impl Writer {
    /// This process.
    pub fn current() -> Self {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let pid_namespace =
            std::fs::read_link("/proc/self/ns/pid").map(|link| link.to_string_lossy().into_owned()).unwrap_or_default();
        let digits = |text: &str| text.chars().filter(char::is_ascii_hexdigit).take(8).collect::<String>();
        let pid = std::process::id();
        Self {
            boot: or_zero(digits(&boot)),
            pid_namespace: or_zero(pid_namespace.chars().filter(char::is_ascii_digit).collect()),
            pid,
            start: start_time(pid).unwrap_or(0),
        }
    }

    /// A name for a new unfinished file, never given twice.
    pub(crate) fn temp_name(&self) -> String {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let Self { boot, pid_namespace, pid, start } = self;
        format!("{TEMP_PREFIX}{boot}.{pid_namespace}.{pid}.{start}.{number}")
    }

    /// From an unfinished file's name; None for other files.
    pub fn of_temp_name(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix(TEMP_PREFIX)?.split('.');
        let writer = Self {
            boot: parts.next()?.to_owned(),
            pid_namespace: parts.next()?.to_owned(),
            pid: parts.next()?.parse().ok()?,
            start: parts.next()?.parse().ok()?,
        };
        parts.next()?.parse::<u64>().ok()?;
        parts.next().is_none().then_some(writer)
    }

    /// Whether this writer lives, as `observer` can tell; `start_of` gives a process's start time if there is such a process.
    pub fn liveness(&self, observer: &Self, start_of: impl Fn(u32) -> Option<u64>) -> Liveness {
        let comparable = self.boot == observer.boot
            && self.pid_namespace == observer.pid_namespace
            && self.boot != "0"
            && self.start != 0;
        match comparable {
            false => Liveness::Unknown,
            true if start_of(self.pid) == Some(self.start) => Liveness::Alive,
            true => Liveness::Dead,
        }
    }
}

/// Start time of a process in clock ticks since boot: field 22 of /proc/<pid>/stat (proc_pid_stat(5)). The second field may
/// hold spaces and parentheses, so fields are counted from the last one.
pub fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

fn or_zero(text: String) -> String {
    if text.is_empty() { "0".to_owned() } else { text }
}
