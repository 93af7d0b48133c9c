//! The products that the passes of a convolution consist of, as sizes alone.
//!
//! A forward pass is one product. A backward pass to data is several where the stride is not 1:
//! the gradient of input row `i` is the sum over kernel rows `k` with `i + padding - k` divisible
//! by the stride of row `(i + padding - k) / stride` of the output gradient times row `k` of the
//! weights. All inputs with the same remainder of `i + padding` use the same kernel rows, and are
//! a stride-1 convolution of the output gradient with these rows, flipped. So a stride of s × s
//! makes s² convolutions, called phases, and no multiplication by the zeros that a dilated
//! gradient would have.

use super::gather::{Band, Window};
use super::geometry::{ConvGeometry, ConvShape, Flattened};

/// A grid of outputs to compute for each image.
#[derive(Clone, Copy, Debug)]
pub(super) struct Problem {
    pub window: Window,
    /// Whether the convolution is pointwise: each output sees one pixel, which exists.
    pub pointwise: bool,
    pub batch: usize,
    /// Images that the grid's one row runs through, side by side; otherwise 1.
    pub joined: usize,
    /// Rows and columns of the grid.
    pub grid: [usize; 2],
    /// Where the outputs are stored.
    pub output: OutputLayout,
}

/// Where a grid's outputs lie in the output tensor, in floats.
#[derive(Clone, Copy, Debug)]
pub(super) struct OutputLayout {
    pub offset: usize,
    pub image: usize,
    pub row: usize,
    pub pixel: usize,
}

impl OutputLayout {
    /// Where a band's first output is.
    #[inline(always)]
    pub fn of(&self, band: &Band) -> usize {
        self.at([band.image, band.rows[0], band.columns[0]])
    }

    /// Where the output at an image's row and column is.
    #[inline(always)]
    pub fn at(&self, [image, row, column]: [usize; 3]) -> usize {
        self.offset + image * self.image + row * self.row + column * self.pixel
    }
}

impl Problem {
    /// The product that a forward pass is.
    pub fn forward(shape: &ConvShape) -> Self {
        let geometry = &shape.geometry;
        let Flattened {
            batch,
            joined,
            output: grid,
            ..
        } = shape.flattened();
        let channels = geometry.out_channels;
        Problem {
            window: geometry.window(),
            pointwise: geometry.is_pointwise(),
            batch,
            joined,
            grid,
            output: OutputLayout {
                offset: 0,
                image: grid[0] * grid[1] * channels,
                row: grid[1] * channels,
                pixel: channels,
            },
        }
    }

    /// Whether there is nothing to compute.
    pub fn is_empty(&self) -> bool {
        self.batch == 0 || self.grid.contains(&0)
    }

    /// Whether the last output of a row and the first of the next are neighbours.
    pub fn rows_are_adjacent(&self) -> bool {
        self.grid[0] == 1 || self.output.row == self.grid[1] * self.output.pixel
    }
}

/// One of the products of a backward pass to data: that for the inputs whose position plus
/// padding has one remainder modulo the stride.
#[derive(Clone, Copy, Debug)]
pub(super) struct Phase {
    pub remainder: [usize; 2],
    /// Kernel rows and columns that these inputs use; with none of them, the gradients are zero.
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

    /// The first input that has this remainder.
    fn first(&self, geometry: &ConvGeometry) -> [usize; 2] {
        [0, 1].map(|axis| {
            let (stride, padding) = (geometry.stride[axis], geometry.padding[axis]);
            (self.remainder[axis] + stride * padding - padding) % stride
        })
    }

    /// How the inputs' gradients look at the output gradient.
    pub fn window(&self, geometry: &ConvGeometry) -> Window {
        let first = self.first(geometry);
        Window {
            kernel: self.kernel,
            stride: [1, 1],
            // Where the flipped kernel's first tap is for the first input.
            origin: [0, 1].map(|axis| {
                let last = (first[axis] + geometry.padding[axis]) / geometry.stride[axis];
                last as isize - (self.kernel[axis] as isize - 1)
            }),
            unrolled: None,
        }
    }

    /// The product for a shape; the phase must have taps.
    pub fn problem(&self, shape: &ConvShape) -> Problem {
        let geometry = &shape.geometry;
        let Flattened {
            batch,
            joined,
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
            joined,
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
