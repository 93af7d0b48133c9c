//! The executor of forward passes, shared by inference, training and
//! calibration.

use sdpoint_core::LayerId;
use sdpoint_kernels as kernels;
use sdpoint_kernels::{
    Context, Epilogue, Residual, SecondOutput, elementwise, norm as batch_norm, pool,
};

use crate::arena::Arena;
use crate::fuse::{ConvStep, Step};
use crate::lower::{Mask, Node, NodeOp, Value};
use crate::packed::PackedLayers;
use crate::placement::{Placement, Tensors};

/// A batch norm folded into a scale and a shift for each channel.
#[derive(Clone, Debug)]
pub(crate) struct FoldedNorm {
    pub scale: Vec<f32>,
    pub shift: Vec<f32>,
}

impl FoldedNorm {
    pub fn zeros(channels: usize) -> Self {
        Self {
            scale: vec![0.0; channels],
            shift: vec![0.0; channels],
        }
    }
}

/// The parts of a forward pass that depend on where batch-norm statistics come
/// from: frozen ones, or those of the current batch.
pub(crate) trait ForwardMode {
    /// The bias of a convolution or linear layer that has one.
    fn bias(&self, layer: LayerId) -> Option<&[f32]>;

    /// Called with the input `x` of an unfused batch norm before it is
    /// normalised, to compute batch statistics.
    fn observe(&mut self, ctx: &Context, layer: LayerId, norm: usize, eps: f32, x: &[f32]);

    /// The scale and shift of a batch norm.
    fn norm(&self, norm: usize) -> &FoldedNorm;

    /// The buffer for the argmax of a max pool, if a backward pass follows.
    fn argmax(&mut self, layer: LayerId) -> Option<&mut Vec<u32>>;

    /// Draws a new mask for `site` and applies it to `x`, a tensor of `images`
    /// images.
    fn mask(&mut self, site: usize, mask: Mask, images: usize, x: &[f32], y: &mut [f32]);
}

/// Executes the steps of a plan.
pub(crate) struct Executor<'a, M> {
    pub ctx: &'a Context,
    pub packed: &'a PackedLayers,
    pub placement: &'a Placement,
    pub images: &'a [f32],
    pub arena: &'a mut Arena,
    pub mode: M,
}

impl<M: ForwardMode> Executor<'_, M> {
    /// Executes one step and writes its output into the arena.
    pub fn step(&mut self, step: &Step) {
        match step {
            Step::Conv(conv) => self.conv(conv),
            Step::Node(node) => self.node(node),
        }
    }

    fn conv(&mut self, step: &ConvStep) {
        let placement = self.placement;
        let place = |value: Value| placement.place(value);
        let end = place(step.output).end;
        let second_place = (step.epilogue.second).map_or(end..end, |second| place(second.output));
        let (reader, y, z) = self.arena.write_two(place(step.output), second_place);
        let tensors = Tensors {
            placement,
            reader,
            images: self.images,
        };
        let mode = &self.mode;
        let folded = step.epilogue.norm.map(|norm| mode.norm(norm));
        let shift = folded.map(|folded| folded.shift.as_slice());
        let epilogue = Epilogue {
            scale: folded.map(|folded| folded.scale.as_slice()),
            shift: shift.or_else(|| mode.bias(step.layer)),
            residual: step.epilogue.residual.map(|value| {
                if place(value) == place(step.output) {
                    Residual::Output
                } else {
                    Residual::Tensor(tensors.get(value))
                }
            }),
            activation: step.epilogue.activation,
            second: step.epilogue.second.map(|second| {
                let folded = mode.norm(second.norm);
                SecondOutput {
                    scale: &folded.scale,
                    shift: &folded.shift,
                    activation: second.activation,
                    out: z,
                }
            }),
        };
        let shape = placement.conv_shape(step.input, &step.conv);
        let packed = self.packed.conv(step.layer);
        kernels::conv_forward(
            self.ctx,
            &shape,
            tensors.get(step.input),
            packed,
            epilogue,
            y,
        );
    }

    /// Executes one node without fusion.
    pub fn node(&mut self, node: &Node) {
        let (ctx, placement) = (self.ctx, self.placement);
        if let NodeOp::Conv(conv) = node.op {
            return self.conv(&ConvStep::unfused(node, conv));
        }
        let (reader, y) = self.arena.write(placement.place(node.output));
        let tensors = Tensors {
            placement,
            reader,
            images: self.images,
        };
        let x = tensors.get(node.inputs[0]);
        match node.op {
            NodeOp::Conv(_) => unreachable!("handled above"),
            NodeOp::Norm {
                norm,
                eps,
                activation,
            } => {
                self.mode.observe(ctx, node.layer, norm, eps, x);
                let FoldedNorm { scale, shift } = self.mode.norm(norm);
                batch_norm::scale_shift(ctx, x, scale, shift, activation, y);
            }
            NodeOp::Activation(activation) => elementwise::activate(ctx, activation, x, y),
            NodeOp::MaxPool(_) | NodeOp::AdaptiveMaxPool => {
                let geometry = placement.pool(node);
                match self.mode.argmax(node.layer) {
                    None => pool::max_pool(ctx, geometry, x, y),
                    Some(argmax) => {
                        argmax.resize(y.len(), 0);
                        pool::max_pool_with_indices(ctx, geometry, x, y, argmax);
                    }
                }
            }
            NodeOp::AvgPool(_) | NodeOp::AdaptiveAvgPool => {
                pool::average_pool(ctx, placement.pool(node), x, y);
            }
            NodeOp::Linear { .. } => {
                let packed = self.packed.linear(node.layer);
                let bias = self.mode.bias(node.layer);
                kernels::linear_forward(ctx, placement.batch, x, packed, bias, y);
            }
            NodeOp::Add => elementwise::add(ctx, x, tensors.get(node.inputs[1]), y),
            NodeOp::Concat => {
                let inputs = node.inputs.iter();
                let inputs: Vec<(&[f32], usize)> = inputs
                    .map(|&input| (tensors.get(input), placement.channels(input)))
                    .collect();
                elementwise::concat_channels(ctx, &inputs, y);
            }
            NodeOp::Mask { site, mask } => self.mode.mask(site, mask, placement.batch, x, y),
        }
    }
}
