//! Simulates the controller under a load.

use sdpoint::{Decision, Instance, Pace, Progress};

use super::Machine;
use crate::control::{Batch, Controller, Costs, Demand, Due, ModelId, Policy, Request};

/// The requests of a simulation.
#[derive(Clone, Debug)]
pub struct Load {
    /// The times of arrivals, ascending, in seconds.
    pub arrivals: Vec<f64>,
    /// The time from arrival to deadline, in seconds.
    pub objective: f64,
    /// Whether the requests have deadlines of their own. If not, it is the server's objective, which
    /// they [may exceed](Controller::grace) where there is no load to shed.
    pub strict: bool,
    /// The instances that each request allows.
    pub demand: Demand,
}

/// The outcome of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// It was answered.
    Answered {
        /// The time of the answer.
        at: f64,
        /// The index of the instance in [`Costs::choices`].
        choice: usize,
        /// The number of images in its batch.
        batch: usize,
    },
    /// It was refused on arrival.
    Refused,
    /// It was accepted and dropped later.
    Shed,
}

/// The outcomes of all requests of a load.
#[derive(Clone, Debug)]
pub struct Report {
    /// The load.
    pub load: Load,
    /// The outcomes, in the order of arrivals.
    pub outcomes: Vec<Outcome>,
    accuracies: Vec<f64>,
}

/// Runs the controller of one model through a load, on a simulated machine.
pub fn simulate(costs: &Costs, policy: Policy, load: Load, machine: &mut Machine) -> Report {
    let mut controller = Controller::new(policy);
    let mut run = Simulation {
        model: controller.add(costs.clone()),
        controller,
        costs,
        outcomes: vec![Outcome::Refused; load.arrivals.len()],
        next: 0,
        now: 0.0,
        pace: Pace::default(),
        load: &load,
    };
    run.all(machine);
    let outcomes = run.outcomes;
    Report {
        load,
        outcomes,
        accuracies: costs.choices().iter().map(|choice| choice.worth).collect(),
    }
}

struct Simulation<'a> {
    controller: Controller<usize>,
    model: ModelId,
    costs: &'a Costs,
    load: &'a Load,
    outcomes: Vec<Outcome>,
    /// The next arrival.
    next: usize,
    now: f64,
    pace: Pace,
}

impl Simulation<'_> {
    fn all(&mut self, machine: &mut Machine) {
        loop {
            self.arrive();
            for shed in self.controller.shed(self.now) {
                self.outcomes[shed.request.tag] = Outcome::Shed;
                self.controller.settle(self.now, self.model, true, None);
            }
            if let Some(batch) = self.controller.start(self.now) {
                self.compute(&batch, machine);
            } else if let Some(&at) = self.load.arrivals.get(self.next) {
                self.now = at;
            } else {
                return;
            }
        }
    }

    /// Submits the requests that have arrived by now.
    fn arrive(&mut self) {
        while let Some(&at) = self
            .load
            .arrivals
            .get(self.next)
            .filter(|at| **at <= self.now)
        {
            let Load {
                objective, demand, ..
            } = *self.load;
            let due = match self.load.strict {
                true => Due::Deadline(objective),
                false => Due::Objective(objective),
            };
            let grace = self.controller.grace(at, self.model, 1, &demand, due);
            let request = Request {
                images: 1,
                deadline: at + objective,
                grace,
                demand,
                tag: self.next,
            };
            if self.controller.submit(at, self.model, request).is_ok() {
                self.outcomes[self.next] = Outcome::Shed;
            }
            self.next += 1;
        }
    }

    fn compute(&mut self, batch: &Batch<usize>, machine: &mut Machine) {
        let table = self.costs.table(batch.plan.images).clone();
        let start = self.now;
        let mut progress = Progress::new(&table, self.pace);
        let mut instance = Instance::Full;
        let mut at = 0.0;
        self.now += machine.interruption();
        for stop in 0..table.stops() {
            self.now += machine.stretch(self.now, table.at(stop) - at);
            at = table.at(stop);
            self.arrive();
            let crossing = progress.arrive(self.now - start).expect("a stop");
            match self.controller.decide(self.now, &crossing) {
                Decision::Continue => {}
                Decision::Become(chosen) => {
                    instance = chosen;
                    break;
                }
                Decision::Abandon => unreachable!("simulated callers do not leave"),
            }
        }
        let expected = table.expected(instance).expect("it is in the table");
        let rest = machine.stretch(self.now, expected - at);
        let end = self.now + rest;
        while self
            .load
            .arrivals
            .get(self.next)
            .is_some_and(|at| *at <= end)
        {
            self.now = self.load.arrivals[self.next];
            self.arrive();
        }
        self.now = end;
        self.pace.learn(end - start, expected);
        self.controller.finish(end, self.pace);
        let choice = self.costs.index(instance);
        for request in &batch.requests {
            if request.grace == 0.0 {
                let missed = end > request.deadline;
                self.controller.settle(end, self.model, missed, Some(0.0));
            }
            self.outcomes[request.tag] = Outcome::Answered {
                at: end,
                choice: choice.expect("it is one of the model's"),
                batch: batch.plan.images,
            };
        }
    }
}

impl Report {
    /// The share of requests that were answered in time.
    pub fn attainment(&self) -> f64 {
        self.in_time().count() as f64 / self.outcomes.len() as f64
    }

    /// The share of requests that were answered late.
    pub fn late(&self) -> f64 {
        let answered = self.answered().count() - self.in_time().count();
        answered as f64 / self.outcomes.len() as f64
    }

    /// The mean accuracy of the answers in time.
    pub fn accuracy(&self) -> f64 {
        let (sum, count) = self
            .in_time()
            .fold((0.0, 0), |(sum, count), (_, _, choice, _)| {
                (sum + self.accuracies[choice], count + 1)
            });
        sum / f64::from(count)
    }

    /// Answers in time per second.
    pub fn goodput(&self) -> f64 {
        let span = self.load.arrivals.last().copied().unwrap_or(0.0);
        self.in_time().count() as f64 / span
    }

    /// The mean batch size over the answers in time.
    pub fn batch(&self) -> f64 {
        let sum: usize = self.in_time().map(|(_, _, _, batch)| batch).sum();
        sum as f64 / self.in_time().count() as f64
    }

    /// Arrival, time of the answer, instance and batch size of each answered request.
    pub fn answered(&self) -> impl Iterator<Item = (f64, f64, usize, usize)> + '_ {
        let all = std::iter::zip(&self.load.arrivals, &self.outcomes);
        all.filter_map(|(&arrival, outcome)| match *outcome {
            Outcome::Answered { at, choice, batch } => Some((arrival, at, choice, batch)),
            _ => None,
        })
    }

    /// As [`Report::answered`], for answers in time.
    pub fn in_time(&self) -> impl Iterator<Item = (f64, f64, usize, usize)> + '_ {
        let objective = self.load.objective;
        self.answered()
            .filter(move |(arrival, at, ..)| at - arrival <= objective)
    }
}
