//! What an edit writes, in its order, for tests that cut it off.

use std::cell::RefCell;

/// Where, and what.
pub(super) type Writes = Vec<(u64, Vec<u8>)>;

thread_local! {
    static LOG: RefCell<Option<Writes>> = const { RefCell::new(None) };
}

pub(super) fn start() {
    LOG.set(Some(Vec::new()));
}

pub(super) fn take() -> Writes {
    LOG.take().unwrap_or_default()
}

pub(super) fn note(at: u64, bytes: &[u8]) {
    LOG.with_borrow_mut(|log| {
        if let Some(writes) = log {
            writes.push((at, bytes.to_vec()));
        }
    });
}
