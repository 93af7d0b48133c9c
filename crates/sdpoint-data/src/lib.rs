//! Data sets, decoding, augmentation, and loading ahead of the trainer.
//!
//! A [`Source`] names where images come from, [`open`] returns one of its splits
//! as a [`Dataset`], and a [`Loader`] prepares its batches on other threads. How
//! images are prepared is described by
//! [`Preprocessing`](sdpoint_core::Preprocessing), which is stored in the model
//! file; this crate implements it.
//!
//! ```
//! use sdpoint_data::{Epoch, Loader, OpenOptions, Source, default_preprocessing, open_pair};
//!
//! // Or "folder:photos", "tar:photos.tar.gz", "cifar10:data".
//! let source: Source = "shapes".parse()?;
//! let (train, test) = open_pair(&source, &OpenOptions::default())?;
//! assert_eq!((train.len(), test.len(), train.classes().len()), (10_000, 2_000, 10));
//!
//! // Shuffled and augmented batches of 128 images, prepared by two threads.
//! let preprocessing = default_preprocessing(&train)?;
//! let epoch = Epoch { seed: 0, number: 0, first_batch: 0 };
//! let mut batches = Loader::train(&train, &preprocessing, 128, 2, epoch)?;
//! let batch = batches.next().ok_or("no images")??;
//! assert_eq!((batch.labels.len(), batch.size), (128, [32, 32]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod archive;
mod augment;
mod batch;
mod cifar;
mod contents;
mod dataset;
mod decode;
mod defaults;
mod digest;
mod error;
mod expand;
#[cfg(feature = "fetch")]
mod fetch;
mod file;
mod folder;
mod guard;
mod hold_out;
mod image;
mod layout;
mod left_out;
mod limits;
mod loader;
mod names;
mod open;
mod options;
mod places;
mod random;
mod shapes;
mod sizes;
mod source;
mod split;
mod transform;
mod tree;

pub use augment::{Augmentation, AugmentationError};
pub use batch::{Batch, Mixed};
pub use cifar::CifarKind;
pub use dataset::{Dataset, Sample};
pub use decode::kind::ImageKind;
pub use decode::{decode, image_size};
pub use defaults::{default_preprocessing, imagenet_preprocessing};
pub use error::{DataError, ImageError};
pub use expand::expand_home;
#[cfg(feature = "fetch")]
pub use fetch::{Fetched, OFFICIAL_ADDRESS, fetch};
pub use file::{MAX_FILE, read_file};
pub use hold_out::HoldOut;
pub use image::{Image, Orientation};
pub use left_out::{Count, LeftOut};
pub use limits::{MAX_PIXELS, MAX_SIDE};
pub use loader::{Epoch, Loader};
pub use names::{look_alike, visible_name};
pub use open::{open, open_pair};
pub use options::OpenOptions;
pub use places::Places;
pub use random::epoch_order;
pub use sizes::Sizes;
pub use source::Source;
pub use split::Split;
pub use transform::{CHANNELS, Preparer, prepare};
