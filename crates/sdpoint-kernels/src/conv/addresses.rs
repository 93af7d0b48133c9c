//! How the innermost loop addresses a tile's pixels with the few general-purpose registers that
//! there are.

use rten_simd::Isa;

use super::gather::BLOCK;
use super::tuning::MAX_PIXELS;
use crate::isa::Registers;

/// Where the pixels of a tile lie: distances in floats.
#[derive(Clone, Copy)]
pub(super) enum Pixels<'a> {
    /// Side by side, this far apart in the input and in the output. With 16 registers, in the
    /// input always [`BLOCK`].
    Row { input: usize, output: usize },
    /// Side by side in two rows of equal length, [`BLOCK`] apart in the input: how far apart
    /// rows are in the input, and rows and pixels in the output. With 32 registers.
    TwoRows {
        input_row: usize,
        output_row: usize,
        output: usize,
    },
    /// Anywhere: how far from the tile's input and output each of them is. With 16 registers,
    /// whose tiles are so small that those at the ends of rows would be a waste, and leave
    /// enough registers for the addresses.
    Scattered(&'a [[usize; 2]]),
}

impl Pixels<'_> {
    /// How far from the tile's output pixel `pixel` of `count` is.
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

/// The addresses of `P` pixels, in as few registers as they need, and for what kernels with such
/// addresses are compiled.
pub(super) trait Addresses<I: Isa, const P: usize>: Sized {
    /// Whether there are kernels with such addresses.
    const COMPILED: bool;

    /// Whether they make outputs of their sums, and not only keep them.
    const STORES: bool = true;

    /// Whether they continue other products' sums and add to them, as Strassen's algorithm does.
    const CONTINUES: bool = false;

    /// For an input whose first pixel is at `first`.
    fn new(first: *const f32, pixels: &Pixels<'_>) -> Self;

    /// How far from the tile's output each pixel is.
    fn outputs(pixels: &Pixels<'_>) -> [usize; P];

    /// A channel of a pixel; channels come in turn.
    fn pixel(&self, pixel: usize, channel: usize) -> *const f32;

    /// Ends a channel.
    #[inline(always)]
    fn next_channel(&mut self) {}
}

/// Of a row whose pixels are [`BLOCK`] floats apart: a constant, so that one address is enough.
///
/// With 16 registers, only Winograd's algorithm has such rows.
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

/// Of two rows, likewise: two addresses.
pub(super) struct TwoRows([*const f32; 2]);

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
        std::array::from_fn(|p| p / (P / 2) * output_row + p % (P / 2) * output)
    }

    #[inline(always)]
    fn pixel(&self, pixel: usize, channel: usize) -> *const f32 {
        self.0[pixel / (P / 2)].wrapping_add(pixel % (P / 2) * BLOCK + channel)
    }
}

/// Of a row whose pixels are any distance apart. An address may be a register and a small
/// multiple of another, so that those of every third pixel and the distance are enough.
pub(super) struct Strided {
    first: *const f32,
    thirds: [usize; MAX_PIXELS.div_ceil(3)],
    step: usize,
}

impl<I: Isa, const P: usize> Addresses<I, P> for Strided {
    const COMPILED: bool = Registers::are_32::<I>();

    #[inline(always)]
    fn new(first: *const f32, pixels: &Pixels<'_>) -> Self {
        let &Pixels::Row { input, .. } = pixels else {
            unreachable!("a row")
        };
        let step = in_register(input);
        let third = |i| in_register(first.wrapping_add(3 * i * step).addr());
        Strided {
            first,
            thirds: std::array::from_fn(third),
            step,
        }
    }

    #[inline(always)]
    fn outputs(pixels: &Pixels<'_>) -> [usize; P] {
        row_outputs(pixels)
    }

    /// Of the channel that it is at.
    #[inline(always)]
    fn pixel(&self, pixel: usize, _: usize) -> *const f32 {
        let third = self.first.with_addr(self.thirds[pixel / 3]);
        third.wrapping_add(pixel % 3 * self.step)
    }

    #[inline(always)]
    fn next_channel(&mut self) {
        for third in &mut self.thirds {
            *third = in_register(*third + size_of::<f32>());
        }
    }
}

/// Of pixels anywhere: an address each, of which there are `P`.
pub(super) struct Scattered([*const f32; 8]);

impl<I: Isa, const P: usize> Addresses<I, P> for Scattered {
    const COMPILED: bool = !Registers::are_32::<I>();
    const CONTINUES: bool = true;

    #[inline(always)]
    fn new(first: *const f32, pixels: &Pixels<'_>) -> Self {
        let Pixels::Scattered(places) = pixels else {
            unreachable!("scattered pixels")
        };
        let mut addresses = Scattered([first; 8]);
        for p in 0..P {
            addresses.0[p] = first.wrapping_add(places[p][0]);
        }
        addresses
    }

    #[inline(always)]
    fn outputs(pixels: &Pixels<'_>) -> [usize; P] {
        let Pixels::Scattered(places) = pixels else {
            unreachable!("scattered pixels")
        };
        std::array::from_fn(|p| places[p][1])
    }

    #[inline(always)]
    fn pixel(&self, pixel: usize, channel: usize) -> *const f32 {
        self.0[pixel].wrapping_add(channel)
    }
}

#[inline(always)]
fn row_outputs<const P: usize>(pixels: &Pixels<'_>) -> [usize; P] {
    let &Pixels::Row { output, .. } = pixels else {
        unreachable!("a row")
    };
    std::array::from_fn(|p| p * output)
}

/// The same value, hidden from the optimiser: it would keep an address for each pixel instead of
/// what they are made from, which is more than there are registers.
#[inline(always)]
fn in_register(value: usize) -> usize {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    {
        let mut value = value;
        // SAFETY: there are no instructions.
        unsafe {
            std::arch::asm!(
                "/* {0} */",
                inout(reg) value,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        value
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    value
}
