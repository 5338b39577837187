//! Artifacts, recipes and blobs: whole or not at all, whoever dies or races.

use sha2::{Digest as _, Sha256};
use siforge_reference::Digest;
use siforge_store::writer::Liveness;
use siforge_store::{Blobs, Error, Linked, Pending, RecipeRecord, Store, Visibility};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const BYTES: &[u8] = b"a whole artifact";

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::init(dir.path(), None).unwrap();
    (dir, store)
}

fn digest(bytes: &[u8]) -> Digest {
    Digest::from_bytes(Sha256::digest(bytes).into())
}

fn pending(store: &Store, bytes: &[u8]) -> Pending {
    let pending = store.begin().unwrap();
    let mut file: &File = pending.file();
    file.write_all(bytes).unwrap();
    pending
}

fn publish(store: &Store, bytes: &[u8]) -> Linked {
    store.publish(pending(store, bytes), &digest(bytes), bytes.len() as u64, Visibility::Private).unwrap()
}

fn read(mut file: File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

fn artifact(store: &Store, bytes: &[u8]) -> Option<Vec<u8>> {
    store.open_artifact(&digest(bytes)).unwrap().map(read)
}

/// Every file below `dir`, unfinished ones too.
fn files(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.append(&mut files(&entry.path()));
        } else {
            found.push(entry.file_name().into_string().unwrap());
        }
    }
    found
}

#[test]
fn a_published_artifact_has_its_name_and_nothing_else_is_left() {
    let (_root, store) = store();
    let linked = publish(&store, BYTES);
    assert_eq!(linked.path(), store.layout().artifact(&digest(BYTES)));
    assert_eq!(read(linked.settle().unwrap()), BYTES);
    assert_eq!(files(&store.root().join("sif")), [format!("{}.sif", digest(BYTES).hex())]);
}

#[test]
fn a_builder_that_dies_at_any_step_leaves_nothing_half_written() {
    let (_root, store) = store();
    // While writing.
    let half = store.begin().unwrap();
    (&mut { half.file() }).write_all(&BYTES[..3]).unwrap();
    std::mem::forget(half);
    assert_eq!(artifact(&store, BYTES), None);
    // Before the link.
    std::mem::forget(pending(&store, BYTES));
    assert_eq!(artifact(&store, BYTES), None);
    // Before the ref.
    std::mem::forget(publish(&store, BYTES));
    assert_eq!(artifact(&store, BYTES).unwrap(), BYTES);
    // The next builder is not disturbed by any of it.
    let ino = store.open_artifact(&digest(BYTES)).unwrap().unwrap().metadata().unwrap().ino();
    publish(&store, BYTES).settle().unwrap();
    assert_eq!(
        store.open_artifact(&digest(BYTES)).unwrap().unwrap().metadata().unwrap().ino(),
        ino,
        "the first inode stays"
    );
    let leftovers = store.leftovers().unwrap();
    assert_eq!(leftovers.len(), 3);
    assert!(leftovers.iter().all(|leftover| leftover.liveness == Liveness::Alive), "this process lives");
    assert_eq!(store.sweep_dead().unwrap(), 0);
    assert!(leftovers.iter().all(|leftover| leftover.remove().unwrap()));
    assert_eq!(artifact(&store, BYTES).unwrap(), BYTES);
}

#[test]
fn two_publishers_at_once_make_one_artifact() {
    let (_root, store) = store();
    let bytes: Vec<u8> = (0..3_000_000u32).map(|number| number as u8).collect();
    let start = std::sync::Barrier::new(6);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let pending = pending(&store, &bytes);
                start.wait();
                let linked = store.publish(pending, &digest(&bytes), bytes.len() as u64, Visibility::Private).unwrap();
                assert_eq!(read(linked.settle().unwrap()), bytes);
            });
        }
    });
    assert_eq!(files(&store.root().join("sif")).len(), 1, "the losers cleaned up");
    assert!(files(&store.root().join("trash")).is_empty());
}

#[test]
fn what_gc_took_between_publish_and_ref_is_linked_again() {
    let (_root, store) = store();
    publish(&store, BYTES).settle().unwrap();
    let linked = publish(&store, BYTES);
    std::fs::remove_file(linked.path()).unwrap();
    assert_eq!(read(linked.settle().unwrap()), BYTES);
    assert_eq!(artifact(&store, BYTES).unwrap(), BYTES);
}

#[test]
fn a_damaged_artifact_is_replaced_without_disturbing_its_readers() {
    let (_root, store) = store();
    let path = publish(&store, BYTES).path().to_owned();
    std::fs::write(&path, b"a WHOLE artifact").unwrap();
    let reader = File::open(&path).unwrap();
    assert_eq!(read(publish(&store, BYTES).settle().unwrap()), BYTES);
    assert_eq!(read(reader), b"a WHOLE artifact");
    assert_eq!(files(&store.root().join("trash")).len(), 1);
}

#[test]
fn a_wrong_length_is_refused() {
    let (_root, store) = store();
    let error = store.publish(pending(&store, BYTES), &digest(BYTES), 5, Visibility::Private).unwrap_err();
    assert!(matches!(error, Error::Length { found: 16, expected: 5, .. }));
    assert!(files(&store.root().join("sif")).is_empty());
}

#[test]
fn modes_follow_visibility() {
    let (_root, store) = store();
    let mode =
        || store.open_artifact(&digest(BYTES)).unwrap().unwrap().metadata().unwrap().permissions().mode() & 0o7777;
    publish(&store, BYTES).settle().unwrap();
    assert_eq!(mode(), 0o640);
    let public =
        |visibility| store.publish(pending(&store, BYTES), &digest(BYTES), BYTES.len() as u64, visibility).unwrap();
    public(Visibility::Public);
    assert_eq!(mode(), 0o644);
    public(Visibility::Private);
    assert_eq!(mode(), 0o644, "another ref may be public");
    assert!(store.set_visibility(&digest(BYTES), Visibility::Private).unwrap());
    assert_eq!(mode(), 0o640);
    assert!(!store.set_visibility(&digest(b"none"), Visibility::Public).unwrap());
}

#[test]
fn recipes_keep_their_first_artifact_while_it_is_there() {
    let (_root, store) = store();
    let key = digest(b"recipe");
    assert_eq!(store.recipe(&key).unwrap(), None);
    let record = RecipeRecord::new(key, digest(BYTES), 16);
    assert_eq!(store.record_recipe(record.clone()).unwrap(), record);
    assert_eq!(store.recipe(&key).unwrap(), None, "its artifact is not there");
    publish(&store, BYTES).settle().unwrap();
    assert_eq!(store.recipe(&key).unwrap().unwrap(), record);
    std::fs::write(store.layout().artifact(&record.digest), &BYTES[..5]).unwrap();
    assert_eq!(store.recipe(&key).unwrap(), None, "its artifact is cut off");
    publish(&store, BYTES).settle().unwrap();
    assert_eq!(store.recipe(&key).unwrap().unwrap(), record);
    publish(&store, b"other").settle().unwrap();
    let other = RecipeRecord::new(key, digest(b"other"), 5);
    assert_eq!(store.record_recipe(other.clone()).unwrap(), record);
    std::fs::remove_file(store.layout().artifact(&record.digest)).unwrap();
    assert_eq!(store.record_recipe(other.clone()).unwrap(), other);
    std::fs::write(store.layout().recipe(&key), "{").unwrap();
    assert!(matches!(store.recipe(&key), Err(Error::Damaged { .. })));
    assert_eq!(store.record_recipe(other.clone()).unwrap(), other);
    assert_eq!(store.recipe(&key).unwrap().unwrap(), other);
}

#[test]
fn blobs_appear_when_they_are_committed() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::at(&dir.path().join("cache/blobs")).unwrap();
    let (one, two) = (blobs.begin(&digest(BYTES)).unwrap(), blobs.begin(&digest(BYTES)).unwrap());
    for pending in [&one, &two] {
        let mut file: &File = pending.file();
        file.write_all(BYTES).unwrap();
    }
    assert!(blobs.open(&digest(BYTES)).unwrap().is_none());
    one.commit().unwrap();
    two.commit().unwrap();
    assert_eq!(read(blobs.open(&digest(BYTES)).unwrap().unwrap()), BYTES);
    drop(blobs.begin(&digest(BYTES)).unwrap());
    assert_eq!(files(dir.path()), [digest(BYTES).hex()]);
    assert!(blobs.remove(&digest(BYTES)).unwrap());
    assert!(!blobs.remove(&digest(BYTES)).unwrap());
}

#[test]
fn a_store_says_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Store::open(dir.path()), Err(Error::NotAStore { .. })));
    Store::init(dir.path(), None).unwrap();
    Store::init(dir.path(), None).unwrap();
    assert_eq!(Store::open(dir.path()).unwrap().root(), dir.path());
    let format = dir.path().join("siforge-store");
    std::fs::write(&format, r#"{"format": 2, "shape": "new"}"#).unwrap();
    assert!(matches!(Store::open(dir.path()), Err(Error::StoreFormat { found: 2, .. })));
    assert!(matches!(Store::init(dir.path(), None), Err(Error::StoreFormat { .. })));
    std::fs::write(&format, "").unwrap();
    assert!(matches!(Store::open(dir.path()), Err(Error::Damaged { .. })));
}

#[test]
fn directories_are_as_open_as_the_root() {
    let dir = tempfile::tempdir().unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o7777;
    for (root_mode, expected) in [(0o755, 0o755), (0o700, 0o700), (0o777, 0o755), (0o2775, 0o2755)] {
        let root = dir.path().join(format!("{root_mode:o}"));
        std::fs::create_dir(&root).unwrap();
        std::fs::set_permissions(&root, PermissionsExt::from_mode(root_mode)).unwrap();
        let store = Store::init(&root, None).unwrap();
        let linked = publish(&store, BYTES);
        assert_eq!(mode(linked.path().parent().unwrap()), expected, "{root_mode:o}");
    }
}

#[test]
fn agents_share_a_store_by_their_group() {
    let dir = tempfile::tempdir().unwrap();
    // Any group this process may give files to: its own.
    let group = std::fs::metadata(dir.path()).unwrap().gid();
    let store = Store::init(dir.path(), Some(group)).unwrap();
    assert_eq!(store.agent_group(), Some(group));
    let leases = std::fs::metadata(store.layout().leases()).unwrap();
    assert_eq!((leases.gid(), leases.mode() & 0o7777), (group, 0o1775));
    let artifact = std::fs::metadata(publish(&store, BYTES).path()).unwrap();
    assert_eq!((artifact.gid(), artifact.mode() & 0o7777), (group, 0o640));
    assert_eq!(Store::init(dir.path(), None).unwrap().agent_group(), Some(group), "the first word stays");
}

/// The test runs itself as a child that publishes without end, kills it (SIGKILL) and looks at what is there.
#[test]
fn kill_9_leaves_nothing_half_written() {
    const STORE: &str = "SIFORGE_TEST_PUBLISH_INTO";
    if let Some(root) = std::env::var_os(STORE) {
        let store = Store::open(Path::new(&root)).unwrap();
        // Other bytes than those of the children before.
        let first = u64::from(std::process::id()) << 16;
        for number in first.. {
            let bytes = number.to_le_bytes().repeat(30_000);
            let linked = publish(&store, &bytes);
            store
                .record_recipe(RecipeRecord::new(digest(&number.to_le_bytes()), digest(&bytes), bytes.len() as u64))
                .unwrap();
            linked.settle().unwrap();
        }
    }
    let (_root, store) = store();
    let mut swept = 0;
    for round in 0..8 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill_9_leaves_nothing_half_written"])
            .env(STORE, store.root())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let published = || files(&store.root().join("sif")).iter().filter(|name| name.ends_with(".sif")).count();
        let before = published();
        let deadline = Instant::now() + Duration::from_secs(60);
        while published() <= before {
            assert!(Instant::now() < deadline, "the child publishes nothing");
            std::thread::yield_now();
        }
        // Another moment of the protocol each round.
        let spin = Instant::now();
        while spin.elapsed() < Duration::from_micros(300 * round) {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        swept += store.sweep_dead().unwrap();
        assert!(store.leftovers().unwrap().is_empty(), "what the dead one left is gone");
        let names = files(&store.root().join("sif"));
        assert!(names.len() > before);
        for name in names {
            let expected = Digest::from_hex(name.strip_suffix(".sif").unwrap()).unwrap();
            let found = read(store.open_artifact(&expected).unwrap().unwrap());
            assert_eq!(digest(&found), expected);
        }
    }
    assert!(swept > 0, "no kill hit an unfinished file");
}
