//! Progress on standard error: a bar per blob on a terminal, plain lines elsewhere.
//!
//! ```text
//! sha256:3f4a90  ████████████░░░░░░░░   61.2 / 101.4 MB
//! sha256:b1c2d3  already in the cache
//! converting     37 %
//! ```

use siforge_build::{BlobState, Phase, Progress, Snapshot};
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Fast enough to look alive, slow enough to cost nothing.
const FRAME: Duration = Duration::from_millis(100);
const BAR_CELLS: u64 = 20;
/// More bars than a terminal has lines would scroll: the rest is summed up in one line.
const BARS_MAX: usize = 16;

/// Shows a build's progress from `start` until it is dropped.
pub(crate) struct Display {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Display {
    /// `quiet` shows nothing.
    pub(crate) fn start(progress: Arc<Progress>, quiet: bool) -> Self {
        if quiet {
            return Self { stop: None, thread: None };
        }
        let (stop, stopped) = channel();
        let bars = io::stderr().is_terminal();
        let thread = std::thread::spawn(move || {
            let mut out = io::stderr();
            let mut view = View::default();
            loop {
                let done = !matches!(stopped.recv_timeout(FRAME), Err(RecvTimeoutError::Timeout));
                let snapshot = progress.snapshot();
                let text = if bars { view.bars(&snapshot) } else { view.lines(&snapshot) };
                // A closed standard error is no reason to fail a build.
                let _ = out.write_all(text.as_bytes());
                if done {
                    break;
                }
            }
        });
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What was printed so far.
#[derive(Default)]
struct View {
    /// Lines of the last frame, to be overwritten by the next.
    drawn: usize,
    /// Blobs of which a plain line already said that they are complete.
    said: Vec<bool>,
    phase: Option<Phase>,
}

impl View {
    fn bars(&mut self, snapshot: &Snapshot) -> String {
        let mut lines: Vec<String> = snapshot.blobs.iter().take(BARS_MAX).map(bar).collect();
        if snapshot.blobs.len() > BARS_MAX {
            lines.push(format!("… and {} more layers", snapshot.blobs.len() - BARS_MAX));
        }
        if !snapshot.blobs.is_empty() {
            lines.push(format!("{:<15}{:>3} %", verb(snapshot.phase), snapshot.percent()));
        }
        let mut text = String::new();
        if self.drawn > 0 {
            text.push_str(&format!("\x1b[{}A", self.drawn));
        }
        for line in &lines {
            text.push_str(line);
            text.push_str("\x1b[K\n");
        }
        self.drawn = lines.len();
        text
    }

    fn lines(&mut self, snapshot: &Snapshot) -> String {
        let mut text = String::new();
        self.said.resize(snapshot.blobs.len(), false);
        for (blob, said) in snapshot.blobs.iter().zip(&mut self.said) {
            if !*said && blob.done >= blob.total {
                *said = true;
                let how = if blob.cached { "skipped: already in the cache" } else { "fetched" };
                text.push_str(&format!("blob {} {how} ({})\n", short(blob), megabytes(blob.total)));
            }
        }
        if self.phase != Some(snapshot.phase) && snapshot.phase > Phase::Pending {
            self.phase = Some(snapshot.phase);
            text.push_str(&format!("{}\n", verb(snapshot.phase)));
        }
        text
    }
}

fn verb(phase: Phase) -> &'static str {
    match phase {
        Phase::Pending => "waiting",
        Phase::Converting => "converting",
        Phase::Hashing => "hashing",
        Phase::Publishing => "publishing",
        Phase::Done => "done",
    }
}

fn short(blob: &BlobState) -> String {
    blob.digest.hex().chars().take(12).collect()
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn bar(blob: &BlobState) -> String {
    if blob.cached {
        return format!("{}  already in the cache ({})", short(blob), megabytes(blob.total));
    }
    let full = (blob.done.min(blob.total) * BAR_CELLS).checked_div(blob.total).unwrap_or(BAR_CELLS);
    let cells: String = (0..BAR_CELLS).map(|cell| if cell < full { '█' } else { '░' }).collect();
    format!("{}  {cells}  {:.1} / {}", short(blob), blob.done as f64 / 1e6, megabytes(blob.total))
}

#[cfg(test)]
mod tests {
    use super::*;
    use siforge_reference::Digest;

    fn snapshot(phase: Phase, done: u64) -> Snapshot {
        Snapshot {
            phase,
            blobs: vec![
                BlobState { digest: Digest::from_bytes([1; 32]), total: 2_000_000, done, cached: false },
                BlobState { digest: Digest::from_bytes([2; 32]), total: 1_000_000, done: 1_000_000, cached: true },
            ],
            bytes_done: done,
            bytes_total: 3_000_000,
        }
    }

    #[test]
    fn plain_lines_say_each_thing_once() {
        let mut view = View::default();
        assert_eq!(
            view.lines(&snapshot(Phase::Converting, 0)),
            "blob 020202020202 skipped: already in the cache (1.0 MB)\nconverting\n"
        );
        assert_eq!(view.lines(&snapshot(Phase::Converting, 1)), "");
        assert_eq!(view.lines(&snapshot(Phase::Hashing, 2_000_000)), "blob 010101010101 fetched (2.0 MB)\nhashing\n");
    }

    #[test]
    fn bars_overwrite_the_frame_before() {
        let mut view = View::default();
        let first = view.bars(&snapshot(Phase::Converting, 1_000_000));
        assert!(first.contains("010101010101  ██████████░░░░░░░░░░  1.0 / 2.0 MB"), "{first}");
        assert!(!first.contains("\x1b[3A"));
        assert!(view.bars(&snapshot(Phase::Converting, 2_000_000)).starts_with("\x1b[3A"));
    }
}
