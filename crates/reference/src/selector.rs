//! Which image of a layout or an archive.

use crate::Digest;
use std::fmt;

/// What stands behind the path of `oci:`, `oci-archive:` and `docker-archive:`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Selector {
    /// `:name`: a name of the source's own index (`latest`, `busybox:1.36`, `docker.io/library/busybox:1.36`).
    Name(String),
    /// `:@n`: the nth image, from 0, as in containers/image.
    Index(u32),
    /// `@sha256:…`: a manifest.
    Digest(Digest),
}

impl Selector {
    /// Splits `path[:name | :@n | @sha256:…]`: the first colon ends the path, as in containers/image, but for the one in
    /// a digest. None: an empty name, or an `@` that no number follows.
    pub(crate) fn split(text: &str) -> Option<(&str, Option<Self>)> {
        match text.split_once(':') {
            None => Some((text, None)),
            Some((path, rest)) => match (path.strip_suffix("@sha256"), Digest::from_hex(rest)) {
                (Some(path), Ok(digest)) => Some((path, Some(Self::Digest(digest)))),
                _ => Self::after_colon(rest).map(|selector| (path, Some(selector))),
            },
        }
    }

    fn after_colon(text: &str) -> Option<Self> {
        match text.strip_prefix('@') {
            Some(number) => number.parse().ok().map(Self::Index),
            None => (!text.is_empty()).then(|| Self::Name(text.to_owned())),
        }
    }
}

/// With what separates it from the path.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, ":{name}"),
            Self::Index(number) => write!(f, ":@{number}"),
            Self::Digest(digest) => write!(f, "@{digest}"),
        }
    }
}
