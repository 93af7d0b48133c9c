//! A model at work: any instance, at any moment.

mod cascade;
mod deadline;
mod error;
mod inputs;
mod machine;
mod measure;
mod pace;
mod predictions;
mod profile;
#[cfg(test)]
mod tests;
mod timetable;

pub use cascade::CascadeAnswer;
pub use error::{LoadError, RunError};
pub use inputs::Inputs;
pub use machine::Machine;
pub use predictions::{Guess, Predictions};
pub use profile::{BatchProfile, InstanceTime, Profile, ProfileError, StretchTime, TimeSource};

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sdpoint_core::select::SelectError;
use sdpoint_core::{
    Budget, Choice, CombinedRecord, Instance, Model, Network, Preprocessing, Record, Times,
    select_timed,
};
use sdpoint_data::Image;
use sdpoint_engine::{Context, EngineError, Images, InferenceEngine, NormSource};

use pace::Pace;
use timetable::Timetable;

/// A model ready to run, in any of its instances.
///
/// All instances share one packed copy of the weights, so that choosing
/// another one for the next image costs nothing. Calls may come from several
/// threads at once.
///
/// ```no_run
/// use sdpoint::{Budget, Engine};
///
/// let engine = Engine::load("model.safetensors")?;
/// let photo = engine.decode([std::fs::read("photo.jpg")?])?;
///
/// let half: Budget = "50%".parse()?;
/// println!("{}", engine.choose(half)?);
/// for guess in engine.run(&photo, half)?.predictions.top(0, 5) {
///     println!("{:5.1}% {}", 100.0 * guess.probability, guess.class);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Engine {
    inference: InferenceEngine,
    classes: Arc<[String]>,
    preprocessing: Preprocessing,
    records: Vec<Record>,
    combinations: Vec<CombinedRecord>,
    /// What was measured on this machine earlier.
    profile: Vec<BatchProfile>,
    source: TimeSource,
    timetables: Mutex<HashMap<BatchShape, Arc<Timetable>>>,
    /// What the first instance of a cascade costs, and what the second adds.
    cascade_macs: Mutex<HashMap<CascadeShape, [u64; 2]>>,
    /// How this machine has kept to its times lately.
    pace: Mutex<Pace>,
}

/// Batch size, and height and width of the images.
type BatchShape = (usize, [usize; 2]);

/// Height and width of the images, and the two instances.
type CascadeShape = ([usize; 2], [Instance; 2]);

/// What a run gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The classes of each image.
    pub predictions: Predictions,
    /// The instance that was run.
    pub instance: Instance,
    /// How long the run took.
    pub time: Duration,
}

impl Engine {
    /// Loads a model file, and the latency profile beside it if it is of this
    /// machine; see [`Engine::time_source`]. Computes on all threads that the
    /// machine has.
    ///
    /// # Errors
    /// If the model cannot be read, or threads cannot be started.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, LoadError> {
        let context = Context::new(None)?;
        let engine = Self::new(Arc::new(context), Model::load(&path)?)?;
        Ok(engine.with_profile(Profile::load_beside(path.as_ref())))
    }

    /// Packs a model's weights for the instruction set of a context.
    ///
    /// # Errors
    /// If the weights do not fit the network, which those of a model from a
    /// file always do.
    pub fn new(ctx: Arc<Context>, model: Model) -> Result<Self, EngineError> {
        let network = Arc::new(model.network);
        let inference = InferenceEngine::new(ctx, network, &model.weights, &model.statistics)?;
        Ok(Self {
            inference,
            classes: model.classes.into(),
            preprocessing: model.preprocessing,
            records: model.instances,
            combinations: model.combinations,
            profile: Vec::new(),
            source: TimeSource::NoProfile,
            timetables: Mutex::default(),
            cascade_macs: Mutex::default(),
            pace: Mutex::default(),
        })
    }

    /// Takes the times of this machine from a profile, if it has them.
    pub fn with_profile(mut self, profile: Result<Option<Profile>, ProfileError>) -> Self {
        let found = profile.and_then(|profile| match profile {
            None => Ok((Vec::new(), TimeSource::NoProfile)),
            Some(profile) => {
                let size = self.preprocessing.size;
                profile.for_machine(&self.machine(), self.network(), size, &self.records)
            }
        });
        (self.profile, self.source) =
            found.unwrap_or_else(|error| (Vec::new(), TimeSource::Unusable(error.to_string())));
        self.timetables = Mutex::default();
        self
    }

    /// The network.
    pub fn network(&self) -> &Network {
        self.inference.network()
    }

    /// Names of the classes, in the order of the scores.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// Cost and accuracy of every instance.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Cost and accuracy of an instance, if the model has it.
    pub fn record(&self, instance: Instance) -> Option<&Record> {
        self.records
            .iter()
            .find(|record| record.instance == instance)
    }

    /// How images become inputs.
    pub fn preprocessing(&self) -> &Preprocessing {
        &self.preprocessing
    }

    /// What the model runs on, as far as it matters for time.
    pub fn machine(&self) -> Machine {
        Machine::of(self.inference.context())
    }

    /// Where the times of instances come from.
    pub fn time_source(&self) -> &TimeSource {
        &self.source
    }

    /// JPEG, PNG or WebP files as a batch, prepared as in the model's evaluation.
    ///
    /// # Errors
    /// If a file is no such image.
    pub fn decode<F: AsRef<[u8]>>(
        &self,
        files: impl IntoIterator<Item = F>,
    ) -> Result<Inputs, RunError> {
        Inputs::decode(files, &self.preprocessing)
    }

    /// Images as a batch, prepared as in the model's evaluation.
    ///
    /// # Errors
    /// If an image cannot be brought to the network's input.
    pub fn prepare<'a>(
        &self,
        images: impl IntoIterator<Item = &'a Image>,
    ) -> Result<Inputs, RunError> {
        Inputs::prepare(images, &self.preprocessing)
    }

    /// The instance for a budget, and why; see [`select()`](crate::select()).
    /// A [`Budget::Latency`] is for one image of the preprocessing's size, and
    /// may measure some instances first.
    ///
    /// # Errors
    /// If no instance fits the budget, or if the one asked for is not there.
    pub fn choose(&self, budget: impl Into<Budget>) -> Result<Choice, RunError> {
        self.choose_for(budget.into(), (1, self.preprocessing.size))
    }

    fn choose_for(&self, budget: Budget, shape: BatchShape) -> Result<Choice, RunError> {
        let table = match budget {
            Budget::Latency(_) => Some(self.timetable(shape)?),
            _ => self.known_timetable(shape),
        };
        let unknown = Times::new();
        let times = table.as_ref().map_or(&unknown, |table| table.times());
        Ok(select_timed(&self.records, times, budget)?)
    }

    /// How long each instance takes on a batch of the preprocessing's size:
    /// what nine of ten runs stay under, with nothing else running. Without a
    /// profile, a few instances are measured and the others estimated.
    ///
    /// # Errors
    /// If the batch is empty.
    pub fn times(&self, batch: usize) -> Result<Times, EngineError> {
        let table = self.timetable((batch, self.preprocessing.size))?;
        Ok(table.times().clone())
    }

    /// Does ahead what the first runs of a batch size pay for: plans, memory,
    /// and times where there is no profile.
    ///
    /// # Errors
    /// If the batch is empty.
    pub fn warm_up(&self, batch: usize) -> Result<(), EngineError> {
        let size = self.preprocessing.size;
        self.timetable((batch, size))?;
        let inputs = self.test_inputs(batch, size)?;
        let instances: Vec<Instance> = self.records.iter().map(|r| r.instance).collect();
        self.inference
            .run_all((&inputs).into(), &instances, NormSource::Own)?;
        Ok(())
    }

    /// Classifies a batch, in the instance that a budget chooses: a
    /// [`Budget`], an [`Instance`], or a [`Choice`] made before.
    ///
    /// # Errors
    /// If no instance fits, or the images do not fit the network.
    pub fn run<'a>(
        &self,
        images: impl Into<Images<'a>>,
        choice: impl Into<Budget>,
    ) -> Result<Answer, RunError> {
        let images = images.into();
        let choice = self.choose_for(choice.into(), (images.batch, images.size))?;
        let start = Instant::now();
        let logits = self.inference.run(images, choice.instance)?;
        Ok(Answer {
            time: start.elapsed(),
            predictions: Predictions::new(logits, self.classes.clone()),
            instance: choice.instance,
        })
    }

    /// Classifies a batch by the average of the probabilities that several
    /// instances give; what they have in common is computed once.
    ///
    /// # Errors
    /// If there are no instances, or the model lacks one of them, or the
    /// images do not fit the network.
    pub fn run_ensemble<'a>(
        &self,
        images: impl Into<Images<'a>>,
        instances: &[Instance],
    ) -> Result<Predictions, RunError> {
        if instances.is_empty() {
            return Err(SelectError::Empty.into());
        }
        let all = self
            .inference
            .run_all(images.into(), instances, NormSource::Own)?;
        Ok(Predictions::average(&all, self.classes.clone()))
    }

    /// Times for a batch that are known without measuring: from memory, or
    /// from the profile.
    fn known_timetable(&self, shape: BatchShape) -> Option<Arc<Timetable>> {
        if let Some(table) = lock(&self.timetables).get(&shape) {
            return Some(table.clone());
        }
        let (batch, size) = shape;
        let mut profiles = self.profile.iter();
        let profile = profiles.find(|p| p.batch == batch && size == self.preprocessing.size)?;
        Some(self.remember(shape, profile))
    }

    /// Times for a batch: those that are known, or measured now.
    fn timetable(&self, shape: BatchShape) -> Result<Arc<Timetable>, EngineError> {
        if let Some(table) = self.known_timetable(shape) {
            return Ok(table);
        }
        let (batch, size) = shape;
        Ok(self.remember(shape, &self.estimate(batch, size)?))
    }

    fn remember(&self, shape: BatchShape, profile: &BatchProfile) -> Arc<Timetable> {
        let table = Arc::new(Timetable::new(profile, &self.records));
        let mut tables = lock(&self.timetables);
        if tables.len() >= MOST_REMEMBERED {
            tables.clear();
        }
        tables.entry(shape).or_insert(table).clone()
    }
}

/// Only bounds what a caller with ever new sizes piles up.
const MOST_REMEMBERED: usize = 64;

/// What a panicking caller left is whole: entries are replaced, not edited.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
