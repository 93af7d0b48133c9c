//! A run that can be left at any point.

use std::borrow::Cow;
use std::sync::Arc;

use sdpoint_core::Instance;

use super::plan::{Plan, Routes};
use super::{InferenceEngine, NormSource, lock};
use crate::arena::Arena;
use crate::fuse::Step;
use crate::{EngineError, Images};

/// A run under way: so far it is `full`, and it may become any instance
/// whose point it has not passed.
///
/// What is done step by step is what is done at once: there is no cost in
/// stopping at a point.
#[derive(Debug)]
pub struct Flight<'a> {
    engine: &'a InferenceEngine,
    routes: Arc<Routes>,
    images: Cow<'a, [f32]>,
    arena: Arena,
    /// Steps of `full` that are done.
    done: usize,
}

impl<'a> Flight<'a> {
    pub(super) fn new(
        engine: &'a InferenceEngine,
        images: Images<'a>,
    ) -> Result<Self, EngineError> {
        images.check(&engine.base.network)?;
        let routes = engine.routes(images.batch, images.size)?;
        Ok(Self::with(engine, routes, images.data.into(), 0))
    }

    fn with(
        engine: &'a InferenceEngine,
        routes: Arc<Routes>,
        images: Cow<'a, [f32]>,
        done: usize,
    ) -> Self {
        let mut arena = lock(&engine.arenas).pop().unwrap_or_default();
        arena.reserve(routes.full.placement.layout.len());
        Self {
            engine,
            routes,
            images,
            arena,
            done,
        }
    }

    /// Goes on to where an instance parts from `full`, if it is not there or
    /// beyond already; for `full` itself, to the end.
    ///
    /// # Errors
    /// If the network has no such instance.
    pub fn go_to(&mut self, instance: Instance) -> Result<(), EngineError> {
        self.advance(instance, &mut |_, _| {})
    }

    /// As [`Flight::go_to`]; `done` is called after each step.
    fn advance(
        &mut self,
        instance: Instance,
        done: &mut impl FnMut(&Plan, &Step),
    ) -> Result<(), EngineError> {
        let exit = self.exit(instance)?;
        let plan = &self.routes.full;
        let norms = self.engine.norms_of_full();
        let mut executor = self
            .engine
            .executor(plan, &mut self.arena, &self.images, norms);
        for step in plan.steps.get(self.done..exit).unwrap_or(&[]) {
            executor.step(step);
            done(plan, step);
        }
        self.done = self.done.max(exit);
        Ok(())
    }

    /// The logits of an instance: goes on to its point if need be, and
    /// downsamples there. The flight itself stays at the point and can go on.
    ///
    /// # Errors
    /// If the instance has no statistics, or its point lies behind.
    pub fn branch(&mut self, instance: Instance) -> Result<Vec<f32>, EngineError> {
        self.branch_with(instance, NormSource::Own, |_, _| {})
    }

    /// As [`Flight::branch`]; `done` is called after each step.
    pub(super) fn branch_with(
        &mut self,
        instance: Instance,
        source: NormSource,
        mut done: impl FnMut(&Plan, &Step),
    ) -> Result<Vec<f32>, EngineError> {
        let norms = self.engine.norms_of(instance, source)?;
        if self.done > self.exit(instance)? {
            return Err(EngineError::Passed(instance));
        }
        self.advance(instance, &mut done)?;
        if instance == Instance::Full {
            let routes = self.routes.clone();
            return Ok(self.logits(&routes.full));
        }
        let engine = self.engine;
        let plan = self
            .routes
            .branch(&engine.base.network, instance, &engine.in_place())?;
        self.arena.extend(plan.placement.layout.len());
        let mut executor = engine.executor(&plan, &mut self.arena, &self.images, norms);
        for step in &plan.steps {
            executor.step(step);
            done(&plan, step);
        }
        Ok(self.logits(&plan))
    }

    /// A flight of some of the images, from where this one is: what lies
    /// behind is not computed again.
    ///
    /// # Errors
    /// If no image is chosen.
    ///
    /// # Panics
    /// If an image is none of the batch.
    pub fn of(&mut self, chosen: &[usize]) -> Result<Flight<'a>, EngineError> {
        if chosen.is_empty() {
            return Err(EngineError::EmptyBatch);
        }
        let routes = self.engine.routes(chosen.len(), self.routes.size)?;
        let full = &self.routes.full;
        let batch = full.placement.batch;
        let mut images = Vec::new();
        if full.reads_images(self.done) {
            images = vec![0.0; self.images.len() / batch * chosen.len()];
            gather(&self.images, batch, chosen, &mut images);
        }
        let mut flight = Self::with(self.engine, routes, images.into(), self.done);
        for value in full.live(self.done) {
            let from = self.arena.read().get(full.placement.place(value));
            let place = flight.routes.full.placement.place(value);
            gather(from, batch, chosen, flight.arena.write(place).1);
        }
        Ok(flight)
    }

    /// How many steps of `full` come before an instance parts from it.
    fn exit(&self, instance: Instance) -> Result<usize, EngineError> {
        let exit = match instance.point() {
            Some(point) => self.routes.exit(point),
            None => Some(self.routes.full.steps.len()),
        };
        exit.ok_or(EngineError::NotCalibrated(instance))
    }

    fn logits(&mut self, plan: &Plan) -> Vec<f32> {
        let place = plan.placement.place(plan.placement.lowered.output);
        self.arena.read().get(place).to_vec()
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        lock(&self.engine.arenas).push(std::mem::take(&mut self.arena));
    }
}

/// Copies the rows of some images of a batch.
fn gather(data: &[f32], batch: usize, chosen: &[usize], out: &mut [f32]) {
    let len = data.len() / batch;
    for (&image, out) in std::iter::zip(chosen, out.chunks_exact_mut(len)) {
        out.copy_from_slice(&data[image * len..][..len]);
    }
}
