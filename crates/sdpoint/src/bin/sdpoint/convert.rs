//! Which class of failure each error of the libraries belongs to.

use sdpoint::data::DataError;
use sdpoint::engine::{ContextError, EngineError};
use sdpoint::select::SelectError;
use sdpoint::train::TrainError;
use sdpoint::zoo::ZooError;
use sdpoint::{ModelError, PredictError, ShapeError};

use crate::failure::{Class, Failure};

impl From<ZooError> for Failure {
    fn from(error: ZooError) -> Self {
        Self::from_error(Class::Usage, &error).hint("`sdpoint networks` lists them all")
    }
}

impl From<ShapeError> for Failure {
    fn from(error: ShapeError) -> Self {
        let class = match error {
            ShapeError::NoPoint { .. } => Class::Instance,
            _ => Class::Usage,
        };
        Self::from_error(class, &error)
    }
}

impl From<ContextError> for Failure {
    fn from(error: ContextError) -> Self {
        Self::from_error(Class::Usage, &error)
    }
}

impl From<ModelError> for Failure {
    fn from(error: ModelError) -> Self {
        match &error {
            ModelError::Read { source, .. } => Self::io(error.to_string(), source.kind()),
            ModelError::Write(source) => Self::io(error.to_string(), source.kind()),
            _ => Self::from_error(Class::Model, &error),
        }
    }
}

impl From<SelectError> for Failure {
    fn from(error: SelectError) -> Self {
        let failure = Self::from_error(Class::Instance, &error);
        match error {
            SelectError::TooSmall { .. } => failure.hint(
                "raise the budget, or add cheaper instances with `sdpoint calibrate --ratios`",
            ),
            SelectError::Unknown { .. } => failure.hint("`sdpoint instances MODEL` lists them all"),
            SelectError::Empty => failure,
        }
    }
}

impl From<DataError> for Failure {
    fn from(error: DataError) -> Self {
        match &error {
            DataError::Io { error: source, .. } => Self::io(error.to_string(), source.kind()),
            DataError::Source(_) | DataError::Option(_) => Self::from_error(Class::Usage, &error),
            DataError::Download { .. } | DataError::Loader(_) => {
                Self::from_error(Class::Files, &error)
            }
            DataError::TooManyUnreadable { .. } => Self::from_error(Class::Data, &error)
                .hint("`--skip-unreadable N` lets up to N images be skipped"),
            _ => Self::from_error(Class::Data, &error),
        }
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Shape(error) => error.into(),
            EngineError::NotCalibrated(_) => Self::from_error(Class::Instance, &error),
            _ => Self::from_error(Class::Model, &error),
        }
    }
}

impl From<PredictError> for Failure {
    fn from(error: PredictError) -> Self {
        match error {
            PredictError::Data(error) => error.into(),
            PredictError::Engine(error) => error.into(),
        }
    }
}

impl From<TrainError> for Failure {
    fn from(error: TrainError) -> Self {
        match error {
            TrainError::Shape(error) => error.into(),
            TrainError::Data(error) => error.into(),
            TrainError::Engine(error) => error.into(),
            TrainError::Model(error) => error.into(),
            TrainError::Io(error) => Self::io(error.to_string(), error.kind()),
            TrainError::Checkpoint { .. } => Self::from_error(Class::Model, &error),
            TrainError::DataChanged(_) => Self::from_error(Class::Data, &error),
            TrainError::Diverged { .. } => Self::from_error(Class::Diverged, &error),
            TrainError::RunExists { ref folder, .. } => {
                let hint = format!(
                    "`train --resume {}` goes on with it, --overwrite throws it away",
                    folder.display()
                );
                Self::from_error(Class::Usage, &error).hint(hint)
            }
            TrainError::Stopped => Self::from_error(Class::Interrupted, &error),
            _ => Self::from_error(Class::Usage, &error),
        }
    }
}
