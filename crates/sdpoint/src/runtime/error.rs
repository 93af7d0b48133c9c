//! What can go wrong at run time.

use sdpoint_core::ModelError;
use sdpoint_core::select::SelectError;
use sdpoint_data::{DataError, ImageError};
use sdpoint_engine::{ContextError, EngineError};

/// A model that could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be used.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The threads or the instruction set are not to be had.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// The model does not run.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Images that could not be classified.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The budget chooses no instance.
    #[error(transparent)]
    Select(#[from] SelectError),
    /// The images do not fit the network, or it lacks the instance.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// An image cannot be brought to the network's input.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A file is no image that can be used.
    #[error("image {} of the batch {error}", index + 1)]
    Image {
        /// Which of the files, counted from 0.
        index: usize,
        /// What is wrong with it.
        error: ImageError,
    },
}
