//! Networks as data.
//!
//! A [`Network`] is a list of layers in topological order, with the points
//! at which its feature maps may be downsampled. Shapes, cost, the engine,
//! import and export all read that description. This crate computes no
//! tensors.

pub mod atomic;
pub mod combination;
pub mod cost;
pub mod digest;
pub mod instance;
pub mod layer;
pub mod model;
pub mod network;
pub mod preprocessing;
pub mod ratio;
pub mod record;
pub mod select;
pub mod shapes;
pub mod weights;
pub mod zoo;

pub use atomic::write_atomically;
pub use combination::{Cascade, Combination, CombinedRecord};
pub use cost::{Cost, format_macs};
pub use digest::hex;
pub use instance::{Instance, PointId};
pub use layer::{Conv, Layer, LayerId, Op, Window};
pub use model::{Feature, Misfit, Model, ModelError};
pub use network::{Network, NetworkBuilder, NetworkError, Norm, Parameter, Point, Role};
pub use preprocessing::{
    EvalTransform, ExifOrientation, Interpolation, Preprocessing, TrainTransform,
};
pub use ratio::Ratio;
pub use record::Record;
pub use select::{Budget, Choice, Times, select, select_combined, select_timed};
pub use shapes::{Shape, ShapeError, Shapes};
pub use weights::{Moments, Statistics, Weights};
