//! The sizes of the implicit GEMMs that compute a forward pass or a backward pass to data.
//!
//! A forward pass is one GEMM. A backward pass to data with stride s × s is s² of them, one per
//! phase. The gradient of input row `i` is the sum over those kernel rows `k` for which
//! `i + padding - k` is divisible by the stride: row `(i + padding - k) / stride` of the output
//! gradient times row `k` of the weights. All inputs with the same remainder of `i + padding`
//! (a phase) use the same kernel rows, so their gradients are a stride-1 convolution of the
//! output gradient with these rows, flipped. Unlike a convolution of the dilated output gradient,
//! this multiplies no inserted zeros.

use super::gather::{ConvWindow, Strip};
use super::geometry::{ConvGeometry, ConvShape, Flattened};

/// A grid of outputs to compute for each image: the M dimension of an implicit GEMM, and which
/// inputs each output reads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Problem {
    pub window: ConvWindow,
    /// Whether each output reads exactly one input pixel: a 1×1 kernel without padding.
    pub pointwise: bool,
    /// Images, or 1 if all images are concatenated into one row.
    pub batch: usize,
    /// Images concatenated into the grid's only row; 1 if they are separate.
    pub images_per_row: usize,
    /// Rows and columns of the grid.
    pub grid: [usize; 2],
    /// Where the outputs are stored.
    pub output: OutputLayout,
}

/// Offset of a grid's first output in the output tensor, and the strides between images, rows and
/// pixels, in floats.
#[derive(Clone, Copy, Debug)]
pub(super) struct OutputLayout {
    pub offset: usize,
    pub image: usize,
    pub row: usize,
    pub pixel: usize,
}

impl OutputLayout {
    /// The offset of a strip's first output.
    #[inline(always)]
    pub fn of(&self, strip: &Strip) -> usize {
        self.at([strip.image, strip.rows[0], strip.columns[0]])
    }

    /// The offset of the output at an image, row and column.
    #[inline(always)]
    pub fn at(&self, [image, row, column]: [usize; 3]) -> usize {
        self.offset + image * self.image + row * self.row + column * self.pixel
    }
}

impl Problem {
    /// The GEMM of a forward pass.
    pub fn forward(shape: &ConvShape) -> Self {
        let geometry = &shape.geometry;
        let Flattened {
            batch,
            images_per_row,
            output: grid,
            ..
        } = shape.flattened();
        let channels = geometry.out_channels;
        Problem {
            window: geometry.window(),
            pointwise: geometry.is_pointwise(),
            batch,
            images_per_row,
            grid,
            output: OutputLayout {
                offset: 0,
                image: grid[0] * grid[1] * channels,
                row: grid[1] * channels,
                pixel: channels,
            },
        }
    }

    /// Whether the grid has no outputs.
    pub fn is_empty(&self) -> bool {
        self.batch == 0 || self.grid.contains(&0)
    }

    /// Whether the last output of a row is followed in memory by the first of the next row.
    pub fn rows_are_adjacent(&self) -> bool {
        self.grid[0] == 1 || self.output.row == self.grid[1] * self.output.pixel
    }
}

/// One of the GEMMs of a backward pass to data: for the inputs whose position plus padding has one
/// remainder modulo the stride.
#[derive(Clone, Copy, Debug)]
pub(super) struct Phase {
    pub remainder: [usize; 2],
    /// Numbers of kernel rows and columns that these inputs use. If one is 0, the gradients are
    /// zero.
    pub kernel: [usize; 2],
}

impl Phase {
    /// The phases of a convolution.
    pub fn all(geometry: &ConvGeometry) -> impl Iterator<Item = Phase> {
        let ConvGeometry { kernel, stride, .. } = *geometry;
        let remainders = (0..stride[0]).flat_map(move |y| (0..stride[1]).map(move |x| [y, x]));
        remainders.map(move |remainder| Phase {
            remainder,
            kernel: [0, 1].map(|axis| {
                kernel[axis]
                    .saturating_sub(remainder[axis])
                    .div_ceil(stride[axis])
            }),
        })
    }

    pub fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Row and column of the first input of the phase.
    fn first(&self, geometry: &ConvGeometry) -> [usize; 2] {
        [0, 1].map(|axis| {
            let (stride, padding) = (geometry.stride[axis], geometry.padding[axis]);
            (self.remainder[axis] + stride * padding - padding) % stride
        })
    }

    /// Which output gradients each input gradient reads.
    pub fn window(&self, geometry: &ConvGeometry) -> ConvWindow {
        let first = self.first(geometry);
        ConvWindow {
            kernel: self.kernel,
            stride: [1, 1],
            // The position of the flipped kernel's first tap for the first input.
            origin: [0, 1].map(|axis| {
                let last = (first[axis] + geometry.padding[axis]) / geometry.stride[axis];
                last as isize - (self.kernel[axis] as isize - 1)
            }),
            unrolled: None,
        }
    }

    /// The GEMM of this phase for a shape. The phase must have taps.
    pub fn problem(&self, shape: &ConvShape) -> Problem {
        let geometry = &shape.geometry;
        let Flattened {
            batch,
            images_per_row,
            input: size,
            ..
        } = shape.flattened();
        let first = self.first(geometry);
        let stride = geometry.stride;
        let channels = geometry.in_channels;
        Problem {
            window: self.window(geometry),
            pointwise: geometry.is_pointwise(),
            batch,
            images_per_row,
            grid: [0, 1].map(|axis| {
                let left = size[axis].saturating_sub(first[axis]);
                left.div_ceil(stride[axis])
            }),
            output: OutputLayout {
                offset: (first[0] * size[1] + first[1]) * channels,
                image: size[0] * size[1] * channels,
                row: stride[0] * size[1] * channels,
                pixel: stride[1] * channels,
            },
        }
    }
}
