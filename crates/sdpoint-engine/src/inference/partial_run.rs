//! Runs that can stop at any point, branch into instances and resume.

use std::borrow::Cow;
use std::sync::Arc;

use sdpoint_core::Instance;

use super::plan::{InferencePlan, PlanSet};
use super::{InferenceEngine, NormSource, lock};
use crate::arena::Arena;
use crate::fuse::Step;
use crate::{EngineError, Images};

/// A run that has executed `full` up to some point, and can continue as any
/// instance whose point it has not passed.
///
/// It executes the same kernel calls as [`InferenceEngine::run`], so stopping
/// at points costs nothing and does not change the result.
#[derive(Debug)]
pub struct PartialRun<'a> {
    engine: &'a InferenceEngine,
    plans: Arc<PlanSet>,
    images: Cow<'a, [f32]>,
    arena: Arena,
    /// The number of steps of `full` executed so far.
    done: usize,
}

impl<'a> PartialRun<'a> {
    pub(super) fn new(
        engine: &'a InferenceEngine,
        images: Images<'a>,
    ) -> Result<Self, EngineError> {
        images.check(&engine.base.network)?;
        let plans = engine.plans(images.batch, images.size)?;
        Ok(Self::with(engine, plans, images.data.into(), 0))
    }

    fn with(
        engine: &'a InferenceEngine,
        plans: Arc<PlanSet>,
        images: Cow<'a, [f32]>,
        done: usize,
    ) -> Self {
        let mut arena = lock(&engine.arenas).pop().unwrap_or_default();
        arena.reserve(plans.full.placement.layout.len());
        Self {
            engine,
            plans,
            images,
            arena,
            done,
        }
    }

    /// Executes `full` up to the step at which `instance` branches off; for
    /// `full` itself, to the end. Does nothing if the run is already there or
    /// past it.
    ///
    /// # Errors
    /// [`EngineError::NotCalibrated`] if the network lacks the instance's point.
    pub fn advance_to(&mut self, instance: Instance) -> Result<(), EngineError> {
        self.advance(instance, &mut |_, _| {})
    }

    /// As [`PartialRun::advance_to`]; calls `on_step` after each step.
    fn advance(
        &mut self,
        instance: Instance,
        on_step: &mut impl FnMut(&InferencePlan, &Step),
    ) -> Result<(), EngineError> {
        let exit = self.exit(instance)?;
        let plan = &self.plans.full;
        let norms = self.engine.norms_of_full();
        let mut executor = self
            .engine
            .executor(plan, &mut self.arena, &self.images, norms);
        for step in plan.steps.get(self.done..exit).unwrap_or(&[]) {
            executor.step(step);
            on_step(plan, step);
        }
        self.done = self.done.max(exit);
        Ok(())
    }

    /// Executes an instance to the end and returns its logits, `batch ·
    /// classes` values. Advances to the instance's point first if necessary.
    /// The run itself stays at that point and can continue as another instance.
    ///
    /// # Errors
    /// [`EngineError::NotCalibrated`] if the instance has no statistics,
    /// [`EngineError::Passed`] if the run is past its point.
    pub fn branch(&mut self, instance: Instance) -> Result<Vec<f32>, EngineError> {
        self.branch_with(instance, NormSource::Own, |_, _| {})
    }

    /// As [`PartialRun::branch`]; calls `on_step` after each step.
    pub(super) fn branch_with(
        &mut self,
        instance: Instance,
        source: NormSource,
        mut on_step: impl FnMut(&InferencePlan, &Step),
    ) -> Result<Vec<f32>, EngineError> {
        let norms = self.engine.norms_of(instance, source)?;
        if self.done > self.exit(instance)? {
            return Err(EngineError::Passed(instance));
        }
        self.advance(instance, &mut on_step)?;
        if instance == Instance::Full {
            let plans = self.plans.clone();
            return Ok(self.logits(&plans.full));
        }
        let engine = self.engine;
        let plan = self
            .plans
            .branch(&engine.base.network, instance, &engine.in_place())?;
        self.arena.extend(plan.placement.layout.len());
        let mut executor = engine.executor(&plan, &mut self.arena, &self.images, norms);
        for step in &plan.steps {
            executor.step(step);
            on_step(&plan, step);
        }
        Ok(self.logits(&plan))
    }

    /// Returns a run of the images `chosen`, by their index in the batch, that
    /// continues from the state of this one. The live tensors are copied;
    /// nothing is recomputed.
    ///
    /// # Errors
    /// [`EngineError::EmptyBatch`] if `chosen` is empty.
    ///
    /// # Panics
    /// If an index is outside of the batch.
    pub fn subset(&mut self, chosen: &[usize]) -> Result<PartialRun<'a>, EngineError> {
        if chosen.is_empty() {
            return Err(EngineError::EmptyBatch);
        }
        let plans = self.engine.plans(chosen.len(), self.plans.size)?;
        let full = &self.plans.full;
        let batch = full.placement.batch;
        let mut images = Vec::new();
        if full.reads_images(self.done) {
            images = vec![0.0; self.images.len() / batch * chosen.len()];
            gather(&self.images, batch, chosen, &mut images);
        }
        let mut run = Self::with(self.engine, plans, images.into(), self.done);
        for value in full.live(self.done) {
            let from = self.arena.read().get(full.placement.place(value));
            let place = run.plans.full.placement.place(value);
            gather(from, batch, chosen, run.arena.write(place).1);
        }
        Ok(run)
    }

    /// The number of steps that an instance shares with `full`.
    fn exit(&self, instance: Instance) -> Result<usize, EngineError> {
        let exit = match instance.point() {
            Some(point) => self.plans.exit(point),
            None => Some(self.plans.full.steps.len()),
        };
        exit.ok_or(EngineError::NotCalibrated(instance))
    }

    fn logits(&mut self, plan: &InferencePlan) -> Vec<f32> {
        let place = plan.placement.place(plan.placement.lowered.output);
        self.arena.read().get(place).to_vec()
    }
}

impl Drop for PartialRun<'_> {
    fn drop(&mut self) {
        lock(&self.engine.arenas).push(std::mem::take(&mut self.arena));
    }
}

/// Copies the rows of the images `chosen` from a batch of `batch` images.
fn gather(data: &[f32], batch: usize, chosen: &[usize], out: &mut [f32]) {
    let len = data.len() / batch;
    for (&image, out) in std::iter::zip(chosen, out.chunks_exact_mut(len)) {
        out.copy_from_slice(&data[image * len..][..len]);
    }
}
