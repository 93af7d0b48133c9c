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
    yields: Mutex<Yields>,
}

impl Computing {
    /// Blocks until no batch is being computed, for at most `time`. Called by a thread that
    /// serves connections when it has nothing to do.
    pub fn linger(&self, time: Duration) {
        let running = lock(&self.running);
        let waited = self
            .ended
            .wait_timeout_while(running, time, |running| *running);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Lets the threads that serve connections have the core. Called between two kernels by
    /// the thread that starts them; threads that help it go on.
    ///
    /// A scheduler preempts a thread that computes only when it has used up its time, after
    /// some milliseconds, if the other thread had more than its share before. By yielding,
    /// the computation would lose most of the core to a process that uses it without pause,
    /// so while it loses too much, it stops yielding.
    pub fn give_way(&self) {
        let start = Instant::now();
        if lock(&self.yields).allowed(start) {
            std::thread::yield_now();
            lock(&self.yields).yielded(start, Instant::now());
        }
    }

    pub(super) fn start(&self) {
        *lock(&self.running) = true;
        lock(&self.yields).last = None;
    }

    pub(super) fn end(&self) {
        *lock(&self.running) = false;
        self.ended.notify_all();
    }
}

/// What the computation loses by yielding.
#[derive(Debug, Default)]
struct Yields {
    /// The end of the last yield, within a batch.
    last: Option<Instant>,
    /// The time between yields, and that spent in them.
    worked: Duration,
    lost: Duration,
    /// Until when not to yield.
    paused: Option<Instant>,
}

impl Yields {
    /// The time after which it is decided whether to go on.
    const WINDOW: Duration = Duration::from_millis(50);

    /// The share of that time that may be lost: connections take less under any load.
    const MOST_LOST: f64 = 0.6;

    /// How long not to yield after more was lost.
    const PAUSE: Duration = Duration::from_millis(200);

    /// Whether to yield.
    fn allowed(&mut self, now: Instant) -> bool {
        self.paused = self.paused.filter(|&until| now < until);
        self.paused.is_none()
    }

    /// Counts a yield.
    fn yielded(&mut self, start: Instant, end: Instant) {
        let last = self.last.replace(end).unwrap_or(start);
        self.worked += start.saturating_duration_since(last);
        self.lost += end.saturating_duration_since(start);
        let all = self.worked + self.lost;
        if all < Self::WINDOW {
            return;
        }
        if self.lost.as_secs_f64() > Self::MOST_LOST * all.as_secs_f64() {
            *self = Self {
                paused: Some(end + Self::PAUSE),
                ..Self::default()
            };
        }
        (self.worked, self.lost) = (Duration::ZERO, Duration::ZERO);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether it still yields after a second in which `worked` and `lost` milliseconds
    /// alternate.
    fn yields(worked: u64, lost: u64) -> bool {
        let mut yields = Yields::default();
        let [worked, lost] = [worked, lost].map(Duration::from_millis);
        let mut now = Instant::now();
        let end = now + Duration::from_secs(1);
        while now < end && yields.allowed(now) {
            yields.yielded(now, now + lost);
            now += lost + worked;
        }
        yields.allowed(now)
    }

    #[test]
    fn it_yields_until_too_much_is_lost() {
        assert!(yields(1, 0));
        assert!(yields(1, 1));
        assert!(!yields(1, 3));
    }

    #[test]
    fn it_yields_again_after_a_pause() {
        let mut yields = Yields::default();
        let now = Instant::now();
        yields.yielded(now, now + Yields::WINDOW);
        let paused = now + Yields::WINDOW;
        assert!(!yields.allowed(paused));
        assert!(yields.allowed(paused + Yields::PAUSE));
        // Only the new times count.
        yields.yielded(paused + Yields::PAUSE, paused + Yields::PAUSE);
        assert!(yields.allowed(paused + Yields::PAUSE));
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
