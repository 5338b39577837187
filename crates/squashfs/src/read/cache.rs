//! A bounded cache of unpacked blocks. Threads that need the same block wait for the one that unpacks it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// At most `capacity` blocks, plus those that users still hold. Evicts the one unused for longest.
pub(super) struct Cache<K, V> {
    capacity: usize,
    slots: Mutex<Slots<K, V>>,
}

struct Slots<K, V> {
    clock: u64,
    by_key: HashMap<K, (u64, Slot<V>)>,
}

/// None until its first user has unpacked the block.
type Slot<V> = Arc<Mutex<Option<Arc<V>>>>;

impl<K: Copy + Eq + Hash, V> Cache<K, V> {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, slots: Mutex::new(Slots { clock: 0, by_key: HashMap::new() }) }
    }

    pub(super) fn get<E>(&self, key: K, load: impl FnOnce() -> Result<V, E>) -> Result<Arc<V>, E> {
        // Neither lock guards something that a panic could leave half done.
        let slot = self.slots.lock().unwrap_or_else(PoisonError::into_inner).slot(key, self.capacity);
        let mut value = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = &*value {
            return Ok(value.clone());
        }
        let loaded = Arc::new(load()?);
        *value = Some(loaded.clone());
        Ok(loaded)
    }
}

impl<K: Copy + Eq + Hash, V> Slots<K, V> {
    fn slot(&mut self, key: K, capacity: usize) -> Slot<V> {
        self.clock += 1;
        if let Some((used, slot)) = self.by_key.get_mut(&key) {
            *used = self.clock;
            return slot.clone();
        }
        if self.by_key.len() >= capacity {
            // Capacities are some hundreds; next to unpacking a block the search is nothing.
            let oldest = self.by_key.iter().min_by_key(|(_, (used, _))| *used);
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                self.by_key.remove(&oldest);
            }
        }
        let slot = Slot::default();
        self.by_key.insert(key, (self.clock, slot.clone()));
        slot
    }
}
