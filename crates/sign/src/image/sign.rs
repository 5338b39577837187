//! Signatures added to a SIF.

use super::dsse::Envelope;
use super::metadata::{Memo, Metadata};
use super::objects::{Object, Objects};
use super::pem::SecretPem;
use super::pgp::{Passphrase, SecretKey};
use super::{Error, Selected};
use siforge_sif::DataType;
use siforge_sif::edit::{self, Editor, Link};
use std::collections::BTreeMap;

/// The descriptor's code of SHA-256.
const SHA256: i32 = 1;
/// Bytes of a fingerprint in the descriptor.
const FINGERPRINT: usize = 20;

/// What signs.
#[derive(Clone, Copy)]
pub enum SigningKey<'a> {
    Pgp(&'a SecretKey, &'a Passphrase),
    Pem(&'a SecretPem),
}

impl SigningKey<'_> {
    fn sign(self, text: &str, now: i64) -> Result<String, Error> {
        match self {
            Self::Pgp(key, passphrase) => key.sign(text, passphrase, now),
            Self::Pem(key) => Envelope::sign(text, key),
        }
    }

    /// What the descriptor says of the key: its fingerprint, zeros for a key in PEM.
    fn fingerprint(self) -> Vec<u8> {
        match self {
            Self::Pgp(key, _) => key.fingerprint(),
            Self::Pem(_) => vec![0; FINGERPRINT],
        }
    }
}

/// A signature that was added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    pub signature: u32,
    pub group: u32,
    /// Ids of what is signed.
    pub objects: Vec<u32>,
}

/// Signs what is selected, nothing selected: every group; one signature for a group, one for the selected objects of a group.
/// All are made before the first is added. `now`: Unix seconds.
pub fn sign(editor: &mut Editor, selected: &[Selected], key: SigningKey<'_>, now: i64) -> Result<Vec<Made>, Error> {
    let mut ready = Vec::new();
    {
        let objects = Objects::of(editor.sif())?;
        let mut memo = Memo::default();
        for (group, signed) in parts(&objects, selected)? {
            let text = Metadata::of(&objects, &signed, objects.smallest(group)?, &mut memo)?.text()?;
            let message = key.sign(&text, now)?;
            ready.push((group, signed.iter().map(|object| object.id()).collect(), message));
        }
    }
    let mut extra = SHA256.to_le_bytes().to_vec();
    extra.extend(key.fingerprint());
    editor.set_time(now);
    let add = |(group, objects, message): (u32, Vec<u32>, String)| {
        let object =
            edit::Object { link: Link::Group(group), extra: extra.clone(), ..edit::Object::new(DataType::Signature) };
        let signature = editor.add(object, &mut message.as_bytes())?;
        Ok(Made { signature, group, objects })
    };
    ready.into_iter().map(add).collect()
}

/// What each signature is about, objects by ascending id.
fn parts<'a>(objects: &'a Objects<'_>, selected: &[Selected]) -> Result<Vec<(u32, Vec<&'a Object>)>, Error> {
    let mut parts = Vec::new();
    let mut single: BTreeMap<u32, Vec<&Object>> = BTreeMap::new();
    let everything: Vec<Selected> = match selected.is_empty() {
        true => objects.groups()?.into_iter().map(Selected::Group).collect(),
        false => selected.to_vec(),
    };
    for selected in everything {
        match selected {
            Selected::Group(group) => parts.push((group, objects.group(group)?)),
            Selected::Object(id) => {
                let object = objects.get(id)?;
                single.entry(object.group().ok_or(Error::Ungrouped { id })?).or_default().push(object);
            }
        }
    }
    parts.extend(single);
    for (_, signed) in &mut parts {
        signed.sort_by_key(|object| object.id());
        signed.dedup_by_key(|object| object.id());
    }
    Ok(parts)
}
