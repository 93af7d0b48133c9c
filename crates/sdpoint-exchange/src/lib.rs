//! Networks in and out of other programs' files.
//!
//! - In: a [`Checkpoint`] is what PyTorch or safetensors saved, read without
//!   running anything that is in it; [`import()`] fits it to a network and
//!   accounts for every tensor.
//! - Out: [`onnx()`] writes one instance for other runtimes, [`state_dict()`]
//!   weights for PyTorch, and [`python()`] the PyTorch module that takes them.
//!
//! No tensor is computed here beyond folding batch norms into convolutions.

mod checkpoint;
mod error;
mod import;
mod onnx;
mod preprocessing;
mod python;
mod state_dict;

pub use checkpoint::{Checkpoint, CheckpointError, Fault, StoredTensor, TensorSet};
pub use error::ExportError;
pub use import::{
    Choice, ClassifierOrigin, ImportError, Imported, Misfit, Misshapen, Origin, OtherSet, import,
    import_chosen, recognise,
};
pub use onnx::{ONNX_INPUT, ONNX_OUTPUT, onnx};
pub use preprocessing::ExportedPreprocessing;
pub use python::python;
pub use state_dict::{StatisticsOf, state_dict};
