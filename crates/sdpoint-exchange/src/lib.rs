//! Import and export of networks.
//!
//! - Import: a [`Checkpoint`] reads files of PyTorch and safetensors without
//!   executing code in them; [`import()`] matches its tensors with a network.
//! - Export: [`onnx()`] writes one instance for other runtimes, [`state_dict()`]
//!   weights for PyTorch, and [`python()`] the PyTorch module that loads them.
//!
//! Except for folding batch norms into convolutions, no tensors are computed.
//!
//! ```no_run
//! use sdpoint_core::zoo;
//! use sdpoint_exchange::{Checkpoint, import, recognise};
//!
//! let checkpoint = Checkpoint::open("checkpoint.pth")?;
//! let name = recognise(&checkpoint, &Default::default()).ok_or("no known network")?;
//! let imported = import(&checkpoint, &zoo::build(&name, 1000)?)?;
//! println!("{name}: {} classes, prefix '{}'", imported.network.classes(), imported.origin.prefix);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

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
    ClassifierOrigin, ImportError, ImportOptions, Imported, Misfit, Misshapen, Origin, OtherSet,
    import, import_chosen, recognise,
};
pub use onnx::{ONNX_INPUT, ONNX_OUTPUT, onnx};
pub use preprocessing::ExportedPreprocessing;
pub use python::python;
pub use state_dict::{StatisticsOf, state_dict};
