//! Loom's synchronisation primitives in place of the standard library's.

pub(crate) use loom::hint::spin_loop;
pub(crate) use loom::sync::atomic::{AtomicUsize, Ordering};
pub(crate) use loom::sync::{Arc, Condvar, Mutex, MutexGuard};
pub(crate) use loom::thread::{Builder, JoinHandle};

/// One iteration covers both cases: an event while a thread spins, and one while it sleeps.
pub(crate) const SPINS: usize = 1;
