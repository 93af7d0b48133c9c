//! The backward pass: gradients of all parameters.

use sdpoint_core::{LayerId, Weights};
use sdpoint_kernels as kernels;
use sdpoint_kernels::{PackedConvTranspose, elementwise, norm as batch_norm, pool};

use super::forward::BatchPass;
use super::plan::{Backward, Gradient, Plan};
use super::timed::Part;
use crate::arena::Reader;
use crate::lower::{Node, Work};
use crate::operation::InputGradient;
use crate::parameters::ParameterTable;
use crate::placement::{Buffer, Tensors};

/// Runs the backward steps of a plan, after its forward pass and with the
/// loss's gradient in place. `done` is called after each part.
pub(super) fn run(
    pass: &mut BatchPass,
    transposed: &[Option<PackedConvTranspose>],
    plan: &Plan,
    weights: &Weights,
    images: &[f32],
    gradients: &mut Weights,
    mut done: impl FnMut(Part<'_>),
) {
    for step in &plan.backward {
        match step {
            Backward::Sum { a, b, out } => {
                let (reader, out) = pass.arena.write(plan.placement.place(*out));
                let tensors = plan.tensors(reader, images);
                elementwise::add(&pass.base.ctx, tensors.get(*a), tensors.get(*b), out);
                done(Part::Sum);
            }
            Backward::Accumulate { from, into } => {
                let (reader, into) = pass.arena.write(plan.placement.place(*into));
                let tensors = plan.tensors(reader, images);
                elementwise::accumulate(&pass.base.ctx, tensors.get(*from), into);
                done(Part::Sum);
            }
            Backward::Node { node, dy, dx } => {
                let node = &plan.placement.lowered.nodes[*node];
                let step = NodeStep {
                    plan,
                    node,
                    dy: *dy,
                    images,
                };
                let operation = node.work.operation();
                if operation.input_gradient == InputGradient::WithParameters {
                    let dx = dx[0].expect("planned whatever the input is");
                    step.input_and_parameters(pass, weights, gradients, dx);
                    done(Part::Data(plan, node));
                    continue;
                }
                if operation.weights {
                    step.weights(pass, gradients);
                    done(Part::Weights(plan, node));
                }
                for (index, dx) in dx.iter().enumerate() {
                    if let Some(dx) = dx {
                        step.input(pass, transposed, index, *dx);
                        done(Part::Data(plan, node));
                    }
                }
            }
        }
    }
}

/// The backward step of one node.
struct NodeStep<'a> {
    plan: &'a Plan,
    node: &'a Node,
    dy: Buffer,
    images: &'a [f32],
}

impl NodeStep<'_> {
    /// The tensors that are read, among them the first input of the node.
    fn tensors<'a>(&'a self, reader: Reader<'a>) -> (Tensors<'a>, &'a [f32]) {
        let tensors = self.plan.tensors(reader, self.images);
        (tensors, tensors.get(self.node.inputs[0]))
    }

    /// Gradients of weights and bias.
    fn weights(&self, pass: &mut BatchPass, gradients: &mut Weights) {
        let ctx = &*pass.base.ctx;
        let placement = &self.plan.placement;
        let (tensors, x) = self.tensors(pass.arena.read());
        let dy = tensors.get(self.dy);
        let layer = self.node.layer;
        match self.node.work {
            Work::Conv(conv) => {
                let shape = placement.conv_shape(self.node.inputs[0], &conv);
                let dw = &mut gradients.0[pass.table.weight(layer)];
                kernels::conv_backward_weights(ctx, &shape, x, dy, dw, false);
                if let Some(bias) = pass.table.bias(layer) {
                    batch_norm::sum_pixels(ctx, dy, &mut gradients.0[bias]);
                }
            }
            Work::Linear { .. } => {
                let inputs = placement.channels(self.node.inputs[0]);
                let outputs = placement.channels(self.node.output);
                let (dw, db) = weight_and_bias(&pass.table, gradients, layer);
                kernels::linear_backward_weights(
                    ctx,
                    placement.batch,
                    inputs,
                    outputs,
                    x,
                    dy,
                    dw,
                    db,
                    false,
                );
            }
            Work::Norm { .. }
            | Work::Relu
            | Work::MaxPool(_)
            | Work::AvgPool(_)
            | Work::AdaptiveMaxPool
            | Work::AdaptiveAvgPool
            | Work::Add
            | Work::Concat
            | Work::Mask { .. } => unreachable!("the table says it has no weights"),
        }
    }

    /// The gradient with respect to input number `index`.
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
        match self.node.work {
            Work::Conv(conv) => {
                let shape = placement.conv_shape(self.node.inputs[0], &conv);
                let packed = transposed[layer.0].as_ref().expect("every conv is packed");
                kernels::conv_backward_data(ctx, &shape, dy, packed, dx, accumulate);
            }
            Work::Linear { .. } => {
                let packed = pass.packed.linear(layer);
                kernels::linear_backward_data(ctx, placement.batch, dy, packed, dx, accumulate);
            }
            Work::Relu => {
                let y = tensors.get(self.node.output);
                elementwise::relu_backward(ctx, y, dy, accumulate, dx);
            }
            Work::MaxPool(_) | Work::AdaptiveMaxPool => {
                let argmax = pass.saved.argmax.as_ref();
                let argmax = &argmax.expect("training keeps it")[layer.0];
                let geometry = placement.pool(self.node);
                pool::max_pool_backward(ctx, geometry, dy, argmax, accumulate, dx);
            }
            Work::AvgPool(_) | Work::AdaptiveAvgPool => {
                let geometry = placement.pool(self.node);
                pool::average_pool_backward(ctx, geometry, dy, accumulate, dx);
            }
            Work::Concat => {
                let channels = |i: usize| placement.channels(self.node.inputs[i]);
                let first = (0..index).map(channels).sum();
                let all = placement.channels(self.node.output);
                let part = first..first + channels(index);
                elementwise::slice_channels(ctx, dy, all, part, accumulate, dx);
            }
            Work::Mask { site, .. } => {
                let masks = pass
                    .saved
                    .masks
                    .as_ref()
                    .expect("noise comes with its masks");
                masks.apply(site, dy, accumulate, dx);
            }
            Work::Norm { .. } | Work::Add => {
                unreachable!("the table says it is computed elsewhere")
            }
        }
    }

    /// The gradients of the input and of all parameters: those of a batch
    /// norm and the ReLU behind it.
    fn input_and_parameters(
        &self,
        pass: &mut BatchPass,
        weights: &Weights,
        gradients: &mut Weights,
        gradient: Gradient,
    ) {
        let Work::Norm { norm, relu, .. } = self.node.work else {
            unreachable!("the table has batch norms alone here");
        };
        let layer = self.node.layer;
        let place = self.plan.placement.place(gradient.buffer);
        let gamma = &weights.0[pass.table.weight(layer)];
        let beta = &weights.0[pass.table.bias(layer).expect("every norm has a shift")];
        let (dgamma, dbeta) = weight_and_bias(&pass.table, gradients, layer);
        let (reader, dx) = pass.arena.write(place);
        let (tensors, x) = self.tensors(reader);
        let seen = &pass.saved.norms[norm];
        batch_norm::batch_norm_backward(
            &pass.base.ctx,
            x,
            tensors.get(self.dy),
            gamma,
            beta,
            &seen.mean,
            &seen.inverse_std,
            relu,
            gradient.skip.map(|skip| tensors.get(skip)),
            dgamma,
            dbeta.expect("every norm has a shift"),
            dx,
        );
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
