//! Public keys in PEM, as `cosign generate-key-pair` and `openssl pkey -pubout` write them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Digest as _, Sha512, Signature, VerifyingKey};
use ring::signature::{self as ring_signature, UnparsedPublicKey, VerificationAlgorithm};
use rustls_pki_types::pem::{self, PemObject as _, SectionKind};
use sha2::{Digest as _, Sha256};
use std::fmt;
use x509_cert::der::Decode as _;
use x509_cert::spki::{ObjectIdentifier, SubjectPublicKeyInfoRef};

/// A key with comments around it.
pub const MAX_FILE: u64 = 64 << 10;

/// RFC 5480, RFC 8017 and RFC 8410.
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

#[derive(Clone, Copy)]
enum Kind {
    P256,
    P384,
    Rsa,
    Ed25519,
}

impl Kind {
    /// Hashes that are tried: for P-384 cosign 3 signs with SHA-384, its predecessors and openssl's default with SHA-256.
    /// A signature is good for one of them only.
    fn algorithms(self) -> Vec<&'static dyn VerificationAlgorithm> {
        match self {
            Self::P256 => vec![&ring_signature::ECDSA_P256_SHA256_ASN1],
            Self::P384 => vec![&ring_signature::ECDSA_P384_SHA384_ASN1, &ring_signature::ECDSA_P384_SHA256_ASN1],
            Self::Rsa => vec![&ring_signature::RSA_PKCS1_2048_8192_SHA256],
            Self::Ed25519 => vec![&ring_signature::ED25519],
        }
    }
}

/// A public key.
#[derive(Clone)]
pub struct Key {
    kind: Kind,
    bytes: Vec<u8>,
    fingerprint: String,
}

/// Why a file is no key that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    #[error("no public key in PEM (-----BEGIN PUBLIC KEY-----)")]
    NoKey,
    #[error("{0} public keys in one file: give each in a file of its own")]
    Many(usize),
    #[error("it is a private key: give the public one (cosign public-key --key FILE, openssl pkey -pubout -in FILE)")]
    Private,
    #[error("it is a certificate: give its public key (openssl x509 -pubkey -noout -in FILE)")]
    Certificate,
    #[error("the PEM is damaged")]
    Pem,
    #[error("the key in it is damaged")]
    Der,
    #[error("keys of the algorithm {0} are not supported: P-256, P-384, RSA of 2048 bits and more, and Ed25519 are")]
    Algorithm(String),
    #[error("an RSA key of {0} bits is not secure: it needs 2048 at least, and 8192 at most")]
    RsaSize(usize),
}

impl Key {
    /// Reads the one public key of a PEM file.
    pub fn from_pem(text: &[u8]) -> Result<Self, InvalidKey> {
        let mut keys = Vec::new();
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text) {
            match section {
                Ok((SectionKind::PublicKey, der)) => keys.push(der),
                Ok((SectionKind::Certificate, _)) => return Err(InvalidKey::Certificate),
                Ok((SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey, _)) => {
                    return Err(InvalidKey::Private);
                }
                Ok(_) | Err(pem::Error::NoItemsFound) => {}
                Err(_) => return Err(InvalidKey::Pem),
            }
        }
        match keys.as_slice() {
            [der] => Self::from_spki(der),
            [] if contains(text, b"PRIVATE KEY-----") => Err(InvalidKey::Private),
            [] => Err(InvalidKey::NoKey),
            many => Err(InvalidKey::Many(many.len())),
        }
    }

    /// Reads a SubjectPublicKeyInfo (RFC 5280, 4.1.2.7).
    pub(crate) fn from_spki(der: &[u8]) -> Result<Self, InvalidKey> {
        let spki = SubjectPublicKeyInfoRef::from_der(der).map_err(|_| InvalidKey::Der)?;
        let bytes = spki.subject_public_key.as_bytes().ok_or(InvalidKey::Der)?.to_vec();
        let curve = || spki.algorithm.parameters.and_then(|any| any.decode_as::<ObjectIdentifier>().ok());
        let kind = match (spki.algorithm.oid, curve()) {
            (EC, Some(P256)) => Kind::P256,
            (EC, Some(P384)) => Kind::P384,
            (EC, Some(curve)) => return Err(InvalidKey::Algorithm(format!("EC on the curve {curve}"))),
            (RSA, _) => Kind::Rsa,
            (ED25519, _) => Kind::Ed25519,
            (other, _) => return Err(InvalidKey::Algorithm(other.to_string())),
        };
        check_length(kind, &bytes)?;
        let fingerprint = format!("SHA256:{}", STANDARD.encode(Sha256::digest(der)));
        Ok(Self { kind, bytes, fingerprint })
    }

    /// Whether the key made this signature of `message`.
    pub(crate) fn signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let mut algorithms = self.kind.algorithms().into_iter();
        algorithms.any(|algorithm| UnparsedPublicKey::new(algorithm, &self.bytes).verify(message, signature).is_ok())
            || (matches!(self.kind, Kind::Ed25519) && self.signed_prehashed(message, signature))
    }

    /// Ed25519ph without a context (RFC 8032, 5.1), which `cosign sign` makes; other programs make plain Ed25519. ring has
    /// only the latter. A signature is never good for both: Ed25519ph puts a prefix before what is hashed.
    fn signed_prehashed(&self, message: &[u8], signature: &[u8]) -> bool {
        let (Ok(bytes), Ok(signature)) = (self.bytes.as_slice().try_into(), Signature::from_slice(signature)) else {
            return false;
        };
        let hash = Sha512::new().chain_update(message);
        VerifyingKey::from_bytes(bytes).is_ok_and(|key| key.verify_prehashed_strict(hash, None, &signature).is_ok())
    }

    /// `SHA256:` and the base64 of the hash of the SubjectPublicKeyInfo: cosign's hint of a bundle's key.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

/// A key that could verify nothing is found here and not at the first signature.
fn check_length(kind: Kind, bytes: &[u8]) -> Result<(), InvalidKey> {
    match (kind, bytes) {
        // Uncompressed points (SEC 1, 2.3.3).
        (Kind::P256, [4, xy @ ..]) if xy.len() == 64 => Ok(()),
        (Kind::P384, [4, xy @ ..]) if xy.len() == 96 => Ok(()),
        (Kind::Ed25519, key) if key.len() == 32 => Ok(()),
        (Kind::Rsa, key) => match rsa_bits(key) {
            Some(2048..=8192) => Ok(()),
            Some(bits) => Err(InvalidKey::RsaSize(bits)),
            None => Err(InvalidKey::Der),
        },
        _ => Err(InvalidKey::Der),
    }
}

/// RSAPublicKey ::= SEQUENCE { modulus, publicExponent }
fn rsa_bits(der: &[u8]) -> Option<usize> {
    use x509_cert::der::asn1::{SequenceRef, UintRef};
    use x509_cert::der::{Reader as _, SliceReader};
    let sequence = <&SequenceRef>::from_der(der).ok()?;
    let mut reader = SliceReader::new(sequence.as_bytes()).ok()?;
    let modulus: UintRef<'_> = reader.decode().ok()?;
    let first = modulus.as_bytes().first()?;
    Some(modulus.as_bytes().len() * 8 - first.leading_zeros() as usize)
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Key").field(&self.fingerprint).finish()
    }
}
