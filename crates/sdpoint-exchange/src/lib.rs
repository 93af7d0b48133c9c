//! Networks in and out of other programs' files.
//!
//! - In: a [`Checkpoint`] is what PyTorch or safetensors saved, read without
//!   running anything that is in it; [`import()`] fits it to a network and
//!   accounts for every tensor.
//!
//! No tensor is computed here beyond folding batch norms into convolutions.

mod checkpoint;
mod import;

pub use checkpoint::{Checkpoint, CheckpointError, Fault, StoredTensor};
pub use import::{ImportError, Imported, Misshapen, import};
