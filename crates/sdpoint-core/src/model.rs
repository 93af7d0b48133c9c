//! The model file: one safetensors file that holds a network, what it has
//! learnt, and what is needed to use it. `docs/model-file.md` describes the
//! format.

mod check;
mod document;
mod feature;
mod layout;
mod read;
mod write;

pub use check::Misfit;
pub use feature::Feature;

use std::io;
use std::path::{Path, PathBuf};

use crate::combination::CombinedRecord;
use crate::instance::Instance;
use crate::network::Network;
use crate::preprocessing::Preprocessing;
use crate::record::Record;
use crate::weights::{Statistics, Weights};

/// The version of the format that is written. All versions up to it are read.
///
/// Since version 3 a file names the [`Feature`]s that it has; what is added
/// to the format later is another feature, not another version.
pub const FORMAT_VERSION: u32 = 3;

/// A trained network with everything that using it takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// The network.
    pub network: Network,
    /// The values of its parameters.
    pub weights: Weights,
    /// The batch-norm statistics of its instances.
    pub statistics: Statistics,
    /// Names of the classes, in the order of the logits.
    pub classes: Vec<String>,
    /// How images become inputs.
    pub preprocessing: Preprocessing,
    /// Every instance that has statistics, with its cost and, once measured,
    /// its accuracy.
    pub instances: Vec<Record>,
    /// Cascades and ensembles of its instances, as measured when they were
    /// fitted.
    pub combinations: Vec<CombinedRecord>,
    /// Where the model comes from: method, ratios, recipe, seed. For people
    /// to read; nothing here depends on its form.
    pub training: serde_json::Value,
}

/// A model file that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The file is missing or the system does not let it be read.
    #[error("cannot read '{}': {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file could not be written; what was there before is unharmed.
    #[error(transparent)]
    Write(io::Error),
    /// The file is something else.
    #[error("'{}' is not a safetensors file: {problem}", path.display())]
    NotSafetensors {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The end of the file is missing.
    #[error(
        "'{}' is truncated: it has {size} bytes and should have {expected}; \
         copy or download it again",
        path.display()
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// The size that it should have, as far as can be told.
        expected: u64,
    },
    /// A safetensors file of other origin.
    #[error(
        "'{}' holds tensors but no sdpoint description: \
         import it into a network instead of opening it as a model",
        path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file is from a later version of this program.
    #[error(
        "'{}' has format version {version}, but this program knows versions \
         up to {FORMAT_VERSION}: update it",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The version of its format.
        version: u64,
    },
    /// The file needs something that this program does not know.
    #[error(
        "'{}' has {} that this program does not know: update it",
        path.display(),
        named(features)
    )]
    Features {
        /// The file.
        path: PathBuf,
        /// The features' names.
        features: Vec<String>,
    },
    /// The content is not what was written.
    #[error(
        "'{}' was altered after it was written: its content does not match \
         its checksum; copy or download it again",
        path.display()
    )]
    Altered {
        /// The file.
        path: PathBuf,
    },
    /// The description is not of the form that its version has.
    #[error("the description in '{}' is malformed: {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The parts do not fit together.
    #[error("the model in '{}' contradicts itself: {misfit}", path.display())]
    Misfit {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        misfit: Misfit,
    },
}

/// The first few of the features that a file names, quoted.
fn named(features: &[String]) -> String {
    const SHOWN: usize = 5;
    let one = |name: &String| format!("'{}'", name.escape_debug().take(40).collect::<String>());
    let names: Vec<String> = features.iter().take(SHOWN).map(one).collect();
    let plural = if features.len() == 1 { "" } else { "s" };
    let more = match features.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("the feature{plural} {}{more}", names.join(", "))
}

impl Model {
    /// Reads a model file and checks it whole.
    ///
    /// The file may come from anywhere: nothing larger than the file itself
    /// is ever allocated on its word.
    ///
    /// # Errors
    /// If the file cannot be read, is no model file, is damaged, is of a
    /// newer format, or contradicts itself.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ModelError> {
        read::load(path.as_ref())
    }

    /// As [`Model::load`], from the bytes of a file, which may come from
    /// anywhere just as well.
    ///
    /// # Errors
    /// As [`Model::load`]; the errors call the file `bytes in memory`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ModelError> {
        read::read(Path::new("bytes in memory"), bytes.len() as u64, bytes)
    }

    /// Writes the model file, whole or not at all; see
    /// [`write_atomically`](crate::write_atomically).
    ///
    /// # Errors
    /// If the parts of the model do not fit together or the file cannot be
    /// written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), ModelError> {
        write::save(self, path.as_ref())
    }

    /// What is known of an instance, if the model has it.
    pub fn record(&self, instance: Instance) -> Option<&Record> {
        self.instances
            .iter()
            .find(|record| record.instance == instance)
    }
}

#[cfg(test)]
mod tests;
