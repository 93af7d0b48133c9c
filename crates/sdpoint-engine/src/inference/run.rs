//! Carries out a plan's kernel calls.

use sdpoint_kernels as kernels;
use sdpoint_kernels::{Epilogue, Residual, Second, elementwise, norm as batch_norm, pool};

use super::fuse::{Joined, Step};
use super::plan::Plan;
use super::{FoldedNorms, InferenceEngine};
use crate::arena::{Arena, Reader};
use crate::lower::{Node, Value, Work};

impl InferenceEngine {
    /// Carries out one step of a plan.
    pub(super) fn step(
        &self,
        plan: &Plan,
        step: &Step,
        arena: &mut Arena,
        images: &[f32],
        norms: FoldedNorms<'_>,
    ) {
        match step {
            Step::Conv { .. } => self.conv(plan, step, arena, images, norms),
            Step::Node(node) => self.node(plan, node, arena, images, norms),
        }
    }

    fn conv(
        &self,
        plan: &Plan,
        step: &Step,
        arena: &mut Arena,
        images: &[f32],
        norms: FoldedNorms<'_>,
    ) {
        let Step::Conv {
            conv,
            layer,
            input,
            output,
            joined,
        } = step
        else {
            unreachable!("called for convolutions");
        };
        let Joined {
            norm,
            residual,
            relu,
            second,
        } = joined;
        let place = |value: Value| plan.layout.place(value.0);
        let end = place(*output).end;
        let second_place = second.map_or(end..end, |second| place(second.output));
        let (reader, y, z) = arena.write_two(place(*output), second_place);
        let tensors = Tensors {
            plan,
            reader,
            images,
        };
        let shape = plan.lowered.conv_shape(*input, conv, plan.batch);
        let folded = norm.map(|norm| norms.get(norm));
        let bias = self.biases[layer.0].as_deref();
        let epilogue = Epilogue {
            scale: folded.map(|folded| folded.scale.as_slice()),
            shift: folded.map(|folded| folded.shift.as_slice()).or(bias),
            residual: residual.map(|value| {
                if place(value) == place(*output) {
                    Residual::Output
                } else {
                    Residual::Tensor(tensors.get(value))
                }
            }),
            relu: *relu,
            second: second.map(|second| {
                let folded = norms.get(second.norm);
                Second {
                    scale: &folded.scale,
                    shift: &folded.shift,
                    relu: second.relu,
                    out: z,
                }
            }),
        };
        let packed = self.convs[layer.0].as_ref().expect("every conv is packed");
        let x = tensors.get(*input);
        kernels::conv_forward(&self.base.ctx, &shape, x, packed, epilogue, y);
    }

    fn node(
        &self,
        plan: &Plan,
        node: &Node,
        arena: &mut Arena,
        images: &[f32],
        norms: FoldedNorms<'_>,
    ) {
        let ctx = &*self.base.ctx;
        let (reader, y) = arena.write(plan.layout.place(node.output.0));
        let tensors = Tensors {
            plan,
            reader,
            images,
        };
        let x = tensors.get(node.inputs[0]);
        match node.work {
            Work::Conv(_) => unreachable!("convolutions have a step of their own"),
            Work::Mask { .. } => unreachable!("noise is training's alone"),
            Work::Norm { norm, relu, .. } => {
                let folded = norms.get(norm);
                batch_norm::scale_shift(ctx, x, &folded.scale, &folded.shift, None, relu, y);
            }
            Work::Relu => elementwise::relu(ctx, x, y),
            Work::MaxPool(_) | Work::AdaptiveMaxPool => {
                pool::max_pool(ctx, plan.pool(node), x, y);
            }
            Work::AvgPool(_) | Work::AdaptiveAvgPool => {
                pool::average_pool(ctx, plan.pool(node), x, y);
            }
            Work::Linear { .. } => {
                let layer = node.layer.0;
                let packed = self.linears[layer].as_ref().expect("linears are packed");
                let bias = self.biases[layer].as_deref();
                kernels::linear_forward(ctx, plan.batch, x, packed, bias, y);
            }
            Work::Add => elementwise::add(ctx, x, tensors.get(node.inputs[1]), y),
            Work::Concat => {
                let channels = |value: Value| plan.lowered.shapes[value.0].channels;
                let inputs: Vec<(&[f32], usize)> = node
                    .inputs
                    .iter()
                    .map(|&value| (tensors.get(value), channels(value)))
                    .collect();
                elementwise::concat_channels(ctx, &inputs, false, y);
            }
        }
    }
}

/// The tensors of a step that are being read.
struct Tensors<'a> {
    plan: &'a Plan,
    reader: Reader<'a>,
    images: &'a [f32],
}

impl<'a> Tensors<'a> {
    fn get(&self, value: Value) -> &'a [f32] {
        if value == self.plan.lowered.input {
            self.images
        } else {
            self.reader.get(self.plan.layout.place(value.0))
        }
    }
}
