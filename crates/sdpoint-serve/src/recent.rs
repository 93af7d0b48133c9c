//! What a model did in each of the last seconds, for the page.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::Reply;

/// The number of seconds that are kept: two minutes and the current second.
const KEPT: u64 = 121;

/// The number of complete seconds that [`Summary`] covers.
const SUMMARISED: u64 = 5;

/// The requests of the last two minutes, by second.
#[derive(Debug)]
pub struct Recent {
    start: Instant,
    /// Seconds with requests, in order.
    seconds: Mutex<VecDeque<Second>>,
}

/// The requests that ended in a second.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Second {
    /// The number of the second since the server started.
    pub at: u64,
    /// Requests that were answered.
    pub answered: u64,
    /// Requests that were refused, or whose deadline passed.
    pub refused: u64,
    /// Their images.
    pub refused_images: u64,
    /// Requests that met their deadline.
    pub met: u64,
    /// Answered images by instance.
    pub images: BTreeMap<String, u64>,
    /// Times from arrival to answer.
    pub times: Times,
}

/// The last few complete seconds together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// Requests per second that were answered.
    pub answered: f64,
    /// The share of requests that met their deadline, if there were any.
    pub met: Option<f64>,
    /// Times from arrival to answer.
    pub times: Times,
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            seconds: Mutex::default(),
        }
    }
}

impl Recent {
    /// Counts an answer that took `whole`.
    pub fn answered(&self, reply: &Reply, whole: Duration, met: bool) {
        self.count(|second| {
            second.answered += 1;
            second.met += u64::from(met);
            second.times.add(whole);
            for (name, images) in reply.answered_by() {
                *second.images.entry(name).or_default() += images as u64;
            }
        });
    }

    /// Counts a request with some images that was refused, or whose deadline passed.
    pub fn refused(&self, images: usize) {
        self.count(|second| {
            second.refused += 1;
            second.refused_images += images as u64;
        });
    }

    /// The current second.
    pub fn now(&self) -> u64 {
        self.start.elapsed().as_secs()
    }

    /// The seconds with requests after a given one, oldest first, of those that are kept.
    pub fn after(&self, at: Option<u64>) -> Vec<Second> {
        let oldest = (self.now() + 1).saturating_sub(KEPT);
        let first = at.map_or(0, |at| at.saturating_add(1)).max(oldest);
        let seconds = self.lock();
        let wanted = seconds.iter().filter(|second| second.at >= first);
        wanted.cloned().collect()
    }

    /// The last few complete seconds together.
    pub fn summary(&self) -> Summary {
        self.summary_at(self.now())
    }

    fn summary_at(&self, now: u64) -> Summary {
        let window = now.saturating_sub(SUMMARISED)..now;
        let mut times = Times::default();
        let (mut answered, mut refused, mut met) = (0, 0, 0);
        for second in self.lock().iter().filter(|s| window.contains(&s.at)) {
            times.merge(&second.times);
            answered += second.answered;
            refused += second.refused;
            met += second.met;
        }
        let all = answered + refused;
        Summary {
            answered: answered as f64 / (window.end - window.start).max(1) as f64,
            met: (all > 0).then(|| met as f64 / all as f64),
            times,
        }
    }

    fn count(&self, change: impl FnOnce(&mut Second)) {
        self.count_at(self.now(), change);
    }

    fn count_at(&self, now: u64, change: impl FnOnce(&mut Second)) {
        let mut seconds = self.lock();
        // Threads may arrive here out of order: the newest second takes what is older.
        if seconds.back().is_none_or(|last| last.at < now) {
            seconds.push_back(Second {
                at: now,
                ..Second::default()
            });
            while seconds.front().is_some_and(|first| first.at + KEPT <= now) {
                seconds.pop_front();
            }
        }
        if let Some(last) = seconds.back_mut() {
            change(last);
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Second>> {
        self.seconds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A histogram of times, with eight buckets for each doubling: percentiles are exact to
/// 5 %, in constant memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Times([u32; Times::BUCKETS]);

impl Default for Times {
    fn default() -> Self {
        Self([0; Self::BUCKETS])
    }
}

impl Times {
    /// From 16 µs to over a minute.
    const BUCKETS: usize = 8 * 22;
    const LEAST: f64 = 16e-6;

    fn add(&mut self, time: Duration) {
        let doublings = (time.as_secs_f64() / Self::LEAST).max(1.0).log2();
        let bucket = ((8.0 * doublings) as usize).min(Self::BUCKETS - 1);
        self.0[bucket] = self.0[bucket].saturating_add(1);
    }

    fn merge(&mut self, other: &Self) {
        for (count, more) in std::iter::zip(&mut self.0, &other.0) {
            *count = count.saturating_add(*more);
        }
    }

    /// The time that this share of the times does not exceed; none without times.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let all: u64 = self.0.iter().map(|&count| u64::from(count)).sum();
        let rank = (share * all as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        let bucket = self.0.iter().position(|&count| {
            seen += u64::from(count);
            seen >= rank
        })?;
        let middle = Self::LEAST * ((bucket as f64 + 0.5) / 8.0).exp2();
        Some(Duration::from_secs_f64(middle))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(recent: &Recent, at: u64, met: bool) {
        recent.count_at(at, |second| {
            second.answered += 1;
            second.met += u64::from(met);
            second.times.add(Duration::from_millis(10));
        });
    }

    #[test]
    fn seconds_are_kept_for_two_minutes() {
        let recent = Recent::default();
        for at in [0, 0, 3, 2, 120, 121] {
            count(&recent, at, true);
        }
        let seconds = recent.lock();
        let kept: Vec<(u64, u64)> = seconds.iter().map(|s| (s.at, s.answered)).collect();
        // The late one of second 2 is counted in second 3.
        assert_eq!(kept, [(3, 2), (120, 1), (121, 1)]);
    }

    #[test]
    fn only_new_seconds_are_returned() {
        let recent = Recent::default();
        recent.refused(7);
        assert_eq!(recent.after(None).len(), 1);
        assert_eq!(recent.after(None)[0].refused, 1);
        assert_eq!(recent.after(None)[0].refused_images, 7);
        assert_eq!(recent.after(Some(recent.now())), []);
        assert_eq!(recent.after(Some(u64::MAX)), []);
    }

    #[test]
    fn the_summary_covers_complete_seconds() {
        let recent = Recent::default();
        for (at, met) in [(4, true), (7, true), (8, false), (9, true), (10, true)] {
            count(&recent, at, met);
        }
        let summary = recent.summary_at(10);
        assert_eq!(summary.answered, 3.0 / 5.0);
        assert_eq!(summary.met, Some(2.0 / 3.0));
        assert_eq!(recent.summary_at(60).met, None);
        assert_eq!(recent.summary_at(60).times.quantile(0.5), None);
    }

    #[test]
    fn percentiles_are_within_five_per_cent() {
        let mut times = Times::default();
        for ms in 1..=1000 {
            times.add(Duration::from_millis(ms));
        }
        for (share, expected) in [(0.5, 0.5), (0.99, 0.99), (0.0, 0.001), (1.0, 1.0)] {
            let actual = times.quantile(share).unwrap().as_secs_f64();
            assert!((actual / expected - 1.0).abs() < 0.06, "{share}: {actual}");
        }
        for extreme in [Duration::ZERO, Duration::MAX] {
            times.add(extreme);
        }
    }
}
