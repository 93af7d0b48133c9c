//! A small model for tests, and a simple executor.

mod direct;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use sdpoint::{Context, Engine, Model};

pub use direct::Direct;

/// A model file of 32×32 images and ten classes.
pub fn model_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models/v2.safetensors")
}

/// The model, loaded once.
pub fn engine() -> Arc<Engine> {
    static ENGINE: OnceLock<Arc<Engine>> = OnceLock::new();
    let load = || {
        let context = Context::new(std::num::NonZeroUsize::new(1)).unwrap();
        let model = Model::load(model_file()).unwrap();
        Arc::new(Engine::new(Arc::new(context), model).unwrap())
    };
    ENGINE.get_or_init(load).clone()
}
