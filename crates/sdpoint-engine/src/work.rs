//! Several instances computed together: the layers that they have in common are
//! computed once, and what that saves.

use std::collections::{BTreeMap, BTreeSet};

use sdpoint_core::{Instance, LayerId, Network, PointId, ShapeError};

use crate::inference::exit_layers;
use crate::lower::Span;

/// A section of the full network that ends at a point, and the instances that
/// branch off at its end.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Segment {
    pub trunk: Span,
    pub branches: Vec<Instance>,
}

/// The segments that compute `instances`, in execution order. The last one
/// ends at the logits of `full` if that is among the instances.
pub(crate) fn segments(network: &Network, instances: &[Instance]) -> Vec<Segment> {
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
    let mut segments = Vec::new();
    // Ordering points by name is ordering them by execution.
    debug_assert!(network.points().is_sorted_by_key(|point| point.id()));
    for (point, branches) in by_point {
        let to = Some(point);
        segments.push(Segment {
            trunk: Span { from, to },
            branches,
        });
        from = to;
    }
    if instances.contains(&Instance::Full) {
        segments.push(Segment {
            trunk: Span { from, to: None },
            branches: Vec::new(),
        });
    }
    segments
}

/// The multiply-accumulates (MACs) of several instances for one image, with and
/// without sharing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SharedMacs {
    /// MACs when the layers that the instances have in common are computed
    /// once.
    pub shared: u64,
    /// MACs when each instance is computed from the image on.
    pub separate: u64,
}

impl SharedMacs {
    /// The fraction of the MACs that sharing saves, between 0 and 1.
    pub fn saved(&self) -> f64 {
        if self.separate == 0 {
            return 0.0;
        }
        1.0 - self.shared as f64 / self.separate as f64
    }
}

/// Per-layer MACs of some instances at one input size, and the layers that
/// they share with `full`.
///
/// Construction lowers the network once for each point. Build it once and
/// reuse it; its methods only add up MACs.
#[derive(Clone, Debug)]
pub struct InstanceMacs {
    exits: Vec<(PointId, LayerId)>,
    /// The layer of each point.
    points: Vec<(PointId, LayerId)>,
    /// The layers whose input is the images.
    first_layers: Vec<LayerId>,
    layer_macs: BTreeMap<Instance, Vec<u64>>,
}

impl InstanceMacs {
    /// Computes the MACs of `instances` and of `full` on one image of
    /// `[height, width]`.
    ///
    /// # Errors
    /// If the network does not accept the input size, or lacks a point.
    pub fn new(
        network: &Network,
        size: [usize; 2],
        instances: impl IntoIterator<Item = Instance>,
    ) -> Result<Self, ShapeError> {
        let all: BTreeSet<Instance> = instances.into_iter().chain([Instance::Full]).collect();
        let layer_macs = all
            .into_iter()
            .map(|instance| Ok((instance, network.cost(size, instance)?.layer_macs)));
        let points = network.points().iter();
        let layers = network.layers().iter().enumerate();
        let first = layers.filter(|(_, layer)| layer.inputs.contains(&LayerId(0)));
        Ok(Self {
            layer_macs: layer_macs.collect::<Result<_, ShapeError>>()?,
            exits: exit_layers(network, size)?,
            points: points.map(|point| (point.id(), point.layer())).collect(),
            first_layers: first.map(|(index, _)| LayerId(index)).collect(),
        })
    }

    /// For each point, the first layer at which its instances differ from
    /// `full`: the convolution that ends the block, or the stem's max pool.
    pub fn exits(&self) -> &[(PointId, LayerId)] {
        &self.exits
    }

    /// The MACs of each layer for one image.
    ///
    /// # Panics
    /// If the instance was not given to [`InstanceMacs::new`].
    pub fn layer_macs(&self, instance: Instance) -> &[u64] {
        &self.layer_macs[&instance]
    }

    /// The MACs of an instance for one image.
    ///
    /// # Panics
    /// If the instance was not given to [`InstanceMacs::new`].
    pub fn macs(&self, instance: Instance) -> u64 {
        let layers = self.layer_macs(instance).iter();
        layers.copied().fold(0, u64::saturating_add)
    }

    /// The MACs of computing `instances` together, and separately.
    ///
    /// # Panics
    /// If an instance was not given to [`InstanceMacs::new`].
    pub fn shared(&self, instances: &[Instance]) -> SharedMacs {
        let (mut branches, mut separate, mut furthest) = (0, 0, 0);
        for &instance in instances {
            let exit = self.exit(instance);
            branches += self.layer_macs(instance)[exit..].iter().sum::<u64>();
            separate += self.macs(instance);
            furthest = furthest.max(exit);
        }
        let trunk = &self.layer_macs(Instance::Full)[..furthest];
        SharedMacs {
            shared: branches + trunk.iter().sum::<u64>(),
            separate,
        }
    }

    /// The MACs of a cascade's first instance, and those that its second adds
    /// for an image that it processes. The layers before the earlier of their
    /// two points are not recomputed.
    ///
    /// # Panics
    /// If an instance was not given to [`InstanceMacs::new`].
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

    /// The MACs of the first of some stages, and those that each later one adds
    /// for an image that it processes. A stage continues from the earliest point of
    /// its own, of the stage before it and of those after it.
    ///
    /// # Panics
    /// If there is no stage, or an instance was not given to [`InstanceMacs::new`].
    pub fn stages(&self, stages: &[Instance]) -> Vec<u64> {
        let mut macs = vec![self.macs(stages[0])];
        for index in 1..stages.len() {
            let open = stages[index - 1..].iter();
            let common = open.map(|&stage| self.exit(stage)).min().unwrap_or(0);
            let trunk = &self.layer_macs(Instance::Full)[..common];
            macs.push(self.macs(stages[index]) - trunk.iter().sum::<u64>());
        }
        macs
    }

    /// The MACs of a training step of an instance for one image: those of the
    /// forward pass, as many for the gradients of the weights, and as many for
    /// those of the layers' inputs, except of layers whose input is the images.
    ///
    /// # Panics
    /// If the instance was not given to [`InstanceMacs::new`].
    pub fn training(&self, instance: Instance) -> u64 {
        let layers = self.layer_macs(instance);
        let first = self.first_layers.iter();
        let without_input_gradient: u64 = first.map(|layer| layers[layer.0]).sum();
        3 * self.macs(instance) - without_input_gradient
    }

    /// The MACs that a branch of a training step adds for one of its images, as
    /// [`TrainingEngine::step_branched`](crate::TrainingEngine::step_branched)
    /// computes it: forward and backward pass of the layers after its point.
    ///
    /// # Panics
    /// If the instance was not given to [`InstanceMacs::new`].
    pub fn branch_training(&self, instance: Instance) -> u64 {
        let layers = self.layer_macs(instance);
        let mut points = self.points.iter();
        let point = points.find(|(id, _)| Some(*id) == instance.point());
        let after = point.map_or(layers.len(), |(_, layer)| layer.0 + 1);
        3 * layers[after..].iter().sum::<u64>()
    }

    /// The first layer at which an instance differs from `full`.
    fn exit(&self, instance: Instance) -> usize {
        let mut exits = self.exits.iter();
        let found = exits.find(|(id, _)| Some(*id) == instance.point());
        found.map_or(self.layer_macs(instance).len(), |(_, layer)| layer.0)
    }
}
