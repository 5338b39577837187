//! Digests as signatures write them: `sha256:` and lower-case hex (sylabs/sif `pkg/integrity/digest.go`).

use super::Error;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use siforge_sif::Sif;
use std::os::unix::fs::FileExt;

/// Bytes that are read and hashed at once: large enough for a parallel file system, small enough for a cache.
const CHUNK: u64 = 1 << 20;

macro_rules! algorithms {
    ($($variant:ident $name:literal $len:literal;)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub(super) enum Algorithm { $(#[doc = $name] $variant,)* }

        impl Algorithm {
            fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)* _ => None }
            }
            fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
            /// Bytes of a value.
            fn len(self) -> usize {
                match self { $(Self::$variant => $len,)* }
            }
            /// Hashes the parts (offset, length) of the file one after the other.
            pub(super) fn of_file(self, sif: &Sif, parts: &[(u64, u64)]) -> Result<Digest, Error> {
                let value = match self { $(Self::$variant => feed::<sha2::$variant>(sif, parts)?,)* };
                Ok(Digest { algorithm: self, value })
            }
            pub(super) fn of_bytes(self, bytes: &[u8]) -> Digest {
                use sha2::Digest as _;
                let value = match self { $(Self::$variant => sha2::$variant::digest(bytes).to_vec(),)* };
                Digest { algorithm: self, value }
            }
        }
    };
}

algorithms! {
    Sha224 "sha224" 28;
    Sha256 "sha256" 32;
    Sha384 "sha384" 48;
    Sha512 "sha512" 64;
    Sha512_224 "sha512_224" 28;
    Sha512_256 "sha512_256" 32;
}

fn feed<H: sha2::Digest>(sif: &Sif, parts: &[(u64, u64)]) -> Result<Vec<u8>, Error> {
    let mut hasher = H::new();
    let mut buffer = vec![0; CHUNK as usize];
    for &(offset, len) in parts {
        let mut done = 0;
        while done < len {
            let n = (len - done).min(CHUNK) as usize;
            // Read, not mapped: whoever shortens the file meanwhile gets an error and not a signal.
            sif.file().read_exact_at(&mut buffer[..n], offset + done).map_err(|source| Error::Read { source })?;
            hasher.update(&buffer[..n]);
            done += n as u64;
        }
    }
    Ok(hasher.finalize().to_vec())
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Digest {
    pub(super) algorithm: Algorithm,
    value: Vec<u8>,
}

impl Digest {
    pub(super) fn new(algorithm: Algorithm, hex: &str) -> Option<Self> {
        let value = from_hex(hex).filter(|value| value.len() == algorithm.len())?;
        Some(Self { algorithm, value })
    }

    fn parse(text: &str) -> Option<Self> {
        let (name, hex) = text.split_once(':')?;
        Self::new(Algorithm::from_name(name)?, hex)
    }
}

pub(super) fn from_hex(hex: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

pub(super) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}:{}", self.algorithm.name(), to_hex(&self.value)))
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom(format!("{text:?} is not a SHA-2 digest")))
    }
}
