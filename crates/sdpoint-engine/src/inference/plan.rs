//! What is run on a batch of some size: the kernel calls of `full`, and for
//! each instance those that follow where it leaves `full`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use sdpoint_core::{Instance, LayerId, Network, PointId, Ratio, ShapeError};
use sdpoint_kernels::ConvShape;

use super::lock;
use crate::EngineError;
use crate::arena::{Layout, Lifetime};
use crate::fuse::{Step, fuse};
use crate::lower::{Lowered, Span, Value, lower};
use crate::placement::Placement;

/// Kernel calls and where their tensors lie.
#[derive(Debug)]
pub(super) struct Plan {
    pub placement: Placement,
    /// The kernel calls. An instance's are those from its exit on alone:
    /// the ones before are those of `full`.
    pub steps: Vec<Step>,
}

/// Whether the convolution of a layer can be added to what lies where its output goes.
pub(super) type InPlace<'a> = &'a dyn Fn(LayerId, &ConvShape) -> bool;

/// The plans for one batch size and image size.
///
/// Up to its exit an instance does, kernel call for kernel call, what `full`
/// does. The exit is the first call that differs: the convolution that ends
/// the block, whose epilogue goes on with the ReLU or the next block's norm
/// in `full`, but stops at the sum in an instance. So `full` is fused across
/// its points as if they were not there, and yet left at any of them.
#[derive(Debug)]
pub(super) struct Routes {
    pub full: Plan,
    /// Each point's exit, as a number of steps of `full`; in their order.
    exits: Vec<(PointId, usize)>,
    branches: Mutex<BTreeMap<Instance, Arc<Plan>>>,
    pub size: [usize; 2],
}

impl Routes {
    /// `in_place` says of convolutions whether they can be added to what lies where their
    /// output goes.
    pub fn new(
        network: &Network,
        size: [usize; 2],
        batch: usize,
        in_place: InPlace<'_>,
    ) -> Result<Self, ShapeError> {
        let lowered = lower(network, size, Instance::Full, Span::WHOLE)?;
        let steps = fuse(&lowered);
        let exits = network.points().iter().map(|point| {
            // Where an instance leaves does not depend on its ratio.
            let instance = Instance::At(point.id(), Ratio::DEFAULT[0]);
            let branch = fuse(&lower(network, size, instance, Span::WHOLE)?);
            let same = std::iter::zip(&steps, &branch).take_while(|(a, b)| a == b);
            Ok((point.id(), same.count()))
        });
        Ok(Self {
            exits: exits.collect::<Result<_, ShapeError>>()?,
            full: Plan::new(lowered, steps, batch, 0, &[], in_place),
            branches: Mutex::default(),
            size,
        })
    }

    /// How many steps of `full` come before the instances of a point differ
    /// from it.
    pub fn exit(&self, point: PointId) -> Option<usize> {
        let found = self.exits.iter().find(|(id, _)| *id == point);
        found.map(|&(_, exit)| exit)
    }

    /// The layer that each point's exit begins with.
    pub fn exit_layers(&self) -> Vec<(PointId, LayerId)> {
        let exits = self.exits.iter();
        exits
            .map(|&(point, exit)| (point, self.full.steps[exit].layer()))
            .collect()
    }

    /// What an instance does from its exit on.
    pub fn branch(
        &self,
        network: &Network,
        instance: Instance,
        in_place: InPlace<'_>,
    ) -> Result<Arc<Plan>, EngineError> {
        if let Some(plan) = lock(&self.branches).get(&instance) {
            return Ok(plan.clone());
        }
        let lowered = lower(network, self.size, instance, Span::WHOLE)?;
        let exit = instance.point().and_then(|point| self.exit(point));
        let exit = exit.expect("lowering found the point");
        let mut steps = fuse(&lowered);
        debug_assert_eq!(steps[..exit], self.full.steps[..exit]);
        steps.drain(..exit);
        // What `full` needs to go on stays, so that several instances can
        // start from it one after the other.
        let kept: Vec<(usize, Range<usize>)> = self
            .full
            .live(exit)
            .into_iter()
            .map(|value| (value.0, self.full.placement.place(value)))
            .collect();
        let batch = self.full.placement.batch;
        let plan = Plan::new(lowered, steps, batch, exit, &kept, in_place);
        let plan = Arc::new(plan);
        plan.check_memory()?;
        lock(&self.branches).insert(instance, plan.clone());
        Ok(plan)
    }
}

impl Plan {
    /// Lays out the tensors of `steps`, the first of which has the number
    /// `start`, around those that are `kept`.
    fn new(
        lowered: Lowered,
        steps: Vec<Step>,
        batch: usize,
        start: usize,
        kept: &[(usize, Range<usize>)],
        in_place: InPlace<'_>,
    ) -> Self {
        let nothing = Lifetime {
            len: 0,
            first: 0,
            last: 0,
        };
        let mut lifetimes = vec![nothing; lowered.shapes.len()];
        for (time, step) in (start..).zip(&steps) {
            for value in step.outputs() {
                lifetimes[value.0] = Lifetime {
                    len: lowered.shapes[value.0].len() * batch,
                    first: time,
                    last: time,
                };
            }
            for value in step.inputs() {
                lifetimes[value.0].last = time;
            }
        }
        lifetimes[lowered.output.0].last = usize::MAX;
        for (value, place) in kept {
            lifetimes[*value] = Lifetime {
                len: place.len(),
                first: start,
                last: usize::MAX,
            };
        }
        let owners = share_with_residuals(&lowered, &steps, start, batch, &mut lifetimes, in_place);
        let mut layout = Layout::around(&lifetimes, kept);
        for (value, owner) in owners {
            layout.share(value.0, owner.0);
        }
        Self {
            placement: Placement::new(lowered, layout, batch),
            steps,
        }
    }

    /// Asks the system for the tensors' memory once and gives it back: what a
    /// model from anywhere asks for may be more than there is, and a run
    /// could only abort.
    pub fn check_memory(&self) -> Result<(), EngineError> {
        let floats = self.placement.layout.len();
        let asked = Vec::<f32>::new().try_reserve_exact(floats);
        asked.map_err(|_| EngineError::TooLarge {
            what: "a run of this network",
            bytes: floats.saturating_mul(size_of::<f32>()),
        })
    }

    /// The tensors that are there before a step and that it or a later one
    /// reads, other than the images.
    pub fn live(&self, step: usize) -> Vec<Value> {
        let (before, after) = self.steps.split_at(step);
        let read: Vec<Value> = after.iter().flat_map(Step::inputs).collect();
        let written = before.iter().flat_map(Step::outputs);
        written
            .filter(|value| read.contains(value) || *value == self.placement.lowered.output)
            .collect()
    }

    /// Whether a step or a later one reads the images.
    pub fn reads_images(&self, step: usize) -> bool {
        let mut inputs = self.steps[step..].iter().flat_map(Step::inputs);
        inputs.any(|value| value == self.placement.lowered.input)
    }
}

/// Lets convolutions whose residual nobody needs afterwards write over it, and returns them
/// with the value whose place they take: memory is brought once for both.
fn share_with_residuals(
    lowered: &Lowered,
    steps: &[Step],
    start: usize,
    batch: usize,
    lifetimes: &mut [Lifetime],
    in_place: InPlace<'_>,
) -> Vec<(Value, Value)> {
    let mut owners: Vec<(Value, Value)> = Vec::new();
    for (time, step) in (start..).zip(steps) {
        let Step::Conv(step) = step else {
            continue;
        };
        let Some(residual) = step.epilogue.residual else {
            continue;
        };
        // A value that shares has no length of its own; what it shares has both lifetimes.
        let shared = owners.iter().find(|(value, _)| *value == residual);
        let owner = shared.map_or(residual, |&(_, owner)| owner);
        let theirs = lifetimes[owner.0];
        let ours = lifetimes[step.output.0];
        if theirs.len == ours.len
            && theirs.last == time
            && step.input != residual
            && in_place(
                step.layer,
                &lowered.conv_shape(step.input, &step.conv, batch),
            )
        {
            lifetimes[owner.0].last = ours.last;
            lifetimes[step.output.0].len = 0;
            owners.push((step.output, owner));
        }
    }
    owners
}
