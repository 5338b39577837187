//! Small files: those of less than a block share fragment blocks, here called groups.
//!
//! Which files share a group depends on the layer's complete list alone, hidden files included, so that a layer's groups
//! can be copied from one image to another whatever hides parts of it:
//!
//! ```text
//!  layer's small files   a b c│d e│f g h│i        │ = the next one does not fit
//!  visible               a b c│  e│     │i        f g h are hidden: dropped
//!  written               abc   ·   ·     i   e    d is hidden: e moves to the refill group
//! ```
//!
//! - Files of equal contents share one *member*, within their layer.
//! - A group is closed when a new content does not fit, and at its layer's end. If all members are visible it is written
//!   as it is, if none is, it is dropped; else its visible members are copied to the *refill* group, which is written when
//!   it is full and at the layer's end. So refill groups stand between a layer's groups and not behind them all: only one
//!   is held in memory.
//! - A visible file that equals a member which was hidden when its group was closed brings that content to the refill
//!   group. Thus no byte of a file that is hidden everywhere gets into an image.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use siforge_rootfs::InodeId;

use crate::write::blocks::{Origin, Part, Task};
use crate::write::pack::{Pack, Small};
use crate::write::pipeline::Slot;
use crate::write::{Error, Mode};

/// Where groups get their memory and go when they are full.
pub(super) trait Slots {
    fn slot(&self) -> Result<Slot, Error>;
    fn release(&self, slot: Slot);
    fn submit(&self, slot: Slot, task: Task);
}

/// A small file in the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) fragment: u32,
    pub(super) offset: u32,
    pub(super) size: u32,
}

type Hash = [u8; 32];

enum Content {
    /// A member of the open group.
    Open(usize),
    At(Place),
    /// Its group was closed while no visible file had it.
    Dropped,
}

struct Member {
    /// The number of the content.
    content: usize,
    offset: usize,
    size: usize,
    /// The visible files that have these contents.
    inodes: Vec<InodeId>,
}

/// Where the open group's bytes are.
enum Bytes {
    Slot(Slot),
    /// In the layer's pack.
    Packed,
}

struct Open {
    /// Its number among the layer's groups.
    ordinal: u32,
    bytes: Bytes,
    members: Vec<Member>,
}

impl Open {
    /// Bytes that still fit.
    fn room(&self) -> usize {
        match &self.bytes {
            Bytes::Slot(slot) => slot.input.len() - slot.used,
            Bytes::Packed => 0,
        }
    }
}

struct Refill {
    slot: Slot,
    fragment: u32,
}

#[derive(Default)]
pub(super) struct Groups {
    open: Option<Open>,
    refill: Option<Refill>,
    /// What does not fit behind the open group is read into this; it becomes the next group unless it is a duplicate.
    spare: Option<Slot>,
    /// The layer's contents so far, by their number: the order of their first files.
    contents: Vec<Content>,
    numbers: HashMap<Hash, usize>,
    /// Groups begun in the layer.
    begun: u32,
    /// The layer's contents for the record.
    smalls: Vec<Small>,
    fragments: u32,
    places: HashMap<InodeId, Place>,
}

impl Groups {
    /// Reads a file of 1 to less than block size bytes; the number of its content. `inode` is None when it is hidden.
    pub(super) fn add(
        &mut self,
        inode: Option<InodeId>,
        size: usize,
        data: &mut dyn Read,
        mode: &Mode,
        slots: &impl Slots,
    ) -> Result<u32, Error> {
        // A new content goes behind the open group if it fits there, and there it is read.
        let room = match &mut self.open {
            Some(Open { bytes: Bytes::Slot(slot), .. }) if slot.input.len() - slot.used >= size => {
                &mut slot.input[slot.used..][..size]
            }
            _ => match &mut self.spare {
                Some(spare) => &mut spare.input[..size],
                empty => &mut empty.insert(slots.slot()?).input[..size],
            },
        };
        data.read_exact(room).map_err(|source| Error::Read { size: size as u64, source })?;
        let hash: Hash = Sha256::digest(&*room).into();
        let Some(&number) = self.numbers.get(&hash) else {
            let number = self.contents.len();
            self.numbers.insert(hash, number);
            self.add_new(inode, size, mode, slots)?;
            return Ok(number as u32);
        };
        if let (Content::Dropped, Some(inode)) = (&self.contents[number], inode) {
            let place = refill(&mut self.refill, &mut self.fragments, room, slots)?;
            self.contents[number] = Content::At(place);
            self.places.insert(inode, place);
        } else {
            self.add_known(inode, number);
        }
        Ok(number as u32)
    }

    /// One more file of a content that is in the open group or in the image.
    fn add_known(&mut self, inode: Option<InodeId>, number: usize) {
        let Some(inode) = inode else { return };
        match &self.contents[number] {
            // Only the open group's members are in this state.
            Content::Open(index) => {
                if let Some(member) = self.open.as_mut().and_then(|open| open.members.get_mut(*index)) {
                    member.inodes.push(inode);
                }
            }
            Content::At(place) => {
                self.places.insert(inode, *place);
            }
            Content::Dropped => {}
        }
    }

    /// Takes the bytes just read as a new member.
    fn add_new(&mut self, inode: Option<InodeId>, size: usize, mode: &Mode, slots: &impl Slots) -> Result<(), Error> {
        if self.open.as_ref().is_some_and(|open| open.room() < size) {
            self.close(mode, slots)?;
        }
        let open = match (&mut self.open, self.spare.take()) {
            (Some(open), spare) => {
                self.spare = spare;
                open
            }
            (empty, Some(spare)) => {
                let ordinal = take_number(&mut self.begun)?;
                empty.insert(Open { ordinal, bytes: Bytes::Slot(spare), members: Vec::new() })
            }
            // `add` reads into the spare slot when there is no open group.
            (None, None) => return Err(Error::Stopped),
        };
        let Bytes::Slot(slot) = &mut open.bytes else { return Err(Error::Stopped) };
        let offset = slot.used;
        slot.used += size;
        if matches!(mode, Mode::Record { .. }) {
            self.smalls.push(Small { group: open.ordinal, offset: offset as u32, size: size as u32 });
        }
        let content = self.contents.len();
        self.contents.push(Content::Open(open.members.len()));
        open.members.push(Member { content, offset, size, inodes: inode.into_iter().collect() });
        Ok(())
    }

    /// A file whose content is number `content` of the layer's pack: as [`Groups::add`], without reading it. False if the
    /// pack contradicts itself.
    pub(super) fn add_packed(
        &mut self,
        inode: Option<InodeId>,
        content: u32,
        pack: &Arc<Pack>,
        slots: &impl Slots,
    ) -> Result<bool, Error> {
        let (number, small) = (content as usize, pack.small(content));
        if number < self.contents.len() {
            if let (Content::Dropped, Some(inode)) = (&self.contents[number], inode) {
                let place = self.refill_packed(pack, small, slots)?;
                self.contents[number] = Content::At(place);
                self.places.insert(inode, place);
            } else {
                self.add_known(inode, number);
            }
            return Ok(true);
        }
        if number > self.contents.len() {
            return Ok(false);
        }
        let open = match self.open.take() {
            Some(open) if open.ordinal == small.group => self.open.insert(open),
            other => {
                self.open = other;
                self.close(&Mode::Pack(pack.clone()), slots)?;
                self.open.insert(Open { ordinal: small.group, bytes: Bytes::Packed, members: Vec::new() })
            }
        };
        self.contents.push(Content::Open(open.members.len()));
        open.members.push(Member {
            content: number,
            offset: small.offset as usize,
            size: small.size as usize,
            inodes: inode.into_iter().collect(),
        });
        Ok(true)
    }

    fn refill_packed(&mut self, pack: &Arc<Pack>, small: Small, slots: &impl Slots) -> Result<Place, Error> {
        let slot = unpack(pack, small.group, slots)?;
        let bytes = &slot.input[small.offset as usize..][..small.size as usize];
        let place = refill(&mut self.refill, &mut self.fragments, bytes, slots);
        slots.release(slot);
        place
    }

    fn close(&mut self, mode: &Mode, slots: &impl Slots) -> Result<(), Error> {
        let Some(Open { ordinal, mut bytes, members }) = self.open.take() else {
            return Ok(());
        };
        let visible = members.iter().filter(|member| !member.inodes.is_empty()).count();
        let whole = visible == members.len();
        let fragment = if whole { take_number(&mut self.fragments)? } else { 0 };
        if let (Mode::Pack(pack), false) = (mode, whole || visible == 0) {
            bytes = Bytes::Slot(unpack(pack, ordinal, slots)?);
        }
        for member in &members {
            let content = if member.inodes.is_empty() {
                Content::Dropped
            } else if whole {
                Content::At(Place { fragment, offset: member.offset as u32, size: member.size as u32 })
            } else if let Bytes::Slot(slot) = &bytes {
                let bytes = &slot.input[member.offset..][..member.size];
                Content::At(refill(&mut self.refill, &mut self.fragments, bytes, slots)?)
            } else {
                continue;
            };
            if let Content::At(place) = content {
                self.places.extend(member.inodes.iter().map(|inode| (*inode, place)));
            }
            self.contents[member.content] = content;
        }
        let group = Part::Group { fragment, ordinal: Some(ordinal) };
        match (bytes, mode) {
            (Bytes::Slot(slot), _) if whole => {
                slots.submit(slot, Task { part: group, from: Origin::Slot, record: mode.record() });
            }
            (Bytes::Slot(slot), Mode::Record { number, hidden }) if visible > 0 || *hidden => {
                let part = Part::HiddenGroup { ordinal };
                slots.submit(slot, Task { part, from: Origin::Slot, record: Some(*number) });
            }
            (Bytes::Slot(slot), _) => slots.release(slot),
            (Bytes::Packed, Mode::Pack(pack)) if whole => {
                let piece = pack.group(ordinal).map_err(|fault| blame(pack, fault))?;
                let from = Origin::Pack(pack.clone(), piece);
                slots.submit(slots.slot()?, Task { part: group, from, record: None });
            }
            (Bytes::Packed, _) => {}
        }
        Ok(())
    }

    /// The layer's contents, for the record.
    pub(super) fn end_layer(&mut self, mode: &Mode, slots: &impl Slots) -> Result<Vec<Small>, Error> {
        self.close(mode, slots)?;
        if let Some(refill) = self.refill.take() {
            submit_refill(refill, slots);
        }
        if let Some(spare) = self.spare.take() {
            slots.release(spare);
        }
        self.contents.clear();
        self.numbers.clear();
        self.begun = 0;
        Ok(std::mem::take(&mut self.smalls))
    }

    pub(super) fn into_places(self) -> HashMap<InodeId, Place> {
        self.places
    }
}

/// A pack's group, uncompressed.
fn unpack(pack: &Arc<Pack>, group: u32, slots: &impl Slots) -> Result<Slot, Error> {
    let mut slot = slots.slot()?;
    match pack.unpack_group(group, &mut slot.input) {
        Ok(used) => {
            slot.used = used;
            Ok(slot)
        }
        Err(fault) => {
            slots.release(slot);
            Err(blame(pack, fault))
        }
    }
}

fn blame(pack: &Pack, fault: super::pack::Fault) -> Error {
    Error::Pack { diff_id: pack.key().diff_id, fault }
}

fn submit_refill(refill: Refill, slots: &impl Slots) {
    let part = Part::Group { fragment: refill.fragment, ordinal: None };
    slots.submit(refill.slot, Task { part, from: Origin::Slot, record: None });
}

/// Copies a member to the refill group. Not a method: the bytes may lie in a slot of the groups.
fn refill(current: &mut Option<Refill>, fragments: &mut u32, bytes: &[u8], slots: &impl Slots) -> Result<Place, Error> {
    if let Some(full) = current.take_if(|refill| refill.slot.input.len() - refill.slot.used < bytes.len()) {
        submit_refill(full, slots);
    }
    let refill = match current {
        Some(refill) => refill,
        empty => empty.insert(Refill { slot: slots.slot()?, fragment: take_number(fragments)? }),
    };
    let offset = refill.slot.used;
    refill.slot.input[offset..][..bytes.len()].copy_from_slice(bytes);
    refill.slot.used += bytes.len();
    Ok(Place { fragment: refill.fragment, offset: offset as u32, size: bytes.len() as u32 })
}

fn take_number(fragments: &mut u32) -> Result<u32, Error> {
    let number = *fragments;
    *fragments = number.checked_add(1).ok_or(Error::TooMany { what: "fragment blocks" })?;
    Ok(number)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// Room of 10 bytes a group; keeps what is submitted.
    #[derive(Default)]
    struct Kept {
        groups: RefCell<Vec<(u32, String)>>,
        out: RefCell<isize>,
    }

    impl Slots for Kept {
        fn slot(&self) -> Result<Slot, Error> {
            *self.out.borrow_mut() += 1;
            Ok(Slot { input: vec![b'?'; 10].into(), used: 0, output: Box::default() })
        }

        fn release(&self, _: Slot) {
            *self.out.borrow_mut() -= 1;
        }

        fn submit(&self, slot: Slot, task: Task) {
            let Part::Group { fragment, .. } = task.part else { panic!("only groups come from here") };
            self.groups.borrow_mut().push((fragment, String::from_utf8(slot.block().to_vec()).unwrap()));
            *self.out.borrow_mut() -= 1;
        }
    }

    /// Layers are separated by `/`, files by spaces; a file in capitals is hidden (its contents are in small letters).
    fn check(layers: &str, expect: &[&str]) {
        let (kept, mut groups) = (Kept::default(), Groups::default());
        let mut visible = Vec::new();
        for layer in layers.split('/') {
            for (number, file) in layer.split_whitespace().enumerate() {
                let contents = file.to_ascii_lowercase();
                let inode = (file == contents).then_some((visible.len() + 1000 * number) as InodeId);
                groups.add(inode, contents.len(), &mut contents.as_bytes(), &Mode::Plain, &kept).unwrap();
                visible.extend(inode.map(|inode| (inode, contents)));
            }
            groups.end_layer(&Mode::Plain, &kept).unwrap();
        }
        assert_eq!(*kept.out.borrow(), 0, "{layers}: slots come back");
        let written = kept.groups.borrow();
        let texts: Vec<_> = written.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, expect, "{layers}");
        let places = groups.into_places();
        assert_eq!(places.len(), visible.len(), "{layers}");
        for (inode, contents) in visible {
            let place = places[&inode];
            let (_, group) = written.iter().find(|(fragment, _)| *fragment == place.fragment).unwrap();
            let found = &group[place.offset as usize..][..place.size as usize];
            assert_eq!(found, contents, "{layers}");
        }
    }

    #[test]
    fn groups_follow_the_rules() {
        for (layers, expect) in [
            ("", &[][..]),
            ("aa bb", &["aabb"]),
            // The next one does not fit; exactly full is full.
            ("aaaa bbbb ccc", &["aaaabbbb", "ccc"]),
            ("aaaaaa bbbb c", &["aaaaaabbbb", "c"]),
            // Layers share neither groups nor contents.
            ("aa / bb / aa", &["aa", "bb", "aa"]),
            // Equal contents are one member, also where they would not fit and in an earlier group.
            ("aaaa aaaa bbbb", &["aaaabbbb"]),
            ("aaaaaaaa aaaaaaaa aaaaaaaa bb", &["aaaaaaaabb"]),
            ("aaaaa bbbbbb aaaaa ccc", &["aaaaa", "bbbbbbccc"]),
            // Hidden members hold their place in the boundaries; what is left of their group is refilled.
            ("aaaa BBBB cccc", &["cccc", "aaaa"]),
            ("AAAA BBBB cccc", &["cccc"]),
            ("AAAA", &[]),
            ("aaaa BBBB cc DDDDDD ee ff", &["aaaacceeff"]),
            // The refill group is written where the next one does not fit.
            ("aaaaaa BBBB cccccc DDDD eeeeeeee", &["aaaaaa", "eeeeeeee", "cccccc"]),
            // A member becomes visible by a later equal file, in time …
            ("AAAA bbbb aaaa", &["aaaabbbb"]),
            // … or after its group was dropped, or refilled without it.
            ("AAAAAAAA bbbb aaaaaaaa aaaaaaaa", &["bbbb", "aaaaaaaa"]),
            ("AAAA bbbb cccc aaaa aaaa", &["cccc", "bbbbaaaa"]),
            // A hidden file that equals a visible one changes nothing.
            ("aaaa AAAA bbbb", &["aaaabbbb"]),
        ] {
            check(layers, expect);
        }
    }

    /// The same list of files has the same groups whatever is visible of it, so far as they are written whole.
    #[test]
    fn boundaries_do_not_depend_on_what_is_visible() {
        check("aaa bbbb ccccc ddd ee fffffff", &["aaabbbb", "cccccdddee", "fffffff"]);
        check("AAA BBBB ccccc ddd ee FFFFFFF", &["cccccdddee"]);
        check("AAA bbbb ccccc ddd ee FFFFFFF", &["cccccdddee", "bbbb"]);
    }
}
