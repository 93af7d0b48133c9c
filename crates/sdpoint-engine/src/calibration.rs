//! Batch-norm statistics for instances of a network with frozen weights.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use sdpoint_core::{Instance, Moments, Network, Statistics, Weights};
use sdpoint_kernels::Context;

use crate::lower::Span;
use crate::training::{BatchPass, Plan};
use crate::work::{Stage, stages};
use crate::{Base, EngineError, Images, check_weights};

/// Gathers the statistics of several instances, batch by batch.
///
/// Every batch norm normalises with what it sees in the batch, as in
/// training, and the mean and unbiased variance that it sees are averaged
/// over the batches with equal weight. What lies before an instance's point
/// is shared with `full` and computed once.
#[derive(Debug)]
pub struct Calibrator<'a> {
    pass: BatchPass,
    weights: &'a Weights,
    stages: Vec<Stage>,
    plans: HashMap<PlanKey, Plan>,
    sums: BTreeMap<Instance, Vec<Sum>>,
    batches: usize,
}

type PlanKey = (Instance, Span, usize, [usize; 2]);

/// Sums over batches, for one batch norm in one instance.
#[derive(Clone, Debug)]
struct Sum {
    mean: Vec<f64>,
    var: Vec<f64>,
}

impl<'a> Calibrator<'a> {
    /// Starts with no batch seen. `full` is calibrated along with
    /// `instances`, for they share its statistics before their points.
    ///
    /// # Errors
    /// If the weights do not fit the network.
    pub fn new(
        ctx: Arc<Context>,
        network: Arc<Network>,
        weights: &'a Weights,
        instances: &[Instance],
    ) -> Result<Self, EngineError> {
        check_weights(&network, weights)?;
        let mut instances = instances.to_vec();
        instances.push(Instance::Full);
        let norms = network.norms();
        let sums = instances.iter().map(|&instance| {
            let own = &norms[network.own_norms(instance)];
            let own = own.iter().map(|norm| Sum::new(norm.channels)).collect();
            (instance, own)
        });
        let sums = sums.collect();
        let stages = stages(&network, &instances);
        let base = Base { ctx, network };
        Ok(Self {
            pass: BatchPass::new(base, weights, false),
            weights,
            stages,
            plans: HashMap::new(),
            sums,
            batches: 0,
        })
    }

    /// Lets every instance see a batch.
    ///
    /// # Errors
    /// If the images do not fit the network, or it lacks an instance's point.
    pub fn add_batch(&mut self, images: Images<'_>) -> Result<(), EngineError> {
        images.check(&self.pass.base.network)?;
        let mut carried: Option<Vec<f32>> = None;
        for stage in self.stages.clone() {
            let input = carried.as_deref().unwrap_or(images.data);
            let output = self.run(images, input, Instance::Full, stage.trunk)?;
            for &instance in &stage.branches {
                let span = Span {
                    from: stage.trunk.to,
                    to: None,
                };
                self.run(images, &output, instance, span)?;
            }
            carried = Some(output);
        }
        self.batches += 1;
        Ok(())
    }

    /// The statistics of all instances.
    ///
    /// # Errors
    /// If no batch was added.
    pub fn finish(self) -> Result<Statistics, EngineError> {
        if self.batches == 0 {
            return Err(EngineError::NothingSeen);
        }
        let average = |sum: &[f64]| -> Vec<f32> {
            sum.iter()
                .map(|&x| (x / self.batches as f64) as f32)
                .collect()
        };
        let mut statistics = Statistics::default();
        for (instance, sums) in &self.sums {
            let own = sums.iter().map(|sum| Moments {
                mean: average(&sum.mean),
                var: average(&sum.var),
            });
            statistics.set(&self.pass.base.network, *instance, own.collect());
        }
        Ok(statistics)
    }

    /// Runs one span and notes what its batch norms saw.
    fn run(
        &mut self,
        images: Images<'_>,
        input: &[f32],
        instance: Instance,
        span: Span,
    ) -> Result<Vec<f32>, EngineError> {
        let key = (instance, span, images.batch, images.size);
        if let Entry::Vacant(entry) = self.plans.entry(key) {
            let network = &self.pass.base.network;
            let plan = Plan::forward(network, images.size, images.batch, instance, span)?;
            entry.insert(plan);
        }
        let plan = &self.plans[&key];
        self.pass.run(plan, self.weights, input, |_| {});
        let sums = self.sums.get_mut(&instance).expect("one for each instance");
        let skipped = self.pass.saved.norms.len() - sums.len();
        for norm in plan.norms() {
            sums[norm - skipped].add(&self.pass.saved.norms[norm]);
        }
        let place = plan.placement.place(plan.placement.lowered.output);
        Ok(self.pass.arena.read().get(place).to_vec())
    }
}

impl Sum {
    fn new(channels: usize) -> Self {
        Self {
            mean: vec![0.0; channels],
            var: vec![0.0; channels],
        }
    }

    fn add(&mut self, seen: &crate::training::BatchNorm) {
        // One pixel alone has no unbiased variance; its biased one is 0.
        let pixels = seen.pixels as f64;
        let unbiased = pixels / (pixels - 1.0).max(1.0);
        for (sum, &mean) in self.mean.iter_mut().zip(&seen.mean) {
            *sum += f64::from(mean);
        }
        for (sum, &var) in self.var.iter_mut().zip(&seen.var) {
            *sum += f64::from(var) * unbiased;
        }
    }
}
