//! Edits, and files that were cut off in the middle of them.

use super::*;
use crate::format::primary_partition_extra;
use crate::{Draft, Filesystem};
use std::collections::BTreeMap;

const TIME: i64 = 1_700_000_000;
const NOW: i64 = 1_800_000_000;

fn sample() -> File {
    let file = tempfile::tempfile().unwrap();
    let object = crate::Object {
        datatype: DataType::DefinitionFile,
        name: String::new(),
        bytes: b"bootstrap: docker\n".to_vec(),
        extra: vec![],
    };
    let draft = Draft::new(Arch::Amd64, [7; 16], TIME, vec![object]).unwrap();
    file.write_all_at(&[b'P'; 4096], draft.partition_offset()).unwrap();
    draft.finish(&file, 4096).unwrap();
    file
}

fn partition(kind: i32, arch: Arch) -> Object {
    let mut extra = primary_partition_extra(Filesystem::Squashfs, arch);
    extra[4..8].copy_from_slice(&kind.to_le_bytes());
    Object { group: Some(1), extra, ..Object::new(DataType::Partition) }
}

fn generic(name: &str) -> Object {
    Object { name: name.into(), link: Link::Group(1), ..Object::new(DataType::Generic) }
}

fn bytes(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// What a reader makes of the file: contents and extras by id, and the primary partition's place.
type Seen = (BTreeMap<u32, (Vec<u8>, Vec<u8>)>, Option<u64>);

fn seen(sif: &Sif) -> Seen {
    let objects = sif.descriptors().iter().map(|object| {
        let extra = object.extra.to_vec();
        (object.id, (sif.object(object, 1 << 30).unwrap(), extra))
    });
    (objects.collect(), sif.primary_partition().ok().map(|partition| partition.offset))
}

#[test]
fn an_object_comes_and_goes() {
    let file = sample();
    let before = bytes(&file);
    let mut editor = Editor::open(file.try_clone().unwrap()).unwrap();
    editor.set_time(NOW);
    let id = editor.add(generic("note"), &mut &b"hello"[..]).unwrap();
    assert_eq!(id, 3);
    let added = editor.sif().descriptors()[2].clone();
    assert_eq!((added.name.as_str(), added.group, added.link), ("note", 0xf000_0000, 0xf000_0001));
    assert_eq!((added.offset, added.size_with_padding), (before.len() as u64, 5));
    assert_eq!(editor.sif().header().descriptors_free, 45);
    assert_eq!((editor.sif().header().ctime, editor.sif().header().mtime), (TIME, NOW));
    editor.delete(id, Delete { zero: true, compact: true }).unwrap();
    let mut after = bytes(&file);
    after[72..80].copy_from_slice(&TIME.to_le_bytes());
    assert!(before == after, "the file is as before but for its time of change");
}

#[test]
fn another_partition_becomes_the_primary_one() {
    let file = sample();
    let mut editor = Editor::open(file).unwrap();
    let id = editor.add(partition(SYSTEM, Arch::Arm64), &mut &[b'Q'; 100][..]).unwrap();
    let len = editor.sif().len();
    editor.set_primary(id).unwrap();
    let there = editor.sif().primary_partition().unwrap();
    assert_eq!((there.size, there.arch, editor.sif().header().arch), (100, Arch::Arm64, Arch::Arm64));
    assert_eq!((editor.sif().len(), editor.sif().header().descriptors_offset), (len, 4096));
    editor.delete(id, Delete::default()).unwrap();
    assert_eq!(editor.sif().header().arch, Arch::Unknown);
    assert_eq!(editor.sif().len(), len, "bytes stay unless asked");
    editor.set_primary(2).unwrap();
    assert_eq!(editor.sif().header().arch, Arch::Amd64);
}

#[test]
fn refusals_change_nothing() {
    let check = |name: &str, edit: &dyn Fn(&mut Editor) -> Result<u32, Error>, want: &str| {
        let file = sample();
        let before = bytes(&file);
        let mut editor = Editor::open(file.try_clone().unwrap()).unwrap();
        let error = edit(&mut editor).unwrap_err().to_string();
        assert!(error.contains(want), "{name}: {error}");
        assert!(before == bytes(&file), "{name}");
    };
    let add = |object: Object| move |editor: &mut Editor| editor.add(object.clone(), &mut &b"x"[..]);
    check("name", &add(generic(&"n".repeat(128))), "127 bytes");
    check("extra", &add(Object { extra: vec![0; 385], ..generic("") }), "384");
    check("alignment", &add(Object { alignment: 1 << 31, ..generic("") }), "alignment");
    check("group", &add(Object { group: Some(1 << 28), ..generic("") }), "group");
    check("two primaries", &add(partition(PRIMARY_SYSTEM, Arch::Amd64)), "data object 2");
    check("no such object", &|editor| editor.delete(9, Delete::default()).map(|()| 0), "no data object 9");
    check("no partition", &|editor| editor.set_primary(1).map(|()| 0), "no system partition");
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            static ONCE: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(true);
            match ONCE.swap(false, std::sync::atomic::Ordering::Relaxed) {
                true => Ok(buffer.len().min(1000)),
                false => Err(io::Error::other("the disk is gone")),
            }
        }
    }
    check("contents", &|editor| editor.add(generic(""), &mut Broken), "the disk is gone");
}

#[test]
fn a_full_table_is_refused_and_ids_are_reused() {
    let mut editor = Editor::open(sample()).unwrap();
    for n in 3..=48 {
        assert_eq!(editor.add(generic(""), &mut io::empty()).unwrap(), n);
    }
    assert!(matches!(editor.add(generic(""), &mut io::empty()), Err(Error::Full { total: 48 })));
    editor.delete(17, Delete::default()).unwrap();
    assert_eq!(editor.add(generic(""), &mut io::empty()).unwrap(), 17);
}

#[test]
fn one_editor_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.sif");
    let open = || File::options().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
    create(&open(), [1; 16], TIME).unwrap();
    let first = Editor::open(open()).unwrap();
    assert!(matches!(Editor::open(open()), Err(Error::Busy)));
    drop(first);
    Editor::open(open()).unwrap();
}

#[test]
fn what_a_crash_leaves_of_a_table_swap_is_healed() {
    let file = sample();
    let mut editor = Editor::open(file.try_clone().unwrap()).unwrap();
    let id = editor.add(partition(SYSTEM, Arch::Amd64), &mut &[b'Q'; 100][..]).unwrap();
    let table = Table::read(editor.sif()).unwrap();
    let end = place::data_end(editor.sif());
    let old = seen(editor.sif());
    drop(editor);
    // As if the machine had gone while the table itself was being written.
    file.write_all_at(table.bytes(), end).unwrap();
    file.write_all_at(&end.to_le_bytes(), place::TABLE_OFFSET).unwrap();
    file.write_all_at(&[0xff; 700], 4096).unwrap();
    assert_eq!(seen(&Sif::open(file.try_clone().unwrap()).unwrap()), old);
    let mut editor = Editor::open(file).unwrap();
    assert_eq!(editor.sif().header().descriptors_offset, 4096);
    assert_eq!(seen(editor.sif()), old);
    editor.set_primary(id).unwrap();
    assert!(editor.sif().primary_partition().unwrap().size == 100);
}

/// The steps of an edit as the kernel sees them, replayed one write at a time and each of them cut in two.
#[test]
fn a_file_cut_off_at_any_moment_is_the_old_or_the_new_sif() {
    let check = |name: &str, edit: &dyn Fn(&mut Editor)| {
        let file = sample();
        let mut editor = Editor::open(file.try_clone().unwrap()).unwrap();
        editor.add(partition(SYSTEM, Arch::Arm64), &mut &[b'Q'; 5000][..]).unwrap();
        let old = (bytes(&file), seen(editor.sif()));
        log::start();
        edit(&mut editor);
        let writes = log::take();
        let new = seen(editor.sif());
        assert!(old.1 != new && writes.len() >= 2, "{name}");
        for last in 0..writes.len() {
            for half in [0, 1, 2] {
                let replayed = tempfile::tempfile().unwrap();
                replayed.write_all_at(&old.0, 0).unwrap();
                for (at, bytes) in &writes[..last] {
                    replayed.write_all_at(bytes, *at).unwrap();
                }
                let (at, torn) = &writes[last];
                replayed.write_all_at(&torn[..torn.len() * half / 2], *at).unwrap();
                let got = Sif::open(replayed.try_clone().unwrap()).unwrap_or_else(|e| panic!("{name} {last}: {e}"));
                let got = seen(&got);
                assert!(got == old.1 || got == new, "{name}: neither old nor new after write {last} ({half}/2)");
                // And whoever edits next finds a sound file.
                let mut next = Editor::open(replayed).unwrap();
                let id = next.add(generic("next"), &mut &b"next"[..]).unwrap();
                next.delete(id, Delete::default()).unwrap();
                assert!(seen(next.sif()) == got, "{name}: the next edit after write {last} ({half}/2)");
            }
        }
    };
    check("add", &|editor| _ = editor.add(generic("a"), &mut &[b'A'; 3000][..]).unwrap());
    check("delete", &|editor| editor.delete(1, Delete::default()).unwrap());
    check("delete and zero", &|editor| editor.delete(3, Delete { zero: true, compact: false }).unwrap());
    check("set_primary", &|editor| editor.set_primary(3).unwrap());
}
