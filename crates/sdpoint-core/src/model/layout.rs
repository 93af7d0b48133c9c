//! The tensors of a model file.

use crate::instance::Instance;
use crate::network::{Network, STATISTICS_PREFIX};
use crate::weights::{Moments, Statistics, Weights};

/// A tensor of the file: its name and shape.
pub(super) struct Slot {
    pub name: String,
    pub shape: Vec<usize>,
}

/// Names and shapes of all tensors in the order in which they are written:
/// parameters, then mean and variance of each norm of each instance, then the
/// parameters of the own of each instance in `tuned`.
///
/// An iterator, because a malicious description can require more of them than
/// fit in memory.
pub(super) fn slots<'a>(
    network: &'a Network,
    instances: &'a [Instance],
    tuned: &'a [Instance],
) -> impl Iterator<Item = Slot> + 'a {
    let parameters = network.parameters().iter().map(|parameter| Slot {
        name: parameter.name.clone(),
        shape: parameter.shape.clone(),
    });
    let statistics = instances.iter().flat_map(move |&instance| {
        let prefix = prefix(instance);
        let own = network.own_norms(instance);
        network.norms()[own].iter().flat_map(move |norm| {
            ["running_mean", "running_var"].map(|kind| Slot {
                name: format!("{prefix}{}.{kind}", norm.name),
                shape: vec![norm.channels],
            })
        })
    });
    let own = tuned.iter().flat_map(move |&instance| {
        let prefix = prefix(instance);
        let own = network.own_parameters(instance).into_iter();
        own.map(move |index| {
            let parameter = &network.parameters()[index];
            Slot {
                name: format!("{prefix}{}", parameter.name),
                shape: parameter.shape.clone(),
            }
        })
    });
    parameters.chain(statistics).chain(own)
}

/// The prefix of the names of an instance's statistics.
pub(super) fn prefix(instance: Instance) -> String {
    match instance {
        Instance::Full => String::new(),
        Instance::At(..) => format!("{STATISTICS_PREFIX}{instance}/"),
    }
}

/// The values for [`slots`]. All listed instances must have statistics.
pub(super) fn values<'a>(
    weights: &'a Weights,
    statistics: &'a Statistics,
    instances: &'a [Instance],
    tuned: &'a [Instance],
) -> impl Iterator<Item = &'a [f32]> {
    let moments = instances
        .iter()
        .filter_map(|&instance| statistics.own(instance))
        .flat_map(|(_, own)| own)
        .flat_map(|moments| [moments.mean.as_slice(), &moments.var]);
    let own = tuned
        .iter()
        .filter_map(|&instance| statistics.parameters(instance))
        .flat_map(|own| own.values())
        .map(Vec::as_slice);
    let weights = weights.0.iter().map(Vec::as_slice);
    weights.chain(moments).chain(own)
}

/// The inverse of [`values`].
pub(super) fn assemble(
    network: &Network,
    instances: &[Instance],
    tuned: &[Instance],
    values: Vec<Vec<f32>>,
) -> (Weights, Statistics) {
    let mut values = values.into_iter();
    let weights = values.by_ref().take(network.parameters().len()).collect();
    let own = instances.iter().map(|&instance| {
        let moments = network
            .own_norms(instance)
            .map_while(|_| {
                let (mean, var) = (values.next()?, values.next()?);
                Some(Moments { mean, var })
            })
            .collect();
        (instance, moments)
    });
    let mut statistics = Statistics::from_own(network.norms().len(), own);
    for &instance in tuned {
        let own = network.own_parameters(instance).into_iter();
        let own = own.map_while(|index| Some((index, values.next()?)));
        statistics.insert_parameters(instance, own.collect());
    }
    (Weights(weights), statistics)
}
