//! The backward pass: gradients of all parameters.

use sdpoint_core::{LayerId, Weights};
use sdpoint_kernels as kernels;
use sdpoint_kernels::{PackedConvTranspose, elementwise, norm as batch_norm, pool};

use super::forward::{BatchPass, Tensors};
use super::plan::{Backward, Buffer, Gradient, Plan};
use super::timed::Part;
use crate::lower::{Node, Work};
use crate::parameters::ParameterTable;

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
                let (reader, out) = pass.arena.write(plan.layout.place(out.0));
                let tensors = Tensors::new(plan, reader, images);
                elementwise::add(&pass.base.ctx, tensors.get(*a), tensors.get(*b), out);
                done(Part::Sum);
            }
            Backward::Accumulate { from, into } => {
                let (reader, into) = pass.arena.write(plan.layout.place(into.0));
                let tensors = Tensors::new(plan, reader, images);
                elementwise::accumulate(&pass.base.ctx, tensors.get(*from), into);
                done(Part::Sum);
            }
            Backward::Node { node, dy, dx } => {
                let node = &plan.lowered.nodes[*node];
                let step = NodeStep {
                    plan,
                    node,
                    dy: *dy,
                    images,
                };
                if let Work::Norm { norm, relu, .. } = node.work {
                    let dx = dx[0].expect("batch norm always gives its input's gradient");
                    step.norm(pass, weights, gradients, norm, relu, dx);
                    done(Part::Data(plan, node));
                    continue;
                }
                if matches!(node.work, Work::Conv(_) | Work::Linear { .. }) {
                    step.parameters(pass, gradients);
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
    fn x(&self) -> Buffer {
        Buffer::of(self.node.inputs[0])
    }

    /// Gradients of a convolution's or a linear layer's weights and bias.
    fn parameters(&self, pass: &mut BatchPass, gradients: &mut Weights) {
        let ctx = &*pass.base.ctx;
        let tensors = Tensors::new(self.plan, pass.arena.read(), self.images);
        let layer = self.node.layer;
        match self.node.work {
            Work::Conv(conv) => {
                let shape =
                    self.plan
                        .lowered
                        .conv_shape(self.node.inputs[0], &conv, self.plan.batch);
                let (x, dy) = (tensors.get(self.x()), tensors.get(self.dy));
                let dw = &mut gradients.0[pass.table.weight(layer)];
                kernels::conv_backward_weights(ctx, &shape, x, dy, dw, false);
                if let Some(bias) = pass.table.bias(layer) {
                    batch_norm::sum_pixels(ctx, dy, &mut gradients.0[bias]);
                }
            }
            Work::Linear { .. } => {
                let inputs = self.plan.lowered.shapes[self.node.inputs[0].0].channels;
                let outputs = self.plan.lowered.shapes[self.node.output.0].channels;
                let (x, dy) = (tensors.get(self.x()), tensors.get(self.dy));
                let (dw, db) = weight_and_bias(&pass.table, gradients, layer);
                kernels::linear_backward_weights(
                    ctx,
                    self.plan.batch,
                    inputs,
                    outputs,
                    x,
                    dy,
                    dw,
                    db,
                    false,
                );
            }
            _ => {}
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
        let place = self.plan.layout.place(gradient.buffer.0);
        let (reader, dx) = pass.arena.write(place);
        let tensors = Tensors::new(self.plan, reader, self.images);
        let dy = tensors.get(self.dy);
        let layer = self.node.layer.0;
        let batch = self.plan.batch;
        match self.node.work {
            Work::Conv(conv) => {
                let shape = self
                    .plan
                    .lowered
                    .conv_shape(self.node.inputs[0], &conv, batch);
                let packed = transposed[layer].as_ref().expect("every conv is packed");
                kernels::conv_backward_data(ctx, &shape, dy, packed, dx, accumulate);
            }
            Work::Linear { .. } => {
                let packed = pass.linears[layer]
                    .as_ref()
                    .expect("every linear is packed");
                kernels::linear_backward_data(ctx, batch, dy, packed, dx, accumulate);
            }
            Work::Relu => {
                let y = tensors.get(Buffer::of(self.node.output));
                elementwise::relu_backward(ctx, y, dy, accumulate, dx);
            }
            Work::MaxPool(_) | Work::AdaptiveMaxPool => {
                let geometry = self.plan.pool(self.node);
                let winners = &pass.winners[layer];
                pool::max_pool_backward(ctx, geometry, dy, winners, accumulate, dx);
            }
            Work::AvgPool(_) | Work::AdaptiveAvgPool => {
                let geometry = self.plan.pool(self.node);
                pool::average_pool_backward(ctx, geometry, dy, accumulate, dx);
            }
            Work::Concat => {
                let channels = |i: usize| self.plan.lowered.shapes[self.node.inputs[i].0].channels;
                let first = (0..index).map(channels).sum();
                let all = self.plan.lowered.shapes[self.node.output.0].channels;
                let part = first..first + channels(index);
                elementwise::slice_channels(ctx, dy, all, part, accumulate, dx);
            }
            Work::Mask { site, .. } => {
                let masks = pass.masks.as_ref().expect("noise comes with its masks");
                masks.apply(site, dy, accumulate, dx);
            }
            Work::Norm { .. } | Work::Add => unreachable!("planned on their own"),
        }
    }

    /// All gradients of a batch norm and the ReLU behind it.
    fn norm(
        &self,
        pass: &mut BatchPass,
        weights: &Weights,
        gradients: &mut Weights,
        norm: usize,
        relu: bool,
        gradient: Gradient,
    ) {
        let layer = self.node.layer;
        let place = self.plan.layout.place(gradient.buffer.0);
        let gamma = &weights.0[pass.table.weight(layer)];
        let beta = &weights.0[pass.table.bias(layer).expect("every norm has a shift")];
        let (dgamma, dbeta) = weight_and_bias(&pass.table, gradients, layer);
        let (reader, dx) = pass.arena.write(place);
        let tensors = Tensors::new(self.plan, reader, self.images);
        let seen = &pass.norms[norm];
        batch_norm::batch_norm_backward(
            &pass.base.ctx,
            tensors.get(self.x()),
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
