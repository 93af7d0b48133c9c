//! Datasets, decoding, augmentation and loading ahead of the trainer.
//!
//! A [`Source`] names where images come from; [`open`] makes a [`Dataset`] of
//! one of its splits; a [`Loader`] turns that into batches on other threads.
//! How images are prepared is [`Preprocessing`](sdpoint_core::Preprocessing),
//! plain data that travels in the model file; this crate carries it out.

mod archive;
mod batch;
mod cifar;
mod dataset;
mod decode;
mod defaults;
mod error;
#[cfg(feature = "fetch")]
mod fetch;
mod file;
mod folder;
mod image;
mod loader;
mod random;
mod shapes;
mod source;
mod transform;

pub use batch::Batch;
pub use cifar::CifarKind;
pub use dataset::{Dataset, OpenOptions, Sample, open, open_pair};
pub use decode::decode;
pub use defaults::{default_preprocessing, imagenet_preprocessing};
pub use error::{DataError, ImageError};
#[cfg(feature = "fetch")]
pub use fetch::{Fetched, OFFICIAL_ADDRESS, fetch};
pub use image::{Image, MAX_PIXELS, MAX_SIDE};
pub use loader::{Epoch, Loader};
pub use random::epoch_order;
pub use source::{Source, Split};
pub use transform::{CHANNELS, Preparer, prepare};
