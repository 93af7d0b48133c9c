//! The failure class, and so the exit code, of each library error.

use sdpoint::exchange::{CheckpointError, ExportError};
use sdpoint::profile::ProfileError;
use sdpoint::train::TrainError;
use sdpoint::zoo::ZooError;
use sdpoint::{
    Budget, ContextError, DataError, EngineError, LoadError, ModelError, RunError, SelectError,
    ShapeError,
};
use sdpoint_serve::{ServeError, TokenError};

use crate::failure::{Class, Failure};

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Model(error) => error.into(),
            LoadError::Context(error) => error.into(),
            LoadError::Engine(error) => error.into(),
            error => Self::from_error(Class::Model, &error),
        }
    }
}

impl From<sdpoint_serve::ModelError> for Failure {
    fn from(error: sdpoint_serve::ModelError) -> Self {
        use sdpoint_serve::ModelError;
        match error {
            ModelError::Load { source, .. } => (*source).into(),
            error => Self::from_error(Class::Usage, &error),
        }
    }
}

impl From<ServeError> for Failure {
    fn from(error: ServeError) -> Self {
        match &error {
            ServeError::Listen { source, .. } => Self::io(error.to_string(), source.kind())
                .hint("choose another address with --listen, --grpc or --metrics"),
        }
    }
}

impl From<TokenError> for Failure {
    fn from(error: TokenError) -> Self {
        match &error {
            TokenError::Read { source, .. } => Self::io(error.to_string(), source.kind()),
            _ => Self::from_error(Class::Usage, &error),
        }
    }
}

impl From<ZooError> for Failure {
    fn from(error: ZooError) -> Self {
        Self::from_error(Class::Usage, &error).hint("`sdpoint networks` lists all networks")
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
        let failure = Self::from_error(Class::Usage, &error);
        match error {
            ContextError::Threads { .. } | ContextError::TooManyThreads { .. } => {
                failure.hint("give a lower number with --threads")
            }
            _ => failure,
        }
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

impl From<CheckpointError> for Failure {
    fn from(error: CheckpointError) -> Self {
        match &error {
            CheckpointError::Read { source, .. } => Self::io(error.to_string(), source.kind()),
            _ => Self::from_error(Class::Model, &error),
        }
    }
}

impl From<ExportError> for Failure {
    fn from(error: ExportError) -> Self {
        let class = match error {
            ExportError::NoInstance(_) => Class::Instance,
            _ => Class::Model,
        };
        Self::from_error(class, &error)
    }
}

impl From<SelectError> for Failure {
    fn from(error: SelectError) -> Self {
        let failure = Self::from_error(Class::Instance, &error);
        match error {
            SelectError::NoneFits {
                budget: Budget::MinAccuracy(_),
                ..
            } => failure.hint("`sdpoint evaluate MODEL --data SRC` shows the accuracy of each instance"),
            SelectError::NoneFits { .. } => failure.hint(
                "raise the budget, or add cheaper instances with `sdpoint calibrate --ratios`",
            ),
            SelectError::Unknown { .. } => failure.hint(
                "`sdpoint instances MODEL` lists all instances, and `sdpoint calibrate MODEL --data SRC \
                 --ratios R` adds those of other ratios",
            ),
            SelectError::NotEvaluated(_) => {
                failure.hint("`sdpoint calibrate MODEL --data SRC` measures them")
            }
            SelectError::NoCombination { kind, limit, .. } => failure.hint(format!(
                "`sdpoint calibrate MODEL --data SRC --{kind} {}` fits one",
                Budget::Share(limit)
            )),
            _ => failure,
        }
    }
}

impl From<DataError> for Failure {
    fn from(error: DataError) -> Self {
        match &error {
            DataError::Io { error: source, .. } => Self::io(error.to_string(), source.kind()),
            DataError::Source(_) | DataError::SourcePath { .. } | DataError::Option(_) => {
                Self::from_error(Class::Usage, &error)
            }
            DataError::Download { .. } | DataError::Loader(_) => {
                Self::from_error(Class::Files, &error)
            }
            DataError::TooManyUnreadable { .. } => Self::from_error(Class::Data, &error)
                .hint("`--skip-unreadable N` allows skipping up to N images"),
            _ => Self::from_error(Class::Data, &error),
        }
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Shape(error) => error.into(),
            EngineError::NotCalibrated(_) | EngineError::Passed(_) => {
                Self::from_error(Class::Instance, &error)
            }
            _ => Self::from_error(Class::Model, &error),
        }
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Select(error) => error.into(),
            RunError::Data(error) => error.into(),
            RunError::Engine(error) => error.into(),
            _ => Self::from_error(Class::Data, &error),
        }
    }
}

impl From<ProfileError> for Failure {
    fn from(error: ProfileError) -> Self {
        match &error {
            ProfileError::Read { source, .. } => Self::io(error.to_string(), source.kind()),
            ProfileError::Write(source) => Self::io(error.to_string(), source.kind()),
            _ => Self::from_error(Class::Model, &error),
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
            TrainError::DamagedCheckpoint { .. } => Self::from_error(Class::Model, &error).hint(
                "restore the file from a backup; without one, train again in another folder, \
                 --out DIR",
            ),
            TrainError::DataChanged(_) => Self::from_error(Class::Data, &error).hint(
                "the run continues only with the images that it began with: restore them, or give \
                 them by --data",
            ),
            TrainError::ImagesChanged(_) => Self::from_error(Class::Data, &error)
                .hint("restore the images, or continue with these by --accept-changed-data"),
            TrainError::Diverged { .. } => Self::from_error(Class::Diverged, &error),
            TrainError::OtherSource { ref then, .. } => {
                let hint = format!(
                    "give the images as {then} was; or continue with these by \
                     --accept-changed-data"
                );
                Self::from_error(Class::Data, &error).hint(hint)
            }
            TrainError::FileExists { .. } => Self::from_error(Class::Usage, &error)
                .hint("--out chooses another folder, --overwrite replaces the files"),
            TrainError::RunExists(ref folder) => {
                let hint = format!(
                    "`train --resume {}` continues it, --overwrite replaces it",
                    folder.display()
                );
                Self::from_error(Class::Usage, &error).hint(hint)
            }
            TrainError::Stopped => Self::from_error(Class::Interrupted, &error),
            _ => Self::from_error(Class::Usage, &error),
        }
    }
}
