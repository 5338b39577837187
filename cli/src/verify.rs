//! `siforge verify`: whether the signatures of a SIF hold, who made them and when.
//!
//! The exit code says what is wrong first of all; see [`code`] and docs/signing.md.

use crate::cli::{Global, KeyringOptions, Verify};
use crate::config::Config;
use crate::error::Error;
use crate::files::read_limited;
use crate::keyring;
use crate::sign::{now, selected};
use serde_json::{Value, json};
use siforge_sif::{Descriptor, Sif, format::GROUP_MASK};
use siforge_sign::cosign::{Key, MAX_KEY_FILE};
use siforge_sign::image::certificate::{self, Certificates};
use siforge_sign::image::pgp::{PublicKeys, Signer};
use siforge_sign::image::{self, Checked, Flaw, Keys, Kind, Legacy, Report};
use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Public keys by where they are.
struct Keyrings {
    local: PublicKeys,
    global: PublicKeys,
}

pub(crate) fn verify(global: &Global, config: &Config, options: &Verify) -> Result<i32, Error> {
    // --local is the default.
    let Verify { selection, all, local: _, url, legacy_insecure, keyring, json, image: path, .. } = options;
    let rings = Keyrings {
        local: keyring::Keyrings::local(config, keyring)?.public()?,
        global: keyring::Keyrings::global(config).public()?,
    };
    let mut keys = match named_key(options)? {
        Some(key) => Keys { pgp: PublicKeys::default(), pem: vec![key] },
        None => {
            let mut pgp = rings.local.clone();
            pgp.extend(rings.global.clone());
            Keys { pgp, pem: Vec::new() }
        }
    };
    let file = File::open(path).map_err(|source| Error::Read { path: path.clone(), source })?;
    let sif = Sif::open(file).map_err(|source| Error::Sif { path: path.clone(), source })?;
    let legacy = match (legacy_insecure, all) {
        (false, _) => Legacy::No,
        (true, false) => Legacy::Yes,
        (true, true) => Legacy::All,
    };
    let verified = |keys: &Keys| {
        let report = image::verify(&sif, &selected(selection), legacy, keys, now());
        report.map_err(|source| Error::Signature { path: path.clone(), source })
    };
    let mut report = verified(&keys)?;
    if let Some(url) = url {
        let remote = remote_keys(config, url, &report)?;
        if !remote.is_empty() {
            keys.pgp.extend(remote);
            report = verified(&keys)?;
        }
    }
    match json {
        true => println!("{:#}", as_json(&sif, &rings, &report)),
        false => print!("{}", text(&sif, &rings, &report)),
    }
    match report.flaw().and_then(|checked| Some((checked, checked.flaw.as_ref()?))) {
        None => {
            if !global.is_quiet() {
                eprintln!("info: verified signature(s) from image {}", path.display());
            }
            Ok(0)
        }
        Some((checked, flaw)) => {
            eprintln!("siforge: error: failed to verify {}: {}", path.display(), told(checked, flaw));
            Ok(code(flaw.kind()))
        }
    }
}

/// Whether all signatures of a SIF hold, and each of the fingerprints, between commas or blanks, is of a key that signed.
pub(crate) fn require_signers(config: &Config, path: &Path, file: &File, fingerprints: &str) -> Result<(), Error> {
    let mut pgp = keyring::Keyrings::local(config, &KeyringOptions::default())?.public()?;
    pgp.extend(keyring::Keyrings::global(config).public()?);
    let copy = file.try_clone().map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let sif = Sif::open(copy).map_err(|source| Error::Sif { path: path.to_owned(), source })?;
    let report = image::verify(&sif, &[], Legacy::No, &Keys { pgp, pem: Vec::new() }, now())
        .map_err(|source| Error::Signature { path: path.to_owned(), source })?;
    let refused = |why| Err(Error::NotSignedBy { path: path.to_owned(), why });
    if let Some((checked, flaw)) = report.flaw().and_then(|checked| Some((checked, checked.flaw.as_ref()?))) {
        return refused(told(checked, flaw));
    }
    // One that signed another group than the root's file system vouches for nothing.
    let groups: std::collections::BTreeSet<Option<u32>> = report.checked.iter().map(group).collect();
    for wanted in fingerprints.split([',', ' ', '\t']).filter(|wanted| !wanted.is_empty()) {
        let wanted = crate::key::fingerprint(wanted)?;
        let signed = |of: &Option<u32>| {
            let mut signers = report.checked.iter().filter(|checked| group(checked) == *of);
            signers.any(|checked| checked.signer.as_ref().is_some_and(|signer| signer.fingerprint == wanted))
        };
        if !groups.iter().all(signed) {
            return refused(format!("the key {} did not sign it", wanted.to_uppercase()));
        }
    }
    Ok(())
}

/// The group that was looked at.
fn group(checked: &Checked) -> Option<u32> {
    match checked.selected {
        image::Selected::Group(group) => Some(group),
        image::Selected::Object(_) => None,
    }
}

/// Part of the documented behaviour.
fn code(kind: Kind) -> i32 {
    match kind {
        Kind::Unsigned => 3,
        Kind::BadSignature => 4,
        Kind::UnknownKey => 5,
        Kind::Tampered => 6,
    }
}

fn told(checked: &Checked, flaw: &Flaw) -> String {
    match checked.signature {
        Some(id) => format!("signature object {id}: {flaw}"),
        None => flaw.to_string(),
    }
}

/// The key in PEM that alone counts, if the options name one.
fn named_key(options: &Verify) -> Result<Option<Key>, Error> {
    if options.ocsp_verify {
        return Err(Error::Refused {
            option: "--ocsp-verify",
            instead: "siforge asks nobody whether a certificate was revoked; give certificates a short life, or verify with apptainer",
        });
    }
    let Some(file) = &options.certificate else {
        return options.key.as_deref().map(pem_key).transpose();
    };
    let read = |file: &PathBuf| {
        let certificates = Certificates::from_pem(&read_limited(file, certificate::MAX_FILE)?);
        certificates.map_err(|source| Error::Certificate { path: file.clone(), source: Box::new(source) })
    };
    let between = options.certificate_intermediates.as_ref().map(read).transpose()?;
    let roots = options.certificate_roots.as_ref().map(read).transpose()?;
    let verified = match &roots {
        Some(roots) => certificate::verified_key(&read(file)?, between.as_ref(), roots, now()),
        // The command line wants them.
        None => Err(certificate::Error::NoCertificate),
    };
    verified.map(Some).map_err(|source| Error::Certificate { path: file.clone(), source: Box::new(source) })
}

/// The keys that the report misses, of those that the server has.
fn remote_keys(config: &Config, url: &str, report: &Report) -> Result<PublicKeys, Error> {
    let server = crate::key::server(config, url, None)?;
    let mut found = PublicKeys::default();
    for checked in &report.checked {
        // A key in PEM has no fingerprint to be looked for.
        let unknown = match &checked.flaw {
            Some(Flaw::UnknownKey { key }) => {
                Some(key).filter(|key| key.bytes().all(|digit| digit.is_ascii_hexdigit()))
            }
            _ => None,
        };
        if let Some(key) = unknown {
            found.extend(crate::pull::block_on(async { crate::key::fetch(&server, key).await })?);
        }
    }
    Ok(found)
}

fn pem_key(file: &Path) -> Result<Key, Error> {
    Key::from_pem(&read_limited(file, MAX_KEY_FILE)?)
        .map_err(|source| Error::VerifyKey { path: file.to_owned(), source })
}

fn object(sif: &Sif, id: u32) -> Option<&Descriptor> {
    sif.descriptors().iter().find(|descriptor| descriptor.id == id)
}

fn place(rings: &Keyrings, signer: &Signer) -> &'static str {
    match signer {
        signer if rings.global.has(&signer.fingerprint) => "[GLOBAL]",
        signer if rings.local.has(&signer.fingerprint) => "[LOCAL]",
        signer if signer.fingerprint.contains(':') => "[KEY]",
        _ => "[REMOTE]",
    }
}

fn text(sif: &Sif, rings: &Keyrings, report: &Report) -> String {
    let mut out = String::new();
    // Writing into a String never fails.
    for checked in &report.checked {
        if let Some(signer) = &checked.signer {
            let place = place(rings, signer);
            if let Some(name) = &signer.name {
                let _ = writeln!(out, "{place:9} Signing entity: {name}");
            }
            let print = match signer.fingerprint.contains(':') {
                true => signer.fingerprint.clone(),
                false => signer.fingerprint.to_uppercase(),
            };
            let _ = writeln!(out, "{place:9} Fingerprint: {print}");
            if let Some(created) = signer.created {
                let _ = writeln!(out, "{place:9} Signed: {}", utc(created));
            }
        }
        if !checked.verified.is_empty() {
            let line = "-".repeat(48);
            let _ = writeln!(out, "Objects verified:\n{:4}|{:8}|{:8}|TYPE\n{line}", "ID", "GROUP", "LINK");
        }
        for object in checked.verified.iter().filter_map(|id| object(sif, *id)) {
            let group = object.group_number().map_or("NONE".into(), |group| group.to_string());
            let link = match (object.link, object.link & !GROUP_MASK) {
                (0, _) => "NONE".to_owned(),
                (link, group) if link & GROUP_MASK == GROUP_MASK => format!("{group} (G)"),
                (link, _) => link.to_string(),
            };
            let _ = writeln!(out, "{:<4}|{group:8}|{link:8}|{}", object.id, object.datatype.label());
        }
    }
    out
}

/// The members of Apptainer's `verify --json`, and `Created` and `Error`.
fn as_json(sif: &Sif, rings: &Keyrings, report: &Report) -> Value {
    let entry = |checked: &Checked, id: u32, sound: bool| {
        let signer = checked.signer.as_ref();
        json!({ "Signer": {
            "Partition": object(sif, id).map(|object| object.datatype.label()),
            "Name": signer.and_then(|signer| signer.name.as_deref()).unwrap_or("unknown"),
            "Fingerprint": signer.map_or("", |signer| &signer.fingerprint),
            "KeyLocal": signer.is_some_and(|signer| rings.local.has(&signer.fingerprint)),
            "KeyCheck": signer.is_some(),
            "DataCheck": sound,
            "Created": signer.and_then(|signer| signer.created).map(utc),
        }})
    };
    let mut keys = Vec::new();
    for checked in &report.checked {
        keys.extend(checked.verified.iter().map(|id| entry(checked, *id, true)));
        if let Some(Flaw::Object { id }) = checked.flaw {
            keys.push(entry(checked, id, false));
        }
    }
    let signatures = report.checked.iter().filter(|checked| checked.signature.is_some()).count();
    let error = report.flaw().and_then(|checked| Some(told(checked, checked.flaw.as_ref()?)));
    json!({ "Signatures": signatures, "SignerKeys": keys, "Error": error })
}

/// RFC 3339 of Unix seconds (days to dates: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
pub(crate) fn utc(seconds: i64) -> String {
    let (days, rest) = (seconds.div_euclid(86_400) + 719_468, seconds.rem_euclid(86_400));
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (rest / 3_600, rest % 3_600 / 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339() {
        let check = |seconds, expect: &str| assert_eq!(utc(seconds), expect);
        check(0, "1970-01-01T00:00:00Z");
        check(951_782_400, "2000-02-29T00:00:00Z");
        check(1_709_251_199, "2024-02-29T23:59:59Z");
        check(4_294_967_295, "2106-02-07T06:28:15Z");
    }
}
