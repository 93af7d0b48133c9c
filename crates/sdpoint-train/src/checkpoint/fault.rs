//! Why the bytes of a file are not a checkpoint that can be used.

use std::path::PathBuf;

use safetensors::SafeTensorError;
use sdpoint_core::words::plural;

use crate::error::TrainError;

/// What is wrong with a checkpoint, for the end of a message.
#[derive(Debug)]
pub(super) enum Fault {
    /// The file is whole, but is something else, or of another version.
    Unusable(String),
    /// A part of the file was lost or changed.
    Damaged(String),
}

impl Fault {
    pub fn damaged(problem: impl Into<String>) -> Self {
        Self::Damaged(problem.into())
    }

    /// The error of the file that has the fault.
    pub fn at(self, path: PathBuf) -> TrainError {
        match self {
            Self::Unusable(problem) => TrainError::Checkpoint { path, problem },
            Self::Damaged(problem) => TrainError::DamagedCheckpoint { path, problem },
        }
    }

    /// The fault of a file that is not a whole safetensors file.
    pub fn of_container(bytes: &[u8], error: &SafeTensorError) -> Self {
        Self::Damaged(match error {
            _ if bytes.is_empty() => "it is empty".into(),
            SafeTensorError::HeaderTooSmall | SafeTensorError::InvalidHeaderLength => format!(
                "it is truncated: it has {}, and ends before its weights",
                size(bytes.len())
            ),
            SafeTensorError::HeaderTooLarge => {
                "its first 8 bytes are not those of a safetensors file".into()
            }
            SafeTensorError::MetadataIncompleteBuffer => format!(
                "the file has {}, which is not the size of its weights: it was truncated, or \
                 something was appended to it",
                size(bytes.len())
            ),
            _ => "its list of weights, at the start of the file, cannot be read".into(),
        })
    }
}

fn size(bytes: usize) -> String {
    plural(bytes, "byte", "bytes")
}
