//! `siforge key`: keyrings that both programs read and write, and a key server that both talk to.

use super::{PASSPHRASE, Signing};
use crate::registry::wire::{Answer, Request, Server};
use siforge_sign::image::pgp::PublicKeys;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;

/// A key server that keeps what it is given, as far as its clients look.
fn key_server() -> Server {
    let kept = Mutex::new(Vec::<PublicKeys>::new());
    Server::start(move |request: &Request| {
        let mut kept = kept.lock().unwrap();
        let url = reqwest::Url::parse(&format!("http://server{}", request.path)).unwrap();
        let query = |name: &str| url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
        match (&*request.method, url.path()) {
            ("POST", "/pks/add") => {
                let body = String::from_utf8(request.body.clone()).unwrap();
                let form = reqwest::Url::parse(&format!("http://form/?{body}")).unwrap();
                let (_, text) = form.query_pairs().find(|(key, _)| key == "keytext").unwrap();
                kept.push(PublicKeys::parse(text.as_bytes()).unwrap());
                Answer::new(200, "")
            }
            ("GET", "/pks/lookup") => {
                let wish = query("search").unwrap().to_lowercase();
                let wish = wish.strip_prefix("0x").unwrap_or(&wish);
                let found = kept.iter().filter(|keys| {
                    let key = &keys.listed()[0];
                    key.fingerprint.ends_with(wish) || key.user.as_ref().unwrap().to_lowercase().contains(wish)
                });
                let answers: Vec<Vec<u8>> = match &*query("op").unwrap() {
                    "get" => found.map(|keys| keys.armored().unwrap()).collect(),
                    "index" => found.map(|keys| index(keys).into_bytes()).collect(),
                    other => panic!("{other}"),
                };
                if answers.is_empty() { Answer::new(404, "not found") } else { Answer::new(200, answers.concat()) }
            }
            _ => Answer::new(404, ""),
        }
    })
}

fn index(keys: &PublicKeys) -> String {
    let key = &keys.listed()[0];
    let user = key.user.as_ref().unwrap().replace(' ', "%20").replace('<', "%3C");
    let (bits, created, print) = (key.bits.unwrap(), key.created, key.fingerprint.to_uppercase());
    format!("info:1:1\npub:{print}:1:{bits}:{created}::\nuid:{user}:{created}::\n")
}

impl Signing {
    fn key(&self, keys: &str, words: &[&str]) -> siforge_tests::Finished {
        let keys = self.path(keys).display().to_string();
        self.siforge.run(&[&["key", words[0], "--keysdir", &keys], &words[1..]].concat())
    }

    /// Makes a key of ours; gives its fingerprint.
    fn our_key(&self, keys: &str, name: &str, passphrase: &str) -> String {
        let file = self.path("new-passphrase");
        fs::write(&file, passphrase).unwrap();
        let (email, file) = (format!("{name}@example.org"), file.display().to_string());
        let words = ["newpair", "--name", name, "--email", &email, "--comment", "ours", "--bit-length", "2048"];
        let made = self.key(keys, &[&words[..], &["--passphrase-file", &file]].concat()).ok();
        let print = made.stderr.split(' ').find(|word| word.len() == 40).expect("a fingerprint");
        print.to_owned()
    }
}

#[test]
fn our_keys_sign_for_both_programs() {
    let signing = Signing::new();
    let print = signing.our_key("keys", "dora", PASSPHRASE);
    let mode = |name: &str| fs::metadata(signing.path(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("keys"), mode("keys/pgp-public"), mode("keys/pgp-secret")), (0o700, 0o600, 0o600));

    // Both list the same key, and both sign with it.
    for secret in [false, true] {
        let flag: &[&str] = if secret { &["--secret"] } else { &[] };
        let ours = signing.key("keys", &[&["list"], flag].concat()).ok().stdout;
        let theirs = signing.theirs(&[&["apptainer", "key", "list"], flag].concat()).ok().stdout;
        let listing = |text: &str| text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(listing(&ours), listing(&theirs), "{ours}{theirs}");
        assert!(ours.contains(&print), "{ours}");
    }
    let ours = signing.copy("plain.sif", "ours.sif");
    let secret = signing.path("new-passphrase").display().to_string();
    signing.ours("sign", &["--passphrase-file", &secret], &ours).ok();
    assert!(signing.they_verify("ours.sif", &["--local"]).ok().stdout.contains(&print));

    // A second key, unlocked, comes to the first; theirs signs by it, and ours verifies that.
    signing.our_key("keys", "emil", "");
    let theirs = signing.copy("plain.sif", "theirs.sif");
    signing.theirs(&["apptainer", "sign", "--keyidx", "1", &signing.apptainer.there("theirs.sif")]).ok();
    let verified = signing.ours("verify", &[], &theirs).ok();
    assert!(verified.stdout.contains("Signing entity: emil (ours) <emil@example.org>"), "{verified}");
}

#[test]
fn a_definition_names_who_signed_its_base() {
    let signing = Signing::new();
    let (one, two) = (signing.our_key("keys", "karl", ""), signing.our_key("keys", "lisa", ""));
    let base = signing.copy("plain.sif", "base.sif");
    let keys = signing.path("keys").display().to_string();
    let build = |fingerprints: &str| {
        let text = format!("Bootstrap: localimage\nFrom: {}\nFingerprints: {fingerprints}\n", base.display());
        let (definition, out) = (signing.path("x.def"), signing.path("out.sif").display().to_string());
        fs::write(&definition, text).unwrap();
        let mut command = signing.siforge.command();
        command.env("APPTAINER_KEYSDIR", &keys).args(["-q", "build", "--force", &out]).arg(definition);
        siforge_tests::run(&mut command)
    };
    let refused = |fingerprints: &str, why: &str| {
        let said = build(fingerprints).fails_with(255);
        assert!(said.stderr.contains(why), "{said}");
    };
    refused(&one, "it is not signed");
    signing.ours("sign", &["--keyidx", "0"], &base).ok();
    build(&one).ok();
    build(&format!("0x{}", one.to_lowercase())).ok();
    refused(&format!("{one}, {two}"), &format!("the key {two} did not sign it"));
    refused("nobody", "is no fingerprint");
    signing.ours("sign", &["--keyidx", "1"], &base).ok();
    build(&format!("{one}, {two}")).ok();
    // A key that signed something else in the file.
    let other = signing.copy("plain.sif", "other.sif");
    let (text, path) = (signing.path("x.def").display().to_string(), other.display().to_string());
    signing.siforge.run(&["sif", "add", "--datatype", "1", "--groupid", "2", &path, &text]).ok();
    signing.ours("sign", &["--keyidx", "0", "--group-id", "1"], &other).ok();
    signing.ours("sign", &["--keyidx", "1", "--group-id", "2"], &other).ok();
    fs::copy(&other, signing.path("base.sif")).unwrap();
    refused(&two, &format!("the key {two} did not sign it"));
    refused(&one, &format!("the key {one} did not sign it"));
    signing.copy("plain.sif", "base.sif");
    signing.ours("sign", &["--keyidx", "1"], &base).ok();
    signing.key("keys", &["remove", &two]).ok();
    refused(&one, "in none of the keyrings");
    let definition = signing.path("docker.def");
    fs::write(&definition, format!("Bootstrap: docker\nFrom: x\nFingerprints: {one}\n")).unwrap();
    let said = signing.siforge.run(&["build", "x.sif", &definition.display().to_string()]).fails_with(255);
    assert!(said.stderr.contains("docker.def:3: Fingerprints"), "{said}");
}

#[test]
fn keys_travel_in_files_and_are_removed() {
    let signing = Signing::new();
    let print = signing.our_key("keys", "fritz", PASSPHRASE);
    signing.new_key("gerda", "");
    let path = |name: &str| signing.path(name).display().to_string();
    let there = |name: &str| signing.apptainer.there(name);

    for (armor, name) in [(&["--armor"] as &[&str], "armored"), (&[], "packets")] {
        let (public, secret) = (path(&format!("{name}.pub")), path(&format!("{name}.sec")));
        let wish = ["--fingerprint", &print[24..]];
        signing.key("keys", &[&["export"], armor, &wish, &[&public]].concat()).ok();
        signing.key("keys", &[&["export", "--secret"], armor, &wish, &[&secret]].concat()).ok();
        let again = signing.key("keys", &[&["export"], armor, &wish, &[&public]].concat()).fails_with(255);
        assert!(again.stderr.contains("--force"), "{again}");
        // Another keyring of ours takes both; a second time it changes nothing.
        let ring = format!("ring-{name}");
        for _ in 0..2 {
            signing.key(&ring, &["import", &public]).ok();
            signing.key(&ring, &["import", &secret]).ok();
        }
        for flags in [&["list"] as &[&str], &["list", "--secret"]] {
            let listed = signing.key(&ring, flags).ok().stdout;
            assert_eq!(listed.matches("Fingerprint:").count(), 1, "{listed}");
            assert!(listed.contains(&print), "{listed}");
        }
        // And a keyring of theirs.
        let keys = format!("APPTAINER_KEYSDIR={}", there(&format!("theirs-{name}")));
        let they = |words: &[&str]| signing.apptainer.root(&[&["env", &keys, "apptainer", "key"], words].concat());
        they(&["import", &there(&format!("{name}.pub"))]).ok();
        assert!(they(&["list"]).ok().stdout.contains(&print));
    }
    // Several keys, and none is named.
    let many = signing.key("keys", &["export", &path("any")]).fails_with(255);
    assert!(many.stderr.contains("several keys") && many.stderr.contains("gerda"), "{many}");

    signing.key("keys", &["remove", "--both", &print]).ok();
    let gone = signing.key("keys", &["remove", &print]).fails_with(255);
    assert!(gone.stderr.contains("has no key") && gone.stderr.contains(&print), "{gone}");
    let left = signing.theirs(&["apptainer", "key", "list"]).ok().stdout;
    assert!(left.contains("gerda") && !left.contains("fritz"), "{left}");
    let none = signing.key("keys", &["import", &path("plain.sif")]).fails_with(255);
    assert!(none.stderr.contains("no PGP key"), "{none}");
    let refused = signing.key("keys", &["newpair", "--name", "x", "--password", "y"]).fails_with(255);
    assert!(refused.stderr.contains("--passphrase-file"), "{refused}");
}

#[test]
fn keys_travel_by_a_key_server() {
    let signing = Signing::new();
    let server = key_server();
    let url = format!("http://{}", server.address());
    let print = signing.our_key("keys", "hanna", "");
    let sif = signing.copy("plain.sif", "signed.sif");
    signing.ours("sign", &[], &sif).ok();

    let early = signing.key("other", &["pull", "--url", &url, &print]).fails_with(255);
    assert!(early.stderr.contains("has no key for"), "{early}");
    signing.key("keys", &["push", "--url", &url, &print]).ok();
    let found = signing.siforge.run(&["key", "search", "--url", &url, "hanna"]).ok().stdout;
    assert!(found.contains(&print) && found.contains("hanna (ours) <hanna@example.org>"), "{found}");
    let long = signing.siforge.run(&["key", "search", "--long-list", "--url", &url, &print]).ok().stdout;
    assert!(long.contains("RSA") && long.contains("2048"), "{long}");
    signing.siforge.run(&["key", "search", "--url", &url, "nobody"]).fails_with(255);

    // A signature by a key that only the server has.
    let other = signing.path("other").display().to_string();
    let verify = |options: &[&str]| {
        let sif = sif.display().to_string();
        signing.siforge.run(&[&["verify", "--keysdir", &other], options, &[&sif]].concat())
    };
    verify(&[]).fails_with(5);
    verify(&["--local"]).fails_with(5);
    let remote = verify(&["--url", &url]).ok().stdout;
    assert!(remote.contains("[REMOTE]") && remote.contains(&print), "{remote}");
    let short = signing.key("other", &["pull", "--url", &url, &print[24..]]).fails_with(255);
    assert!(short.stderr.contains("all of its 40 digits"), "{short}");
    signing.key("other", &["pull", "--url", &url, &print]).ok();
    assert!(verify(&[]).ok().stdout.contains("[LOCAL]"));

    // The reference talks to the same server: it takes our key, and gives its own.
    let keys = format!("APPTAINER_KEYSDIR={}", signing.apptainer.there("theirs"));
    let they = |words: &[&str]| signing.apptainer.root(&[&["env", &keys, "apptainer", "key"], words].concat());
    they(&["pull", "--url", &url, &print]).ok();
    assert!(they(&["list"]).ok().stdout.contains(&print));
    signing.new_key("ida", "");
    let listed = signing.key("keys", &["list", "--json"]).ok().stdout;
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let ida = listed[1]["fingerprint"].as_str().unwrap();
    signing.theirs(&["apptainer", "key", "push", "--url", &url, ida]).ok();
    signing.key("third", &["pull", "--url", &url, ida]).ok();
    assert!(signing.key("third", &["list"]).ok().stdout.contains("ida (a test) <ida@example.org>"));

    let dead = signing.siforge.run(&["key", "search", "--url", "http://127.0.0.1:9", "x"]).fails_with(255);
    assert!(dead.stderr.contains("key server http://127.0.0.1:9/") && dead.stderr.contains("refused"), "{dead}");
    let wrong = signing.siforge.run(&["key", "search", "--url", "ftp://x", "x"]).fails_with(255);
    assert!(wrong.stderr.contains("invalid URL"), "{wrong}");
}
