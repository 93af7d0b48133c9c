//! Import of a checkpoint into a network.
//!
//! The dictionary of tensors, the prefix of their names and the classifier are
//! chosen by names and shapes; the choice is recorded in an [`Origin`]. Every
//! tensor under the prefix is either used or reported.

mod classifier;
mod computation;
mod error;
mod fit;
mod layout;
mod mobilenet;
mod names;
mod pick;
mod recognise;
mod signs;

use sdpoint_core::{Instance, Moments, Network, Statistics, Weights};

use crate::checkpoint::{Checkpoint, StoredTensor};
pub use error::{ImportError, Misfit, Misshapen};
use fit::{Fit, Source};
use layout::Layout;
pub use recognise::recognise;

/// The most elements of all tensors that are repeated from others, as `expand`
/// makes them.
const MAX_REPEATED: usize = 1 << 21;

/// The result of an import.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Imported {
    /// The network, with the number of classes of the checkpoint's classifier;
    /// two if that has a single output.
    pub network: Network,
    /// The values of its parameters.
    pub weights: Weights,
    /// The batch-norm statistics of `full`, the only instance of a network
    /// trained elsewhere.
    pub statistics: Statistics,
    /// Tensors under the prefix that the network does not use.
    pub left_over: Vec<String>,
    /// Where the tensors were found.
    pub origin: Origin,
}

/// Which tensors of a checkpoint to import, if several sets fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImportOptions {
    /// The path to the dictionary, keys joined by dots; empty for the top level
    /// of the file. If `None`, the dictionary that fits.
    pub key: Option<String>,
    /// The prefix of the names of the network's tensors. If `None`, the one
    /// under which they fit.
    pub prefix: Option<String>,
    /// Whether to skip weights that were averaged during training (EMA, SWA).
    /// By default, these are preferred.
    pub plain: bool,
    /// Whether to import although there are tensors under the prefix that the
    /// network does not use.
    pub allow_left_over: bool,
    /// Height and width of the images. If given, a whole module that pools by a
    /// window of a fixed size is imported only if that is its last feature map.
    pub size: Option<[usize; 2]>,
}

/// Where a network's tensors were found in a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Origin {
    /// The path to their dictionary, keys joined by dots; empty for the top
    /// level of the file.
    pub key: String,
    /// The class, if a whole module was saved.
    pub module: Option<String>,
    /// Whether they are averages over the course of training.
    pub averaged: bool,
    /// The prefix of their names.
    pub prefix: String,
    /// Other dictionaries with at least half of the required tensors.
    pub others: Vec<OtherSet>,
    /// Tensors of the same dictionary without the prefix, which do not belong
    /// to the network.
    pub outside: Vec<String>,
    /// The classifier, if the network ends in one.
    pub classifier: Option<ClassifierOrigin>,
}

/// A dictionary of tensors that was not imported.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OtherSet {
    /// The path to it, keys joined by dots.
    pub key: String,
    /// The number of its tensors.
    pub tensors: usize,
    /// Whether they are averages over the course of training.
    pub averaged: bool,
    /// Whether they fit the network.
    pub fits: bool,
}

/// The linear layer that computes the logits.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClassifierOrigin {
    /// Its name in the checkpoint.
    pub name: String,
    /// Whether it has another name in the network.
    pub renamed: bool,
    /// Whether it has a bias; if not, the bias is zero.
    pub bias: bool,
    /// The number of its outputs. A single output `z` is imported as two, `0`
    /// and `z`, since `softmax([0, z])` is `[1 - sigmoid(z), sigmoid(z)]`.
    pub outputs: usize,
}

/// Imports a checkpoint into a network by the names of parameters.
///
/// The number of classes is that of the classifier's weight, whatever
/// `network` has.
///
/// # Errors
/// If no dictionary in the checkpoint has exactly the tensors that the network
/// needs, of the right shape and type and with finite values. The error lists
/// what the best one lacks or has in addition.
pub fn import(checkpoint: &Checkpoint, network: &Network) -> Result<Imported, ImportError> {
    import_chosen(checkpoint, network, &ImportOptions::default())
}

/// As [`import()`], from the part of the checkpoint given by `choice`.
///
/// # Errors
/// As for [`import()`], and if there is no such part.
pub fn import_chosen(
    checkpoint: &Checkpoint,
    network: &Network,
    choice: &ImportOptions,
) -> Result<Imported, ImportError> {
    let layout = Layout::of(network);
    let (fit, others) = pick::best(checkpoint, &layout, choice)?;
    fit.check(network.name(), &layout, choice)?;
    let network = match &fit.classifier {
        Some(classifier) => network.with_classes(classifier.outputs.max(2))?,
        None => network.clone(),
    };
    computation::check(&network, &fit, choice.size)?;
    let (weights, statistics) = values(checkpoint, &network, &fit)?;
    Ok(Imported {
        network,
        weights,
        statistics,
        origin: Origin {
            key: fit.set.key().to_owned(),
            module: fit.set.module().map(str::to_owned),
            averaged: fit.averaged,
            prefix: fit.prefix,
            others,
            outside: fit.outside,
            classifier: fit.classifier,
        },
        left_over: fit.left_over,
    })
}

/// Reads the parameters and statistics of a network.
fn values(
    checkpoint: &Checkpoint,
    network: &Network,
    fit: &Fit<'_>,
) -> Result<(Weights, Statistics), ImportError> {
    let tensors = || {
        fit.sources.iter().filter_map(|source| match source {
            Source::Tensor { tensor, .. } => Some(tensor),
            Source::Zeros => None,
        })
    };
    if tensors().map(|tensor| tensor.bytes()).sum::<usize>() > checkpoint.size()
        || tensors().map(|tensor| tensor.repeated()).sum::<usize>() > MAX_REPEATED
    {
        return Err(ImportError::Shared);
    }
    let parameters = network.parameters();
    let mut values = Vec::with_capacity(fit.sources.len());
    for (index, source) in fit.sources.iter().enumerate() {
        let length = parameters
            .get(index)
            .map_or(0, |parameter| parameter.shape.iter().product());
        let own = match source {
            Source::Tensor { name, tensor } => {
                let own = finite(checkpoint, name, tensor)?;
                // Mean and variance of each norm follow the parameters.
                let is_variance = index >= parameters.len() && (index - parameters.len()) % 2 == 1;
                if is_variance && own.iter().any(|&value| value < 0.0) {
                    return Err(ImportError::Negative((*name).to_owned()));
                }
                own
            }
            Source::Zeros => Vec::new(),
        };
        // Missing values are zero: a bias, or the first row of a classifier that
        // has a single output for two classes.
        let mut all = vec![0.0; length.saturating_sub(own.len())];
        all.extend(own);
        values.push(all);
    }
    let mut moments = values.split_off(parameters.len()).into_iter();
    let full = network.norms().iter().map_while(|_| {
        let (mean, var) = (moments.next()?, moments.next()?);
        Some(Moments { mean, var })
    });
    let mut statistics = Statistics::default();
    statistics.set(network, Instance::Full, full.collect());
    Ok((Weights(values), statistics))
}

fn finite(
    checkpoint: &Checkpoint,
    name: &str,
    tensor: &StoredTensor,
) -> Result<Vec<f32>, ImportError> {
    let values = checkpoint
        .values(tensor)
        .ok_or_else(|| ImportError::Dtype {
            name: name.to_owned(),
            dtype: tensor.dtype(),
        })?;
    if values.iter().all(|value| value.is_finite()) {
        Ok(values)
    } else {
        Err(ImportError::NotFinite(name.to_owned()))
    }
}
