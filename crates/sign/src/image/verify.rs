//! Whether the signatures of a SIF hold.

use super::digest::{Algorithm, Digest};
use super::dsse::Envelope;
use super::metadata::{Memo, Metadata};
use super::objects::{Object, Objects};
use super::pgp::{Message, PublicKeys, Signer};
use super::{Error, Flaw, Selected};
use crate::cosign::Key;
use siforge_sif::Sif;

/// The digest's length is the algorithm's, so a text of another length is none.
const LEGACY_PREFIX: &str = "SIFHASH:";

/// Whether signatures of the first versions are asked for. They say nothing of headers and descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Legacy {
    No,
    /// Of the primary partition, unless something else is selected.
    Yes,
    /// Of every object of a group.
    All,
}

/// Whose signatures count.
#[derive(Debug, Default)]
pub struct Keys {
    pub pgp: PublicKeys,
    pub pem: Vec<Key>,
}

/// A signature that was looked at, or one that is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    pub selected: Selected,
    /// The signature's own id.
    pub signature: Option<u32>,
    /// Who made it, if the signature itself holds.
    pub signer: Option<Signer>,
    /// Ids of the objects that are as they were signed.
    pub verified: Vec<u32>,
    pub flaw: Option<Flaw>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub checked: Vec<Checked>,
}

impl Report {
    /// What is wrong first of all; None if every signature holds and there is one for all that was selected.
    pub fn flaw(&self) -> Option<&Checked> {
        self.checked.iter().find(|checked| checked.flaw.is_some())
    }
}

/// Looks at every signature of what is selected; nothing selected: of every group. `now`: Unix seconds, for what expires.
pub fn verify(sif: &Sif, selected: &[Selected], legacy: Legacy, keys: &Keys, now: i64) -> Result<Report, Error> {
    let objects = Objects::of(sif)?;
    let everything = || -> Result<Vec<Selected>, Error> {
        if legacy == Legacy::Yes {
            let primary = sif.descriptors().iter().find(|descriptor| descriptor.is_primary_partition());
            return Ok(vec![Selected::Object(primary.ok_or(siforge_sif::Error::NoPrimaryPartition)?.id)]);
        }
        if legacy == Legacy::All {
            return Ok(objects.grouped().into_iter().map(Selected::Object).collect());
        }
        Ok(objects.groups()?.into_iter().map(Selected::Group).collect())
    };
    let selected = if selected.is_empty() { everything()? } else { selected.to_vec() };
    let mut verifier = Verifier { objects: &objects, keys, now, memo: Memo::default() };
    let mut checked = Vec::new();
    for selected in selected {
        verifier.signatures(selected, legacy != Legacy::No, &mut checked)?;
    }
    checked.extend(objects.ungrouped().into_iter().map(|id| Checked {
        selected: Selected::Object(id),
        signature: None,
        signer: None,
        verified: Vec::new(),
        flaw: Some(Flaw::Ungrouped { id }),
    }));
    Ok(Report { checked })
}

struct Verifier<'a> {
    objects: &'a Objects<'a>,
    keys: &'a Keys,
    now: i64,
    memo: Memo,
}

impl Verifier<'_> {
    fn signatures(&mut self, selected: Selected, legacy: bool, checked: &mut Vec<Checked>) -> Result<(), Error> {
        let (group, wanted) = match selected {
            Selected::Group(group) => (group, self.objects.group(group)?),
            Selected::Object(id) => {
                let object = self.objects.get(id)?;
                (object.group().ok_or(Error::Ungrouped { id })?, vec![object])
            }
        };
        let linked = if legacy { selected } else { Selected::Group(group) };
        let found = checked.len();
        for (signature, bytes) in self.objects.signatures(linked)? {
            let message = Signed::parse(&bytes);
            if message.is_legacy() != legacy {
                continue;
            }
            let mut entry =
                Checked { selected, signature: Some(signature.id()), signer: None, verified: Vec::new(), flaw: None };
            match self.signer(signature, message) {
                Err(flaw) => entry.flaw = Some(flaw),
                Ok((signer, text)) => {
                    entry.signer = Some(signer);
                    (entry.verified, entry.flaw) = match legacy {
                        true => self.digest(signature, &text, &wanted)?,
                        false => self.metadata(&text, selected, group, &wanted)?,
                    };
                }
            }
            checked.push(entry);
        }
        if checked.len() == found {
            let flaw = match (selected, legacy) {
                (Selected::Object(id), true) => Flaw::UnsignedObject { id },
                _ => Flaw::UnsignedGroup { group },
            };
            checked.push(Checked { selected, signature: None, signer: None, verified: vec![], flaw: Some(flaw) });
        }
        Ok(())
    }

    fn metadata(
        &mut self,
        text: &str,
        selected: Selected,
        group: u32,
        wanted: &[&Object],
    ) -> Result<(Vec<u32>, Option<Flaw>), Error> {
        let place = (self.objects.smallest(group)?, matches!(selected, Selected::Group(_)));
        match Metadata::parse(text) {
            Err(flaw) => Ok((Vec::new(), Some(flaw))),
            Ok(metadata) => metadata.check(self.objects, wanted, place, &mut self.memo),
        }
    }

    /// Who signed, and which text; the descriptor of a PGP signature must name the same key.
    fn signer(&self, signature: &Object, message: Signed) -> Result<(Signer, String), Flaw> {
        let message = match message {
            Signed::Envelope(envelope) => return envelope.check(&self.keys.pem),
            Signed::Message(message) => message?,
        };
        let signer = self.keys.pgp.check(&message, self.now)?;
        let named = super::digest::to_hex(&signature.descriptor.extra[4..24]);
        match signer.fingerprint == named {
            true => Ok((signer, message.text().to_owned())),
            false => Err(Flaw::Invalid {
                why: format!("its descriptor names the key {named}, but {} signed", signer.fingerprint),
            }),
        }
    }

    /// A signature of the first versions: one digest over all bytes of the objects.
    fn digest(&self, signature: &Object, text: &str, wanted: &[&Object]) -> Result<(Vec<u32>, Option<Flaw>), Error> {
        let algorithm = match signature.descriptor.extra[..4] {
            [1, 0, 0, 0] => Algorithm::Sha256,
            [2, 0, 0, 0] => Algorithm::Sha384,
            [3, 0, 0, 0] => Algorithm::Sha512,
            _ => return Ok((vec![], Some(Flaw::Invalid { why: "its hash algorithm is none of SHA-2".into() }))),
        };
        let hex = text.strip_prefix(LEGACY_PREFIX).unwrap_or_default().trim();
        let Some(signed) = Digest::new(algorithm, hex) else {
            return Ok((vec![], Some(Flaw::Invalid { why: "its digest is malformed".into() })));
        };
        let parts: Vec<_> = wanted.iter().map(|object| object.place()).collect();
        let ids: Vec<u32> = wanted.iter().map(|object| object.id()).collect();
        match algorithm.of_file(self.objects.sif(), &parts)? == signed {
            true => Ok((ids, None)),
            false => Ok((vec![], ids.first().map(|id| Flaw::Object { id: *id }))),
        }
    }
}

/// What a signature object holds.
enum Signed {
    Message(Result<Message, Flaw>),
    Envelope(Envelope),
}

impl Signed {
    fn parse(bytes: &[u8]) -> Self {
        match Envelope::parse(bytes) {
            Some(envelope) => Self::Envelope(envelope),
            None => Self::Message(Message::parse(bytes)),
        }
    }

    fn is_legacy(&self) -> bool {
        matches!(self, Self::Message(Ok(message)) if message.text().starts_with(LEGACY_PREFIX))
    }
}
