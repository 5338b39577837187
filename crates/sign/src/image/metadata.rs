//! What is signed (sylabs/sif `pkg/integrity/metadata.go`, `pkg/sif/{sif,descriptor}.go`, `GetIntegrityReader`).
//!
//! ```text
//! {"version":1,"header":{"digest":D},"objects":[{"relativeId":N,"descriptorDigest":D,"objectDigest":D},…]}     one line
//!
//! header      launch[32] magic[10] version[3] uuid[16]              what edits of the file do not change
//! descriptor  datatype i32, used u8 = 1, N u32, link u32, size i64, ctime i64, uid i64, gid i64, name[128], extra[384]
//! object      its bytes
//! N           the object's id less the smallest id of its group, so that a signature outlives a renumbering
//! ```

use super::digest::{Algorithm, Digest};
use super::objects::{Object, Objects};
use super::{Error, Flaw};
use serde::{Deserialize, Serialize};
use siforge_sif::format::{MAGIC, VERSION};
use std::collections::BTreeMap;

/// The one version there is.
const METADATA_VERSION: u32 = 1;

#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Metadata {
    version: u32,
    header: HeaderMetadata,
    objects: Vec<ObjectMetadata>,
}

#[derive(Debug, Deserialize, Serialize)]
struct HeaderMetadata {
    digest: Digest,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct ObjectMetadata {
    relative_id: u32,
    descriptor_digest: Digest,
    object_digest: Digest,
}

/// Digests of objects, each made once however many signatures there are.
#[derive(Default)]
pub(super) struct Memo(BTreeMap<(u32, Algorithm), Digest>);

impl Memo {
    pub(super) fn object(&mut self, objects: &Objects<'_>, object: &Object, how: Algorithm) -> Result<Digest, Error> {
        if let Some(digest) = self.0.get(&(object.id(), how)) {
            return Ok(digest.clone());
        }
        let digest = how.of_file(objects.sif(), &[object.place()])?;
        self.0.insert((object.id(), how), digest.clone());
        Ok(digest)
    }
}

impl Metadata {
    /// Of these objects of a group; `smallest` is the smallest id in the group.
    pub(super) fn of(objects: &Objects<'_>, signed: &[&Object], smallest: u32, memo: &mut Memo) -> Result<Self, Error> {
        let how = Algorithm::Sha256;
        let mut metadata = Vec::new();
        for object in signed {
            let relative_id = object.id().saturating_sub(smallest);
            metadata.push(ObjectMetadata {
                relative_id,
                descriptor_digest: how.of_bytes(&object.signed_fields(relative_id)),
                object_digest: memo.object(objects, object, how)?,
            });
        }
        let header = HeaderMetadata { digest: how.of_bytes(&header_fields(objects)) };
        Ok(Self { version: METADATA_VERSION, header, objects: metadata })
    }

    /// The text that is signed.
    pub(super) fn text(&self) -> Result<String, Error> {
        serde_json::to_string(self).map_err(|source| Error::Text { source })
    }

    pub(super) fn parse(text: &str) -> Result<Self, Flaw> {
        let invalid = |why: String| Flaw::Invalid { why };
        let metadata: Self =
            serde_json::from_str(text).map_err(|error| invalid(format!("the signed text: {error}")))?;
        match metadata.version {
            METADATA_VERSION => Ok(metadata),
            other => Err(invalid(format!("the signed text has version {other}, want {METADATA_VERSION}"))),
        }
    }

    /// The objects that were found as they were signed, and what is wrong with the next one. With `whole`, the signature must
    /// be about exactly these objects, else about these at least.
    pub(super) fn check(
        &self,
        objects: &Objects<'_>,
        wanted: &[&Object],
        (smallest, whole): (u32, bool),
        memo: &mut Memo,
    ) -> Result<(Vec<u32>, Option<Flaw>), Error> {
        let id_of = |object: &ObjectMetadata| smallest.checked_add(object.relative_id);
        let find = |id| self.objects.iter().find(|object| id_of(object) == Some(id));
        if let Some(object) = wanted.iter().find(|object| find(object.id()).is_none()) {
            return Ok((Vec::new(), Some(Flaw::Uncovered { id: object.id() })));
        }
        let there = |object: &&ObjectMetadata| wanted.iter().any(|wanted| Some(wanted.id()) == id_of(object));
        if whole && let Some(gone) = self.objects.iter().find(|object| !there(object)) {
            return Ok((Vec::new(), Some(Flaw::Gone { relative_id: gone.relative_id })));
        }
        if self.header.digest.algorithm.of_bytes(&header_fields(objects)) != self.header.digest {
            return Ok((Vec::new(), Some(Flaw::Header)));
        }
        let mut verified = Vec::new();
        for object in wanted {
            let id = object.id();
            let Some(signed) = find(id) else { continue };
            let fields = object.signed_fields(signed.relative_id);
            if signed.descriptor_digest.algorithm.of_bytes(&fields) != signed.descriptor_digest {
                return Ok((verified, Some(Flaw::Descriptor { id })));
            }
            if memo.object(objects, object, signed.object_digest.algorithm)? != signed.object_digest {
                return Ok((verified, Some(Flaw::Object { id })));
            }
            verified.push(id);
        }
        Ok((verified, None))
    }
}

fn header_fields(objects: &Objects<'_>) -> Vec<u8> {
    let header = objects.sif().header();
    [&header.launch[..], MAGIC, VERSION, &header.uuid].concat()
}
