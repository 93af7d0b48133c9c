//! How computing and serving connections share cores.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How the threads that compute and those that serve connections share cores.
///
/// A thread that serves connections and wakes for every request interrupts the computation
/// thousands of times a second under load, and starts with cold caches each time. If it
/// [lingers](Computing::linger) before it waits for the next event, several requests arrive
/// in the meantime, at a fraction of the cost per request. And the computation
/// [gives way](Computing::give_way) between kernels, so that it then has the core at once.
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
    connections: Mutex<Connections>,
}

/// The threads that serve connections.
#[derive(Debug, Default)]
struct Connections {
    /// The number of them that have something to do.
    active: usize,
    /// How often one of them had something to do.
    rounds: u64,
    /// Until when the computation keeps the core, because another process would take it.
    reserved: Option<Instant>,
}

impl Connections {
    /// Notes that the computation lost the core until `end`. The count of rounds was
    /// `before` when it yielded.
    fn lost(&mut self, before: u64, end: Instant) {
        if self.active == 0 && self.rounds == before {
            self.reserved = Some(end + RESERVATION);
        }
    }
}

/// A yield that takes longer has let another thread have the core.
const LONG_YIELD: Duration = Duration::from_millis(1);

/// How long the computation keeps the core after it has lost it to another process.
const RESERVATION: Duration = Duration::from_millis(200);

impl Computing {
    /// Blocks until no batch is being computed, for at most `time`. Called by a thread that
    /// serves connections when it has nothing to do.
    pub fn linger(&self, time: Duration) {
        let mut connections = lock(&self.connections);
        connections.active = connections.active.saturating_sub(1);
        drop(connections);
        let running = lock(&self.running);
        let waited = self
            .ended
            .wait_timeout_while(running, time, |running| *running);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Notes that a thread that serves connections has something to do.
    pub fn resume(&self) {
        let mut connections = lock(&self.connections);
        connections.active += 1;
        connections.rounds += 1;
    }

    /// Lets the threads that serve connections have the core. Called by the computation
    /// between two kernels.
    ///
    /// Schedulers preempt a thread that computes only when it has used up its time, after
    /// some milliseconds, if the other thread had more than its share before. By yielding,
    /// the computation would lose most of the core to a process that uses it without pause,
    /// so it stops for a while when something else has run instead.
    pub fn give_way(&self) {
        let start = Instant::now();
        let connections = lock(&self.connections);
        if connections.reserved.is_some_and(|until| start < until) {
            return;
        }
        let before = connections.rounds;
        drop(connections);
        std::thread::yield_now();
        let end = Instant::now();
        if end - start > LONG_YIELD {
            lock(&self.connections).lost(before, end);
        }
    }

    pub(super) fn start(&self) {
        *lock(&self.running) = true;
    }

    pub(super) fn end(&self) {
        *lock(&self.running) = false;
        self.ended.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_core_is_kept_from_others_and_not_from_connections() {
        let computing = Computing::default();
        let lost = |before| {
            let mut connections = lock(&computing.connections);
            connections.lost(before, Instant::now());
            connections.reserved.is_some()
        };
        computing.resume();
        assert!(!lost(1), "one has something to do");
        computing.linger(Duration::ZERO);
        assert!(!lost(0), "one had something to do");
        assert!(lost(1));
    }

    #[test]
    fn connections_linger_until_a_batch_ends() {
        let computing = Computing::default();
        computing.start();
        std::thread::scope(|scope| {
            let lingering = scope.spawn(|| {
                let start = Instant::now();
                computing.linger(Duration::from_secs(60));
                start.elapsed()
            });
            std::thread::sleep(Duration::from_millis(20));
            assert!(!lingering.is_finished());
            computing.end();
            assert!(lingering.join().unwrap() < Duration::from_secs(30));
        });
    }
}
