//! The ratio of actual to expected time of a run.

/// The time constant of the moving average within a run, as a share of the
/// time of `full`: long enough to average over a few layers, short enough to
/// react to a load that starts in the middle of the run.
const TIME_CONSTANT: f64 = 0.12;

/// The safety margin on expected times, in standard deviations. Of a normal
/// distribution, 99.9 % are below 3; latencies have a longer tail.
const SAFETY_MARGIN: f64 = 3.0;

/// The least relative standard deviation of a whole run: a floor for the noise
/// of clock frequency, caches and other processes.
const LEAST_SPREAD: f64 = 0.04;

/// The weight of a run in the moving average over runs: a load during the last
/// run is likely to persist.
const RUN_WEIGHT: f64 = 0.5;

/// The time constant, in seconds, with which a ratio is forgotten while nothing runs.
const IDLE_TIME_CONSTANT: f64 = 1.0;

/// The largest change of the ratio that one run can contribute to the average.
const MAX_CHANGE: f64 = 1.0;

/// The pace of runs compared with their timetables: exponential moving averages of the
/// ratio of actual to expected time and of its variance. By default, the ratio is 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
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
    /// Updates the averages with a stretch that took `took` seconds instead of
    /// `expected`, in a network whose `full` takes `full` seconds.
    pub fn note(&mut self, took: f64, expected: f64, full: f64) {
        let weight = 1.0 - (-expected / (TIME_CONSTANT * full)).exp();
        self.average(took / expected.max(1e-9), weight);
    }

    /// Updates the averages with a whole run, for the next ones. The change is
    /// clamped, because a run that was preempted for long does not predict the
    /// next.
    pub fn learn(&mut self, took: f64, expected: f64) {
        let ratio = took / expected.max(1e-9);
        self.average(
            self.mean + (ratio - self.mean).clamp(-MAX_CHANGE, MAX_CHANGE),
            RUN_WEIGHT,
        );
    }

    /// The pace to assume after `idle` seconds without a run: a load may have ended since
    /// the last one, which nothing else would show.
    pub fn after_idle(&self, idle: f64) -> Self {
        let kept = (-idle.max(0.0) / IDLE_TIME_CONSTANT).exp();
        Self {
            mean: 1.0 + kept * (self.mean - 1.0),
            variance: kept * self.variance,
        }
    }

    fn average(&mut self, ratio: f64, weight: f64) {
        let off = ratio - self.mean;
        self.mean += weight * off;
        self.variance = (1.0 - weight) * (self.variance + weight * off * off);
    }

    /// The expected time, at this pace, of what takes `expected` seconds according
    /// to the timetable.
    pub fn expected(&self, expected: f64) -> f64 {
        self.mean * expected
    }

    /// An upper bound, with a safety margin, on the time of a part of the run
    /// that is expected to take `expected` seconds.
    ///
    /// Two variances add up. Variation within this run averages out over parts
    /// longer than the time constant. `spread`, the relative standard deviation
    /// between runs, is attributed to independent disturbances, so a part's
    /// variance is proportional to its length.
    pub fn bound(&self, expected: f64, full: f64, spread: f64) -> f64 {
        let within = self.variance * expected * expected.min(TIME_CONSTANT * full);
        let between = spread.max(LEAST_SPREAD).powi(2) * expected * full;
        self.expected(expected) + SAFETY_MARGIN * (within + between).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_stretch_raises_the_bound() {
        let mut pace = Pace::default();
        let quiet = pace.bound(0.5, 1.0, 0.01);
        assert!((0.58..0.59).contains(&quiet), "{quiet}");
        pace.note(0.4, 0.2, 1.0);
        let loaded = pace.bound(0.5, 1.0, 0.01);
        assert!(loaded > 0.9, "{loaded}");
        // It recovers, with an increased variance for a while.
        for _ in 0..3 {
            pace.note(0.2, 0.2, 1.0);
        }
        let after = pace.bound(0.5, 1.0, 0.01);
        assert!((quiet..0.65).contains(&after), "{after}");
    }

    #[test]
    fn a_pace_is_forgotten_while_nothing_runs() {
        let mut pace = Pace::default();
        for _ in 0..20 {
            pace.learn(9.0, 1.0);
        }
        assert_eq!(pace.after_idle(0.0), pace);
        let later = pace.after_idle(5.0);
        assert!((1.0..1.1).contains(&later.mean), "{later:?}");
        assert!(later.variance < pace.variance);
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
