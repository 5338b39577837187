//! Reference → platform manifest → verified blobs, from OCI and Docker registries.
//!
//! ```text
//!   ImageRef ─ resolve ─▶ GET /v2/                       which authentication the registry wants
//!                         GET the token's realm          anonymous, or with the credentials
//!                         GET /v2/<repository>/manifests/<tag|digest>
//!                               index? the platform's entry, at most 3 levels deep
//!                         GET /v2/<repository>/blobs/<config>
//!                         ▼
//!                     Resolved { layers, config, … }      every byte of it hash-checked
//!   Layer    ─ fetch ──▶ GET /v2/<repository>/blobs/<layer>   resumed by Range where it broke
//!                         ▼
//!                     Download: a file; plain threads read behind its written watermark and meet the end only
//!                               when size and SHA-256 are those of the layer
//! ```
//!
//! Protocol: OCI distribution spec 1.1; authentication: distribution's `docs/spec/auth/token.md`;
//! formats: OCI image spec 1.1 and Docker's image manifest version 2, schema 2.
//!
//! What a registry sends is bounded (manifest, config, number of layers, redirects, error texts), and credentials go to
//! the registry that the [`Client`] is for and to the token realm which that registry names, nowhere else.

mod answer;
mod attached;
mod auth;
mod auth_file;
mod blob;
mod certs;
mod challenge;
mod client;
pub mod daemon;
mod download;
mod error;
pub mod hkp;
pub mod http_sif;
mod keyring;
pub mod local;
mod manifest;
mod media;
mod operation;
mod oras;
mod platform;
mod proxy;
mod registries;
mod retry;
mod secret;
mod tls;
mod transport;
mod vouch;

/// Text of others for people: one line without control characters, at most 300 characters of it.
pub fn one_line(text: &str) -> String {
    answer::one_line(text, &[])
}

pub use attached::{Attached, Content, Wanted};
pub use auth_file::{AuthFile, InvalidAuthFile, Listed, login_key, with_login, without_login};
pub use certs::{CertsError, Identity, add_certs};
pub use client::{Client, Document, Endpoint, Layer, Resolved};
pub use download::{Download, Make, Reader};
pub use error::{Error, Kind, Missing, Reaction};
pub use keyring::{Chosen, Keyring, KeyringError, Place, read_file};
pub use media::Compression;
pub use operation::Operation;
pub use platform::{InvalidPlatform, Platform};
pub use proxy::Proxies;
pub use registries::{Location, Registries, RegistriesError};
pub use secret::{Credentials, Secret};
pub use tls::Tls;
