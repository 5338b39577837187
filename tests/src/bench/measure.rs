//! `siforge-bench measure RUNS AT_ONCE COMMAND…`: runs a command and prints what it took, as JSON.
//!
//! A process of its own, because the kernel's account of ended children (getrusage(2), RUSAGE_CHILDREN: CPU of all
//! descendants that were waited for, memory of the largest) can be neither reset nor asked for one child.

use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde_json::{Value, json};

/// What some runs of a command took.
#[derive(Debug, Clone, Default)]
pub struct Measured {
    /// Median of one run, milliseconds.
    pub wall_ms: f64,
    /// User and system time of one run with all its descendants, milliseconds, on average.
    pub cpu_ms: f64,
    /// Peak memory of the largest single process, KiB.
    pub peak_kib: i64,
    /// Runs that ended per second, all together.
    pub per_second: f64,
}

impl Measured {
    pub fn from_json(value: &Value) -> Option<Self> {
        let number = |key: &str| value[key].as_f64();
        Some(Self {
            wall_ms: number("wall_ms")?,
            cpu_ms: number("cpu_ms")?,
            peak_kib: value["peak_kib"].as_i64()?,
            per_second: number("per_second")?,
        })
    }

    /// The shorter times, the higher rate and the larger memory of two measurements.
    pub fn better(&self, other: &Self) -> Self {
        Self {
            wall_ms: self.wall_ms.min(other.wall_ms),
            cpu_ms: self.cpu_ms.min(other.cpu_ms),
            peak_kib: self.peak_kib.max(other.peak_kib),
            per_second: self.per_second.max(other.per_second),
        }
    }

    /// One after the other.
    pub fn then(&self, next: &Self) -> Self {
        Self {
            wall_ms: self.wall_ms + next.wall_ms,
            cpu_ms: self.cpu_ms + next.cpu_ms,
            peak_kib: self.peak_kib.max(next.peak_kib),
            per_second: 1.0 / (1.0 / self.per_second + 1.0 / next.per_second),
        }
    }

    pub fn to_json(&self) -> Value {
        let Self { wall_ms, cpu_ms, peak_kib, per_second } = self;
        json!({"wall_ms": wall_ms, "cpu_ms": cpu_ms, "peak_kib": peak_kib, "per_second": per_second})
    }
}

/// Runs the command `runs` times, `at_once` at a time.
pub fn measure(runs: usize, at_once: usize, words: &[String]) -> Result<Measured, String> {
    let start = Instant::now();
    let lanes: Vec<_> = (0..at_once)
        .map(|lane| {
            let (words, share) = (words.to_vec(), runs / at_once + usize::from(lane < runs % at_once));
            std::thread::spawn(move || (0..share).map(|_| once(&words)).collect::<Result<Vec<f64>, String>>())
        })
        .collect();
    let mut walls = Vec::new();
    for lane in lanes {
        walls.extend(lane.join().map_err(|_| "a lane panicked".to_owned())??);
    }
    let all = start.elapsed().as_secs_f64();
    walls.sort_by(f64::total_cmp);
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).map_err(|e| format!("getrusage: {e}"))?;
    let cpu_us = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Measured {
        wall_ms: walls.get(walls.len() / 2).copied().unwrap_or_default(),
        cpu_ms: cpu_us as f64 / 1000.0 / runs as f64,
        peak_kib: usage.max_rss(),
        per_second: runs as f64 / all,
    })
}

/// Milliseconds of one run.
fn once(words: &[String]) -> Result<f64, String> {
    let (program, arguments) = words.split_first().ok_or("no command")?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
    let start = Instant::now();
    let status = command.status().map_err(|e| format!("start {program}: {e}"))?;
    let wall = start.elapsed().as_secs_f64() * 1000.0;
    if status.success() { Ok(wall) } else { Err(format!("{}: {status}", words.join(" "))) }
}
