//! The cost of switching to another instance.

use std::sync::Arc;

use sdpoint::{Context, Engine, Instance};

use crate::subject::{image, images, model, quantile};

const ROUNDS: usize = 60;

pub fn run() -> anyhow::Result<()> {
    let engine = Engine::new(Arc::new(Context::new(None)?), model(true)?)?;
    let data = image();
    let time = |instance| {
        Ok::<_, anyhow::Error>(1e3 * engine.run(images(&data), instance)?.time.as_secs_f64())
    };
    let instances: Vec<Instance> = engine.records().iter().map(|r| r.instance).collect();
    // The first run of all pays for memory.
    time(Instance::Full)?;
    let mut first = Vec::new();
    for &instance in &instances {
        first.push((instance, time(instance)?));
    }
    println!("| instance | first use | again and again | in turn with `full` | difference |");
    println!("| --- | ---: | ---: | ---: | ---: |");
    for (instance, first) in first.into_iter().step_by(4) {
        let mut same = Vec::new();
        let mut turns = Vec::new();
        // In groups, so that disturbances affect both alike.
        for _ in 0..ROUNDS / 4 {
            time(instance)?;
            for _ in 0..4 {
                same.push(time(instance)?);
            }
            for _ in 0..4 {
                time(Instance::Full)?;
                turns.push(time(instance)?);
            }
        }
        let [same, turns] = [same, turns].map(|times| quantile(&times, 0.5));
        println!(
            "| `{instance}` | {first:.2} ms | {same:.2} ms | {turns:.2} ms | {:+.1} % |",
            100.0 * (turns / same - 1.0)
        );
    }
    Ok(())
}
