//! Why a network cannot go out.

use sdpoint_core::{Instance, ShapeError};

/// A model that cannot be written in another program's form.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The model lacks the instance.
    #[error("the model has no instance {0}")]
    NoInstance(Instance),
    /// The network cannot take images of the preprocessing's size.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// An ONNX file holds less than 2 GiB.
    #[error("the model needs more than the 2 GiB that an ONNX file holds")]
    TooLarge,
    /// The metadata cannot be written.
    #[error("the metadata cannot be written: {0}")]
    Json(#[from] serde_json::Error),
    /// The tensors cannot be written.
    #[error("the tensors cannot be written: {0}")]
    Safetensors(#[from] safetensors::SafeTensorError),
    /// A layer that cannot be a line of Python.
    #[error("layer '{layer}' cannot be written as Python: {problem}")]
    Python {
        /// The layer's name.
        layer: String,
        /// What is in the way.
        problem: String,
    },
}
