//! SIF files that are cut, changed or no SIF at all: refused with the reason, whoever asks.

use std::fs;
use std::fs::File;
use std::time::Duration;

use siforge_sif::Sif;
use siforge_tests::run::run_within;
use siforge_tests::wait_until;

use super::{assert_refused, nothing_mounted_from, site};

/// A damaged file must not hang anybody.
const DEADLINE: Duration = Duration::from_secs(30);

/// Where descriptors begin and how long one is: sylabs/sif, pkg/sif/sif.go.
const DESCRIPTORS: usize = 4096;
const DESCRIPTOR: usize = 585;

#[test]
fn damaged_files_are_refused_with_the_reason() {
    for siforge in &site().users {
        let good = fs::read(siforge.out().join("tiny.sif")).unwrap();
        let sif = Sif::open(File::open(siforge.out().join("tiny.sif")).unwrap()).unwrap();
        let partition = sif.primary_partition().unwrap();
        let (start, size) = (partition.offset as usize, partition.size as usize);
        let changed = |at: usize, bytes: &[u8]| {
            let mut file = good.clone();
            file[at..at + bytes.len()].copy_from_slice(bytes);
            file
        };
        let garbage = [0x5a; 96];
        // The partition's descriptor is the fifth: definition, metadata, OCI config and provenance before it.
        let of_partition = DESCRIPTORS + 4 * DESCRIPTOR;
        let rows: [(&str, Vec<u8>, &str); 14] = [
            ("empty", vec![], "SIF"),
            ("no-sif", b"#!/bin/sh\necho not a SIF\n".to_vec(), "SIF"),
            ("cut-in-the-header", good[..100].to_vec(), ""),
            ("cut-in-the-descriptors", good[..DESCRIPTORS + 700].to_vec(), ""),
            ("cut-before-the-partition", good[..start].to_vec(), ""),
            ("cut-in-the-partition", good[..start + size / 2].to_vec(), ""),
            ("cut-at-the-end", good[..good.len() - 4096].to_vec(), ""),
            ("another-magic", changed(32, b"FIS_MAGIC\0"), "SIF"),
            ("another-version", changed(42, b"99\0"), "version"),
            ("no-partition", changed(of_partition, &[0; DESCRIPTOR]), "partition"),
            ("partition-beyond-the-end", changed(of_partition + 17, &i64::MAX.to_le_bytes()), ""),
            ("no-superblock", changed(start, &garbage), ""),
            ("tables-beyond-the-end", changed(start + 64, &[0xff; 16]), ""),
            ("garbage-tables", changed(start + size - 8192, &[0xa5; 8192]), ""),
        ];
        for (name, bytes, part) in rows {
            let file = format!("{name}.sif");
            fs::write(siforge.out().join(&file), bytes).unwrap();
            siforge.give(&siforge.out().join(&file));
            let ran = run_within(DEADLINE, siforge.command().args(["exec", &file, "true"]));
            assert_refused(siforge, &ran, &[&file, part, "siforge: error: "]);
            let inspected = run_within(DEADLINE, siforge.command().args(["inspect", &file]));
            assert!(!inspected.output().contains("panicked"), "{inspected}");
            assert!(inspected.success() || inspected.stderr.contains(&file), "{inspected}");
        }
        nothing_mounted_from(siforge.dir());
        // Tests beside this one unpack too, into the same cache, and come to an end.
        let what = format!("no half-unpacked images of {}", siforge.who());
        let unpacked = siforge.cache().join("unpacked");
        wait_until(DEADLINE, &what, || match fs::read_dir(&unpacked) {
            Ok(entries) => !entries.flatten().any(|entry| entry.file_name().as_encoded_bytes().starts_with(b".tmp")),
            // Only an ordinary user's images are unpacked.
            Err(_) => true,
        });
    }
}

/// Any byte of the tables changed: the kernel and our reader may find it or not, but neither hangs, panics or leaves a mount.
#[test]
fn random_damage_harms_nobody() {
    for siforge in &site().users {
        let good = fs::read(siforge.out().join("static.sif")).unwrap();
        let sif = Sif::open(File::open(siforge.out().join("static.sif")).unwrap()).unwrap();
        let end = (sif.primary_partition().unwrap().offset + sif.primary_partition().unwrap().size) as usize;
        for round in 0..12_usize {
            let mut bytes = good.clone();
            for step in 0..6 {
                // Headers and descriptors, and the tables, which are at the partition's end.
                let at = if round % 2 == 0 {
                    (round * 397 + step * 1009) % 8192
                } else {
                    end - 1 - (round * 613 + step * 211) % 6000
                };
                bytes[at] ^= (round * 37 + step * 11 + 1) as u8;
            }
            let file = format!("random-{round}.sif");
            fs::write(siforge.out().join(&file), bytes).unwrap();
            siforge.give(&siforge.out().join(&file));
            let ran = run_within(DEADLINE, siforge.command().args(["exec", &file, "/busybox", "true"]));
            // The command's own bytes may be hit: then it may die of whatever.
            assert!(ran.code() != 101 && !ran.output().contains("panicked"), "{}: {ran}", siforge.who());
        }
    }
}
