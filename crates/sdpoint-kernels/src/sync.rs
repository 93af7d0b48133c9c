//! What the pool of threads is made of. `tests/loom` puts a model's parts in place of these, and
//! tries the pool in every order in which its threads can come.

pub(crate) use std::hint::spin_loop;
pub(crate) use std::sync::atomic::{AtomicUsize, Ordering};
pub(crate) use std::sync::{Arc, Condvar, Mutex, MutexGuard};
pub(crate) use std::thread::{Builder, JoinHandle};

/// Pauses of the processor, some tens of microseconds in all, before a thread that waits goes
/// to sleep: the next kernel of a network mostly comes sooner than a sleeper could wake.
pub(crate) const SPINS: usize = 2000;
