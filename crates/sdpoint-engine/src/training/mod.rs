//! Training steps: forward pass, loss and backward pass of one batch in one
//! instance.

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

pub(crate) use forward::{BatchPass, NormState};
use noise::Masks;
pub use noise::Noise;
pub(crate) use plan::StepPlan;
use timed::StepEvent;

use crate::lower::geometry;
use crate::{Base, EngineError, Images, check_labels, check_length, check_weights};

/// Computes training steps of any instance of one network.
///
/// Plans and memory are reused: only the first step of an instance and a batch
/// shape allocates.
#[derive(Debug)]
pub struct TrainingEngine {
    pass: BatchPass,
    /// Convolution weights packed for the gradient with respect to the input, by
    /// layer.
    transposed: Vec<Option<PackedConvTranspose>>,
    plans: HashMap<PlanKey, StepPlan>,
    gradients: Weights,
    /// The logits of the last step.
    logits: Vec<f32>,
    /// The number of classifiers whose logits the network outputs.
    classifiers: usize,
}

type PlanKey = (Instance, usize, [usize; 2]);

/// The target of the loss of a training step.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The label of each image.
    pub labels: &'a [u32],
    /// Label smoothing: the fraction of a label's probability that is spread
    /// evenly over all classes, from 0 to 1.
    pub smoothing: f32,
    /// Soft targets, `batch · classes` probabilities, and their weight `w` from
    /// 0 to 1. The target is `w · soft + (1 − w) · labels`.
    pub soft: Option<(&'a [f32], f32)>,
}

/// What a training step computes gradients of.
#[derive(Clone, Copy, Debug)]
pub struct StepInput<'a> {
    /// The weights of the network.
    pub weights: &'a Weights,
    /// The batch.
    pub images: Images<'a>,
    /// The target of the loss for each image.
    pub target: Target<'a>,
    /// The instance that is trained.
    pub instance: Instance,
}

impl<'a> Target<'a> {
    /// A target of hard labels without smoothing.
    pub fn labels(labels: &'a [u32]) -> Self {
        Self {
            labels,
            smoothing: 0.0,
            soft: None,
        }
    }

    /// The same target with label smoothing.
    pub fn with_smoothing(self, smoothing: f32) -> Self {
        Self { smoothing, ..self }
    }

    fn check(&self, batch: usize, classes: usize) -> Result<(), EngineError> {
        check_labels(self.labels, batch, classes)?;
        match self.soft {
            Some((soft, _)) => check_length("the soft targets", soft.len(), batch * classes),
            None => Ok(()),
        }
    }

    /// The target distribution of each image, `batch · classes` values.
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

/// The results of a training step other than gradients.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct StepOutcome {
    /// Mean loss of the batch.
    pub loss: f64,
    /// The number of images whose most probable class is their label.
    pub correct: usize,
}

impl TrainingEngine {
    /// Creates an engine for training steps of `network`.
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

    /// Sets the number of classifiers of a network whose outputs are the logits
    /// of several classifiers one after another, as [`Network::with_exits`]
    /// builds them. All are trained on the same labels, and gradients are those
    /// of the sum of their losses. [`StepOutcome`] has the mean of their losses
    /// and of their numbers of correct images, the latter rounded down. With
    /// more than one classifier, [`Target::soft`] is an error.
    ///
    /// # Panics
    /// If the number of outputs is not a multiple of `classifiers`.
    pub fn with_classifiers(mut self, classifiers: usize) -> Self {
        assert!(
            self.pass.base.network.classes().is_multiple_of(classifiers),
            "the outputs do not divide into {classifiers} classifiers"
        );
        self.classifiers = classifiers;
        self
    }

    /// The number of classes of one classifier.
    fn classes(&self) -> usize {
        self.pass.base.network.classes() / self.classifiers
    }

    /// Enables noise in every step. Masks are those of step 0 until
    /// [`TrainingEngine::set_noise_step`] is called.
    ///
    /// # Panics
    /// If a probability of `noise` is not in `0.0..1.0`.
    pub fn with_noise(mut self, noise: Noise, seed: u64) -> Self {
        self.pass.saved.masks = Some(Masks::new(noise, seed));
        self
    }

    /// Sets the step number for the noise of the steps that follow. Masks are a
    /// function of the seed and this number.
    pub fn set_noise_step(&mut self, step: u64) {
        if let Some(masks) = &mut self.pass.saved.masks {
            masks.step = step;
        }
    }

    /// Runs the forward pass, the loss and the backward pass of a batch in an
    /// instance.
    ///
    /// The loss is the mean cross-entropy, in nats.
    /// [`TrainingEngine::gradients`] holds the gradients afterwards.
    ///
    /// # Errors
    /// If images, labels or weights do not fit the network, or it lacks the
    /// instance's point.
    pub fn step(&mut self, input: StepInput<'_>) -> Result<StepOutcome, EngineError> {
        self.step_with_events(input, |_| {})
    }

    /// Runs a step; calls `on_event` after each of its parts.
    fn step_with_events(
        &mut self,
        input: StepInput<'_>,
        mut on_event: impl FnMut(StepEvent<'_>),
    ) -> Result<StepOutcome, EngineError> {
        let StepInput {
            weights,
            images,
            target,
            instance,
        } = input;
        let network = self.pass.base.network.clone();
        images.check(&network)?;
        target.check(images.batch, self.classes())?;
        if self.classifiers > 1 && target.soft.is_some() {
            return Err(EngineError::SoftTargets);
        }
        check_weights(&network, weights)?;
        let key = (instance, images.batch, images.size);
        self.plan(key)?;
        self.repack(weights);
        on_event(StepEvent::Pack);
        let plan = &self.plans[&key];
        self.pass.run(plan, weights, images.data, |node| {
            on_event(StepEvent::Forward(plan, node));
        });
        let outcome = self.loss(key, &target);
        on_event(StepEvent::Loss);
        let plan = &self.plans[&key];
        backward::run(
            &mut self.pass,
            &self.transposed,
            plan,
            weights,
            images.data,
            &mut self.gradients,
            on_event,
        );
        Ok(outcome)
    }

    /// The gradients of the last step, in the order of
    /// [`Network::parameters`].
    pub fn gradients(&self) -> &Weights {
        &self.gradients
    }

    /// The logits of the last step, a row of [`Network::classes`] values for
    /// each image.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// The size in bytes of the block that holds all tensors and their
    /// gradients.
    pub fn tensor_bytes(&self) -> usize {
        self.pass.arena.bytes()
    }

    /// The memory in bytes for a step of an instance on `batch` images of
    /// `[height, width]`: the block of tensors and their gradients, the packed
    /// weights, and the gradients of the weights. The scratch memory of the
    /// kernels is extra; see [`Context::scratch_bytes`].
    ///
    /// # Errors
    /// If the network does not accept images of this size, or has no such
    /// point.
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

    fn plan(&mut self, key: PlanKey) -> Result<&StepPlan, EngineError> {
        let (instance, batch, size) = key;
        Ok(match self.plans.entry(key) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let network = &self.pass.base.network;
                let noise = self.pass.saved.masks.as_ref().map(|masks| masks.noise);
                entry.insert(StepPlan::with_backward(
                    network, size, batch, instance, noise,
                )?)
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
        let gradient = plan
            .logits_gradient
            .expect("a training step has a backward pass");
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
            return loss_of_classifiers(ctx, logits, classes, self.classifiers, target, gradient);
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

/// The mean loss of several classifiers, whose logits follow one another for
/// each image, and the gradient of its sum.
fn loss_of_classifiers(
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
    // The kernel computes the gradient of the mean over classifiers.
    for value in gradient {
        *value *= classifiers as f32;
    }
    StepOutcome {
        loss: outcome.loss,
        correct: outcome.correct / classifiers,
    }
}
