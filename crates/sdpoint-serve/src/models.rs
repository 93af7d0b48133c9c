//! The models of a server, by name.

mod name;
mod registry;

use std::sync::Arc;

use sdpoint::Engine;
use sdpoint::data::CHANNELS;

pub use name::{NameError, check_name};
pub use registry::{ModelError, Registry, State, Status, UNLOADED, without_path};

use crate::Executor;
use crate::protocol::signature::Signature;

/// A model that is ready to answer.
#[derive(Debug)]
pub struct Model {
    /// The name that clients use.
    pub name: String,
    /// The number of times that the name has been loaded, including this.
    pub generation: u64,
    /// The engine that runs it.
    pub engine: Arc<Engine>,
    /// Its inputs and outputs.
    pub signature: Signature,
    /// Its registration with the executor.
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

    /// The bytes of so many images once they are decoded and prepared.
    pub fn prepared_bytes(&self, images: usize) -> usize {
        images.saturating_mul(self.signature.image_len() * size_of::<f32>())
    }
}

/// A model's registration with the executor, which ends when the last request drops the
/// model: a request keeps the model that it started with across reloads.
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
