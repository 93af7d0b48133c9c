//! The one executor of forward passes: inference, training and calibration
//! run their steps here, so that what was trained is what runs.

use sdpoint_core::LayerId;
use sdpoint_kernels as kernels;
use sdpoint_kernels::{Context, Epilogue, Residual, Second, elementwise, norm as batch_norm, pool};

use crate::arena::Arena;
use crate::fuse::{ConvStep, Step};
use crate::lower::{Mask, Node, Value, Work};
use crate::packed::PackedLayers;
use crate::placement::{Placement, Tensors};

/// Batch norm as scale and shift of each channel.
#[derive(Clone, Debug)]
pub(crate) struct Folded {
    pub scale: Vec<f32>,
    pub shift: Vec<f32>,
}

impl Folded {
    pub fn zeros(channels: usize) -> Self {
        Self {
            scale: vec![0.0; channels],
            shift: vec![0.0; channels],
        }
    }
}

/// What tells a pass with frozen statistics from one with those of the batch.
pub(crate) trait Mode {
    /// The bias of a convolution or linear layer that has one.
    fn bias(&self, layer: LayerId) -> Option<&[f32]>;

    /// Sees the input of a batch norm that is a step of its own, before it
    /// is normalised.
    fn observe(&mut self, ctx: &Context, layer: LayerId, norm: usize, eps: f32, x: &[f32]);

    /// What a batch norm does.
    fn norm(&self, norm: usize) -> &Folded;

    /// Where a max pool notes the place of each window's largest input, if
    /// a backward pass follows.
    fn argmax(&mut self, layer: LayerId) -> Option<&mut Vec<u32>>;

    /// Applies the noise of a site, newly drawn, to a tensor of `images` images.
    fn mask(&mut self, site: usize, mask: Mask, images: usize, x: &[f32], y: &mut [f32]);
}

/// Runs steps of a plan.
pub(crate) struct Executor<'a, M> {
    pub ctx: &'a Context,
    pub packed: &'a PackedLayers,
    pub placement: &'a Placement,
    pub images: &'a [f32],
    pub arena: &'a mut Arena,
    pub mode: M,
}

impl<M: Mode> Executor<'_, M> {
    /// Runs one step; its output is in the arena then.
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
            relu: step.epilogue.relu,
            second: step.epilogue.second.map(|second| {
                let folded = mode.norm(second.norm);
                Second {
                    scale: &folded.scale,
                    shift: &folded.shift,
                    relu: second.relu,
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

    /// Runs one node, unfused.
    pub fn node(&mut self, node: &Node) {
        let (ctx, placement) = (self.ctx, self.placement);
        if let Work::Conv(conv) = node.work {
            return self.conv(&ConvStep::alone(node, conv));
        }
        let (reader, y) = self.arena.write(placement.place(node.output));
        let tensors = Tensors {
            placement,
            reader,
            images: self.images,
        };
        let x = tensors.get(node.inputs[0]);
        match node.work {
            Work::Conv(_) => unreachable!("done above"),
            Work::Norm { norm, eps, relu } => {
                self.mode.observe(ctx, node.layer, norm, eps, x);
                let Folded { scale, shift } = self.mode.norm(norm);
                batch_norm::scale_shift(ctx, x, scale, shift, None, relu, y);
            }
            Work::Relu => elementwise::relu(ctx, x, y),
            Work::MaxPool(_) | Work::AdaptiveMaxPool => {
                let geometry = placement.pool(node);
                match self.mode.argmax(node.layer) {
                    None => pool::max_pool(ctx, geometry, x, y),
                    Some(argmax) => {
                        argmax.resize(y.len(), 0);
                        pool::max_pool_with_indices(ctx, geometry, x, y, argmax);
                    }
                }
            }
            Work::AvgPool(_) | Work::AdaptiveAvgPool => {
                pool::average_pool(ctx, placement.pool(node), x, y);
            }
            Work::Linear { .. } => {
                let packed = self.packed.linear(node.layer);
                let bias = self.mode.bias(node.layer);
                kernels::linear_forward(ctx, placement.batch, x, packed, bias, y);
            }
            Work::Add => elementwise::add(ctx, x, tensors.get(node.inputs[1]), y),
            Work::Concat => {
                let inputs = node.inputs.iter();
                let inputs: Vec<(&[f32], usize)> = inputs
                    .map(|&input| (tensors.get(input), placement.channels(input)))
                    .collect();
                elementwise::concat_channels(ctx, &inputs, false, y);
            }
            Work::Mask { site, mask } => self.mode.mask(site, mask, placement.batch, x, y),
        }
    }
}
