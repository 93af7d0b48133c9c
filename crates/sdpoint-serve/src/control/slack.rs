//! Learns the share of slack: how much time is spent on accuracy.

use super::admit::fitting_batch;
use super::load::PerLevel;
use super::{Costs, Policy, Situation, Waiting};

/// Compares the controller with a virtual server that gets the same requests and always
/// runs the cheapest instance. A request that the controller refuses and the virtual server
/// would have accepted is the price of accuracy.
///
/// While this price is below the policy's, the share of slack grows a little with every
/// request, the more the longer there was no such refusal; each one reduces it. Requests that leave
/// no choice of an instance do not change it. The share is learned separately for each level
/// of load, so that it is known when a load returns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct SlackShare {
    /// The time until which the virtual server is busy.
    busy_until: f64,
    /// The share of slack.
    use_of_slack: PerLevel,
    /// Requests since the last avoidable refusal.
    calm: f64,
}

/// The reduction of the share of slack by one refusal.
const STEP: f64 = 0.03;

/// Requests without a refusal after which the share grows by twice as much with each, and so on:
/// what a burst or a slow machine has taken is given back within a few thousand requests.
const CALM: f64 = 500.0;

impl SlackShare {
    /// The initial shares: the maximum without load, decreasing linearly to the middle of
    /// the range beyond capacity.
    pub fn new(policy: &Policy) -> Self {
        let [least, most] = policy.use_of_slack;
        let of_last = |level, last| level as f64 / last as f64;
        Self {
            busy_until: 0.0,
            calm: 0.0,
            use_of_slack: PerLevel::new(|level, last| {
                most - of_last(level, last) * (most - least) / 2.0
            }),
        }
    }

    /// The share of slack at a load relative to capacity.
    pub fn use_of_slack(&self, load: f64) -> f64 {
        self.use_of_slack.at(load)
    }

    /// Notes that a request was accepted or refused.
    pub fn note<T>(
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
        let seconds = new.deadline - now;
        let batch = fitting_batch(seconds, costs, pace);
        let own = new.work() + costs.start_up() / batch as f64;
        let before = (self.busy_until - now).max(0.0);
        let busy = before + pace.expected(own) * situation.share();
        // The same check as at admission, with the fixed time of one batch.
        let work = busy / pace.expected(1.0) + costs.start_up();
        let accepted = pace.expected(work) <= seconds;
        if accepted {
            self.busy_until = now + busy;
        }
        let price = f64::from(u8::from(accepted)) - f64::from(u8::from(taken));
        self.adjust(price, new, load, costs, policy);
    }

    /// Notes that an accepted request was dropped.
    pub fn note_dropped<T>(
        &mut self,
        dropped: &Waiting<T>,
        load: f64,
        costs: &Costs,
        policy: &Policy,
    ) {
        self.adjust(1.0, dropped, load, costs, policy);
    }

    /// Adjusts the share after a request of this price, if the request leaves a choice.
    fn adjust<T>(
        &mut self,
        price: f64,
        waiting: &Waiting<T>,
        load: f64,
        costs: &Costs,
        policy: &Policy,
    ) {
        if !costs.offers_choice(&waiting.request.demand) {
            return;
        }
        let [least, most] = policy.use_of_slack;
        self.calm = if price > 0.0 { 0.0 } else { self.calm + 1.0 };
        let growth = policy.price * (1.0 + self.calm / CALM);
        let share = self.use_of_slack.at_mut(load);
        *share = (*share + STEP * (growth - price)).clamp(least, most);
    }
}

#[cfg(test)]
mod tests {
    use sdpoint::Pace;

    use super::super::reserve::Reserve;
    use super::super::{Demand, Request};
    use super::*;
    use crate::simulation::example_costs;

    /// The state after requests a millisecond apart, each with `seconds` until its
    /// deadline, of which every fifth is refused.
    fn learned(seconds: f64) -> SlackShare {
        let (costs, pace, policy) = (example_costs(8), Pace::default(), Policy::default());
        let mut slack_share = SlackShare::new(&policy);
        for number in 0..2000 {
            let now = f64::from(number) * 1e-3;
            let situation = Situation::quiet(now, &costs, &pace);
            let request = Request {
                images: 1,
                deadline: now + seconds,
                late: false,
                demand: Demand::ANY,
                tag: (),
            };
            let new = Waiting::new(request, &Reserve::none(), 0.0, now, &costs, &pace).unwrap();
            slack_share.note(number % 5 != 0, &new, 0.6, &situation, &policy);
        }
        slack_share
    }

    #[test]
    fn only_refusals_that_the_cheapest_instance_avoids_reduce_the_share() {
        let [least, most] = Policy::default().use_of_slack;
        let avoidable = learned(0.01);
        assert!(avoidable.use_of_slack(0.6) < least + 0.001);
        assert_eq!(
            avoidable.use_of_slack(0.2),
            most,
            "each level of load learns on its own"
        );
        // No instance can answer in half a millisecond.
        let inevitable = learned(0.0005);
        assert_eq!(inevitable.use_of_slack(0.6), most);
    }
}
