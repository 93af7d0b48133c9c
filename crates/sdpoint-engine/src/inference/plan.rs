//! Inference plans: the kernel calls of `full` for one batch shape, and for
//! each other instance those after it branches off from `full`.

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

/// Kernel calls and the memory layout of their tensors.
#[derive(Debug)]
pub(super) struct InferencePlan {
    pub placement: Placement,
    /// The kernel calls. For an instance other than `full`, only those from its
    /// exit on; those before are the same as in `full`.
    pub steps: Vec<Step>,
}

/// Whether the convolution of a layer can use its output buffer as the
/// residual, and so write the sum in place.
pub(super) type InPlace<'a> = &'a dyn Fn(LayerId, &ConvShape) -> bool;

/// The plans of all instances for one batch size and image size.
///
/// Up to its exit, an instance has the same kernel calls as `full`. The exit
/// is the first call that differs: the convolution that ends the block, or the
/// stem's max pool. In `full`, that convolution's epilogue includes the ReLU or
/// the next block's batch norm; in an instance it ends with the residual sum.
/// `full` is therefore fused across its points without restriction, and
/// instances still branch off at any of them. (These exits are not the
/// classifiers of [`Network::with_exits`].)
#[derive(Debug)]
pub(super) struct PlanSet {
    pub full: InferencePlan,
    /// The exit of each point, as a number of steps of `full`, in the order of
    /// the points.
    exits: Vec<(PointId, usize)>,
    branches: Mutex<BTreeMap<Instance, Arc<InferencePlan>>>,
    pub size: [usize; 2],
}

impl PlanSet {
    /// Plans `full` and finds the exits. The other instances are planned on
    /// first use, by [`PlanSet::branch`].
    pub fn new(
        network: &Network,
        size: [usize; 2],
        batch: usize,
        in_place: InPlace<'_>,
    ) -> Result<Self, ShapeError> {
        let lowered = lower(network, size, Instance::Full, Span::WHOLE)?;
        let steps = fuse(&lowered);
        let exits = network.points().iter().map(|point| {
            // The exit does not depend on the ratio.
            let instance = Instance::At(point.id(), Ratio::DEFAULT[0]);
            let branch = fuse(&lower(network, size, instance, Span::WHOLE)?);
            let common = std::iter::zip(&steps, &branch).take_while(|(a, b)| a == b);
            Ok((point.id(), common.count()))
        });
        Ok(Self {
            exits: exits.collect::<Result<_, ShapeError>>()?,
            full: InferencePlan::new(lowered, steps, batch, 0, &[], in_place),
            branches: Mutex::default(),
            size,
        })
    }

    /// The number of steps that the instances of a point share with `full`.
    pub fn exit(&self, point: PointId) -> Option<usize> {
        let found = self.exits.iter().find(|(id, _)| *id == point);
        found.map(|&(_, exit)| exit)
    }

    /// The first layer after the exit of each point.
    pub fn exit_layers(&self) -> Vec<(PointId, LayerId)> {
        let exits = self.exits.iter();
        exits
            .map(|&(point, exit)| (point, self.full.steps[exit].layer()))
            .collect()
    }

    /// The plan of an instance from its exit on, cached.
    pub fn branch(
        &self,
        network: &Network,
        instance: Instance,
        in_place: InPlace<'_>,
    ) -> Result<Arc<InferencePlan>, EngineError> {
        if let Some(plan) = lock(&self.branches).get(&instance) {
            return Ok(plan.clone());
        }
        let lowered = lower(network, self.size, instance, Span::WHOLE)?;
        let exit = instance.point().and_then(|point| self.exit(point));
        let exit = exit.expect("lowering found the point");
        let mut steps = fuse(&lowered);
        debug_assert_eq!(steps[..exit], self.full.steps[..exit]);
        steps.drain(..exit);
        // The tensors that the rest of `full` reads keep their places, so that
        // `full` and other instances can continue after this one.
        let kept: Vec<(usize, Range<usize>)> = self
            .full
            .live(exit)
            .into_iter()
            .map(|value| (value.0, self.full.placement.place(value)))
            .collect();
        let batch = self.full.placement.batch;
        let plan = InferencePlan::new(lowered, steps, batch, exit, &kept, in_place);
        let plan = Arc::new(plan);
        plan.check_memory()?;
        lock(&self.branches).insert(instance, plan.clone());
        Ok(plan)
    }
}

impl InferencePlan {
    /// Lays out the tensors of `steps`, the steps of an instance from number
    /// `start` on. The tensors `kept` are in memory already, at the given ranges,
    /// and are never overwritten.
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
        let owners =
            reuse_residual_buffers(&lowered, &steps, start, batch, &mut lifetimes, in_place);
        let mut layout = Layout::with_fixed(&lifetimes, kept);
        for (value, owner) in owners {
            layout.share(value.0, owner.0);
        }
        Self {
            placement: Placement::new(lowered, layout, batch),
            steps,
        }
    }

    /// Checks that the tensors' memory can be allocated, by a trial allocation:
    /// a model file can describe tensors of any size, and a failing allocation
    /// during the run would abort the process.
    pub fn check_memory(&self) -> Result<(), EngineError> {
        let floats = self.placement.layout.len();
        let trial = Vec::<f32>::new().try_reserve_exact(floats);
        trial.map_err(|_| EngineError::TooLarge {
            what: "a run of this network",
            bytes: floats.saturating_mul(size_of::<f32>()),
        })
    }

    /// The tensors that are live before a step: written by an earlier step, and
    /// read by this or a later one or the final output. The images are not among them.
    pub fn live(&self, step: usize) -> Vec<Value> {
        let (before, after) = self.steps.split_at(step);
        let read: Vec<Value> = after.iter().flat_map(Step::inputs).collect();
        let written = before.iter().flat_map(Step::outputs);
        written
            .filter(|value| read.contains(value) || *value == self.placement.lowered.output)
            .collect()
    }

    /// Whether this or a later step reads the images.
    pub fn reads_images(&self, step: usize) -> bool {
        let mut inputs = self.steps[step..].iter().flat_map(Step::inputs);
        inputs.any(|value| value == self.placement.lowered.input)
    }
}

/// Lets convolutions overwrite their residual where it is not read afterwards,
/// so that residual and output occupy the same cache lines. Returns pairs of an
/// output and the value whose buffer it takes over.
fn reuse_residual_buffers(
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
        // The owner of a shared buffer has the union of the lifetimes; the
        // values that share it have length 0.
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
