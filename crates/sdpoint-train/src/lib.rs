//! Training networks with stochastic downsampling points.
//!
//! A [`Plan`] says what is trained on what and how. [`Run`] trains it, in a
//! folder that it can be resumed from ([`Checkpoint`]), and ends with
//! [`calibrate`] and [`evaluate`], which also work for themselves on a model
//! that is trained already. An [`Observer`] watches.

pub mod calibrate;
pub mod checkpoint;
pub mod curve;
pub mod draw;
pub mod error;
pub mod evaluate;
pub mod finish;
pub mod folder;
pub mod metrics;
pub mod observer;
pub mod plan;
pub mod recipe;
pub mod run;

pub use calibrate::{Feed, calibrate};
pub use checkpoint::Checkpoint;
pub use curve::{Mark, Series, curve_csv, curve_svg};
pub use draw::{Draw, DrawError, Draws, Method, describe_draws};
pub use error::TrainError;
pub use evaluate::{Evaluation, evaluate};
pub use finish::Finished;
pub use metrics::EpochMetrics;
pub use observer::{Observer, Progress, Silent};
pub use plan::{CALIBRATION_IMAGES, Plan};
pub use recipe::{Preset, Recipe, RecipeError, Schedule, UnknownPreset};
pub use run::{CHECKPOINT_EVERY, Outcome, Run};
