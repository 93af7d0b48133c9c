//! A training step of `full` and of instances that branch off from it: the
//! layers before an instance's point are computed once, by `full`.
//!
//! The forward pass of `full` runs on the whole batch and keeps its tensors at
//! the points. When its backward pass reaches a point, each branch there runs
//! forward and backward from its images' part of that tensor, and the gradient
//! with respect to the part is added to that of `full`. So a branch's own
//! tensors exist only while it runs, and the layers before the point have a
//! single backward pass. The state outside of the arena, such as batch
//! statistics, is shared: when a branch overwrites that of the layers after its
//! point, `full` no longer needs it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;

use sdpoint_core::{Instance, Weights};
use sdpoint_kernels::{Context, elementwise, loss as kernels};

use super::backward::BackwardPass;
use super::plan::Cut;
use super::timed::StepEvent;
use super::{BatchPass, StepOutcome, StepPlan, Target, TrainingEngine, loss};
use crate::arena::Arena;
use crate::parameters::Parameters;
use crate::scores::softmax;
use crate::{EngineError, Images, check_weights};

/// What a training step of `full` and of branches computes gradients of.
///
/// With the loss `L(full)` of `full` on the whole batch, that of branch `s`, `L(s)`, on
/// its `n(s)` images, and the weight `λ`, the loss is
///
/// ```text
/// L(full) + λ · Σ n(s) L(s) / Σ n(s)
/// L(s) = (1 − τ) · CE(z(s), target) + τ · T² · KL(p(full) ‖ p(s))
/// ```
///
/// where `CE` is the cross-entropy with the target and `KL` the divergence from
/// the predictions of `full` for the same images, both computed with logits
/// divided by the temperature `T` (Hinton et al., arXiv 1503.02531, section 2).
/// No gradient flows through the predictions of `full`. Batch norms after a
/// branch's point use the statistics of its own images, those before it the
/// statistics of the whole batch.
#[derive(Clone, Copy, Debug)]
pub struct BranchedInput<'a> {
    /// The weights of the network.
    pub weights: &'a Weights,
    /// The batch.
    pub images: Images<'a>,
    /// The target of the loss for each image.
    pub target: Target<'a>,
    /// The branches; none makes it a step of `full`.
    pub branches: &'a [Branch],
    /// What the branches learn.
    pub distillation: Distillation,
}

/// An instance that branches off from `full` in a training step, and the images
/// of the batch that it is trained on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    /// The instance; not `full`.
    pub instance: Instance,
    /// The images, at least one. Branches may have images in common.
    pub images: Range<usize>,
}

/// How branches learn from `full`; see [`BranchedInput`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distillation {
    /// The weight `λ` of the mean loss of the branches.
    pub weight: f32,
    /// The share `τ` of `full`'s predictions in what branches learn, from 0 to 1;
    /// the target is the rest.
    pub share: f32,
    /// The temperature `T`, above 0.
    pub temperature: f32,
}

/// The results of a training step of `full` and branches, other than gradients.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct BranchedOutcome {
    /// Those of `full`, on the whole batch.
    pub full: StepOutcome,
    /// Those of each branch, on its images; the loss is `L(s)`.
    pub branches: Vec<StepOutcome>,
}

/// Plans and memory of branches.
#[derive(Debug, Default)]
pub(super) struct Branches {
    /// The plans of `full`, by batch and image size.
    pub trunks: HashMap<(usize, [usize; 2]), StepPlan>,
    /// The plans of branches, by instance, number of images and image size.
    pub plans: HashMap<(Instance, usize, [usize; 2]), StepPlan>,
    /// The tensors of the running branch; while one runs, those of `full`.
    pub arena: Arena,
}

impl Branches {
    pub fn bytes(&self) -> usize {
        self.arena.bytes()
    }
}

impl TrainingEngine {
    /// Runs the forward pass, the loss and the backward pass of `full` on a
    /// batch, and of instances that branch off from it on parts of the batch.
    /// The layers before a branch's point are computed once, for the whole
    /// batch.
    ///
    /// [`TrainingEngine::gradients`] holds the gradients of the total loss
    /// afterwards, and [`TrainingEngine::logits`] the logits of `full`.
    ///
    /// # Errors
    /// As [`TrainingEngine::step`], and if a branch has no images, images beyond
    /// the batch, or the instance `full`.
    ///
    /// # Panics
    /// If the network has several classifiers.
    pub fn step_branched(
        &mut self,
        input: BranchedInput<'_>,
    ) -> Result<BranchedOutcome, EngineError> {
        self.step_branched_with_events(input, |_| {})
    }

    /// As [`TrainingEngine::step_branched`]; calls `on_event` after each part,
    /// with the instance if it belongs to a branch.
    pub(super) fn step_branched_with_events(
        &mut self,
        input: BranchedInput<'_>,
        mut on_event: impl FnMut((Option<Instance>, StepEvent<'_>)),
    ) -> Result<BranchedOutcome, EngineError> {
        assert_eq!(self.classifiers, 1, "branches need a single classifier");
        let BranchedInput {
            weights,
            images,
            target,
            branches,
            distillation,
        } = input;
        images.check(&self.pass.base.network)?;
        target.check(images.batch, self.classes())?;
        check_weights(&self.pass.base.network, weights)?;
        for branch in branches {
            branch.check(images.batch)?;
        }
        self.plan_branched(images, branches)?;
        self.repack(weights);
        on_event((None, StepEvent::Pack));

        let classes = self.classes();
        let Self {
            pass,
            transposed,
            branches:
                Branches {
                    trunks,
                    plans,
                    arena,
                },
            gradients,
            logits,
            ..
        } = self;
        let trunk = &trunks[&(images.batch, images.size)];
        pass.run(trunk, weights.into(), images.data, |node| {
            on_event((None, StepEvent::Forward(trunk, node)));
        });
        let full = loss(pass, trunk, 1, &target, logits);
        on_event((None, StepEvent::Loss));
        let backward = BackwardPass {
            plan: trunk,
            transposed,
            parameters: weights.into(),
            input: images.data,
            accumulate: false,
            frozen: false,
        };
        let teacher = Teacher::new(logits, classes, distillation);
        let images_of_branches: usize = branches.iter().map(|branch| branch.images.len()).sum();
        let mut outcomes = vec![None; branches.len()];
        let mut done = 0;
        for cut in &trunk.cuts {
            let here = |(_, branch): &(usize, &Branch)| branch.instance.point() == Some(cut.point);
            let here: Vec<(usize, &Branch)> = branches.iter().enumerate().filter(here).collect();
            if here.is_empty() {
                continue;
            }
            backward.run(done..cut.step, pass, gradients, |e| on_event((None, e)));
            done = cut.step;
            for (index, branch) in here {
                let part = branch.images.len();
                let run = BranchRun {
                    trunk,
                    cut,
                    plan: &plans[&(branch.instance, part, images.size)],
                    transposed,
                    parameters: weights.into(),
                    images: branch.images.clone(),
                    target: target.part(branch.images.clone(), classes),
                    teacher: &teacher,
                    weight: distillation.weight * part as f32 / images_of_branches as f32,
                    frozen: false,
                };
                if let Some(masks) = &mut pass.saved.masks {
                    masks.branch = index as u32 + 1;
                }
                outcomes[index] = Some(run.run(pass, arena, gradients, |event| {
                    on_event((Some(branch.instance), event));
                }));
            }
            if let Some(masks) = &mut pass.saved.masks {
                masks.branch = 0;
            }
        }
        let steps = done..trunk.backward.len();
        backward.run(steps, pass, gradients, |event| on_event((None, event)));
        let outcomes = outcomes.into_iter();
        Ok(BranchedOutcome {
            full,
            branches: outcomes
                .map(|outcome| outcome.expect("every instance has a point of the network"))
                .collect(),
        })
    }

    /// Plans what is not planned yet.
    pub(super) fn plan_branched(
        &mut self,
        images: Images<'_>,
        branches: &[Branch],
    ) -> Result<(), EngineError> {
        let Images { batch, size, .. } = images;
        let network = &self.pass.base.network;
        let noise = self.pass.saved.masks.as_ref().map(|masks| masks.noise);
        let Branches { trunks, plans, .. } = &mut self.branches;
        if let Entry::Vacant(entry) = trunks.entry((batch, size)) {
            entry.insert(StepPlan::trunk(network, size, batch, noise)?);
        }
        for Branch { instance, images } in branches {
            let key = (*instance, images.len(), size);
            if let Entry::Vacant(entry) = plans.entry(key) {
                let plan = StepPlan::branch(network, size, images.len(), *instance, noise)?;
                entry.insert(plan);
            }
        }
        Ok(())
    }
}

impl Branch {
    pub(super) fn check(&self, batch: usize) -> Result<(), EngineError> {
        if self.instance == Instance::Full {
            return Err(EngineError::BranchOfFull);
        }
        if self.images.is_empty() || self.images.end > batch {
            return Err(EngineError::BranchImages {
                instance: self.instance,
                images: self.images.clone(),
                batch,
            });
        }
        Ok(())
    }
}

/// The predictions of `full` that branches learn from.
pub(super) struct Teacher {
    /// At the temperature of the distillation, for each image; empty if the
    /// share is zero.
    predictions: Vec<f32>,
    distillation: Distillation,
}

impl Teacher {
    pub fn new(logits: &[f32], classes: usize, distillation: Distillation) -> Self {
        let mut predictions = Vec::new();
        if distillation.share > 0.0 {
            predictions.extend(logits.iter().map(|z| z / distillation.temperature));
            softmax(&mut predictions, classes);
        }
        Self {
            predictions,
            distillation,
        }
    }

    /// The loss `L(s)` of [`BranchedInput`] for some images; writes its gradient.
    fn loss(
        &self,
        ctx: &Context,
        logits: &[f32],
        target: &Target<'_>,
        images: Range<usize>,
        gradient: &mut [f32],
    ) -> StepOutcome {
        let classes = logits.len() / images.len();
        let mut outcome = target.loss(ctx, logits, classes, gradient);
        let Distillation {
            share, temperature, ..
        } = self.distillation;
        if share > 0.0 {
            let scaled: Vec<f32> = logits.iter().map(|z| z / temperature).collect();
            let predictions = &self.predictions[images.start * classes..images.end * classes];
            let mut soft = vec![0.0; logits.len()];
            let cross_entropy = kernels::softmax_cross_entropy_soft(
                ctx,
                &scaled,
                classes,
                predictions,
                Some(&mut soft),
            );
            let entropy = entropy(predictions) / images.len() as f64;
            let divergence = f64::from(temperature).powi(2) * (cross_entropy - entropy);
            outcome.loss += f64::from(share) * (divergence - outcome.loss);
            // The chain rule through `z / T` leaves one factor of `T²`.
            for (gradient, soft) in std::iter::zip(gradient, soft) {
                *gradient += share * (temperature * soft - *gradient);
            }
        }
        outcome
    }
}

/// The sum of the entropies of some distributions, in nats.
fn entropy(probabilities: &[f32]) -> f64 {
    let terms = probabilities.iter().filter(|&&p| p > 0.0);
    terms.map(|&p| -f64::from(p) * f64::from(p).ln()).sum()
}

/// A branch of one step.
pub(super) struct BranchRun<'a> {
    pub trunk: &'a StepPlan,
    /// Where it leaves the trunk.
    pub cut: &'a Cut,
    pub plan: &'a StepPlan,
    pub transposed: &'a [Option<sdpoint_kernels::PackedConvTranspose>],
    pub parameters: Parameters<'a>,
    pub images: Range<usize>,
    /// Of these images.
    pub target: Target<'a>,
    pub teacher: &'a Teacher,
    /// The factor of its loss in the total.
    pub weight: f32,
    /// Whether its convolutions are not trained.
    pub frozen: bool,
}

impl BranchRun<'_> {
    /// Runs forward pass, loss and backward pass. Adds the gradients of the
    /// parameters to `gradients`, and that of the tensor at the point to the
    /// trunk's.
    fn run(
        &self,
        pass: &mut BatchPass,
        arena: &mut Arena,
        gradients: &mut Weights,
        mut on_event: impl FnMut(StepEvent<'_>),
    ) -> StepOutcome {
        // The pass works in its own arena: from here on, `arena` is the trunk's.
        std::mem::swap(&mut pass.arena, arena);
        let outcome = self.compute(pass, arena, gradients, &mut on_event);
        let gradient = self.plan.input_gradient.expect("a branch computes it");
        let gradient = pass.arena.read().get(self.plan.placement.place(gradient));
        let (_, into) = arena.write(self.trunk.placement.place(self.cut.gradient));
        elementwise::accumulate(&pass.base.ctx, gradient, &mut into[self.part()]);
        on_event(StepEvent::GradientSum);
        std::mem::swap(&mut pass.arena, arena);
        outcome
    }

    /// As [`BranchRun::run`], for a branch whose weights are frozen: writes the
    /// gradients of scales, shifts and biases to `gradients`, and leaves the
    /// trunk unchanged.
    pub(super) fn run_frozen(
        &self,
        pass: &mut BatchPass,
        arena: &mut Arena,
        gradients: &mut Weights,
    ) -> StepOutcome {
        std::mem::swap(&mut pass.arena, arena);
        let outcome = self.compute(pass, arena, gradients, &mut |_| {});
        std::mem::swap(&mut pass.arena, arena);
        outcome
    }

    /// The part of the tensor at the point that belongs to the branch's images.
    fn part(&self) -> Range<usize> {
        let of_an_image = self.trunk.placement.lowered.shapes[self.cut.value.0].len();
        self.images.start * of_an_image..self.images.end * of_an_image
    }

    /// Runs both passes in the pass's arena, on the tensor in the trunk's.
    fn compute(
        &self,
        pass: &mut BatchPass,
        trunk: &Arena,
        gradients: &mut Weights,
        on_event: &mut impl FnMut(StepEvent<'_>),
    ) -> StepOutcome {
        let plan = self.plan;
        let place = self.trunk.placement.place(self.cut.value);
        let input = &trunk.read().get(place)[self.part()];
        pass.run(plan, self.parameters, input, |node| {
            on_event(StepEvent::Forward(plan, node));
        });
        let outcome = self.loss(pass);
        on_event(StepEvent::Loss);
        let backward = BackwardPass {
            plan,
            transposed: self.transposed,
            parameters: self.parameters,
            input,
            accumulate: !self.frozen,
            frozen: self.frozen,
        };
        backward.run(0..plan.backward.len(), pass, gradients, on_event);
        outcome
    }

    /// Writes the gradient of the weighted loss into the arena.
    fn loss(&self, pass: &mut BatchPass) -> StepOutcome {
        let placement = &self.plan.placement;
        let gradient = self.plan.logits_gradient.expect("it has a backward pass");
        let (reader, gradient) = pass.arena.write(placement.place(gradient));
        let logits = reader.get(placement.place(placement.lowered.output));
        let outcome = self.teacher.loss(
            &pass.base.ctx,
            logits,
            &self.target,
            self.images.clone(),
            gradient,
        );
        for value in gradient {
            *value *= self.weight;
        }
        outcome
    }
}
