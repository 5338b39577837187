//! What stays after a launch: nothing mounted, nothing half-made, nothing that others can read.

use std::fs;
use std::os::unix::fs::MetadataExt;

use siforge_tests::{Registry, Siforge, User, fuse, images, overlay, run};

use super::{nothing_mounted_from, site};

#[test]
fn nothing_stays_mounted_or_running() {
    let registry = Registry::plain();
    registry.push("tiny", &images::tiny());
    for siforge in Siforge::both() {
        siforge.pull(&registry, "tiny", "tiny.sif");
        for words in [
            &["exec", "tiny.sif", "true"][..],
            &["exec", "--pid", "tiny.sif", "sh", "-c", "exit 3"],
            &["exec", "tiny.sif", "nothing"],
            &["run", "--writable-tmpfs", "tiny.sif", "-c", "kill -9 $$"],
            &["exec", "--containall", "tiny.sif", "true"],
        ] {
            siforge.run(words);
        }
        // What a command left in the background goes with its namespace.
        let ran = siforge.run(&["exec", "--pid", "tiny.sif", "sh", "-c", "sleep 1000 & echo started"]).ok();
        assert_eq!(ran.stdout, "started\n");
        nothing_mounted_from(siforge.dir());
        assert!(!siforge.files().iter().any(|name| name.contains(".tmp")), "{:?}", siforge.files());
    }
}

/// Many launches at once of an image that is not unpacked yet.
#[test]
fn launches_at_once_share_one_unpacked_copy() {
    let (site, device) = (site(), tempfile::tempdir().unwrap());
    overlay::private_mounts();
    fuse::device(device.path(), 0o600);
    for siforge in Siforge::both() {
        let sif = siforge.out().join("tiny.sif");
        fs::copy(site.users[0].out().join("tiny.sif"), &sif).unwrap();
        siforge.give(&sif);
        std::thread::scope(|scope| {
            for number in 0..6 {
                let siforge = &siforge;
                scope.spawn(move || {
                    let script = format!("echo {number}; exit {number}");
                    let ran = siforge.run(&["exec", "tiny.sif", "sh", "-c", &script]).fails_with(number);
                    assert_eq!(ran.stdout, format!("{number}\n"));
                });
            }
        });
        let unpacked = fs::read_dir(siforge.cache().join("unpacked")).map_or(0, Iterator::count);
        assert_eq!(unpacked, usize::from(siforge.who() == "user"), "{}", siforge.who());
    }
}

/// An image may hold what only its user may read, whatever the modes inside say.
#[test]
fn nobody_else_reads_what_a_user_unpacked() {
    let site = site();
    let user = &site.users[1];
    let cache = user.out().join("new/cache");
    let sif = user.out().join("tiny.sif").display().to_string();
    let reference = site.registry.reference("tiny");
    for words in [
        &["exec", &sif, "true"][..],
        &["exec", "--no-https", &reference, "true"],
        &["pull", "--no-https", "again.sif", &reference],
    ] {
        run(user.command().env("SIFORGE_CACHEDIR", &cache).args(words)).ok();
        let mode = fs::metadata(&cache).unwrap().mode() & 0o7777;
        assert_eq!(mode, 0o700, "{words:?}: {mode:o}");
    }
    // Below a cache that was there already, the unpacked trees are still closed.
    assert_eq!(fs::metadata(user.cache().join("unpacked")).map_or(0o700, |dir| dir.mode() & 0o7777), 0o700);
    let stranger = User::with_uid(1001);
    let looked = run(stranger.command("find").arg(user.cache().join("unpacked")).args(["-type", "f"]));
    assert_eq!(looked.stdout, "", "{looked}");
}
