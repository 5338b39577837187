use super::*;
use std::io::{Read, Write};

/// `b1`, `p1` (complete), `q1` (not): of layer 1; all of 100 bytes, the first the least recently used.
fn make(names: &str, age: u64) -> Vec<Entry> {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    let entry = |(number, name): (usize, &str)| {
        let layer: u8 = name[1..].parse().expect("a layer");
        let digest = |byte| Digest::from_bytes([byte; 32]);
        let what = match &name[..1] {
            "b" => What::Blob,
            kind => What::Pack { complete: kind == "p" },
        };
        Entry {
            what,
            digest: digest(if what == What::Blob { layer } else { 100 + layer }),
            blobs: if what == What::Blob { vec![] } else { vec![digest(layer)] },
            path: name.into(),
            bytes: 100,
            used: now - Duration::from_secs(age) + Duration::from_secs(number as u64),
        }
    };
    names.split_whitespace().enumerate().map(entry).collect()
}

fn check(names: &str, age: u64, bound: u64, expect: &str) {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    let mut entries = make(names, age);
    entries.reverse();
    let gone: Vec<_> = surplus(entries, bound, now).iter().map(|entry| entry.path.display().to_string()).collect();
    assert_eq!(gone.join(" "), expect, "{names}, {bound} bytes");
}

#[test]
fn what_can_be_made_again_goes_first() {
    check("b1 p1 b2 p2", 5000, 400, "");
    check("b1 p1 b2 p2", 5000, 399, "p1");
    check("b1 p1 b2 p2", 5000, 250, "p1 p2");
    check("b1 p1 b2 p2", 5000, 100, "p1 p2 b1");
    check("b1 p1 b2 p2", 5000, 0, "p1 p2 b1 b2");
    // A pack without its blob goes by its age.
    check("p1 b2 q2 b3", 5000, 300, "q2");
    check("p1 b2 q2 b3", 5000, 200, "q2 p1");
    check("", 5000, 0, "");
}

#[test]
fn what_was_used_just_now_stays() {
    check("b1 p1", 10, 0, "");
    // The pack rests not yet, the blob does, and the pack is as good.
    let mut entries = make("b1 p1", 5000);
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    entries[1].used = now;
    let gone = |entries: &[Entry]| surplus(entries.to_vec(), 150, now).len();
    assert_eq!(gone(&entries), 1);
    assert_eq!(surplus(entries.clone(), 150, now)[0].what, What::Blob);
}

#[test]
fn what_goes_stays_open_and_its_space_is_freed_later() {
    let dir = tempfile::tempdir().expect("temp dir");
    let cache = Blobs::at(&dir.path().join("blobs")).expect("cache");
    let [blob, layer] = [1, 2].map(|byte| Digest::from_bytes([byte; 32]));
    let pending = cache.begin(&blob).expect("begin");
    (&**pending.file()).write_all(b"a blob").expect("write");
    pending.commit().expect("commit");
    cache.note_origin(&blob, "registry").expect("note");
    let pending = cache.packs().begin(&layer, "zstd-3-256k.2").expect("begin");
    pending.file().write_all(b"a pack").expect("write");
    pending.commit(false).expect("commit");
    cache.packs().note_blob(&layer, &blob).expect("note");

    let mut found = entries(&cache).expect("entries");
    found.sort_by_key(|entry| entry.digest.hex());
    let whats: Vec<_> = found.iter().map(|entry| (entry.what, entry.digest, entry.bytes)).collect();
    assert_eq!(whats, [(What::Blob, blob, 6), (What::Pack { complete: false }, layer, 6)]);
    assert_eq!(found[1].blobs, [blob]);

    assert!(enforce(&cache, 0, Removal::Later).expect("enforce").is_empty(), "both were used just now");
    let mut open = cache.open(&blob).expect("open").expect("there");
    let old = SystemTime::now() - 2 * GRACE;
    for entry in &found {
        File::open(&entry.path).and_then(|file| file.set_modified(old)).expect("set the time");
    }
    assert_eq!(enforce(&cache, 0, Removal::Later).expect("enforce").len(), 2);
    assert!(entries(&cache).expect("entries").is_empty());
    let mut text = String::new();
    open.read_to_string(&mut text).expect("read");
    assert_eq!(text, "a blob");
    assert_eq!(sweep(&cache).expect("sweep"), 0, "not yet");
    let waiting = discarded(&cache).expect("discarded");
    assert_eq!(waiting.iter().map(|gone| gone.bytes).collect::<Vec<_>>(), [6, 6]);
    assert!(waiting.iter().all(|gone| gone.path.starts_with(dir.path().join("trash/cache"))), "{waiting:?}");
    assert!(!cache.came_from(&blob, "registry").expect("came_from"), "its notes are gone, too");
}

#[test]
fn on_a_local_file_system_space_is_free_at_once_and_the_last_file_takes_its_notes() {
    let dir = tempfile::tempdir().expect("temp dir");
    let cache = Blobs::at(&dir.path().join("blobs")).expect("cache");
    let packs = cache.packs();
    let [blob, layer] = [1, 2].map(|byte| Digest::from_bytes([byte; 32]));
    for kind in ["zstd-3-256k.2", "gzip-9-256k.2"] {
        packs.begin(&layer, kind).expect("begin").commit(true).expect("commit");
    }
    packs.note_blob(&layer, &blob).expect("note");
    let noted = || packs.is_of_blob(&layer, &blob).expect("is_of_blob");
    // Temporary directories are on this host; of those of many users nobody knows.
    assert_eq!(Removal::of(&cache, true), Removal::AtOnce);
    assert_eq!(Removal::of(&cache, false), Removal::Later);
    let found = entries(&cache).expect("entries");
    assert!(remove(&found[0]).expect("remove") && noted(), "another pack of the layer is there");
    std::fs::write(&found[1].path, b"a pack").expect("write");
    File::open(&found[1].path).and_then(|file| file.set_modified(SystemTime::now() - 2 * GRACE)).expect("set the time");
    assert_eq!(enforce(&cache, 0, Removal::AtOnce).expect("enforce").len(), 1);
    assert!(!noted());
    assert!(discarded(&cache).expect("discarded").is_empty() && entries(&cache).expect("entries").is_empty());
    packs.note_blob(&layer, &blob).expect("it can be noted again");
}
