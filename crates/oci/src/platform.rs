//! Operating system and CPU of an image, and the choice from an index.

use serde::Deserialize;
use std::fmt;
use std::str::FromStr;

/// `os/architecture[/variant]` in Go's words (`linux/amd64`, `linux/arm/v7`), as indexes and image configs hold them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
pub struct Platform {
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub variant: Option<String>,
}

impl Platform {
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        Self {
            os: os.to_owned(),
            architecture: go_architecture(architecture).to_owned(),
            variant: variant.map(str::to_owned),
        }
    }

    /// Linux on the CPU that this program was compiled for.
    pub fn host() -> Self {
        Self::new("linux", std::env::consts::ARCH, None)
    }

    /// How well an image for `self` serves a request for `wanted`; higher is better, `None` is not at all.
    ///
    /// Without a wanted variant the one that all CPUs of the architecture run is best, and any other serves too (as
    /// containerd does for arm: the newest). With one, an entry without a variant serves when it is the default.
    pub(crate) fn rank(&self, wanted: &Self) -> Option<u8> {
        let architecture = go_architecture(&self.architecture);
        if self.os != wanted.os || architecture != go_architecture(&wanted.architecture) {
            return None;
        }
        let variant = |variant: &Option<String>| match variant.as_deref() {
            None | Some("") => default_variant(architecture).to_owned(),
            Some(variant) => variant.to_owned(),
        };
        let (have, want) = (variant(&self.variant), variant(&wanted.variant));
        match have == want {
            true => Some(2),
            false if wanted.variant.as_deref().unwrap_or_default().is_empty() => Some(1),
            false => None,
        }
    }
}

/// The variant that no variant means (containerd `platforms/database.go`).
fn default_variant(architecture: &str) -> &'static str {
    match architecture {
        "arm64" => "v8",
        "arm" => "v7",
        "amd64" => "v1",
        _ => "",
    }
}

/// Go's name of an architecture that may be given in the kernel's or Rust's words.
fn go_architecture(name: &str) -> &str {
    match name {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" | "i386" | "i686" => "386",
        "powerpc64le" => "ppc64le",
        "loongarch64" => "loong64",
        name => name,
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match self.variant.as_deref() {
            None | Some("") => Ok(()),
            Some(variant) => write!(f, "/{variant}"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid platform {value:?}: expected os/architecture[/variant], such as linux/amd64")]
pub struct InvalidPlatform {
    value: String,
}

impl FromStr for Platform {
    type Err = InvalidPlatform;

    fn from_str(text: &str) -> Result<Self, InvalidPlatform> {
        let parts: Vec<_> = text.split('/').collect();
        let word = |part: &&str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        };
        match (parts.as_slice(), parts.iter().all(word)) {
            ([os, architecture], true) => Ok(Self::new(os, architecture, None)),
            ([os, architecture, variant], true) => Ok(Self::new(os, architecture, Some(variant))),
            _ => Err(InvalidPlatform { value: text.to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks() {
        let check = |have: &str, wanted: &str, expect: Option<u8>| {
            let platform = |text: &str| text.parse::<Platform>().expect(text);
            assert_eq!(platform(have).rank(&platform(wanted)), expect, "{have} for {wanted}");
        };
        check("linux/amd64", "linux/amd64", Some(2));
        check("linux/amd64", "linux/x86_64", Some(2));
        check("linux/amd64/v1", "linux/amd64", Some(2));
        check("linux/amd64/v3", "linux/amd64", Some(1));
        check("linux/amd64", "linux/amd64/v3", None);
        check("linux/arm64", "linux/arm64/v8", Some(2));
        check("linux/aarch64/v8", "linux/arm64", Some(2));
        check("linux/arm/v6", "linux/arm", Some(1));
        check("linux/arm/v7", "linux/arm", Some(2));
        check("linux/arm/v7", "linux/arm/v6", None);
        check("windows/amd64", "linux/amd64", None);
        check("linux/386", "linux/amd64", None);
        check("unknown/unknown", "linux/amd64", None);
    }

    #[test]
    fn texts() {
        for text in ["linux/amd64", "linux/arm/v7"] {
            assert_eq!(text.parse::<Platform>().expect(text).to_string(), text);
        }
        for text in ["", "linux", "linux/", "/amd64", "a/b/c/d", "linux/amd 64"] {
            assert!(text.parse::<Platform>().is_err(), "{text:?}");
        }
    }
}
