//! What a model's recent requests say about the next ones.

use super::{Outlook, Policy};

/// The weight of a request in the moving averages over requests.
const REQUEST_WEIGHT: f64 = 1.0 / 64.0;

/// The weight of a request in the share that is refused. A burst that is over
/// within an objective should not count as overload.
const REFUSAL_WEIGHT: f64 = 1.0 / 512.0;

/// Moving averages over the requests of a model.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Traffic {
    /// Images that arrive, a second, as of the last arrival.
    rate: f64,
    last: f64,
    /// The mean time from arrival to deadline, in seconds.
    objective: f64,
    /// The share of requests that are refused or dropped.
    refused: f64,
}

impl Traffic {
    /// A request has arrived, with `seconds` until its deadline.
    pub fn arrive(&mut self, now: f64, images: usize, seconds: f64, policy: &Policy) {
        let seconds = seconds.max(1e-4);
        if self.objective == 0.0 {
            self.objective = seconds;
        }
        self.objective += REQUEST_WEIGHT * (seconds - self.objective);
        let memory = policy.memory * self.objective;
        self.rate = self.decayed(now, policy) + images as f64 / memory;
        self.last = now;
    }

    /// A request was taken or refused.
    pub fn decided(&mut self, refused: bool) {
        self.refused += REFUSAL_WEIGHT * (f64::from(u8::from(refused)) - self.refused);
    }

    /// What to expect.
    pub fn outlook(&self, now: f64, policy: &Policy) -> Outlook {
        // Filling batches pays off only under lasting overload: none of it where a
        // tenth is refused, all of it where three tenths are.
        let fill = ((self.refused - 0.1) / 0.2).clamp(0.0, 1.0);
        Outlook {
            to_come: self.decayed(now, policy) * policy.foresight * self.objective,
            use_of_slack: policy.use_of_slack / (1.0 + policy.restraint * self.refused),
            fill,
        }
    }

    fn decayed(&self, now: f64, policy: &Policy) -> f64 {
        let memory = (policy.memory * self.objective).max(1e-9);
        self.rate * (-(now - self.last).max(0.0) / memory).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steady_arrivals_are_expected_to_go_on() {
        let policy = Policy::default();
        let mut traffic = Traffic::default();
        for arrival in 0..1000 {
            traffic.arrive(f64::from(arrival) * 1e-3, 2, 0.1, &policy);
        }
        let to_come = traffic.outlook(0.9995, &policy).to_come;
        let expected = 2000.0 * policy.foresight * 0.1;
        assert!((to_come / expected - 1.0).abs() < 0.05, "{to_come}");
        let later = traffic.outlook(1.1, &policy).to_come;
        assert!(later < 0.02 * expected, "it is quiet now: {later}");
    }

    #[test]
    fn refusals_make_it_careful() {
        let policy = Policy::default();
        let mut traffic = Traffic::default();
        assert_eq!(traffic.outlook(0.0, &policy).fill, 0.0);
        for number in 0..5000 {
            traffic.decided(number % 2 == 0);
        }
        let outlook = traffic.outlook(0.0, &policy);
        assert_eq!(outlook.fill, 1.0);
        assert!(outlook.use_of_slack < 0.3 * policy.use_of_slack);
        for _ in 0..5000 {
            traffic.decided(false);
        }
        let outlook = traffic.outlook(0.0, &policy);
        assert_eq!(outlook.fill, 0.0);
        assert!(outlook.use_of_slack > 0.99 * policy.use_of_slack);
    }
}
