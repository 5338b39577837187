//! The objects of a SIF as signatures see them: by group, with the bytes of their descriptors that are signed.

use super::{Error, MAX_SIGNATURE, Selected};
use siforge_sif::format::{DESCRIPTOR_LEN, GROUP_MASK};
use siforge_sif::{DataType, Descriptor, Sif};
use std::os::unix::fs::FileExt;

const NAME: std::ops::Range<usize> = 73..201;

#[derive(Debug)]
pub(super) struct Object {
    pub(super) descriptor: Descriptor,
    /// The field as it stands in the file: what follows its first NUL is signed too.
    name: [u8; 128],
}

impl Object {
    pub(super) fn id(&self) -> u32 {
        self.descriptor.id
    }

    pub(super) fn group(&self) -> Option<u32> {
        self.descriptor.group_number()
    }

    /// Offset and length in the file, bytes.
    pub(super) fn place(&self) -> (u64, u64) {
        (self.descriptor.offset, self.descriptor.size)
    }

    /// See the drawing of [`super::metadata`].
    pub(super) fn signed_fields(&self, relative_id: u32) -> Vec<u8> {
        let it = &self.descriptor;
        let mut bytes = Vec::with_capacity(4 + 1 + 4 + 4 + 4 * 8 + 128 + 384);
        bytes.extend(it.datatype.code().to_le_bytes());
        bytes.push(1);
        bytes.extend(relative_id.to_le_bytes());
        bytes.extend(it.link.to_le_bytes());
        bytes.extend(it.size.to_le_bytes());
        bytes.extend(it.ctime.to_le_bytes());
        bytes.extend(it.uid.to_le_bytes());
        bytes.extend(it.gid.to_le_bytes());
        bytes.extend(self.name);
        bytes.extend(&it.extra[..]);
        bytes
    }
}

pub(super) struct Objects<'a> {
    sif: &'a Sif,
    all: Vec<Object>,
}

impl<'a> Objects<'a> {
    pub(super) fn of(sif: &'a Sif) -> Result<Self, Error> {
        let header = sif.header();
        // Sif::open has checked that the table lies within the file, and how long it is at most.
        let mut table = vec![0; header.descriptors_total as usize * DESCRIPTOR_LEN];
        sif.file()
            .read_exact_at(&mut table, header.descriptors_offset as u64)
            .map_err(|source| Error::Read { source })?;
        let (slots, _) = table.as_chunks::<DESCRIPTOR_LEN>();
        let used = slots.iter().filter(|slot| slot[4] != 0);
        let all = used.zip(sif.descriptors()).map(|(slot, descriptor)| {
            let mut name = [0; 128];
            name.copy_from_slice(&slot[NAME]);
            Object { descriptor: descriptor.clone(), name }
        });
        Ok(Self { sif, all: all.collect() })
    }

    pub(super) fn sif(&self) -> &'a Sif {
        self.sif
    }

    pub(super) fn get(&self, id: u32) -> Result<&Object, Error> {
        self.all.iter().find(|object| object.id() == id).ok_or(Error::NoObject { id })
    }

    /// Ascending.
    pub(super) fn groups(&self) -> Result<Vec<u32>, Error> {
        let mut groups: Vec<u32> = self.all.iter().filter_map(Object::group).collect();
        groups.sort_unstable();
        groups.dedup();
        if groups.is_empty() { Err(Error::NoGroups) } else { Ok(groups) }
    }

    /// In the table's order.
    pub(super) fn group(&self, group: u32) -> Result<Vec<&Object>, Error> {
        let objects: Vec<_> = self.all.iter().filter(|object| object.group() == Some(group)).collect();
        if objects.is_empty() { Err(Error::NoGroup { group }) } else { Ok(objects) }
    }

    /// The smallest id in the group.
    pub(super) fn smallest(&self, group: u32) -> Result<u32, Error> {
        self.group(group)?.iter().map(|object| object.id()).min().ok_or(Error::NoGroup { group })
    }

    /// Ids and bytes of the signatures of a group, or of an object (that is how the first signatures were linked).
    pub(super) fn signatures(&self, of: Selected) -> Result<Vec<(&Object, Vec<u8>)>, Error> {
        let link = match of {
            Selected::Group(group) => group | GROUP_MASK,
            Selected::Object(id) => id,
        };
        let signature = |object: &&Object| object.descriptor.datatype == DataType::Signature;
        let linked = self.all.iter().filter(signature).filter(|object| object.descriptor.link == link);
        linked.map(|object| Ok((object, self.sif.object(&object.descriptor, MAX_SIGNATURE)?))).collect()
    }

    /// Objects of groups, by ascending id.
    pub(super) fn grouped(&self) -> Vec<u32> {
        let signature = |object: &Object| object.descriptor.datatype == DataType::Signature;
        let grouped = self.all.iter().filter(|object| object.group().is_some() && !signature(object));
        let mut ids: Vec<u32> = grouped.map(Object::id).collect();
        ids.sort_unstable();
        ids
    }

    /// Objects that belong to no group and sign nothing: no signature is about them.
    pub(super) fn ungrouped(&self) -> Vec<u32> {
        let loose = |object: &&Object| object.group().is_none() && object.descriptor.datatype != DataType::Signature;
        self.all.iter().filter(loose).map(Object::id).collect()
    }
}
