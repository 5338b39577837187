//! `sif://namespace/name[@digest]`: an image in the store.

use crate::{Digest, ParseError};
use std::fmt;
use std::str::FromStr;

/// Bytes of a namespace: a DNS label (RFC 1123), as Kubernetes demands.
const MAX_NAMESPACE: usize = 63;
/// Bytes of a name: a DNS subdomain (RFC 1123), as Kubernetes demands of object names.
const MAX_NAME: usize = 253;

/// An image in the store. `Display` prints `sif://namespace/name[@digest]`; `FromStr` takes it with or without
/// `sif://`, always with the namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StoreRef {
    pub namespace: String,
    pub name: String,
    pub digest: Option<Digest>,
}

impl StoreRef {
    /// Checked parts: a namespace is a DNS label, a name a DNS subdomain.
    pub fn new(namespace: &str, name: &str, digest: Option<Digest>) -> Result<Self, ParseError> {
        let valid = namespace.len() <= MAX_NAMESPACE
            && is_label(namespace)
            && name.len() <= MAX_NAME
            && name.split('.').all(is_label);
        match valid {
            true => Ok(Self { namespace: namespace.to_owned(), name: name.to_owned(), digest }),
            false => Err(ParseError::Store { value: format!("{namespace}/{name}") }),
        }
    }
}

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let alnum = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    bytes.first().is_some_and(alnum) && bytes.last().is_some_and(alnum) && bytes.iter().all(|b| alnum(b) || *b == b'-')
}

impl FromStr for StoreRef {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let invalid = || ParseError::Store { value: text.to_owned() };
        let plain = text.strip_prefix("sif://").unwrap_or(text);
        let (path, digest) = match plain.split_once('@') {
            Some((path, digest)) => (path, Some(digest.parse()?)),
            None => (plain, None),
        };
        let (namespace, name) = path.split_once('/').ok_or_else(invalid)?;
        Self::new(namespace, name, digest).map_err(|_| invalid())
    }
}

impl fmt::Display for StoreRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sif://{}/{}", self.namespace, self.name)?;
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}
