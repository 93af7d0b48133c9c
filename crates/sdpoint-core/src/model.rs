//! The model file: a safetensors file with a network, its weights and
//! statistics, and everything needed to use it. `docs/model-file.md` describes
//! the format.

mod check;
mod document;
mod feature;
mod hashed;
mod layout;
mod read;
mod sample;
mod write;

pub use check::Misfit;
pub use feature::Feature;
pub use sample::KeptImage;

use std::io;
use std::path::{Path, PathBuf};

use crate::combination::CombinedRecord;
use crate::held_out::HeldOut;
use crate::instance::Instance;
use crate::network::Network;
use crate::preprocessing::Preprocessing;
use crate::record::Record;
use crate::shapes::ShapeError;
use crate::weights::{Statistics, Weights};

/// The format version that is written. All versions up to it are read.
///
/// Since version 3, a file lists the [`Feature`]s that it has. Additions to the
/// format are new features, not new versions.
pub const FORMAT_VERSION: u32 = 3;

/// A trained network with everything needed to use it.
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
    /// How images are prepared.
    pub preprocessing: Preprocessing,
    /// All instances that have statistics, with their cost and, if measured,
    /// their accuracy.
    pub instances: Vec<Record>,
    /// Cascades and ensembles of its instances, with their cost and accuracy as
    /// measured when they were fitted.
    pub combinations: Vec<CombinedRecord>,
    /// The training images that were held out of training, on which the
    /// accuracies of instances and combinations were measured; `None` if they
    /// were measured on the test images.
    pub held_out: Option<HeldOut>,
    /// A few test images, to try the model with.
    pub samples: Vec<KeptImage>,
    /// How the model was trained: method, ratios, recipe, seed. Informative
    /// only, of any form.
    pub training: serde_json::Value,
}

impl Model {
    /// A model of these instances, which are not evaluated, with numbers as names of
    /// the classes and without any optional part. Statistics are
    /// [those of an untrained network](Statistics::identity_for).
    ///
    /// # Errors
    /// If an instance cannot run on images of the preprocessing's size.
    ///
    /// # Examples
    /// ```
    /// use sdpoint_core::{Instance, Model, Preprocessing, Weights, zoo};
    ///
    /// let network = zoo::build("preresnet20", 10)?;
    /// let weights = Weights::zeros(&network);
    /// let preprocessing = Preprocessing::new([32, 32], vec![0.5; 3], vec![0.25; 3]);
    /// let model = Model::new(network, weights, preprocessing, &[Instance::Full])?;
    /// assert_eq!(model.classes[9], "9");
    /// assert_eq!(model.instances[0].top1, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(
        network: Network,
        weights: Weights,
        preprocessing: Preprocessing,
        instances: &[Instance],
    ) -> Result<Self, ShapeError> {
        let record = |&instance: &Instance| {
            let cost = network.cost(preprocessing.size, instance)?;
            Ok(Record::unmeasured(instance, cost.macs))
        };
        Ok(Self {
            statistics: Statistics::identity_for(&network, instances),
            classes: (0..network.classes()).map(|c| c.to_string()).collect(),
            instances: instances.iter().map(record).collect::<Result<_, _>>()?,
            combinations: Vec::new(),
            held_out: None,
            samples: Vec::new(),
            training: serde_json::Value::Null,
            network,
            weights,
            preprocessing,
        })
    }
}

/// A model file that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The file is missing or cannot be read.
    #[error("cannot read '{}': {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The file could not be written. A previous file is unharmed.
    #[error(transparent)]
    Write(io::Error),
    /// The file is not a safetensors file.
    #[error("'{}' is not a safetensors file: {problem}", path.display())]
    NotSafetensors {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The file is truncated.
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
        /// The size that it should have at least.
        expected: u64,
    },
    /// A safetensors file of another program.
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
        "'{}' has format version {version}, but this program supports versions \
         up to {FORMAT_VERSION}: update it",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The version of its format.
        version: u64,
    },
    /// The file has a feature that this program does not support.
    #[error(
        "'{}' has {} that this program does not support: update sdpoint",
        path.display(),
        named(features)
    )]
    Features {
        /// The file.
        path: PathBuf,
        /// The features' names.
        features: Vec<String>,
    },
    /// The content does not match its checksum.
    #[error(
        "'{}' was altered after it was written: its content does not match \
         its checksum; copy or download it again",
        path.display()
    )]
    Altered {
        /// The file.
        path: PathBuf,
    },
    /// The description does not have the form of its version.
    #[error("the description in '{}' is malformed: {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Parts of the model are inconsistent.
    #[error("the model in '{}' is inconsistent: {misfit}", path.display())]
    Misfit {
        /// The file.
        path: PathBuf,
        /// The inconsistency.
        misfit: Misfit,
    },
}

/// The names of the first few features, quoted.
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
    /// Reads a model file and checks all of it.
    ///
    /// The file may be untrusted: sizes in it never cause an allocation larger
    /// than the file.
    ///
    /// # Errors
    /// If the file cannot be read, is not a model file, is damaged, has a newer
    /// format, or is inconsistent.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ModelError> {
        read::load(path.as_ref(), &mut |_, _, _| false)
    }

    /// As [`Model::load`], but passes each parameter to `take` as soon as it is read: the network,
    /// the parameter's index and its values. Those for which it returns `true` are not kept, and
    /// are empty in [`Model::weights`]. So the values of a large model are never in memory as a
    /// whole, and are prepared for computing while the rest of the file is read.
    ///
    /// Only when this returns without an error, what was passed is known to be unaltered, and the
    /// description of the network to be consistent with the rest of the file.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn load_passing(
        path: impl AsRef<Path>,
        mut take: impl FnMut(&Network, usize, &[f32]) -> bool,
    ) -> Result<Self, ModelError> {
        read::load(path.as_ref(), &mut take)
    }

    /// As [`Model::load`], from the bytes of a file, which may be untrusted, too.
    ///
    /// # Errors
    /// As [`Model::load`]; the path in errors is `bytes in memory`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ModelError> {
        read::read(
            Path::new("bytes in memory"),
            bytes.len() as u64,
            bytes,
            &mut |_, _, _| false,
        )
    }

    /// Writes the model file atomically; see
    /// [`write_atomically`](crate::atomic::write_atomically).
    ///
    /// # Errors
    /// If the model is inconsistent or the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), ModelError> {
        write::save(self, path.as_ref())
    }

    /// The record of an instance, if the model has it.
    pub fn record(&self, instance: Instance) -> Option<&Record> {
        self.instances
            .iter()
            .find(|record| record.instance == instance)
    }
}

#[cfg(test)]
mod tests;
