//! Every byte of a small image's structures broken in some ways: an error or a tree, in bounded time and memory.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use siforge_squashfs::read::unpack;

use crate::sample::small;
use crate::seen::{in_image, open};

/// Far more than a case takes, on the busiest machine.
const DEADLINE: Duration = Duration::from_secs(60);
/// The process's peak: the limits of `in_image` twice, and the caches.
const MEMORY_KIB: u64 = 400 << 10;

/// One case of so many is unpacked as well: files take long to make. No multiple of the number of cases for a byte.
const UNPACKED: u32 = 7;

fn u64_at(image: &[u8], at: usize) -> usize {
    u64::from_le_bytes(image[at..at + 8].try_into().unwrap()) as usize
}

/// Superblock, and all from the inode table to the end: blocks of data have no structure but their codec's.
fn structures(image: &[u8]) -> Vec<Range<usize>> {
    vec![0..96, u64_at(image, 64)..u64_at(image, 40)]
}

/// The beginnings of what a codec made: of the first block of data and of each table.
fn streams(image: &[u8]) -> Vec<Range<usize>> {
    let tables = [64, 72].map(|at| u64_at(image, at));
    [96, tables[0], tables[1]].map(|start| start..start + 80).to_vec()
}

fn broken(image: &[u8], places: Vec<Range<usize>>) -> impl Iterator<Item = (String, Vec<u8>)> {
    let places = places.into_iter().flatten();
    let flips = places.clone().flat_map(move |at| {
        let old = image[at];
        [old ^ 1, old ^ 0x80, 0, 0xff, old.wrapping_add(1)].into_iter().filter(move |new| *new != old).map(move |new| {
            let mut image = image.to_vec();
            image[at] = new;
            (format!("byte {at} = {new:#x}"), image)
        })
    });
    let cuts = places.map(|at| (format!("cut at {at}"), image[..at].to_vec()));
    // The superblock claims that all is there.
    let words = (0..96).step_by(4).flat_map(move |at| {
        [0, 1, 96, u32::MAX, 1 << 31, image.len() as u32].map(|word| {
            let mut image = image.to_vec();
            image[at..at + 4].copy_from_slice(&word.to_le_bytes());
            (format!("word {at} = {word:#x}"), image)
        })
    });
    flips.chain(cuts).chain(words)
}

/// Reads, and unpacks if told to; whether an error was found.
fn attempt(path: &Path, unpacks: bool) -> bool {
    let Ok(reader) = open(path) else { return true };
    let read = in_image(&reader).is_err();
    if !unpacks {
        return read;
    }
    let into = tempfile::tempdir().unwrap();
    unpack(&reader, into.path()).is_err() || read
}

/// The peak of memory in use, in KiB (proc_pid_status(5)).
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.unwrap().trim().trim_end_matches(" kB");
    number.parse().unwrap()
}

fn check(arguments: &[&str], places: fn(&[u8]) -> Vec<Range<usize>>) {
    let sample = small();
    let image = fs::read(sample.image(arguments)).unwrap();
    let path = sample.dir.path().join("broken.sqfs");
    let (report, reports) = channel();
    let cases = std::thread::spawn(move || {
        let mut errors = 0;
        let mut all = 0;
        for (name, image) in broken(&image, places(&image)) {
            report.send(name).unwrap();
            fs::write(&path, image).unwrap();
            errors += u32::from(attempt(&path, all % UNPACKED == 0));
            all += 1;
        }
        (errors, all)
    });
    let mut last = String::new();
    loop {
        match reports.recv_timeout(DEADLINE) {
            Ok(name) => last = name,
            Err(RecvTimeoutError::Timeout) => panic!("{last} takes more than {DEADLINE:?}"),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let (errors, all) = cases.join().unwrap_or_else(|_| panic!("{last} panics"));
    println!("{arguments:?}: {errors} errors in {all} cases, peak {} KiB", peak());
    // Else the cases do not reach what they should break.
    assert!(errors > all / 4 && errors < all, "{errors} of {all}");
    assert!(peak() < MEMORY_KIB, "{} KiB", peak());
}

#[test]
fn broken_records() {
    check(&["-noI", "-noX", "-noId", "-b", "4K"], structures);
}

#[test]
fn broken_gzip() {
    check(&["-comp", "gzip", "-b", "4K"], structures);
}

#[test]
fn broken_zstd() {
    check(&["-comp", "zstd", "-b", "4K"], structures);
}

#[test]
fn broken_streams() {
    for codec in ["gzip", "zstd", "lz4", "lzo", "xz", "lzma"] {
        check(&["-comp", codec], streams);
    }
}
