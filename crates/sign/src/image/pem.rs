//! Private keys in PEM: PKCS #8, PKCS #1 (RSA) and SEC 1 (EC), as `openssl genpkey|genrsa|ecparam` write them.
//!
//! What they sign with is what the reference's verifier takes (sigstore `signature.LoadVerifier` with SHA-256): ECDSA on P-256
//! with SHA-256, RSA PKCS #1 v1.5 with SHA-256, Ed25519.

use crate::cosign::{InvalidKey, Key};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::RsaPublicKeyComponents;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use rustls_pki_types::pem::{self, PemObject as _, SectionKind};
use sha2::{Digest as _, Sha256};
use x509_cert::der::asn1::{AnyRef, BitStringRef, OctetStringRef};
use x509_cert::der::{Encode as _, Tag};
use x509_cert::spki::{AlgorithmIdentifierRef, ObjectIdentifier, SubjectPublicKeyInfoRef};
use zeroize::Zeroizing;

const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// Why a file is no private key that signs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSecretKey {
    #[error("no private key in PEM (-----BEGIN PRIVATE KEY-----)")]
    NoKey,
    #[error("{0} private keys in one file: give each in a file of its own")]
    Many(usize),
    #[error("the PEM is damaged")]
    Pem,
    #[error("it is locked by a passphrase: openssl pkey -in FILE -out OTHER writes it unlocked")]
    Locked,
    #[error(
        "the key is damaged, or of an algorithm that does not sign here: P-256, RSA of 2048 to 4096 bits and Ed25519 do"
    )]
    Key,
    #[error("its public key: {0}")]
    Public(#[from] InvalidKey),
}

/// A key that signs.
pub struct SecretPem {
    pair: Pair,
    public: Key,
}

enum Pair {
    P256(EcdsaKeyPair),
    Rsa(RsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl std::fmt::Debug for SecretPem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SecretPem").field(&self.public.fingerprint()).finish()
    }
}

impl SecretPem {
    /// Reads the one private key of a PEM file.
    pub fn from_pem(text: &[u8]) -> Result<Self, InvalidSecretKey> {
        let mut keys = Vec::new();
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text) {
            match section {
                Ok((
                    kind @ (SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey),
                    der,
                )) => {
                    keys.push((kind, Zeroizing::new(der)));
                }
                Ok(_) | Err(pem::Error::NoItemsFound) => {}
                Err(_) => return Err(InvalidSecretKey::Pem),
            }
        }
        let has = |words: &[u8]| text.windows(words.len()).any(|window| window == words);
        match &*keys {
            _ if has(b"ENCRYPTED") && has(b"PRIVATE KEY") => Err(InvalidSecretKey::Locked),
            [] => Err(InvalidSecretKey::NoKey),
            [(kind, der)] => Self::of(pair(kind, der).ok_or(InvalidSecretKey::Key)?),
            many => Err(InvalidSecretKey::Many(many.len())),
        }
    }

    fn of(pair: Pair) -> Result<Self, InvalidSecretKey> {
        let der = match &pair {
            Pair::P256(pair) => spki(EC, Some(AnyRef::from(&P256)), pair.public_key().as_ref()),
            Pair::Rsa(pair) => spki(RSA, Some(AnyRef::NULL), pair.public_key().as_ref()),
            Pair::Ed25519(pair) => spki(ED25519, None, pair.public_key().as_ref()),
        };
        let public = Key::from_spki(&der.ok_or(InvalidSecretKey::Key)?)?;
        Ok(Self { pair, public })
    }

    pub fn public(&self) -> &Key {
        &self.public
    }

    /// What the envelope names the key by: the fingerprint of it as an SSH key, without padding (go-securesystemslib
    /// `dsse.SHA256KeyID`). A verifier passes over signatures of other names.
    pub(super) fn id(&self) -> String {
        let key = match &self.pair {
            Pair::P256(pair) => ssh(&[b"ecdsa-sha2-nistp256", b"nistp256", pair.public_key().as_ref()]),
            Pair::Ed25519(pair) => ssh(&[b"ssh-ed25519", pair.public_key().as_ref()]),
            Pair::Rsa(pair) => {
                let RsaPublicKeyComponents { n, e } = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public());
                ssh(&[b"ssh-rsa", &positive(e), &positive(n)])
            }
        };
        format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::digest(key)))
    }

    /// None if there is no randomness, or the key does not fit together.
    pub(super) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        let signature = match &self.pair {
            Pair::P256(pair) => pair.sign(&random, message).ok()?.as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).ok()?;
                signature
            }
        };
        Some(signature).filter(|signature| self.public.signed(message, signature))
    }
}

/// Strings of RFC 4251, section 5: each with its length before it.
fn ssh(parts: &[&[u8]]) -> Vec<u8> {
    parts.iter().flat_map(|part| [&(part.len() as u32).to_be_bytes()[..], part].concat()).collect()
}

/// An mpint of RFC 4251: the first bit is the sign.
fn positive(mut number: Vec<u8>) -> Vec<u8> {
    if number.first().is_some_and(|first| first & 0x80 != 0) {
        number.insert(0, 0);
    }
    number
}

fn pair(kind: &SectionKind, der: &[u8]) -> Option<Pair> {
    let random = SystemRandom::new();
    let p256 =
        |der: &[u8]| EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der, &random).ok().map(Pair::P256);
    match kind {
        SectionKind::RsaPrivateKey => RsaKeyPair::from_der(der).ok().map(Pair::Rsa),
        SectionKind::EcPrivateKey => p256(&wrapped(der)?),
        _ => p256(der)
            .or_else(|| RsaKeyPair::from_pkcs8(der).ok().map(Pair::Rsa))
            .or_else(|| Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok().map(Pair::Ed25519)),
    }
}

/// SEC 1's key as PKCS #8 has it (RFC 5958, 2): SEQUENCE { version, algorithm, OCTET STRING of the key }.
fn wrapped(sec1: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let algorithm = AlgorithmIdentifierRef { oid: EC, parameters: Some(AnyRef::from(&P256)) };
    let version = 0u8.to_der().ok()?;
    let key = Zeroizing::new(OctetStringRef::new(sec1).ok()?.to_der().ok()?);
    let content = Zeroizing::new([version, algorithm.to_der().ok()?, key.to_vec()].concat());
    AnyRef::new(Tag::Sequence, &content).ok()?.to_der().ok().map(Zeroizing::new)
}

fn spki(oid: ObjectIdentifier, parameters: Option<AnyRef<'_>>, key: &[u8]) -> Option<Vec<u8>> {
    let algorithm = AlgorithmIdentifierRef { oid, parameters };
    let key = BitStringRef::from_bytes(key).ok()?;
    SubjectPublicKeyInfoRef { algorithm, subject_public_key: key }.to_der().ok()
}
