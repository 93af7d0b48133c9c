//! Runs that stop at points, branch, resume, and share an engine.

mod support;

use sdpoint_core::Instance;
use sdpoint_engine::{EngineError, InferenceEngine, NormSource};
use support::networks::NAMES;
use support::{Oracle, context};

fn engine(oracle: &Oracle, instances: &[Instance]) -> InferenceEngine {
    let statistics = oracle.running_statistics(instances);
    InferenceEngine::new(
        context(),
        oracle.network.clone(),
        &oracle.weights(),
        &statistics,
    )
    .unwrap()
}

/// Sorts instances by execution order of their points, `full` last.
fn in_order(mut instances: Vec<Instance>) -> Vec<Instance> {
    instances.sort_by_key(|&instance| (instance == Instance::Full, instance));
    instances
}

#[test]
fn one_run_branches_into_all_instances() {
    for name in NAMES {
        let oracle = Oracle::open(name);
        let input = oracle.input();
        let instances = in_order(oracle.instances("logits"));
        let engine = engine(&oracle, &instances);
        let mut run = engine.start(input.images()).unwrap();
        for &instance in &instances {
            run.advance_to(instance).unwrap();
            let branched = run.branch(instance).unwrap();
            let alone = engine.run(input.images(), instance).unwrap();
            assert_eq!(branched, alone, "{name} {instance}");
        }
        let mut backwards = instances.clone();
        backwards.reverse();
        let all = engine
            .run_all(input.images(), &backwards, NormSource::Own)
            .unwrap();
        assert_eq!(
            all[0],
            engine.run(input.images(), Instance::Full).unwrap(),
            "{name}"
        );
    }
}

#[test]
fn a_subset_continues_from_the_state_of_the_batch() {
    for name in NAMES {
        let oracle = Oracle::open(name);
        let input = oracle.input();
        let instances = in_order(oracle.instances("logits"));
        let engine = engine(&oracle, &instances);
        let chosen = [input.batch - 1, 0];
        for &early in &instances {
            let mut run = engine.start(input.images()).unwrap();
            run.branch(early).unwrap();
            let mut some = run.subset(&chosen).unwrap();
            drop(run);
            for &late in instances.iter().skip_while(|&&i| i != early) {
                let all = engine.run(input.images(), late).unwrap();
                let classes = all.len() / input.batch;
                let expected: Vec<f32> = chosen
                    .iter()
                    .flat_map(|&i| all[i * classes..][..classes].to_vec())
                    .collect();
                let found = some.branch(late).unwrap();
                support::assert_close(&found, &expected, 1e-5, &format!("{name} {early} {late}"));
            }
        }
    }
}

#[test]
fn instances_whose_point_is_passed_are_refused() {
    let oracle = Oracle::open("preresnet8");
    let input = oracle.input();
    let instances = in_order(oracle.instances("logits"));
    let engine = engine(&oracle, &instances);
    let first = instances[0];
    let mut run = engine.start(input.images()).unwrap();
    run.advance_to(Instance::Full).unwrap();
    assert_eq!(run.branch(first), Err(EngineError::Passed(first)));
    assert!(run.branch(Instance::Full).is_ok());
    assert!(matches!(run.subset(&[]), Err(EngineError::EmptyBatch)));
    let absent: Instance = "77@0.5".parse().unwrap();
    assert_eq!(run.branch(absent), Err(EngineError::NotCalibrated(absent)));
    assert_eq!(
        run.advance_to(absent),
        Err(EngineError::NotCalibrated(absent))
    );
}

#[test]
fn concurrent_runs_are_independent() {
    let oracle = Oracle::open("resnet-mini");
    let input = oracle.input();
    let instances = in_order(oracle.instances("logits"));
    let engine = engine(&oracle, &instances);
    let expected: Vec<Vec<f32>> = instances
        .iter()
        .map(|&instance| engine.run(input.images(), instance).unwrap())
        .collect();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (engine, instances, expected, input) = (&engine, &instances, &expected, &input);
            scope.spawn(move || {
                for round in 0..3 * instances.len() {
                    let i = (round * (thread + 1)) % instances.len();
                    let found = engine.run(input.images(), instances[i]).unwrap();
                    assert_eq!(found, expected[i], "{}", instances[i]);
                }
            });
        }
    });
}

#[test]
fn engines_may_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<InferenceEngine>();
    fn sent<T: Send>() {}
    sent::<sdpoint_engine::PartialRun<'_>>();
}
