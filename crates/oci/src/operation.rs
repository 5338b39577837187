//! What was being done: the first words of each error.

use siforge_reference::ImageRef;
use std::fmt;

/// A request to a registry, as the errors name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `pinging container registry HOST: Get "https://HOST/v2/"`
    Ping { registry: String, url: String },
    /// `logging in to HOST`
    Login { registry: String },
    /// `getting a token for HOST/REPO from REALM`
    Token { name: String, realm: String },
    /// `reading manifest latest in HOST/REPO`
    Manifest { selector: String, name: String },
    /// `reading the tags of HOST/REPO`
    Tags { name: String },
    /// `reading the referrers of sha256:… in HOST/REPO`
    Referrers { digest: String, name: String },
    /// `reading config sha256:… of HOST/REPO`
    Config { digest: String, name: String },
    /// `reading blob sha256:… of HOST/REPO`
    Blob { digest: String, name: String },
    /// `pushing sha256:… to HOST/REPO`
    Push { what: String, name: String },
    /// `downloading https://HOST/PATH`
    Download { url: String },
    /// `reading the key … from the key server URL`
    Key { what: String, server: String },
    /// `giving a key to the key server URL`
    GiveKey { server: String },
    /// `reading foreign layer sha256:… of HOST/REPO from URL`
    Foreign { blob: String, url: String },
}

impl Operation {
    pub(crate) fn manifest(reference: &ImageRef) -> Self {
        Self::Manifest { selector: reference.selector(), name: name(reference) }
    }
}

/// `HOST/REPO`
pub(crate) fn name(reference: &ImageRef) -> String {
    format!("{}/{}", reference.registry, reference.repository)
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Push { what, name } => write!(f, "pushing {what} to {name}"),
            Self::Download { url } => write!(f, "downloading {url}"),
            Self::Key { what, server } => write!(f, "reading the {what} from the key server {server}"),
            Self::GiveKey { server } => write!(f, "giving a key to the key server {server}"),
            Self::Ping { registry, url } => {
                write!(f, "pinging container registry {registry}: Get \"{url}\"")
            }
            Self::Login { registry } => write!(f, "logging in to {registry}"),
            Self::Token { name, realm } => write!(f, "getting a token for {name} from {realm}"),
            Self::Manifest { selector, name } => write!(f, "reading manifest {selector} in {name}"),
            Self::Tags { name } => write!(f, "reading the tags of {name}"),
            Self::Referrers { digest, name } => write!(f, "reading the referrers of {digest} in {name}"),
            Self::Config { digest, name } => write!(f, "reading config {digest} of {name}"),
            Self::Foreign { blob, url } => write!(f, "reading foreign layer {blob} from {url}"),
            Self::Blob { digest, name } => write!(f, "reading blob {digest} of {name}"),
        }
    }
}
