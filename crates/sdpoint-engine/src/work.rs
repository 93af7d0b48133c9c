//! Computing several instances at once: what they have in common is
//! computed once.

use std::collections::BTreeMap;

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

/// What it takes to compute `instances` together, and one by one.
///
/// # Errors
/// If the network cannot take the input size, or lacks a point.
pub fn shared_work(
    network: &Network,
    size: [usize; 2],
    instances: &[Instance],
) -> Result<SharedWork, ShapeError> {
    let full = network.cost(size, Instance::Full)?.layer_macs;
    let exits = exit_layers(network, size)?;
    let (mut branches, mut separate, mut furthest) = (0, 0, 0);
    for &instance in instances {
        let own = network.cost(size, instance)?;
        let exit = exit_of(&exits, instance).unwrap_or(full.len());
        branches += own.layer_macs[exit..].iter().sum::<u64>();
        separate += own.macs;
        furthest = furthest.max(exit);
    }
    Ok(SharedWork {
        shared: branches + full[..furthest].iter().sum::<u64>(),
        separate,
    })
}

/// Multiply-accumulates for one image that two instances have in common:
/// those before the first of their points.
///
/// # Errors
/// If the network cannot take the input size, or lacks a point.
pub fn common_macs(
    network: &Network,
    size: [usize; 2],
    [a, b]: [Instance; 2],
) -> Result<u64, ShapeError> {
    let macs = network.cost(size, a)?.layer_macs;
    network.shapes(size, b)?;
    let exits = exit_layers(network, size)?;
    let exit = |instance| exit_of(&exits, instance).unwrap_or(macs.len());
    let common = if a == b {
        macs.len()
    } else {
        exit(a).min(exit(b))
    };
    Ok(macs[..common].iter().sum())
}

/// The first layer in which an instance differs from `full`, if any does.
fn exit_of(exits: &[(PointId, LayerId)], instance: Instance) -> Option<usize> {
    let found = exits.iter().find(|(id, _)| Some(*id) == instance.point());
    found.map(|(_, layer)| layer.0)
}
