//! The multiply-accumulates of training steps.

use std::collections::BTreeMap;
use std::ops::Range;

use sdpoint_core::{Instance, Network, ShapeError};
use sdpoint_engine::{Branch, InstanceMacs};

use crate::branch_sizes::SizedBranch;
use crate::branching::Branching;
use crate::draw::Method;

/// Predicts the work of steps, for each size of images that is trained on.
#[derive(Debug)]
pub(crate) struct StepWork(BTreeMap<[usize; 2], InstanceMacs>);

impl StepWork {
    pub fn new(
        network: &Network,
        sizes: impl IntoIterator<Item = [usize; 2]>,
        instances: &[Instance],
    ) -> Result<Self, ShapeError> {
        let work = |size| {
            let macs = InstanceMacs::new(network, size, instances.iter().copied())?;
            Ok((size, macs))
        };
        let all: Result<_, ShapeError> = sizes.into_iter().map(work).collect();
        Ok(Self(all?))
    }

    /// The multiply-accumulates that branches on smaller images add to a step.
    pub fn of_sized(&self, branches: &[SizedBranch]) -> u64 {
        let of_branch = |branch: &SizedBranch| {
            branch.images.len() as u64 * self.0[&branch.size].training(Instance::Full)
        };
        branches.iter().map(of_branch).sum()
    }

    /// The multiply-accumulates of a step that trains these instances on so many
    /// images.
    pub fn of_step(
        &self,
        method: Method,
        size: [usize; 2],
        images: usize,
        drawn: &[Instance],
    ) -> u64 {
        let work = &self.0[&size];
        if method == Method::SdPoint {
            let parts = Branching::images_of_parts(drawn.len(), images);
            let parts = std::iter::zip(drawn, parts);
            let of_part = |(&instance, part): (&Instance, Range<usize>)| {
                part.len() as u64 * work.training(instance)
            };
            return parts.map(of_part).sum();
        }
        if method != Method::Branched {
            let all = drawn.iter().map(|&instance| work.training(instance));
            return images as u64 * all.sum::<u64>();
        }
        let branches = Branching::branches_of(&drawn[1..], images).into_iter();
        let of_branch =
            |branch: Branch| branch.images.len() as u64 * work.branch_training(branch.instance);
        images as u64 * work.training(Instance::Full) + branches.map(of_branch).sum::<u64>()
    }
}
