//! What can end a run early.

use std::io;
use std::path::{Path, PathBuf};

use sdpoint_core::{Instance, ModelError, ShapeError};
use sdpoint_data::DataError;
use sdpoint_engine::EngineError;

use crate::recipe::RecipeError;

/// Why a run, a calibration or an evaluation could not be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A setting of the recipe is out of its range.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// Parts of a plan that do not fit together.
    #[error("{0}")]
    Plan(String),
    /// The network cannot take the images.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// The data could not be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The engine refused its input.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The folder for a new run holds one.
    #[error(
        "'{folder}' already holds a run ({found}): resume it, choose another folder, or say that it may be overwritten",
        folder = folder.display()
    )]
    RunExists {
        /// The folder.
        folder: PathBuf,
        /// The file that tells.
        found: String,
    },
    /// The folder of a run to resume holds none.
    #[error("'{}' holds no run to resume: it has no {}", .0.display(), crate::checkpoint::FILE)]
    NoRun(PathBuf),
    /// Another process trains in the folder.
    #[error("another process is training in '{}'; wait for it or choose another folder", .0.display())]
    Busy(PathBuf),
    /// A checkpoint that cannot be used.
    #[error("checkpoint '{path}' cannot be used: {problem}", path = path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The model file could not be written.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Data that is not what the run began with.
    #[error("the run cannot go on with this data: {0}")]
    DataChanged(String),
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The loss or a weight became infinite or undefined.
    #[error(
        "{what} is no longer finite at step {step} (epoch {epoch}, instance {instance}, learning rate {rate:.4}). \
         The checkpoint of step {kept} is kept, but the same settings would end the same way: \
         start again with a lower learning rate, a third of it say, or a longer warm-up",
        epoch = epoch + 1
    )]
    Diverged {
        /// The loss or the weights.
        what: &'static str,
        /// The step, from zero over all epochs.
        step: u64,
        /// Its epoch, from zero.
        epoch: usize,
        /// Its instance.
        instance: Instance,
        /// Its learning rate.
        rate: f64,
        /// The step of the checkpoint on disk.
        kept: u64,
    },
    /// The observer asked to stop a calibration or an evaluation.
    #[error("stopped")]
    Stopped,
}

impl TrainError {
    /// An error of the file system with the path added, for `map_err`.
    pub(crate) fn io(action: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |error| {
            Self::Io(io::Error::new(
                error.kind(),
                format!("cannot {action} '{}': {error}", path.display()),
            ))
        }
    }
}
