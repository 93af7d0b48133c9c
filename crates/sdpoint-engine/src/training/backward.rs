//! The backward pass: computes the gradients of all parameters.

use std::ops::Range;

use sdpoint_core::{LayerId, Weights};
use sdpoint_kernels as kernels;
use sdpoint_kernels::{PackedConvTranspose, elementwise, norm as batch_norm, pool};

use super::forward::BatchPass;
use super::plan::{Backward, Gradient, StepPlan};
use super::timed::StepEvent;
use crate::arena::Reader;
use crate::lower::{Node, NodeOp};
use crate::operation::InputGradient;
use crate::parameters::{ParameterTable, Parameters};
use crate::placement::{Buffer, Tensors};

/// The backward pass of a plan.
pub(super) struct BackwardPass<'a> {
    pub plan: &'a StepPlan,
    pub transposed: &'a [Option<PackedConvTranspose>],
    pub parameters: Parameters<'a>,
    /// The input of the plan: the images, or the tensor at a point.
    pub input: &'a [f32],
    /// Whether gradients of parameters are added to those that are there.
    pub accumulate: bool,
    /// Whether only the gradients of the scales and shifts of batch norms and of
    /// biases are computed.
    pub frozen: bool,
}

impl BackwardPass<'_> {
    /// Executes some of the plan's backward steps, all in order in the end. The
    /// forward pass must have run, and the gradient of the loss with respect to
    /// the logits be in the arena. `on_event` is called after each part.
    pub fn run(
        &self,
        steps: Range<usize>,
        pass: &mut BatchPass,
        gradients: &mut Weights,
        mut on_event: impl FnMut(StepEvent<'_>),
    ) {
        let plan = self.plan;
        for step in &plan.backward[steps] {
            match step {
                Backward::Sum { a, b, out } => {
                    let (reader, out) = pass.arena.write(plan.placement.place(*out));
                    let tensors = plan.tensors(reader, self.input);
                    elementwise::add(&pass.base.ctx, tensors.get(*a), tensors.get(*b), out);
                    on_event(StepEvent::GradientSum);
                }
                Backward::Accumulate { from, into } => {
                    let (reader, into) = pass.arena.write(plan.placement.place(*into));
                    let tensors = plan.tensors(reader, self.input);
                    elementwise::accumulate(&pass.base.ctx, tensors.get(*from), into);
                    on_event(StepEvent::GradientSum);
                }
                Backward::Node { node, dy, dx } => {
                    let node = &plan.placement.lowered.nodes[*node];
                    let step = NodeStep {
                        backward: self,
                        node,
                        dy: *dy,
                    };
                    step.run(dx, pass, gradients, &mut on_event);
                }
            }
        }
    }
}

/// The backward step of one node.
struct NodeStep<'a> {
    backward: &'a BackwardPass<'a>,
    node: &'a Node,
    dy: Buffer,
}

impl NodeStep<'_> {
    /// Computes the gradients of the parameters and of the inputs in `dx`.
    fn run(
        &self,
        dx: &[Option<Gradient>],
        pass: &mut BatchPass,
        gradients: &mut Weights,
        on_event: &mut impl FnMut(StepEvent<'_>),
    ) {
        let (plan, node) = (self.backward.plan, self.node);
        let properties = node.op.properties();
        if properties.input_gradient == InputGradient::WithParameters {
            let dx = dx[0].expect("its gradient is always planned");
            self.input_and_parameters(pass, gradients, dx);
            return on_event(StepEvent::BackwardData(plan, node));
        }
        if properties.weights {
            self.weights(pass, gradients);
            on_event(StepEvent::BackwardWeights(plan, node));
        }
        for (index, dx) in dx.iter().enumerate() {
            if let Some(dx) = dx {
                self.input(pass, index, *dx);
                on_event(StepEvent::BackwardData(plan, node));
            }
        }
    }

    /// The readable tensors, and the first input of the node.
    fn tensors<'a>(&'a self, reader: Reader<'a>) -> (Tensors<'a>, &'a [f32]) {
        let tensors = self.backward.plan.tensors(reader, self.backward.input);
        (tensors, tensors.get(self.node.inputs[0]))
    }

    /// Computes the gradients of weights and bias.
    fn weights(&self, pass: &mut BatchPass, gradients: &mut Weights) {
        let ctx = &*pass.base.ctx;
        let placement = &self.backward.plan.placement;
        let accumulate = self.backward.accumulate;
        let (tensors, x) = self.tensors(pass.arena.read());
        let dy = tensors.get(self.dy);
        let layer = self.node.layer;
        match self.node.op {
            NodeOp::Conv(conv) => {
                if !self.backward.frozen {
                    let shape = placement.conv_shape(self.node.inputs[0], &conv);
                    let dw = &mut gradients.0[pass.table.weight(layer)];
                    kernels::conv_backward_weights(ctx, &shape, x, dy, dw, accumulate);
                }
                if let Some(bias) = pass.table.bias(layer) {
                    write_or_add(accumulate, [&mut gradients.0[bias]], |[db]| {
                        batch_norm::sum_pixels(ctx, dy, db);
                    });
                }
            }
            NodeOp::Linear { .. } => {
                let inputs = placement.channels(self.node.inputs[0]);
                let outputs = placement.channels(self.node.output);
                let (dw, db) = weight_and_bias(&pass.table, gradients, layer);
                let shape = kernels::linear_shape(placement.batch, inputs, outputs);
                kernels::linear_backward_weights(ctx, &shape, x, dy, dw, db, accumulate);
            }
            NodeOp::Norm { .. }
            | NodeOp::Activation(_)
            | NodeOp::MaxPool(_)
            | NodeOp::AvgPool(_)
            | NodeOp::AdaptiveMaxPool
            | NodeOp::AdaptiveAvgPool
            | NodeOp::Add
            | NodeOp::Concat
            | NodeOp::Mask { .. } => {
                unreachable!("has no weights according to the table of operations")
            }
        }
    }

    /// Computes the gradient with respect to input number `index`.
    fn input(&self, pass: &mut BatchPass, index: usize, gradient: Gradient) {
        let BackwardPass {
            plan,
            transposed,
            input,
            ..
        } = *self.backward;
        let ctx = &*pass.base.ctx;
        let accumulate = gradient.accumulate;
        let placement = &plan.placement;
        let (reader, dx) = pass.arena.write(placement.place(gradient.buffer));
        let tensors = plan.tensors(reader, input);
        let dy = tensors.get(self.dy);
        let layer = self.node.layer;
        match self.node.op {
            NodeOp::Conv(conv) => {
                let shape = placement.conv_shape(self.node.inputs[0], &conv);
                let packed = transposed[layer.0].as_ref().expect("every conv is packed");
                kernels::conv_backward_data(ctx, &shape, dy, packed, dx, accumulate);
            }
            NodeOp::Linear { .. } => {
                let packed = pass.packed.linear(layer);
                kernels::linear_backward_data(ctx, placement.batch, dy, packed, dx, accumulate);
            }
            NodeOp::Activation(activation) => {
                let y = tensors.get(self.node.output);
                elementwise::activate_backward(ctx, activation, y, dy, accumulate, dx);
            }
            NodeOp::MaxPool(_) | NodeOp::AdaptiveMaxPool => {
                let argmax = pass.saved.argmax.as_ref();
                let argmax = &argmax.expect("training saves the argmax")[layer.0];
                let geometry = placement.pool(self.node);
                pool::max_pool_backward(ctx, geometry, dy, argmax, accumulate, dx);
            }
            NodeOp::AvgPool(_) | NodeOp::AdaptiveAvgPool => {
                let geometry = placement.pool(self.node);
                pool::average_pool_backward(ctx, geometry, dy, accumulate, dx);
            }
            NodeOp::Concat => {
                let channels = |i: usize| placement.channels(self.node.inputs[i]);
                let first = (0..index).map(channels).sum();
                let all = placement.channels(self.node.output);
                let part = first..first + channels(index);
                elementwise::slice_channels(ctx, dy, all, part, accumulate, dx);
            }
            NodeOp::Mask { site, .. } => {
                let masks = pass
                    .saved
                    .masks
                    .as_ref()
                    .expect("a plan with noise has masks");
                masks.apply(site, dy, accumulate, dx);
            }
            NodeOp::Norm { .. } | NodeOp::Add => {
                unreachable!("not written separately according to the table of operations")
            }
        }
    }

    /// Computes the gradients of the input and the parameters together: for a
    /// batch norm and the ReLU fused into it.
    fn input_and_parameters(
        &self,
        pass: &mut BatchPass,
        gradients: &mut Weights,
        gradient: Gradient,
    ) {
        let BackwardPass {
            plan, parameters, ..
        } = *self.backward;
        let NodeOp::Norm {
            norm, activation, ..
        } = self.node.op
        else {
            unreachable!("only batch norms compute both together");
        };
        let layer = self.node.layer;
        let place = plan.placement.place(gradient.buffer);
        let gamma = parameters.get(pass.table.weight(layer));
        let beta = pass.table.bias(layer).expect("every norm has a shift");
        let beta = parameters.get(beta);
        let (dgamma, dbeta) = weight_and_bias(&pass.table, gradients, layer);
        let (reader, dx) = pass.arena.write(place);
        let (tensors, x) = self.tensors(reader);
        let state = &pass.saved.norms[norm];
        let inputs = batch_norm::BackwardInputs {
            x,
            dy: tensors.get(self.dy),
            gamma,
            beta,
            mean: &state.mean,
            invstd: &state.inverse_std,
            activation,
            skip_grad: gradient.skip.map(|skip| tensors.get(skip)),
        };
        let dbeta = dbeta.expect("every norm has a shift");
        write_or_add(
            self.backward.accumulate,
            [dgamma, dbeta],
            |[dgamma, dbeta]| {
                let gradients = batch_norm::BackwardGradients { dgamma, dbeta, dx };
                batch_norm::batch_norm_backward(&pass.base.ctx, inputs, gradients);
            },
        );
    }
}

/// Lets `write` overwrite the gradients of parameters with a value per channel,
/// or add to them with `accumulate`.
fn write_or_add<const N: usize>(
    accumulate: bool,
    into: [&mut [f32]; N],
    write: impl FnOnce([&mut [f32]; N]),
) {
    if !accumulate {
        return write(into);
    }
    let mut parts: [Vec<f32>; N] = std::array::from_fn(|i| vec![0.0; into[i].len()]);
    write(parts.each_mut().map(Vec::as_mut_slice));
    for (into, part) in std::iter::zip(into, parts) {
        for (into, part) in std::iter::zip(into, part) {
            *into += part;
        }
    }
}

/// The gradients of a layer's weight and bias.
fn weight_and_bias<'a>(
    table: &ParameterTable,
    gradients: &'a mut Weights,
    layer: LayerId,
) -> (&'a mut [f32], Option<&'a mut [f32]>) {
    let weight = table.weight(layer);
    match table.bias(layer) {
        None => (&mut gradients.0[weight], None),
        Some(bias) => {
            let [weight, bias] = gradients
                .0
                .get_disjoint_mut([weight, bias])
                .expect("weight and bias are two parameters");
            (weight, Some(bias))
        }
    }
}
