//! Images that someone made to do harm, looked at through the kernel: errors, at most, and the server goes on.

use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};

use rustix::io::Errno;
use siforge_fuse::Owners;

use crate::mounted::{DEADLINE, Mounted};
use crate::sample::small;

/// Structures of so many bytes apart are broken, each in another way than the last.
const STEP: usize = 3;

/// Looks at everything; the errors met.
fn walk(root: &Path) -> Vec<io::Error> {
    let mut errors = Vec::new();
    let mut paths = vec![root.to_owned()];
    let mut left = 500;
    while let Some(path) = paths.pop()
        && left > 0
    {
        left -= 1;
        if let Err(error) = look(&path, &mut paths) {
            errors.push(error);
        }
        let names = &mut [0; 4096];
        if let Err(error) = rustix::fs::llistxattr(&path, names) {
            errors.push(error.into());
        }
    }
    errors
}

fn look(path: &Path, paths: &mut Vec<PathBuf>) -> io::Result<()> {
    let meta = fs::symlink_metadata(path)?;
    if meta.is_symlink() {
        fs::read_link(path)?;
    } else if meta.is_dir() {
        // A path may grow as deep as the kernel lets it when a directory is within itself.
        for entry in fs::read_dir(path)?.take(200) {
            paths.push(path.join(entry?.file_name()));
        }
    } else if meta.is_file() {
        // Whatever size is claimed, so much is read of it.
        io::copy(&mut fs::File::open(path)?.take(1 << 20), &mut io::sink())?;
    }
    Ok(())
}

fn u64_at(image: &[u8], at: usize) -> usize {
    u64::from_le_bytes(image[at..at + 8].try_into().unwrap()) as usize
}

fn broken(image: &[u8]) -> impl Iterator<Item = (String, Vec<u8>)> {
    let places = (u64_at(image, 64)..u64_at(image, 40)).step_by(STEP);
    let ways: [fn(u8) -> u8; 4] = [|old| old ^ 1, |_| 0xff, |old| old.wrapping_add(1), |old| old ^ 0x80];
    places.zip(ways.into_iter().cycle()).map(|(at, change)| {
        let mut image = image.to_vec();
        image[at] = change(image[at]);
        (format!("byte {at}"), image)
    })
}

fn check(arguments: &[&str]) {
    let sample = small();
    let image = fs::read(sample.image(arguments)).unwrap();
    let path = sample.dir.path().join("broken.sqfs");
    let (report, reports) = channel();
    let cases = std::thread::spawn(move || {
        let (mut errors, mut all) = (0, 0);
        for (name, image) in broken(&image) {
            report.send(name).unwrap();
            fs::write(&path, image).unwrap();
            // Some are refused before anything is mounted.
            let Ok(_) = crate::seen::open(&path) else { continue };
            let mounted = Mounted::new(&path, Owners::Image);
            let met = walk(&mounted.root());
            for error in &met {
                let errno = error.raw_os_error().map(Errno::from_raw_os_error);
                // A directory within itself; a path that gets longer by it; an inode of another type than before.
                let fine = [Errno::IO, Errno::LOOP, Errno::NAMETOOLONG, Errno::STALE, Errno::INVAL, Errno::NOENT];
                assert!(errno.is_some_and(|errno| fine.contains(&errno)), "{error:?}");
            }
            errors += usize::from(!met.is_empty());
            all += 1;
            mounted.end();
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
    let (errors, all) = cases.join().unwrap_or_else(|_| panic!("{arguments:?}: {last}"));
    println!("{arguments:?}: {errors} of {all} images with errors");
    assert!(errors > all / 10 && all > 100, "{errors} of {all}");
}

#[test]
fn broken_structures() {
    check(&["-noI", "-noX", "-noId", "-b", "4K"]);
}

#[test]
fn broken_streams() {
    check(&["-comp", "zstd", "-b", "4K"]);
}

#[test]
fn names_are_bytes() {
    let sample = small();
    let name = std::ffi::OsStr::from_bytes(b"\xff\x01\n");
    fs::write(sample.tree().join(name), "bytes").unwrap();
    let mounted = Mounted::new(&sample.image(&[]), Owners::Image);
    assert_eq!(fs::read(mounted.root().join(name)).unwrap(), b"bytes");
    mounted.end();
}
