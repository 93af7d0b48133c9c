//! Fitting a checkpoint to a network.

use std::collections::BTreeSet;
use std::fmt;

use sdpoint_core::{Instance, Moments, Network, NetworkError, Op, Statistics, Weights};

use crate::checkpoint::{Checkpoint, StoredTensor};

/// What a checkpoint gives a network.
#[derive(Clone, Debug, PartialEq)]
pub struct Imported {
    /// The network, with as many classes as the checkpoint's classifier has.
    pub network: Network,
    /// The values of its parameters.
    pub weights: Weights,
    /// The batch-norm statistics of `full`, the one instance that a network
    /// trained elsewhere has.
    pub statistics: Statistics,
    /// Tensors of the checkpoint that the network has no place for.
    pub left_over: Vec<String>,
}

/// A tensor of another shape than the network needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misshapen {
    /// Its name.
    pub name: String,
    /// Its shape in the checkpoint.
    pub found: Vec<usize>,
    /// The shape that it should have.
    pub expected: Vec<usize>,
}

impl fmt::Display for Misshapen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} for {:?}", self.name, self.found, self.expected)
    }
}

/// A checkpoint that does not fit a network.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ImportError {
    /// Tensors are missing or have other shapes.
    #[error(
        "it does not fit {network}, which needs {needed} tensors: {} missing, \
         {} of another shape, {} left over{}{}{}",
        missing.len(), misshapen.len(), left_over.len(),
        listed("missing", missing),
        listed("of another shape", misshapen),
        listed("left over", left_over)
    )]
    Misfit {
        /// The network's name.
        network: String,
        /// How many tensors it needs.
        needed: usize,
        /// Names that the checkpoint lacks.
        missing: Vec<String>,
        /// Tensors of other shapes.
        misshapen: Vec<Misshapen>,
        /// Names that the network lacks.
        left_over: Vec<String>,
    },
    /// The number of classes cannot be read off the classifier.
    #[error("the number of classes cannot be read off: {0}")]
    Classes(#[from] NetworkError),
    /// A weight that is no floating-point number.
    #[error("tensor '{name}' holds {dtype}; weights can be float32, float16, bfloat16 or float64")]
    Dtype {
        /// The tensor.
        name: String,
        /// The type of its elements.
        dtype: String,
    },
    /// A value that is infinite or no number, or too large for single
    /// precision.
    #[error("tensor '{0}' holds values that are not finite in single precision")]
    NotFinite(String),
    /// Tensors that share elements, so that they are more than the file.
    #[error(
        "its tensors share their elements: in all they would have more bytes than the file; \
         clone them before they are saved"
    )]
    Shared,
}

fn listed(what: &str, items: &[impl fmt::Display]) -> String {
    if items.is_empty() {
        return String::new();
    }
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    format!("\n  {what}: {}", items.join(", "))
}

/// PyTorch's counter of batches, which decides nothing once a network is
/// trained.
const COUNTER: &str = "num_batches_tracked";

/// Fits a checkpoint to a network by the names of parameters.
///
/// The number of classes is read off the classifier's weight, so that the
/// network may be given with any. What is left over is no error here; the
/// caller decides.
///
/// # Errors
/// If tensors are missing or of another shape or type, or hold values that
/// are no numbers. All names are listed.
pub fn import(checkpoint: &Checkpoint, network: &Network) -> Result<Imported, ImportError> {
    let network = match classes(checkpoint, network) {
        Some(classes) => network.with_classes(classes)?,
        None => network.clone(),
    };
    let parameters = network.parameters();
    let norms = network.norms();
    let statistic =
        |norm: &sdpoint_core::Norm, kind| (format!("{}.{kind}", norm.name), vec![norm.channels]);
    let slots: Vec<(String, Vec<usize>)> = parameters
        .iter()
        .map(|parameter| (parameter.name.clone(), parameter.shape.clone()))
        .chain(
            norms
                .iter()
                .flat_map(|norm| ["running_mean", "running_var"].map(|kind| statistic(norm, kind))),
        )
        .collect();

    let mut missing = Vec::new();
    let mut misshapen = Vec::new();
    let mut found: Vec<(&str, &StoredTensor)> = Vec::new();
    for (name, shape) in &slots {
        match checkpoint.get(name) {
            None => missing.push(name.clone()),
            Some(tensor) if tensor.shape() != shape => misshapen.push(Misshapen {
                name: name.clone(),
                found: tensor.shape().to_vec(),
                expected: shape.clone(),
            }),
            Some(tensor) => found.push((name, tensor)),
        }
    }
    let left_over = left_over(checkpoint, &slots, &network);
    if !(missing.is_empty() && misshapen.is_empty()) {
        return Err(ImportError::Misfit {
            network: network.name().to_owned(),
            needed: slots.len(),
            missing,
            misshapen,
            left_over,
        });
    }
    let bytes: usize = found.iter().map(|(_, tensor)| tensor.bytes()).sum();
    if bytes > checkpoint.size() {
        return Err(ImportError::Shared);
    }
    let mut values = found
        .into_iter()
        .map(|(name, tensor)| values(checkpoint, name, tensor))
        .collect::<Result<Vec<_>, _>>()?;
    let mut moments = values.split_off(parameters.len()).into_iter();
    let full = norms.iter().map_while(|_| {
        let (mean, var) = (moments.next()?, moments.next()?);
        Some(Moments { mean, var })
    });
    let mut statistics = Statistics::default();
    statistics.set(&network, Instance::Full, full.collect());
    Ok(Imported {
        network,
        weights: Weights(values),
        statistics,
        left_over,
    })
}

/// Rows of the classifier's weight, if the checkpoint has it.
fn classes(checkpoint: &Checkpoint, network: &Network) -> Option<usize> {
    let classifier = network.layers().last()?;
    if !matches!(classifier.op, Op::Linear { .. }) {
        return None;
    }
    let weight = checkpoint.get(&format!("{}.weight", classifier.name))?;
    match *weight.shape() {
        [classes, _] => Some(classes),
        _ => None,
    }
}

fn left_over(
    checkpoint: &Checkpoint,
    slots: &[(String, Vec<usize>)],
    network: &Network,
) -> Vec<String> {
    let mut known: BTreeSet<String> = slots.iter().map(|(name, _)| name.clone()).collect();
    known.extend(
        network
            .norms()
            .iter()
            .map(|norm| format!("{}.{COUNTER}", norm.name)),
    );
    checkpoint
        .names()
        .filter(|name| !known.contains(*name))
        .map(str::to_owned)
        .collect()
}

fn values(
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
