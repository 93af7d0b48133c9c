//! Learns the share of slack: how much time is spent on accuracy.

use super::admit::Refused;
use super::load::PerLevel;
use super::{Costs, Policy, Situation, Waiting};

/// Compares the controller with a virtual server that gets the same requests and always
/// runs the cheapest instance. A request that the controller refuses and the virtual server
/// would have accepted is the price of accuracy.
///
/// How far ahead the virtual server is follows from the batches that ran, not from
/// forecasts: where a machine is slower than expected, both servers are.
///
/// While the price is below the policy's, the share of slack grows a little with every
/// request, the more the longer there was no such refusal; each one reduces it. Requests that leave
/// no choice of an instance do not change it. The share is learned separately for each level
/// of load, so that it is known when a load returns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct SlackShare {
    /// By how much earlier the virtual server would have finished all its work, in seconds.
    ahead: f64,
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
    /// The initial shares: the maximum without load, decreasing linearly to the minimum beyond
    /// capacity.
    pub fn new(policy: &Policy) -> Self {
        let [least, most] = policy.use_of_slack;
        let of_last = |level, last| level as f64 / last as f64;
        Self {
            ahead: 0.0,
            calm: 0.0,
            use_of_slack: PerLevel::new(|level, last| most - of_last(level, last) * (most - least)),
        }
    }

    /// The share of slack at a load relative to capacity.
    pub fn use_of_slack(&self, load: f64) -> f64 {
        self.use_of_slack.at(load)
    }

    /// Notes that a batch took so many seconds, and the share of them that its cheapest
    /// instance would have taken.
    pub fn spend(&mut self, seconds: f64, cheapest: f64) {
        self.ahead += seconds * (1.0 - cheapest).max(0.0);
    }

    /// Notes that a request was accepted or refused, after so many seconds of other work.
    pub fn note<T>(
        &mut self,
        admitted: Result<(), Refused>,
        new: &Waiting<T>,
        backlog: f64,
        load: f64,
        situation: &Situation<'_>,
        policy: &Policy,
    ) {
        // A server without work is not ahead of another one.
        self.ahead = match backlog > 0.0 {
            true => self.ahead.min(backlog),
            false => 0.0,
        };
        let own = new.work() + situation.costs.start_up() / new.batch as f64;
        let own = situation.pace.expected(own) * situation.share;
        let late = match admitted {
            Ok(()) => 0.0,
            Err(Refused::Late { by }) => by,
            // The virtual server has room once it has answered one request more.
            Err(Refused::Full { .. } | Refused::NoInstance) => own,
        };
        let avoidable = admitted.is_err() && late <= self.ahead;
        if avoidable {
            self.ahead -= own;
        }
        let price = f64::from(u8::from(avoidable));
        self.adjust(price, new, load, situation.costs, policy);
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

    /// A request with 50 ms until its deadline.
    fn arriving(now: f64, costs: &Costs, pace: &Pace) -> Waiting<()> {
        let request = Request {
            images: 1,
            deadline: now + 0.05,
            grace: 0.0,
            demand: Demand::ANY,
            tag: (),
        };
        Waiting::new(request, &Reserve::none(), 0.0, now, costs, pace).unwrap()
    }

    /// The state after requests a millisecond apart, of which every fifth is refused because it
    /// would be a millisecond late. Each batch takes two milliseconds, and `cheapest` of them in
    /// the cheapest instance.
    fn learned(cheapest: f64) -> SlackShare {
        let (costs, pace, policy) = (example_costs(8), Pace::default(), Policy::default());
        let mut slack_share = SlackShare::new(&policy);
        for number in 0..2000 {
            let now = f64::from(number) * 1e-3;
            let situation = Situation::quiet(now, &costs, &pace);
            let new = arriving(now, &costs, &pace);
            let taken = match number % 5 {
                0 => Err(Refused::Late { by: 1e-3 }),
                _ => Ok(()),
            };
            slack_share.note(taken, &new, 0.05, 0.6, &situation, &policy);
            slack_share.spend(2e-3, cheapest);
        }
        slack_share
    }

    #[test]
    fn only_refusals_that_the_cheapest_instance_avoids_reduce_the_share() {
        let [least, _] = Policy::default().use_of_slack;
        let initial = SlackShare::new(&Policy::default());
        let avoidable = learned(0.5);
        assert!(avoidable.use_of_slack(0.6) < least + 0.001);
        assert_eq!(
            avoidable.use_of_slack(0.2),
            initial.use_of_slack(0.2),
            "each level of load learns on its own"
        );
        let inevitable = learned(1.0);
        assert!(inevitable.use_of_slack(0.6) > initial.use_of_slack(0.6));
    }

    #[test]
    fn time_that_was_spent_counts_until_the_server_is_idle() {
        let (costs, pace, policy) = (example_costs(8), Pace::default(), Policy::default());
        let situation = Situation::quiet(0.0, &costs, &pace);
        let new = arriving(0.0, &costs, &pace);
        let before = SlackShare::new(&policy).use_of_slack(0.6);
        let refuse = |slack_share: &mut SlackShare| {
            let late = Err(Refused::Late { by: 1e-3 });
            slack_share.note(late, &new, 0.05, 0.6, &situation, &policy);
            slack_share.use_of_slack(0.6)
        };
        let mut slack_share = SlackShare::new(&policy);
        slack_share.spend(4e-3, 0.5);
        let mut idle = slack_share;
        idle.note(Ok(()), &new, 0.0, 0.2, &situation, &policy);
        assert!(refuse(&mut slack_share) < before);
        assert!(refuse(&mut idle) >= before);
    }
}
