//! Gradients of parameters of instances' own, with all else frozen.

use sdpoint_core::{Instance, OwnParameters, Weights};

use super::branched::{BranchRun, Branches, Teacher};
use super::{Branch, Distillation, StepOutcome, Target, TrainingEngine, loss};
use crate::parameters::Parameters;
use crate::{EngineError, Images, check_length, check_weights};

/// What a tuning step computes gradients of; see
/// [`TrainingEngine::step_tuning`].
#[derive(Clone, Copy, Debug)]
pub struct TuningInput<'a> {
    /// The weights of the network.
    pub weights: &'a Weights,
    /// The batch.
    pub images: Images<'a>,
    /// The target of the loss for each image.
    pub target: Target<'a>,
    /// The instances, each with the current values of its own parameters, those
    /// of [`Network::own_parameters`](sdpoint_core::Network::own_parameters).
    pub instances: &'a [(Instance, OwnParameters)],
    /// What the instances learn; the weight is not used.
    pub distillation: Distillation,
}

impl TrainingEngine {
    /// Computes the loss of each instance on a whole batch, and its gradients
    /// with respect to the parameters of the instance's own. Everything else is
    /// frozen. `full` runs forward once for all of them, as their common layers
    /// and their teacher; the loss is `L(s)` of
    /// [`BranchedInput`](super::BranchedInput). Batch norms use the statistics of
    /// the batch.
    ///
    /// # Errors
    /// As [`TrainingEngine::step_branched`], and if parameters of an instance are
    /// missing or have another length.
    ///
    /// # Panics
    /// If the network has several classifiers.
    pub fn step_tuning(
        &mut self,
        input: TuningInput<'_>,
    ) -> Result<Vec<(StepOutcome, OwnParameters)>, EngineError> {
        assert_eq!(self.classifiers, 1, "branches need a single classifier");
        let TuningInput {
            weights,
            images,
            target,
            instances,
            distillation,
        } = input;
        let network = self.pass.base.network.clone();
        images.check(&network)?;
        target.check(images.batch, self.classes())?;
        check_weights(&network, weights)?;
        let branch = |&(instance, _): &(Instance, _)| Branch {
            instance,
            images: 0..images.batch,
        };
        let branches: Vec<Branch> = instances.iter().map(branch).collect();
        for (branch, (instance, own)) in std::iter::zip(&branches, instances) {
            branch.check(images.batch)?;
            for index in network.own_parameters(*instance) {
                let found = own.get(&index).map_or(0, Vec::len);
                let expected = network.parameters()[index].len();
                check_length("a parameter of an instance's own", found, expected)?;
            }
        }
        self.plan_branched(images, &branches)?;
        self.repack(weights);

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
        pass.run(trunk, weights.into(), images.data, |_| {});
        loss(pass, trunk, 1, &target, logits);
        let teacher = Teacher::new(logits, classes, distillation);
        let mut results = Vec::with_capacity(instances.len());
        for (instance, own) in instances {
            let cuts = trunk.cuts.iter();
            let cut = cuts
                .into_iter()
                .find(|cut| Some(cut.point) == instance.point());
            let run = BranchRun {
                trunk,
                cut: cut.expect("the network has the point"),
                plan: &plans[&(*instance, images.batch, images.size)],
                transposed,
                parameters: Parameters {
                    weights,
                    own: Some(own),
                },
                images: 0..images.batch,
                target,
                teacher: &teacher,
                weight: 1.0,
                frozen: true,
            };
            let outcome = run.run_frozen(pass, arena, gradients);
            let own = network.own_parameters(*instance).into_iter();
            let own = own.map(|index| (index, gradients.0[index].clone()));
            results.push((outcome, own.collect()));
        }
        Ok(results)
    }
}
