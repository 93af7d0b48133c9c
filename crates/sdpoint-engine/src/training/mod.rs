//! Training steps: forward, loss and backward of one batch in one instance.

mod backward;
mod forward;
mod plan;
mod timed;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use sdpoint_core::{Instance, LayerId, Network, Op, Weights};
use sdpoint_kernels as kernels;
use sdpoint_kernels::{Context, PackedConvTranspose};

pub(crate) use forward::{BatchNorm, BatchPass};
pub(crate) use plan::Plan;
use timed::Part;

use crate::lower::geometry;
use crate::{Base, EngineError, Images, check_labels, check_weights};

/// Computes training steps of any instance of one network.
///
/// Plans and memory are kept from step to step: only the first step of an
/// instance and a batch size allocates.
#[derive(Debug)]
pub struct TrainingEngine {
    pass: BatchPass,
    /// Weights laid out for the gradient with respect to the input, by layer.
    transposed: Vec<Option<PackedConvTranspose>>,
    plans: HashMap<PlanKey, Plan>,
    gradients: Weights,
}

type PlanKey = (Instance, usize, [usize; 2]);

/// What came of a training step, besides gradients.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepOutcome {
    /// Mean loss of the batch.
    pub loss: f64,
    /// Images whose most likely class is their label.
    pub correct: usize,
}

impl TrainingEngine {
    /// An engine for steps of `network`.
    pub fn new(ctx: Arc<Context>, network: Arc<Network>) -> Self {
        let zeros = Weights::zeros(&network);
        let base = Base { ctx, network };
        let pass = BatchPass::new(base, &zeros, true);
        let layers = pass.base.network.layers().iter().enumerate();
        let transposed = layers
            .map(|(index, layer)| match &layer.op {
                // The images need no gradient.
                Op::Conv(conv) if layer.inputs[0] != LayerId(0) => {
                    let weight = &zeros.0[pass.table.weight(LayerId(index))];
                    let ctx = &pass.base.ctx;
                    Some(PackedConvTranspose::new(ctx, geometry(conv), weight))
                }
                _ => None,
            })
            .collect();
        Self {
            pass,
            transposed,
            plans: HashMap::new(),
            gradients: zeros,
        }
    }

    /// Forward pass, loss and backward pass of a batch in an instance.
    ///
    /// The loss is the mean cross-entropy against the labels, of which
    /// `label_smoothing` is spread evenly over all classes. The gradients
    /// stand in [`TrainingEngine::gradients`] afterwards.
    ///
    /// # Errors
    /// If images, labels or weights do not fit the network, or it has no
    /// such point.
    pub fn step(
        &mut self,
        weights: &Weights,
        images: Images<'_>,
        labels: &[u32],
        instance: Instance,
        label_smoothing: f32,
    ) -> Result<StepOutcome, EngineError> {
        self.step_in_parts(weights, images, labels, instance, label_smoothing, |_| {})
    }

    /// A step; `done` is called after each of its parts.
    fn step_in_parts(
        &mut self,
        weights: &Weights,
        images: Images<'_>,
        labels: &[u32],
        instance: Instance,
        label_smoothing: f32,
        mut done: impl FnMut(Part<'_>),
    ) -> Result<StepOutcome, EngineError> {
        let network = self.pass.base.network.clone();
        images.check(&network)?;
        check_labels(labels, images.batch, network.classes())?;
        check_weights(&network, weights)?;
        let key = (instance, images.batch, images.size);
        self.plan(key)?;
        self.repack(weights);
        done(Part::Pack);
        let plan = &self.plans[&key];
        self.pass.run(plan, weights, images.data, |node| {
            done(Part::Forward(plan, node));
        });
        let outcome = self.loss(key, labels, label_smoothing);
        done(Part::Loss);
        let plan = &self.plans[&key];
        backward::run(
            &mut self.pass,
            &self.transposed,
            plan,
            weights,
            images.data,
            &mut self.gradients,
            done,
        );
        Ok(outcome)
    }

    /// The gradients of the last step, in the order of the parameters.
    pub fn gradients(&self) -> &Weights {
        &self.gradients
    }

    /// Bytes of the block that holds all tensors and their gradients.
    pub fn tensor_bytes(&self) -> usize {
        self.pass.arena.bytes()
    }

    /// Bytes that a step of a batch in an instance needs: the block that its
    /// tensors and their gradients lie in, the packed weights, and their
    /// gradients. What the kernels work with comes on top; see
    /// [`Context::scratch_bytes`].
    ///
    /// # Errors
    /// If the network cannot take images of this size, or has no such point.
    pub fn memory_bytes(
        &mut self,
        size: [usize; 2],
        batch: usize,
        instance: Instance,
    ) -> Result<usize, EngineError> {
        let tensors = self.plan((instance, batch, size))?.layout.len();
        let transposed = self.transposed.iter().flatten();
        Ok(size_of::<f32>() * (tensors + self.gradients.count())
            + self.pass.bytes()
            + transposed.map(PackedConvTranspose::bytes).sum::<usize>())
    }

    fn plan(&mut self, key: PlanKey) -> Result<&Plan, EngineError> {
        let (instance, batch, size) = key;
        Ok(match self.plans.entry(key) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let network = &self.pass.base.network;
                entry.insert(Plan::step(network, size, batch, instance)?)
            }
        })
    }

    fn repack(&mut self, weights: &Weights) {
        self.pass.repack(weights);
        for (index, conv) in self.transposed.iter_mut().enumerate() {
            if let Some(conv) = conv {
                let weight = self.pass.table.weight(LayerId(index));
                conv.repack(&self.pass.base.ctx, &weights.0[weight]);
            }
        }
    }

    fn loss(&mut self, key: PlanKey, labels: &[u32], label_smoothing: f32) -> StepOutcome {
        let plan = &self.plans[&key];
        let gradient = plan.logits_gradient.expect("a step's plan goes backward");
        let classes = self.pass.base.network.classes();
        let (reader, gradient) = self.pass.arena.write(plan.layout.place(gradient.0));
        let logits = reader.get(plan.layout.place(plan.lowered.output.0));
        let outcome = kernels::loss::softmax_cross_entropy(
            &self.pass.base.ctx,
            logits,
            classes,
            labels,
            label_smoothing,
            Some(gradient),
        );
        StepOutcome {
            loss: outcome.loss,
            correct: outcome.correct,
        }
    }
}
