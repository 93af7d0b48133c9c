//! The state of all queues and its transitions.

mod grace;

pub use grace::Due;

use std::collections::BTreeMap;

use sdpoint::{Crossing, Decision, Instance, Pace};

use super::admit::{admit, backlog};
use super::reserve::Reserve;
use super::slack::SlackShare;
use super::traffic::Traffic;
use super::{
    Costs, Outlook, Plan, Policy, Refused, Request, Running, Situation, Waiting, plan, reconsider,
};

/// The queues of several models that share a machine, and the current batch.
///
/// Among the models with work, the next batch is of the one whose batches have taken the
/// least time so far.
#[derive(Clone, Debug)]
pub struct Controller<T> {
    policy: Policy,
    duty: f64,
    models: BTreeMap<ModelId, Model<T>>,
    next: u64,
    current: Option<Current>,
}

/// Identifies a model of a [`Controller`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelId(u64);

#[derive(Clone, Debug)]
struct Model<T> {
    costs: Costs,
    /// What to expect now.
    pace: Pace,
    /// The pace after the last batch, and when that ended.
    learned: (Pace, f64),
    traffic: Traffic,
    slack_share: SlackShare,
    reserve: Reserve,
    /// In the order of deadlines.
    queue: Vec<Waiting<T>>,
    /// The time that its batches have taken, in seconds. A model that was idle is raised
    /// to the least of the others when it gets work again.
    used: f64,
}

/// The current batch.
#[derive(Clone, Copy, Debug)]
struct Current {
    model: ModelId,
    running: Running,
    /// The instance that it runs in, as far as is decided.
    instance: Instance,
    started: f64,
    /// The earliest time at which it can end, as far as is known.
    ends: f64,
}

/// A batch to run.
#[derive(Clone, Debug)]
pub struct Batch<T> {
    /// The model.
    pub model: ModelId,
    /// Its requests.
    pub requests: Vec<Request<T>>,
    /// The plan.
    pub plan: Plan,
}

/// A request that was dropped because no instance can answer it in time any more.
#[derive(Clone, Debug)]
pub struct Shed<T> {
    /// The model.
    pub model: ModelId,
    /// The request.
    pub request: Request<T>,
}

impl<T> Controller<T> {
    /// Creates a controller without models.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            duty: 1.0,
            models: BTreeMap::new(),
            next: 0,
            current: None,
        }
    }

    /// Adds a model.
    pub fn add(&mut self, costs: Costs) -> ModelId {
        let id = ModelId(self.next);
        self.next += 1;
        let model = Model {
            costs,
            pace: Pace::default(),
            learned: (Pace::default(), 0.0),
            traffic: Traffic::default(),
            slack_share: SlackShare::new(&self.policy),
            reserve: Reserve::default(),
            queue: Vec::new(),
            used: self.least_used(),
        };
        self.models.insert(id, model);
        id
    }

    /// Removes a model and returns its queued requests. Its current batch continues.
    pub fn remove(&mut self, model: ModelId) -> Vec<Request<T>> {
        let removed = self.models.remove(&model);
        let queue = removed.map(|model| model.queue).unwrap_or_default();
        queue.into_iter().map(|waiting| waiting.request).collect()
    }

    /// Sets the ratio of the time between the starts of two batches to the time of a batch.
    pub fn set_duty(&mut self, duty: f64) {
        self.duty = duty.max(1.0);
    }

    /// The queue of a model.
    pub fn queue(&self, model: ModelId) -> &[Waiting<T>] {
        self.models.get(&model).map_or(&[], |model| &model.queue)
    }

    /// Whether all queues are empty.
    pub fn is_idle(&self) -> bool {
        self.models.values().all(|model| model.queue.is_empty())
    }

    /// Accepts a request, or refuses and drops it.
    ///
    /// # Errors
    /// If it cannot be answered in time, or the queue is full.
    ///
    /// # Panics
    /// If there is no such model.
    pub fn submit(&mut self, now: f64, id: ModelId, request: Request<T>) -> Result<(), Refused> {
        let seconds = request.deadline - now;
        let is_running = self.current.is_some_and(|current| current.model == id);
        let model = self.models.get_mut(&id).expect("the model was added");
        if !is_running {
            // Without this, a model that became slow for a while and refused all requests
            // since then would never find out that it is fast again.
            let (pace, at) = model.learned;
            model.pace = pace.after_idle(now - at);
        }
        let Some(rate) = model.costs.rate(&request.demand) else {
            return Err(Refused::NoInstance);
        };
        let by = model.pace.expected(rate * request.images as f64) - seconds;
        if by > request.grace {
            // Not even an idle machine could answer it, so it says nothing about the load.
            return Err(Refused::Late { by });
        }
        let policy = &self.policy;
        model.traffic.arrive(now, request.images, seconds, policy);
        let model = &self.models[&id];
        let load = model.load(now, self.share(id));
        let new = Waiting::new(
            request,
            &model.reserve,
            load,
            now,
            &model.costs,
            &model.pace,
        );
        let mut new = new.expect("an instance meets the demand");
        let place = place(&model.queue, &new);
        let situation = Situation {
            wanted: f64::INFINITY,
            ..self.situation(id, now)
        };
        let free = self.current.map_or(now, |current| current.ends);
        let most = self.policy.most_waiting;
        let at = |place| admit(&model.queue, place, &new, free, most, &situation);
        let last = model.queue.last().map(|last| last.deadline);
        let mut admitted = at(place);
        let behind = match admitted {
            // Where it would make others late, it goes behind them.
            Err(Refused::Late { .. }) => new.request.may_be_late(),
            // And where it would be late itself, or newer ones of its kind would delay it for ever.
            Ok(answered) => answered > new.promise && new.request.grace.is_finite(),
            Err(_) => false,
        };
        if let Some(last) = last.filter(|_| behind) {
            admitted = at(model.queue.len()).map(|answered| answered.max(last));
        }
        let least = self.least_used();
        let mut slack_share = model.slack_share;
        let policy = model.slack_policy(&self.policy);
        let backlog = backlog(&model.queue, free, &situation);
        let taken = admitted.map(|_| ());
        slack_share.note(taken, &new, backlog, load, &situation, &policy);
        let model = self.models.get_mut(&id).expect("it is there");
        model.slack_share = slack_share;
        match admitted {
            Ok(answered) => {
                if new.request.may_be_late() {
                    new.deadline = new.deadline.max(answered);
                    new.promise = new.promise.max(answered);
                }
                if model.queue.is_empty() {
                    model.used = model.used.max(least);
                }
                let place = self::place(&model.queue, &new);
                model.queue.insert(place, new);
                Ok(())
            }
            Err(refused) => {
                model.traffic.refuse();
                Err(refused)
            }
        }
    }

    /// Notes whether an accepted request missed its deadline when its answer was sent, and how
    /// long that took from the end of its batch, in seconds; none if it was dropped.
    pub fn settle(&mut self, now: f64, id: ModelId, missed: bool, delivery: Option<f64>) {
        let share = self.share(id);
        if let Some(model) = self.models.get_mut(&id) {
            let load = model.load(now, share);
            let objective = model.traffic.objective();
            model.reserve.note(now, missed, load, objective);
            if let Some(delivery) = delivery {
                model.reserve.note_delivery(delivery);
            }
        }
    }

    /// Removes the requests that no instance can answer in time any more.
    pub fn shed(&mut self, now: f64) -> Vec<Shed<T>> {
        let mut shed = Vec::new();
        let shares: Vec<f64> = self.models.keys().map(|&id| self.share(id)).collect();
        for ((&id, model), share) in self.models.iter_mut().zip(shares) {
            let load = model.load(now, share);
            let policy = model.slack_policy(&self.policy);
            let Model {
                costs,
                queue,
                pace,
                traffic,
                slack_share,
                ..
            } = model;
            let gone = |waiting: &mut Waiting<T>| {
                !waiting.request.may_be_late() && waiting.hopeless(now, pace)
            };
            for waiting in queue.extract_if(.., gone) {
                traffic.refuse();
                slack_share.note_dropped(&waiting, load, costs, &policy);
                shed.push(Shed {
                    model: id,
                    request: waiting.request,
                });
            }
        }
        shed
    }

    /// Removes the queued requests for which `keep` is false.
    pub fn retain(&mut self, mut keep: impl FnMut(ModelId, &Request<T>) -> bool) {
        for (&id, model) in &mut self.models {
            model.queue.retain(|waiting| keep(id, &waiting.request));
        }
    }

    /// Starts the next batch; none if all queues are empty.
    pub fn start(&mut self, now: f64) -> Option<Batch<T>> {
        let waiting = self.models.iter().filter(|(_, m)| !m.queue.is_empty());
        let next = waiting.min_by(|(_, a), (_, b)| a.used.total_cmp(&b.used));
        let (&id, _) = next?;
        let situation = self.situation(id, now);
        let plan = plan(&self.models[&id].queue, &situation)?;
        let model = self.models.get_mut(&id).expect("it has a queue");
        let taken = plan.take.iter().map(|&index| &model.queue[index]);
        let met = taken.filter(|waiting| !waiting.hopeless(now, &model.pace));
        let running = Running {
            images: plan.images,
            demand: plan.demand,
            deadline: met.map(|waiting| waiting.deadline).reduce(f64::min),
        };
        let quickest = model.costs.quickest(&plan.demand, plan.images);
        self.current = Some(Current {
            model: id,
            running,
            instance: Instance::Full,
            started: now,
            ends: now + model.pace.expected(quickest.unwrap_or(0.0)),
        });
        let mut index = 0;
        let requests = model.queue.extract_if(.., |_| {
            index += 1;
            plan.take.binary_search(&(index - 1)).is_ok()
        });
        let requests = requests.map(|waiting| waiting.request).collect();
        Some(Batch {
            model: id,
            requests,
            plan,
        })
    }

    /// The decision for the current batch at a point.
    pub fn decide(&mut self, now: f64, crossing: &Crossing<'_>) -> Decision {
        let Some(current) = self.current else {
            return Decision::Abandon;
        };
        if !self.models.contains_key(&current.model) {
            return Decision::Continue;
        }
        let situation = self.situation(current.model, now);
        let queue = &self.models[&current.model].queue;
        let decision = reconsider(&current.running, queue, crossing, &situation);
        let ahead = crossing.ways().filter(|way| match decision {
            Decision::Become(chosen) => way.instance == chosen,
            _ => !way.here,
        });
        let rest = ahead.map(|way| way.expected).reduce(f64::min);
        if let Some(current) = &mut self.current {
            if let Decision::Become(chosen) = decision {
                current.instance = chosen;
            }
            if let Some(rest) = rest {
                current.ends = now + rest;
            }
        }
        decision
    }

    /// Ends the current batch. `pace` is the engine's updated pace.
    pub fn finish(&mut self, now: f64, pace: Pace) {
        let Some(current) = self.current.take() else {
            return;
        };
        if let Some(model) = self.models.get_mut(&current.model) {
            let seconds = now - current.started;
            model.used += seconds;
            model
                .slack_share
                .spend(seconds, current.cheapest(&model.costs));
            model.pace = pace;
            model.learned = (pace, now);
        }
    }

    /// The least time used by a model with work.
    fn least_used(&self) -> f64 {
        let current = self.current.map(|current| current.model);
        let busy =
            |(id, model): &(&ModelId, &Model<T>)| current == Some(**id) || !model.queue.is_empty();
        let used = self.models.iter().filter(busy).map(|(_, model)| model.used);
        used.reduce(f64::min).unwrap_or(0.0)
    }

    /// [`Situation::share`] if this model has work.
    fn share(&self, id: ModelId) -> f64 {
        let others = self.models.iter().filter(|(other, _)| **other != id);
        let busy = others.filter(|(_, other)| !other.queue.is_empty());
        self.duty * (busy.count() + 1) as f64
    }

    fn situation(&self, id: ModelId, now: f64) -> Situation<'_> {
        let model = &self.models[&id];
        let others = self.models.iter().filter(|(other, _)| **other != id);
        let wanted = others.map(|(&other, model)| model.wanted(now, self.share(other)));
        let share = self.share(id);
        let load = model.load(now, share);
        Situation {
            now,
            costs: &model.costs,
            pace: &model.pace,
            outlook: Outlook {
                room: model.traffic.room(now, &self.policy),
                use_of_slack: model.slack_share.use_of_slack(load),
                fill: model.traffic.overload(),
            },
            share,
            wanted: wanted.fold(f64::INFINITY, f64::min),
        }
    }
}

impl Current {
    /// The expected time in the cheapest instance that its requests allow, as a share of that in
    /// its own.
    fn cheapest(&self, costs: &Costs) -> f64 {
        let Running { images, demand, .. } = self.running;
        let own = costs
            .index(self.instance)
            .map(|own| costs.time(own, images));
        match (costs.quickest(&demand, images), own) {
            (Some(quickest), Some(own)) => quickest / own,
            _ => 1.0,
        }
    }
}

impl<T> Model<T> {
    /// The load relative to the capacity of the cheapest instance on the model's share of
    /// the machine, which is [`Situation::share`].
    fn load(&self, now: f64, share: f64) -> f64 {
        self.traffic.long_rate(now) * self.pace.expected(self.costs.least_rate()) * share
    }

    /// The policy with the price of accuracy for the model's burstiness.
    fn slack_policy(&self, policy: &Policy) -> Policy {
        let burstiness = self.traffic.burstiness().max(1.0);
        Policy {
            price: policy.price / burstiness,
            ..*policy
        }
    }

    /// The latest time at which it needs the machine. `share` is as for [`Self::load`].
    fn wanted(&self, now: f64, share: f64) -> f64 {
        let share = self.slack_share.use_of_slack(self.load(now, share));
        let mut work = 0.0;
        let latest = self.queue.iter().map(|waiting| {
            work += self.pace.expected(waiting.work());
            now + share * (waiting.deadline - now) - work
        });
        latest.fold(f64::INFINITY, f64::min)
    }
}

/// The position of a request in a queue in the order of deadlines.
fn place<T>(queue: &[Waiting<T>], new: &Waiting<T>) -> usize {
    queue.partition_point(|waiting| waiting.deadline <= new.deadline)
}
