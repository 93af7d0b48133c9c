//! Errors of the export.

use sdpoint_core::{Instance, ShapeError};

/// Why a model cannot be exported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The model lacks the instance.
    #[error("the model has no instance {0}")]
    NoInstance(Instance),
    /// The network does not accept images of the preprocessing's size.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// The model exceeds the 2 GiB limit of an ONNX file.
    #[error("the model needs more than the 2 GiB that an ONNX file holds")]
    TooLarge,
    /// The metadata cannot be written.
    #[error("the metadata cannot be written: {0}")]
    Json(#[from] serde_json::Error),
    /// The tensors cannot be written.
    #[error("the tensors cannot be written: {0}")]
    Safetensors(#[from] safetensors::SafeTensorError),
    /// A layer cannot be expressed in Python.
    #[error("layer '{layer}' cannot be written as Python: {problem}")]
    Python {
        /// The layer's name.
        layer: String,
        /// The reason.
        problem: String,
    },
}
