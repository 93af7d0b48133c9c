//! The parameters of a convolution, and the sizes that follow for an input.

use super::gather::{BLOCK, ConvWindow};
use super::tuning;

/// A convolution without its weights and without an input size; pairs are height first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvGeometry {
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Vertical and horizontal stride, in input pixels.
    pub stride: [usize; 2],
    /// Zeros added above and below, and left and right.
    pub padding: [usize; 2],
    /// Number of groups: input and output channels are divided into as many equal ranges, and each
    /// range of output channels depends on its own range of input channels only.
    pub groups: usize,
}

impl ConvGeometry {
    /// Number of weights, `[out_channels, in_channels / groups, kernel height, kernel width]`.
    pub fn weight_len(&self) -> usize {
        self.out_channels * self.group_in_channels() * self.taps()
    }

    /// Input channels of a group.
    pub(crate) fn group_in_channels(&self) -> usize {
        self.in_channels / self.groups
    }

    /// Output channels of a group.
    pub(crate) fn group_out_channels(&self) -> usize {
        self.out_channels / self.groups
    }

    /// Whether output channel i depends on input channel i only.
    pub(crate) fn is_depthwise(&self) -> bool {
        self.groups > 1 && self.in_channels == self.groups && self.out_channels == self.groups
    }

    /// The channels per group, if vectors can span several groups: 1 for a depth-wise convolution;
    /// otherwise 2, 4 or 8, equal for input and output, with whole blocks of [`BLOCK`] channels.
    pub(super) fn group_width(&self) -> Option<usize> {
        if self.is_depthwise() {
            return Some(1);
        }
        let width = self.group_in_channels();
        let fits = self.groups > 1
            && width == self.group_out_channels()
            && self.out_channels.is_multiple_of(BLOCK);
        (fits && [2, 4, 8].contains(&width)).then_some(width)
    }

    /// Whether there are so few channels that kernel columns are treated as channels, as im2col
    /// does: see [`ConvWindow::unrolled`].
    pub(crate) fn unrolls(&self) -> bool {
        self.groups == 1 && self.in_channels <= tuning::UNROLLED_CHANNELS && self.kernel[1] > 1
    }

    /// Which inputs each output reads.
    pub(super) fn window(&self) -> ConvWindow {
        ConvWindow {
            kernel: self.kernel,
            stride: self.stride,
            origin: self.padding.map(|p| -(p as isize)),
            unrolled: self.unrolls().then_some(self.in_channels),
        }
    }

    /// Whether each output reads exactly one input pixel: a 1×1 kernel without padding.
    pub(super) fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.padding == [0, 0]
    }

    pub(crate) fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// # Panics
    ///
    /// If a size is zero or the groups do not divide the channels.
    pub(crate) fn assert_valid(&self) {
        assert!(
            self.in_channels > 0
                && self.out_channels > 0
                && self.taps() > 0
                && self.stride[0] > 0
                && self.stride[1] > 0
                && self.groups > 0,
            "a size of the convolution is zero: {self:?}"
        );
        assert!(
            self.in_channels.is_multiple_of(self.groups)
                && self.out_channels.is_multiple_of(self.groups),
            "the groups do not divide the channels: {self:?}"
        );
    }
}

/// A convolution on a batch of inputs of one size.
///
/// Tensors are NHWC: input `[batch, in_height, in_width, in_channels]`, output
/// `[batch, out_height, out_width, out_channels]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvShape {
    /// The convolution.
    pub geometry: ConvGeometry,
    /// Images.
    pub batch: usize,
    /// Height of the input in pixels.
    pub in_height: usize,
    /// Width of the input in pixels.
    pub in_width: usize,
}

/// The sizes of a convolution's tensors as kernels see them: the result of
/// [`ConvShape::flattened`]. Heights come first.
pub(super) struct Flattened {
    /// Images, or 1 if all are concatenated into one row.
    pub batch: usize,
    /// Images concatenated into one row; 1 if they are separate.
    pub images_per_row: usize,
    pub input: [usize; 2],
    pub output: [usize; 2],
}

impl ConvShape {
    /// Height of the output; 0 where the kernel is larger than the padded input.
    pub fn out_height(&self) -> usize {
        self.out_size(0, self.in_height)
    }

    /// Width of the output; 0 where the kernel is larger than the padded input.
    pub fn out_width(&self) -> usize {
        self.out_size(1, self.in_width)
    }

    fn out_size(&self, axis: usize, size: usize) -> usize {
        let ConvGeometry {
            kernel,
            stride,
            padding,
            ..
        } = self.geometry;
        match (size + 2 * padding[axis]).checked_sub(kernel[axis]) {
            Some(room) => room / stride[axis] + 1,
            None => 0,
        }
    }

    /// The sizes as kernels see them. For a 1×1 convolution with stride 1, rows and images do not
    /// matter, so all pixels of the batch become one row of one image.
    pub(super) fn flattened(&self) -> Flattened {
        if self.geometry.is_pointwise() && self.geometry.stride == [1, 1] {
            let pixels = self.batch * self.in_height * self.in_width;
            return Flattened {
                batch: 1,
                images_per_row: self.batch,
                input: [1, pixels],
                output: [1, pixels],
            };
        }
        Flattened {
            batch: self.batch,
            images_per_row: 1,
            input: [self.in_height, self.in_width],
            output: [self.out_height(), self.out_width()],
        }
    }

    /// Floats of the input tensor.
    pub fn input_len(&self) -> usize {
        self.batch * self.in_height * self.in_width * self.geometry.in_channels
    }

    /// Floats of the output tensor.
    pub fn output_len(&self) -> usize {
        self.batch * self.out_height() * self.out_width() * self.geometry.out_channels
    }

    /// Floats of the weights.
    pub fn weight_len(&self) -> usize {
        self.geometry.weight_len()
    }

    /// Multiply-accumulates of the forward pass, those on padding included.
    pub fn macs(&self) -> u64 {
        let per_output = self.geometry.group_in_channels() * self.geometry.taps();
        self.output_len() as u64 * per_output as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_a_strided_padded_grouped_convolution() {
        let geometry = ConvGeometry {
            in_channels: 8,
            out_channels: 12,
            kernel: [3, 2],
            stride: [2, 3],
            padding: [1, 0],
            groups: 4,
        };
        let shape = ConvShape {
            geometry,
            batch: 2,
            in_height: 6,
            in_width: 9,
        };
        assert_eq!((shape.out_height(), shape.out_width()), (3, 3));
        assert_eq!(shape.input_len(), 2 * 6 * 9 * 8);
        assert_eq!(shape.output_len(), 2 * 3 * 3 * 12);
        assert_eq!(shape.weight_len(), 12 * 2 * 6);
        assert_eq!(shape.macs(), 2 * 3 * 3 * 12 * 2 * 6);
        assert_eq!(
            ConvShape {
                in_width: 1,
                ..shape
            }
            .output_len(),
            0
        );
    }
}
