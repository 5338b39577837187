//! The FUSE server of an ordinary user's launch against squashfuse_ll, on the python image: names, contents in their order,
//! contents at random. The commands are the image's own, and both servers start with nothing in the kernel's caches.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::Bench;
use super::reads::{drop_caches, partition_offset};
use super::report::{Bar, Report};
use crate::binaries::binary;
use crate::run::run;
use crate::wait::wait_until;
use crate::{Registry, fuse, need};

const DEADLINE: Duration = Duration::from_secs(300);

const RANDOM: &str = "python3 -B -c \"
import os, random
random.seed(1)
files = [os.path.join(d, n) for d, _, names in os.walk('/usr') for n in sorted(names)]
files = sorted(f for f in files if not os.path.islink(f) and os.path.getsize(f) > 500000)
for _ in range(3000):
    f = random.choice(files)
    fd = os.open(f, os.O_RDONLY)
    os.pread(fd, 4096, random.randrange(os.path.getsize(f)))
    os.close(fd)
\"";

/// What is done, and its command in the image.
const WORK: [(&str, &str); 3] = [
    ("stat walk", "find /usr /etc /var -size +1000000G"),
    ("sequential read", "find /usr -type f -exec cat {} + | wc -c"),
    ("random read", RANDOM),
];

/// Of one run: seconds of the wall's clock, CPU seconds and peak memory of the server.
#[derive(Clone, Copy)]
struct Figures {
    wall: f64,
    cpu: f64,
    peak_kib: f64,
}

impl Figures {
    fn best(self, other: Self) -> Self {
        Self {
            wall: self.wall.min(other.wall),
            cpu: self.cpu.min(other.cpu),
            peak_kib: self.peak_kib.min(other.peak_kib),
        }
    }
}

pub fn fuse(bench: &Bench, report: &mut Report, registry: &Registry) {
    let dir = bench.dir.join("fuse");
    fs::create_dir_all(&dir).unwrap_or_else(|e| panic!("create {}: {e}", dir.display()));
    let sif = dir.join("python.sif");
    let mut pull = Command::new(binary("siforge"));
    pull.args(["-q", "pull", "--no-https"]).arg(&sif).arg(registry.reference("python:latest"));
    run(pull.env("SIFORGE_CACHEDIR", dir.join("cache"))).ok();
    for (what, command) in WORK {
        let rounds = (0..bench.rounds.max(1)).map(|_| (ours(&dir, &sif, command), theirs(&dir, &sif, command)));
        let best = rounds.reduce(|(a, b), (c, d)| (a.best(c), b.best(d)));
        let Some((ours, theirs)) = best else { continue };
        for (unit, ratio) in [
            ("CPU of the server", ours.cpu / theirs.cpu),
            ("wall", ours.wall / theirs.wall),
            ("peak memory of the server", ours.peak_kib / theirs.peak_kib),
        ] {
            report.bar(Bar::at_most(&format!("FUSE, {what}: {unit} against squashfuse_ll"), ratio, 1.0, true));
        }
    }
    fs::remove_dir_all(&dir).unwrap_or_else(|e| panic!("remove {}: {e}", dir.display()));
}

/// `siforge exec --userns`: root takes the way of an ordinary user.
fn ours(dir: &Path, sif: &Path, work: &str) -> Figures {
    let mut command = Command::new(binary("siforge"));
    command.args(["exec", "--userns", "--cleanenv", "--no-home", "--bind"]).arg(format!("{}:/mnt", dir.display()));
    command.arg(sif).args(["sh", "-c", &script("/mnt", work)]).env("SIFORGE_CACHEDIR", dir.join("cache"));
    let server = || fuse::servers(dir).first().copied();
    command.stdout(Stdio::null());
    measure(dir, command.spawn().unwrap_or_else(|e| panic!("start siforge: {e}")), server)
}

fn theirs(dir: &Path, sif: &Path, work: &str) -> Figures {
    let root = dir.join("mounted");
    fs::create_dir_all(&root).unwrap_or_else(|e| panic!("create {}: {e}", root.display()));
    let mut squashfuse = Command::new(need::program("squashfuse_ll"));
    squashfuse.args(["-f", "-o", &format!("offset={}", partition_offset(sif))]).arg(sif).arg(&root);
    let mut server = squashfuse.spawn().unwrap_or_else(|e| panic!("start squashfuse_ll: {e}"));
    wait_until(DEADLINE, "squashfuse_ll has mounted the image", || root.join("usr").exists());
    run(Command::new("mount").arg("--bind").arg(dir).arg(root.join("mnt"))).ok();
    let mut command = Command::new("chroot");
    command.arg(&root).args(["sh", "-c", &script("/mnt", work)]);
    command.stdout(Stdio::null());
    let pid = server.id();
    let figures = measure(dir, command.spawn().unwrap_or_else(|e| panic!("start chroot: {e}")), || Some(pid));
    for mounted in [root.join("mnt"), root] {
        run(Command::new("umount").arg(mounted)).ok();
    }
    server.wait().unwrap_or_else(|e| panic!("wait for squashfuse_ll: {e}"));
    figures
}

/// Says when it begins, is done, and ends when it is told to, so that its server can be looked at.
fn script(shared: &str, work: &str) -> String {
    let wait = |name: &str| format!("while [ ! -e {shared}/{name} ]; do sleep 0.01; done");
    format!("touch {shared}/there; {}\n{work}\ntouch {shared}/done; {}", wait("go"), wait("end"))
}

fn measure(dir: &Path, mut command: Child, server: impl Fn() -> Option<u32>) -> Figures {
    let file = |name: &str| -> PathBuf { dir.join(name) };
    let touch = |name: &str| fs::write(file(name), "").unwrap_or_else(|e| panic!("write {name}: {e}"));
    wait_until(DEADLINE, "the command is there", || file("there").exists());
    let pid = server().unwrap_or_else(|| panic!("no FUSE server"));
    drop_caches();
    let (cpu, begun) = (cpu_seconds(pid), Instant::now());
    touch("go");
    wait_until(DEADLINE, "the command is done", || file("done").exists());
    let wall = begun.elapsed().as_secs_f64();
    let figures = Figures { wall, cpu: cpu_seconds(pid) - cpu, peak_kib: peak_kib(pid) };
    touch("end");
    command.wait().unwrap_or_else(|e| panic!("wait for the command: {e}"));
    for name in ["there", "go", "done", "end"] {
        fs::remove_file(file(name)).unwrap_or_else(|e| panic!("remove {name}: {e}"));
    }
    figures
}

/// User and system time (proc_pid_stat(5), fields 14 and 15), in hundredths.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_else(|e| panic!("stat of {pid}: {e}"));
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn peak_kib(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_else(|e| panic!("status of {pid}: {e}"));
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(f64::NAN)
}
