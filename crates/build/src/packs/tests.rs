//! The same bytes with and without packs: over generated stacks of layers.

use super::*;
use crate::convert::convert;
use crate::golden::{Tar, inputs, registry, text, wait};
use sha2::{Digest as _, Sha256};
use siforge_oci::{Compression, Download, Operation};
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;

const BLOCK: usize = 64 << 10;

fn recipe() -> Recipe {
    Recipe { block_size: BLOCK as u32, ..Recipe::default() }
}

/// A generator of its own: the cases are the same on every machine.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides) as usize
    }

    fn name(&mut self) -> String {
        format!("{}/{}", ["a", "b", "c"][self.roll(3)], ["f", "g", "h", "i", "j", "k", "l", "m"][self.roll(8)])
    }
}

/// Few contents, so that many files are equal.
fn contents(number: usize) -> Vec<u8> {
    match number {
        0 => vec![],
        1 => b"small".to_vec(),
        2 => vec![0; 3 * BLOCK + 7],
        3 => [text(3, BLOCK), vec![0; BLOCK], text(4, 100)].concat(),
        4 => text(5, BLOCK),
        5..=7 => text(number as u32, 2 * BLOCK + 1000 * number),
        _ => text(number as u32, 4000 * (number - 7)),
    }
}

/// A member as GNU tar writes a file with a hole: PAX sparse format 1.0.
fn sparse(tar: Tar, name: &str, seed: u32) -> Tar {
    let size = 2 * BLOCK + 512;
    let mut data = format!("1\n{}\n512\n", size - 512).into_bytes();
    data.resize(512, 0);
    data.extend(text(seed, 512));
    let real = size.to_string();
    let records = [
        ("GNU.sparse.major", "1"),
        ("GNU.sparse.minor", "0"),
        ("GNU.sparse.name", name),
        ("GNU.sparse.realsize", real.as_str()),
    ];
    tar.pax(&records).file("GNUSparseFile.0/x", &data)
}

fn layer(dice: &mut Dice, lowest: bool) -> Vec<u8> {
    let mut tar = Tar::default();
    for directory in ["a/", "b/", "c/"] {
        if lowest || dice.roll(3) == 0 {
            tar = tar.directory(directory);
        }
    }
    for _ in 0..4 + dice.roll(20) {
        let name = dice.name();
        tar = match dice.roll(20) {
            0 => tar.file(&format!("{}/.wh.{}", &name[..1], &name[2..]), b""),
            1 => tar.file(&format!("{}/.wh..wh..opq", &name[..1]), b""),
            2 => tar.link(&name, b'2', "target"),
            // Its target may be in this layer or in one below; what has none is told by the reference build.
            3 if dice.roll(3) == 0 => tar.link(&name, b'1', &dice.name()),
            4 => sparse(tar, &name, dice.roll(3) as u32 + 90),
            _ => tar.file(&name, &contents(dice.roll(24))),
        };
    }
    tar.end()
}

/// One build as `run.rs` does it: the image digest, and how many attempts it took.
fn build(tars: &[Vec<u8>], threads: usize, packs: Option<&Packs>, blobs: bool) -> Result<(Digest, usize), Error> {
    let mut experience = Experience::default();
    for attempt in 1.. {
        let mut inputs = inputs(&recipe(), tars, Compression::None);
        inputs.threads = threads;
        if !blobs {
            for download in &mut inputs.downloads {
                *download = Download::new(tempfile::tempfile().unwrap(), 1);
                download.fail(siforge_oci::Error::Interrupted {
                    operation: Operation::Tags { name: "none".to_owned() },
                    written: 0,
                });
            }
        }
        if let Some(packs) = packs {
            let kind = Kind::of(&recipe());
            let find = |layer: &Layer| {
                let file = packs.open(&layer.diff_id, &kind.file_name()).unwrap()?;
                let usable = !experience.forbids(&layer.diff_id);
                usable.then(|| open(file, &layer.diff_id, packs, kind).unwrap()).flatten()
            };
            inputs.packs = LayerPacks {
                found: inputs.resolved.layers.iter().rev().map(find).collect(),
                scratch: Some(Arc::new(Scratch::new(packs.scratch().unwrap()))),
                lacking: experience.lacking.clone(),
            };
        }
        let out = tempfile::NamedTempFile::new().unwrap();
        let digest = |size| crate::convert::digest(&inputs, size, out.as_file(), out.path()).unwrap();
        match (convert(&inputs, out.as_file(), out.path()), packs) {
            (Ok(made), Some(packs)) => {
                made.recordings.save_packs(out.as_file(), packs);
                return Ok((digest(made.size), attempt));
            }
            (Ok(made), None) => return Ok((digest(made.size), attempt)),
            (Err(error), Some(packs)) if experience.learn(&error, packs, &recipe())? => {}
            (Err(error), _) => return Err(error),
        }
    }
    unreachable!("attempts are bounded by the layers")
}

fn all_packs(packs: &Packs) -> Vec<PathBuf> {
    let prefixes = std::fs::read_dir(packs.dir().join("sha256")).unwrap();
    let files = prefixes.flat_map(|prefix| std::fs::read_dir(prefix.unwrap().path()).unwrap());
    let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).filter(|path| path.is_file()).collect();
    paths.sort();
    paths
}

/// A complete pack gives back its layer's tar.
fn check_tar(tar: &[u8], packs: &Packs) -> bool {
    let diff_id = Digest::from_bytes(Sha256::digest(tar).into());
    let kind = Kind::of(&recipe());
    let file = packs.open(&diff_id, &kind.file_name()).unwrap().expect("a pack");
    let pack = open(file, &diff_id, packs, kind).unwrap().expect("sound");
    let mut again = vec![];
    let read = pack.tar().read_to_end(&mut again);
    // A sparse file's bytes stand in the framing whether its blocks are there or not.
    assert!(read.is_ok() || !pack.is_complete(), "{read:?}");
    assert!(read.is_err() || again == tar, "another tar of {} bytes", again.len());
    pack.is_complete()
}

#[test]
fn packs_change_no_byte() {
    let (mut built, mut second, mut lacked, mut complete, mut partial) = (0, 0, 0, 0, 0);
    for seed in 1..36 {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        let tars: Vec<_> = (0..2 + dice.roll(3)).map(|number| layer(&mut dice, number == 0)).collect();
        let Ok((expect, _)) = build(&tars, 1, None, true) else {
            continue;
        };
        built += 1;
        let dir = tempfile::tempdir().unwrap();
        let packs = Packs::at(dir.path());
        let again = |tars: &[Vec<u8>], threads, blobs| build(tars, threads, Some(&packs), blobs).unwrap();
        assert_eq!(again(&tars, 3, true), (expect, 1), "seed {seed}: recorded");
        // A group that is hidden as a whole is left out before it is known that a later file equals a member of it. Then
        // the pack lacks that, once.
        let (got, attempts) = again(&tars, 3, true);
        assert_eq!(got, expect, "seed {seed}: from packs");
        second += attempts - 1;
        for threads in [1, 4] {
            assert_eq!(again(&tars, threads, false), (expect, 1), "seed {seed}: from packs alone");
        }
        for tar in &tars {
            *(if check_tar(tar, &packs) { &mut complete } else { &mut partial }) += 1;
        }
        // Other images of the same layers: what was hidden may be seen.
        let stacks = [
            tars[..tars.len() - 1].to_vec(),
            [&tars[..], &[layer(&mut dice, false)]].concat(),
            [&tars[..1], &[layer(&mut dice, false)], &tars[1..]].concat(),
        ];
        for stack in &stacks {
            let Ok((expect, _)) = build(stack, 2, None, true) else {
                continue;
            };
            let (got, attempts) = again(stack, 2, true);
            assert_eq!(got, expect, "seed {seed}: another image");
            lacked += attempts - 1;
            let (got, attempts) = again(stack, 1, true);
            assert_eq!(got, expect, "seed {seed}: another image, from packs");
            second += attempts - 1;
            assert_eq!(again(stack, 2, false), (expect, 1), "seed {seed}: another image once more");
        }
        stacks.iter().flatten().chain(&tars).filter(|tar| packs_has(&packs, tar)).for_each(|tar| {
            check_tar(tar, &packs);
        });
    }
    // The generator makes what the test is about.
    assert!(second < built, "{second} of {built} images lacked something twice");
    assert!(built > 20 && lacked > 10 && complete > 15 && partial > 10, "{built} {lacked} {complete} {partial}");
}

#[test]
fn packs_that_lack_something_are_found_by_one_attempt() {
    // Of each layer the topmost one hides a large file and a group, but not all: so their packs are used.
    let layer = |number: u32| {
        let name = |kind: &str| format!("{kind}{number}");
        let tar = Tar::default()
            .file(&name("kept"), &text(100 + number, 5000))
            .file(&name("large"), &text(number, 3 * BLOCK));
        tar.file(&name("small"), &text(200 + number, BLOCK - 1)).end()
    };
    let base: Vec<_> = (0..6).map(layer).collect();
    for hidden in ["large", "small"] {
        let top = (0..6).fold(Tar::default(), |tar, number| tar.file(&format!(".wh.{hidden}{number}"), b"")).end();
        let dir = tempfile::tempdir().unwrap();
        let packs = Packs::at(dir.path());
        build(&[&base[..], &[top]].concat(), 2, Some(&packs), true).unwrap();
        let (expect, _) = build(&base, 2, None, true).unwrap();
        assert_eq!(build(&base, 2, Some(&packs), true).unwrap(), (expect, 2), "{hidden}");
        assert_eq!(build(&base, 2, Some(&packs), false).unwrap(), (expect, 1), "{hidden}: they lack nothing now");
    }
}

fn packs_has(packs: &Packs, tar: &[u8]) -> bool {
    let diff_id = Digest::from_bytes(Sha256::digest(tar).into());
    packs.open(&diff_id, &Kind::of(&recipe()).file_name()).unwrap().is_some()
}

#[test]
fn a_damaged_pack_is_noticed_and_made_anew() {
    let mut dice = Dice(77);
    let tars = [layer(&mut dice, true), Tar::default().file("z/new", &text(200, 100_000)).end()];
    let (expect, _) = build(&tars, 2, None, true).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let packs = Packs::at(dir.path());
    build(&tars, 2, Some(&packs), true).unwrap();
    let paths = all_packs(&packs);
    let sound: Vec<_> = paths.iter().map(|path| std::fs::read(path).unwrap()).collect();
    assert_eq!(paths.len(), 2);
    for case in 0..80 {
        let number = dice.roll(2);
        let length = sound[number].len();
        let mut file = std::fs::OpenOptions::new().write(true).open(&paths[number]).unwrap();
        match case % 4 {
            0 => file.set_len(dice.roll(length as u64) as u64).unwrap(),
            1 => std::fs::write(&paths[number], &sound[1 - number]).unwrap(),
            // The index and the trailer are a small part of it.
            _ => {
                let at = if case % 4 == 2 { dice.roll(length as u64) } else { length - 1 - dice.roll(600) };
                file.seek(SeekFrom::Start(at as u64)).unwrap();
                file.write_all(&[sound[number][at] ^ 0x10]).unwrap();
            }
        }
        let (got, _) = build(&tars, 2, Some(&packs), true).unwrap();
        assert_eq!(got, expect, "case {case}");
        assert_eq!(all_packs(&packs), paths, "case {case}");
        assert_eq!(build(&tars, 1, Some(&packs), false).unwrap(), (expect, 1), "case {case}");
    }
}

/// As far as it is decided before the registry is asked: nothing answers there.
#[test]
fn a_pack_is_used_where_its_blob_might_be() {
    let tars = [Tar::default().file("secret", b"of another one").end()];
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::at(&dir.path().join("blobs")).unwrap();
    let packs = blobs.packs();
    let image = || inputs(&recipe(), &tars, Compression::None).resolved;
    let layer = image().layers[0].clone();
    build(&tars, 1, Some(&packs), true).unwrap();
    let note = packs.path(&layer.diff_id, "of", true).join(layer.digest.hex());
    std::fs::remove_file(&note).unwrap();
    let check = |what: &str, reuse, expect| {
        let cache = Cache { blobs: &blobs, reuse };
        let found = wait(find(&registry(image()), &layer, cache, &packs, Kind::of(&recipe())));
        assert_eq!(found.unwrap().is_some(), expect, "{what}");
    };
    check("no cache", Reuse::Never, false);
    check("one's own, but a blob that was never decoded to it", Reuse::Own, false);
    blobs.note_origin(&layer.digest, "127.0.0.1:5000").unwrap();
    check("a blob that was never decoded to it", Reuse::Vouched, false);
    packs.note_blob(&layer.diff_id, &layer.digest).unwrap();
    check("one's own", Reuse::Own, true);
    std::fs::remove_dir_all(blobs.path(&layer.digest).with_extension("from")).unwrap();
    check("a blob of another registry", Reuse::Vouched, false);
}

/// Two layers of one blob cannot both be what it decodes to: who reads it must find it.
#[test]
fn a_blob_is_spared_if_all_its_layers_have_packs() {
    let tars = [b"one", b"two"].map(|contents| Tar::default().file("file", contents).end());
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::at(&dir.path().join("blobs")).unwrap();
    build(&tars, 1, Some(&blobs.packs()), true).unwrap();
    let image = inputs(&recipe(), &tars, Compression::None).resolved;
    let [one, two] = [0, 1].map(|number| image.layers[number].clone());
    let strange = Layer { digest: one.digest, ..two.clone() };
    let check = |layers: &[&Layer], packed: &[bool], spare: &[Digest]| {
        let image = Image { layers: layers.iter().map(|layer| (*layer).clone()).collect(), ..image.clone() };
        let cache = Cache { blobs: &blobs, reuse: Reuse::Own };
        let source = registry(image.clone());
        let (recipe, experience) = (recipe(), Experience::default());
        let packs = wait(LayerPacks::prepare(&source, cache, &recipe, 2, &experience)).unwrap();
        let got: Vec<_> = (0..layers.len()).rev().map(|number| packs.get(number).is_some()).collect();
        assert_eq!(got, packed);
        let mut got = packs.spare(&image);
        got.reverse();
        assert_eq!(got, spare);
    };
    check(&[&one, &two], &[true, true], &[one.digest, two.digest]);
    check(&[&one, &one], &[true, true], &[one.digest, one.digest]);
    check(&[&one, &strange, &two], &[true, false, true], &[two.digest]);
    check(&[&strange, &one], &[false, true], &[]);
}
