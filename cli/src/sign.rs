//! `siforge sign`: signatures by a PGP key of the local keyring or a key in PEM, added to a SIF.

use crate::cli::{Global, PassphraseOptions, Selection, Sign};
use crate::config::Config;
use crate::error::Error;
use crate::files::read_limited;
use crate::keyring::{Keyrings, Kind};
use crate::prompt;
use siforge_sif::edit::Editor;
use siforge_sign::cosign::MAX_KEY_FILE;
use siforge_sign::image::pem::SecretPem;
use siforge_sign::image::pgp::{Passphrase, SecretKey, SecretKeys};
use siforge_sign::image::{self, Selected, SigningKey};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Longer than any passphrase.
const MAX_PASSPHRASE: u64 = 4096;

pub(crate) fn sign(global: &Global, config: &Config, options: &Sign) -> Result<(), Error> {
    // --all is the default.
    let Sign { selection: _, all: _, key, keyidx, keyring, passphrase, image: path } = options;
    if let Some(file) = key {
        let key = SecretPem::from_pem(&read_limited(file, MAX_KEY_FILE)?);
        let key = key.map_err(|source| Error::SecretPem { path: file.clone(), source })?;
        let editor = opened(path)?;
        return add(global, options, editor, SigningKey::Pem(&key), key.public().fingerprint());
    }
    let rings = Keyrings::local(config, keyring)?;
    let (file, keys) = (rings.path(Kind::Secret), rings.secret()?);
    let key = choose(&keys, *keyidx, &file)?;
    // Before anybody types a passphrase.
    let editor = opened(path)?;
    let passphrase = match key.is_locked() {
        true => read_passphrase(passphrase, key)?,
        false => Passphrase::new(String::new()),
    };
    add(global, options, editor, SigningKey::Pgp(key, &passphrase), &described(key))
}

fn opened(path: &Path) -> Result<Editor, Error> {
    let sif = File::options().read(true).write(true).open(path);
    let sif = sif.map_err(|source| Error::Open { path: path.to_owned(), source })?;
    Editor::open(sif).map_err(|source| Error::Signature { path: path.to_owned(), source: source.into() })
}

fn add(global: &Global, options: &Sign, mut editor: Editor, key: SigningKey<'_>, by: &str) -> Result<(), Error> {
    let path = &options.image;
    let made = image::sign(&mut editor, &selected(&options.selection), key, now());
    let made = made.map_err(|source| Error::Signature { path: path.clone(), source })?;
    if !global.is_quiet() {
        for made in made {
            let objects: Vec<String> = made.objects.iter().map(u32::to_string).collect();
            let (group, id) = (made.group, made.signature);
            eprintln!("info: signed objects {} of group {group}: signature object {id}", objects.join(", "));
        }
        eprintln!("info: {} is signed by {}", path.display(), by);
    }
    Ok(())
}

/// What the options name; nothing: everything.
pub(crate) fn selected(options: &Selection) -> Vec<Selected> {
    let Selection { group_id, sif_id } = options;
    group_id.map(Selected::Group).into_iter().chain(sif_id.map(Selected::Object)).collect()
}

/// Unix seconds.
pub(crate) fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs() as i64)
}

fn choose<'a>(keys: &'a SecretKeys, index: Option<usize>, file: &Path) -> Result<&'a SecretKey, Error> {
    let keys = keys.keys();
    let path = || PathBuf::from(file);
    match (index, keys) {
        (_, []) => Err(Error::NoSecretKey { path: path() }),
        (Some(index), keys) => keys.get(index).ok_or(Error::KeyIndex { path: path(), index, count: keys.len() }),
        (None, [key]) => Ok(key),
        (None, keys) => {
            let keys: Vec<String> =
                keys.iter().enumerate().map(|(index, key)| format!("{index}: {}", described(key))).collect();
            Err(Error::ManySecretKeys { path: path(), keys: keys.join("; ") })
        }
    }
}

fn described(key: &SecretKey) -> String {
    format!(
        "{} ({})",
        key.name().unwrap_or_else(|| "a key without a name".into()),
        key.fingerprint_hex().to_uppercase()
    )
}

fn read_passphrase(options: &PassphraseOptions, key: &SecretKey) -> Result<Passphrase, Error> {
    if let Some(passphrase) = given_passphrase(options)? {
        return Ok(passphrase);
    }
    let secret = prompt::passphrase(&format!("Passphrase of the key {}: ", described(key)))?;
    Ok(Passphrase::new(secret.expose().to_owned()))
}

/// The passphrase that the options point at; the line's end is no part of it.
pub(crate) fn given_passphrase(options: &PassphraseOptions) -> Result<Option<Passphrase>, Error> {
    let file = match (options.passphrase_fd, &options.passphrase_file) {
        (Some(fd), _) => PathBuf::from(format!("/dev/fd/{fd}")),
        (None, Some(file)) => file.clone(),
        (None, None) => return Ok(None),
    };
    let text = String::from_utf8(read_limited(&file, MAX_PASSPHRASE)?);
    let mut text = text.map_err(|_| Error::PassphraseText { path: file })?;
    while text.ends_with(['\n', '\r']) {
        text.pop();
    }
    Ok(Some(Passphrase::new(text)))
}
