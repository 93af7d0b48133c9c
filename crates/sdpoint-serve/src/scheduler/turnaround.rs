//! How much longer batches take from start to start than to compute.

use std::time::{Duration, Instant};

/// The weight of a batch relative to the next one.
const EARLIER: f64 = 0.9;

/// The most that is believed, in times of a batch: a suspended process is not slow.
const MOST: f64 = 2.0;

/// Learns the time between the end of a batch and the start of the next one while requests are
/// waiting. With small networks on few cores it is long: answers are sent and requests received,
/// refused ones too, on the cores that compute.
#[derive(Debug, Default)]
pub(super) struct Turnaround {
    /// When the last batch ended, and how long it took.
    last: Option<(Instant, Duration)>,
    /// Weighted sums of the times between batches and of those before them, in seconds.
    between: f64,
    computed: f64,
}

impl Turnaround {
    /// Notes the start of a batch. `idle` is whether no request was waiting before.
    pub(super) fn started(&mut self, now: Instant, idle: bool) {
        let Some((ended, computed)) = self.last.take() else {
            return;
        };
        if !idle {
            let computed = computed.as_secs_f64();
            let between = now.saturating_duration_since(ended).as_secs_f64();
            self.between = EARLIER * self.between + between.min(MOST * computed);
            self.computed = EARLIER * self.computed + computed;
        }
    }

    /// Notes the end of a batch.
    pub(super) fn ended(&mut self, now: Instant, computed: Duration) {
        self.last = Some((now, computed));
    }

    /// The ratio of the time between the starts of two batches to the time of a batch.
    pub(super) fn duty(&self) -> f64 {
        if self.computed > 0.0 {
            1.0 + self.between / self.computed
        } else {
            1.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_times_in_which_requests_wait_count() {
        let mut turnaround = Turnaround::default();
        assert_eq!(turnaround.duty(), 1.0);
        let mut now = Instant::now();
        let mut batch = |turnaround: &mut Turnaround, between: u64, idle: bool| {
            now += Duration::from_millis(between);
            turnaround.started(now, idle);
            now += Duration::from_millis(10);
            turnaround.ended(now, Duration::from_millis(10));
        };
        batch(&mut turnaround, 0, true);
        batch(&mut turnaround, 500, true);
        assert_eq!(turnaround.duty(), 1.0);
        for _ in 0..100 {
            batch(&mut turnaround, 5, false);
        }
        assert!((turnaround.duty() - 1.5).abs() < 1e-9);
        // It follows a change within some twenty batches, and no single one far.
        batch(&mut turnaround, 10, false);
        assert!((turnaround.duty() - 1.55).abs() < 1e-4);
        for _ in 0..20 {
            batch(&mut turnaround, 0, false);
        }
        assert!(turnaround.duty() < 1.1);
        batch(&mut turnaround, 60_000, false);
        assert!(turnaround.duty() < 1.3);
    }
}
