//! Training networks with stochastic downsampling points.
//!
//! A [`Plan`] says what is trained on what and how. [`Run`] trains it, in a
//! folder that it can be resumed from ([`Checkpoint`]), and ends with
//! [`calibrate`] and [`evaluate`], which also work for themselves on a model
//! that is trained already. An [`Observer`] watches.

mod calibrate;
pub mod checkpoint;
mod combine;
mod curve;
mod draw;
mod error;
mod evaluate;
mod fine_tune;
mod finish;
mod fit;
pub mod folder;
mod measure;
mod metrics;
mod observer;
mod plan;
mod recipe;
mod run;
mod trainer;

pub use calibrate::{Feed, calibrate};
pub use checkpoint::Checkpoint;
pub use curve::{Kind, Mark, Series, curve_csv, curve_svg};
pub use draw::{Draw, DrawError, Draws, Method};
pub use error::TrainError;
pub use evaluate::{Evaluation, evaluate};
pub use fine_tune::{Init, fine_tune};
pub use finish::Finished;
pub use fit::{Fitted, Wanted, fit_combinations};
pub use metrics::{EpochMetrics, FullMetrics};
pub use observer::{Observer, Progress, Silent};
pub use plan::{CALIBRATION_IMAGES, Plan};
pub use recipe::{Preset, Recipe, RecipeError, Schedule, UnknownPreset};
pub use run::{CHECKPOINT_EVERY, Outcome, Run};
