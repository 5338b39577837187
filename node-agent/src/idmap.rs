//! Helper user namespaces by which mounts are id-mapped: one per (uid, gid) of callers, kept, since making one forks.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

/// Namespaces that are kept; each is one descriptor. Beyond it the longest unused goes.
const KEPT: usize = 256;

/// The cache.
#[derive(Debug, Default)]
pub struct IdMaps {
    kept: Mutex<Cache<Arc<OwnedFd>>>,
}

#[derive(Debug)]
struct Cache<T> {
    entries: BTreeMap<(u32, u32), (T, u64)>,
    clock: u64,
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Cache { entries: BTreeMap::new(), clock: 0 }
    }
}

impl<T: Clone> Cache<T> {
    fn get(&mut self, key: (u32, u32)) -> Option<T> {
        self.clock += 1;
        let (value, used) = self.entries.get_mut(&key)?;
        *used = self.clock;
        Some(value.clone())
    }

    fn insert(&mut self, key: (u32, u32), value: T) {
        self.clock += 1;
        self.entries.insert(key, (value, self.clock));
        if self.entries.len() > KEPT {
            let oldest = self.entries.iter().min_by_key(|(_, (_, used))| *used).map(|(key, _)| *key);
            oldest.map(|key| self.entries.remove(&key));
        }
    }
}

impl IdMaps {
    /// A namespace that shows what 0:0 owns as owned by `uid:gid`.
    pub fn namespace(&self, uid: u32, gid: u32) -> Result<Arc<OwnedFd>, siforge_launch::Error> {
        // Locked while one is made: of 128 ranks that begin together, one forks.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(namespace) = kept.get((uid, gid)) {
            return Ok(namespace);
        }
        let namespace = Arc::new(siforge_launch::idmap_namespace(uid, gid)?);
        kept.insert((uid, gid), Arc::clone(&namespace));
        Ok(namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_unused_goes() {
        let mut cache = Cache::default();
        let count = u32::try_from(KEPT).unwrap();
        (0..count).for_each(|uid| cache.insert((uid, uid), uid));
        assert_eq!(cache.get((0, 0)), Some(0));
        cache.insert((count, 0), count);
        assert_eq!(cache.entries.len(), KEPT);
        assert_eq!((cache.get((0, 0)), cache.get((1, 1)), cache.get((count, 0))), (Some(0), None, Some(count)));
    }
}
