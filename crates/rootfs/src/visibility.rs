use crate::tree::InodeId;

/// Which regular files of which layer are visible in the merged tree: learnt by a first pass, given to the second.
///
/// The default knows nothing: [`crate::Merge`] then guesses from the layers above and from what it has read so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Visibility {
    /// In the order of application (topmost first); one bit for each regular file in tar order. None: first pass.
    layers: Option<Vec<Box<[u64]>>>,
}

impl Visibility {
    pub(crate) fn is_known(&self) -> bool {
        self.layers.is_some()
    }

    /// What the map says of the `file`th regular file of the `layer`th applied layer; false beyond its end.
    pub(crate) fn get(&self, layer: usize, file: usize) -> bool {
        let words = self.layers.as_ref().and_then(|layers| layers.get(layer));
        words.and_then(|words| words.get(file / 64)).is_some_and(|word| word >> (file % 64) & 1 == 1)
    }

    /// `files[layer][file]` is that file's inode.
    pub(crate) fn from_files(files: &[Vec<InodeId>], visible: impl Fn(InodeId) -> bool) -> Visibility {
        let layer = |files: &Vec<InodeId>| {
            let mut words = vec![0u64; files.len().div_ceil(64)];
            for (i, &inode) in files.iter().enumerate() {
                words[i / 64] |= u64::from(visible(inode)) << (i % 64);
            }
            words.into_boxed_slice()
        };
        Visibility { layers: Some(files.iter().map(layer).collect()) }
    }
}
