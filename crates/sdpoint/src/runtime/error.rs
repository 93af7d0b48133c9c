//! Errors of loading and running models.

use sdpoint_core::{ModelError, SelectError};
use sdpoint_data::{DataError, ImageError};
use sdpoint_engine::{ContextError, EngineError};

/// An error of loading a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The model file cannot be read or is invalid.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Threads cannot be started, or the instruction set is not available.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// The engine does not accept the model.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// An error of classifying images.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// No instance fits the budget.
    #[error(transparent)]
    Select(#[from] SelectError),
    /// The images do not fit the network, or the model lacks the instance.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The preprocessing cannot be applied.
    #[error(transparent)]
    Data(#[from] DataError),
    /// An image cannot be decoded or resized.
    #[error("image {} of the batch {error}", index + 1)]
    Image {
        /// The index of the image, from 0.
        index: usize,
        /// The cause.
        error: ImageError,
    },
}
