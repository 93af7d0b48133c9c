//! One convolutional network, trained once, whose inference cost is chosen at
//! run time.
//!
//! A network trained by stochastic downsampling (Kuen et al., CVPR 2018,
//! arXiv 1801.09335) is many networks that share all weights: each
//! [`Instance`] downsamples its feature map once, at one point, and costs
//! accordingly less.
//!
//! What most programs need is at the top level: an [`Engine`] runs a [`Model`]
//! in any instance, under a [`Budget`] or by a deadline, and returns an
//! [`Answer`]; a [`Network`] comes from the [`zoo`]. Everything else is in a
//! module:
//!
//! - [`core`]: networks as data, their cost, and what a model file holds;
//! - [`data`]: image sources, decoding, augmentation, loading;
//! - [`engine`]: inference, training steps and calibration, without budgets;
//! - [`exchange`]: weights from PyTorch, networks for other runtimes;
//! - [`profile`]: measured latencies of a model's instances;
//! - [`train`]: training runs, checkpoints, evaluation, the cost–accuracy curve.
//!
//! # Cost
//!
//! ```
//! use sdpoint::core::Ratio;
//! use sdpoint::{Instance, zoo};
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
    Answer, AnsweredBy, Engine, Guess, Inputs, LoadError, Predictions, RunError, profile,
};
pub use sdpoint_core::{
    Budget, BudgetError, Choice, Instance, InstanceError, Model, ModelError, Network, NetworkError,
    SelectError, ShapeError, zoo,
};
pub use sdpoint_data::{DataError, Image, ImageError};
pub use sdpoint_engine::{Context, ContextError, EngineError, Images};

// Private imports hide from the globs what the top level has already, so that
// every item has one path.

/// Networks as data, their cost, the choice of an instance, and what a model
/// file holds; see also the top level and [`zoo`].
#[allow(hidden_glob_reexports, unused_imports)]
pub mod core {
    pub use sdpoint_core::*;

    use sdpoint_core::{
        Budget, BudgetError, Choice, Instance, InstanceError, Model, ModelError, Network,
        NetworkError, SelectError, ShapeError, zoo,
    };
}

/// Sources of images, decoding, augmentation, and loading ahead of the trainer.
#[allow(hidden_glob_reexports, unused_imports)]
pub mod data {
    pub use sdpoint_data::*;

    use sdpoint_data::{DataError, Image, ImageError};
}

/// The layer below [`Engine`]: inference, training steps and calibration of
/// batch-norm statistics for any instance of a network.
///
/// [`Engine`]: crate::Engine
#[allow(hidden_glob_reexports, unused_imports)]
pub mod engine {
    pub use sdpoint_engine::*;

    use sdpoint_engine::{Context, ContextError, EngineError, Images};
}

#[doc(inline)]
pub use sdpoint_exchange as exchange;
#[doc(inline)]
pub use sdpoint_train as train;

/// Compiles the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

/// Compiles the examples of `docs/runtime.md`.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/runtime.md")]
struct Runtime;
