//! How much of the slack is spent on accuracy.

use super::admit::fitting_batch;
use super::{Policy, Situation, Waiting};

/// Compares the controller with a server that gets the same requests and always
/// runs the cheapest instance. Requests that this one would have taken, and the
/// controller refuses, are the price of accuracy.
///
/// As long as the price is below the policy's, the share of the slack that batches
/// use grows a little with every request; each request that is paid makes it
/// smaller. It is learned for each level of load on its own, so that it is there at
/// once when a load comes back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Thrift {
    /// Until when the cheapest instance would be busy.
    frugal: f64,
    /// By level of load.
    use_of_slack: [f64; LEVELS],
}

/// Levels of load: quarters of what the cheapest instance can serve.
const LEVELS: usize = 5;

/// How much less of the slack is used after a request was paid.
const STEP: f64 = 0.03;

impl Thrift {
    /// Nothing has been learned: from the most at no load, evenly down to the
    /// middle beyond capacity.
    pub fn new(policy: &Policy) -> Self {
        let [least, most] = policy.use_of_slack;
        let step = (most - least) / 2.0 / (LEVELS - 1) as f64;
        Self {
            frugal: 0.0,
            use_of_slack: std::array::from_fn(|level| most - step * level as f64),
        }
    }

    /// The share of the slack that a batch uses, at a load relative to what the
    /// cheapest instance can serve.
    pub fn use_of_slack(&self, load: f64) -> f64 {
        self.use_of_slack[level(load)]
    }

    /// A request was taken or refused.
    pub fn decide<T>(
        &mut self,
        taken: bool,
        new: &Waiting<T>,
        load: f64,
        situation: &Situation<'_>,
        policy: &Policy,
    ) {
        let Situation {
            now, costs, pace, ..
        } = *situation;
        let seconds = new.request.deadline - now;
        let batch = fitting_batch(seconds, costs, pace);
        let own = new.work() + costs.start_up() / batch as f64;
        let before = (self.frugal - now).max(0.0);
        let busy = before + pace.expected(own) * situation.share();
        // As the controller admits requests, with the start-up of one batch.
        let work = busy / pace.expected(1.0) + costs.start_up();
        let frugal = costs.table(batch).bound(work, pace) <= seconds;
        if frugal {
            self.frugal = now + busy;
        }
        let price = f64::from(u8::from(frugal)) - f64::from(u8::from(taken));
        self.pay(price, load, policy);
    }

    /// A request that had been taken was dropped.
    pub fn drop_one(&mut self, load: f64, policy: &Policy) {
        self.pay(1.0, load, policy);
    }

    fn pay(&mut self, price: f64, load: f64, policy: &Policy) {
        let [least, most] = policy.use_of_slack;
        let share = &mut self.use_of_slack[level(load)];
        *share = (*share + STEP * (policy.price - price)).clamp(least, most);
    }
}

fn level(load: f64) -> usize {
    ((4.0 * load) as usize).min(LEVELS - 1)
}

#[cfg(test)]
mod tests {
    use sdpoint::Pace;

    use super::super::{Demand, Outlook, Request};
    use super::*;
    use crate::simulation::example_costs;

    /// What is learned from requests that have `seconds` each, a millisecond
    /// apart, of which every fifth is refused.
    fn learned(seconds: f64) -> Thrift {
        let (costs, pace, policy) = (example_costs(8), Pace::default(), Policy::default());
        let mut thrift = Thrift::new(&policy);
        for number in 0..2000 {
            let now = f64::from(number) * 1e-3;
            let situation = Situation {
                now,
                costs: &costs,
                pace: &pace,
                outlook: Outlook::QUIET,
                models: 1,
                duty: 1.0,
                wanted: f64::INFINITY,
            };
            let request = Request {
                images: 1,
                deadline: now + seconds,
                late: false,
                demand: Demand::ANY,
                tag: (),
            };
            let new = Waiting::new(request, now, &costs, &pace).unwrap();
            thrift.decide(number % 5 != 0, &new, 0.6, &situation, &policy);
        }
        thrift
    }

    #[test]
    fn refusals_that_the_cheapest_instance_would_not_need_are_dear() {
        let [least, most] = Policy::default().use_of_slack;
        let paid = learned(0.01);
        assert_eq!(paid.use_of_slack(0.6), least);
        assert_eq!(
            paid.use_of_slack(0.2),
            most,
            "another load is another matter"
        );
        // In half a millisecond, no instance can answer.
        let inevitable = learned(0.0005);
        assert_eq!(inevitable.use_of_slack(0.6), most);
    }
}
