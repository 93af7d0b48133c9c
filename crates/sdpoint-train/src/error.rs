//! Errors of training, calibration and evaluation.

use std::io;
use std::path::{Path, PathBuf};

use sdpoint_core::{Instance, ModelError, ShapeError};
use sdpoint_data::{DataError, Source};
use sdpoint_engine::EngineError;

use crate::recipe::RecipeError;

/// An error of training, calibration or evaluation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A setting of the recipe is out of its range.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// Settings of a plan that do not fit together.
    #[error("{0}")]
    Plan(String),
    /// The network does not accept images of this size.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// The data cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The engine does not accept its input.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The folder for a new run already holds one.
    #[error(
        "'{}' already holds a run: resume it, choose another folder, or allow overwriting it",
        .0.display()
    )]
    RunExists(PathBuf),
    /// The folder for a new run has a file that it would replace, but no run
    /// that could be resumed.
    #[error(
        "'{folder}' has a file {found}, which the run would replace: move it away, choose another \
         folder, or allow overwriting it",
        folder = folder.display()
    )]
    FileExists {
        /// The folder.
        folder: PathBuf,
        /// The name of the file.
        found: String,
    },
    /// The folder of a run to resume holds none.
    #[error("'{}' holds no run to resume: it has no {}", .0.display(), crate::folder::CHECKPOINT)]
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
    /// A checkpoint of which a part was lost or changed.
    #[error("the checkpoint '{path}' is damaged: {problem}", path = path.display())]
    DamagedCheckpoint {
        /// The file.
        path: PathBuf,
        /// What is damaged.
        problem: String,
    },
    /// The model file cannot be written.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The data has changed since the run began so much that the run cannot
    /// continue with it.
    #[error("the run cannot be resumed with this data: {0}")]
    DataChanged(String),
    /// Images have changed since the run began; the run could continue with them.
    #[error(
        "the run cannot be resumed with this data: {0} have changed since it began: some were \
         added, removed, replaced, renamed or moved to another class"
    )]
    ImagesChanged(&'static str),
    /// The run read its images from another kind of source.
    #[error(
        "the run cannot be resumed with this data: it began with {then}, and the images of {now} \
         come in another order, so that the result would not be that of an uninterrupted run"
    )]
    OtherSource {
        /// The source of the run.
        then: Box<Source>,
        /// The source that was given.
        now: Box<Source>,
    },
    /// A file cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The loss or a weight became infinite or undefined.
    #[error(
        "{what} is no longer finite at step {step} (epoch {epoch}, instance {instance}, learning rate {rate:.4}). \
         The checkpoint of step {kept} is kept, but resuming it would diverge again: \
         start over with a lower learning rate, such as a third of it, or a longer warm-up",
        epoch = epoch + 1
    )]
    Diverged {
        /// The loss or a weight.
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
    /// The observer stopped a calibration or an evaluation.
    #[error("stopped")]
    Stopped,
}

impl TrainError {
    /// For `map_err`: adds the action and the path to an I/O error.
    pub(crate) fn io(action: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |error| {
            Self::Io(io::Error::new(
                error.kind(),
                format!("cannot {action} '{}': {error}", path.display()),
            ))
        }
    }
}
