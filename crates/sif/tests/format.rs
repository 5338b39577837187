//! Golden bytes of the writer, and what the reader refuses. The numbers are those of files that Apptainer 1.4.5 wrote.

use siforge_sif::format::{GROUP_MASK, primary_partition_extra};
use siforge_sif::reader::Error;
use siforge_sif::{Arch, DataType, Draft, Filesystem, Object, Sif};
use std::fs::File;
use std::os::unix::fs::FileExt;

const UUID: [u8; 16] = *b"0123456789abcdef";
const TIME: i64 = 1_700_000_000;
const PARTITION_LEN: u64 = 8192;

fn objects() -> Vec<Object> {
    let object = |datatype, name: &str, bytes: &[u8]| Object {
        datatype,
        name: name.into(),
        bytes: bytes.into(),
        extra: Vec::new(),
    };
    vec![
        object(DataType::DefinitionFile, "", b"bootstrap: docker\nfrom: x\n\n"),
        object(DataType::GenericJson, "inspect-metadata.json", b"{}"),
    ]
}

/// A whole SIF; its partition is filled with `P`.
fn sample() -> Vec<u8> {
    let file = tempfile::tempfile().unwrap();
    let draft = Draft::new(Arch::Amd64, UUID, TIME, objects()).unwrap();
    assert_eq!(draft.partition_offset(), 32768);
    file.write_all_at(&vec![b'P'; PARTITION_LEN as usize - 100], draft.partition_offset()).unwrap();
    let len = draft.finish(&file, PARTITION_LEN - 100).unwrap();
    assert_eq!(len, 32768 + PARTITION_LEN);
    read_all(&file)
}

fn read_all(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn open(bytes: &[u8]) -> Result<Sif, Error> {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(bytes, 0).unwrap();
    Sif::open(file)
}

fn number(bytes: &[u8], at: usize) -> i64 {
    i64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

#[test]
fn header_is_the_references() {
    let bytes = sample();
    assert_eq!(&bytes[..48], b"#!/usr/bin/env run-singularity\n\0SIF_MAGIC\x0001\x0002\0");
    assert_eq!(bytes[48..64], UUID);
    let numbers: Vec<i64> = (0..8).map(|index| number(&bytes, 64 + 8 * index)).collect();
    let data_len = (32768 - 32176) + PARTITION_LEN as i64;
    assert_eq!(numbers, [TIME, TIME, 45, 48, 4096, 28080, 32176, data_len]);
    assert!(bytes[128..4096].iter().all(|byte| *byte == 0));
    assert!(bytes[4096 + 3 * 585..32176].iter().all(|byte| *byte == 0), "unused slots are zero");
}

#[test]
fn descriptors_are_the_references() {
    let bytes = sample();
    let slot = |index: usize| &bytes[4096 + index * 585..4096 + (index + 1) * 585];
    let second = slot(1);
    assert_eq!(second[..17], [0x06, 0x40, 0, 0, 1, 2, 0, 0, 0, 1, 0, 0, 0xf0, 0, 0, 0, 0]);
    assert_eq!(number(second, 17), 32176 + 27);
    assert_eq!([number(second, 25), number(second, 33)], [2, 2]);
    assert_eq!([number(second, 41), number(second, 49), number(second, 57), number(second, 65)], [TIME, TIME, 0, 0]);
    assert_eq!(&second[73..73 + 22], b"inspect-metadata.json\0");
    let partition = slot(2);
    assert_eq!(partition[..9], [0x04, 0x40, 0, 0, 1, 3, 0, 0, 0]);
    assert_eq!([number(partition, 17), number(partition, 25)], [32768, PARTITION_LEN as i64]);
    assert_eq!(number(partition, 33), PARTITION_LEN as i64 + 32768 - 32176 - 29, "the padding before it counts");
    assert_eq!(partition[201..212], primary_partition_extra(Filesystem::Squashfs, Arch::Amd64)[..]);
    assert_eq!(partition[201..213], *b"\x01\0\0\0\x02\0\0\x0002\0\0");
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    assert_eq!(sample(), sample());
}

#[test]
fn what_was_written_is_read() {
    let sif = open(&sample()).unwrap();
    assert_eq!((sif.header().arch, sif.header().uuid, sif.header().ctime), (Arch::Amd64, UUID, TIME));
    let partition = sif.primary_partition().unwrap();
    assert_eq!((partition.offset, partition.size, partition.filesystem), (32768, PARTITION_LEN, Filesystem::Squashfs));
    let metadata = sif.find(DataType::GenericJson, "inspect-metadata.json").unwrap();
    assert_eq!(sif.object(metadata, 2).unwrap(), b"{}");
    assert!(matches!(sif.object(metadata, 1), Err(Error::ObjectTooLarge { size: 2, limit: 1, .. })));
    assert_eq!(metadata.group_number(), Some(1));
    assert_eq!(metadata.group, GROUP_MASK | 1);
}

#[test]
fn more_and_less_than_the_reference_writes_is_read() {
    // 3 descriptors only, elsewhere, behind the data.
    let mut bytes = sample();
    let table = bytes[4096..4096 + 3 * 585].to_vec();
    bytes[4096..32176].fill(0);
    let at = bytes.len() as i64;
    bytes.extend_from_slice(&table);
    bytes[88..96].copy_from_slice(&3i64.to_le_bytes());
    bytes[80..88].copy_from_slice(&0i64.to_le_bytes());
    bytes[96..104].copy_from_slice(&at.to_le_bytes());
    let sif = open(&bytes).unwrap();
    assert_eq!(sif.descriptors().len(), 3);
    assert_eq!(sif.primary_partition().unwrap().offset, 32768);
    // A deleted object leaves an unused slot.
    let mut bytes = sample();
    bytes[4096 + 4] = 0;
    assert_eq!(open(&bytes).unwrap().descriptors().len(), 2);
}

/// One change to a valid file, and what the reader says of it.
fn check(change: impl FnOnce(&mut Vec<u8>), expected: &str) {
    let mut bytes = sample();
    change(&mut bytes);
    let error = open(&bytes).and_then(|sif| sif.primary_partition().map(|_| ())).unwrap_err().to_string();
    assert!(error.contains(expected), "got {error:?}, want {expected:?}");
}

fn put(at: usize, value: i64) -> impl FnOnce(&mut Vec<u8>) {
    move |bytes| bytes[at..at + 8].copy_from_slice(&value.to_le_bytes())
}

#[test]
fn damage_is_refused_with_its_reason() {
    const FIRST: usize = 4096;
    const PARTITION: usize = 4096 + 2 * 585;
    check(|bytes| bytes.clear(), "truncated SIF: 0 bytes");
    check(|bytes| bytes.truncate(127), "truncated SIF: 127 bytes");
    check(|bytes| bytes.truncate(32175), "truncated SIF: the descriptors end at byte 32176, the file has 32175");
    check(|bytes| bytes.truncate(32180), "truncated SIF: data object 1 ends at byte 32203");
    check(|bytes| bytes.truncate(32768 + 8191), "truncated SIF: data object 3 ends at byte 40960, the file has 40959");
    check(|bytes| bytes[32] = b'X', "invalid SIF magic");
    check(|bytes| bytes[..128].fill(0), "invalid SIF magic");
    check(|bytes| bytes[43] = b'2', "unsupported SIF version");
    check(put(88, 4097), "4097 descriptors, at most 4096");
    check(put(88, -1), "the number of descriptors is -1");
    check(put(88, i64::MAX), "at most 4096");
    check(put(80, 49), "the number of free descriptors is 49");
    check(put(96, 0), "the descriptors' offset is 0");
    check(put(96, i64::MAX), "truncated SIF: the descriptors end");
    check(put(96, i64::MIN), "the descriptors' offset is -");
    check(put(FIRST + 17, -1), "descriptor 1: the offset is -1");
    check(put(FIRST + 17, i64::MAX), "truncated SIF: data object 1");
    check(put(FIRST + 25, i64::MAX), "truncated SIF: data object 1");
    check(put(FIRST + 25, -5), "descriptor 1: the size is -5");
    check(put(FIRST + 33, -5), "descriptor 1: the size with padding is -5");
    check(put(FIRST + 17, 5000), "descriptor 1: the offset is 5000");
    check(put(FIRST + 17, 0), "descriptor 1: the offset is 0");
    check(|bytes| bytes[FIRST + 5] = 0, "descriptor 0: the id is 0");
    check(|bytes| bytes[FIRST + 5] = 2, "two descriptors have the id 2");
    check(|bytes| bytes[PARTITION + 4] = 0, "no primary system partition");
    check(|bytes| bytes[PARTITION + 205] = 3, "no primary system partition");
    let second_partition = |bytes: &mut Vec<u8>| {
        let mut slot = bytes[PARTITION..PARTITION + 585].to_vec();
        slot[5] = 9;
        bytes[FIRST..FIRST + 585].copy_from_slice(&slot);
    };
    check(second_partition, "2 primary system partitions");
}

#[test]
fn no_single_damaged_byte_makes_the_reader_panic() {
    let good = sample();
    for at in (0..128).chain(4096..4096 + 4 * 585) {
        for value in [0, 0x7f, 0xff] {
            let mut bytes = good[..32768 + 4096].to_vec();
            bytes[at] = value;
            if let Ok(sif) = open(&bytes) {
                for descriptor in sif.descriptors() {
                    let _ = sif.object(descriptor, 1 << 20);
                }
                let _ = sif.primary_partition();
            }
        }
    }
}

#[test]
fn a_draft_has_limits() {
    let many = vec![objects().remove(0); 48];
    assert!(Draft::new(Arch::Amd64, UUID, TIME, many).is_err());
    let mut long = objects();
    long[0].name = "n".repeat(128);
    assert!(Draft::new(Arch::Amd64, UUID, TIME, long).is_err());
    let draft = Draft::new(Arch::Amd64, UUID, TIME, objects()).unwrap();
    assert!(draft.finish(&tempfile::tempfile().unwrap(), u64::MAX - 5000).is_err());
}
