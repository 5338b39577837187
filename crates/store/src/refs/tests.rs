//! Writers that die or sleep between two steps: the steps are run one by one.

use super::*;
use std::sync::Arc;

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::init(dir.path(), None).unwrap();
    (dir, store)
}

fn content(mark: u8) -> RefContent {
    RefContent {
        namespace: "lab".into(),
        name: "lolcow".into(),
        digest: Digest::from_bytes([mark; 32]),
        size: 1,
        platform: "linux/amd64".into(),
        source: Provenance {
            reference: "docker://r.example/lolcow:latest".into(),
            digest: Digest::from_bytes([1; 32]),
            recipe: Digest::from_bytes([2; 32]),
            builder_version: "0.1.0".into(),
        },
        access: Access::default(),
        published_at: 0,
    }
}

fn revision(number: u64, generation: u64, mark: u8) -> Revision {
    Revision { format: FORMAT, revision: number, generation, content: Some(content(mark)) }
}

fn read(store: &Store) -> Option<(u64, Digest)> {
    store.read_ref("lab", "lolcow").unwrap().map(|it| (it.revision, it.digest))
}

fn dir(store: &Store) -> std::path::PathBuf {
    let dir = store.layout().ref_dir("lab", "lolcow").unwrap();
    durable::make_dirs(&dir).unwrap();
    dir
}

#[test]
fn decisions() {
    let write = |number, generation, mark| Step::Write(Box::new(revision(number, generation, mark)));
    let tombstone = |number, generation| Revision { content: None, ..revision(number, generation, 0) };
    let later = RefContent { published_at: 9, ..content(1) };
    let new = content(1);
    let table = [
        (None, Some(&new), 3, write(1, 3, 1)),
        (None, None, 3, Step::Keep),
        (Some(revision(4, 3, 1)), Some(&new), 3, Step::Keep),
        (Some(revision(4, 3, 1)), Some(&later), 3, Step::Keep),
        (Some(revision(4, 3, 2)), Some(&new), 3, write(5, 3, 1)),
        (Some(revision(4, 2, 2)), Some(&new), 3, write(5, 3, 1)),
        (Some(revision(4, 4, 2)), Some(&new), 3, Step::Refuse { found: 4 }),
        (Some(revision(4, 4, 1)), Some(&new), 3, Step::Refuse { found: 4 }),
        (Some(revision(4, 3, 2)), None, 3, Step::Write(Box::new(tombstone(5, 3)))),
        (Some(tombstone(5, 3)), None, 3, Step::Keep),
        (Some(tombstone(5, 3)), Some(&new), 3, write(6, 3, 1)),
        (Some(tombstone(5, 4)), None, 3, Step::Refuse { found: 4 }),
    ];
    for (newest, content, generation, expected) in table {
        assert_eq!(decide(newest.as_ref(), content, generation), expected, "{newest:?}");
    }
}

#[test]
fn a_writer_that_died_before_its_rename_is_seen() {
    let (_root, store) = store();
    let dir = dir(&store);
    assert!(link_revision(&dir, &revision(1, 0, 1)).unwrap());
    assert_eq!(read(&store), Some((1, Digest::from_bytes([1; 32]))));
    replace_current(&dir, &revision(1, 0, 1)).unwrap();
    assert!(link_revision(&dir, &revision(2, 0, 2)).unwrap());
    assert_eq!(read(&store), Some((2, Digest::from_bytes([2; 32]))));
    // The next writer goes on from there.
    let Written::New(it) = store.write_ref(&content(3), 0, 2).unwrap() else { panic!() };
    assert_eq!(it.revision, 3);
}

#[test]
fn a_writer_that_died_before_its_link_left_nothing_visible() {
    let (_root, store) = store();
    let dir = dir(&store);
    std::mem::forget(durable::json_temp(&dir, &revision(1, 0, 1), 0o644).unwrap());
    assert_eq!(read(&store), None);
    assert!(store.history("lab", "lolcow").unwrap().is_empty());
    assert_eq!(store.leftovers().unwrap().len(), 1);
}

#[test]
fn renames_that_crossed_never_show_the_older_revision() {
    let (_root, store) = store();
    let dir = dir(&store);
    for number in 1..=2 {
        assert!(link_revision(&dir, &revision(number, 0, number as u8)).unwrap());
    }
    replace_current(&dir, &revision(2, 0, 2)).unwrap();
    replace_current(&dir, &revision(1, 0, 1)).unwrap();
    assert_eq!(read(&store), Some((2, Digest::from_bytes([2; 32]))));
}

#[test]
fn a_writer_that_slept_over_pruning_takes_its_link_back() {
    let (_root, store) = store();
    for mark in 1..=9 {
        store.write_ref(&content(mark), 0, 1).unwrap();
    }
    let dir = dir(&store);
    // It decided on revision 4 long ago; pruning has freed the number 5.
    let late = revision(5, 0, 77);
    assert!(link_revision(&dir, &late).unwrap());
    assert!(!store.is_newest(&dir, &late).unwrap());
    assert!(!layout::revision(&dir, 5).exists());
    assert_eq!(read(&store), Some((9, Digest::from_bytes([9; 32]))));
}

#[test]
fn a_lower_generation_is_refused_even_after_it_looked() {
    let (_root, store) = store();
    store.write_ref(&content(1), 1, 2).unwrap();
    // The old leader (1) has read revision 1; the new one (2) writes; the old one's link fails, it reads again and is refused.
    store.write_ref(&content(2), 2, 2).unwrap();
    assert!(!link_revision(&dir(&store), &revision(2, 1, 3)).unwrap());
    assert!(matches!(store.write_ref(&content(3), 1, 2), Err(Error::Fenced { found: 2, own: 1, .. })));
    assert!(matches!(store.remove_ref("lab", "lolcow", 1), Err(Error::Fenced { .. })));
    assert_eq!(read(&store), Some((2, Digest::from_bytes([2; 32]))));
}

#[test]
fn a_name_that_comes_back_goes_on_counting() {
    let (_root, store) = store();
    store.write_ref(&content(1), 0, 2).unwrap();
    assert!(store.remove_ref("lab", "lolcow", 0).unwrap());
    assert!(!store.remove_ref("lab", "lolcow", 0).unwrap());
    assert_eq!(read(&store), None);
    assert_eq!(store.read_ref_since("lab", "lolcow", 2).unwrap(), None);
    assert!(store.history("lab", "lolcow").unwrap().is_empty());
    assert_eq!(store.write_ref(&content(1), 0, 2).unwrap().into_ref().revision, 3);
    assert!(!store.remove_ref("lab", "other", 0).unwrap());
}

#[test]
fn a_reader_never_goes_back() {
    let (_root, store) = store();
    store.write_ref(&content(1), 0, 2).unwrap();
    assert_eq!(store.read_ref_since("lab", "lolcow", 1).unwrap().unwrap().revision, 1);
    assert!(matches!(store.read_ref_since("lab", "lolcow", 2), Err(Error::WentBack { found: 1, known: 2, .. })));
}

#[test]
fn history_is_limited() {
    let (_root, store) = store();
    for mark in 1..=6 {
        store.write_ref(&content(mark), 0, 2).unwrap();
    }
    let revisions: Vec<u64> = store.history("lab", "lolcow").unwrap().iter().map(|it| it.revision).collect();
    assert_eq!(revisions, [6, 5, 4]);
    assert_eq!(store.list_refs().unwrap(), [("lab".to_owned(), "lolcow".to_owned())]);
}

#[test]
fn no_update_of_many_writers_is_lost() {
    const WRITERS: u8 = 4;
    const EACH: u8 = 8;
    let (_root, store) = store();
    let store = Arc::new(store);
    let threads: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = Arc::clone(&store);
            std::thread::spawn(move || {
                let mut last = 0;
                for number in 0..EACH {
                    let Written::New(it) = store.write_ref(&content(writer * EACH + number), 0, 1000).unwrap() else {
                        panic!()
                    };
                    assert!(it.revision > last);
                    last = it.revision;
                    assert!(store.read_ref_since("lab", "lolcow", last).unwrap().unwrap().revision >= last);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let mut history = store.history("lab", "lolcow").unwrap();
    history.reverse();
    let revisions: Vec<u64> = history.iter().map(|it| it.revision).collect();
    // A writer that was overtaken between its link and its look at `current` takes the link back: a number is free then.
    assert!(revisions.is_sorted() && revisions.len() == usize::from(WRITERS * EACH), "{revisions:?}");
    let mut digests: Vec<_> = history.iter().map(|it| it.digest.hex()).collect();
    digests.sort();
    digests.dedup();
    assert_eq!(digests.len(), usize::from(WRITERS * EACH), "every update is a revision of its own");
    assert!(store.leftovers().unwrap().is_empty());
}

#[test]
fn later_fields_are_tolerated_and_later_formats_refused() {
    let (_root, store) = store();
    store.write_ref(&content(1), 0, 2).unwrap();
    let path = layout::current(&dir(&store));
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen('{', "{\"later\": {\"x\": 1},", 1)).unwrap();
    assert_eq!(read(&store).unwrap().0, 1);
    std::fs::write(&path, text.replace("\"format\": 1", "\"format\": 9")).unwrap();
    assert!(matches!(store.read_ref("lab", "lolcow"), Err(Error::FileFormat { found: 9, .. })));
}

#[test]
fn a_ref_of_another_name_is_refused() {
    let (_root, store) = store();
    store.write_ref(&content(1), 0, 2).unwrap();
    let other = store.layout().ref_dir("open", "lolcow").unwrap();
    durable::make_dirs(&other).unwrap();
    std::fs::copy(layout::current(&dir(&store)), layout::current(&other)).unwrap();
    assert!(matches!(store.read_ref("open", "lolcow"), Err(Error::Damaged { .. })));
    let misplaced = layout::revision(&dir(&store), 2);
    std::fs::copy(layout::current(&dir(&store)), misplaced).unwrap();
    assert!(matches!(store.read_ref("lab", "lolcow"), Err(Error::Damaged { .. })));
}
