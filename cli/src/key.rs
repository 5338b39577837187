//! `siforge key`: the keyrings, which Apptainer reads and writes too, and key servers.

use crate::cli::{
    Global, KeyCommand, KeyExport, KeyImport, KeyList, KeyNewPair, KeyPull, KeyPush, KeyRemove, KeySearch,
};
use crate::cli::{KeyServerOptions, Ring};
use crate::config::Config;
use crate::error::Error;
use crate::files::read_limited;
use crate::keyring::{self, Edit, Keyrings, Kind};
use crate::prompt;
use crate::sign::{given_passphrase, now};
use crate::verify::utc;
use serde_json::json;
use siforge_oci::hkp::{Found, KeyServer};
use siforge_oci::{Tls, one_line};
use siforge_sign::image::pgp::manage::{Listed, User};
use siforge_sign::image::pgp::{self, Passphrase, PublicKeys, SecretKey, SecretKeys};
use std::io::Write as _;
use std::path::Path;

/// Most bytes of a CA bundle.
const CA_FILE_LIMIT: u64 = 16 << 20;

pub(crate) fn run(global: &Global, config: &Config, command: &KeyCommand) -> Result<(), Error> {
    match command {
        KeyCommand::NewPair(options) => new_pair(global, config, options),
        KeyCommand::List(options) => list(config, options),
        KeyCommand::Import(options) => import(global, config, options),
        KeyCommand::Export(options) => export(global, config, options),
        KeyCommand::Remove(options) => remove(global, config, options),
        KeyCommand::Search(options) => search(config, options),
        KeyCommand::Pull(options) => pull(global, config, options),
        KeyCommand::Push(options) => push(global, config, options),
    }
}

fn rings(config: &Config, ring: &Ring) -> Result<Keyrings, Error> {
    match ring.global {
        true => Ok(Keyrings::global(config)),
        false => Keyrings::local(config, &ring.local),
    }
}

fn say(global: &Global, text: &str) {
    if !global.is_quiet() {
        eprintln!("info: {text}");
    }
}

fn new_pair(global: &Global, config: &Config, options: &KeyNewPair) -> Result<(), Error> {
    let KeyNewPair { name, email, comment, bit_length, password, push, server, passphrase, local } = options;
    if password.is_some() {
        return Err(Error::Refused {
            option: "--password",
            instead: "everybody on this machine can read a command's arguments: give the passphrase by --passphrase-fd or --passphrase-file, or when asked for it",
        });
    }
    let rings = Keyrings::local(config, local)?;
    let user = match (name, email) {
        (None, None) => User {
            name: prompt::line("Name of the key's user: ")?,
            address: prompt::line("Address (e-mail): ")?,
            comment: match comment {
                Some(comment) => comment.clone(),
                None => prompt::line("Comment (may be empty): ")?,
            },
        },
        (name, email) => User {
            name: name.clone().unwrap_or_default(),
            comment: comment.clone().unwrap_or_default(),
            address: email.clone().unwrap_or_default(),
        },
    };
    let passphrase = match given_passphrase(passphrase)? {
        Some(passphrase) => passphrase,
        None => new_passphrase("Passphrase for the new key (empty: none): ")?,
    };
    let failed = |source| Error::Key { source };
    let key = SecretKey::generate(&user, *bit_length, &passphrase, now()).map_err(failed)?;
    let print = key.fingerprint_hex();
    let secret = SecretKeys::from(key);
    let public = secret.public();
    // The key that everybody may know first: a secret key without its public half would be of no use.
    rings.edit_public(|_| Ok(Edit::Add(public.clone())))?;
    rings.edit_secret(|_| Ok(Edit::Add(secret)))?;
    say(global, &format!("the new key is {} in {}", print.to_uppercase(), rings.folder().display()));
    match push {
        true => give(global, config, server, &public),
        false => Ok(()),
    }
}

/// Asked for twice, as nobody sees what is typed.
fn new_passphrase(question: &str) -> Result<Passphrase, Error> {
    let first = prompt::passphrase(question)?;
    let second = prompt::passphrase("The same again: ")?;
    match first.expose() == second.expose() {
        true => Ok(Passphrase::new(first.expose().to_owned())),
        false => Err(Error::NoPassword { why: "the two passphrases differ" }),
    }
}

fn list(config: &Config, options: &KeyList) -> Result<(), Error> {
    let KeyList { secret, json, ring } = options;
    let rings = rings(config, ring)?;
    let (kind, keys) = match secret {
        true => (Kind::Secret, rings.secret()?.listed()),
        false => (Kind::Public, rings.public()?.listed()),
    };
    let path = rings.path(kind);
    match json {
        true => println!("{:#}", keys.iter().map(key_json).collect::<serde_json::Value>()),
        false => print!("{}", table(kind, &path, &keys)),
    }
    Ok(())
}

fn key_json(key: &Listed) -> serde_json::Value {
    json!({
        "user": key.user,
        "fingerprint": key.fingerprint.to_uppercase(),
        "created": utc(key.created),
        "algorithm": key.algorithm,
        "bits": key.bits,
    })
}

/// As the reference prints them.
fn table(kind: Kind, path: &Path, keys: &[Listed]) -> String {
    let what = match kind {
        Kind::Public => "Public",
        Kind::Secret => "Private",
    };
    let mut text = format!("{what} key listing ({}):\n\n", path.display());
    for (index, key) in keys.iter().enumerate() {
        let lines = [
            ("User", key.user.clone().unwrap_or_else(|| "unknown".into())),
            ("Creation time", utc(key.created).replace('T', " ").replace('Z', " +0000 UTC")),
            ("Fingerprint", key.fingerprint.to_uppercase()),
            ("Length (in bits)", key.bits.map_or_else(|| "unknown".into(), |bits| bits.to_string())),
        ];
        for (at, (name, value)) in lines.iter().enumerate() {
            let number = if at == 0 { format!("{index})") } else { String::new() };
            text += &format!("{number:<4}{:<19}{value}\n", format!("{name}:"));
        }
        text.push('\n');
    }
    text
}

fn import(global: &Global, config: &Config, options: &KeyImport) -> Result<(), Error> {
    let KeyImport { new_password, ring, file } = options;
    let rings = rings(config, ring)?;
    let bytes = read_limited(file, pgp::MAX_KEYRING)?;
    let wrong = |source| Error::Keys { path: file.clone(), source };
    // A file of secret keys has no public ones, and the other way round.
    let public = PublicKeys::parse(&bytes);
    let secret = SecretKeys::parse(&bytes).unwrap_or_default();
    if secret.keys().is_empty() {
        let public = public.map_err(wrong)?;
        if public.is_empty() {
            return Err(Error::NoKeys { path: file.clone() });
        }
        return add_public(global, &rings, public);
    }
    if let Some(public) = public.ok().filter(|keys| !keys.is_empty()) {
        add_public(global, &rings, public)?;
    }
    if ring.global {
        return Err(Error::Refused { option: "--global", instead: "secret keys are one user's alone" });
    }
    let secret = match new_password {
        true => relocked(secret)?,
        false => secret,
    };
    let prints: Vec<String> = secret.keys().iter().map(SecretKey::fingerprint_hex).collect();
    let mut added = Vec::new();
    rings.edit_secret(|there| {
        let known: Vec<String> = there.keys().iter().map(SecretKey::fingerprint_hex).collect();
        added = prints.iter().filter(|print| !known.contains(print)).cloned().collect();
        Ok(Edit::Add(secret.select(|print| added.iter().any(|added| added == print))))
    })?;
    report(global, &prints, &added, &rings.path(Kind::Secret));
    Ok(())
}

fn relocked(mut keys: SecretKeys) -> Result<SecretKeys, Error> {
    for key in keys.keys_mut() {
        let print = key.fingerprint_hex().to_uppercase();
        let old = match key.is_locked() {
            true => {
                Passphrase::new(prompt::passphrase(&format!("Passphrase of the key {print}: "))?.expose().to_owned())
            }
            false => Passphrase::new(String::new()),
        };
        let new = new_passphrase(&format!("New passphrase for the key {print}: "))?;
        key.change_passphrase(&old, &new).map_err(|source| Error::Key { source })?;
    }
    Ok(keys)
}

fn add_public(global: &Global, rings: &Keyrings, keys: PublicKeys) -> Result<(), Error> {
    let prints: Vec<String> = keys.listed().into_iter().map(|key| key.fingerprint).collect();
    let mut added = Vec::new();
    rings.edit_public(|there| {
        added = prints.iter().filter(|print| !there.has(print)).cloned().collect();
        Ok(Edit::Add(keys.select(|print| added.iter().any(|added| added == print))))
    })?;
    report(global, &prints, &added, &rings.path(Kind::Public));
    Ok(())
}

fn report(global: &Global, prints: &[String], added: &[String], path: &Path) {
    for print in prints {
        let what = if added.contains(print) { "is now in" } else { "was already in" };
        say(global, &format!("the key {} {what} {}", print.to_uppercase(), path.display()));
    }
}

fn export(global: &Global, config: &Config, options: &KeyExport) -> Result<(), Error> {
    let KeyExport { armor, secret, fingerprint, force, ring, file } = options;
    let rings = rings(config, ring)?;
    let failed = |source| Error::Key { source };
    let (kind, listed) = match secret {
        true => (Kind::Secret, rings.secret()?.listed()),
        false => (Kind::Public, rings.public()?.listed()),
    };
    let print = chosen(&listed, fingerprint.as_deref(), &rings.path(kind))?.fingerprint.clone();
    let bytes = match (secret, armor) {
        (true, true) => rings.secret()?.select(|key| key == print).armored(),
        (true, false) => rings.secret()?.select(|key| key == print).to_bytes(),
        (false, true) => rings.public()?.select(|key| key == print).armored(),
        (false, false) => rings.public()?.select(|key| key == print).to_bytes(),
    };
    let bytes = bytes.map_err(failed)?;
    if file.as_os_str() == "-" {
        return std::io::stdout().write_all(&bytes).map_err(|source| Error::WriteKey { path: file.clone(), source });
    }
    keyring::write_key(file, &bytes, *secret, *force)?;
    say(global, &format!("the key {} is in {}", print.to_uppercase(), file.display()));
    Ok(())
}

/// The key whose fingerprint ends so; without a wish the only one.
fn chosen<'a>(keys: &'a [Listed], wish: Option<&str>, path: &Path) -> Result<&'a Listed, Error> {
    let wish = wish.map(fingerprint).transpose()?;
    let fits = |key: &&Listed| wish.as_ref().is_none_or(|wish| key.fingerprint.ends_with(&**wish));
    let mut found = keys.iter().filter(fits);
    match (found.next(), found.next()) {
        (Some(key), None) => Ok(key),
        (None, _) => Err(match wish {
            Some(wish) => Error::NoSuchKey { path: path.to_owned(), wish },
            None => Error::NoKeys { path: path.to_owned() },
        }),
        (Some(_), Some(_)) => {
            let keys: Vec<String> = keys.iter().filter(fits).map(named).collect();
            Err(Error::ManyKeys { path: path.to_owned(), keys: keys.join("; ") })
        }
    }
}

fn named(key: &Listed) -> String {
    let user = key.user.as_deref().unwrap_or("a key without a name");
    format!("{user} ({})", key.fingerprint.to_uppercase())
}

/// Lower-case hex of what a person typed: `0x` before it and blanks in it are common.
pub(crate) fn fingerprint(text: &str) -> Result<String, Error> {
    let hex: String = text.chars().filter(|c| !c.is_whitespace() && *c != ':').collect::<String>().to_ascii_lowercase();
    let hex = hex.strip_prefix("0x").unwrap_or(&hex).to_owned();
    match (8..=64).contains(&hex.len()) && hex.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        true => Ok(hex),
        false => Err(Error::Fingerprint { value: one_line(text) }),
    }
}

fn remove(global: &Global, config: &Config, options: &KeyRemove) -> Result<(), Error> {
    let KeyRemove { public: _, secret, both, ring, fingerprint: text } = options;
    let rings = rings(config, ring)?;
    let wish = fingerprint(text)?;
    let missing = |kind| Error::NoSuchKey { path: rings.path(kind), wish: wish.clone() };
    let removed = |kind| {
        say(global, &format!("the key {} is no more in {}", wish.to_uppercase(), rings.path(kind).display()));
    };
    if *secret || *both {
        rings.edit_secret(|there| match there.keys().iter().any(|key| key.fingerprint_hex() == wish) {
            true => Ok(Edit::Only(there.select(|print| print != wish))),
            false => Err(missing(Kind::Secret)),
        })?;
        removed(Kind::Secret);
    }
    if !*secret {
        rings.edit_public(|there| match there.has(&wish) {
            true => Ok(Edit::Only(there.select(|print| print != wish))),
            false => Err(missing(Kind::Public)),
        })?;
        removed(Kind::Public);
    }
    Ok(())
}

/// The key server that the options name.
pub(crate) fn server(config: &Config, url: &str, ca_file: Option<&Path>) -> Result<KeyServer, Error> {
    let ca_bundle = ca_file.map(|path| read_limited(path, CA_FILE_LIMIT)).transpose()?;
    let tls = Tls { ca_bundle, proxies: config.registries.proxies.clone(), ..Tls::default() };
    Ok(KeyServer::new(url, &tls)?)
}

fn named_server(config: &Config, options: &KeyServerOptions) -> Result<KeyServer, Error> {
    server(config, &options.url, options.tls_ca_file.as_deref())
}

fn search(config: &Config, options: &KeySearch) -> Result<(), Error> {
    let KeySearch { long_list, server: which, text } = options;
    let server = named_server(config, which)?;
    // A fingerprint is looked for as one.
    let wish = match fingerprint(text) {
        Ok(hex) => format!("0x{hex}"),
        Err(_) => text.clone(),
    };
    let mut found = crate::pull::block_on(async { Ok(server.search(&wish).await?) })?;
    if found.is_empty() {
        return Err(Error::NothingFound { server: server.name(), text: one_line(text) });
    }
    found.sort_by_key(|key| std::cmp::Reverse(key.created));
    println!("Showing {} results", found.len());
    println!();
    found.iter().for_each(|key| print!("{}", found_text(key, *long_list)));
    Ok(())
}

fn found_text(key: &Found, long: bool) -> String {
    let print = key.fingerprint.to_uppercase();
    let users = match key.users.is_empty() {
        true => vec!["a key without a name".to_owned()],
        false => key.users.clone(),
    };
    let revoked = if key.revoked { "  (revoked)" } else { "" };
    if !long {
        let users: String = users.iter().map(|user| format!("    {user}\n")).collect();
        return format!("{print}{revoked}\n{users}");
    }
    let unknown = || "unknown".to_owned();
    let lines = [
        ("Fingerprint", format!("{print}{revoked}")),
        ("Algorithm", key.algorithm.map_or_else(unknown, algorithm)),
        ("Bits", key.bits.map_or_else(unknown, |bits| bits.to_string())),
        ("Created", key.created.map_or_else(unknown, utc)),
        ("Expires", key.expires.filter(|time| *time != 0).map_or_else(|| "never".to_owned(), utc)),
        ("Users", users.join("\n             ")),
    ];
    let lines: String = lines.iter().map(|(name, value)| format!("{:<13}{value}\n", format!("{name}:"))).collect();
    lines + "\n"
}

/// RFC 9580 section 9.1.
fn algorithm(number: u8) -> String {
    match number {
        1..=3 => "RSA".into(),
        16 => "Elgamal".into(),
        17 => "DSA".into(),
        18 => "ECDH".into(),
        19 => "ECDSA".into(),
        22 => "EdDSA".into(),
        25 => "X25519".into(),
        26 => "X448".into(),
        27 => "Ed25519".into(),
        28 => "Ed448".into(),
        other => other.to_string(),
    }
}

fn pull(global: &Global, config: &Config, options: &KeyPull) -> Result<(), Error> {
    let KeyPull { server: which, ring, fingerprint: text } = options;
    let rings = rings(config, ring)?;
    let wish = fingerprint(text)?;
    // Keys with the same last digits can be made by anybody.
    if wish.len() < 40 {
        return Err(Error::ShortFingerprint { value: wish });
    }
    let server = named_server(config, which)?;
    let keys = crate::pull::block_on(async { fetch(&server, &wish).await })?;
    if keys.is_empty() {
        return Err(Error::NothingFound { server: server.name(), text: wish });
    }
    add_public(global, &rings, keys)
}

/// The keys of the server whose fingerprints end so; whatever else it sends is not looked at.
pub(crate) async fn fetch(server: &KeyServer, wish: &str) -> Result<PublicKeys, Error> {
    let Some(bytes) = server.get(wish).await? else {
        return Ok(PublicKeys::default());
    };
    let keys = PublicKeys::parse(&bytes).map_err(|source| Error::ServerKeys { server: server.name(), source })?;
    Ok(keys.ending(wish))
}

fn push(global: &Global, config: &Config, options: &KeyPush) -> Result<(), Error> {
    let KeyPush { server, ring, fingerprint } = options;
    let rings = rings(config, ring)?;
    let keys = rings.public()?;
    let print = chosen(&keys.listed(), Some(fingerprint), &rings.path(Kind::Public))?.fingerprint.clone();
    give(global, config, server, &keys.select(|key| key == print))
}

fn give(global: &Global, config: &Config, which: &KeyServerOptions, keys: &PublicKeys) -> Result<(), Error> {
    let server = named_server(config, which)?;
    let text = keys.armored().map_err(|source| Error::Key { source })?;
    let text = String::from_utf8_lossy(&text).into_owned();
    crate::pull::block_on(async { Ok(server.add(&text).await?) })?;
    say(global, &format!("the key server {} has the key", server.name()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_read_as_people_write_them() {
        let check = |text: &str, expect: Option<&str>| assert_eq!(fingerprint(text).ok().as_deref(), expect, "{text}");
        check("0xABCDEF12", Some("abcdef12"));
        check("ABCD EF12 3456", Some("abcdef123456"));
        check("ab:cd:ef:12", Some("abcdef12"));
        check("abcdef1", None);
        check("alice@example.org", None);
        check(&"a".repeat(65), None);
    }

    #[test]
    fn a_key_is_chosen_by_the_end_of_its_fingerprint() {
        let key = |print: &str| Listed {
            user: None,
            created: 0,
            fingerprint: print.into(),
            algorithm: "RSA".into(),
            bits: None,
        };
        let keys = [key("11aaaaaaaa"), key("22aaaaaaaa"), key("22bbbbbbbb")];
        let check = |keys: &[Listed], wish: Option<&str>, expect: Result<&str, &str>| {
            let got = chosen(keys, wish, Path::new("ring")).map(|key| key.fingerprint.clone());
            match (got, expect) {
                (Ok(got), Ok(expect)) => assert_eq!(got, expect),
                (Err(got), Err(expect)) => assert!(got.to_string().contains(expect), "{got}"),
                (got, _) => panic!("{got:?}, not {expect:?}"),
            }
        };
        check(&keys, Some("0xBBBBBBBB"), Ok("22bbbbbbbb"));
        check(&keys[..1], None, Ok("11aaaaaaaa"));
        check(&keys, Some("aaaaaaaa"), Err("several keys"));
        check(&keys, None, Err("22BBBBBBBB"));
        check(&keys, Some("cccccccc"), Err("no key CCCCCCCC"));
        check(&[], None, Err("ring has no PGP key"));
    }
}
