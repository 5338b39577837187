//! PGP (RFC 9580, RFC 4880): keyrings as files of keys one after the other, clear-signed messages.
//!
//! ```text
//! -----BEGIN PGP SIGNED MESSAGE-----
//! Hash: SHA256
//!
//! the text
//! -----BEGIN PGP SIGNATURE-----
//!
//! base64 of a signature packet by a primary key, or by a subkey for signing that the primary key is bound to
//! -----END PGP SIGNATURE-----
//! ```
//! What counts is what the reference lets count (ProtonMail/go-crypto `openpgp/read.go`, `CheckDetachedSignatureAndHash`): a hash
//! of SHA-2, a key that certifies itself, may sign, is not revoked and has not expired, a signature that has not expired.

pub mod manage;

use super::digest::to_hex;
use super::{Error, Flaw};
use pgp::composed::{ArmorOptions, CleartextSignedMessage, Deserializable, SignedPublicKey, SignedSecretKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureConfig, SignatureType, Subpacket, SubpacketData};
use pgp::types::{KeyDetails, Password, Tag, Timestamp, VerifyingKey};
use zeroize::Zeroizing;

/// Most bytes of a keyring: some thousand keys with their certifications.
pub const MAX_KEYRING: u64 = 64 << 20;
/// Most keys that are looked for in it; what is no key counts too, so that no rubbish keeps the reader busy.
const MAX_KEYS: usize = 100_000;
const ARMOR: &[u8] = b"-----BEGIN PGP";

/// What is no secret of a key, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// Name and address, as the key's owner wrote them; control characters are escaped.
    pub name: Option<String>,
    /// Of a PGP primary key: lower-case hex; of a key in PEM: `SHA256:…`, as cosign shows it.
    pub fingerprint: String,
    /// Unix seconds, as the signature says; one by a key in PEM does not.
    pub created: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKeyring {
    #[error("no PGP key in it: {why}")]
    NoKey { why: String },
}

/// A passphrase; empty for a key that has none.
pub struct Passphrase(Zeroizing<String>);

impl Passphrase {
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

/// Reads keys from packets or armor; those of other kinds or versions are passed over, and counted.
fn keys<K: Deserializable>(bytes: &[u8]) -> Result<(Vec<K>, usize), InvalidKeyring> {
    let no_key = |why: &pgp::errors::Error| InvalidKeyring::NoKey { why: why.to_string() };
    let (mut keys, mut wrong, mut unreadable) = (Vec::new(), None, 0);
    let mut take = |key: pgp::errors::Result<K>| match key {
        Ok(key) => keys.push(key),
        Err(error) => {
            unreadable += 1;
            wrong.get_or_insert(error);
        }
    };
    let start = bytes.trim_ascii_start();
    if start.starts_with(ARMOR) {
        for block in blocks(start).take(MAX_KEYS) {
            match K::from_armor_many_buf(block) {
                Ok((found, _)) => found.take(MAX_KEYS).for_each(&mut take),
                Err(error) => take(Err(error)),
            }
        }
    } else {
        K::from_bytes_many(bytes).map_err(|error| no_key(&error))?.take(MAX_KEYS).for_each(&mut take);
    }
    match wrong {
        Some(error) if keys.is_empty() => Err(no_key(&error)),
        _ => Ok((keys, unreadable)),
    }
}

/// Blocks of armor, one after the other: each begins with its own line.
fn blocks(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let begins = |at: &usize| text[*at..].starts_with(ARMOR) && (*at == 0 || text[*at - 1] == b'\n');
    let mut starts: Vec<usize> = (0..text.len()).filter(begins).take(MAX_KEYS).collect();
    starts.push(text.len());
    (1..starts.len()).map(move |end| &text[starts[end - 1]..starts[end]])
}

/// User IDs that the key itself has certified: anybody can put others, and their owners' signatures, beside them.
fn certified<'a>(
    key: &'a (impl VerifyingKey + pgp::ser::Serialize),
    details: &'a pgp::composed::SignedKeyDetails,
) -> impl Iterator<Item = (&'a pgp::types::SignedUser, &'a Signature)> {
    details.users.iter().filter_map(move |user| {
        let own = user.signatures.iter().filter(|it| it.typ() != Some(SignatureType::CertRevocation));
        let own = own.filter(|it| it.verify_certification(key, Tag::UserId, &user.id).is_ok());
        own.max_by_key(|it| it.created()).map(|own| (user, own))
    })
}

/// The name that the key's owner gave it: the primary user ID, else the first.
fn owner(key: &(impl VerifyingKey + pgp::ser::Serialize), details: &pgp::composed::SignedKeyDetails) -> Option<String> {
    let primary = certified(key, details).find(|(_, own)| own.is_primary());
    primary.or_else(|| certified(key, details).next()).map(|(user, _)| shown(user.id.id()))
}

/// A clear-signed message.
pub(super) struct Message {
    message: CleartextSignedMessage,
    text: String,
}

impl Message {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Flaw> {
        let invalid = |why: &dyn std::fmt::Display| Flaw::Invalid { why: format!("no PGP-signed message: {why}") };
        let text = std::str::from_utf8(bytes).map_err(|error| invalid(&error))?;
        let (message, _) = CleartextSignedMessage::from_string(text).map_err(|error| invalid(&error))?;
        let text = message.signed_text();
        Ok(Self { message, text })
    }

    /// As it was hashed: lines end with CR LF.
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

/// Public keys.
#[derive(Clone, Debug, Default)]
pub struct PublicKeys(Vec<SignedPublicKey>);

impl PublicKeys {
    /// Reads a keyring; an empty one has no keys.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidKeyring> {
        if bytes.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        keys(bytes).map(|(keys, _)| Self(keys))
    }

    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `fingerprint`: lower-case hex.
    pub fn has(&self, fingerprint: &str) -> bool {
        self.0.iter().any(|key| to_hex(key.primary_key.fingerprint().as_bytes()) == fingerprint)
    }

    /// Who signed the message: the first of its signatures by one of these keys decides.
    pub(super) fn check(&self, message: &Message, now: i64) -> Result<Signer, Flaw> {
        let mut unknown = None;
        for signature in message.message.signatures() {
            for key in &self.0 {
                let signed = named(signature, &key.primary_key).then(|| check_primary(signature, key, message, now));
                let mut subkeys = key.public_subkeys.iter().filter(|subkey| named(signature, &subkey.key));
                let signed =
                    signed.or_else(|| subkeys.next().map(|sub| check_subkey(signature, (key, sub), message, now)));
                if let Some(signed) = signed {
                    let why = |why| Flaw::Invalid { why };
                    return signed.map(|()| signer(signature, key)).map_err(why);
                }
            }
            unknown = unknown.or_else(|| issuer(signature));
        }
        Err(match unknown {
            Some(key) => Flaw::UnknownKey { key },
            None => Flaw::Invalid { why: "the message has no signature that says which key made it".into() },
        })
    }
}

fn signer(signature: &Signature, key: &SignedPublicKey) -> Signer {
    Signer {
        name: owner(&key.primary_key, &key.details),
        fingerprint: to_hex(key.primary_key.fingerprint().as_bytes()),
        created: signature.created().map(|time| i64::from(time.as_secs())),
    }
}

fn shown(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    name.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

fn issuer(signature: &Signature) -> Option<String> {
    let print = signature.issuer_fingerprint().first().map(|print| to_hex(print.as_bytes()));
    print.or_else(|| signature.issuer_key_id().first().map(|id| id.to_string()))
}

/// Whether the signature says that this key made it.
fn named(signature: &Signature, key: &impl KeyDetails) -> bool {
    let prints = signature.issuer_fingerprint();
    match prints.is_empty() {
        false => prints.iter().any(|print| **print == key.fingerprint()),
        true => signature.issuer_key_id().iter().any(|id| **id == key.legacy_key_id()),
    }
}

fn check_primary(signature: &Signature, key: &SignedPublicKey, message: &Message, now: i64) -> Result<(), String> {
    let own = usable(key, now)?;
    if forbids_signing(own) {
        return Err("the key is not for signing".into());
    }
    check_signature(signature, &key.primary_key, message, now)
}

fn check_subkey(
    signature: &Signature,
    (key, subkey): (&SignedPublicKey, &pgp::composed::SignedPublicSubKey),
    message: &Message,
    now: i64,
) -> Result<(), String> {
    usable(key, now)?;
    let of = |typ| {
        let made = subkey.signatures.iter().filter(move |it| it.typ() == Some(typ));
        made.filter(|it| it.verify_subkey_binding(&key.primary_key, &subkey.key).is_ok())
    };
    if of(SignatureType::SubkeyRevocation).next().is_some() {
        return Err("the subkey was revoked".into());
    }
    let binding = of(SignatureType::SubkeyBinding).max_by_key(|it| it.created());
    let binding = binding.ok_or("the subkey is not bound to its primary key")?;
    let back = binding.embedded_signature();
    if back.is_none_or(|it| it.verify_primary_key_binding(&subkey.key, &key.primary_key).is_err()) {
        return Err("the subkey does not say that it belongs to its primary key".into());
    }
    if !binding.key_flags().sign() {
        return Err("the subkey is not for signing".into());
    }
    not_expired("subkey", subkey.key.created_at(), binding.key_expiration_time(), now)?;
    check_signature(signature, &subkey.key, message, now)
}

fn check_signature(signature: &Signature, key: &impl VerifyingKey, message: &Message, now: i64) -> Result<(), String> {
    use HashAlgorithm::{Sha224, Sha256, Sha384, Sha512};
    match signature.hash_alg() {
        Some(Sha224 | Sha256 | Sha384 | Sha512) => {}
        other => return Err(format!("its hash algorithm {other:?} is none of SHA-2")),
    }
    if !matches!(signature.typ(), Some(SignatureType::Binary | SignatureType::Text)) {
        return Err("it is no signature of a message".into());
    }
    let made = signature.verify(key, message.text().as_bytes());
    made.map_err(|error| format!("the key did not sign this text: {error}"))?;
    let created = signature.created().ok_or("it does not say when it was made")?;
    not_expired("signature", created, signature.signature_expiration_time(), now)
}

/// `lasts`: from `since` on; none or 0: for ever.
fn not_expired(what: &str, since: Timestamp, lasts: Option<pgp::types::Duration>, now: i64) -> Result<(), String> {
    let lasts = lasts.map_or(0, pgp::types::Duration::as_secs);
    let end = i64::from(since.as_secs()) + i64::from(lasts);
    if lasts != 0 && now >= end {
        return Err(format!("the {what} has expired, at {end} (Unix seconds)"));
    }
    Ok(())
}

/// The newest signature of the key about itself, when the key is neither revoked nor expired.
fn usable(key: &SignedPublicKey, now: i64) -> Result<&Signature, String> {
    let primary = &key.primary_key;
    let revoked = |it: &&Signature| it.typ() == Some(SignatureType::KeyRevocation) && it.verify_key(primary).is_ok();
    if key.details.revocation_signatures.iter().any(|it| revoked(&it)) {
        return Err("the key was revoked".into());
    }
    let certifications = key.details.users.iter().flat_map(|user| {
        let own = user.signatures.iter().filter(|it| it.typ() != Some(SignatureType::CertRevocation));
        own.filter(|it| it.verify_certification(primary, Tag::UserId, &user.id).is_ok())
    });
    let direct = key.details.direct_signatures.iter().filter(|it| it.verify_key(primary).is_ok());
    let own = certifications.chain(direct).max_by_key(|it| it.created());
    let own = own.ok_or("the key does not certify itself")?;
    not_expired("key", primary.created_at(), own.key_expiration_time(), now)?;
    Ok(own)
}

/// A key without flags may do everything.
fn forbids_signing(own: &Signature) -> bool {
    let flags = own.key_flags();
    let says_something = flags.certify() || flags.encrypt_comms() || flags.encrypt_storage() || flags.authentication();
    says_something && !flags.sign()
}

/// Secret keys, mostly locked by passphrases.
#[derive(Debug, Default)]
pub struct SecretKeys(Vec<SecretKey>);

impl SecretKeys {
    /// Reads a keyring; an empty one has no keys.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidKeyring> {
        if bytes.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        Ok(Self(keys(bytes)?.0.into_iter().map(SecretKey).collect()))
    }

    pub fn keys(&self) -> &[SecretKey] {
        &self.0
    }
}

/// A key that signs.
pub struct SecretKey(SignedSecretKey);

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SecretKey").field(&to_hex(&self.fingerprint())).finish()
    }
}

impl SecretKey {
    pub fn fingerprint(&self) -> Vec<u8> {
        self.0.primary_key.fingerprint().as_bytes().to_vec()
    }

    pub fn fingerprint_hex(&self) -> String {
        to_hex(&self.fingerprint())
    }

    pub fn name(&self) -> Option<String> {
        owner(self.0.primary_key.public_key(), &self.0.details)
    }

    /// Whether it needs a passphrase.
    pub fn is_locked(&self) -> bool {
        self.0.primary_key.secret_params().is_encrypted()
    }

    /// The text as a clear-signed message; `now` in Unix seconds.
    pub(super) fn sign(&self, text: &str, passphrase: &Passphrase, now: i64) -> Result<String, Error> {
        let failed = |why: String| Error::Key { fingerprint: self.fingerprint_hex(), why };
        let key = &self.0.primary_key;
        let print = key.fingerprint();
        if print.as_bytes().len() != 20 {
            return Err(failed(
                "only keys of version 4 sign SIF files: the file has room for their fingerprints".into(),
            ));
        }
        let now = u32::try_from(now).map_err(|_| failed(format!("{now} is no time that PGP can write")))?;
        let message = || -> pgp::errors::Result<String> {
            let mut config = SignatureConfig::v4(SignatureType::Text, key.algorithm(), HashAlgorithm::Sha256);
            config.hashed_subpackets = vec![
                Subpacket::regular(SubpacketData::SignatureCreationTime(Timestamp::from_secs(now)))?,
                Subpacket::regular(SubpacketData::IssuerFingerprint(print.clone()))?,
            ];
            config.unhashed_subpackets = vec![Subpacket::regular(SubpacketData::IssuerKeyId(key.legacy_key_id()))?];
            let password = Password::from(if self.is_locked() { passphrase.0.as_str() } else { "" });
            CleartextSignedMessage::new(text, config, key, &password)?.to_armored_string(ArmorOptions::default())
        };
        message().map_err(|error| failed(format!("{error}; is the passphrase right?")))
    }
}
