//! Statistics of a model's recent requests, from which the next ones are forecast.

use super::Policy;

/// The weight of a request in the usual time to the deadline.
const REQUEST_WEIGHT: f64 = 1.0 / 64.0;

/// The time constant of the arrival rate for the load, in objectives.
const LONG_MEMORY: f64 = 5.0;

/// The weight of an interval in the averages for the burstiness, which need more
/// samples.
const INTERVAL_WEIGHT: f64 = 1.0 / 512.0;

/// Bounds on the burstiness, which is estimated from few intervals at first.
const BURSTINESS: [f64; 2] = [0.5, 16.0];

/// The time constant of the share of refused requests, in objectives. A burst within an
/// objective is not overload.
const REFUSAL_MEMORY: f64 = 20.0;

/// The number of accepted requests that are assumed at the start.
const PRIOR: f64 = 20.0;

/// Moving averages over the requests of a model.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Traffic {
    /// Images per second as of the last arrival, over a short and a long time.
    rate: f64,
    long_rate: f64,
    last: f64,
    /// The mean of the reciprocal of the time from arrival to deadline.
    urgency: f64,
    /// The means of the intervals between arrivals and of their squares.
    interval: [f64; 2],
    /// Decaying counts of all requests, and of those refused or dropped.
    recent: [f64; 2],
}

impl Traffic {
    /// Notes the arrival of a request with `seconds` until its deadline.
    pub fn arrive(&mut self, now: f64, images: usize, seconds: f64, policy: &Policy) {
        let seconds = seconds.max(1e-4);
        if self.urgency == 0.0 {
            self.urgency = 1.0 / seconds;
            self.last = now;
        }
        let passed = (now - self.last).max(0.0);
        self.urgency += REQUEST_WEIGHT * (1.0 / seconds - self.urgency);
        let memory = policy.memory * self.objective();
        let long_memory = LONG_MEMORY * self.objective();
        self.rate = decayed(self.rate, passed, memory) + images as f64 / memory;
        self.long_rate = decayed(self.long_rate, passed, long_memory) + images as f64 / long_memory;
        let [mean, square] = &mut self.interval;
        *mean += INTERVAL_WEIGHT * (passed - *mean);
        *square += INTERVAL_WEIGHT * (passed * passed - *square);
        let refusal_memory = REFUSAL_MEMORY * self.objective();
        self.recent = self
            .recent
            .map(|count| decayed(count, passed, refusal_memory));
        self.recent[0] += 1.0;
        self.last = now;
    }

    /// Notes that a request was refused or dropped.
    pub fn refuse(&mut self) {
        self.recent[1] += 1.0;
    }

    /// The room to leave for images that may arrive within an objective:
    /// `policy.caution` standard deviations of their number.
    pub fn room(&self, now: f64, policy: &Policy) -> f64 {
        let objective = self.objective();
        let rate = decayed(self.rate, now - self.last, policy.memory * objective);
        let expected = rate * objective;
        policy.caution * (self.burstiness() * expected).sqrt()
    }

    /// The usual time from arrival to deadline, in seconds: the harmonic mean, so that few
    /// requests with much time do not hide the many that have little.
    pub fn objective(&self) -> f64 {
        match self.urgency > 0.0 {
            true => 1.0 / self.urgency,
            false => 0.0,
        }
    }

    /// Images per second over the last few objectives.
    pub fn long_rate(&self, now: f64) -> f64 {
        decayed(
            self.long_rate,
            now - self.last,
            LONG_MEMORY * self.objective(),
        )
    }

    /// The degree of overload: 0 if a tenth of the requests or less is refused, rising to
    /// 1 at three tenths.
    pub fn overload(&self) -> f64 {
        let [all, refused] = self.recent;
        ((refused / (all + PRIOR) - 0.1) / 0.2).clamp(0.0, 1.0)
    }

    /// The squared coefficient of variation of the intervals between arrivals: 1 for
    /// independent requests.
    pub fn burstiness(&self) -> f64 {
        let [mean, square] = self.interval;
        let [low, high] = BURSTINESS;
        (square / (mean * mean).max(1e-18) - 1.0).clamp(low, high)
    }
}

/// A decaying average after some time, in seconds.
fn decayed(average: f64, passed: f64, memory: f64) -> f64 {
    average * (-passed.max(0.0) / memory.max(1e-9)).exp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulation::{Arrivals, Phase};

    /// The traffic of two seconds with a thousand requests each.
    fn traffic(burstiness: f64) -> Traffic {
        let mut traffic = Traffic::default();
        for at in Arrivals::new(vec![Phase::steady(2.0, 1000.0)], burstiness, 1) {
            traffic.arrive(at, 1, 0.1, &Policy::default());
        }
        traffic
    }

    #[test]
    fn bursts_are_noticed() {
        for burstiness in [1.0, 4.0, 8.0] {
            let found = traffic(burstiness).burstiness();
            assert!((0.5..1.6).contains(&(found / burstiness)), "{found}");
        }
    }

    #[test]
    fn room_is_left_for_as_many_as_come_lately() {
        let policy = Policy::default();
        let mut traffic = Traffic::default();
        for arrival in 0..2000 {
            traffic.arrive(f64::from(arrival) * 1e-3, 1, 0.1, &policy);
        }
        let room = traffic.room(1.9995, &policy);
        let deviation = (BURSTINESS[0] * 100.0).sqrt();
        let expected = policy.caution * deviation;
        assert!((room / expected - 1.0).abs() < 0.1, "{room}");
        let later = traffic.room(2.2, &policy);
        assert!(
            later < 0.02 * expected,
            "no room is left once it is quiet: {later}"
        );
    }

    #[test]
    fn patient_requests_do_not_hide_urgent_ones() {
        let policy = Policy::default();
        let mut traffic = Traffic::default();
        for number in 0..2000 {
            let seconds = if number % 4 == 0 { 60.0 } else { 0.03 };
            traffic.arrive(f64::from(number) * 1e-3, 1, seconds, &policy);
        }
        assert!((0.03..0.05).contains(&traffic.objective()));
    }

    #[test]
    fn overload_is_forgotten_when_it_is_over() {
        let policy = Policy::default();
        let mut traffic = Traffic::default();
        assert_eq!(traffic.overload(), 0.0);
        for arrival in 0..5000 {
            traffic.arrive(f64::from(arrival) * 1e-3, 1, 0.02, &policy);
            if arrival % 2 == 0 {
                traffic.refuse();
            }
        }
        assert_eq!(traffic.overload(), 1.0);
        for arrival in 0..100 {
            traffic.arrive(5.0 + f64::from(arrival) * 0.05, 1, 0.02, &policy);
        }
        assert_eq!(traffic.overload(), 0.0);
    }
}
