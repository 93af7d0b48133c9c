//! Training steps: forward, loss and backward of one batch in one instance.

mod backward;
mod forward;
mod noise;
mod plan;
mod timed;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use sdpoint_core::{Instance, LayerId, Network, Op, Weights};
use sdpoint_kernels as kernels;
use sdpoint_kernels::{Context, PackedConvTranspose};

pub(crate) use forward::{BatchNorm, BatchPass};
use noise::Masks;
pub use noise::Noise;
pub(crate) use plan::Plan;
use timed::Part;

use crate::lower::geometry;
use crate::{Base, EngineError, Images, check_labels, check_length, check_weights};

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
    /// Those of the last step.
    logits: Vec<f32>,
    /// How many classifiers' logits the network puts out.
    classifiers: usize,
}

type PlanKey = (Instance, usize, [usize; 2]);

/// What the loss of a training step compares the network's predictions with.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The label of each image.
    pub labels: &'a [u32],
    /// The part of a label's weight that is spread evenly over all classes,
    /// from 0 to 1.
    pub smoothing: f32,
    /// A distribution over the classes for each image, image after image, and
    /// the part of the target that it makes, from 0 to 1; the labels make the
    /// rest.
    pub soft: Option<(&'a [f32], f32)>,
}

impl<'a> Target<'a> {
    /// The labels alone.
    pub fn labels(labels: &'a [u32]) -> Self {
        Self {
            labels,
            smoothing: 0.0,
            soft: None,
        }
    }

    fn check(&self, batch: usize, classes: usize) -> Result<(), EngineError> {
        check_labels(self.labels, batch, classes)?;
        match self.soft {
            Some((soft, _)) => check_length("the soft targets", soft.len(), batch * classes),
            None => Ok(()),
        }
    }

    /// The distribution over the classes for each image.
    fn distributions(&self, classes: usize) -> Vec<f32> {
        let (soft, share) = self.soft.unwrap_or((&[], 0.0));
        let hard = 1.0 - share;
        let everywhere = hard * self.smoothing / classes as f32;
        let mut all: Vec<f32> = match self.soft {
            Some(_) => soft.iter().map(|p| share * p + everywhere).collect(),
            None => vec![everywhere; self.labels.len() * classes],
        };
        for (row, &label) in all.chunks_exact_mut(classes).zip(self.labels) {
            row[label as usize] += hard * (1.0 - self.smoothing);
        }
        all
    }
}

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
            logits: Vec::new(),
            classifiers: 1,
        }
    }

    /// For a network that puts out the logits of several classifiers, one after the other, as
    /// [`Network::with_exits`] makes one: all learn from the same labels, and the sum of their
    /// losses goes backward. The loss of an outcome is their mean, as is what was correct.
    ///
    /// # Panics
    /// If the network's outputs are not as many for each.
    pub fn with_classifiers(mut self, classifiers: usize) -> Self {
        assert!(
            self.pass.base.network.classes().is_multiple_of(classifiers),
            "classifiers of as many classes"
        );
        self.classifiers = classifiers;
        self
    }

    /// Classes that one classifier tells apart.
    fn classes(&self) -> usize {
        self.pass.base.network.classes() / self.classifiers
    }

    /// With noise in every step from now on: that of step 0, until
    /// [`TrainingEngine::set_noise_step`] says otherwise.
    ///
    /// # Panics
    /// If a probability is not at least 0 and below 1.
    pub fn with_noise(mut self, noise: Noise, seed: u64) -> Self {
        self.pass.saved.masks = Some(Masks::new(noise, seed));
        self
    }

    /// Chooses the noise of the steps that follow, which is a function of its
    /// seed and of this number.
    pub fn set_noise_step(&mut self, step: u64) {
        if let Some(masks) = &mut self.pass.saved.masks {
            masks.step = step;
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
        let target = Target {
            smoothing: label_smoothing,
            ..Target::labels(labels)
        };
        self.step_towards(weights, images, target, instance)
    }

    /// As [`TrainingEngine::step`], with any target.
    ///
    /// # Errors
    /// As [`TrainingEngine::step`].
    pub fn step_towards(
        &mut self,
        weights: &Weights,
        images: Images<'_>,
        target: Target<'_>,
        instance: Instance,
    ) -> Result<StepOutcome, EngineError> {
        self.step_in_parts(weights, images, target, instance, |_| {})
    }

    /// A step; `done` is called after each of its parts.
    fn step_in_parts(
        &mut self,
        weights: &Weights,
        images: Images<'_>,
        target: Target<'_>,
        instance: Instance,
        mut done: impl FnMut(Part<'_>),
    ) -> Result<StepOutcome, EngineError> {
        let network = self.pass.base.network.clone();
        images.check(&network)?;
        target.check(images.batch, self.classes())?;
        check_weights(&network, weights)?;
        let key = (instance, images.batch, images.size);
        self.plan(key)?;
        self.repack(weights);
        done(Part::Pack);
        let plan = &self.plans[&key];
        self.pass.run(plan, weights, images.data, |node| {
            done(Part::Forward(plan, node));
        });
        let outcome = self.loss(key, &target);
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

    /// The logits of the last step, image after image.
    pub fn logits(&self) -> &[f32] {
        &self.logits
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
        let plan = self.plan((instance, batch, size))?;
        let tensors = plan.placement.layout.len();
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
                let noise = self.pass.saved.masks.as_ref().map(|masks| masks.noise);
                entry.insert(Plan::step(network, size, batch, instance, noise)?)
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

    fn loss(&mut self, key: PlanKey, target: &Target<'_>) -> StepOutcome {
        let plan = &self.plans[&key];
        let gradient = plan.logits_gradient.expect("a step's plan goes backward");
        let classes = self.classes();
        let placement = &plan.placement;
        let (reader, gradient) = self.pass.arena.write(placement.place(gradient));
        let logits = reader.get(placement.place(placement.lowered.output));
        self.logits.clear();
        self.logits.extend(logits);
        let ctx = &self.pass.base.ctx;
        let Target {
            labels, smoothing, ..
        } = *target;
        if self.classifiers > 1 {
            return loss_of_all(ctx, logits, classes, self.classifiers, target, gradient);
        }
        let mut outcome = kernels::loss::softmax_cross_entropy(
            ctx,
            logits,
            classes,
            labels,
            smoothing,
            Some(&mut *gradient),
        );
        if target.soft.is_some() {
            let targets = target.distributions(classes);
            outcome.loss = kernels::loss::softmax_cross_entropy_soft(
                ctx,
                logits,
                classes,
                &targets,
                Some(gradient),
            );
        }
        StepOutcome {
            loss: outcome.loss,
            correct: outcome.correct,
        }
    }
}

/// The losses of several classifiers, whose logits follow one another for each image.
fn loss_of_all(
    ctx: &Context,
    logits: &[f32],
    classes: usize,
    classifiers: usize,
    target: &Target<'_>,
    gradient: &mut [f32],
) -> StepOutcome {
    let repeated = target.labels.iter();
    let labels: Vec<u32> = repeated
        .flat_map(|&label| std::iter::repeat_n(label, classifiers))
        .collect();
    let outcome = kernels::loss::softmax_cross_entropy(
        ctx,
        logits,
        classes,
        &labels,
        target.smoothing,
        Some(&mut *gradient),
    );
    // The kernel's is the gradient of the mean.
    for value in gradient {
        *value *= classifiers as f32;
    }
    StepOutcome {
        loss: outcome.loss,
        correct: outcome.correct / classifiers,
    }
}
