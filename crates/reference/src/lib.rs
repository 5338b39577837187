//! Image references: the one grammar that the CLI, Slurm, the API and annotations share. Pure.

use std::path::PathBuf;

/// A content digest `algorithm:hex`. Only `sha256` with 64 lower-case hex digits is accepted.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    pub fn from_bytes(bytes: [u8; 32]) -> Self { Self(bytes) }
    pub fn bytes(&self) -> &[u8; 32] { &self.0 }
    /// 64 lower-case hex digits.
    pub fn hex(&self) -> String { todo!() }
}
// also: Display ("sha256:<hex>"), Debug (same), FromStr, serde Serialize/Deserialize as the string.

/// `registry/repository[:tag][@digest]`, normalised: Docker Hub short names are completed
/// (`lolcow` → `docker.io/library/lolcow`), the tag defaults to `latest` when there is no digest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ImageRef {
    /// Host[:port] as the user means it (`docker.io`, `127.0.0.1:5000`).
    pub registry: String,
    pub repository: String,
    pub tag: Option<String>,
    pub digest: Option<Digest>,
}

/// `sif://<namespace>/<name>[@digest]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StoreRef {
    pub namespace: String,
    pub name: String,
    pub digest: Option<Digest>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    Docker(ImageRef),
    Oras(ImageRef),
    Store(StoreRef),
    /// A path to a .sif file or a directory.
    Path(PathBuf),
    OciLayout { path: PathBuf, selector: Option<String> },
    OciArchive { path: PathBuf, selector: Option<String> },
    DockerArchive { path: PathBuf, selector: Option<String> },
    DockerDaemon(String),
}
