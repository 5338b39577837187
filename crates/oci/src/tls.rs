//! Which registries are trusted: system roots, a bundle of one's own, or (asked for by name) none.

use crate::Error;

/// How to reach one registry. The default is HTTPS with the system's roots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Speak HTTP without TLS to the registry.
    pub plain_http: bool,
    /// Accept any certificate.
    pub insecure_skip_verify: bool,
    /// PEM bundle, in addition to the system's roots.
    pub ca_bundle: Option<Vec<u8>>,
}
