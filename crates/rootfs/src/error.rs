use crate::tar;

/// A layer that cannot be applied. Paths and targets are as they stand in the tar, made printable.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Tar(#[from] tar::Error),
    #[error("layers hold more than {limit} entries")]
    TooManyEntries { limit: u64 },
    #[error("files of the layers sum up to more than {limit} bytes (at {path})")]
    TooManyBytes { path: String, limit: u64 },
    #[error("names, link targets and extended attributes of the layers need more than {limit} bytes")]
    TooMuchMetadata { limit: u64 },
    #[error("path {path} is longer than {limit} bytes")]
    PathTooLong { path: String, limit: usize },
    #[error("a name in path {path} is longer than 255 bytes")]
    NameTooLong { path: String },
    #[error("path {path} is deeper than {limit} directories")]
    PathTooDeep { path: String, limit: usize },
    #[error("extended attributes of {path} are larger than {limit} bytes")]
    XattrsTooLarge { path: String, limit: usize },
    #[error("name of an extended attribute of {path} is empty or longer than 255 bytes")]
    XattrName { path: String },
    #[error("{path}: too many levels of symbolic links")]
    SymlinkLoop { path: String },
    #[error("{path}: a parent of it, {parent}, is not a directory in its own layer")]
    ParentNotDirectory { path: String, parent: String },
    #[error("the root directory's entry ({path}) is a {kind}, not a directory")]
    RootNotDirectory { path: String, kind: &'static str },
    #[error("whiteout {path} names no file")]
    BadWhiteout { path: String },
    #[error("symlink {path} has no target")]
    EmptySymlink { path: String },
    #[error("symlink {path} has a target longer than {limit} bytes")]
    SymlinkTooLong { path: String, limit: usize },
    #[error("hard link {path} to directory {target}")]
    LinkToDirectory { path: String, target: String },
    #[error("hard link {path}: its target {target} is neither in its layer nor in those below")]
    UnresolvedLink { path: String, target: String },
    #[error("{path}: {what} {value} is out of range")]
    OutOfRange { path: String, what: &'static str, value: i64 },
    #[error("{path}: tar entry type {kind:?} is not known")]
    UnknownType { path: String, kind: char },
    #[error("layers changed between two passes over them: the visible files differ")]
    Changed,
}

/// Either side of [`crate::Merge::apply_tar`] failed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError<E> {
    #[error(transparent)]
    Layer(#[from] Error),
    /// What [`crate::Contents`] returned; but an error in reading its file is [`ApplyError::Layer`].
    #[error("{0}")]
    Contents(E),
}
