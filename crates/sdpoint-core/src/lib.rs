//! Networks as data.
//!
//! A [`Network`] is a list of layers in topological order, with the points
//! at which its feature maps may be downsampled. Shapes, cost, the engine,
//! import and export all read that description. This crate computes no
//! tensors.

pub mod atomic;
mod combination;
mod cost;
pub mod digest;
pub mod file;
mod held_out;
mod instance;
mod layer;
mod model;
mod network;
mod preprocessing;
mod ratio;
mod record;
pub mod seal;
mod select;
mod shapes;
mod weights;
pub mod words;
pub mod zoo;

pub use combination::{BlendedCascade, Cascade, Combination, CombinedRecord, Stage};
pub use cost::{Cost, format_macs};
pub use held_out::HeldOut;
pub use instance::{Instance, InstanceError, PointId};
pub use layer::{Conv, Layer, LayerId, Op, Window};
pub use model::{FORMAT_VERSION, Feature, KeptImage, Misfit, Model, ModelError};
pub use network::{Network, NetworkBuilder, NetworkError, Norm, Parameter, Point, Role};
pub use preprocessing::{
    CropError, EvalTransform, ExifOrientation, Interpolation, Preprocessing, TrainTransform,
};
pub use ratio::{Ratio, RatioError};
pub use record::{Record, Scores};
pub use select::{
    Budget, BudgetError, Choice, Reason, SelectError, Times, format_duration, pareto,
    parse_accuracy, parse_duration, parse_macs, select, select_combined, select_timed,
};
pub use shapes::{MAX_SIDE, Shape, ShapeError, Shapes};
pub use weights::{Moments, OwnParameters, Statistics, Weights};
