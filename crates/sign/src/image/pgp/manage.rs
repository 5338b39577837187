//! Keyrings as they are shown and changed: new keys, what a key is, keys as packets and as armor.
//!
//! ```text
//! keyring file   key, key, …                 binary packets, or armor
//! key            primary key packet          tag 6 public, tag 5 secret
//!                user ID, certifications …   "Name (Comment) <address>"
//!                subkeys, bindings …
//! ```
//! RFC 9580 sections 5.5 and 10. A changed keyring is written as packets, which is what the reference reads.

use super::{Passphrase, PublicKeys, SecretKey, SecretKeys, keys, owner, to_hex};
use pgp::armor::BlockType;
use pgp::composed::{Deserializable, KeyType, SecretKeyParamsBuilder};
use pgp::crypto::{hash::HashAlgorithm, sym::SymmetricKeyAlgorithm};
use pgp::ser::Serialize;
use pgp::types::{KeyDetails, Password, PublicParams, Timestamp};
use rand::rngs::OsRng;

/// The algorithms' limit of sense: NIST SP 800-57 part 1 table 2, and what GnuPG makes.
pub const RSA_BITS: std::ops::RangeInclusive<u32> = 2048..=8192;
/// Most bytes of a user ID that is made.
const MAX_USER_ID: usize = 2048;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{what} {value:?} of the key's user: {why}")]
    User { what: &'static str, value: String, why: &'static str },
    #[error("{bits} bits: RSA keys have {} to {}", RSA_BITS.start(), RSA_BITS.end())]
    Bits { bits: u32 },
    #[error("{time} is no time that PGP can write")]
    Time { time: i64 },
    #[error("make a key: {why}")]
    Make { why: String },
    #[error("write the key {fingerprint}: {why}")]
    Write { fingerprint: String, why: String },
    #[error("unlock the key {fingerprint}: {why}; is the passphrase right?")]
    Unlock { fingerprint: String, why: String },
}

/// Whose key it is.
#[derive(Clone, Debug, Default)]
pub struct User {
    pub name: String,
    pub comment: String,
    /// Of electronic mail.
    pub address: String,
}

impl User {
    /// `Name (Comment) <address>`, without what is empty; as GnuPG's and the reference's.
    fn id(&self) -> Result<String, Error> {
        let Self { name, comment, address } = self;
        for (what, value) in [("name", name), ("comment", comment), ("address", address)] {
            let wrong = |why| Err(Error::User { what, value: value.clone(), why });
            match value {
                value if value.contains(['(', ')', '<', '>']) => return wrong("it may not have any of ( ) < >"),
                value if value.chars().any(char::is_control) => return wrong("it has a control character"),
                value if value.len() > MAX_USER_ID => return wrong("it is too long"),
                _ => {}
            }
        }
        let parts = [
            (!name.is_empty()).then(|| name.clone()),
            (!comment.is_empty()).then(|| format!("({comment})")),
            (!address.is_empty()).then(|| format!("<{address}>")),
        ];
        let id: Vec<String> = parts.into_iter().flatten().collect();
        match id.is_empty() {
            true => Err(Error::User { what: "name", value: String::new(), why: "a key needs a name or an address" }),
            false => Ok(id.join(" ")),
        }
    }
}

/// A key, as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The user ID that the key's owner made the primary one, else the first that the key certifies.
    pub user: Option<String>,
    /// Unix seconds.
    pub created: i64,
    /// Lower-case hex.
    pub fingerprint: String,
    pub algorithm: String,
    /// Of the modulus or the curve.
    pub bits: Option<u32>,
}

fn listed(key: &impl KeyDetails, user: Option<String>) -> Listed {
    Listed {
        user,
        created: i64::from(key.created_at().as_secs()),
        fingerprint: to_hex(key.fingerprint().as_bytes()),
        algorithm: format!("{:?}", key.algorithm()),
        bits: bits(key.public_params()),
    }
}

/// RSA's modulus and the primes of the others are their first number, which begins with its length in bits
/// (RFC 9580 sections 3.2 and 5.5.5).
fn bits(params: &PublicParams) -> Option<u32> {
    match params {
        PublicParams::RSA(_) | PublicParams::DSA(_) | PublicParams::Elgamal(_) => {
            let length = params.to_bytes().ok()?;
            Some(u32::from(u16::from_be_bytes(*length.first_chunk()?)))
        }
        PublicParams::ECDSA(params) => Some(params.curve().nbits().into()),
        PublicParams::EdDSALegacy(params) => Some(params.curve().nbits().into()),
        PublicParams::Ed25519(_) | PublicParams::X25519(_) => Some(256),
        PublicParams::Ed448(_) | PublicParams::X448(_) => Some(448),
        _ => None,
    }
}

fn packets(key: &impl Serialize, primary: &impl KeyDetails) -> Result<Vec<u8>, Error> {
    let fingerprint = || to_hex(primary.fingerprint().as_bytes());
    key.to_bytes().map_err(|error| Error::Write { fingerprint: fingerprint(), why: error.to_string() })
}

/// Packets that are there already.
struct Packets(Vec<u8>);

impl Serialize for Packets {
    fn to_writer<W: std::io::Write>(&self, writer: &mut W) -> pgp::errors::Result<()> {
        Ok(writer.write_all(&self.0)?)
    }

    fn write_len(&self) -> usize {
        self.0.len()
    }
}

fn armored(kind: BlockType, packets: Vec<u8>) -> Result<Vec<u8>, Error> {
    let mut text = Vec::new();
    let made = pgp::armor::write(&Packets(packets), kind, &mut text, None, true);
    made.map_err(|error| Error::Write { fingerprint: "as text".into(), why: error.to_string() })?;
    Ok(text)
}

impl PublicKeys {
    pub fn listed(&self) -> Vec<Listed> {
        self.0.iter().map(|key| listed(&key.primary_key, owner(&key.primary_key, &key.details))).collect()
    }

    /// All keys as packets, one after the other: a keyring file.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        self.0.iter().map(|key| packets(key, &key.primary_key)).collect::<Result<Vec<_>, _>>().map(|keys| keys.concat())
    }

    /// All keys as one block of text.
    pub fn armored(&self) -> Result<Vec<u8>, Error> {
        armored(BlockType::PublicKey, self.to_bytes()?)
    }

    /// The keys whose fingerprints are `wanted` says.
    pub fn select(&self, wanted: impl Fn(&str) -> bool) -> Self {
        Self(self.0.iter().filter(|key| wanted(&to_hex(key.primary_key.fingerprint().as_bytes()))).cloned().collect())
    }
}

impl PublicKeys {
    /// The keys of which the fingerprint, or one of a subkey, ends so.
    pub fn ending(&self, wish: &str) -> Self {
        let ends = |key: &dyn KeyDetails| to_hex(key.fingerprint().as_bytes()).ends_with(wish);
        let wanted = |key: &&pgp::composed::SignedPublicKey| {
            ends(&key.primary_key) || key.public_subkeys.iter().any(|subkey| ends(&subkey.key))
        };
        Self(self.0.iter().filter(wanted).cloned().collect())
    }
}

impl SecretKeys {
    pub fn listed(&self) -> Vec<Listed> {
        let key = |key: &SecretKey| listed(&key.0.primary_key, key.name());
        self.0.iter().map(key).collect()
    }

    /// All keys as packets, one after the other: a keyring file. Locked keys stay locked.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        self.0
            .iter()
            .map(|key| packets(&key.0, &key.0.primary_key))
            .collect::<Result<Vec<_>, _>>()
            .map(|keys| keys.concat())
    }

    /// All keys as one block of text. Locked keys stay locked.
    pub fn armored(&self) -> Result<Vec<u8>, Error> {
        armored(BlockType::PrivateKey, self.to_bytes()?)
    }

    /// The keys whose fingerprints are `wanted` says.
    pub fn select(self, wanted: impl Fn(&str) -> bool) -> Self {
        Self(self.0.into_iter().filter(|key| wanted(&key.fingerprint_hex())).collect())
    }

    pub fn keys_mut(&mut self) -> &mut [SecretKey] {
        &mut self.0
    }

    /// What everybody may know of them.
    pub fn public(&self) -> PublicKeys {
        PublicKeys(self.0.iter().map(|key| key.0.to_public_key()).collect())
    }
}

impl From<SecretKey> for SecretKeys {
    fn from(key: SecretKey) -> Self {
        Self(vec![key])
    }
}

impl SecretKey {
    /// A new RSA key that certifies and signs, made at `now` (Unix seconds); an empty passphrase leaves it unlocked.
    pub fn generate(user: &User, bits: u32, passphrase: &Passphrase, now: i64) -> Result<Self, Error> {
        let id = user.id()?;
        if !RSA_BITS.contains(&bits) {
            return Err(Error::Bits { bits });
        }
        let now = u32::try_from(now).map_err(|_| Error::Time { time: now })?;
        let made = |why: &dyn std::fmt::Display| Error::Make { why: why.to_string() };
        let params = SecretKeyParamsBuilder::default()
            .key_type(KeyType::Rsa(bits))
            .can_certify(true)
            .can_sign(true)
            .created_at(Timestamp::from_secs(now))
            .primary_user_id(id)
            .preferred_symmetric_algorithms(vec![SymmetricKeyAlgorithm::AES256, SymmetricKeyAlgorithm::AES128].into())
            .preferred_hash_algorithms(vec![HashAlgorithm::Sha256, HashAlgorithm::Sha512].into())
            .build()
            .map_err(|error| made(&error))?;
        let mut key = Self(params.generate(OsRng).map_err(|error| made(&error))?);
        key.lock(passphrase)?;
        Ok(key)
    }

    /// Takes the old passphrase away and locks the key, and what it has of subkeys, by the new one.
    pub fn change_passphrase(&mut self, old: &Passphrase, new: &Passphrase) -> Result<(), Error> {
        let fingerprint = self.fingerprint_hex();
        let unlock = |error: pgp::errors::Error| Error::Unlock { fingerprint, why: error.to_string() };
        let old = Password::from(old.0.as_str());
        let mut change = || {
            self.0.primary_key.remove_password(&old)?;
            self.0.secret_subkeys.iter_mut().try_for_each(|subkey| subkey.key.remove_password(&old))
        };
        change().map_err(unlock)?;
        self.lock(new)
    }

    fn lock(&mut self, passphrase: &Passphrase) -> Result<(), Error> {
        if passphrase.0.is_empty() {
            return Ok(());
        }
        let password = Password::from(passphrase.0.as_str());
        let mut lock = || {
            self.0.primary_key.set_password(OsRng, &password)?;
            self.0.secret_subkeys.iter_mut().try_for_each(|subkey| subkey.key.set_password(OsRng, &password))
        };
        lock().map_err(|error| Error::Make { why: error.to_string() })
    }
}

/// How many keys of a keyring cannot be read; one that is written again would lose them.
pub fn unreadable(public: bool, keyring: &[u8]) -> usize {
    fn count<K: Deserializable>(keyring: &[u8]) -> usize {
        keys::<K>(keyring).map_or(1, |(_, wrong)| wrong)
    }
    match (keyring.trim_ascii().is_empty(), public) {
        (true, _) => 0,
        (_, true) => count::<pgp::composed::SignedPublicKey>(keyring),
        (_, false) => count::<pgp::composed::SignedSecretKey>(keyring),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, comment: &str, address: &str) -> User {
        User { name: name.into(), comment: comment.into(), address: address.into() }
    }

    #[test]
    fn user_ids() {
        let check = |name, comment, address, expect: Result<&str, &str>| {
            let got = user(name, comment, address).id().map_err(|error| error.to_string());
            match (&got, expect) {
                (Ok(got), Ok(expect)) => assert_eq!(got, expect),
                (Err(got), Err(expect)) => assert!(got.contains(expect), "{got}"),
                _ => panic!("{got:?}, not {expect:?}"),
            }
        };
        check("Ada", "work", "ada@x.org", Ok("Ada (work) <ada@x.org>"));
        check("Ada", "", "ada@x.org", Ok("Ada <ada@x.org>"));
        check("", "", "ada@x.org", Ok("<ada@x.org>"));
        check("Ada", "", "", Ok("Ada"));
        check("", "", "", Err("needs a name or an address"));
        check("A<da", "", "", Err("name \"A<da\""));
        check("Ada", "a)b", "", Err("comment"));
        check("Ada", "", "a\nb", Err("control character"));
        check("Ada", "", &"a".repeat(3000), Err("too long"));
    }

    #[test]
    fn a_new_key_is_listed_and_keeps_its_lock() {
        let secret = Passphrase::new("first".into());
        assert!(matches!(SecretKey::generate(&user("A", "", ""), 1024, &secret, 1), Err(Error::Bits { bits: 1024 })));
        let key = SecretKey::generate(&user("Ada", "", "a@x.org"), 2048, &secret, 1_700_000_000).expect("key");
        assert!(key.is_locked());
        let mut keys = SecretKeys::from(key);
        let listed = keys.listed();
        let expect = ("Ada <a@x.org>", 1_700_000_000, Some(2048), "RSA");
        let [one] = &*listed else { panic!("{listed:?}") };
        assert_eq!((one.user.as_deref().expect("user"), one.created, one.bits, &*one.algorithm), expect);
        assert_eq!(keys.public().listed(), listed);

        for bytes in [keys.to_bytes().expect("packets"), keys.armored().expect("armor")] {
            let again = SecretKeys::parse(&bytes).expect("keys");
            assert_eq!(again.listed(), listed);
            assert!(again.keys()[0].is_locked());
            assert_eq!(unreadable(false, &bytes), 0);
        }
        for bytes in [keys.public().to_bytes().expect("packets"), keys.public().armored().expect("armor")] {
            assert_eq!(PublicKeys::parse(&bytes).expect("keys").listed(), listed);
        }
        // Several blocks of text, as people put them together; one that is cut off is not passed over.
        let other = SecretKey::generate(&user("Bob", "", ""), 2048, &Passphrase::new(String::new()), 1).expect("key");
        let others = SecretKeys::from(other);
        let both = [keys.armored().expect("armor"), b"a comment\n".to_vec(), others.armored().expect("armor")].concat();
        assert_eq!(SecretKeys::parse(&both).expect("keys").listed(), [listed.clone(), others.listed()].concat());
        assert_eq!(unreadable(false, &both), 0);
        assert_eq!(unreadable(false, &both[..both.len() - 400]), 1);

        // A name that the key's owner did not give it, with the signature of somebody who has it.
        let mut public = keys.public();
        let stranger = others.public().0[0].details.users[0].clone();
        public.0[0].details.users.insert(0, stranger);
        assert_eq!(public.listed(), listed);

        let second = Passphrase::new("second".into());
        assert!(keys.0[0].change_passphrase(&second, &secret).is_err());
        keys.0[0].change_passphrase(&secret, &second).expect("changed");
        assert!(keys.0[0].sign("text", &secret, 1_700_000_001).is_err());
        keys.0[0].sign("text", &second, 1_700_000_001).expect("signed");
        assert!(keys.public().select(|print| print != listed[0].fingerprint).is_empty());
    }
}
