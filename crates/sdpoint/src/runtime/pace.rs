//! How a run keeps to its timetable.

/// How far back a run remembers, as a share of the time of `full`: long
/// enough to average over a few layers, short enough to notice a load that
/// begins in the middle of the run.
const MEMORY: f64 = 0.12;

/// Standard deviations between the expected time and the one that is
/// counted on. Times have a longer tail than a normal distribution, of which
/// 99.9 % lie below.
const CAUTION: f64 = 3.0;

/// The least standard deviation of a whole run, as a share: clocks, caches
/// and neighbours are never quieter.
const LEAST_SPREAD: f64 = 0.04;

/// How much a run counts against those before it: a load that met the last
/// run is likely to meet this one.
const HABIT: f64 = 0.5;

/// The most that a run can differ from those before it to be believed.
const MOST_NEWS: f64 = 1.0;

/// The ratio of actual to expected time, and how it varies; averages that
/// forget exponentially.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pace {
    mean: f64,
    variance: f64,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            mean: 1.0,
            variance: 0.0,
        }
    }
}

impl Pace {
    /// Takes account of a stretch that took `took` seconds where `expected`
    /// were expected, in a network whose `full` takes `full` seconds.
    pub fn note(&mut self, took: f64, expected: f64, full: f64) {
        let weight = 1.0 - (-expected / (MEMORY * full)).exp();
        self.average(took / expected.max(1e-9), weight);
    }

    /// Takes account of a whole run, for those to come. One that was
    /// interrupted for long says little of the next.
    pub fn learn(&mut self, took: f64, expected: f64) {
        let ratio = took / expected.max(1e-9);
        self.average(
            self.mean + (ratio - self.mean).clamp(-MOST_NEWS, MOST_NEWS),
            HABIT,
        );
    }

    fn average(&mut self, ratio: f64, weight: f64) {
        let off = ratio - self.mean;
        self.mean += weight * off;
        self.variance = (1.0 - weight) * (self.variance + weight * off * off);
    }

    /// A time that is hardly exceeded by what is expected to take `expected`
    /// seconds. Fast and slow parts of this run partly cancel over spans
    /// longer than the memory. `spread`, the deviation of whole runs as a
    /// share, comes from disturbances that any moment may bring, so that a
    /// part's variance is its share of a run's.
    pub fn bound(&self, expected: f64, full: f64, spread: f64) -> f64 {
        let within = self.variance * expected * expected.min(MEMORY * full);
        let between = spread.max(LEAST_SPREAD).powi(2) * expected * full;
        self.mean * expected + CAUTION * (within + between).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_stretch_slows_what_is_expected() {
        let mut pace = Pace::default();
        let quiet = pace.bound(0.5, 1.0, 0.01);
        assert!((0.58..0.59).contains(&quiet), "{quiet}");
        pace.note(0.4, 0.2, 1.0);
        let loaded = pace.bound(0.5, 1.0, 0.01);
        assert!(loaded > 0.9, "{loaded}");
        // And recovers, but stays cautious for a while.
        for _ in 0..3 {
            pace.note(0.2, 0.2, 1.0);
        }
        let after = pace.bound(0.5, 1.0, 0.01);
        assert!((quiet..0.65).contains(&after), "{after}");
    }

    #[test]
    fn short_stretches_count_little() {
        let mut pace = Pace::default();
        pace.note(0.002, 0.001, 1.0);
        assert!(pace.mean < 1.02, "{pace:?}");
    }

    #[test]
    fn one_long_interruption_is_not_taken_for_a_habit() {
        let mut habit = Pace::default();
        habit.learn(100.0, 1.0);
        assert!(habit.mean < 1.6, "{habit:?}");
        for _ in 0..8 {
            habit.learn(1.0, 1.0);
        }
        assert!((habit.mean - 1.0).abs() < 0.01, "{habit:?}");
        assert!(habit.variance < 0.06 * 0.06, "{habit:?}");
        // What lasts is.
        for _ in 0..40 {
            habit.learn(2.0, 1.0);
        }
        assert!((habit.mean - 2.0).abs() < 0.05, "{habit:?}");
    }
}
