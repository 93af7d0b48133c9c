//! The innermost loops of the implicit matrix product: a tile of neighbouring pixels times a
//! block of output channels, held in registers over the whole reduction.

use std::marker::PhantomData;

use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp};

use super::addresses::{Addresses, Blocks, Pixels, Scattered, Strided, TwoRows};
use super::ahead::{Ahead, Evenly, ask_for_output};
use super::epilogue::{self, Finish};
use super::gather::BLOCK;
use crate::context::Context;

/// Vectors of output channels in a full block.
pub(super) const VECTORS: usize = 2;

/// The most pixels of a tile whose output channels are `vectors` vectors.
///
/// With 32 registers, 14 × 2 sums leave room for two vectors of weights and a broadcast pixel;
/// and 14 divides the rows of common maps. With 16 registers 6 × 2 do, which are just enough to
/// hide the latency of a multiply-add. Of a single vector more pixels are needed for that, but
/// with 16 registers each pixel's address takes one of the few others.
#[inline(always)]
pub(super) const fn max_pixels<I: Isa>(vectors: usize) -> usize {
    match (has_32_registers::<I>(), vectors) {
        (true, _) => MAX_PIXELS,
        (false, 1) => 8,
        (false, _) => 6,
    }
}

/// The most pixels and the most lanes of any instruction set.
pub(super) const MAX_PIXELS: usize = 14;
const MAX_LANES: usize = 16;

/// Whether the instruction set has 32 vector registers, and not 16.
pub(super) const fn has_32_registers<I: Isa>() -> bool {
    size_of::<I::F32>() == 64 || cfg!(target_arch = "aarch64")
}

/// One tile's addresses.
#[derive(Clone, Copy)]
pub(super) struct Tile<'a> {
    /// The pixel from which distances count, at the first tap in the first channel block.
    pub input: *const f32,
    pub pixels: Pixels<'a>,
    /// Between channel blocks of the input.
    pub plane: usize,
    /// Where each tap's pixels lie, seen from `input`.
    pub taps: &'a [usize],
    /// Channels to reduce over.
    pub channels: usize,
    /// Channels that lie together, those of a channel block.
    pub block: usize,
    /// `[channel block][tap][channel][output channel]`, output channels padded to vectors.
    pub weights: *const f32,
    /// The first output channel of the pixel from which distances count.
    pub output: *mut f32,
    /// Output channels that exist.
    pub output_channels: usize,
    /// Whether the outputs go on from what is there.
    pub accumulate: bool,
    /// Whether the outputs come from memory, and not from a cache, to be replaced.
    pub far_output: bool,
    /// Sums that are of several products; for tiles all of whose lanes are channels.
    pub shared: Shared,
    /// What will be needed soon: the first where there is more of it.
    pub ahead: &'a [Ahead; 2],
    /// What happens to the sums.
    pub finish: &'a Finish<'a>,
    /// Which element of the output tensor `output` is.
    pub at: usize,
    /// Which of the output tensor's channels that is.
    pub channel: usize,
}

/// Sums that tiles pass on to others, packed, of as many vectors for each pixel as they have.
#[derive(Clone, Copy, Default)]
pub(super) struct Shared {
    /// From which the reduction starts, and not from zero.
    pub start: Option<*const f32>,
    /// Where the sums are kept.
    pub keep: Option<*mut f32>,
    /// What is added before the sums become outputs.
    pub addend: Option<*const f32>,
    /// Whether they become no outputs.
    pub no_output: bool,
}

/// Computes `pixels` pixels of a tile, of `vectors` vectors of output channels.
///
/// The kernels are compiled once for each size and instruction set, and called from here.
///
/// # Safety
///
/// All of the tile's addresses must be valid for the pixels, channels and taps it states, and
/// `pixels` at most [`max_pixels`].
pub(super) unsafe fn run_tile(ctx: &Context, pixels: usize, vectors: usize, tile: &Tile<'_>) {
    macro_rules! choose {
        ($addresses:ident: $($p:literal)*) => {
            match (pixels, vectors) {
                $(($p, 1) => ctx.dispatch(RunTile::<$addresses, $p, 1>::new(tile)),)*
                $(($p, VECTORS) => ctx.dispatch(RunTile::<$addresses, $p, VECTORS>::new(tile)),)*
                _ => unreachable!("tile of {pixels} pixels and {vectors} vectors"),
            }
        };
    }
    match tile.pixels {
        Pixels::Row { input: BLOCK, .. } => choose!(Blocks: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        Pixels::Row { .. } => choose!(Strided: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        Pixels::TwoRows { .. } => choose!(TwoRows: 2 4 6 8 10 12 14),
        Pixels::Scattered(_) => choose!(Scattered: 1 2 3 4 5 6 7 8),
    }
}

/// [`run_tile`] with its sizes, by which contract it may be run.
struct RunTile<'a, A, const P: usize, const V: usize> {
    tile: &'a Tile<'a>,
    addresses: PhantomData<A>,
}

impl<'a, A, const P: usize, const V: usize> RunTile<'a, A, P, V> {
    fn new(tile: &'a Tile<'a>) -> Self {
        RunTile {
            tile,
            addresses: PhantomData,
        }
    }
}

impl<A: Addresses<P>, const P: usize, const V: usize> SimdOp for RunTile<'_, A, P, V> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        // A constant, so that what the instruction set lacks is not compiled.
        if P <= max_pixels::<I>(V) && A::suit::<I>() {
            // SAFETY: the contract of `run_tile`, which alone makes these.
            unsafe { tile_of::<I, A, P, V>(isa, self.tile) };
        } else {
            unreachable!("tiles of {P} pixels and {V} vectors, or their addresses, do not suit");
        }
    }
}

#[inline(always)]
unsafe fn tile_of<I: Isa, A: Addresses<P>, const P: usize, const V: usize>(
    isa: I,
    tile: &Tile<'_>,
) {
    let ops = isa.f32();
    let lanes = ops.len();
    let outputs = A::outputs(&tile.pixels);
    let mut sums = [[ops.zero(); V]; P];
    let Shared {
        start,
        keep,
        addend,
        no_output,
    } = tile.shared;
    // SAFETY: the caller's promise about the tile's addresses.
    unsafe {
        if let Some(start) = start {
            for p in 0..P {
                for v in 0..V {
                    sums[p][v] = ops.load_ptr(start.add((p * V + v) * lanes));
                }
            }
        }
        // Pixels whose outputs are asked for in each step, and those asked for so far.
        let asks = !no_output && (tile.finish.residual.is_some() || tile.far_output);
        let steps = tile.channels.div_ceil(tile.block) * tile.taps.len();
        let share = if asks { P.div_ceil(steps.max(1)) } else { 0 };
        let mut asked = 0;
        let mut weights = tile.weights;
        let mut input = tile.input;
        let mut channels = tile.channels;
        let [mut next_weights, mut next_inputs] = *tile.ahead;
        while channels > 0 {
            let block = channels.min(tile.block);
            for &tap in tile.taps {
                let addresses = A::new(input.wrapping_add(tap), &tile.pixels);
                next_inputs.at_once();
                let end = P.min(asked + share);
                while asked < end {
                    let output = outputs[asked];
                    let to = tile.output.wrapping_add(output);
                    ask_for_output(tile.finish, to, tile.at + output, V * lanes);
                    asked += 1;
                }
                let ahead = next_weights.one_by_one::<I>(weights);
                accumulate(isa, &mut sums, addresses, weights, block, ahead);
                weights = weights.add(block * V * lanes);
            }
            input = input.wrapping_add(tile.plane);
            channels -= block;
        }
        if let Some(keep) = keep {
            for p in 0..P {
                for v in 0..V {
                    ops.store_ptr(sums[p][v], keep.add((p * V + v) * lanes));
                }
            }
        }
        if no_output {
            return;
        }
        if let Some(addend) = addend {
            for p in 0..P {
                for v in 0..V {
                    let addend = ops.load_ptr(addend.add((p * V + v) * lanes));
                    sums[p][v] = ops.add(sums[p][v], addend);
                }
            }
        }
        if tile.output_channels == V * lanes {
            store::<I, P, V, 0>(isa, &sums, tile, &outputs);
            if V == VECTORS {
                store::<I, P, V, { VECTORS - 1 }>(isa, &sums, tile, &outputs);
            }
        } else {
            let mut buffer = [[0.0; MAX_LANES]; 2 * MAX_PIXELS];
            for (p, sums) in sums.iter().enumerate() {
                for (v, sum) in sums.iter().enumerate() {
                    ops.store_ptr(*sum, buffer[p * V + v].as_mut_ptr());
                }
            }
            store_part(isa, &buffer, V, tile, &outputs);
        }
    }
}

/// Stores the sums of vector `N` of each pixel, finished or added to the output, and the second
/// output.
///
/// One vector of channels after the other, for there are no registers for the factors of all;
/// which one is a constant, so that no loop over the sums keeps them in memory.
#[inline(always)]
unsafe fn store<I: Isa, const P: usize, const V: usize, const N: usize>(
    isa: I,
    sums: &[[I::F32; V]; P],
    tile: &Tile<'_>,
    outputs: &[usize; P],
) {
    let ops = isa.f32();
    let skipped = N * ops.len();
    // A loop, for a closure given to an array's `map` is not inlined here.
    let mut vector = [ops.zero(); P];
    for p in 0..P {
        vector[p] = sums[p][N];
    }
    // SAFETY: the tile's addresses are valid by `run_tile`'s contract, and residual and second
    // output have the output's length, in which the tile lies.
    unsafe {
        tile.finish.store_whole(
            isa,
            tile.channel + skipped,
            vector,
            outputs,
            tile.output.add(skipped),
            tile.at + skipped,
            tile.accumulate,
        );
    }
}

/// [`store`] for a tile some of whose lanes are beyond its channels, from memory: such tiles
/// are few.
#[inline(always)]
unsafe fn store_part<I: Isa>(
    isa: I,
    sums: &[[f32; MAX_LANES]],
    vectors: usize,
    tile: &Tile<'_>,
    outputs: &[usize],
) {
    let ops = isa.f32();
    let lanes = ops.len();
    for v in 0..vectors {
        let count = lanes.min(tile.output_channels - v * lanes);
        let finish = tile.finish.lanes(isa, tile.channel + v * lanes, count);
        for (p, output) in outputs.iter().enumerate() {
            let at = output + v * lanes;
            // SAFETY: as in `store`.
            unsafe {
                let mut sum = ops.load_ptr(sums[p * vectors + v].as_ptr());
                let to = tile.output.add(at);
                if tile.accumulate {
                    sum = ops.add(epilogue::load(isa, to, finish.mask), sum);
                }
                tile.finish.store(isa, &finish, sum, to, tile.at + at);
            }
        }
    }
}

/// Channels of which a loop's body is made: with 16 registers the body of one is so short that
/// the loop itself costs a fifth.
#[inline(always)]
const fn unroll<I: Isa>() -> usize {
    if has_32_registers::<I>() { 1 } else { 4 }
}

/// Adds the products of `channels` channels at one tap to `sums`, and asks for what is ahead.
#[inline(always)]
unsafe fn accumulate<I: Isa, A: Addresses<P>, const P: usize, const V: usize>(
    isa: I,
    sums: &mut [[I::F32; V]; P],
    mut addresses: A,
    weights: *const f32,
    channels: usize,
    mut ahead: Evenly,
) {
    let unrolled = channels / unroll::<I>() * unroll::<I>();
    // SAFETY: the tile's addresses are valid by `run_tile`'s contract.
    unsafe {
        for first in (0..unrolled).step_by(unroll::<I>()) {
            ahead.ask::<I>();
            for c in 0..unroll::<I>() {
                multiply(isa, sums, &mut addresses, weights, first + c);
            }
        }
        for c in unrolled..channels {
            multiply(isa, sums, &mut addresses, weights, c);
        }
    }
}

/// Adds the products of one channel to `sums`.
#[inline(always)]
unsafe fn multiply<I: Isa, A: Addresses<P>, const P: usize, const V: usize>(
    isa: I,
    sums: &mut [[I::F32; V]; P],
    addresses: &mut A,
    weights: *const f32,
    channel: usize,
) {
    let ops = isa.f32();
    // SAFETY: the caller's promise.
    unsafe {
        let row: [I::F32; V] =
            std::array::from_fn(|v| ops.load_ptr(weights.add((channel * V + v) * ops.len())));
        // Written out, for the compiler does not unroll a loop over so many.
        macro_rules! pixels {
            ($($p:literal)*) => {$(
                if $p < P {
                    let pixel = ops.splat(*addresses.pixel($p, channel));
                    for v in 0..V {
                        sums[$p][v] = ops.mul_add(pixel, row[v], sums[$p][v]);
                    }
                }
            )*};
        }
        pixels!(0 1 2 3 4 5 6 7 8 9 10 11 12 13);
    }
    addresses.next_channel();
}
