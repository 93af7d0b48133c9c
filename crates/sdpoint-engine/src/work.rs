//! Computing several instances at once: what they have in common is
//! computed once.

use std::collections::BTreeMap;

use sdpoint_core::{Instance, Network, PointId, ShapeError};

use crate::lower::{Span, lower};

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
    let macs = |instance, span| span_macs(network, size, instance, span);
    let mut shared = 0;
    for stage in stages(network, instances) {
        shared += macs(Instance::Full, stage.trunk)?;
        for instance in stage.branches {
            let from = stage.trunk.to;
            shared += macs(instance, Span { from, to: None })?;
        }
    }
    let mut separate = 0;
    for &instance in instances {
        separate += macs(instance, Span::WHOLE)?;
    }
    Ok(SharedWork { shared, separate })
}

fn span_macs(
    network: &Network,
    size: [usize; 2],
    instance: Instance,
    span: Span,
) -> Result<u64, ShapeError> {
    let lowered = lower(network, size, instance, span)?;
    Ok(lowered.nodes.iter().map(|node| lowered.macs(node)).sum())
}
