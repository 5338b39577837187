//! Pulls that end in the middle, caches that are damaged, many pulls at once.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use siforge_tests::{Compression, Finished, Image, Registry, Siforge, Tar, run, wait_until};

use super::{digest, stack};

const SOON: Duration = Duration::from_secs(60);
/// More than the buffers of a stalled connection hold.
const LAYER: usize = 20 << 20;

/// A proxy on 127.0.0.1 that brings `limit` bytes from the server, then nothing more, and never closes.
fn stalling_proxy(target: &str, limit: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (target, left) = (target.to_owned(), Arc::new(AtomicUsize::new(limit)));
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(&target).unwrap();
            let (requests, answers) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            let left = Arc::clone(&left);
            std::thread::spawn(move || copy(requests, server, &AtomicUsize::new(usize::MAX)));
            std::thread::spawn(move || copy(answers, client, &left));
        }
    });
    address
}

/// Copies until the end or until nothing is left; then holds both ends open as long as the test binary lives.
fn copy(mut from: TcpStream, mut to: TcpStream, left: &AtomicUsize) {
    let mut buffer = [0; 16384];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        let before = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(n)));
        let n = n.min(before.unwrap_or(0));
        if n == 0 {
            std::mem::forget((from, to));
            return;
        }
        if to.write_all(&buffer[..n]).is_err() {
            return;
        }
    }
}

fn large() -> Image {
    let layer = |seed| Tar::new().file(&format!("noise{seed}"), 0o644, stack::noise(seed, LAYER)).finish();
    Image::new().layer(layer(1), Compression::Plain).layer(layer(2), Compression::Plain)
}

/// Starts a pull that gets stuck, and waits until it does.
fn stuck_pull(siforge: &Siforge, registry: &Registry) -> Child {
    let proxy = stalling_proxy(&registry.address(), LAYER);
    let mut command = siforge.command();
    command.args(["pull", "--no-https", "x.sif", &format!("docker://{proxy}/large")]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let arrived = || {
        let partial = siforge.files().into_iter().filter(|name| name.contains("/.tmp-"));
        partial.map(|name| fs::metadata(siforge.dir().join(name)).map_or(0, |file| file.len())).sum::<u64>()
    };
    wait_until(SOON, "half of the bytes are there", || {
        assert!(child.try_wait().unwrap().is_none(), "the pull ended");
        arrived() > LAYER as u64 / 2
    });
    child
}

fn end(child: Child, signal: Signal) -> Finished {
    kill_process(Pid::from_raw(child.id() as i32).unwrap(), signal).unwrap();
    let output = child.wait_with_output().unwrap();
    Finished {
        command: format!("siforge pull, {signal:?}"),
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into(),
        stderr: String::from_utf8_lossy(&output.stderr).into(),
        elapsed: Duration::ZERO,
    }
}

#[test]
fn a_pull_that_is_interrupted_or_killed_leaves_nothing_visible() {
    let registry = Registry::plain();
    registry.push("large", &large());
    for siforge in Siforge::both() {
        for (signal, name) in [(Signal::INT, "SIGINT"), (Signal::TERM, "SIGTERM")] {
            let ended = end(stuck_pull(&siforge, &registry), signal).fails_with(255);
            assert!(ended.stderr.contains(&format!("interrupted by {name}")), "{ended}");
            assert_eq!(siforge.files(), [""; 0], "{}: {name}", siforge.who());
        }
        end(stuck_pull(&siforge, &registry), Signal::KILL).fails_with(128 + 9);
        let left = siforge.files();
        let unfinished = |name: &String| name.contains("/.tmp-") || name.starts_with("cache/locks/");
        assert!(left.iter().all(|name| name.starts_with("cache/") && unfinished(name)), "{left:?}");
        siforge.pull(&registry, "large", "x.sif");
        let left = siforge.files();
        assert!(!left.iter().any(unfinished), "the next pull sweeps: {left:?}");
    }
}

#[test]
fn a_damaged_blob_of_the_cache_is_fetched_again() {
    let registry = Registry::plain();
    let layer = Tar::new().file("noise", 0o644, stack::noise(3, 400_000)).finish();
    registry.push("noise", &Image::new().layer(layer, Compression::Gzip));
    let siforge = Siforge::root();
    let want = digest(&siforge.pull(&registry, "noise", "first.sif"));
    let blobs: Vec<String> = siforge
        .files()
        .into_iter()
        .filter(|name| name.starts_with("cache/blobs/sha256/") && !name.contains(".from/"))
        .collect();
    let [blob] = &blobs[..] else {
        panic!("one blob: {blobs:?}");
    };
    let blob = siforge.dir().join(blob);
    let good = fs::read(&blob).unwrap();
    let changed = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 0xff;
        bytes
    };
    let damages = [
        ("a changed byte", changed(200_000)),
        ("a changed head", changed(0)),
        ("cut", good[..1000].to_vec()),
        ("emptied", vec![]),
        ("a tail", [&good[..], b"more"].concat()),
    ];
    for (what, bytes) in damages {
        fs::write(&blob, bytes).unwrap();
        // With the layer's pack nobody would look at the blob.
        fs::remove_dir_all(siforge.dir().join("cache/packs")).unwrap();
        let file = format!("{what}.sif");
        assert_eq!(digest(&siforge.pull(&registry, "noise", &file)), want, "{what}");
        let whole = fs::read(&blob).unwrap().starts_with(&good);
        assert!(whole, "{what}: the cache is whole again");
    }
}

#[test]
fn pulls_at_once_share_a_cache_and_one_of_them_gets_the_name() {
    let registry = Registry::plain();
    let layer = Tar::new().file("noise", 0o644, stack::noise(4, 3 << 20)).finish();
    registry.push("noise", &Image::new().layer(layer, Compression::Gzip));
    let siforge = Siforge::root();
    let source = registry.reference("noise");
    let pull = || run(siforge.command().args(["pull", "--no-https", "x.sif", &source]));
    let mut pulls: Vec<Finished> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(pull)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    pulls.sort_by_key(Finished::code);
    assert_eq!(pulls.iter().map(Finished::code).collect::<Vec<_>>(), [0, 255, 255, 255], "{pulls:?}");
    assert!(pulls[1..].iter().all(|pull| pull.stderr.contains("will not overwrite")), "{pulls:?}");
    let names: Vec<String> = siforge.files().into_iter().filter(|name| name.starts_with("out/")).collect();
    assert_eq!(names, ["out/x.sif"]);
    // With --force, the file is always one of them, whole.
    let want = digest(&siforge.out().join("x.sif"));
    siforge.run(&["pull", "--no-https", "--force", "x.sif", &source]).ok();
    assert_eq!(digest(&siforge.out().join("x.sif")), want);
}
