use crate::tree::Meta;

/// One entry of a layer that we make ourselves ([`crate::Merge::apply_entries`]).
///
/// Names have no special meaning here: `.wh.x` would be a file of that name. Parents that are not among the entries
/// take the metadata of the image's directory.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// Slash-separated, relative to the root; a leading slash is ignored.
    pub path: &'a [u8],
    pub meta: Meta,
    pub kind: EntryKind<'a>,
}

#[derive(Clone, Copy, Debug)]
pub enum EntryKind<'a> {
    Directory,
    File { data: &'a [u8] },
    Symlink { target: &'a [u8] },
}
