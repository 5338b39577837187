//! Signatures in SIF files: what they are about, who made them, whether they hold.
//!
//! ```text
//! signature object   data type 0x4005, group none, link = the group (of the first versions: the object)
//!   extra            hash type i32 (1 SHA-256, 2 SHA-384, 3 SHA-512), fingerprint[20] of the key's primary key
//!   bytes            -----BEGIN PGP SIGNED MESSAGE----- … the text of [`metadata`] … -----END PGP SIGNATURE-----
//!                    or a DSSE envelope, by a key in PEM; the extra field has no fingerprint then
//!                    of the first versions: the text "SIFHASH:\n" and the hex digest of the object
//! ```
//! sylabs/sif `pkg/integrity/{sign,verify,select,clearsign}.go`. Times are arguments, keys come as values.

pub mod certificate;
mod digest;
mod dsse;
mod metadata;
mod objects;
pub mod pem;
pub mod pgp;
mod sign;
#[cfg(test)]
mod tests;
mod verify;

pub use sign::{Made, SigningKey, sign};
pub use verify::{Checked, Keys, Legacy, Report, verify};

/// Longest signature that is read: one about 4096 objects has 1 MB.
pub const MAX_SIGNATURE: u64 = 2 << 20;

/// What is signed or verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selected {
    Group(u32),
    Object(u32),
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Sif(#[from] siforge_sif::Error),
    #[error(transparent)]
    Edit(#[from] siforge_sif::edit::Error),
    #[error("read the data objects: {source}")]
    Read { source: std::io::Error },
    #[error("the SIF has no data object {id}")]
    NoObject { id: u32 },
    #[error("the SIF has no object group {group}")]
    NoGroup { group: u32 },
    #[error("the SIF has no object group: there is nothing to sign in it")]
    NoGroups,
    #[error("data object {id} belongs to no group: only objects of groups are signed")]
    Ungrouped { id: u32 },
    #[error("write the text to be signed: {source}")]
    Text { source: serde_json::Error },
    #[error("sign with the key {fingerprint}: {why}")]
    Key { fingerprint: String, why: String },
}

/// Why a signature does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    #[error("signature not found for object group {group}: it is not signed")]
    UnsignedGroup { group: u32 },
    #[error("signature not found for object {id}: it is not signed")]
    UnsignedObject { id: u32 },
    #[error("{why}")]
    Invalid { why: String },
    #[error("made by the key {key}, which is in none of the keyrings: import it, or take it from a key server")]
    UnknownKey { key: String },
    #[error("header integrity compromised: it is not what was signed")]
    Header,
    #[error("data object descriptor integrity compromised: {id}")]
    Descriptor { id: u32 },
    #[error("data object integrity compromised: {id}")]
    Object { id: u32 },
    #[error("object {id}: object not signed: it came into the group after the signature")]
    Uncovered { id: u32 },
    #[error("object {id} belongs to no group: no signature is about it")]
    Ungrouped { id: u32 },
    #[error("signed object not found: the one with the number {relative_id} in its group is gone")]
    Gone { relative_id: u32 },
}

/// How a flaw is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Unsigned,
    UnknownKey,
    BadSignature,
    Tampered,
}

impl Flaw {
    pub fn kind(&self) -> Kind {
        match self {
            Self::UnsignedGroup { .. } | Self::UnsignedObject { .. } => Kind::Unsigned,
            Self::UnknownKey { .. } => Kind::UnknownKey,
            Self::Invalid { .. } => Kind::BadSignature,
            Self::Header
            | Self::Descriptor { .. }
            | Self::Object { .. }
            | Self::Uncovered { .. }
            | Self::Ungrouped { .. }
            | Self::Gone { .. } => Kind::Tampered,
        }
    }
}
