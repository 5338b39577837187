//! A bounded cache of what was unpacked or computed once. Threads that need the same thing wait for the one that makes
//! it; threads that need different things seldom meet: a key belongs to one of some shards, each with its own lock,
//! held for a search among a few dozen keys and never while something is made.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A power of two. More than threads that read at once on most hosts.
const SHARDS: usize = 16;
/// A shard is searched from end to end, and its oldest key is replaced: fewer would be forced out by chance.
const SHARD_MIN: usize = 8;

/// A place in the image, and what tells apart two things at the same place.
pub(super) type Key = (u64, u32);

/// At most `capacity` things, plus those that users still hold. Evicts one unused for long.
pub(super) struct Cache<V> {
    /// Of each shard.
    capacity: usize,
    shards: Box<[Mutex<Shard<V>>]>,
}

struct Shard<V> {
    clock: u64,
    slots: Vec<(Key, u64, Slot<V>)>,
}

/// None until its first user has made it.
type Slot<V> = Arc<Mutex<Option<Arc<V>>>>;

/// Neither lock guards something that a panic could leave half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<V> Cache<V> {
    pub(super) fn new(capacity: usize) -> Self {
        let shards = (capacity / SHARD_MIN).clamp(1, SHARDS);
        let shards = 1 << shards.ilog2();
        let shard = || Mutex::new(Shard { clock: 0, slots: Vec::new() });
        Self { capacity: (capacity / shards).max(1), shards: (0..shards).map(|_| shard()).collect() }
    }

    pub(super) fn get<E>(&self, key: Key, load: impl FnOnce() -> Result<V, E>) -> Result<Arc<V>, E> {
        let slot = lock(self.shard(key)).slot(key, self.capacity);
        let mut value = lock(&slot);
        if let Some(value) = &*value {
            return Ok(value.clone());
        }
        let loaded = Arc::new(load()?);
        *value = Some(loaded.clone());
        Ok(loaded)
    }

    /// Places are multiples of this and that; a multiplication spreads them (Fibonacci hashing). Whoever makes an image
    /// of which all keys share a shard slows down nobody but its own users.
    fn shard(&self, key: Key) -> &Mutex<Shard<V>> {
        let hash = key.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48;
        &self.shards[hash as usize & (self.shards.len() - 1)]
    }
}

impl<V> Shard<V> {
    fn slot(&mut self, key: Key, capacity: usize) -> Slot<V> {
        self.clock += 1;
        if let Some((_, used, slot)) = self.slots.iter_mut().find(|(found, ..)| *found == key) {
            *used = self.clock;
            return slot.clone();
        }
        let slot = Slot::default();
        let new = (key, self.clock, slot.clone());
        if self.slots.len() < capacity {
            self.slots.push(new);
        } else if let Some(oldest) = self.slots.iter_mut().min_by_key(|(_, used, _)| *used) {
            *oldest = new;
        }
        slot
    }
}
