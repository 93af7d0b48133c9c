//! The backward pass to data.
//!
//! The gradient of input row `i` is the sum over kernel rows `k` with `i + padding - k`
//! divisible by the stride of output gradient row `(i + padding - k) / stride` times weights
//! row `k`. For a fixed remainder of `i + padding` the same kernel rows meet, and the rows
//! with that remainder are a stride-1 convolution of the output gradient with them, flipped.
//! So a stride of s × s makes s² convolutions, one for each phase, and no multiplication by
//! zeros that a dilated gradient would have.

use super::assert_len;
use super::epilogue::Finish;
use super::gather::{Source, Window};
use super::geometry::{ConvGeometry, ConvShape, Flattened};
use super::grouped::Merged;
use super::pack::{Kernels, PackedWeights};
use super::product::{OutputLayout, Product};
use crate::context::Context;
use crate::shared_mut::SharedMut;

/// A convolution's weights, laid out for [`conv_backward_data`] on one instruction set.
#[derive(Clone, Debug)]
pub struct PackedConvTranspose {
    geometry: ConvGeometry,
    phases: Vec<Phase>,
}

/// The inputs whose position plus padding has one remainder modulo the stride.
#[derive(Clone, Debug)]
struct Phase {
    remainder: [usize; 2],
    /// Kernel rows and columns that meet these inputs.
    kernel: [usize; 2],
    /// None where no tap does: these inputs' gradients are zero.
    weights: Option<PackedWeights>,
}

impl PackedConvTranspose {
    /// Packs `weights`, in the order output channel, input channel, row, column.
    pub fn new(ctx: &Context, geometry: ConvGeometry, weights: &[f32]) -> Self {
        geometry.assert_valid();
        let merged = Merged::new(&geometry);
        let [sy, sx] = geometry.stride;
        let phases = (0..sy)
            .flat_map(|y| (0..sx).map(move |x| [y, x]))
            .map(|remainder| {
                let kernel = [0, 1].map(|axis| {
                    geometry.kernel[axis]
                        .saturating_sub(remainder[axis])
                        .div_ceil(geometry.stride[axis])
                });
                let taps = kernel[0] * kernel[1];
                let weights = (taps > 0).then(|| {
                    PackedWeights::zeros(
                        ctx,
                        merged.backward_layout(ctx, taps),
                        &geometry,
                        kernel,
                        [1, 1],
                    )
                });
                Phase {
                    remainder,
                    kernel,
                    weights,
                }
            });
        let mut packed = PackedConvTranspose {
            geometry,
            phases: phases.collect(),
        };
        packed.repack(ctx, weights);
        packed
    }

    /// Replaces the weights without allocating.
    pub fn repack(&mut self, ctx: &Context, weights: &[f32]) {
        let geometry = &self.geometry;
        assert_len("weights", weights.len(), geometry.weight_len());
        let merged = Merged::new(geometry);
        for phase in &mut self.phases {
            let Phase {
                remainder,
                kernel,
                weights: packed,
            } = phase;
            let Some(packed) = packed else { continue };
            let taps: Vec<usize> = (0..kernel[0] * kernel[1])
                .map(|tap| {
                    let [ky, kx] = [tap / kernel[1], tap % kernel[1]];
                    let ky = remainder[0] + geometry.stride[0] * (kernel[0] - 1 - ky);
                    let kx = remainder[1] + geometry.stride[1] * (kernel[1] - 1 - kx);
                    ky * geometry.kernel[1] + kx
                })
                .collect();
            let place = |input: usize, output: usize| {
                let group = input / merged.group_in;
                let output = group * merged.group_out + output;
                let kernel = merged.kernel_index(output, input % merged.group_in)?;
                Some(kernel * geometry.taps())
            };
            packed.fill(
                ctx,
                &Kernels {
                    weights,
                    taps: &taps,
                    place,
                },
            );
        }
    }

    /// The convolution whose data gradient this serves.
    pub fn geometry(&self) -> &ConvGeometry {
        &self.geometry
    }

    /// Memory that the packed weights take.
    pub fn bytes(&self) -> usize {
        self.phases
            .iter()
            .flat_map(|phase| &phase.weights)
            .map(PackedWeights::bytes)
            .sum()
    }
}

/// The gradient `dx` with respect to the input, from the gradient `dy` with respect to the
/// output; added to what `dx` holds if `accumulate`.
///
/// # Panics
///
/// If a length does not fit `shape`, or `w` is of another geometry or instruction set.
pub fn conv_backward_data(
    ctx: &Context,
    shape: &ConvShape,
    dy: &[f32],
    w: &PackedConvTranspose,
    dx: &mut [f32],
    accumulate: bool,
) {
    let geometry = &shape.geometry;
    assert_eq!(
        *geometry, w.geometry,
        "weights packed for another convolution"
    );
    assert_len("output gradient", dy.len(), shape.output_len());
    assert_len("input gradient", dx.len(), shape.input_len());
    if !accumulate && w.phases.iter().any(|phase| phase.weights.is_none()) || dy.is_empty() {
        ctx.parallel_chunks(dx, 1 << 16, |_, chunk| chunk.fill(0.0));
    }
    if dy.is_empty() {
        return;
    }
    let Flattened {
        batch,
        joined,
        input: size,
        output: out_size,
    } = shape.flattened();
    let output = SharedMut::new(dx);
    for phase in &w.phases {
        let Some(weights) = &phase.weights else {
            continue;
        };
        weights.assert_packed_for(ctx);
        // The first input with this remainder, how many there are, and the output gradient
        // that the flipped kernel's first tap meets there.
        let first = [0, 1].map(|axis| {
            let (stride, padding) = (geometry.stride[axis], geometry.padding[axis]);
            (phase.remainder[axis] + stride * padding - padding) % stride
        });
        let grid = [0, 1].map(|axis| {
            size[axis]
                .saturating_sub(first[axis])
                .div_ceil(geometry.stride[axis])
        });
        let origin = [0, 1].map(|axis| {
            let q = (first[axis] + geometry.padding[axis]) / geometry.stride[axis];
            q as isize - (phase.kernel[axis] as isize - 1)
        });
        let channels = geometry.in_channels;
        Product {
            source: Source {
                data: dy,
                height: out_size[0],
                width: out_size[1],
                channels: geometry.out_channels,
            },
            window: Window {
                kernel: phase.kernel,
                stride: [1, 1],
                origin,
                unrolled: None,
            },
            weights,
            batch,
            joined,
            grid,
            output,
            layout: OutputLayout {
                offset: (first[0] * size[1] + first[1]) * channels,
                image: size[0] * size[1] * channels,
                row: geometry.stride[0] * size[1] * channels,
                pixel: geometry.stride[1] * channels,
            },
            accumulate,
            finish: Finish::default(),
        }
        .run(ctx);
    }
}
