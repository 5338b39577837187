//! Which names a path of the store holds. Pure.
//!
//! Namespaces are Kubernetes' DNS labels (RFC 1123), image names its DNS subdomains: no slash, no leading dot, so a name is
//! always one plain path component. Node names are subdomains too.

use crate::Error;

/// Longest image or node name in bytes (Kubernetes' limit for object names; a path component holds 255).
pub const NAME_MAX: usize = 253;
/// Longest namespace in bytes.
pub const NAMESPACE_MAX: usize = 63;

/// A namespace: a DNS label.
pub fn check_namespace(value: &str) -> Result<(), Error> {
    if is_label(value) {
        return Ok(());
    }
    let rule = "want 1 to 63 of a-z, 0-9 and '-', with a letter or digit at both ends";
    Err(Error::Name { what: "namespace", value: value.to_owned(), rule })
}

/// An image's name: a DNS subdomain.
pub fn check_name(value: &str) -> Result<(), Error> {
    check_subdomain("image name", value)
}

/// A node's name: a DNS subdomain.
pub fn check_node(value: &str) -> Result<(), Error> {
    check_subdomain("node name", value)
}

fn check_subdomain(what: &'static str, value: &str) -> Result<(), Error> {
    if value.len() <= NAME_MAX && value.split('.').all(is_subdomain_part) {
        return Ok(());
    }
    let rule = "want at most 253 of a-z, 0-9, '-' and '.', with a letter or digit at both ends of each part";
    Err(Error::Name { what, value: value.to_owned(), rule })
}

fn is_label(text: &str) -> bool {
    text.len() <= NAMESPACE_MAX && is_subdomain_part(text)
}

/// Like a label, but as long as the whole name allows: Kubernetes bounds the name, not its parts.
fn is_subdomain_part(text: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let bytes = text.as_bytes();
    let inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(inner)
}
