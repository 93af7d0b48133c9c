//! Learns by how much forecasts err.

use super::load::PerLevel;

/// The share of accepted requests that may miss their deadlines.
const MISSES: f64 = 0.002;

/// The increase of the reserve by one miss.
const STEP: f64 = 0.01;

/// The largest increase within an objective: what makes all queued requests late at
/// once, such as a suspended process, is one event and says little about the next ones.
const MOST_AT_ONCE: f64 = 0.05;

/// The reserve at overload, at the start.
const FIRST: f64 = 0.1;

/// The largest reserve.
const MOST: f64 = 0.5;

/// The weights of an answer in the time of delivery, if it took longer and if it took less: the
/// average is near the 95th percentile.
const DELIVERY_WEIGHTS: [f64; 2] = [0.05, 0.0025];

/// The largest change by one answer, in times of delivery so far and in seconds.
const DELIVERY_STEP: [f64; 2] = [1.0, 1e-3];

/// How much earlier than at its deadline a request is planned to end, and admission expects it
/// to end.
///
/// *Delivery* is the time from the end of a batch until its answers are sent. A batch is planned to
/// end so much before the first of its deadlines.
///
/// The *reserve* is for errors of forecasts. Under overload, the queue is as long as admission lets
/// it become. If the last request in it is only just expected to be in time, a small error makes it
/// late, and all after it. So admission expects an answer earlier, by a share of the time until the
/// deadline, which grows with each accepted request that misses its deadline and shrinks a little
/// with each that meets it, so that the share of misses tends to a small constant. It is learned
/// separately for each level of load: bursts at a low load are not refused for what an overload
/// would need.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Reserve {
    share: PerLevel,
    /// The increase within the current objective, and when that began.
    increase: f64,
    since: f64,
    /// In seconds.
    delivery: f64,
}

impl Default for Reserve {
    fn default() -> Self {
        Self::new(FIRST)
    }
}

impl Reserve {
    /// With this share at overload, and less at lower loads.
    fn new(share: f64) -> Self {
        Self {
            share: PerLevel::new(|level, last| share * level as f64 / last as f64),
            increase: 0.0,
            since: 0.0,
            delivery: 0.0,
        }
    }

    /// No reserve, and no time for delivery.
    #[cfg(test)]
    pub fn none() -> Self {
        Self::new(0.0)
    }

    /// Notes whether an accepted request missed its deadline, at a load relative to capacity.
    /// `objective` is the usual time from arrival to deadline, in seconds.
    pub fn note(&mut self, now: f64, missed: bool, load: f64, objective: f64) {
        if now - self.since > objective {
            self.increase = 0.0;
            self.since = now;
        }
        let mut step = -STEP * MISSES;
        if missed {
            step = STEP.min(MOST_AT_ONCE - self.increase);
            self.increase += step;
        }
        let share = self.share.at_mut(load);
        *share = (*share + step).clamp(0.0, MOST);
    }

    /// Notes the time from the end of a batch until an answer was sent, in seconds.
    pub fn note_delivery(&mut self, time: f64) {
        let off = time - self.delivery;
        let [more, less] = DELIVERY_WEIGHTS;
        let [relative, absolute] = DELIVERY_STEP;
        let step = off * if off > 0.0 { more } else { less };
        self.delivery += step.min(relative * self.delivery + absolute);
    }

    /// The time by which the batch of a request with this deadline has to end.
    pub fn plan(&self, deadline: f64, now: f64) -> f64 {
        // A request has half of its time at least, whatever deliveries took.
        deadline - self.delivery.min(0.5 * (deadline - now).max(0.0))
    }

    /// The time by which admission has to expect it to end, at a load relative to capacity.
    pub fn promise(&self, deadline: f64, load: f64, now: f64) -> f64 {
        let plan = self.plan(deadline, now);
        plan - self.share.at(load) * (plan - now).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_settles_where_misses_are_rare() {
        // Answers take a tenth longer than expected, and vary by some percent.
        let mut reserve = Reserve::default();
        let mut missed = 0;
        for number in 0..20_000 {
            let now = f64::from(number) * 1e-3;
            let error = 0.1 + 0.03 * f64::from(number * 7 % 100) / 100.0;
            let late = reserve.promise(1.0, 2.0, 0.0) + error > 1.0;
            reserve.note(now, late, 2.0, 0.05);
            missed += usize::from(late && number >= 5000);
        }
        assert!((0.1..0.14).contains(&reserve.share.at(2.0)), "{reserve:?}");
        assert_eq!(reserve.share.at(0.5), FIRST / 2.0);
        assert!(missed < 60, "{missed} of 15,000");
    }

    #[test]
    fn one_event_is_not_taken_for_a_habit() {
        let mut reserve = Reserve::none();
        for _ in 0..100 {
            reserve.note(1.0, true, 0.5, 0.05);
        }
        assert_eq!(reserve.share.at(0.5), MOST_AT_ONCE);
        for number in 0..3000 {
            reserve.note(1.0 + f64::from(number) * 1e-3, false, 0.5, 0.05);
        }
        assert_eq!(reserve.share.at(0.5), 0.0);
        reserve.note_delivery(60.0);
        assert!(reserve.delivery <= 1e-3, "{reserve:?}");
    }

    #[test]
    fn delivery_is_a_high_percentile() {
        let mut reserve = Reserve::default();
        for number in 0..50_000 {
            // Uniform from 1 to 3 ms.
            reserve.note_delivery(1e-3 + 2e-5 * f64::from(number * 7 % 100));
        }
        assert!((2.5e-3..3e-3).contains(&reserve.delivery), "{reserve:?}");
        assert_eq!(reserve.plan(1.0, 0.0), 1.0 - reserve.delivery);
        assert_eq!(reserve.plan(1e-3, 0.0), 0.5e-3);
    }
}
