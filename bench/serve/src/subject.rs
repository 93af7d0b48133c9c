//! The model that is served, and what it costs on the server's core.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::ensure;
use sdpoint::core::{EvalTransform, Preprocessing, Ratio, TrainTransform, pareto};
use sdpoint::engine::initial_weights;
use sdpoint::profile::TimeSource;
use sdpoint::{Context, Engine, Instance, Model, zoo};
use sdpoint_serve::control::{Costs, Demand};
use sdpoint_serve::simulation::Mixture;

/// The batch sizes that `run` profiles: those that the server has times of.
const BATCHES: [usize; 6] = [1, 2, 4, 8, 16, 32];

#[derive(clap::Args)]
pub struct ModelArgs {
    /// A network of `sdpoint networks`
    network: String,
    /// Height and width of the images
    size: usize,
    /// The model file to write
    out: PathBuf,
}

/// Writes a model with random weights. Times do not depend on them.
pub fn write(args: &ModelArgs) -> anyhow::Result<()> {
    let size = [args.size; 2];
    let network = zoo::build(&args.network, 10)?;
    let instances = network.instances(&Ratio::DEFAULT);
    let preprocessing = Preprocessing {
        train: TrainTransform::None,
        evaluate: EvalTransform::Resize,
        ..Preprocessing::new(size, vec![0.5; 3], vec![0.25; 3])
    };
    let weights = initial_weights(&network, 0);
    let full = network.cost(size, Instance::Full)?;
    let mut model = Model::new(network, weights, preprocessing, &instances)?;
    for record in &mut model.instances {
        let share = record.macs as f64 / full.macs as f64;
        record.top1 = Some(synthetic_accuracy(share));
    }
    Ok(model.save(&args.out)?)
}

/// A curve that rises and flattens, from 88.5 % at no cost to 94 %.
fn synthetic_accuracy(share: f64) -> f64 {
    0.94 - 0.055 * (1.0 - share).powf(1.6)
}

/// A profiled model.
pub struct Subject {
    pub size: [usize; 2],
    pub costs: Costs,
    pub mixture: Mixture,
}

impl Subject {
    /// Loads a model and its profile for one thread.
    pub fn load(model: &Path) -> anyhow::Result<Self> {
        let context = Arc::new(Context::new(NonZeroUsize::new(1))?);
        let engine = Engine::load_with(context, model)?;
        ensure!(
            *engine.time_source() == TimeSource::Profile,
            "{}; measure batches of {BATCHES:?} with `sdpoint profile MODEL --save --threads 1 \
             --batch N`, as bench/serve/run does",
            engine.time_source()
        );
        let mut tables = BTreeMap::new();
        for batch in BATCHES {
            tables.insert(batch, engine.timetable_for(batch)?);
        }
        let costs = Costs::new(&tables, engine.records());
        Ok(Self {
            size: engine.preprocessing().size,
            mixture: Mixture::new(&costs),
            costs,
        })
    }

    /// The time of one image in the cheapest instance, in seconds.
    pub fn service_time(&self) -> f64 {
        let time = self.costs.quickest(&Demand::ANY, 1);
        time.expect("every model has an instance")
    }

    /// Images per second of `full`, in batches of the best size.
    pub fn full_rate(&self) -> f64 {
        1.0 / self.mixture.most()
    }

    /// The instances on the frontier: no faster one is as accurate.
    pub fn frontier(&self) -> Vec<Instance> {
        let choices = self.costs.choices();
        let points = choices.iter().map(|choice| {
            let nanoseconds = 1e9 * self.time_per_image(choice.instance());
            (nanoseconds as u64, choice.worth)
        });
        let on = pareto(&points.collect::<Vec<_>>());
        let kept = std::iter::zip(choices, on).filter(|(_, on)| *on);
        kept.map(|(choice, _)| choice.instance()).collect()
    }

    /// Seconds per image of an instance, in batches of the best size.
    fn time_per_image(&self, instance: Instance) -> f64 {
        let rate = self.costs.rate(&Demand::only(instance));
        rate.expect("the model has the instance")
    }

    /// The instance with the best answers.
    pub fn most_accurate(&self) -> Instance {
        let choices = self.costs.choices().iter();
        let best = choices.max_by(|a, b| a.worth.total_cmp(&b.worth));
        best.expect("every model has an instance").instance()
    }

    /// The instance with the shortest time.
    pub fn cheapest(&self) -> Instance {
        let choices = 0..self.costs.choices().len();
        let time = |&choice: &usize| self.costs.time(choice, 1);
        let cheapest = choices.min_by(|a, b| time(a).total_cmp(&time(b)));
        self.costs.choices()[cheapest.expect("every model has an instance")].instance()
    }
}
