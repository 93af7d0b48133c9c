//! Computing several instances at once: what they have in common is
//! computed once.

use std::collections::{BTreeMap, BTreeSet};

use sdpoint_core::{Instance, LayerId, Network, PointId, ShapeError};

use crate::inference::exit_layers;
use crate::lower::Span;

/// A stretch of the full network up to a point, and the instances that
/// branch off there.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stage {
    pub trunk: Span,
    pub branches: Vec<Instance>,
}

/// The stages that compute `instances`; the last reaches the logits of
/// `full` if that is among them.
pub(crate) fn stages(network: &Network, instances: &[Instance]) -> Vec<Stage> {
    let mut by_point: BTreeMap<PointId, Vec<Instance>> = BTreeMap::new();
    for &instance in instances {
        if let Some(point) = instance.point() {
            let branches = by_point.entry(point).or_default();
            if !branches.contains(&instance) {
                branches.push(instance);
            }
        }
    }
    let mut from = None;
    let mut stages = Vec::new();
    // The order of names is the order of the data.
    debug_assert!(network.points().is_sorted_by_key(|point| point.id()));
    for (point, branches) in by_point {
        let to = Some(point);
        stages.push(Stage {
            trunk: Span { from, to },
            branches,
        });
        from = to;
    }
    if instances.contains(&Instance::Full) {
        stages.push(Stage {
            trunk: Span { from, to: None },
            branches: Vec::new(),
        });
    }
    stages
}

/// Multiply-accumulates for one image in several instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedWork {
    /// With what instances have in common computed once.
    pub shared: u64,
    /// With each instance computed on its own.
    pub separate: u64,
}

impl SharedWork {
    /// The part of the work that sharing saves, between 0 and 1.
    pub fn saved(&self) -> f64 {
        if self.separate == 0 {
            return 0.0;
        }
        1.0 - self.shared as f64 / self.separate as f64
    }
}

/// What some instances cost at one input size, layer by layer, and what they
/// have in common.
///
/// Where instances part from `full` is found by lowering the network for each
/// point, which takes a while: made once, asked often.
#[derive(Clone, Debug)]
pub struct InstanceWork {
    exits: Vec<(PointId, LayerId)>,
    layer_macs: BTreeMap<Instance, Vec<u64>>,
}

impl InstanceWork {
    /// The work of `instances`, and of `full`.
    ///
    /// # Errors
    /// If the network cannot take the input size, or lacks a point.
    pub fn new(
        network: &Network,
        size: [usize; 2],
        instances: impl IntoIterator<Item = Instance>,
    ) -> Result<Self, ShapeError> {
        let all: BTreeSet<Instance> = instances.into_iter().chain([Instance::Full]).collect();
        let layer_macs = all
            .into_iter()
            .map(|instance| Ok((instance, network.cost(size, instance)?.layer_macs)));
        Ok(Self {
            layer_macs: layer_macs.collect::<Result<_, ShapeError>>()?,
            exits: exit_layers(network, size)?,
        })
    }

    /// For each point, the layer from which on its instances differ from
    /// `full`: the convolution that ends the block, or the stem's pool.
    pub fn exits(&self) -> &[(PointId, LayerId)] {
        &self.exits
    }

    /// Multiply-accumulates of each layer for one image.
    ///
    /// # Panics
    /// If the instance is none of those given.
    pub fn layer_macs(&self, instance: Instance) -> &[u64] {
        &self.layer_macs[&instance]
    }

    /// Multiply-accumulates for one image.
    ///
    /// # Panics
    /// If the instance is none of those given.
    pub fn macs(&self, instance: Instance) -> u64 {
        let layers = self.layer_macs(instance).iter();
        layers.copied().fold(0, u64::saturating_add)
    }

    /// What it takes to compute `instances` together, and one by one.
    ///
    /// # Panics
    /// If an instance is none of those given.
    pub fn shared(&self, instances: &[Instance]) -> SharedWork {
        let (mut branches, mut separate, mut furthest) = (0, 0, 0);
        for &instance in instances {
            let exit = self.exit(instance);
            branches += self.layer_macs(instance)[exit..].iter().sum::<u64>();
            separate += self.macs(instance);
            furthest = furthest.max(exit);
        }
        let trunk = &self.layer_macs(Instance::Full)[..furthest];
        SharedWork {
            shared: branches + trunk.iter().sum::<u64>(),
            separate,
        }
    }

    /// What a cascade's first instance costs, and what its second adds for an
    /// image that goes on, in multiply-accumulates: what lies before the
    /// first of their points is not computed again.
    ///
    /// # Panics
    /// If an instance is none of those given.
    pub fn cascade(&self, first: Instance, second: Instance) -> [u64; 2] {
        let macs = self.layer_macs(first);
        let common = if first == second {
            macs.len()
        } else {
            self.exit(first).min(self.exit(second))
        };
        let common: u64 = macs[..common].iter().sum();
        [self.macs(first), self.macs(second) - common]
    }

    /// The first layer in which an instance differs from `full`.
    fn exit(&self, instance: Instance) -> usize {
        let mut exits = self.exits.iter();
        let found = exits.find(|(id, _)| Some(*id) == instance.point());
        found.map_or(self.layer_macs(instance).len(), |(_, layer)| layer.0)
    }
}
