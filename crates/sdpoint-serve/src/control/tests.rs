//! Tests of decisions on small queues.

use chacha20::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use sdpoint::core::{Cascade, Combination, CombinedRecord};
use sdpoint::{Instance, Pace};

use super::reserve::Reserve;
use super::*;
use crate::job::{Constraints, Mode};
use crate::simulation::example_costs;

fn request(tag: usize, deadline: f64, demand: Demand) -> Request<usize> {
    Request {
        images: 1,
        deadline,
        grace: 0.0,
        demand,
        tag,
    }
}

fn queue(costs: &Costs, requests: impl IntoIterator<Item = (f64, Demand)>) -> Vec<Waiting<usize>> {
    let requests = requests.into_iter().enumerate();
    requests
        .map(|(tag, (deadline, demand))| {
            let request = request(tag, deadline, demand);
            Waiting::new(request, &Reserve::none(), 0.0, 0.0, costs, &Pace::default()).unwrap()
        })
        .collect()
}

fn constrained(constraints: Constraints) -> Demand {
    Demand {
        constraints,
        ..Demand::ANY
    }
}

fn instance(costs: &Costs, plan: &Plan) -> Instance {
    costs.choices()[plan.choice.unwrap()].instance()
}

fn cheapest() -> Instance {
    "0@0.5".parse().unwrap()
}

#[test]
fn with_time_to_spare_everyone_gets_full() {
    let costs = example_costs(8);
    let pace = Pace::default();
    let waiting = queue(&costs, [(1.0, Demand::ANY); 3]);
    let plan = plan(&waiting, &Situation::quiet(0.0, &costs, &pace)).unwrap();
    assert_eq!(instance(&costs, &plan), Instance::Full);
    assert_eq!(plan.take, [0, 1, 2]);
    assert!(super::plan(&queue(&costs, []), &Situation::quiet(0.0, &costs, &pace)).is_none());
}

#[test]
fn the_more_wait_the_cheaper_the_instance() {
    let costs = example_costs(32);
    let pace = Pace::default();
    let mut last = f64::INFINITY;
    let mut seen = std::collections::BTreeSet::new();
    for waiting in 1..32 {
        let waiting = queue(&costs, vec![(0.02, Demand::ANY); waiting]);
        let plan = plan(&waiting, &Situation::quiet(0.0, &costs, &pace)).unwrap();
        let worth = costs.choices()[plan.choice.unwrap()].worth;
        assert!(worth <= last, "{} images", waiting.len());
        last = worth;
        seen.insert(instance(&costs, &plan));
        let time = costs.time(plan.choice.unwrap(), plan.images);
        assert!(costs.table(plan.images).bound(time, &pace) <= 0.02);
    }
    assert!(seen.len() > 5, "{seen:?}");
    assert!(seen.contains(&Instance::Full) && seen.contains(&cheapest()));
}

#[test]
fn requests_behind_the_batch_count() {
    let costs = example_costs(1);
    let pace = Pace::default();
    let alone = queue(&costs, [(0.004, Demand::ANY)]);
    let alone = plan(&alone, &Situation::quiet(0.0, &costs, &pace)).unwrap();
    assert_eq!(instance(&costs, &alone), Instance::Full);
    let crowded = queue(&costs, [(0.004, Demand::ANY); 5]);
    let crowded = plan(&crowded, &Situation::quiet(0.0, &costs, &pace)).unwrap();
    let time = costs.time(crowded.choice.unwrap(), 1);
    assert!(5.0 * time <= 0.004, "{}", instance(&costs, &crowded));
    // Requests that are expected count like those that wait.
    let expected = Situation {
        outlook: Outlook {
            room: 4.0,
            ..Outlook::QUIET
        },
        ..Situation::quiet(0.0, &costs, &pace)
    };
    let waiting = queue(&costs, [(0.004, Demand::ANY)]);
    let awaited = plan(&waiting, &expected).unwrap();
    assert_eq!(awaited.choice, crowded.choice);
}

#[test]
fn a_slow_machine_gets_cheaper_instances() {
    let costs = example_costs(8);
    let mut pace = Pace::default();
    let waiting = queue(&costs, [(0.003, Demand::ANY)]);
    let quick = plan(&waiting, &Situation::quiet(0.0, &costs, &pace)).unwrap();
    (0..20).for_each(|_| pace.learn(2.0, 1.0));
    let slow = plan(&waiting, &Situation::quiet(0.0, &costs, &pace)).unwrap();
    assert_eq!(instance(&costs, &quick), Instance::Full);
    assert!(costs.time(slow.choice.unwrap(), 1) < 0.75 * costs.time(quick.choice.unwrap(), 1));
}

#[test]
fn an_explicit_instance_never_changes() {
    let costs = example_costs(8);
    let pace = Pace::default();
    for choice in costs.choices() {
        // With far too little time, and with plenty.
        for deadline in [1e-4, 1.0] {
            let waiting = queue(&costs, [(deadline, Demand::only(choice.instance())); 3]);
            let plan = plan(&waiting, &Situation::quiet(0.0, &costs, &pace)).unwrap();
            assert_eq!(instance(&costs, &plan), choice.instance());
        }
    }
}

#[test]
fn only_requests_with_a_common_instance_share_a_batch() {
    let costs = example_costs(8);
    let pace = Pace::default();
    let half = constrained(Constraints {
        max_macs: Some(200_000_000),
        ..Constraints::default()
    });
    let accurate = constrained(Constraints {
        min_accuracy: Some(0.93),
        ..Constraints::default()
    });
    // At most 200 million is less than 93 % accurate.
    let waiting = queue(&costs, [(1.0, half), (1.0, accurate), (1.0, half)]);
    let plan = plan(&waiting, &Situation::quiet(0.0, &costs, &pace)).unwrap();
    assert_eq!(plan.take, [0, 2], "over the one that does not fit");
    assert!(costs.choices()[plan.choice.unwrap()].record.macs <= 200_000_000);
    let waiting = queue(
        &costs,
        [
            (1.0, Demand::only(Instance::Full)),
            (1.0, Demand::only(cheapest())),
        ],
    );
    let plan = super::plan(&waiting, &Situation::quiet(0.0, &costs, &pace)).unwrap();
    assert_eq!((plan.take, plan.images), (vec![0], 1));
}

#[test]
fn cascades_run_with_their_like() {
    let record = CombinedRecord {
        combination: Combination::Cascade(Cascade {
            first: cheapest(),
            second: Instance::Full,
            threshold: 0.8,
        }),
        macs: 1,
        top1: 0.9,
        top5: 1.0,
        loss: 0.1,
        test: None,
    };
    let costs = example_costs(8).with_combinations(&[record]);
    let pace = Pace::default();
    let cascade = Demand {
        mode: Mode::Combination(0),
        ..Demand::ANY
    };
    let waiting = queue(&costs, [(1.0, cascade), (1.0, Demand::ANY), (1.0, cascade)]);
    let plan = plan(&waiting, &Situation::quiet(0.0, &costs, &pace)).unwrap();
    assert_eq!((plan.take, plan.choice), (vec![0, 2], None));
    // Both instances, but the layers before the point once.
    let time = costs.quickest(&cascade, 1).unwrap();
    let [full, cheap] = [Instance::Full, cheapest()].map(|i| costs.table(1).expected(i).unwrap());
    assert!(time > full && time < full + cheap);
}

/// Whatever waits, a plan is one that can be run.
#[test]
fn every_plan_can_be_run() {
    let costs = example_costs(8);
    let pace = Pace::default();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for _ in 0..2000 {
        let mut waiting: Vec<Waiting<usize>> = (0..rng.random_range(1..20))
            .map(|tag| {
                let choice = &costs.choices()[rng.random_range(0..costs.choices().len())];
                let constraints = match rng.random_range(0..5) {
                    0 => Constraints {
                        instance: Some(choice.instance()),
                        ..Constraints::default()
                    },
                    1 => Constraints {
                        max_macs: Some(choice.record.macs),
                        ..Constraints::default()
                    },
                    2 => Constraints {
                        min_accuracy: choice.record.top1,
                        ..Constraints::default()
                    },
                    _ => Constraints::default(),
                };
                let request = Request {
                    images: rng.random_range(1..=8),
                    deadline: rng.random_range(0.0..0.05),
                    grace: if rng.random_bool(0.2) { 1.0 } else { 0.0 },
                    demand: constrained(constraints),
                    tag,
                };
                Waiting::new(request, &Reserve::none(), 0.0, 0.0, &costs, &pace).unwrap()
            })
            .collect();
        waiting.sort_by(|a, b| a.deadline.total_cmp(&b.deadline));
        let plan = plan(&waiting, &Situation::quiet(0.0, &costs, &pace)).unwrap();
        let longest = |waiting: &Waiting<usize>| costs.quickest(&waiting.request.demand, 8);
        let roomy = |waiting: &&Waiting<usize>| longest(waiting).unwrap() <= waiting.deadline;
        let left_out = || waiting[..plan.take[0]].iter();
        assert_eq!(left_out().find(roomy), None, "only the urgent are left out");
        assert!(!left_out().any(|waiting| waiting.request.may_be_late()));
        assert!(plan.take.is_sorted() && plan.take.len() <= waiting.len());
        let taken = || plan.take.iter().map(|&index| &waiting[index].request);
        assert_eq!(taken().map(|r| r.images).sum::<usize>(), plan.images);
        assert!(plan.images <= 8);
        let choice = &costs.choices()[plan.choice.unwrap()];
        assert!(taken().all(|request| request.demand.constraints.allow(&choice.record)));
    }
}

#[test]
fn hopeless_requests_are_refused_at_once() {
    let costs = example_costs(8);
    let least = costs.quickest(&Demand::ANY, 1).unwrap();
    let mut controller = Controller::new(Policy::default());
    let model = controller.add(costs);
    let mut submit =
        |tag, deadline| controller.submit(0.0, model, request(tag, deadline, Demand::ANY));
    assert!(matches!(submit(0, 0.9 * least), Err(Refused::Late { by }) if by > 0.0));
    let taken = (0..100).filter(|&tag| submit(tag, 0.02).is_ok()).count();
    let most = (0.02 / least) as usize;
    assert!((most / 2..2 * most).contains(&taken), "{taken}");
    // Nothing urgent may break what was promised to those who wait.
    let urgent = submit(100, 3.0 * least);
    assert!(matches!(urgent, Err(Refused::Late { .. })), "{urgent:?}");
    assert!(submit(101, 0.1).is_ok(), "there is time behind the others");
}

#[test]
fn the_queue_is_bounded() {
    let policy = Policy {
        most_waiting: 3,
        ..Policy::default()
    };
    let mut controller = Controller::new(policy);
    let model = controller.add(example_costs(8));
    let mut submit = |tag| controller.submit(0.0, model, request(tag, 10.0, Demand::ANY));
    assert!((0..3).all(|tag| submit(tag).is_ok()));
    assert!(matches!(submit(3), Err(Refused::Full { until }) if until > 0.0));
}

#[test]
fn no_instance_meets_an_impossible_demand() {
    let mut controller = Controller::new(Policy::default());
    let model = controller.add(example_costs(8));
    let impossible = constrained(Constraints {
        max_macs: Some(1),
        ..Constraints::default()
    });
    let refused = controller.submit(0.0, model, request(0, 1.0, impossible));
    assert!(matches!(refused, Err(Refused::NoInstance)));
}

#[test]
fn a_request_that_accepts_a_late_answer_is_kept() {
    let mut controller = Controller::new(Policy::default());
    let model = controller.add(example_costs(8));
    let late = Request {
        grace: f64::INFINITY,
        ..request(0, 1e-4, Demand::ANY)
    };
    controller.submit(0.0, model, late).unwrap();
    assert!(controller.shed(1.0).is_empty());
    let batch = controller.start(1.0).unwrap();
    assert_eq!(batch.requests[0].tag, 0);
    assert!(controller.is_idle());
}

#[test]
fn a_request_that_accepts_a_late_answer_goes_behind_those_that_it_would_make_late() {
    let costs = example_costs(8);
    let quickest = costs.quickest(&Demand::ANY, 8).unwrap();
    let mut controller = Controller::new(Policy::default());
    let model = controller.add(costs);
    let eight = |tag, deadline, grace| Request {
        images: 8,
        grace,
        ..request(tag, deadline, Demand::ANY)
    };
    // Requests that need nearly all of their time.
    let mut tag = 0;
    while controller
        .submit(0.0, model, eight(tag, 6.0 * quickest, 0.0))
        .is_ok()
    {
        tag += 1;
    }
    assert!(tag > 1);
    controller
        .submit(0.0, model, eight(tag, 1e-4, f64::INFINITY))
        .unwrap();
    let tags: Vec<usize> = controller
        .queue(model)
        .iter()
        .map(|waiting| waiting.request.tag)
        .collect();
    assert_eq!(tags, (0..=tag).collect::<Vec<_>>());
}

#[test]
fn what_an_idle_machine_could_not_answer_says_nothing_about_the_load() {
    let run = |impossible: bool| {
        let mut controller = Controller::new(Policy::default());
        let model = controller.add(example_costs(8));
        for turn in 0..200 {
            let now = f64::from(turn) * 0.01;
            if impossible {
                let refused = controller.submit(now, model, request(1, now + 1e-5, Demand::ANY));
                assert!(matches!(refused, Err(Refused::Late { .. })));
            }
        }
        controller
            .submit(2.0, model, request(0, 2.1, Demand::ANY))
            .unwrap();
        let batch = controller.start(2.0).unwrap();
        batch.plan
    };
    assert_eq!(run(true), run(false));
}

#[test]
fn without_load_the_objective_is_no_reason_to_refuse() {
    let costs = example_costs(8);
    let one = costs.quickest(&Demand::ANY, 1).unwrap();
    let mut controller = Controller::new(Policy::default());
    let model = controller.add(costs);
    // Less than a request takes by itself.
    let objective = 0.5 * one;
    let submit = |controller: &mut Controller<usize>, tag, grace: f64| {
        let request = Request {
            grace,
            ..request(tag, objective, Demand::ANY)
        };
        controller.submit(0.0, model, request)
    };
    let grace = |controller: &Controller<usize>| {
        controller.grace(0.0, model, 1, &Demand::ANY, Due::Objective(objective))
    };
    let first = grace(&controller);
    assert_eq!(first, f64::INFINITY);
    submit(&mut controller, 0, first).unwrap();
    assert!(controller.start(0.0).is_some());
    // While it is computed, another one.
    let second = grace(&controller);
    assert_eq!(second, f64::INFINITY);
    submit(&mut controller, 1, second).unwrap();
    // But they do not queue up: a third one has the time for two.
    let third = grace(&controller);
    assert!((1.9..2.1).contains(&((objective + third) / one)), "{third}");
    let refused = submit(&mut controller, 2, third);
    assert!(matches!(refused, Err(Refused::Late { .. })), "{refused:?}");
    // Those that were accepted are kept.
    assert!(controller.shed(1.0).is_empty());
    assert_eq!(controller.start(1.0).unwrap().requests[0].tag, 1);
}

/// A machine that was slow is tried again when nothing waits for it.
#[test]
fn a_slow_pace_is_no_reason_to_refuse_on_a_free_machine() {
    let costs = example_costs(8);
    let one = costs.quickest(&Demand::ANY, 1).unwrap();
    let mut controller: Controller<usize> = Controller::new(Policy::default());
    let model = controller.add(costs);
    let deadline = 2.0 * one;
    let grace = |controller: &Controller<usize>, now| {
        controller.grace(now, model, 1, &Demand::ANY, Due::Deadline(deadline))
    };
    let submit = |controller: &mut Controller<usize>, tag, now: f64, grace: f64| {
        let request = Request {
            grace,
            ..request(tag, now + deadline, Demand::ANY)
        };
        controller.submit(now, model, request)
    };
    assert_eq!(grace(&controller, 0.0), 0.0, "it is expected in time");
    submit(&mut controller, 0, 0.0, 0.0).unwrap();
    controller.start(0.0).unwrap();
    let mut slow = Pace::default();
    for _ in 0..20 {
        slow.learn(5.0 * one, one);
    }
    controller.finish(5.0 * one, slow);
    let now = 5.0 * one;
    let refused = submit(&mut controller, 1, now, 0.0);
    assert!(matches!(refused, Err(Refused::Late { .. })), "{refused:?}");
    let tried = grace(&controller, now);
    assert_eq!(tried, f64::INFINITY);
    submit(&mut controller, 2, now, tried).unwrap();
    // While one waits or is computed, no other is tried.
    assert_eq!(grace(&controller, now), 0.0);
    controller.start(now).unwrap();
    assert_eq!(grace(&controller, now), 0.0);
    controller.finish(now + one, Pace::default());
    submit(&mut controller, 3, now + one, 0.0).unwrap();
}

#[test]
fn images_for_several_batches_have_the_time_of_all() {
    let costs = example_costs(8);
    let [eight, two] = [8, 2].map(|images| costs.quickest(&Demand::ANY, images).unwrap());
    let mut controller = Controller::new(Policy::default());
    let model = controller.add(costs);
    let waiting = request(0, 1.0, Demand::ANY);
    controller.submit(0.0, model, waiting).unwrap();
    let grace =
        |objective| controller.grace(0.0, model, 26, &Demand::ANY, Due::Objective(objective));
    let time = 3.0 * eight + two;
    let extended = 1e-3 + grace(1e-3);
    assert!((1.9..2.1).contains(&(extended / time)), "{extended} {time}");
    assert_eq!(grace(1.1 * time), 0.0, "what fits has the objective");
}

/// While many are refused, a request that would be late does not take the place of the next one.
#[test]
fn under_overload_late_requests_need_an_idle_machine() {
    let costs = example_costs(8);
    let one = costs.quickest(&Demand::ANY, 1).unwrap();
    let mut controller: Controller<usize> = Controller::new(Policy::default());
    let model = controller.add(costs);
    for tag in 0..100 {
        let _ = controller.submit(0.0, model, request(tag, 2.0 * one, Demand::ANY));
    }
    let grace = |controller: &Controller<usize>| {
        controller.grace(0.0, model, 1, &Demand::ANY, Due::Objective(1.5 * one))
    };
    while controller.start(0.0).is_some() {}
    assert!(controller.is_idle());
    assert_eq!(grace(&controller), 0.0);
    controller.finish(0.0, Pace::default());
    assert_eq!(grace(&controller), f64::INFINITY);
}

#[test]
fn what_is_late_in_any_case_is_answered_as_soon_as_possible() {
    let costs = example_costs(8);
    let pace = Pace::default();
    let situation = Situation::quiet(1.0, &costs, &pace);
    let late = || {
        let mut waiting = queue(&costs, [(0.5, Demand::ANY)]);
        waiting[0].request.grace = f64::INFINITY;
        waiting
    };
    let plan = super::plan(&late(), &situation).unwrap();
    assert_eq!(instance(&costs, &plan), cheapest());
    // Among others it changes nothing for them.
    let mut waiting = late();
    waiting.extend(queue(&costs, [(2.0, Demand::ANY)]));
    let plan = super::plan(&waiting, &situation).unwrap();
    assert_eq!((instance(&costs, &plan), plan.images), (Instance::Full, 2));
}

#[test]
fn requests_that_become_hopeless_are_dropped() {
    let mut controller = Controller::new(Policy::default());
    let model = controller.add(example_costs(8));
    controller
        .submit(0.0, model, request(0, 0.01, Demand::ANY))
        .unwrap();
    controller
        .submit(0.0, model, request(1, 0.05, Demand::ANY))
        .unwrap();
    let shed = controller.shed(0.02);
    assert_eq!(shed.len(), 1);
    assert_eq!(shed[0].request.tag, 0);
    assert_eq!(controller.queue(model).len(), 1);
}

#[test]
fn models_take_turns() {
    let costs = example_costs(8);
    let mut controller = Controller::new(Policy::default());
    let [busy, calm] = [(); 2].map(|()| controller.add(costs.clone()));
    let mut now = 0.0;
    let mut used = [0.0; 2];
    let mut tag = 0;
    for _ in 0..200 {
        // One floods the machine, the other has a little to do now and then.
        for _ in 0..20 {
            tag += 1;
            let _ = controller.submit(now, busy, request(tag, now + 0.05, Demand::ANY));
        }
        for _ in 0..3 {
            tag += 1;
            controller
                .submit(now, calm, request(tag, now + 0.05, Demand::ANY))
                .unwrap();
        }
        for _ in 0..2 {
            let Some(batch) = controller.start(now) else {
                break;
            };
            let time = costs.time(batch.plan.choice.unwrap(), batch.plan.images);
            now += time;
            used[usize::from(batch.model == calm)] += time;
            controller.finish(now, Pace::default());
        }
        assert!(controller.shed(now).iter().all(|shed| shed.model == busy));
    }
    assert!(
        controller.queue(calm).len() <= 6,
        "it is served as it comes"
    );
    assert!(
        used[0] > used[1],
        "what one leaves is the other's: {used:?}"
    );
}

#[test]
fn a_removed_model_returns_what_waits() {
    let mut controller = Controller::new(Policy::default());
    let model = controller.add(example_costs(8));
    controller
        .submit(0.0, model, request(7, 1.0, Demand::ANY))
        .unwrap();
    let waiting = controller.remove(model);
    assert_eq!(waiting[0].tag, 7);
    assert!(controller.start(0.0).is_none());
    assert!(controller.queue(model).is_empty());
}

#[test]
fn a_throttled_machine_accepts_fewer_requests() {
    let taken = |duty| {
        let mut controller = Controller::new(Policy::default());
        controller.set_duty(duty);
        let model = controller.add(example_costs(8));
        let submit = |tag| {
            controller
                .submit(0.0, model, request(tag, 0.05, Demand::ANY))
                .is_ok()
        };
        (0..500).map(submit).filter(|&taken| taken).count()
    };
    let ratio = taken(1.0) as f64 / taken(2.0) as f64;
    assert!((1.7..2.6).contains(&ratio), "{ratio}");
}

#[test]
fn a_machine_that_was_slow_is_tried_again_after_a_while() {
    let mut controller = Controller::new(Policy::default());
    let model = controller.add(example_costs(8));
    let submit = |controller: &mut Controller<usize>, now: f64| {
        controller.submit(now, model, request(0, now + 0.05, Demand::ANY))
    };
    submit(&mut controller, 0.0).unwrap();
    assert!(controller.start(0.0).is_some());
    let mut slow = Pace::default();
    for _ in 0..200 {
        slow.learn(100.0, 1.0);
    }
    controller.finish(0.5, slow);
    assert!(submit(&mut controller, 0.5).is_err());
    assert!(submit(&mut controller, 0.6).is_err());
    assert!(submit(&mut controller, 9.0).is_ok());
}
