//! The synchronisation primitives of the thread pool. `tests/loom` replaces this module by loom's
//! primitives, to test the pool under all interleavings of its threads.

pub(crate) use std::hint::spin_loop;
pub(crate) use std::sync::atomic::{AtomicUsize, Ordering};
pub(crate) use std::sync::{Arc, Condvar, Mutex, MutexGuard};
pub(crate) use std::thread::{Builder, JoinHandle};

/// Iterations that a waiting thread spins before it sleeps, some tens of microseconds. The next
/// kernel of a network usually starts sooner than a sleeping thread could wake.
pub(crate) const SPINS: usize = 2000;
