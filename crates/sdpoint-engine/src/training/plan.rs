//! Plans of training steps: the order of operations and the memory layout of
//! all tensors, made once for an instance and a batch shape.

use sdpoint_core::{Instance, Network, PointId, ShapeError};

use super::noise::{self, Noise};
use crate::arena::{Layout, Lifetime, Reader};
use crate::lower::{Lowered, Node, NodeOp, Span, Value, lower, lower_with_cuts};
use crate::operation::{BackwardReads, InputGradient};
use crate::placement::{Buffer, Placement, Tensors};

/// The plan of a forward pass with batch statistics, with or without a backward
/// pass. Nothing is fused into convolutions: batch statistics need their
/// outputs.
#[derive(Debug)]
pub(crate) struct StepPlan {
    pub placement: Placement,
    pub backward: Vec<Backward>,
    /// The buffer for the gradient of the loss with respect to the logits.
    pub logits_gradient: Option<Buffer>,
    /// The buffer that holds the gradient with respect to the input in the end,
    /// if it is computed.
    pub input_gradient: Option<Buffer>,
    /// Where branches may join, in the order in which the backward pass reaches
    /// them: from the last point to the first.
    pub cuts: Vec<Cut>,
}

/// A point at which branches leave a plan of `full`, and at which their
/// gradients are added.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cut {
    pub point: PointId,
    /// The tensor at the point, live until the backward pass reaches it.
    pub value: Value,
    /// The gradient with respect to it. No other value's gradient is in this
    /// buffer then.
    pub gradient: Buffer,
    /// The number of steps of the backward pass before the point is reached.
    pub step: usize,
}

/// One step of the backward pass.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Backward {
    /// The gradients of a node's parameters, and of those of its inputs whose
    /// `dx` is given. `node` is the index in [`Lowered::nodes`].
    Node {
        node: usize,
        dy: Buffer,
        dx: Vec<Option<Gradient>>,
    },
    /// `out = a + b`
    Sum { a: Buffer, b: Buffer, out: Buffer },
    /// `into += from`
    Accumulate { from: Buffer, into: Buffer },
}

/// The destination of a gradient with respect to one of a node's inputs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Gradient {
    pub buffer: Buffer,
    /// Whether it is added to the content of the buffer.
    pub accumulate: bool,
    /// Another gradient of the same value, added by the same kernel: that of a
    /// skip connection.
    pub skip: Option<Buffer>,
}

impl StepPlan {
    /// Plans the forward pass of a span without a backward pass. Tensors are
    /// live until their last read in the forward pass.
    pub fn forward_only(
        network: &Network,
        size: [usize; 2],
        batch: usize,
        instance: Instance,
        span: Span,
    ) -> Result<Self, ShapeError> {
        let lowered = lower(network, size, instance, span)?;
        let layout = Planner::new(&lowered, batch).layout();
        Ok(Self {
            placement: Placement::new(lowered, layout, batch),
            backward: Vec::new(),
            logits_gradient: None,
            input_gradient: None,
            cuts: Vec::new(),
        })
    }

    /// Plans a training step: forward and backward pass of the whole network.
    pub fn with_backward(
        network: &Network,
        size: [usize; 2],
        batch: usize,
        instance: Instance,
        noise: Option<Noise>,
    ) -> Result<Self, ShapeError> {
        let mut lowered = lower(network, size, instance, Span::WHOLE)?;
        if let Some(noise) = noise {
            let blocks = noise::blocks(&lowered);
            noise::insert(&mut lowered, noise, blocks);
        }
        Ok(Self::trained(lowered, batch, false, &[]))
    }

    /// Plans a training step of `full` that branches may leave at any point.
    pub fn trunk(
        network: &Network,
        size: [usize; 2],
        batch: usize,
        noise: Option<Noise>,
    ) -> Result<Self, ShapeError> {
        let (mut lowered, cuts) = lower_with_cuts(network, size)?;
        if let Some(noise) = noise {
            let blocks = noise::blocks(&lowered);
            noise::insert(&mut lowered, noise, blocks);
        }
        Ok(Self::trained(lowered, batch, false, &cuts))
    }

    /// Plans the part of a training step of an instance after its point, whose
    /// input is the tensor there. The gradient with respect to it is computed.
    ///
    /// # Panics
    /// If the instance is `full`.
    pub fn branch(
        network: &Network,
        size: [usize; 2],
        batch: usize,
        instance: Instance,
        noise: Option<Noise>,
    ) -> Result<Self, ShapeError> {
        let from = instance.point();
        assert!(from.is_some(), "full does not branch off from itself");
        let mut lowered = lower(network, size, instance, Span { from, to: None })?;
        if let Some(noise) = noise {
            let whole = lower(network, size, Instance::Full, Span::WHOLE)?;
            noise::insert(&mut lowered, noise, noise::blocks(&whole));
        }
        Ok(Self::trained(lowered, batch, true, &[]))
    }

    /// Plans forward and backward pass, with the gradient of the input if
    /// `input_gradient`.
    fn trained(
        lowered: Lowered,
        batch: usize,
        input_gradient: bool,
        cuts: &[(PointId, Value)],
    ) -> Self {
        let mut planner = Planner::new(&lowered, batch);
        planner.with_input_gradient = input_gradient;
        let logits_gradient = planner.plan_backward(cuts);
        let input_gradient = planner.gradient[lowered.input.0];
        if let Some(buffer) = input_gradient {
            planner.keep(buffer);
        }
        let (backward, cuts) = (
            std::mem::take(&mut planner.backward),
            std::mem::take(&mut planner.cuts),
        );
        let layout = planner.layout();
        Self {
            placement: Placement::new(lowered, layout, batch),
            backward,
            logits_gradient: Some(logits_gradient),
            input_gradient,
            cuts,
        }
    }

    /// The tensors that a step may read.
    pub fn tensors<'a>(&'a self, reader: Reader<'a>, images: &'a [f32]) -> Tensors<'a> {
        Tensors {
            placement: &self.placement,
            reader,
            images,
        }
    }

    /// The indices of the batch norms in the forward pass.
    pub fn norms(&self) -> impl Iterator<Item = usize> {
        let nodes = self.placement.lowered.nodes.iter();
        nodes.filter_map(|node| match node.op {
            NodeOp::Norm { norm, .. } => Some(norm),
            _ => None,
        })
    }
}

/// Collects tensor lifetimes and backward steps. Time is the index of a step:
/// forward nodes first, then the loss, then the backward steps.
struct Planner<'a> {
    lowered: &'a Lowered,
    batch: usize,
    lifetimes: Vec<Lifetime>,
    backward: Vec<Backward>,
    /// The buffer that accumulates the gradient of each value, from its last
    /// consumer's backward step to its producer's. Several values may share a
    /// buffer, as the inputs of a sum do.
    gradient: Vec<Option<Buffer>>,
    /// Whether the gradient with respect to the input is needed.
    with_input_gradient: bool,
    cuts: Vec<Cut>,
}

impl<'a> Planner<'a> {
    fn new(lowered: &'a Lowered, batch: usize) -> Self {
        let mut lifetimes: Vec<Lifetime> = lowered
            .shapes
            .iter()
            .map(|shape| Lifetime {
                len: shape.len() * batch,
                first: 0,
                last: 0,
            })
            .collect();
        // The images stay in the caller's buffer.
        lifetimes[lowered.input.0].len = 0;
        for (time, node) in lowered.nodes.iter().enumerate() {
            lifetimes[node.output.0].first = time;
            lifetimes[node.output.0].last = time;
            for input in &node.inputs {
                lifetimes[input.0].last = time;
            }
        }
        lifetimes[lowered.output.0].last = lowered.nodes.len();
        Self {
            lowered,
            batch,
            lifetimes,
            backward: Vec::new(),
            gradient: vec![None; lowered.shapes.len()],
            with_input_gradient: false,
            cuts: Vec::new(),
        }
    }

    fn layout(&self) -> Layout {
        Layout::new(&self.lifetimes)
    }

    /// The index of the next step.
    fn now(&self) -> usize {
        self.lowered.nodes.len() + 1 + self.backward.len()
    }

    /// Extends a buffer's lifetime to the next step.
    fn keep(&mut self, buffer: Buffer) {
        self.lifetimes[buffer.0].last = self.lifetimes[buffer.0].last.max(self.now());
    }

    /// Allocates a buffer for the gradient of a value, written by the next step.
    fn allocate(&mut self, value: Value) -> Buffer {
        let now = self.now();
        self.lifetimes.push(Lifetime {
            len: self.lowered.shapes[value.0].len() * self.batch,
            first: now,
            last: now,
        });
        Buffer(self.lifetimes.len() - 1)
    }

    /// Plans the backward pass, with the places at which branches may join, and
    /// returns the buffer of the logits' gradient.
    fn plan_backward(&mut self, cuts: &[(PointId, Value)]) -> Buffer {
        let output = self.lowered.output;
        let logits_gradient = self.allocate(output);
        // Written by the loss, one step before the first backward step.
        self.lifetimes[logits_gradient.0].first -= 1;
        self.gradient[output.0] = Some(logits_gradient);
        for index in (0..self.lowered.nodes.len()).rev() {
            let node = &self.lowered.nodes[index];
            for &(point, value) in cuts.iter().filter(|cut| cut.1 == node.output) {
                self.plan_cut(point, value);
            }
            let dy = self.gradient[node.output.0]
                .take()
                .expect("every output reaches the loss");
            match node.op.properties().input_gradient {
                InputGradient::Shared => {
                    for &input in &node.inputs {
                        self.share(input, dy);
                    }
                }
                InputGradient::Written | InputGradient::WithParameters => {
                    self.plan_node(index, node, dy);
                }
            }
        }
        logits_gradient
    }

    /// Plans that branches may join at a value all of whose other consumers have
    /// added their gradients.
    fn plan_cut(&mut self, point: PointId, value: Value) {
        let gradient = self.gradient[value.0].expect("every point reaches the loss");
        // At a point a single tensor is live, so no other value's gradient is
        // needed any more.
        assert!(self.is_sole_owner(value, gradient), "a point cuts");
        self.keep(value.into());
        self.keep(gradient);
        self.cuts.push(Cut {
            point,
            value,
            gradient,
            step: self.backward.len(),
        });
    }

    /// Whether the gradient of a value is not needed: that of the images.
    fn is_not_needed(&self, value: Value) -> bool {
        value == self.lowered.input && !self.with_input_gradient
    }

    /// Adds `dy` to a value's gradient, without a copy if it is the first.
    fn share(&mut self, value: Value, dy: Buffer) {
        if self.is_not_needed(value) {
            return;
        }
        self.gradient[value.0] = Some(match self.gradient[value.0] {
            None => dy,
            Some(other) if other != dy && self.is_sole_owner(value, other) => {
                self.keep(dy);
                self.keep(other);
                self.backward.push(Backward::Accumulate {
                    from: dy,
                    into: other,
                });
                other
            }
            Some(other) => {
                let out = self.allocate(value);
                self.keep(dy);
                self.keep(other);
                self.backward.push(Backward::Sum {
                    a: dy,
                    b: other,
                    out,
                });
                out
            }
        });
    }

    /// Whether `value` is the only one whose gradient is in `buffer`.
    fn is_sole_owner(&self, value: Value, buffer: Buffer) -> bool {
        self.gradient
            .iter()
            .enumerate()
            .all(|(other, &held)| other == value.0 || held != Some(buffer))
    }

    fn plan_node(&mut self, index: usize, node: &Node, dy: Buffer) {
        let properties = node.op.properties();
        let with_parameters = properties.input_gradient == InputGradient::WithParameters;
        let mut dx = Vec::with_capacity(node.inputs.len());
        // Earlier gradients of inputs, in buffers that other values share. The
        // node writes to a new buffer, and these are added to it afterwards.
        let mut deferred = Vec::new();
        for &input in &node.inputs {
            // The images need no gradient, but a kernel that computes it
            // together with the parameters' always writes it.
            if self.is_not_needed(input) && !with_parameters {
                dx.push(None);
                continue;
            }
            let before = self.gradient[input.0];
            let in_place =
                before.filter(|&b| !with_parameters && b != dy && self.is_sole_owner(input, b));
            let buffer = in_place.unwrap_or_else(|| self.allocate(input));
            // The kernel adds the earlier gradient in the same pass.
            let skip = before.filter(|_| with_parameters);
            if let Some(before) = before.filter(|_| !with_parameters && in_place.is_none()) {
                deferred.push((before, buffer));
            }
            self.gradient[input.0] = Some(buffer);
            dx.push(Some(Gradient {
                buffer,
                accumulate: in_place.is_some(),
                skip,
            }));
        }
        self.keep(dy);
        for gradient in dx.iter().flatten() {
            self.keep(gradient.buffer);
            if let Some(skip) = gradient.skip {
                self.keep(skip);
            }
        }
        match properties.reads {
            BackwardReads::Nothing => {}
            BackwardReads::Input => self.keep(node.inputs[0].into()),
            BackwardReads::Output => self.keep(node.output.into()),
        }
        self.backward.push(Backward::Node {
            node: index,
            dy,
            dx,
        });
        for (from, into) in deferred {
            self.keep(from);
            self.keep(into);
            self.backward.push(Backward::Accumulate { from, into });
        }
    }
}
