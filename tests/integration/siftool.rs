//! `siforge sif` against `apptainer sif`: the same text of the same file, and the same file after the same changes.

use std::fs;
use std::path::PathBuf;

use siforge_tests::apptainer::Apptainer;
use siforge_tests::{Siforge, images};

const FINGERPRINT: &str = "433FE984155206BD962725E20E8713472A879943";

struct Both {
    siforge: Siforge,
    apptainer: Apptainer,
}

impl Both {
    fn new() -> Self {
        Self { siforge: Siforge::root(), apptainer: Apptainer::new() }
    }

    fn ours(&self, name: &str) -> PathBuf {
        self.siforge.out().join(name)
    }

    /// Gives the reference our file.
    fn share(&self, name: &str) {
        fs::copy(self.ours(name), self.apptainer.here().join(name)).unwrap();
    }

    /// Both change a file of theirs of this name.
    #[track_caller]
    fn change(&self, words: &[&str]) {
        self.siforge.run(&[&["sif"], words].concat()).ok();
        let there: Vec<String> = words
            .iter()
            .map(|word| if word.contains('.') { self.apptainer.there(word) } else { (*word).to_owned() })
            .collect();
        let there: Vec<&str> = there.iter().map(String::as_str).collect();
        self.apptainer.root(&[&["apptainer", "sif"], &there[..]].concat()).ok();
    }

    /// Both print the same of our file.
    #[track_caller]
    fn same(&self, words: &[&str], name: &str) -> String {
        self.share(name);
        let ours = self.siforge.run(&[&["sif"], words, &[name]].concat()).ok();
        let there = self.apptainer.there(name);
        let theirs = self.apptainer.root(&[&["apptainer", "sif"], words, &[&there]].concat()).ok();
        assert_eq!(ours.stdout, theirs.stdout, "{words:?}");
        ours.stdout
    }
}

#[test]
fn what_is_printed_is_the_reference_s() {
    let both = Both::new();
    images::tiny().write_layout(&both.ours("layout"));
    both.siforge.run(&["build", "tiny.sif", "oci:layout"]).ok();
    both.same(&["header"], "tiny.sif");
    let list = both.same(&["list"], "tiny.sif");
    let objects = list.lines().filter(|line| line.starts_with(|first: char| first.is_ascii_digit())).count();
    assert_eq!(objects, 5, "{list}");
    for id in ["1", "2", "3", "4", "5"] {
        both.same(&["info", id], "tiny.sif");
    }
    for id in ["1", "2", "3", "4"] {
        both.same(&["dump", id], "tiny.sif");
    }
}

/// Times and the random id aside, byte for byte.
#[test]
fn what_is_changed_is_the_reference_s() {
    let both = Both::new();
    fs::write(both.ours("data.bin"), vec![7_u8; 10_001]).unwrap();
    both.share("data.bin");
    both.change(&["new", "x.sif"]);
    for words in [
        &["add", "--datatype", "1", "x.sif", "data.bin"][..],
        &[
            "add",
            "--datatype",
            "4",
            "--parttype",
            "1",
            "--partfs",
            "1",
            "--partarch",
            "2",
            "--groupid",
            "1",
            "x.sif",
            "data.bin",
        ],
        &[
            "add",
            "--datatype",
            "4",
            "--parttype",
            "3",
            "--partfs",
            "4",
            "--partarch",
            "4",
            "--alignment",
            "512",
            "x.sif",
            "data.bin",
        ],
        &["add", "--datatype", "5", "--signhash", "2", "--signentity", FINGERPRINT, "--link", "1", "x.sif", "data.bin"],
        &["add", "--datatype", "6", "--filename", "named", "x.sif", "data.bin"],
        &["add", "--datatype", "8", "x.sif", "data.bin"],
        &["add", "--datatype", "9", "--sbomformat", "spdx-json", "x.sif", "data.bin"],
        &["add", "--datatype", "10", "--groupid", "3", "x.sif", "data.bin"],
        &["add", "--datatype", "11", "x.sif", "data.bin"],
        &["setprim", "2", "x.sif"],
        &["del", "1", "x.sif"],
        &["del", "9", "x.sif"],
        &["add", "--datatype", "7", "--groupid", "2", "x.sif", "data.bin"],
    ] {
        both.change(words);
    }
    let masked = |path: PathBuf| {
        let mut bytes = fs::read(path).unwrap();
        // uuid and times of the header, times of the descriptors.
        bytes[48..80].fill(0);
        for slot in 0..48 {
            bytes[4096 + slot * 585..][41..57].fill(0);
        }
        bytes
    };
    let (ours, theirs) = (masked(both.ours("x.sif")), masked(both.apptainer.here().join("x.sif")));
    let first = ours.iter().zip(&theirs).position(|(a, b)| a != b);
    assert_eq!((ours.len(), first), (theirs.len(), None));
    both.same(&["list"], "x.sif");
    both.same(&["header"], "x.sif");
    for id in ["2", "3", "4", "5", "6", "7", "8"] {
        both.same(&["info", id], "x.sif");
    }
}

#[test]
fn mistakes_are_named() {
    let siforge = Siforge::root();
    fs::write(siforge.out().join("data.bin"), "x").unwrap();
    siforge.run(&["sif", "new", "x.sif"]).ok();
    let before = fs::read(siforge.out().join("x.sif")).unwrap();
    let check = |words: &[&str], part: &str| {
        let ran = siforge.run(&[&["sif"], words].concat()).fails_with(255);
        assert!(ran.stderr.contains(part), "{part:?} in {ran}");
        assert_eq!(fs::read(siforge.out().join("x.sif")).unwrap(), before, "{words:?}");
    };
    check(&["new", "x.sif"], "exists");
    check(&["info", "1", "x.sif"], "no data object 1");
    check(&["dump", "9", "x.sif"], "no data object 9");
    check(&["del", "1", "x.sif"], "no data object 1");
    check(&["setprim", "1", "x.sif"], "no data object 1");
    check(&["list", "data.bin"], "SIF");
    check(&["add", "--datatype", "4", "x.sif", "data.bin"], "--partfs");
    check(&["add", "--datatype", "5", "x.sif", "data.bin"], "--signentity");
    check(&["add", "--datatype", "9", "--sbomformat", "x", "x.sif", "data.bin"], "spdx-json");
    check(&["add", "--datatype", "12", "x.sif", "data.bin"], "12");
    check(&["add", "--datatype", "7", "x.sif", "none"], "none");
}
