//! The time of a training step with branches, as a multiple of its share of
//! multiply-accumulates of a step of `full`:
//!
//! ```sh
//! cargo run --release -p sdpoint-engine --example branched -- preresnet20 32 128 0@0.5,0@0.75,3@0.5,6@0.75
//! ```
//!
//! The arguments are a network, the side of the images, the batch size and the
//! instances of the branches, each of which gets an equal part of the batch.
//! Both steps alternate. The ratio is the median over rounds of the two times that follow one
//! another, as other load on the machine affects both of a round.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sdpoint_core::{Instance, zoo};
use sdpoint_engine::{
    Branch, BranchedInput, Context, Distillation, Images, InstanceMacs, StepInput, Target,
    TrainingEngine, initial_weights,
};

const REPEATS: usize = 25;
const CLASSES: usize = 10;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |index: usize, default: &str| {
        let given = arguments.get(index);
        given.map_or(default, String::as_str).to_owned()
    };
    let network = Arc::new(zoo::build(&argument(0, "preresnet20"), CLASSES)?);
    let side: usize = argument(1, "32").parse()?;
    let batch: usize = argument(2, "128").parse()?;
    let names = argument(3, "0@0.5,0@0.75,3@0.5,6@0.75");
    let instances: Vec<Instance> = names.split(',').map(str::parse).collect::<Result<_, _>>()?;
    let parts = instances.len();
    let branches: Vec<Branch> = (instances.iter().enumerate())
        .map(|(part, &instance)| Branch {
            instance,
            images: part * batch / parts..(part + 1) * batch / parts,
        })
        .collect();
    let work = InstanceMacs::new(&network, [side; 2], instances)?;
    let plain_macs = batch as u64 * work.training(Instance::Full);
    let of_branch = |b: &Branch| b.images.len() as u64 * work.branch_training(b.instance);
    let macs = plain_macs + branches.iter().map(of_branch).sum::<u64>();

    let data: Vec<f32> = (0..batch * side * side * network.input_channels())
        .map(|i| (i * 7919 % 1999) as f32 / 999.0 - 1.0)
        .collect();
    let labels: Vec<u32> = (0..batch).map(|i| (i % CLASSES) as u32).collect();
    let weights = initial_weights(&network, 0);
    let mut engine = TrainingEngine::new(Arc::new(Context::new(None)?), network);
    let images = Images {
        data: &data,
        batch,
        size: [side; 2],
    };
    let target = Target::labels(&labels);
    let mut times = [Vec::new(), Vec::new()];
    // The first round plans and allocates.
    for round in 0..=REPEATS {
        let start = Instant::now();
        engine.step(StepInput {
            weights: &weights,
            images,
            target,
            instance: Instance::Full,
        })?;
        let plain = start.elapsed();
        let start = Instant::now();
        engine.step_branched(BranchedInput {
            weights: &weights,
            images,
            target,
            branches: &branches,
            distillation: Distillation {
                weight: 1.0,
                share: 0.5,
                temperature: 1.0,
            },
        })?;
        if round > 0 {
            times[0].push(plain);
            times[1].push(start.elapsed());
        }
    }
    let mut ratios: Vec<f64> = std::iter::zip(&times[0], &times[1])
        .map(|(plain, branched)| branched.as_secs_f64() / plain.as_secs_f64())
        .collect();
    ratios.sort_by(f64::total_cmp);
    let time = ratios[ratios.len() / 2];
    let [plain, branched] = times.map(median);
    let share = macs as f64 / plain_macs as f64;
    println!("a step of full:        {plain:.2?}");
    println!("a step with branches:  {branched:.2?}");
    println!(
        "time {time:.3}, multiply-accumulates {share:.3}: {:.3} of the share",
        time / share
    );
    Ok(())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
