//! Training by stochastic downsampling, calibration and evaluation.
//!
//! A [`TrainPlan`] says what is trained on which data and how; a [`Run`] trains
//! it in a folder, from which it can be resumed ([`Checkpoint`]), and then
//! calibrates and evaluates all instances. For a trained model,
//! [`calibrate_model`] adds instances, [`evaluate`] measures them,
//! [`fit_combinations`] finds cascades and ensembles, and [`fine_tune`] prepares
//! further training. An [`Observer`] receives the progress of all of these.

mod branch_sizes;
mod branching;
mod calibrate;
mod checkpoint;
mod combine;
mod curve;
mod details;
mod draw;
mod error;
mod evaluate;
mod events;
mod fine_tune;
mod finish;
mod fit;
pub mod folder;
mod keep;
mod measure;
mod metrics;
mod observer;
mod optimizer;
mod plan;
mod recipe;
mod run;
mod sampler;
mod splits;
mod statistics_from;
mod targets;
mod trainer;
mod tune;
mod work;

pub use branching::Branching;
pub use calibrate::{CALIBRATION_IMAGES, CalibrateOptions, Feed, calibrate, calibrate_model};
pub use checkpoint::{Checkpoint, Counters, DataDigest, EpochSums};
pub use curve::{Mark, MarkKind, Series, curve_csv, curve_svg};
pub use details::{ClassCounts, Confusion, Details, MAX_PICTURED_CLASSES};
pub use draw::{Draw, DrawError, Menu, Method};
pub use error::TrainError;
pub use evaluate::{EvaluateOptions, Evaluation, Logits, Trained, evaluate};
pub use fine_tune::{Init, fine_tune};
pub use finish::Finished;
pub use fit::{FitOptions, Fitted, fit_combinations};
pub use metrics::{EpochMetrics, FullMetrics};
pub use observer::{Observer, Progress, Silent};
pub use optimizer::Optimizer;
pub use plan::{TrainPlan, VAL_SHARE};
pub use recipe::{Preset, Recipe, RecipeError, Schedule, UnknownPreset};
pub use run::{Outcome, Run};
pub use sampler::{InstanceSampler, Phases};
pub use statistics_from::{StatisticsFrom, UnknownStatistics};
pub use tune::{TUNING_IMAGES, TUNING_RATE, TuneOptions, tune_model};
