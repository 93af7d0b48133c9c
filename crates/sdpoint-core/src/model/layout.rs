//! Which tensors a model file holds.

use crate::instance::Instance;
use crate::network::STATISTICS_PREFIX;
use crate::network::{Network, Norm};
use crate::weights::{Moments, Statistics, Weights};

/// A tensor of the file: its name and shape.
pub(super) struct Slot {
    pub name: String,
    pub shape: Vec<usize>,
}

/// Names and shapes of all tensors in the order in which they are written:
/// parameters, then mean and variance of each norm of each instance.
///
/// They come one by one, because an absurd description can ask for more of
/// them than memory holds.
pub(super) fn slots<'a>(
    network: &'a Network,
    norms: &'a [Norm],
    instances: &'a [Instance],
) -> impl Iterator<Item = Slot> + 'a {
    let parameters = network.parameters().iter().map(|parameter| Slot {
        name: parameter.name.clone(),
        shape: parameter.shape.clone(),
    });
    let firsts: Vec<usize> = instances
        .iter()
        .map(|&instance| first_own(network, norms, instance))
        .collect();
    let statistics = std::iter::zip(instances, firsts).flat_map(move |(&instance, first)| {
        let prefix = prefix(instance);
        norms[first..].iter().flat_map(move |norm| {
            ["running_mean", "running_var"].map(|kind| Slot {
                name: format!("{prefix}{}.{kind}", norm.name),
                shape: vec![norm.channels],
            })
        })
    });
    parameters.chain(statistics)
}

/// What the names of an instance's statistics start with.
pub(super) fn prefix(instance: Instance) -> String {
    match instance {
        Instance::Full => String::new(),
        Instance::At(..) => format!("{STATISTICS_PREFIX}{instance}/"),
    }
}

/// As [`Network::own_norms`], for norms that are at hand.
fn first_own(network: &Network, norms: &[Norm], instance: Instance) -> usize {
    instance
        .point()
        .and_then(|id| network.point(id))
        .map_or(0, |point| {
            norms.partition_point(|norm| norm.layer <= point.layer())
        })
}

/// The values for [`slots`]. The statistics have been checked to be there.
pub(super) fn values<'a>(
    weights: &'a Weights,
    statistics: &'a Statistics,
    instances: &'a [Instance],
) -> impl Iterator<Item = &'a [f32]> {
    let moments = instances
        .iter()
        .filter_map(|&instance| statistics.own(instance))
        .flat_map(|(_, own)| own)
        .flat_map(|moments| [moments.mean.as_slice(), &moments.var]);
    weights.0.iter().map(Vec::as_slice).chain(moments)
}

/// Puts the values of all [`slots`] back into their places.
pub(super) fn assemble(
    network: &Network,
    norms: &[Norm],
    instances: &[Instance],
    values: Vec<Vec<f32>>,
) -> (Weights, Statistics) {
    let mut values = values.into_iter();
    let weights = values.by_ref().take(network.parameters().len()).collect();
    let own = instances.iter().map(|&instance| {
        let moments = (first_own(network, norms, instance)..norms.len())
            .map_while(|_| {
                let (mean, var) = (values.next()?, values.next()?);
                Some(Moments { mean, var })
            })
            .collect();
        (instance, moments)
    });
    let statistics = Statistics::from_own(norms.len(), own);
    (Weights(weights), statistics)
}
