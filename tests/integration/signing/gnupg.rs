//! Signatures by keys of GnuPG: of other algorithms, by subkeys, expired, revoked, with weak hashes. The reference is the judge.

use super::{Signing, change, is_signature, object, slot};
use siforge_tests::{Finished, run};
use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A home of GnuPG; its agent ends with it.
struct Gnupg {
    home: tempfile::TempDir,
}

/// One day of 2020, in which a key may have been made.
const PAST: &str = "20200301T120000!";

impl Gnupg {
    fn new() -> Self {
        // Short: sockets of its agent lie in it.
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        Self { home: tempfile::Builder::new().prefix("gnupg-").permissions(private).tempdir().unwrap() }
    }

    fn command(&self, options: &[&str], words: &[&str]) -> Command {
        let mut command = Command::new("gpg");
        command.arg("--homedir").arg(self.home.path());
        command.args(["--batch", "--yes", "--quiet", "--no-tty", "--pinentry-mode", "loopback", "--passphrase", ""]);
        command.args(options).args(words);
        command
    }

    fn run(&self, options: &[&str], words: &[&str]) -> Finished {
        run(&mut self.command(options, words)).ok()
    }

    /// Fingerprints of the primary keys and subkeys, in their order.
    fn fingerprints(&self) -> Vec<String> {
        let listed = self.run(&[], &["--with-colons", "--list-keys"]).stdout;
        let lines = listed.lines().filter_map(|line| line.strip_prefix("fpr:::::::::")?.strip_suffix(':'));
        lines.map(str::to_owned).collect()
    }

    fn clear_sign(&self, options: &[&str], text: &[u8]) -> Vec<u8> {
        let mut command = self.command(options, &["--clearsign", "--output", "-"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        output.stdout
    }
}

impl Drop for Gnupg {
    fn drop(&mut self) {
        let home = self.home.path().display().to_string();
        let _ = Command::new("gpgconf").args(["--homedir", &home, "--kill", "gpg-agent"]).status();
    }
}

/// Puts another signature of the same text in the place of the one that the file has.
fn replace_signature(path: &Path, fingerprint: &str, sign: impl FnOnce(&[u8]) -> Vec<u8>) {
    let signature = object(path, is_signature);
    let file = fs::File::open(path).unwrap();
    let mut message = vec![0; signature.size as usize];
    file.read_exact_at(&mut message, signature.offset).unwrap();
    let message = String::from_utf8(message).unwrap();
    let (_, text) = message.split_once("\n\n").unwrap();
    let (text, _) = text.split_once("\n-----BEGIN PGP SIGNATURE-----").unwrap();
    let signed = sign(text.as_bytes());
    // It is the file's last object.
    change(path, signature.offset, &signed);
    change(path, slot(&signature) + 25, &(signed.len() as u64).to_le_bytes());
    let bytes: Vec<u8> =
        (0..fingerprint.len()).step_by(2).map(|at| u8::from_str_radix(&fingerprint[at..at + 2], 16).unwrap()).collect();
    change(path, slot(&signature) + 201 + 4, &bytes);
}

/// A kind of key, how it signs, and what is said of the signature.
struct Case {
    name: &'static str,
    make: fn(&Gnupg),
    options: &'static [&'static str],
    expect: Result<(), &'static str>,
    /// Whether the reference says the same.
    agreed: bool,
}

fn key(gnupg: &Gnupg, options: &[&str], algorithm: &str, usage: &str, expire: &str) {
    gnupg.run(options, &["--quick-generate-key", "Greta <greta@example.org>", algorithm, usage, expire]);
}

const CASES: [Case; 10] = [
    Case {
        name: "rsa",
        make: |g| key(g, &[], "rsa2048", "default", "never"),
        options: &[],
        expect: Ok(()),
        agreed: true,
    },
    Case {
        name: "ed25519",
        make: |g| key(g, &[], "ed25519", "sign", "never"),
        options: &[],
        expect: Ok(()),
        agreed: true,
    },
    Case {
        name: "nistp384",
        make: |g| key(g, &[], "nistp384", "sign", "never"),
        options: &[],
        expect: Ok(()),
        agreed: true,
    },
    Case {
        name: "sha512",
        make: |g| key(g, &[], "rsa2048", "sign", "never"),
        options: &["--digest-algo", "SHA512"],
        expect: Ok(()),
        agreed: true,
    },
    Case {
        name: "subkey",
        make: |g| {
            key(g, &[], "ed25519", "cert", "never");
            g.run(&[], &["--quick-add-key", &g.fingerprints()[0], "rsa2048", "sign", "never"]);
        },
        options: &[],
        expect: Ok(()),
        agreed: true,
    },
    Case {
        name: "expired-key",
        make: |g| key(g, &["--faked-system-time", PAST], "ed25519", "sign", "2d"),
        options: &["--faked-system-time", PAST],
        expect: Err("the key has expired"),
        agreed: true,
    },
    Case {
        name: "expired-subkey",
        make: |g| {
            key(g, &["--faked-system-time", PAST], "ed25519", "cert", "never");
            let past = ["--faked-system-time", PAST];
            g.run(&past, &["--quick-add-key", &g.fingerprints()[0], "rsa2048", "sign", "2d"]);
        },
        options: &["--faked-system-time", PAST],
        expect: Err("the subkey has expired"),
        agreed: true,
    },
    Case {
        name: "expired-signature",
        make: |g| key(g, &["--faked-system-time", PAST], "ed25519", "sign", "never"),
        options: &["--faked-system-time", PAST, "--default-sig-expire", "2d"],
        expect: Err("the signature has expired"),
        agreed: true,
    },
    Case {
        name: "revoked",
        make: |g| key(g, &[], "ed25519", "sign", "never"),
        options: &[],
        expect: Err("the key was revoked"),
        agreed: true,
    },
    Case {
        name: "sha1",
        make: |g| key(g, &[], "rsa2048", "sign", "never"),
        options: &["--digest-algo", "SHA1", "--allow-weak-digest-algos"],
        expect: Err("none of SHA-2"),
        agreed: true,
    },
];

#[test]
fn signatures_by_keys_of_gnupg() {
    let signing = Signing::new();
    signing.new_key("any", "");
    let signed = signing.copy("plain.sif", "signed.sif");
    signing.ours("sign", &[], &signed).ok();
    for case in CASES {
        let Case { name, make, options, expect, agreed } = case;
        let gnupg = Gnupg::new();
        make(&gnupg);
        let primary = gnupg.fingerprints()[0].clone();
        let sif = signing.copy("signed.sif", &format!("{name}.sif"));
        replace_signature(&sif, &primary, |text| gnupg.clear_sign(options, text));
        if name == "revoked" {
            revoke(&gnupg, &primary);
        }
        let public = signing.path(&format!("{name}.asc"));
        fs::write(&public, gnupg.run(&["--armor"], &["--export"]).stdout).unwrap();
        signing.siforge.run(&["key", "import", "-d", &keys(&signing), &public.display().to_string()]).ok();

        let ours = signing.ours("verify", &[], &sif);
        match expect {
            Ok(()) => assert!(ours.clone().ok().stdout.contains(&primary), "{name}: {ours}"),
            Err(why) => assert!(ours.clone().fails_with(4).stderr.contains(why), "{name}: {ours}"),
        }
        let theirs = signing.they_verify(&format!("{name}.sif"), &["--local"]);
        assert_eq!(theirs.success() == expect.is_ok(), agreed, "{name}: {theirs}");
    }
}

fn keys(signing: &Signing) -> String {
    signing.path("keys").display().to_string()
}

/// By the certificate that GnuPG makes with each key, against use by accident guarded by a colon.
fn revoke(gnupg: &Gnupg, fingerprint: &str) {
    let path: PathBuf = gnupg.home.path().join(format!("openpgp-revocs.d/{fingerprint}.rev"));
    let text = fs::read_to_string(&path).unwrap().replace(":-----BEGIN", "-----BEGIN");
    fs::write(&path, text).unwrap();
    gnupg.run(&[], &["--import", &path.display().to_string()]);
}
