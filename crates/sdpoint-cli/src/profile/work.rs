//! One measured run of an instance: inference or a training step.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sdpoint::core::{LayerId, Weights};
use sdpoint::engine::{
    InferenceEngine, Pass, Sgd, SgdOptions, SgdStep, StepInput, StepTime, Target, TrainingEngine,
};
use sdpoint::{Context, Images, Instance};

use super::Subject;
use crate::failure::{Class, Failure};

/// An engine and a batch for it.
pub struct Work {
    ctx: Arc<Context>,
    engine: Engine,
    images: Vec<f32>,
    batch: usize,
    size: [usize; 2],
}

enum Engine {
    Inference(InferenceEngine),
    Training(Box<Training>),
}

struct Training {
    engine: TrainingEngine,
    sgd: Sgd,
    weights: Weights,
    momentum: Weights,
    labels: Vec<u32>,
    last: LayerId,
}

impl Work {
    pub fn new(
        ctx: Arc<Context>,
        subject: &Subject,
        batch: usize,
        train: bool,
    ) -> Result<Self, Failure> {
        let Subject {
            network, weights, ..
        } = subject;
        let engine = if train {
            let mut options = SgdOptions::default();
            options.momentum = 0.9;
            options.nesterov = true;
            options.weight_decay = 5e-4;
            options.decay_norms = true;
            let classes = network.classes() as u32;
            Engine::Training(Box::new(Training {
                engine: TrainingEngine::new(ctx.clone(), network.clone()),
                sgd: Sgd::new(network, options),
                weights: weights.clone(),
                momentum: Weights::zeros(network),
                labels: (0..batch as u32).map(|image| image % classes).collect(),
                last: LayerId(network.layers().len() - 1),
            }))
        } else {
            let statistics = &subject.statistics;
            let network = network.clone();
            Engine::Inference(InferenceEngine::new(
                ctx.clone(),
                network,
                weights,
                statistics,
            )?)
        };
        Ok(Self {
            ctx,
            engine,
            images: images(subject, batch)?,
            batch,
            size: subject.input,
        })
    }

    /// Runs an instance once. Returns its time, and with `layers` also the time
    /// of each part.
    pub fn run(
        &mut self,
        instance: Instance,
        layers: bool,
    ) -> Result<(Duration, Vec<StepTime>), Failure> {
        let images = Images {
            data: &self.images,
            batch: self.batch,
            size: self.size,
        };
        let start = Instant::now();
        let steps = match &mut self.engine {
            Engine::Inference(engine) if layers => engine.run_timed(images, instance)?.1,
            Engine::Inference(engine) => {
                engine.run(images, instance)?;
                Vec::new()
            }
            Engine::Training(training) => training.step(&self.ctx, images, instance, layers)?,
        };
        Ok((start.elapsed(), steps))
    }

    /// The memory that runs of an instance need, in bytes.
    pub fn memory_bytes(&mut self, instance: Instance) -> Result<usize, Failure> {
        let (size, batch) = (self.size, self.batch);
        let engine = match &mut self.engine {
            Engine::Inference(engine) => engine.memory_bytes(size, batch, instance)?,
            Engine::Training(training) => {
                let weights_and_momentum = 2 * size_of::<f32>() * training.weights.count();
                training.engine.memory_bytes(size, batch, instance)? + weights_and_momentum
            }
        };
        Ok(engine + self.ctx.scratch_bytes())
    }
}

impl Training {
    fn step(
        &mut self,
        ctx: &Context,
        images: Images<'_>,
        instance: Instance,
        layers: bool,
    ) -> Result<Vec<StepTime>, Failure> {
        // The images are arbitrary: the weights should not learn from them.
        const RATE: f32 = 0.0;
        let Self {
            engine,
            weights,
            momentum,
            labels,
            ..
        } = self;
        let input = StepInput {
            weights,
            images,
            target: Target::labels(labels),
            instance,
        };
        let mut steps = Vec::new();
        if layers {
            steps = engine.step_timed(input)?.1;
        } else {
            engine.step(input)?;
        }
        let start = Instant::now();
        let step = SgdStep {
            weights,
            momentum,
            gradients: engine.gradients(),
            rate: RATE,
        };
        self.sgd.step(ctx, step);
        if layers {
            steps.push(StepTime {
                layer: self.last,
                name: "update weights".into(),
                pass: Pass::Update,
                shapes: None,
                macs: 0,
                algorithms: Vec::new(),
                time: start.elapsed(),
            });
        }
        Ok(steps)
    }
}

/// Values between -1 and 1 for a batch.
fn images(subject: &Subject, batch: usize) -> Result<Vec<f32>, Failure> {
    let channels = subject.network.input_channels();
    let len = [subject.input[0], subject.input[1], channels]
        .into_iter()
        .try_fold(batch, usize::checked_mul);
    let mut images: Vec<f32> = Vec::new();
    let room = len.filter(|&len| images.try_reserve_exact(len).is_ok());
    let Some(len) = room else {
        let problem = format!("a batch of {batch} such images does not fit into memory");
        return Err(Failure::new(Class::Usage, problem));
    };
    images.extend((0..len).map(|i| (i * 7919 % 1999) as f32 / 999.0 - 1.0));
    Ok(images)
}
