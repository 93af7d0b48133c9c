//! Calibration: batch-norm statistics of each instance with frozen weights.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use sdpoint_core::{Instance, Moments, Network, OwnParameters, Statistics, Weights};
use sdpoint_kernels::Context;

use crate::lower::Span;
use crate::parameters::Parameters;
use crate::training::{BatchPass, StepPlan};
use crate::work::{Segment, segments};
use crate::{Base, EngineError, Images, check_weights};

/// Accumulates the batch-norm statistics of several instances, batch by batch.
///
/// Every batch norm normalises with the statistics of the batch, as in
/// training. The mean and the unbiased variance of its input are averaged over
/// the batches with equal weight (a cumulative average, as PyTorch's
/// `momentum=None`). The layers before an instance's point are shared with
/// `full` and computed once.
#[derive(Debug)]
pub struct Calibrator<'a> {
    pass: BatchPass,
    weights: &'a Weights,
    /// The parameters of instances' own.
    own: BTreeMap<Instance, &'a OwnParameters>,
    segments: Vec<Segment>,
    plans: HashMap<PlanKey, StepPlan>,
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
    /// Creates a calibrator with empty accumulators. `full` is always
    /// calibrated too, because `instances` use its statistics before their
    /// points.
    ///
    /// # Errors
    /// [`EngineError::Weights`] if the weights do not fit the network.
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
        let segments = segments(&network, &instances);
        let base = Base { ctx, network };
        Ok(Self {
            pass: BatchPass::new(base, weights, false),
            weights,
            own: BTreeMap::new(),
            segments,
            plans: HashMap::new(),
            sums,
            batches: 0,
        })
    }

    /// Sets parameters of an instance's own, with which it then runs; see
    /// [`Network::own_parameters`].
    pub fn with_parameters(mut self, instance: Instance, own: &'a OwnParameters) -> Self {
        self.own.insert(instance, own);
        self
    }

    /// Runs a batch through every instance and accumulates its statistics.
    ///
    /// # Errors
    /// If the images do not fit the network, or it lacks an instance's point.
    pub fn add_batch(&mut self, images: Images<'_>) -> Result<(), EngineError> {
        images.check(&self.pass.base.network)?;
        let mut previous: Option<Vec<f32>> = None;
        for segment in self.segments.clone() {
            let input = previous.as_deref().unwrap_or(images.data);
            let output = self.run(images, input, Instance::Full, segment.trunk)?;
            for &instance in &segment.branches {
                let span = Span {
                    from: segment.trunk.to,
                    to: None,
                };
                self.run(images, &output, instance, span)?;
            }
            previous = Some(output);
        }
        self.batches += 1;
        Ok(())
    }

    /// Returns the averaged statistics of all instances.
    ///
    /// # Errors
    /// [`EngineError::NoBatches`] if no batch was added.
    pub fn finish(self) -> Result<Statistics, EngineError> {
        if self.batches == 0 {
            return Err(EngineError::NoBatches);
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

    /// Runs one span on `input`, adds the statistics of its batch norms to the
    /// sums of `instance`, and returns the span's output. `images` are those that
    /// `input` was computed from.
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
            let plan = StepPlan::forward_only(network, images.size, images.batch, instance, span)?;
            entry.insert(plan);
        }
        let plan = &self.plans[&key];
        let parameters = Parameters {
            weights: self.weights,
            own: self.own.get(&instance).copied(),
        };
        self.pass.run(plan, parameters, input, |_| {});
        let sums = self
            .sums
            .get_mut(&instance)
            .expect("every instance has its sums");
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

    fn add(&mut self, batch: &crate::training::NormState) {
        // The unbiased variance of a single pixel is undefined (0/0); 0 is used.
        let pixels = batch.pixels as f64;
        let unbiased = pixels / (pixels - 1.0).max(1.0);
        for (sum, &mean) in self.mean.iter_mut().zip(&batch.mean) {
            *sum += f64::from(mean);
        }
        for (sum, &var) in self.var.iter_mut().zip(&batch.var) {
            *sum += f64::from(var) * unbiased;
        }
    }
}
