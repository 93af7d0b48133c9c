//! Fitting a checkpoint to a network.
//!
//! The dictionary of tensors, the prefix before their names and the classifier
//! are found by what fits: names and shapes decide, and what was taken is
//! recorded in an [`Origin`]. Within the prefix every tensor is accounted for.

mod classifier;
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

/// What a checkpoint gives a network.
#[derive(Clone, Debug, PartialEq)]
pub struct Imported {
    /// The network, with as many classes as the checkpoint's classifier has,
    /// and two where that has a single output.
    pub network: Network,
    /// The values of its parameters.
    pub weights: Weights,
    /// The batch-norm statistics of `full`, the one instance that a network
    /// trained elsewhere has.
    pub statistics: Statistics,
    /// Tensors among those of the network that it has no place for.
    pub left_over: Vec<String>,
    /// Where the tensors were found.
    pub origin: Origin,
}

/// Which tensors of a checkpoint to take, where it has several that fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// The keys that lead to the dictionary, with dots between them; empty for
    /// that at the file's top. Without it, the one that fits.
    pub key: Option<String>,
    /// What stands before the names of the network's tensors. Without it, any
    /// under which they fit.
    pub prefix: Option<String>,
    /// Whether to pass over weights that were averaged while training went on,
    /// which are taken otherwise.
    pub plain: bool,
    /// Whether to import although tensors are left over, among those of the
    /// network, that it has no place for.
    pub allow_left_over: bool,
}

/// Where a network's tensors were found in a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The keys that lead to their dictionary, with dots between them; empty
    /// at the file's top.
    pub key: String,
    /// The class of the module that was saved whole, if one was.
    pub module: Option<String>,
    /// Whether they are averages over a training.
    pub averaged: bool,
    /// What stands before their names.
    pub prefix: String,
    /// Other dictionaries with at least half of the tensors that are needed.
    pub others: Vec<OtherSet>,
    /// Tensors of the same dictionary outside of the prefix, which are not the
    /// network's.
    pub outside: Vec<String>,
    /// The classifier, if the network ends in one.
    pub classifier: Option<ClassifierOrigin>,
}

/// A dictionary of tensors that was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherSet {
    /// The keys that lead to it.
    pub key: String,
    /// How many tensors it has.
    pub tensors: usize,
    /// Whether they are averages over a training.
    pub averaged: bool,
    /// Whether they fit the network.
    pub fits: bool,
}

/// The linear layer that tells classes apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassifierOrigin {
    /// Its name in the checkpoint.
    pub name: String,
    /// Whether that is another name than the network has for it.
    pub renamed: bool,
    /// Whether it has a bias; zeros stand for one that is not there.
    pub bias: bool,
    /// How many outputs it has. A single one `z` is imported as two, `0` and
    /// `z`, since `softmax([0, z])` is `[1 - sigmoid(z), sigmoid(z)]`.
    pub outputs: usize,
}

/// Fits a checkpoint to a network by the names of parameters.
///
/// The number of classes is read off the classifier's weight, so that the
/// network may be given with any.
///
/// # Errors
/// If no dictionary in the checkpoint has exactly the tensors that the network
/// needs, of the right shape and type and with finite values; the error says
/// what the best one lacks, or has beyond them.
pub fn import(checkpoint: &Checkpoint, network: &Network) -> Result<Imported, ImportError> {
    import_chosen(checkpoint, network, &Choice::default())
}

/// As [`import()`], of a part of the checkpoint that the caller chooses.
///
/// # Errors
/// As for [`import()`], and if there is no such part.
pub fn import_chosen(
    checkpoint: &Checkpoint,
    network: &Network,
    choice: &Choice,
) -> Result<Imported, ImportError> {
    let layout = Layout::of(network);
    let (fit, others) = pick::best(checkpoint, &layout, choice)?;
    fit.check(network.name(), &layout, choice)?;
    let network = match &fit.classifier {
        Some(classifier) => network.with_classes(classifier.outputs.max(2))?,
        None => network.clone(),
    };
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

/// The parameters of a network and its statistics.
fn values(
    checkpoint: &Checkpoint,
    network: &Network,
    fit: &Fit<'_>,
) -> Result<(Weights, Statistics), ImportError> {
    let tensors = fit.sources.iter().filter_map(|source| match source {
        Source::Tensor { tensor, .. } => Some(tensor.bytes()),
        Source::Zeros => None,
    });
    if tensors.sum::<usize>() > checkpoint.size() {
        return Err(ImportError::Shared);
    }
    let parameters = network.parameters();
    let mut values = Vec::with_capacity(fit.sources.len());
    for (index, source) in fit.sources.iter().enumerate() {
        let length = parameters
            .get(index)
            .map_or(0, |parameter| parameter.shape.iter().product());
        let own = match source {
            Source::Tensor { name, tensor } => finite(checkpoint, name, tensor)?,
            Source::Zeros => Vec::new(),
        };
        // Zeros stand for a bias that is missing, and before the single row of
        // a classifier that has one output for two classes.
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
