//! One convolutional network, trained once, whose inference cost is chosen at
//! run time.
//!
//! A network trained by stochastic downsampling (Kuen et al., CVPR 2018,
//! arXiv 1801.09335) is many networks that share all weights: each
//! [`Instance`] downsamples its feature map once, at one point, and costs
//! accordingly less. This crate combines the parts:
//!
//! - at the top, networks as data, their cost, and the model file: [`Network`],
//!   [`zoo`], [`Instance`], [`Cost`], [`Model`], [`select()`];
//! - [`data`]: image sources, decoding, augmentation, loading;
//! - [`engine`]: inference, training steps and calibration on the CPU;
//! - [`exchange`]: weights from PyTorch, networks for other runtimes;
//! - [`train`]: training runs, checkpoints, evaluation, the curve;
//! - [`Engine`]: runs a model file in any instance, under a budget or by a
//!   deadline.
//!
//! ```
//! use sdpoint::{Instance, Ratio, zoo};
//!
//! let network = zoo::build("resnet50", 1000)?;
//! let full = network.cost([224, 224], Instance::Full)?;
//! assert_eq!(full.macs, 4_089_184_256);
//!
//! // 17 points and 2 ratios make 34 cheaper instances of the same weights.
//! for instance in network.instances(&Ratio::DEFAULT) {
//!     assert!(network.cost([224, 224], instance)?.share(&full) <= 1.0);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod runtime;

pub use runtime::{
    Answer, BatchProfile, CascadeAnswer, Engine, Guess, Inputs, InstanceTime, LoadError, Machine,
    Predictions, Profile, ProfileError, RunError, StretchTime, TimeSource,
};
pub use sdpoint_core::*;
pub use sdpoint_data as data;
pub use sdpoint_engine as engine;
pub use sdpoint_exchange as exchange;
pub use sdpoint_train as train;

/// Compiles the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

/// Compiles the examples of `docs/runtime.md`.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/runtime.md")]
struct Runtime;
