//! The backward pass: computes the gradients of all parameters.

use sdpoint_core::{LayerId, Weights};
use sdpoint_kernels as kernels;
use sdpoint_kernels::{PackedConvTranspose, elementwise, norm as batch_norm, pool};

use super::forward::BatchPass;
use super::plan::{Backward, Gradient, StepPlan};
use super::timed::StepEvent;
use crate::arena::Reader;
use crate::lower::{Node, NodeOp};
use crate::operation::InputGradient;
use crate::parameters::ParameterTable;
use crate::placement::{Buffer, Tensors};

/// Executes the backward steps of a plan. The forward pass must have run, and
/// the gradient of the loss with respect to the logits be in the arena.
/// `on_event` is called after each part.
pub(super) fn run(
    pass: &mut BatchPass,
    transposed: &[Option<PackedConvTranspose>],
    plan: &StepPlan,
    weights: &Weights,
    images: &[f32],
    gradients: &mut Weights,
    mut on_event: impl FnMut(StepEvent<'_>),
) {
    for step in &plan.backward {
        match step {
            Backward::Sum { a, b, out } => {
                let (reader, out) = pass.arena.write(plan.placement.place(*out));
                let tensors = plan.tensors(reader, images);
                elementwise::add(&pass.base.ctx, tensors.get(*a), tensors.get(*b), out);
                on_event(StepEvent::GradientSum);
            }
            Backward::Accumulate { from, into } => {
                let (reader, into) = pass.arena.write(plan.placement.place(*into));
                let tensors = plan.tensors(reader, images);
                elementwise::accumulate(&pass.base.ctx, tensors.get(*from), into);
                on_event(StepEvent::GradientSum);
            }
            Backward::Node { node, dy, dx } => {
                let node = &plan.placement.lowered.nodes[*node];
                let step = NodeStep {
                    plan,
                    node,
                    dy: *dy,
                    images,
                };
                let properties = node.op.properties();
                if properties.input_gradient == InputGradient::WithParameters {
                    let dx = dx[0].expect("its gradient is always planned");
                    step.input_and_parameters(pass, weights, gradients, dx);
                    on_event(StepEvent::BackwardData(plan, node));
                    continue;
                }
                if properties.weights {
                    step.weights(pass, gradients);
                    on_event(StepEvent::BackwardWeights(plan, node));
                }
                for (index, dx) in dx.iter().enumerate() {
                    if let Some(dx) = dx {
                        step.input(pass, transposed, index, *dx);
                        on_event(StepEvent::BackwardData(plan, node));
                    }
                }
            }
        }
    }
}

/// The backward step of one node.
struct NodeStep<'a> {
    plan: &'a StepPlan,
    node: &'a Node,
    dy: Buffer,
    images: &'a [f32],
}

impl NodeStep<'_> {
    /// The readable tensors, and the first input of the node.
    fn tensors<'a>(&'a self, reader: Reader<'a>) -> (Tensors<'a>, &'a [f32]) {
        let tensors = self.plan.tensors(reader, self.images);
        (tensors, tensors.get(self.node.inputs[0]))
    }

    /// Computes the gradients of weights and bias.
    fn weights(&self, pass: &mut BatchPass, gradients: &mut Weights) {
        let ctx = &*pass.base.ctx;
        let placement = &self.plan.placement;
        let (tensors, x) = self.tensors(pass.arena.read());
        let dy = tensors.get(self.dy);
        let layer = self.node.layer;
        match self.node.op {
            NodeOp::Conv(conv) => {
                let shape = placement.conv_shape(self.node.inputs[0], &conv);
                let dw = &mut gradients.0[pass.table.weight(layer)];
                kernels::conv_backward_weights(ctx, &shape, x, dy, dw, false);
                if let Some(bias) = pass.table.bias(layer) {
                    batch_norm::sum_pixels(ctx, dy, &mut gradients.0[bias]);
                }
            }
            NodeOp::Linear { .. } => {
                let inputs = placement.channels(self.node.inputs[0]);
                let outputs = placement.channels(self.node.output);
                let (dw, db) = weight_and_bias(&pass.table, gradients, layer);
                let shape = kernels::linear_shape(placement.batch, inputs, outputs);
                kernels::linear_backward_weights(ctx, &shape, x, dy, dw, db, false);
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
    fn input(
        &self,
        pass: &mut BatchPass,
        transposed: &[Option<PackedConvTranspose>],
        index: usize,
        gradient: Gradient,
    ) {
        let ctx = &*pass.base.ctx;
        let accumulate = gradient.accumulate;
        let placement = &self.plan.placement;
        let (reader, dx) = pass.arena.write(placement.place(gradient.buffer));
        let tensors = self.plan.tensors(reader, self.images);
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
        weights: &Weights,
        gradients: &mut Weights,
        gradient: Gradient,
    ) {
        let NodeOp::Norm {
            norm, activation, ..
        } = self.node.op
        else {
            unreachable!("only batch norms compute both together");
        };
        let layer = self.node.layer;
        let place = self.plan.placement.place(gradient.buffer);
        let gamma = &weights.0[pass.table.weight(layer)];
        let beta = &weights.0[pass.table.bias(layer).expect("every norm has a shift")];
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
        let gradients = batch_norm::BackwardGradients {
            dgamma,
            dbeta: dbeta.expect("every norm has a shift"),
            dx,
        };
        batch_norm::batch_norm_backward(&pass.base.ctx, inputs, gradients);
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
