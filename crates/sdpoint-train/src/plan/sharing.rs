//! How the instances of a plan share steps: presets, checks, and the work of
//! training.

use std::ops::RangeInclusive;

use sdpoint_core::{Instance, Ratio, ShapeError};

use super::TrainPlan;
use crate::branch_sizes::{self, SizedBranch};
use crate::branching::Branching;
use crate::draw::{Draw, Menu, Method};
use crate::error::TrainError;
use crate::sampler::{InstanceSampler, Phases};
use crate::work::StepWork;

impl TrainPlan {
    /// Sets the method that `--method sdpoint+` stands for: [`Method::SdPoint`]
    /// with the ratios 0.5, 0.6 and 0.75, and instances drawn mostly from
    /// [`Menu::of_early_points`].
    ///
    /// # Errors
    /// If the network does not accept images of this size.
    pub fn with_sdpoint_plus(self) -> Result<Self, ShapeError> {
        let ratios = [0.5, 0.6, 0.75].map(|ratio| Ratio::new(ratio).expect("between 0 and 1"));
        self.with_method(Method::SdPoint)
            .with_ratios(ratios)
            .with_early_points()
    }

    /// Sets the distribution of [`Menu::of_early_points`] for the network and the
    /// ratios.
    ///
    /// # Errors
    /// If the network does not accept images of this size.
    pub fn with_early_points(self) -> Result<Self, ShapeError> {
        let menu = Menu::of_early_points(&self.costs()?);
        Ok(self.with_draw(Draw::Menu(menu)))
    }

    /// The multiply-accumulates of all steps of a run on so many images, forward
    /// and backward, as [`EpochMetrics::macs`](crate::EpochMetrics) counts them.
    /// With several sizes of images, batches are taken to have each equally often.
    ///
    /// # Errors
    /// If the network does not accept images of this size.
    pub fn training_macs(&self, images: usize) -> Result<u64, TrainError> {
        let batch_size = self.recipe.batch_size;
        let an_epoch = images.div_ceil(batch_size);
        let steps = (self.recipe.epochs * an_epoch) as u64;
        let sampler = self.sampler(steps)?;
        let instances: Vec<Instance> = sampler.instances().collect();
        let sizes: Vec<[usize; 2]> = (self.training_sizes().iter()).map(|p| p.size).collect();
        let network = self.trained_network()?;
        let known = if self.exits { &[] } else { &instances[..] };
        let all = sizes.iter().chain(&self.branch_scales).copied();
        let work = StepWork::new(&network, all, known)?;
        let mut sum: u128 = 0;
        for step in 0..steps {
            let done = step as usize % an_epoch * batch_size;
            let batch = batch_size.min(images - done);
            let drawn: Vec<Instance> = (sampler.of_step(step).into_iter())
                .map(|index| instances[index])
                .collect();
            for &size in &sizes {
                sum += u128::from(work.of_step(self.method, size, batch, &drawn));
            }
            let sized = self.sized_branches(&sampler, step, batch);
            sum += u128::from(work.of_sized(&sized));
        }
        Ok(u64::try_from(sum / sizes.len() as u128).unwrap_or(u64::MAX))
    }

    /// The branches on smaller images of a step on so many images.
    pub(crate) fn sized_branches(
        &self,
        sampler: &InstanceSampler,
        step: u64,
        images: usize,
    ) -> Vec<SizedBranch> {
        if self.branch_scales.is_empty() || sampler.is_before_shrinking(step) {
            return Vec::new();
        }
        let branches = self.branching.branches;
        branch_sizes::of_step(&self.branch_scales, branches, images, self.seed, step)
    }

    /// Checks the settings of how instances share steps.
    pub(super) fn check_sharing(&self) -> Result<(), TrainError> {
        in_range(
            "the number of parts of a batch",
            self.parts as f64,
            1.0..=64.0,
        )?;
        if self.parts > 1 && self.method != Method::SdPoint {
            return refuse("drawing for each part of a batch needs the method sdpoint".into());
        }
        self.check_branching()?;
        self.check_branch_scales()?;
        self.check_phases()?;
        let Draw::Menu(menu) = &self.draw else {
            return Ok(());
        };
        let instances = self.network.instances(&self.ratios);
        let unknown = |entry: &&(Instance, f64)| !instances.contains(&entry.0);
        match menu.entries().iter().find(unknown) {
            None => Ok(()),
            Some((instance, _)) => refuse(format!(
                "the menu has {instance}, which {} with these ratios has not",
                self.network.name()
            )),
        }
    }

    fn check_branching(&self) -> Result<(), TrainError> {
        let Branching {
            branches,
            weight,
            temperature,
            ramp,
        } = self.branching;
        in_range("the number of branches", branches as f64, 1.0..=64.0)?;
        in_range("the weight of the branches", weight, 0.0..=100.0)?;
        in_range("the temperature", temperature, 0.1..=100.0)?;
        in_range("the ramp of the distillation", ramp, 0.0..=1.0)?;
        if self.branching != Branching::default() && self.method != Method::Branched {
            return refuse("settings of branches need the method branched".into());
        }
        Ok(())
    }

    fn check_branch_scales(&self) -> Result<(), TrainError> {
        if self.branch_scales.is_empty() {
            return Ok(());
        }
        if self.method != Method::Branched {
            return refuse("sizes of branches need the method branched".into());
        }
        if self.branching.temperature != 1.0 {
            return refuse("with sizes of branches, the temperature must be 1".into());
        }
        if !self.scales.is_empty() {
            return refuse("sizes of branches cannot be combined with other scales".into());
        }
        if self.augmentation.mixes() {
            return refuse("sizes of branches cannot be combined with mixup or cutmix".into());
        }
        let size = self.preprocessing.size;
        let larger = |scale: &&[usize; 2]| scale[0] > size[0] || scale[1] > size[1];
        match self.branch_scales.iter().find(larger) {
            None => Ok(()),
            Some([height, width]) => refuse(format!(
                "branches cannot have images of {height}×{width}, larger than the input"
            )),
        }
    }

    fn check_phases(&self) -> Result<(), TrainError> {
        let Phases {
            shrink_after,
            full_at_end,
        } = self.phases;
        if !(0.0..1.0).contains(&shrink_after) {
            return refuse(format!(
                "the share of steps before shrinking is {shrink_after}; it must be at least 0 and \
                 below 1"
            ));
        }
        if shrink_after > 0.0 && self.method == Method::Plain {
            return refuse(
                "shrinking needs another method than plain, which never downsamples".into(),
            );
        }
        let Some(probability) = full_at_end else {
            return Ok(());
        };
        in_range("the probability of full at the end", probability, 0.0..=1.0)?;
        if self.method != Method::SdPoint {
            return refuse(
                "a probability of full at the end needs the method sdpoint: the others train full \
                 in every step"
                    .into(),
            );
        }
        Ok(())
    }
}

fn refuse(problem: String) -> Result<(), TrainError> {
    Err(TrainError::Plan(problem))
}

fn in_range(what: &str, value: f64, range: RangeInclusive<f64>) -> Result<(), TrainError> {
    if range.contains(&value) {
        return Ok(());
    }
    let (least, most) = range.into_inner();
    refuse(format!(
        "{what} is {value}; it must be from {least} to {most}"
    ))
}
