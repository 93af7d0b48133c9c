//! Addressing of a tile's pixels in the innermost loop, with as few general-purpose registers as
//! possible: x86-64 has 16, and a spilled address costs another load per multiply-add. AArch64 has
//! 31, enough for one per pixel (`PerPixel`).

use rten_simd::Isa;

use super::compiler::in_register;
use super::gather::BLOCK;
use super::tuning::MAX_PIXELS;
use crate::array::array;
use crate::isa::Registers;

/// The positions of a tile's pixels; strides and offsets in floats. The forms depend on the number
/// of vector registers: 32 with AVX-512 and NEON, 16 with AVX2 and the portable code on x86-64.
#[derive(Clone, Copy)]
pub(super) enum Pixels<'a> {
    /// One row, with these strides in the input and in the output. With 16 registers, the stride
    /// in the input is always [`BLOCK`].
    Row { input: usize, output: usize },
    /// Two rows of equal length, with a pixel stride of [`BLOCK`] in the input. Only with 32
    /// registers.
    TwoRows {
        input_row: usize,
        output_row: usize,
        output: usize,
    },
    /// Arbitrary: the offsets of each pixel in input and output. Only with 16 registers, whose
    /// tiles are so small that partial tiles at the ends of rows would cost too much, and leave
    /// enough general-purpose registers for an address per pixel.
    Scattered(&'a [[usize; 2]; MAX_PIXELS]),
}

impl Pixels<'_> {
    /// The offset of pixel `pixel` of `count` from the tile's output.
    pub fn output(&self, pixel: usize, count: usize) -> usize {
        match *self {
            Pixels::Row { output, .. } => pixel * output,
            Pixels::TwoRows {
                output_row, output, ..
            } => {
                let columns = count / 2;
                pixel / columns * output_row + pixel % columns * output
            }
            Pixels::Scattered(places) => places[pixel][1],
        }
    }
}

/// The addresses of `P` pixels in as few registers as possible, and which micro-kernels with this
/// form of addresses are compiled.
pub(super) trait Addresses<I: Isa, const P: usize>: Sized {
    /// Whether any micro-kernels are compiled.
    const COMPILED: bool;

    /// Whether those can apply the epilogue and store outputs.
    const STORES: bool = true;

    /// Whether those support initial sums and addends, for Strassen's algorithm.
    const CONTINUES: bool = false;

    /// The addresses for an input whose first pixel is at `first`.
    fn new(first: *const f32, pixels: &Pixels<'_>) -> Self;

    /// The same for another `first`.
    #[inline(always)]
    fn moved(&self, first: *const f32, pixels: &Pixels<'_>) -> Self {
        Self::new(first, pixels)
    }

    /// The offset of each pixel from the tile's output.
    fn outputs(pixels: &Pixels<'_>) -> [usize; P];

    /// The address of a channel of a pixel. Channels are visited in order.
    fn pixel(&self, pixel: usize, channel: usize) -> *const f32;

    /// Advances to the next channel.
    #[inline(always)]
    fn next_channel(&mut self) {}
}

/// A row with a pixel stride of [`BLOCK`] floats. The stride is a constant, so that one register is
/// enough.
///
/// With 16 registers, used by Winograd's algorithm only.
pub(super) struct Blocks(*const f32);

impl<I: Isa, const P: usize> Addresses<I, P> for Blocks {
    const COMPILED: bool = true;
    const STORES: bool = Registers::are_32::<I>();
    const CONTINUES: bool = Registers::are_32::<I>();

    #[inline(always)]
    fn new(first: *const f32, _: &Pixels<'_>) -> Self {
        Blocks(first)
    }

    #[inline(always)]
    fn outputs(pixels: &Pixels<'_>) -> [usize; P] {
        row_outputs(pixels)
    }

    #[inline(always)]
    fn pixel(&self, pixel: usize, channel: usize) -> *const f32 {
        self.0.wrapping_add(pixel * BLOCK + channel)
    }
}

/// Two rows with a pixel stride of [`BLOCK`] floats: one register each.
#[cfg(not(target_arch = "aarch64"))]
pub(super) struct TwoRows([*const f32; 2]);

#[cfg(not(target_arch = "aarch64"))]
impl<I: Isa, const P: usize> Addresses<I, P> for TwoRows {
    const COMPILED: bool = Registers::are_32::<I>();

    #[inline(always)]
    fn new(first: *const f32, pixels: &Pixels<'_>) -> Self {
        let &Pixels::TwoRows { input_row, .. } = pixels else {
            unreachable!("two rows")
        };
        TwoRows([first, first.wrapping_add(input_row)])
    }

    #[inline(always)]
    fn outputs(pixels: &Pixels<'_>) -> [usize; P] {
        let &Pixels::TwoRows {
            output_row, output, ..
        } = pixels
        else {
            unreachable!("two rows")
        };
        array(|p| p / (P / 2) * output_row + p % (P / 2) * output)
    }

    #[inline(always)]
    fn pixel(&self, pixel: usize, channel: usize) -> *const f32 {
        self.0[pixel / (P / 2)].wrapping_add(pixel % (P / 2) * BLOCK + channel)
    }
}

/// A row with any pixel stride. On x86-64, an address may be a base register plus 1, 2, 4 or 8
/// times an index register. With the stride in floats as index, factors of 4 and 8 reach the next
/// two pixels, so that a register for every third pixel and one for the stride are enough.
#[cfg(not(target_arch = "aarch64"))]
pub(super) struct Strided {
    /// The input, for the provenance of the addresses.
    first: *const f32,
    /// The addresses of pixels 0, 3, 6, … at the current channel.
    every_third: [usize; MAX_PIXELS.div_ceil(3)],
    /// In floats.
    stride: usize,
}

#[cfg(not(target_arch = "aarch64"))]
impl<I: Isa, const P: usize> Addresses<I, P> for Strided {
    const COMPILED: bool = Registers::are_32::<I>();

    #[inline(always)]
    fn new(first: *const f32, pixels: &Pixels<'_>) -> Self {
        let &Pixels::Row { input, .. } = pixels else {
            unreachable!("a row")
        };
        let stride = in_register(input);
        let third = |i| in_register(first.wrapping_add(3 * i * stride).addr());
        Strided {
            first,
            every_third: array(third),
            stride,
        }
    }

    #[inline(always)]
    fn outputs(pixels: &Pixels<'_>) -> [usize; P] {
        row_outputs(pixels)
    }

    /// The address at the current channel.
    #[inline(always)]
    fn pixel(&self, pixel: usize, _: usize) -> *const f32 {
        let third = self.first.with_addr(self.every_third[pixel / 3]);
        third.wrapping_add(pixel % 3 * self.stride)
    }

    #[inline(always)]
    fn next_channel(&mut self) {
        for third in &mut self.every_third {
            *third = in_register(*third + size_of::<f32>());
        }
    }
}

#[cfg(target_arch = "aarch64")]
pub(super) type Strided = PerPixel<1>;

#[cfg(target_arch = "aarch64")]
pub(super) type TwoRows = PerPixel<2>;

/// `ROWS` rows with any stride, in one register for each pixel; the first `P` are used. AArch64 has
/// 31 general-purpose registers, and an address may be one of them plus 4 times another, here the
/// channel, so that the innermost loop computes no addresses.
///
/// With fewer registers and constant offsets from them, LLVM loads some pixels by `ld1r`, whose only
/// address form increments its register. These loads are then moved so far ahead that 28 sums no
/// longer fit in the vector registers: two rows took 95 instructions instead of 47.
#[cfg(target_arch = "aarch64")]
pub(super) struct PerPixel<const ROWS: usize>([*const f32; MAX_PIXELS]);

#[cfg(target_arch = "aarch64")]
impl<const ROWS: usize> PerPixel<ROWS> {
    /// The strides between rows and between pixels, in the input and in the output.
    #[inline(always)]
    fn strides(pixels: &Pixels<'_>) -> [[usize; 2]; 2] {
        match *pixels {
            Pixels::Row { input, output } => [[0, input], [0, output]],
            Pixels::TwoRows {
                input_row,
                output_row,
                output,
            } => [[input_row, BLOCK], [output_row, output]],
            Pixels::Scattered(_) => unreachable!("rows"),
        }
    }

    /// The offset of pixel `pixel` of `count`.
    #[inline(always)]
    fn offset(pixel: usize, count: usize, strides: [usize; 2]) -> usize {
        let columns = count.div_ceil(ROWS);
        pixel / columns * strides[0] + pixel % columns * strides[1]
    }
}

#[cfg(target_arch = "aarch64")]
impl<I: Isa, const P: usize, const ROWS: usize> Addresses<I, P> for PerPixel<ROWS> {
    const COMPILED: bool = Registers::are_32::<I>();

    #[inline(always)]
    fn new(first: *const f32, pixels: &Pixels<'_>) -> Self {
        let [input, _] = Self::strides(pixels);
        PerPixel(array(|p| {
            if p >= P {
                return first;
            }
            let pixel = first.wrapping_add(Self::offset(p, P, input));
            pixel.with_addr(in_register(pixel.addr()))
        }))
    }

    #[inline(always)]
    fn outputs(pixels: &Pixels<'_>) -> [usize; P] {
        let [_, output] = Self::strides(pixels);
        array(|p| Self::offset(p, P, output))
    }

    #[inline(always)]
    fn pixel(&self, pixel: usize, channel: usize) -> *const f32 {
        self.0[pixel].wrapping_add(channel)
    }
}

/// Arbitrary pixels: one register each for their offsets, and one for the channel of the first; the
/// first `P` are used.
pub(super) struct Scattered {
    first: *const f32,
    offsets: [usize; MAX_SCATTERED],
}

/// The most pixels of a tile with 16 registers.
const MAX_SCATTERED: usize = 8;

impl<I: Isa, const P: usize> Addresses<I, P> for Scattered {
    const COMPILED: bool = !Registers::are_32::<I>();

    #[inline(always)]
    fn new(first: *const f32, pixels: &Pixels<'_>) -> Self {
        let Pixels::Scattered(places) = pixels else {
            unreachable!("scattered pixels")
        };
        Scattered {
            first,
            offsets: array(|p| places[p][0]),
        }
    }

    #[inline(always)]
    fn moved(&self, first: *const f32, _: &Pixels<'_>) -> Self {
        Scattered {
            first,
            offsets: self.offsets,
        }
    }

    #[inline(always)]
    fn outputs(pixels: &Pixels<'_>) -> [usize; P] {
        let Pixels::Scattered(places) = pixels else {
            unreachable!("scattered pixels")
        };
        array(|p| places[p][1])
    }

    #[inline(always)]
    fn pixel(&self, pixel: usize, channel: usize) -> *const f32 {
        let at = self.first.wrapping_add(channel);
        at.wrapping_add(self.offsets[pixel])
    }
}

#[inline(always)]
fn row_outputs<const P: usize>(pixels: &Pixels<'_>) -> [usize; P] {
    let &Pixels::Row { output, .. } = pixels else {
        unreachable!("a row")
    };
    array(|p| p * output)
}
