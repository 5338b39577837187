/// What one image may cost. Each has its own error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries of all layers together, implied directories and whiteouts counted (each costs about 250 bytes).
    pub entries: u64,
    /// Sum of the sizes of all regular files of all layers, sparse ones as they read.
    pub apparent_bytes: u64,
    /// Uncompressed bytes of one layer's tar, what follows its end included.
    pub tar_bytes: u64,
    /// Bytes of names, link targets and extended attributes kept in memory.
    pub metadata_bytes: u64,
    /// Components of a path, symlinked parents resolved.
    pub path_depth: usize,
    /// Bytes of a path as it stands in the tar, and of a link's target.
    pub path_len: usize,
    /// Bytes of names and values of one entry's extended attributes.
    pub xattr_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            entries: 4_000_000,
            apparent_bytes: 256 << 30,
            tar_bytes: 256 << 30,
            metadata_bytes: 1 << 30,
            // Linux: PATH_MAX is 4096 with the NUL; deeper trees can be made but not named.
            path_depth: 2048,
            path_len: 4095,
            // Linux: XATTR_SIZE_MAX is 64 KiB for one value; file systems hold far less.
            xattr_bytes: 128 << 10,
        }
    }
}
