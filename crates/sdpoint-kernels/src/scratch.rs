//! A pool of working memory: kernels borrow buffers for a call, so that only the first call of a
//! shape allocates.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::memory::AlignedVec;

/// A pool of buffers.
#[derive(Default)]
pub(crate) struct ScratchPool {
    free: Mutex<Free>,
}

/// The buffers that are not in use.
#[derive(Default)]
struct Free {
    buffers: Vec<AlignedVec>,
    /// Bytes of all buffers, including those in use.
    bytes: usize,
}

impl ScratchPool {
    /// The smallest free buffer that has room for `len` floats. If none has, the largest free one
    /// is replaced by a new one, so that the pool converges to the sizes that the calls need.
    pub(crate) fn take(&self, len: usize) -> Scratch<'_> {
        let bytes = len * size_of::<f32>();
        let mut free = self.lock();
        let best = (0..free.buffers.len()).min_by_key(|&i| {
            let has = free.buffers[i].bytes();
            if has >= bytes {
                (0, has)
            } else {
                (1, usize::MAX - has)
            }
        });
        let mut buffer = best
            .map(|i| free.buffers.swap_remove(i))
            .unwrap_or_default();
        if buffer.bytes() < bytes {
            free.bytes -= buffer.bytes();
            drop(buffer);
            buffer = AlignedVec::zeros(len);
            free.bytes += buffer.bytes();
        }
        buffer.set_len(len);
        Scratch { pool: self, buffer }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    fn lock(&self) -> MutexGuard<'_, Free> {
        // Poisoning is harmless: no panic leaves the list of buffers inconsistent.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A borrowed buffer; see [`crate::Context::scratch`].
pub(crate) struct Scratch<'a> {
    pool: &'a ScratchPool,
    buffer: AlignedVec,
}

impl Deref for Scratch<'_> {
    type Target = [f32];

    #[inline(always)]
    fn deref(&self) -> &[f32] {
        &self.buffer
    }
}

impl DerefMut for Scratch<'_> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.buffer
    }
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        self.pool.lock().buffers.push(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_reused() {
        let pool = ScratchPool::default();
        let (a, b) = (pool.take(100), pool.take(1000));
        assert_eq!((a.len(), b.len()), (100, 1000));
        assert_eq!(a.as_ptr() as usize % 64, 0);
        drop((a, b));
        let bytes = pool.bytes();
        drop((pool.take(900), pool.take(10)));
        assert_eq!(pool.bytes(), bytes);
        drop(pool.take(2000));
        assert!(pool.bytes() > bytes);
    }
}
