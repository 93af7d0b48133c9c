//! Whether a batch is being computed.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Whether a batch is being computed, for threads that share its cores.
///
/// A thread that serves connections and wakes for every request interrupts the computation
/// thousands of times a second under load, and starts with cold caches each time. If it
/// [lingers](Computing::linger) before it waits for the next event, several requests arrive
/// in the meantime, at a fraction of the cost per request.
///
/// ```
/// use std::time::Duration;
/// use sdpoint_serve::Computing;
///
/// let computing = Computing::default();
/// // Nothing is being computed, so this returns at once.
/// computing.linger(Duration::from_secs(60));
/// ```
#[derive(Debug, Default)]
pub struct Computing {
    running: Mutex<bool>,
    ended: Condvar,
}

impl Computing {
    /// Blocks until no batch is being computed, for at most `time`.
    pub fn linger(&self, time: Duration) {
        let waited = self
            .ended
            .wait_timeout_while(self.lock(), time, |running| *running);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn start(&self) {
        *self.lock() = true;
    }

    pub(super) fn end(&self) {
        *self.lock() = false;
        self.ended.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
