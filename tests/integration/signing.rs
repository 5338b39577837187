//! Signatures in SIF files: the reference verifies what we sign, we verify what it signs, and both refuse the same damage.

mod gnupg;
mod keys;
mod pem;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use siforge_sif::{DataType, Descriptor, Sif};
use siforge_tests::apptainer::Apptainer;
use siforge_tests::{Finished, Registry, Siforge, images};

const PASSPHRASE: &str = "correct horse";

/// An unsigned image and a keyring, in a folder that both programs see.
struct Signing {
    apptainer: Apptainer,
    siforge: Siforge,
}

impl Signing {
    fn new() -> Self {
        let signing = Self { apptainer: Apptainer::new(), siforge: Siforge::root() };
        let registry = Registry::plain();
        registry.push("tiny", &images::tiny());
        let sif = signing.siforge.pull(&registry, "tiny", "plain.sif");
        fs::copy(sif, signing.path("plain.sif")).unwrap();
        signing
    }

    /// Makes a key in the keyring `keys`.
    fn new_key(&self, name: &str, passphrase: &str) {
        let email = format!("{name}@example.org");
        let words = ["apptainer", "key", "newpair", "--bit-length", "2048", "--push=false", "--name", name, "--email"];
        let rest = [&*email, "--comment", "a test", "--password", passphrase];
        self.theirs(&[&words[..], &rest].concat()).ok();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.apptainer.here().join(name)
    }

    fn copy(&self, from: &str, to: &str) -> PathBuf {
        fs::copy(self.path(from), self.path(to)).unwrap();
        self.path(to)
    }

    /// Apptainer with the keyring.
    fn theirs(&self, words: &[&str]) -> Finished {
        let keys = format!("APPTAINER_KEYSDIR={}", self.apptainer.there("keys"));
        self.apptainer.root(&[&["env", &keys], words].concat())
    }

    fn ours(&self, command: &str, options: &[&str], sif: &Path) -> Finished {
        let (keys, sif) = (self.path("keys").display().to_string(), sif.display().to_string());
        self.siforge.run(&[&[command, "--keysdir", &keys], options, &[&sif]].concat())
    }

    fn they_verify(&self, name: &str, options: &[&str]) -> Finished {
        self.theirs(&[&["apptainer", "verify"], options, &[&self.apptainer.there(name)]].concat())
    }
}

fn object(path: &Path, wanted: impl Fn(&Descriptor) -> bool) -> Descriptor {
    let sif = Sif::open(fs::File::open(path).unwrap()).unwrap();
    sif.descriptors().iter().find(|object| wanted(object)).unwrap().clone()
}

fn is_signature(object: &Descriptor) -> bool {
    object.datatype == DataType::Signature
}

/// Changes the bytes at `at`.
fn change(path: &Path, at: u64, bytes: &[u8]) {
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    file.write_all_at(bytes, at).unwrap();
}

/// Where the slot of the descriptor is; slots of these images are numbered from 1 on.
fn slot(object: &Descriptor) -> u64 {
    4096 + u64::from(object.id - 1) * 585
}

#[test]
fn pgp_signatures_are_verified_both_ways() {
    let signing = Signing::new();
    signing.new_key("alice", PASSPHRASE);
    let secret = signing.path("passphrase");
    fs::write(&secret, format!("{PASSPHRASE}\n")).unwrap();
    let secret = secret.display().to_string();

    // Ours, one signature for the group and one for an object.
    let ours = signing.copy("plain.sif", "ours.sif");
    signing.ours("sign", &["--passphrase-file", &secret], &ours).ok();
    let they = signing.they_verify("ours.sif", &["--local"]).ok();
    assert!(they.stdout.contains("Signing entity: alice (a test) <alice@example.org>"), "{they}");
    signing.ours("sign", &["--passphrase-file", &secret, "--sif-id", "1"], &ours).ok();
    signing.they_verify("ours.sif", &["--local", "--sif-id", "1"]).ok();
    signing.ours("verify", &["--sif-id", "1"], &ours).ok();
    // As for the reference: a signature of one object is none of its group.
    signing.ours("verify", &[], &ours).fails_with(6);
    assert!(!signing.they_verify("ours.sif", &["--local"]).success());

    // A wrong passphrase leaves the file as it was.
    let plain = signing.copy("plain.sif", "wrong.sif");
    fs::write(signing.path("wrong"), "no").unwrap();
    let wrong = signing.path("wrong").display().to_string();
    let failed = signing.ours("sign", &["--passphrase-file", &wrong], &plain).fails_with(255);
    assert!(failed.stderr.contains("is the passphrase right?"), "{failed}");
    assert_eq!(fs::read(&plain).unwrap(), fs::read(signing.path("plain.sif")).unwrap());

    // Theirs, by a key without a passphrase; the second key of the keyring.
    signing.new_key("bob", "");
    let theirs = signing.copy("plain.sif", "theirs.sif");
    signing.theirs(&["apptainer", "sign", "--keyidx", "1", &signing.apptainer.there("theirs.sif")]).ok();
    let verified = signing.ours("verify", &[], &theirs).ok();
    let expect = ["Signing entity: bob (a test) <bob@example.org>", "Fingerprint: ", "Signed: 2", "|FS\n"];
    assert!(expect.iter().all(|part| verified.stdout.contains(part)), "{verified}");
    let json = signing.ours("verify", &["--json"], &theirs).ok();
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    let they: Value =
        serde_json::from_str(&signing.they_verify("theirs.sif", &["--local", "--json"]).ok().stdout).unwrap();
    assert_eq!(json["Signatures"], they["Signatures"]);
    for (index, they) in they["SignerKeys"].as_array().unwrap().iter().enumerate() {
        for (member, value) in they["Signer"].as_object().unwrap() {
            assert_eq!(&json["SignerKeys"][index]["Signer"][member], value, "{member}");
        }
    }
    // Of several keys one must be chosen.
    let many = signing.ours("sign", &[], &theirs).fails_with(255);
    assert!(many.stderr.contains("--keyidx") && many.stderr.contains("alice") && many.stderr.contains("bob"), "{many}");
    signing.ours("sign", &["--keyidx", "1"], &theirs).ok();
    signing.they_verify("theirs.sif", &["--local"]).ok();
}

#[test]
fn damage_has_an_exit_code_of_its_own() {
    let signing = Signing::new();
    signing.new_key("carol", "");
    let good = signing.copy("plain.sif", "good.sif");
    signing.theirs(&["apptainer", "sign", &signing.apptainer.there("good.sif")]).ok();
    signing.ours("verify", &[], &good).ok();

    let check = |code: i32, part: &str, options: &[&str], damage: &dyn Fn(&Path)| {
        let path = signing.copy("good.sif", "bad.sif");
        damage(&path);
        let verified = signing.ours("verify", options, &path).fails_with(code);
        assert!(verified.stderr.contains(part), "{part}: {verified}");
        let they = signing.they_verify("bad.sif", &[&["--local"], options].concat());
        assert!(!they.success(), "{part}: {they}");
    };
    let signature = object(&good, is_signature);
    let partition = object(&good, Descriptor::is_primary_partition);
    check(6, "data object integrity compromised: ", &[], &|path| {
        change(path, partition.offset + partition.size / 2, b"tampered");
    });
    check(6, "header integrity compromised", &[], &|path| change(path, 48, b"another uuid"));
    check(6, "data object descriptor integrity compromised: ", &[], &|path| {
        change(path, slot(&partition) + 73, b"another name");
    });
    check(6, "signed object not found", &[], &|path| change(path, slot(&partition) + 4, &[0]));
    check(4, "no PGP-signed message", &[], &|path| change(path, signature.offset, &[b'x'; 64]));
    check(4, "no PGP-signed message", &[], &|path| {
        change(path, slot(&signature) + 25, &(signature.size / 2).to_le_bytes());
    });
    check(4, "names the key", &[], &|path| change(path, slot(&signature) + 201 + 4, &[1; 20]));
    check(4, "did not sign this text", &[], &|path| {
        let bytes = fs::read(path).unwrap();
        let text = b"\"version\":1";
        let start = signature.offset as usize;
        let at = bytes[start..].windows(text.len()).position(|window| window == text).unwrap();
        change(path, signature.offset + at as u64, b"\"version\":2");
    });
    check(3, "signature not found for object group 1", &[], &|path| change(path, slot(&signature) + 4, &[0]));
    check(255, "no object group 7", &["--group-id", "7"], &|_| {});
    check(255, "no data object 77", &["--sif-id", "77"], &|_| {});
    check(255, "invalid SIF magic", &[], &|path| change(path, 32, b"rubbish"));

    fs::remove_dir_all(signing.path("keys")).unwrap();
    let unknown = signing.ours("verify", &[], &good).fails_with(5);
    assert!(unknown.stderr.contains("in none of the keyrings"), "{unknown}");
}
