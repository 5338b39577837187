//! Leases that callers take by name (`slurm-123`): the images they hold stay mounted until the name is released. Pure, but for
//! what [`crate::state_file`] makes of [`Leases::saved`].
//!
//! ```json
//! {"leases":[{"owner":0,"name":"slurm-123","digests":["sha256:…"],"taken":1234.5}]}
//! ```
//!
//! `taken` counts seconds since boot: the state directory does not outlive the boot. A name belongs to the uid that took it;
//! root releases a name for all owners, so that an epilog ends what the job's tasks took. A lease that nobody releases (the
//! epilog was lost) ends by itself; that costs whoever still runs nothing, since the kernel keeps what is in use.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use siforge_reference::Digest;

use crate::table::Moment;

/// Longest name of a lease.
pub const NAME_LIMIT: usize = 128;
/// Most names that one uid other than root holds.
const NAMES_PER_USER: usize = 256;
/// Most names altogether.
const NAMES: usize = 8192;
/// Most images under one name.
const DIGESTS: usize = 64;
/// A lease that nobody released for so long is forgotten.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// Why a lease was not granted.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The name could not stand in a log or a state file.
    #[error("lease name {name:?} is not 1 to {NAME_LIMIT} letters, digits or any of - _ . : @")]
    Name { name: String },
    /// One user holds too many.
    #[error("uid {owner} holds {NAMES_PER_USER} leases already: release some")]
    TooManyOfUser { owner: u32 },
    /// One user holds too many images.
    #[error("uid {owner} holds leases on {share} images already, its share of this node: release some")]
    TooManyImagesOfUser { owner: u32, share: usize },
    /// The node holds too many.
    #[error("the node's agent holds {NAMES} leases already")]
    TooMany,
    /// One name holds too many images.
    #[error("lease {name} holds {DIGESTS} images already")]
    TooManyImages { name: String },
}

#[derive(Debug, Clone)]
struct Held {
    digests: BTreeSet<Digest>,
    taken: Moment,
}

/// All leases of this node, by owner and name.
#[derive(Debug, Default)]
pub struct Leases {
    held: BTreeMap<(u32, String), Held>,
}

/// The state file's form.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Saved {
    leases: Vec<SavedLease>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedLease {
    owner: u32,
    name: String,
    digests: Vec<String>,
    taken: f64,
}

impl Leases {
    /// What an earlier agent of this boot saved; entries that make no sense are dropped.
    pub fn restored(saved: Saved, now: Moment) -> Self {
        let mut held = BTreeMap::new();
        for lease in saved.leases.into_iter().take(NAMES) {
            let digests: BTreeSet<Digest> =
                lease.digests.iter().take(DIGESTS).filter_map(|text| text.parse().ok()).collect();
            let taken = Duration::try_from_secs_f64(lease.taken).map_or(now, |taken| Moment(taken).min(now));
            if check_name(&lease.name).is_ok() && !digests.is_empty() {
                held.insert((lease.owner, lease.name), Held { digests, taken });
            }
        }
        Leases { held }
    }

    /// What the state file shall hold.
    pub fn saved(&self) -> Saved {
        let lease = |((owner, name), held): (&(u32, String), &Held)| SavedLease {
            owner: *owner,
            name: name.clone(),
            digests: held.digests.iter().map(Digest::to_string).collect(),
            taken: held.taken.0.as_secs_f64(),
        };
        Saved { leases: self.held.iter().map(lease).collect() }
    }

    /// Takes or extends a lease; true when that changed anything that is saved. `share` is how many images one user other than root
    /// may hold: what is leased is not unmounted to make room.
    pub fn take(&mut self, owner: u32, name: &str, digest: &Digest, share: usize, now: Moment) -> Result<bool, Error> {
        check_name(name)?;
        if owner != 0 {
            let own = self.held.range((owner, String::new())..);
            let own: BTreeSet<&Digest> =
                own.take_while(|((uid, _), _)| *uid == owner).flat_map(|(_, held)| &held.digests).collect();
            if own.len() >= share && !own.contains(digest) {
                return Err(Error::TooManyImagesOfUser { owner, share });
            }
        }
        let key = (owner, name.to_owned());
        if let Some(held) = self.held.get_mut(&key) {
            if held.digests.contains(digest) {
                return Ok(false);
            }
            if held.digests.len() >= DIGESTS {
                return Err(Error::TooManyImages { name: name.to_owned() });
            }
            held.taken = now;
            return Ok(held.digests.insert(*digest));
        }
        if self.held.len() >= NAMES {
            return Err(Error::TooMany);
        }
        if owner != 0 && self.held.keys().filter(|(uid, _)| *uid == owner).count() >= NAMES_PER_USER {
            return Err(Error::TooManyOfUser { owner });
        }
        self.held.insert(key, Held { digests: BTreeSet::from([*digest]), taken: now });
        Ok(true)
    }

    /// Ends a lease of `caller`, or for root every lease of that name; the digests it held.
    pub fn release(&mut self, caller: u32, name: &str) -> BTreeSet<Digest> {
        self.remove(|(owner, held_name), _| held_name == name && (caller == 0 || *owner == caller))
    }

    /// Ends what nobody released in [`LONGEST`]; the digests it held.
    pub fn expire(&mut self, now: Moment) -> BTreeSet<Digest> {
        self.remove(|_, held| now.since(held.taken) >= LONGEST)
    }

    /// An image is not mounted after all: it leaves every lease. True when any had it.
    pub fn forget(&mut self, digest: &Digest) -> bool {
        let mut changed = false;
        self.held.retain(|_, held| {
            changed |= held.digests.remove(digest);
            !held.digests.is_empty()
        });
        changed
    }

    /// All digests under any lease.
    pub fn leased(&self) -> BTreeSet<Digest> {
        self.held.values().flat_map(|held| held.digests.iter().cloned()).collect()
    }

    /// Names of the leases that hold `digest` and that `viewer` may see: its own, for root all.
    pub fn names_of(&self, digest: &Digest, viewer: u32) -> Vec<String> {
        self.names(viewer, |held| held.digests.contains(digest))
    }

    /// All names that `viewer` may see.
    pub fn all_names(&self, viewer: u32) -> Vec<String> {
        self.names(viewer, |_| true)
    }

    fn names(&self, viewer: u32, wanted: impl Fn(&Held) -> bool) -> Vec<String> {
        let names: BTreeSet<&String> = self
            .held
            .iter()
            .filter(|((owner, _), held)| (viewer == 0 || *owner == viewer) && wanted(held))
            .map(|((_, name), _)| name)
            .collect();
        names.into_iter().cloned().collect()
    }

    fn remove(&mut self, condemned: impl Fn(&(u32, String), &Held) -> bool) -> BTreeSet<Digest> {
        let mut digests = BTreeSet::new();
        self.held.retain(|key, held| {
            let gone = condemned(key, held);
            if gone {
                digests.extend(held.digests.iter().cloned());
            }
            !gone
        });
        digests
    }
}

/// Whether a lease may have this name.
pub fn check_name(name: &str) -> Result<(), Error> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:@".contains(&byte);
    if !name.is_empty() && name.len() <= NAME_LIMIT && name.bytes().all(good) {
        return Ok(());
    }
    Err(Error::Name { name: name.chars().take(NAME_LIMIT).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARE: usize = 8;

    fn digest(n: u8) -> Digest {
        Digest::from_bytes([n; 32])
    }

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }

    #[test]
    fn a_name_belongs_to_its_owner_and_root_ends_all() {
        let mut leases = Leases::default();
        for owner in [0, 1000, 1001] {
            assert_eq!(leases.take(owner, "slurm-1", &digest(1), SHARE, at(0)), Ok(true));
            assert_eq!(leases.take(owner, "slurm-1", &digest(1), SHARE, at(0)), Ok(false));
        }
        assert_eq!(leases.all_names(1000), ["slurm-1"]);
        assert_eq!(leases.release(1000, "slurm-1"), BTreeSet::from([digest(1)]));
        assert!(leases.all_names(1000).is_empty());
        assert_eq!(leases.leased(), BTreeSet::from([digest(1)]));
        assert_eq!(leases.release(0, "slurm-1").len(), 1);
        assert!(leases.leased().is_empty());
        assert!(leases.release(0, "slurm-1").is_empty());
    }

    #[test]
    fn they_survive_a_restart() {
        let mut leases = Leases::default();
        leases.take(0, "a", &digest(1), SHARE, at(5)).unwrap();
        leases.take(0, "a", &digest(2), SHARE, at(6)).unwrap();
        leases.take(7, "b", &digest(2), SHARE, at(7)).unwrap();
        let text = serde_json::to_string(&leases.saved()).unwrap();
        let mut again = Leases::restored(serde_json::from_str(&text).unwrap(), at(8));
        assert_eq!(again.names_of(&digest(2), 0), ["a", "b"]);
        assert_eq!(again.names_of(&digest(2), 7), ["b"]);
        assert_eq!(again.expire(at(6 + LONGEST.as_secs())), BTreeSet::from([digest(1), digest(2)]));
        assert_eq!(again.all_names(0), ["b"]);
    }

    #[test]
    fn saved_nonsense_is_dropped() {
        let text = r#"{"leases":[
            {"owner":0,"name":"../x","digests":[],"taken":1.0},
            {"owner":0,"name":"none","digests":["md5:1"],"taken":1.0},
            {"owner":0,"name":"future","digests":["sha256:DIGEST"],"taken":1e300}]}"#;
        let text = text.replace("DIGEST", &digest(1).hex());
        let leases = Leases::restored(serde_json::from_str(&text).unwrap(), at(8));
        assert_eq!(leases.all_names(0), ["future"]);
    }

    #[test]
    fn limits_have_their_own_errors() {
        let mut leases = Leases::default();
        for name in ["", "a b", "a/b", "a\nb", "é", &"x".repeat(NAME_LIMIT + 1)] {
            assert!(matches!(leases.take(0, name, &digest(1), SHARE, at(0)), Err(Error::Name { .. })), "{name}");
        }
        for n in 0..NAMES_PER_USER {
            leases.take(5, &format!("n{n}"), &digest(1), SHARE, at(0)).unwrap();
        }
        assert_eq!(leases.take(5, "more", &digest(1), SHARE, at(0)), Err(Error::TooManyOfUser { owner: 5 }));
        assert_eq!(leases.take(6, "other", &digest(1), SHARE, at(0)), Ok(true));
        for n in 0..DIGESTS {
            leases.take(0, "many", &digest(n as u8), SHARE, at(0)).unwrap();
        }
        let error = leases.take(0, "many", &digest(200), SHARE, at(0));
        assert_eq!(error, Err(Error::TooManyImages { name: "many".into() }));
    }

    #[test]
    fn no_user_holds_all_the_images_of_a_node() {
        let mut leases = Leases::default();
        let mut take = |owner, name: &str, n| leases.take(owner, name, &digest(n), 2, at(0)).map(drop);
        for (name, n) in [("a", 1), ("b", 2), ("c", 1)] {
            assert_eq!(take(5, name, n), Ok(()), "{name}");
        }
        let full = Error::TooManyImagesOfUser { owner: 5, share: 2 };
        assert_eq!(take(5, "a", 3), Err(full));
        assert_eq!(take(6, "a", 3), Ok(()));
        assert!((1..9).all(|n| take(0, "a", n).is_ok()));
    }

    #[test]
    fn a_failed_image_leaves_every_lease() {
        let mut leases = Leases::default();
        leases.take(0, "a", &digest(1), SHARE, at(0)).unwrap();
        leases.take(0, "a", &digest(2), SHARE, at(0)).unwrap();
        leases.take(1, "b", &digest(1), SHARE, at(0)).unwrap();
        assert!(leases.forget(&digest(1)));
        assert!(!leases.forget(&digest(1)));
        assert_eq!(leases.all_names(0), ["a"]);
    }
}
