//! What can go wrong, named by the operation and the path.

use siforge_reference::Digest;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{operation} {path}", path = path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("{path} is no siforge store: {file} is missing; is it mounted? A new one is made by `siforge-operator run --init-store`", path = root.display(), file = crate::layout::FORMAT_FILE)]
    NotAStore { root: PathBuf },
    #[error("{path} is a store of format {found}, this program reads format {known}: use a newer siforge", path = root.display(), known = crate::layout::FORMAT)]
    StoreFormat { root: PathBuf, found: u32 },
    #[error("{path} has format {found}, this program reads up to {known}: use a newer siforge", path = path.display())]
    FileFormat { path: PathBuf, found: u32, known: u32 },
    #[error("{path} has more than {limit} bytes", path = path.display())]
    TooLarge { path: PathBuf, limit: u64 },
    #[error("{path} is damaged: {reason}", path = path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("invalid {what} {value:?}: {rule}")]
    Name { what: &'static str, value: String, rule: &'static str },
    #[error(
        "the ref {namespace}/{name} was written by generation {found}, this writer has {own}: another leader has taken over"
    )]
    Fenced { namespace: String, name: String, found: u64, own: u64 },
    #[error("the ref {namespace}/{name} was changed by others {tries} times in a row while it was being written")]
    Contended { namespace: String, name: String, tries: u32 },
    #[error(
        "the ref {namespace}/{name} shows revision {found}, but {known} was seen before: the file system shows old data"
    )]
    WentBack { namespace: String, name: String, found: u64, known: u64 },
    #[error("the artifact {digest} has {found} bytes, {expected} were announced")]
    Length { digest: Digest, found: u64, expected: u64 },
    #[error("the artifact {digest} vanished again and again while it was being published")]
    Vanished { digest: Digest },
}

impl Error {
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { operation, path, source }
    }
}
