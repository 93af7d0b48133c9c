//! The inference runtime: runs any instance of a trained model under budgets
//! and deadlines.

mod answer;
mod cascade;
mod deadline;
mod deciding;
mod error;
mod inputs;
mod machine;
mod macs;
mod measure;
mod pace;
mod predictions;
pub mod profile;
mod progress;
#[cfg(test)]
mod tests;
mod timetable;

pub use answer::{Answer, AnsweredBy};
pub use error::{LoadError, RunError};
pub use inputs::Inputs;
pub use pace::Pace;
pub use predictions::{Guess, Predictions};
pub use progress::{Crossing, Decision, Progress, Way};
pub use timetable::Timetable;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sdpoint_core::{
    Budget, Choice, CombinedRecord, Instance, KeptImage, Model, Network, Preprocessing, Record,
    SelectError, Times, select_timed,
};
use sdpoint_data::Image;
use sdpoint_engine::{
    Context, EngineError, Images, InferenceEngine, NormSource, Packing, release_freed_memory,
};

use macs::{Computation, MacsCache};
use profile::{BatchProfile, Machine, Profile, ProfileError, TimeSource};

/// A model loaded for inference in any of its instances.
///
/// All instances share one packed copy of the weights, so switching instances
/// between two images costs nothing. The engine can be used from several
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
    samples: Vec<KeptImage>,
    /// Latencies from the profile, measured on this machine.
    profile: Vec<BatchProfile>,
    source: TimeSource,
    timetables: Mutex<HashMap<BatchShape, Arc<Timetable>>>,
    macs: Mutex<MacsCache>,
    /// The recent ratio of actual to expected latency.
    pace: Mutex<Pace>,
}

/// Batch size, and height and width of the images.
type BatchShape = (usize, [usize; 2]);

impl Engine {
    /// Loads a model file, and the latency profile next to it if it was
    /// measured on this machine; see [`Engine::time_source`]. Kernels run on all
    /// threads of the machine.
    ///
    /// # Errors
    /// If the model cannot be read, or threads cannot be started.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, LoadError> {
        Self::load_with(Arc::new(Context::new(None)?), path)
    }

    /// As [`Engine::load`], on the threads and for the instruction set of `ctx`.
    ///
    /// Weights are packed while the file is read, so that they are never in memory as a whole
    /// besides: faster and with less memory than [`Model::load`] and [`Engine::new`].
    ///
    /// # Errors
    /// If the model cannot be read.
    pub fn load_with(ctx: Arc<Context>, path: impl AsRef<Path>) -> Result<Self, LoadError> {
        let mut packing = Packing::new(ctx);
        let model = Model::load_passing(&path, |network, index, values| {
            packing.take(network, index, values)
        })?;
        let engine = Self::finish(packing, model)?;
        Ok(engine.with_profile_beside(path.as_ref()))
    }

    /// Creates an engine from a model, and packs its weights for the
    /// instruction set of `ctx`. It has no latency profile.
    ///
    /// # Errors
    /// If the weights do not fit the network. Those of a model read from a file
    /// always do.
    pub fn new(ctx: Arc<Context>, model: Model) -> Result<Self, EngineError> {
        Self::finish(Packing::new(ctx), model)
    }

    /// Creates an engine from a model of which some parameters may be packed already.
    fn finish(packing: Packing, model: Model) -> Result<Self, EngineError> {
        let network = Arc::new(model.network);
        let inference = packing.finish(network, &model.weights, &model.statistics)?;
        // The engine holds them packed.
        drop((model.weights, model.statistics));
        release_freed_memory();
        Ok(Self {
            inference,
            classes: model.classes.into(),
            preprocessing: model.preprocessing,
            records: model.instances,
            combinations: model.combinations,
            samples: model.samples,
            profile: Vec::new(),
            source: TimeSource::NoProfile,
            timetables: Mutex::default(),
            macs: Mutex::default(),
            pace: Mutex::default(),
        })
    }

    /// Uses the latencies of this machine from a profile, if it has them. If
    /// the profile is of another machine or another model, latencies are
    /// measured as without one; [`Engine::time_source`] says why.
    pub fn with_profile(self, profile: Profile) -> Self {
        let size = self.preprocessing.size;
        let found = profile.for_machine(&self.machine(), self.network(), size, &self.records);
        self.with_times(found)
    }

    /// Uses the latency profile next to a model file, as [`Engine::load`] does.
    /// If there is none, or it cannot be used, latencies are measured;
    /// [`Engine::time_source`] says why.
    pub fn with_profile_beside(self, model: impl AsRef<Path>) -> Self {
        match Profile::load_beside(model.as_ref()) {
            Ok(Some(profile)) => self.with_profile(profile),
            Ok(None) => self.with_times(Ok((Vec::new(), TimeSource::NoProfile))),
            Err(error) => self.with_times(Err(error)),
        }
    }

    fn with_times(mut self, times: Result<(Vec<BatchProfile>, TimeSource), ProfileError>) -> Self {
        (self.profile, self.source) =
            times.unwrap_or_else(|error| (Vec::new(), TimeSource::Unusable(error.to_string())));
        self.timetables = Mutex::default();
        self
    }

    /// The network.
    pub fn network(&self) -> &Network {
        self.inference.network()
    }

    /// The names of the classes, in the order of the logits.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// The cost and accuracy of every instance.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The cost and accuracy of an instance, if the model has it.
    pub fn record(&self, instance: Instance) -> Option<&Record> {
        self.records
            .iter()
            .find(|record| record.instance == instance)
    }

    /// The test images that the model file keeps.
    pub fn samples(&self) -> &[KeptImage] {
        &self.samples
    }

    /// The preprocessing of images.
    pub fn preprocessing(&self) -> &Preprocessing {
        &self.preprocessing
    }

    /// The machine that the model runs on, as far as it affects latency.
    pub fn machine(&self) -> Machine {
        Machine::of(self.inference.context())
    }

    /// The source of the instances' latencies.
    pub fn time_source(&self) -> &TimeSource {
        &self.source
    }

    /// Decodes the contents of JPEG, PNG or WebP files and preprocesses them, as in
    /// evaluation, into a batch.
    ///
    /// # Errors
    /// [`RunError::Image`] if a file is not such an image, or cannot be resized
    /// to the network's input.
    pub fn decode<F: AsRef<[u8]>>(
        &self,
        files: impl IntoIterator<Item = F>,
    ) -> Result<Inputs, RunError> {
        Inputs::decode(files, &self.preprocessing)
    }

    /// Preprocesses decoded images, as in evaluation, into a batch.
    ///
    /// # Errors
    /// [`RunError::Image`] if an image cannot be resized to the network's input.
    pub fn prepare<'a>(
        &self,
        images: impl IntoIterator<Item = &'a Image>,
    ) -> Result<Inputs, RunError> {
        Inputs::prepare(images, &self.preprocessing)
    }

    /// Selects the instance for a budget, with the reason; may measure latencies.
    ///
    /// Only a [`Budget::Latency`] without a profile measures: a few instances,
    /// once. Such a budget applies to one image of the preprocessing's size.
    /// [`core::select`](crate::core::select()) has the rules.
    ///
    /// # Errors
    /// [`RunError::Select`] if no instance fits the budget, or the model lacks
    /// the requested one.
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

    /// Returns the latency of each instance; may measure latencies.
    ///
    /// It is the 90th percentile on an otherwise idle machine, for `batch`
    /// images of the preprocessing's size. Without a profile, a few instances
    /// are measured, once, and the others estimated.
    ///
    /// # Errors
    /// If the batch is empty, or too large for the memory.
    pub fn times(&self, batch: usize) -> Result<Times, EngineError> {
        let table = self.timetable((batch, self.preprocessing.size))?;
        Ok(table.times().clone())
    }

    /// Runs every instance once on synthetic images; may measure latencies.
    ///
    /// The first runs of a batch size build plans, allocate memory and, without
    /// a profile, measure a few instances; this does so ahead of them.
    ///
    /// # Errors
    /// If the batch is empty, or too large for the memory.
    pub fn warm_up(&self, batch: usize) -> Result<(), EngineError> {
        let size = self.preprocessing.size;
        self.timetable((batch, size))?;
        let inputs = self.test_inputs(batch, size)?;
        let instances: Vec<Instance> = self.records.iter().map(|r| r.instance).collect();
        self.inference
            .run_all((&inputs).into(), &instances, NormSource::Own)?;
        for instance in instances {
            self.macs(size, Computation::Single(instance))?;
        }
        Ok(())
    }

    /// Classifies a batch in one instance; may measure latencies.
    ///
    /// A [`Budget`], an [`Instance`] or an earlier [`Choice`] selects the
    /// instance. Only a [`Budget::Latency`] without a profile measures: a few
    /// instances, once for each batch shape, before the run.
    ///
    /// # Errors
    /// If no instance fits the budget, or the images do not fit the network.
    pub fn run<'a>(
        &self,
        images: impl Into<Images<'a>>,
        choice: impl Into<Budget>,
    ) -> Result<Answer, RunError> {
        let images = images.into();
        let choice = self.choose_for(choice.into(), (images.batch, images.size))?;
        let start = Instant::now();
        let logits = self.inference.run(images, choice.instance)?;
        let time = start.elapsed();
        self.answer(logits, choice.instance, images.size, time)
    }

    /// The answer of a single instance.
    fn answer(
        &self,
        logits: Vec<f32>,
        instance: Instance,
        size: [usize; 2],
        time: Duration,
    ) -> Result<Answer, RunError> {
        let [macs, ..] = self.macs(size, Computation::Single(instance))?;
        Ok(Answer {
            predictions: Predictions::new(logits, self.classes.clone()),
            instances: AnsweredBy::Instance(instance),
            macs: macs as f64,
            time,
        })
    }

    /// Classifies a batch by the mean probabilities of several instances.
    ///
    /// The layers that they have in common are computed once. A fitted ensemble
    /// comes from [`Engine::choose_ensemble`].
    ///
    /// # Errors
    /// If `instances` is empty, the model lacks one of them, or the images do
    /// not fit the network.
    pub fn run_ensemble<'a>(
        &self,
        images: impl Into<Images<'a>>,
        instances: &[Instance],
    ) -> Result<Answer, RunError> {
        if instances.is_empty() {
            return Err(SelectError::Empty.into());
        }
        let images = images.into();
        let start = Instant::now();
        let all = self.inference.run_all(images, instances, NormSource::Own)?;
        let predictions = Predictions::average(&all, self.classes.clone());
        let time = start.elapsed();
        let [macs, ..] = self.macs(images.size, Computation::Ensemble(instances.to_vec()))?;
        Ok(Answer {
            predictions,
            instances: AnsweredBy::Ensemble(instances.to_vec()),
            macs: macs as f64,
            time,
        })
    }

    /// The timetable for a batch shape if it is cached or in the profile.
    fn known_timetable(&self, shape: BatchShape) -> Option<Arc<Timetable>> {
        if let Some(table) = lock(&self.timetables).get(&shape) {
            return Some(table.clone());
        }
        let (batch, size) = shape;
        let mut profiles = self.profile.iter();
        let profile = profiles.find(|p| p.batch == batch && size == self.preprocessing.size)?;
        Some(self.remember(shape, profile))
    }

    /// The timetable for a batch shape; measures it if it is not known.
    fn timetable(&self, shape: BatchShape) -> Result<Arc<Timetable>, EngineError> {
        if let Some(table) = self.known_timetable(shape) {
            return Ok(table);
        }
        let (batch, size) = shape;
        Ok(self.remember(shape, &self.estimate(batch, size)?))
    }

    /// Caches the timetable for a batch shape.
    fn remember(&self, shape: BatchShape, profile: &BatchProfile) -> Arc<Timetable> {
        let table = Arc::new(Timetable::new(profile, &self.records));
        let mut tables = lock(&self.timetables);
        if tables.len() >= MOST_REMEMBERED {
            tables.clear();
        }
        tables.entry(shape).or_insert(table).clone()
    }
}

/// The most entries in a cache. It bounds memory for callers whose sizes keep
/// changing.
const MOST_REMEMBERED: usize = 64;

/// Locks a mutex and ignores poisoning: entries are replaced as a whole, so
/// they are valid after a panic too.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
