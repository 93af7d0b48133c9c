//! The models that the server has, by name.

mod name;
mod registry;

use std::sync::Arc;

use sdpoint::Engine;
use sdpoint::data::CHANNELS;

pub use name::{NameError, check_name};
pub use registry::{ModelError, Registry, State};

use crate::Executor;
use crate::protocol::signature::Signature;

/// A model that is ready to answer.
#[derive(Debug)]
pub struct Model {
    /// The name that clients use.
    pub name: String,
    /// Which load of that name this is, from 1.
    pub generation: u64,
    /// Runs it.
    pub engine: Arc<Engine>,
    /// What it takes and gives.
    pub signature: Signature,
    /// Its place in the executor.
    pub installed: Installed,
}

impl Model {
    fn new(name: &str, generation: u64, engine: Arc<Engine>, installed: Installed) -> Self {
        let signature = Signature {
            size: engine.preprocessing().size,
            channels: CHANNELS,
            classes: engine.classes().len(),
        };
        Self {
            name: name.to_owned(),
            generation,
            engine,
            signature,
            installed,
        }
    }
}

/// A model's place in the executor, which it leaves when nobody holds the model any
/// more: requests that began with a model end with it, however often it is reloaded
/// meanwhile.
pub struct Installed {
    executor: Arc<dyn Executor>,
    key: String,
}

impl Installed {
    /// The executor's name for this load of the model.
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        self.executor.remove(&self.key);
    }
}

impl std::fmt::Debug for Installed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Installed").field(&self.key).finish()
    }
}
