//! Buffers of a block's size, used again: a new one of that size is memory that the kernel must find and clear first.

use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

/// Kept for the next user, at most; the rest is given back.
const IDLE_MAX: usize = 2;

#[derive(Clone)]
pub(super) struct Pool {
    idle: Arc<Mutex<Vec<Box<[u8]>>>>,
    /// Bytes of a buffer.
    size: usize,
}

impl Pool {
    pub(super) fn new(size: usize) -> Self {
        Self { idle: Arc::default(), size }
    }

    /// A block of at most `size` bytes, which `fill` writes to the start of a buffer; it returns how many they are.
    pub(super) fn block<E>(&self, fill: impl FnOnce(&mut [u8]) -> Result<usize, E>) -> Result<Block, E> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let bytes = idle.unwrap_or_else(|| vec![0; self.size].into_boxed_slice());
        let mut block = Block { bytes, length: 0, pool: self.clone() };
        block.length = fill(&mut block.bytes)?.min(self.size);
        Ok(block)
    }
}

/// An unpacked block.
pub(super) struct Block {
    bytes: Box<[u8]>,
    length: usize,
    pool: Pool,
}

impl Deref for Block {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let mut idle = self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(std::mem::take(&mut self.bytes));
        }
    }
}
