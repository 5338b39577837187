//! Extended attributes.
//!
//! ```text
//! header at xattr_table:  u64 start of the keys, u32 sets, u32 0, u64 place of each block of sets …
//! set:                    u64 reference of its first key, u32 keys, u32 bytes
//! key:                    u16 namespace | 0x100 if out of line, u16 length, name without namespace
//! value behind it:        u32 length, value;   out of line: u32 8, u64 reference of a value
//! ```

use super::image::Image;
use super::inode::Inode;
use super::metadata::{Cursor, Indexed, Table};
use super::{Error, Reader};
use crate::format::{MetaRef, Superblock, XATTR_NAME_MAX, XATTR_OUT_OF_LINE, XATTR_PREFIXES, XATTR_VALUE_MAX};

/// One attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Xattr {
    /// With its namespace, like `user.comment`.
    pub name: Vec<u8>,
    pub value: Vec<u8>,
}

#[derive(Clone, Copy)]
pub(super) struct Tables {
    keys: Table,
    sets: Indexed,
}

impl Tables {
    pub(super) fn open(image: &Image, superblock: &Superblock) -> Result<Option<Self>, Error> {
        let Some(at) = super::superblock::xattr_table(superblock) else {
            return Ok(None);
        };
        let mut header = [0; 16];
        image.read("extended attribute table", at, &mut header)?;
        let [s0, s1, s2, s3, s4, s5, s6, s7, c0, c1, c2, c3, ..] = header;
        let sets = Indexed {
            what: "extended attribute set",
            index: at + 16,
            count: u32::from_le_bytes([c0, c1, c2, c3]).into(),
            entry: 16,
        };
        sets.check(image)?;
        let keys =
            Table { what: "extended attributes", start: u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]), end: at };
        Ok(Some(Self { keys, sets }))
    }
}

impl Reader {
    /// The attributes of an inode, in their order on disk.
    pub fn xattrs(&self, inode: &Inode) -> Result<Vec<Xattr>, Error> {
        let Some(set) = inode.xattrs else {
            return Ok(Vec::new());
        };
        let Some(tables) = self.xattr_tables else {
            return Err(Error::Index { what: "extended attribute set", index: set.into(), count: 0 });
        };
        let mut entry = tables.sets.entry(&self.metadata, &self.image, set.into())?;
        let (first, keys) = (MetaRef(entry.u64()?), entry.u32()?);
        let mut cursor = self.cursor(tables.keys, first);
        let mut xattrs = Vec::new();
        let mut bytes = 0;
        for _ in 0..keys {
            let xattr = self.xattr(tables.keys, &mut cursor)?;
            bytes += xattr.name.len() + xattr.value.len();
            if bytes > self.limits.xattr_bytes {
                return Err(Error::XattrsTooLarge { max: self.limits.xattr_bytes });
            }
            xattrs.push(xattr);
        }
        Ok(xattrs)
    }

    fn xattr(&self, keys: Table, cursor: &mut Cursor<'_>) -> Result<Xattr, Error> {
        let kind = cursor.u16()?;
        let len = usize::from(cursor.u16()?);
        let namespace = kind & !XATTR_OUT_OF_LINE;
        let prefix = XATTR_PREFIXES.get(usize::from(namespace)).ok_or(Error::XattrNamespace { kind })?;
        let mut name = prefix.to_vec();
        let full = name.len() + len;
        if len == 0 || full > XATTR_NAME_MAX {
            return Err(Error::XattrName { len: full });
        }
        name.resize(full, 0);
        cursor.read(&mut name[prefix.len()..])?;
        if name.contains(&0) {
            return Err(Error::XattrNul);
        }
        let value = if kind & XATTR_OUT_OF_LINE == 0 {
            value(cursor)?
        } else {
            let len = cursor.u32()?;
            if len != 8 {
                return Err(Error::XattrReference { len });
            }
            let place = MetaRef(cursor.u64()?);
            value(&mut self.cursor(keys, place))?
        };
        Ok(Xattr { name, value })
    }
}

fn value(cursor: &mut Cursor<'_>) -> Result<Vec<u8>, Error> {
    let len = cursor.u32()?;
    if len as usize > XATTR_VALUE_MAX {
        return Err(Error::XattrValue { len: len.into() });
    }
    let mut value = vec![0; len as usize];
    cursor.read(&mut value)?;
    Ok(value)
}
