//! What a training step computes, worked out once for an instance and a
//! batch size: the order of the work and the place of every tensor.

use sdpoint_core::{Instance, Network, ShapeError};

use super::noise::{self, Noise};
use crate::arena::{Layout, Lifetime, Reader};
use crate::lower::{Lowered, Node, Span, Value, Work, lower};
use crate::operation::{BackwardReads, InputGradient};
use crate::placement::{Buffer, Placement, Tensors};

/// A forward pass with batch statistics, and the backward pass if wanted.
#[derive(Debug)]
pub(crate) struct Plan {
    pub placement: Placement,
    pub backward: Vec<Backward>,
    /// Where the loss puts its gradient with respect to the logits.
    pub logits_gradient: Option<Buffer>,
}

/// One step of the backward pass.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Backward {
    /// The gradients of a node's parameters, and of its input if `dx` is
    /// given. `node` is the index in [`Lowered::nodes`].
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

/// Where a node puts the gradient with respect to one of its inputs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Gradient {
    pub buffer: Buffer,
    /// Whether it is added to what is there.
    pub accumulate: bool,
    /// Another part of the gradient, to be added on the way.
    pub skip: Option<Buffer>,
}

impl Plan {
    /// The forward pass of a span alone; tensors give way as soon as they
    /// have been read.
    pub fn forward(
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
        })
    }

    /// A whole training step.
    pub fn step(
        network: &Network,
        size: [usize; 2],
        batch: usize,
        instance: Instance,
        noise: Option<Noise>,
    ) -> Result<Self, ShapeError> {
        let mut lowered = lower(network, size, instance, Span::WHOLE)?;
        if let Some(noise) = noise {
            noise::insert(&mut lowered, noise);
        }
        let mut planner = Planner::new(&lowered, batch);
        let logits_gradient = planner.plan_backward();
        let backward = std::mem::take(&mut planner.backward);
        let layout = planner.layout();
        Ok(Self {
            placement: Placement::new(lowered, layout, batch),
            backward,
            logits_gradient: Some(logits_gradient),
        })
    }

    /// The tensors that a step may read.
    pub fn tensors<'a>(&'a self, reader: Reader<'a>, images: &'a [f32]) -> Tensors<'a> {
        Tensors {
            placement: &self.placement,
            reader,
            images,
        }
    }

    /// The batch norms of the forward pass.
    pub fn norms(&self) -> impl Iterator<Item = usize> {
        let nodes = self.placement.lowered.nodes.iter();
        nodes.filter_map(|node| match node.work {
            Work::Norm { norm, .. } => Some(norm),
            _ => None,
        })
    }
}

/// Collects lifetimes and backward steps. Time is the index of a step:
/// forward nodes first, then the loss, then the backward steps.
struct Planner<'a> {
    lowered: &'a Lowered,
    batch: usize,
    lifetimes: Vec<Lifetime>,
    backward: Vec<Backward>,
    /// The buffer that holds the gradient of each value that still waits for
    /// its maker's turn. Several values may share one, as the inputs of a sum do.
    gradient: Vec<Option<Buffer>>,
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
        // The images stay where the caller has them.
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
        }
    }

    fn layout(&self) -> Layout {
        Layout::new(&self.lifetimes)
    }

    /// The step that will be added next.
    fn now(&self) -> usize {
        self.lowered.nodes.len() + 1 + self.backward.len()
    }

    fn read(&mut self, buffer: Buffer) {
        self.lifetimes[buffer.0].last = self.lifetimes[buffer.0].last.max(self.now());
    }

    /// A new buffer for the gradient of a value, written by the next step.
    fn allocate(&mut self, value: Value) -> Buffer {
        let now = self.now();
        self.lifetimes.push(Lifetime {
            len: self.lowered.shapes[value.0].len() * self.batch,
            first: now,
            last: now,
        });
        Buffer(self.lifetimes.len() - 1)
    }

    fn plan_backward(&mut self) -> Buffer {
        let output = self.lowered.output;
        let logits_gradient = self.allocate(output);
        // The loss writes it, right behind the forward pass.
        self.lifetimes[logits_gradient.0].first -= 1;
        self.gradient[output.0] = Some(logits_gradient);
        for index in (0..self.lowered.nodes.len()).rev() {
            let node = &self.lowered.nodes[index];
            let dy = self.gradient[node.output.0]
                .take()
                .expect("every output reaches the loss");
            match node.work.operation().input_gradient {
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

    /// Makes `dy` a part of a value's gradient.
    fn share(&mut self, value: Value, dy: Buffer) {
        if value == self.lowered.input {
            return;
        }
        self.gradient[value.0] = Some(match self.gradient[value.0] {
            None => dy,
            Some(other) if other != dy && self.alone(value, other) => {
                self.read(dy);
                self.read(other);
                self.backward.push(Backward::Accumulate {
                    from: dy,
                    into: other,
                });
                other
            }
            Some(other) => {
                let out = self.allocate(value);
                self.read(dy);
                self.read(other);
                self.backward.push(Backward::Sum {
                    a: dy,
                    b: other,
                    out,
                });
                out
            }
        });
    }

    /// Whether nobody but `value` waits for what a buffer holds.
    fn alone(&self, value: Value, buffer: Buffer) -> bool {
        self.gradient
            .iter()
            .enumerate()
            .all(|(other, &held)| other == value.0 || held != Some(buffer))
    }

    fn plan_node(&mut self, index: usize, node: &Node, dy: Buffer) {
        let operation = node.work.operation();
        let with_parameters = operation.input_gradient == InputGradient::WithParameters;
        let mut dx = Vec::with_capacity(node.inputs.len());
        // Gradients that others still need, to be added to what the node wrote apart.
        let mut later = Vec::new();
        for &input in &node.inputs {
            // The images need no gradient, but what computes it together with
            // those of parameters does so anyway.
            if input == self.lowered.input && !with_parameters {
                dx.push(None);
                continue;
            }
            let before = self.gradient[input.0];
            let in_place = before.filter(|&b| !with_parameters && b != dy && self.alone(input, b));
            let buffer = in_place.unwrap_or_else(|| self.allocate(input));
            // The other part is added on the way, without another pass.
            let skip = before.filter(|_| with_parameters);
            if let Some(before) = before.filter(|_| !with_parameters && in_place.is_none()) {
                later.push((before, buffer));
            }
            self.gradient[input.0] = Some(buffer);
            dx.push(Some(Gradient {
                buffer,
                accumulate: in_place.is_some(),
                skip,
            }));
        }
        self.read(dy);
        for gradient in dx.iter().flatten() {
            self.read(gradient.buffer);
            if let Some(skip) = gradient.skip {
                self.read(skip);
            }
        }
        match operation.reads {
            BackwardReads::Nothing => {}
            BackwardReads::Input => self.read(node.inputs[0].into()),
            BackwardReads::Output => self.read(node.output.into()),
        }
        self.backward.push(Backward::Node {
            node: index,
            dy,
            dx,
        });
        for (from, into) in later {
            self.read(from);
            self.read(into);
            self.backward.push(Backward::Accumulate { from, into });
        }
    }
}
