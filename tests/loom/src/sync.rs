//! Loom's parts for the pool, in place of the standard library's.

pub(crate) use loom::hint::spin_loop;
pub(crate) use loom::sync::atomic::{AtomicUsize, Ordering};
pub(crate) use loom::sync::{Arc, Condvar, Mutex, MutexGuard};
pub(crate) use loom::thread::{Builder, JoinHandle};

/// One pause shows both ways: that something comes while a thread waits awake, and that it
/// comes when it sleeps.
pub(crate) const SPINS: usize = 1;
