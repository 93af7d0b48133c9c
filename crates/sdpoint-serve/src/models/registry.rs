//! Loading, reloading and unloading of models.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use sdpoint::profile::TimeSource;
use sdpoint::{Context, Engine, EngineError, LoadError};

use super::name::{NameError, check_name};
use super::{Installed, Model};
use crate::Executor;
use crate::metrics::ModelMetrics;
use crate::statistics::Statistics;

/// The models that a server was started with. Requests can load and unload these by name,
/// but never a file.
pub struct Registry {
    entries: BTreeMap<String, Entry>,
    executor: Arc<dyn Executor>,
    context: Arc<Context>,
    /// Held while a model is loaded or unloaded, so that only one is at a time.
    changing: Mutex<()>,
}

struct Entry {
    file: PathBuf,
    state: RwLock<State>,
    /// Why the last load failed, if it did.
    failure: RwLock<Option<String>>,
    /// Whether a client unloaded it. Until it is ready again it has no part in the readiness of the
    /// server, whose other models go on.
    unloaded: AtomicBool,
    loads: AtomicU64,
    statistics: Arc<Statistics>,
    metrics: Arc<ModelMetrics>,
}

/// The state of a model.
#[derive(Clone, Debug)]
pub enum State {
    /// It is being loaded for the first time, or again after it was unloaded.
    Loading,
    /// It is ready.
    Ready(Arc<Model>),
    /// It was unloaded on request.
    Unloaded,
    /// It could not be loaded.
    Unavailable(String),
}

/// Why a model with [`State::Unloaded`] does not answer.
pub const UNLOADED: &str = "the model was unloaded";

/// The name and the state of a model.
#[derive(Clone, Debug)]
pub struct Status {
    /// The name.
    pub name: String,
    /// The state.
    pub state: State,
    /// Why the last load failed, if it did. A model that was ready before still is.
    pub failure: Option<String>,
}

/// An error of finding or loading a model.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// No model has this name.
    #[error("there is no model {}", crate::protocol::error::quoted(.0))]
    Unknown(String),
    /// The name is invalid.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Two models have the same name.
    #[error(
        "two models are named '{name}': {} and {}; give one another name, as in NAME={}",
        files[0].display(),
        files[1].display(),
        files[1].display()
    )]
    Twice {
        /// The name.
        name: String,
        /// The files.
        files: Box<[PathBuf; 2]>,
    },
    /// It cannot be loaded.
    #[error("model '{name}' cannot be loaded: {source}")]
    Load {
        /// The name.
        name: String,
        /// The file.
        file: PathBuf,
        /// The reason.
        source: Box<LoadError>,
    },
}

impl Registry {
    /// Creates a registry of model files by name. None is loaded yet.
    ///
    /// # Errors
    /// If a name is given twice or invalid.
    pub fn new(
        files: impl IntoIterator<Item = (String, PathBuf)>,
        context: Arc<Context>,
        executor: Arc<dyn Executor>,
        metrics: &crate::Metrics,
    ) -> Result<Self, ModelError> {
        let mut entries: BTreeMap<String, Entry> = BTreeMap::new();
        for (name, file) in files {
            check_name(&name)?;
            if let Some(other) = entries.get(&name) {
                let files = Box::new([other.file.clone(), file]);
                return Err(ModelError::Twice { name, files });
            }
            let entry = Entry {
                file,
                state: RwLock::new(State::Loading),
                failure: RwLock::default(),
                unloaded: AtomicBool::new(false),
                loads: AtomicU64::new(0),
                statistics: Arc::default(),
                metrics: metrics.model(&name),
            };
            entries.insert(name, entry);
        }
        Ok(Self {
            entries,
            executor,
            context,
            changing: Mutex::new(()),
        })
    }

    /// The names, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The states of all models.
    pub fn statuses(&self) -> Vec<Status> {
        let status = |(name, entry): (&String, &Entry)| Status {
            name: name.clone(),
            state: entry.state(),
            failure: entry.failure(),
        };
        self.entries.iter().map(status).collect()
    }

    /// Whether every model is ready that was not unloaded on request.
    pub fn ready(&self) -> bool {
        self.entries.values().all(|entry| {
            matches!(entry.state(), State::Ready(_)) || entry.unloaded.load(Ordering::Relaxed)
        })
    }

    /// The state of a model.
    ///
    /// # Errors
    /// If no model has this name.
    pub fn state(&self, name: &str) -> Result<State, ModelError> {
        Ok(self.entry(name)?.state())
    }

    /// The request statistics of a model, as Triton defines them.
    ///
    /// # Errors
    /// If no model has this name.
    pub fn statistics(&self, name: &str) -> Result<Arc<Statistics>, ModelError> {
        Ok(self.entry(name)?.statistics.clone())
    }

    /// The metrics of a model.
    ///
    /// # Errors
    /// If no model has this name.
    pub fn metrics(&self, name: &str) -> Result<Arc<ModelMetrics>, ModelError> {
        Ok(self.entry(name)?.metrics.clone())
    }

    /// Loads or reloads a model. Until the new one is ready, the old one answers. It may
    /// block for seconds.
    ///
    /// # Errors
    /// If no model has this name, or it cannot be loaded. An old one stays in service.
    pub fn load(&self, name: &str) -> Result<(), ModelError> {
        let entry = self.entry(name)?;
        let _changing = lock(&self.changing);
        if !matches!(entry.state(), State::Ready(_)) {
            entry.set(State::Loading);
        }
        let generation = entry.loads.fetch_add(1, Ordering::Relaxed) + 1;
        let started = std::time::Instant::now();
        let model = self.install(name, generation, &entry.file);
        entry.metrics.loaded(model.is_ok());
        match model {
            Ok(model) => {
                entry.failed(None);
                if let source @ TimeSource::Unusable(_) = model.engine.time_source() {
                    tracing::warn!(model = name, "{source}");
                }
                entry.set(State::Ready(Arc::new(model)));
                entry.unloaded.store(false, Ordering::Relaxed);
                let seconds = started.elapsed().as_secs_f64();
                tracing::info!(model = name, generation, seconds, "model loaded");
                Ok(())
            }
            Err(source) => {
                tracing::error!(model = name, error = %source, "model cannot be loaded");
                let reason = without_path(&source, &entry.file);
                entry.failed(Some(reason.clone()));
                if !matches!(entry.state(), State::Ready(_)) {
                    entry.set(State::Unavailable(reason));
                }
                Err(ModelError::Load {
                    name: name.to_owned(),
                    file: entry.file.clone(),
                    source: Box::new(source),
                })
            }
        }
    }

    /// Loads or reloads every model, and returns the errors.
    pub fn load_all(&self) -> Vec<ModelError> {
        self.names()
            .filter_map(|name| self.load(name).err())
            .collect()
    }

    /// Unloads a model. Requests in progress are answered.
    ///
    /// # Errors
    /// If no model has this name.
    pub fn unload(&self, name: &str) -> Result<(), ModelError> {
        let entry = self.entry(name)?;
        let _changing = lock(&self.changing);
        entry.unloaded.store(true, Ordering::Relaxed);
        entry.set(State::Unloaded);
        tracing::info!(model = name, "model unloaded");
        Ok(())
    }

    fn install(&self, name: &str, generation: u64, file: &Path) -> Result<Model, LoadError> {
        let engine = Arc::new(Engine::load_with(self.context.clone(), file)?);
        let key = format!("{name}#{generation}");
        let installed = |()| Installed {
            executor: self.executor.clone(),
            key: key.clone(),
        };
        let installed = self
            .executor
            .install(&key, engine.clone())
            .map(installed)
            .map_err(|error: EngineError| LoadError::from(error))?;
        Ok(Model::new(name, generation, engine, installed))
    }

    fn entry(&self, name: &str) -> Result<&Entry, ModelError> {
        self.entries
            .get(name)
            .ok_or_else(|| ModelError::Unknown(name.to_owned()))
    }
}

/// The reason of a failure without the path of the model's file: clients need not know where the
/// server's files are; its log has the path.
pub fn without_path(error: &LoadError, file: &Path) -> String {
    let path = file.display();
    let text = error.to_string();
    let text = text.replace(&format!("'{path}'"), "the model file");
    text.replace(&path.to_string(), "the model file")
}

impl Entry {
    fn failed(&self, reason: Option<String>) {
        *self.failure.write().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    fn failure(&self) -> Option<String> {
        self.failure
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn state(&self) -> State {
        self.state
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, state: State) {
        self.metrics.ready(matches!(state, State::Ready(_)));
        // The old model is dropped outside the lock, because this may remove it from the
        // executor.
        let old = {
            let mut current = self.state.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *current, state)
        };
        drop(old);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
