//! `registry/repository[:tag][@digest]`: Docker's image names.
//!
//! The grammar and the normalisation are those of `github.com/distribution/reference` (`reference.go`,
//! `normalize.go`), which Docker, containerd, skopeo, Apptainer and Kubernetes use:
//!
//! ```text
//!   reference      := name [":" tag] ["@" digest]
//!   name           := [domain "/"] component *("/" component)
//!   domain         := host [":" digits]
//!   host           := label *("." label) | "[" IPv6 "]"
//!   label          := alnum | alnum *(alnum | "-") alnum
//!   component      := lower-alnum+ *(separator lower-alnum+)
//!   separator      := "." | "_" | "__" | "-"+
//!   tag            := word *127(word | "." | "-")             word: letters, digits, "_"
//!
//!   lolcow                → docker.io/library/lolcow:latest
//!   godlovedc/lolcow      → docker.io/godlovedc/lolcow:latest
//!   localhost/lolcow      → localhost/lolcow:latest           "localhost", or a "." or ":", makes a domain
//!   127.0.0.1:5000/x      → 127.0.0.1:5000/x:latest
//!   index.docker.io/x     → docker.io/library/x:latest        the old name of Docker Hub
//!   x@sha256:…            → docker.io/library/x@sha256:…      no tag is added to a digest
//! ```
//!
//! One restriction: a digest must be `sha256`.

use crate::{Digest, ParseError};
use std::fmt;
use std::str::FromStr;

/// Bytes of a repository (without the registry), as in `distribution/reference`.
pub(crate) const MAX_REPOSITORY: usize = 255;
const MAX_TAG: usize = 128;

const HUB: &str = "docker.io";
const OLD_HUB: &str = "index.docker.io";
const OFFICIAL: &str = "library/";

/// An image name, normalised: Docker Hub's short names are complete (`lolcow` → `docker.io/library/lolcow`), and the
/// tag is `latest` when neither tag nor digest was given.
///
/// `Display` prints the full form `registry/repository[:tag][@digest]`, which parses to the same value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageRef {
    /// Host[:port] as the user means it (`docker.io`, `127.0.0.1:5000`, `[::1]:5000`).
    pub registry: String,
    /// Path in the registry (`library/lolcow`).
    pub repository: String,
    pub tag: Option<String>,
    /// When there is one, it decides; the tag is then only for the reader.
    pub digest: Option<Digest>,
}

impl ImageRef {
    /// The short name without tag and digest, as Docker prints it and definition files carry it: Docker Hub's
    /// registry and its `library/` are left out (`lolcow`, `godlovedc/lolcow`, `127.0.0.1:5000/tiny`).
    pub fn canonical(&self) -> String {
        let official = self.repository.strip_prefix(OFFICIAL);
        // Shortened, `docker.io/library/a/b` would mean another repository, `docker.io/host.com/a` another registry.
        let short = official.into_iter().chain([self.repository.as_str()]);
        short
            .filter(|_| self.registry == HUB)
            .find(|short| split_domain(short) == (HUB, self.repository.clone()))
            .map_or_else(|| format!("{}/{}", self.registry, self.repository), str::to_owned)
    }

    /// `name[:tag][@digest]` with the name as [`canonical`](Self::canonical) gives it.
    pub fn familiar(&self) -> String {
        format!("{}{}", self.canonical(), Suffix(self))
    }

    /// The same repository at `digest`, without a tag.
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// The tag or digest that names the manifest to a registry: the digest when there is one.
    pub fn selector(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            // The parser never makes this; a caller who fills the fields by hand means the default.
            (None, None) => "latest".to_owned(),
        }
    }

    /// The name that `pull` gives its file: `tiny_latest.sif`, `tiny@sha256_<hex>.sif`.
    pub fn sif_file_name(&self) -> String {
        let name = self.repository.rsplit('/').next().unwrap_or(&self.repository);
        format!("{name}{}.sif", Suffix(self)).replace(':', "_")
    }
}

/// `[:tag][@digest]`
struct Suffix<'a>(&'a ImageRef);

impl fmt::Display for Suffix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(tag) = &self.0.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.0.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.registry, self.repository, Suffix(self))
    }
}

impl FromStr for ImageRef {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if text.is_empty() {
            return Err(ParseError::Empty);
        }
        if text.len() > crate::parse::MAX_REFERENCE {
            return Err(ParseError::TooLong { length: text.len() });
        }
        if text.len() == 64 && Digest::from_hex(text).is_ok() {
            return Err(ParseError::Identifier { value: text.to_owned() });
        }
        let (registry, remainder) = split_domain(text);
        let repository = remainder.split([':', '@']).next().unwrap_or_default();
        if repository.chars().any(char::is_uppercase) {
            return Err(ParseError::Uppercase { value: text.to_owned(), repository: repository.to_owned() });
        }

        let invalid = || ParseError::Image { value: text.to_owned() };
        let (named, digest) = match remainder.split_once('@') {
            Some((named, digest)) => (named, Some(digest.parse::<Digest>()?)),
            None => (remainder.as_str(), None),
        };
        let (repository, tag) = match named.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (named, None),
        };
        if !is_domain(registry) || !repository.split('/').all(is_component) || !tag.is_none_or(is_tag) {
            return Err(invalid());
        }
        if repository.len() > MAX_REPOSITORY {
            return Err(ParseError::RepositoryTooLong { repository: repository.to_owned() });
        }
        let tag = match (tag, digest) {
            (None, None) => Some("latest"),
            (tag, _) => tag,
        };
        Ok(Self {
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            tag: tag.map(str::to_owned),
            digest,
        })
    }
}

/// Registry and the rest, completed: `splitDockerDomain` of `normalize.go`.
fn split_domain(text: &str) -> (&str, String) {
    let (registry, rest) = match text.split_once('/') {
        None => (HUB, text),
        Some((OLD_HUB, rest)) => (HUB, rest),
        // An upper-case first part cannot be a repository's, so it must be a host.
        Some((first, rest))
            if first == "localhost" || first.contains(['.', ':']) || first.chars().any(char::is_uppercase) =>
        {
            (first, rest)
        }
        Some(_) => (HUB, text),
    };
    match registry == HUB && !rest.contains('/') {
        true => (registry, format!("{OFFICIAL}{rest}")),
        false => (registry, rest.to_owned()),
    }
}

fn is_domain(text: &str) -> bool {
    let (host, port) = match text.rfind(']') {
        Some(end) => (&text[..=end], &text[end + 1..]),
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let port_is_valid = match port.strip_prefix(':') {
        Some(digits) => !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()),
        None => port.is_empty(),
    };
    let host_is_valid = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':'),
        None => host.split('.').all(is_label),
    };
    host_is_valid && port_is_valid
}

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let alnum = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    alnum(bytes.first()) && alnum(bytes.last()) && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
}

/// A path component: runs of lower-case letters and digits with one separator (`.`, `_`, `__`, any number of `-`)
/// between each two.
fn is_component(text: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    if !bytes.first().copied().is_some_and(is_word) || !bytes.last().copied().is_some_and(is_word) {
        return false;
    }
    bytes
        .split(|b| is_word(*b))
        .filter(|separator| !separator.is_empty())
        .all(|separator| matches!(separator, b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-'))
}

fn is_tag(text: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = text.as_bytes();
    bytes.len() <= MAX_TAG
        && bytes.first().copied().is_some_and(is_word)
        && bytes.iter().all(|b| is_word(*b) || matches!(b, b'.' | b'-'))
}
