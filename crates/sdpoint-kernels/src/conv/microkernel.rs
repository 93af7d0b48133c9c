//! The micro-kernel of the implicit GEMM: one tile of pixels times one panel of output channels,
//! whose sums stay in registers over the whole reduction.

use std::marker::PhantomData;

use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp};

use super::addresses::{Addresses, Blocks, Pixels, Scattered, Strided, TwoRows};
use super::compiler::keep_order;
use super::epilogue::TileEpilogue;
use super::gather::BLOCK;
use super::prefetch::{LoopPrefetch, Prefetch, prefetch_output};
use super::tuning::{MAX_PIXELS, max_pixels, unroll};
use crate::array::array;
use crate::context::Context;
use crate::isa::Registers;
use crate::lanes::load_masked;

/// The most sums of a tile with any instruction set: two vectors of 16 lanes for each pixel.
const MAX_SUMS: usize = MAX_PIXELS * 2 * 16;

/// The arguments of the micro-kernel for one tile; strides and offsets in floats.
#[derive(Clone, Copy)]
pub(super) struct Tile<'a> {
    /// The input of the first pixel, or of the origin of scattered `pixels`, at the first tap in
    /// the first channel block.
    pub input: *const f32,
    /// Offsets of the pixels from `input` and from the output's `to`.
    pub pixels: Pixels<'a>,
    /// Stride between channel blocks of the input.
    pub plane: usize,
    /// Offset of each tap's pixels from the first tap's.
    pub taps: &'a [usize],
    /// Input channels to reduce over.
    pub channels: usize,
    /// Input channels of a channel block, which are contiguous.
    pub block: usize,
    /// The panel's weights for `channels`, `[channel block][tap][channel][output channel]`, output
    /// channels padded to vectors.
    pub weights: *const f32,
    pub sums: Sums,
    /// Where to store the outputs; `None` if only the sums are wanted.
    pub output: Option<TileOutput<'a>>,
    /// Memory to prefetch meanwhile: weights and inputs, in that order.
    pub prefetch: &'a [Prefetch; 2],
}

/// Buffers for sums before the epilogue; packed as `[pixel][vector]`.
#[derive(Clone, Copy, Default)]
pub(super) struct Sums {
    /// Initial values of the sums; zero if `None`. Only with 32 registers and two vectors of
    /// channels.
    pub start: Option<*const f32>,
    /// Where to store the sums.
    pub keep: Option<*mut f32>,
    /// Added to the sums after `keep` and before the epilogue. Likewise.
    pub addend: Option<*const f32>,
}

/// The outputs of a tile.
#[derive(Clone, Copy)]
pub(super) struct TileOutput<'a> {
    /// The output of the first pixel, or of the origin of scattered pixels, at the panel's first
    /// output channel.
    pub to: *mut f32,
    /// Output channels that exist; fewer than the panel's lanes at the end of a group.
    pub channels: usize,
    /// Whether to add the sums to the output's content, before the epilogue.
    pub accumulate: bool,
    /// Whether the outputs are assumed to be in no cache of the core, so that they are prefetched
    /// for writing.
    pub is_evicted: bool,
    pub epilogue: &'a TileEpilogue<'a>,
    /// Index of `to` in the output tensor.
    pub at: usize,
    /// Output channel of `to`.
    pub channel: usize,
}

/// Computes a tile of `pixels` pixels times `vectors` vectors of output channels.
///
/// # Safety
///
/// All of the tile's addresses must be valid for the pixels, channels and taps it states, and
/// `pixels` at most [`max_pixels`].
#[inline]
pub(super) unsafe fn run_tile(ctx: &Context, pixels: usize, vectors: usize, tile: &Tile<'_>) {
    let output = match &tile.output {
        Some(output) if output.channels < vectors * ctx.lanes() => output,
        // SAFETY: this function's contract.
        _ => return unsafe { run_whole(ctx, pixels, vectors, tile) },
    };
    // Micro-kernels store full vectors only. At the end of a group, sums go through a buffer.
    let mut sums = [0.0; MAX_SUMS];
    let whole = Tile {
        sums: Sums {
            keep: Some(sums.as_mut_ptr()),
            ..tile.sums
        },
        output: None,
        ..*tile
    };
    // SAFETY: this function's contract, and there is room for the sums.
    unsafe { run_whole(ctx, pixels, vectors, &whole) };
    ctx.dispatch(StoreEdge {
        sums: &sums,
        vectors,
        pixels: &tile.pixels,
        count: pixels,
        output,
    });
}

/// [`run_tile`] for tiles that store outputs of full vectors, or none.
///
/// The only caller of the micro-kernels, so that each is compiled once per size and instruction
/// set.
///
/// # Safety
///
/// As for [`run_tile`].
unsafe fn run_whole(ctx: &Context, pixels: usize, vectors: usize, tile: &Tile<'_>) {
    macro_rules! choose {
        ($addresses:ident: $($p:literal)*) => {
            match (pixels, vectors) {
                $(($p, 1) => ctx.dispatch(RunTile::<$addresses, $p, 1>::new(tile)),)*
                $(($p, 2) => ctx.dispatch(RunTile::<$addresses, $p, 2>::new(tile)),)*
                $(($p, 3) => ctx.dispatch(RunTile::<$addresses, $p, 3>::new(tile)),)*
                _ => unreachable!("tile of {pixels} pixels and {vectors} vectors"),
            }
        };
    }
    // Tiles of two rows have two vectors.
    macro_rules! choose_pixels {
        ($addresses:ident: $($p:literal)*) => {
            match (pixels, vectors) {
                $(($p, 2) => ctx.dispatch(RunTile::<$addresses, $p, 2>::new(tile)),)*
                _ => unreachable!("tile of {pixels} pixels and {vectors} vectors"),
            }
        };
    }
    match tile.pixels {
        Pixels::Row { input: BLOCK, .. } => choose!(Blocks: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        Pixels::Row { .. } => choose!(Strided: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        Pixels::TwoRows { .. } => choose_pixels!(TwoRows: 2 4 6 8 10 12 14),
        Pixels::Scattered(_) => choose!(Scattered: 1 2 3 4 5 6 7 8),
    }
}

/// The micro-kernel for `P` pixels with addresses of type `A` and `V` vectors of output channels.
/// Made by [`run_whole`] only, whose contract it relies on.
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

macro_rules! impl_run_tile {
    ($($addresses:ident)*) => {$(
        impl<const P: usize, const V: usize> SimdOp for RunTile<'_, $addresses, P, V> {
            type Output = ();

            #[inline(always)]
            fn eval<I: Isa>(self, isa: I) {
                // A constant block, so that no code is generated for sizes that are never called.
                if const {
                    P <= max_pixels(Registers::of::<I>(), V) && <$addresses as Addresses<I, P>>::COMPILED
                } {
                    // SAFETY: the contract of `run_whole`, which alone makes these.
                    unsafe { tile_of::<I, $addresses, P, V>(isa, self.tile) };
                } else {
                    not_compiled();
                }
            }
        }
    )*};
}

// A macro rather than one generic implementation, whose bound `Addresses<I, P>` would have to hold
// for all `I`.
impl_run_tile!(Blocks TwoRows Strided Scattered);

#[cold]
fn not_compiled() {
    unreachable!("a tile of a size or with addresses that this instruction set has no kernel for");
}

/// Computes a tile: loads initial sums, reduces, and stores the sums, the outputs, or both.
///
/// # Safety
///
/// As for [`run_tile`].
#[inline(always)]
unsafe fn tile_of<I: Isa, A: Addresses<I, P>, const P: usize, const V: usize>(
    isa: I,
    tile: &Tile<'_>,
) {
    let ops = isa.f32();
    let lanes = ops.len();
    let mut sums = [[ops.zero(); V]; P];
    // SAFETY: the caller's promise about the tile's addresses.
    unsafe {
        if const { A::CONTINUES && V == 2 }
            && let Some(start) = tile.sums.start
        {
            for p in 0..P {
                for v in 0..V {
                    sums[p][v] = ops.load_ptr(start.add((p * V + v) * lanes));
                }
            }
        }
        let output = if const { A::STORES } {
            tile.output.as_ref()
        } else {
            None
        };
        let outputs = match output {
            Some(_) => A::outputs(&tile.pixels),
            None => [0; P],
        };
        reduce::<I, A, P, V>(isa, tile, output, &outputs, &mut sums);
        if let Some(keep) = tile.sums.keep {
            for p in 0..P {
                for v in 0..V {
                    ops.store_ptr(sums[p][v], keep.add((p * V + v) * lanes));
                }
            }
        }
        let Some(output) = output else { return };
        if const { A::CONTINUES && V == 2 }
            && let Some(addend) = tile.sums.addend
        {
            for p in 0..P {
                for v in 0..V {
                    let addend = ops.load_ptr(addend.add((p * V + v) * lanes));
                    sums[p][v] = ops.add(sums[p][v], addend);
                }
            }
        }
        store::<I, P, V, 0>(isa, &sums, output, &outputs);
        if V > 1 {
            store::<I, P, V, 1>(isa, &sums, output, &outputs);
        }
        if V > 2 {
            store::<I, P, V, 2>(isa, &sums, output, &outputs);
        }
    }
}

/// Adds the products of all channels and taps to `sums`. Meanwhile prefetches the tile's share of
/// upcoming weights and inputs, and its own outputs and residual.
///
/// # Safety
///
/// As for [`run_tile`].
#[inline(always)]
unsafe fn reduce<I: Isa, A: Addresses<I, P>, const P: usize, const V: usize>(
    isa: I,
    tile: &Tile<'_>,
    output: Option<&TileOutput<'_>>,
    outputs: &[usize; P],
    sums: &mut [[I::F32; V]; P],
) {
    let lanes = isa.f32().len();
    let prefetched =
        output.filter(|output| output.epilogue.residual.is_some() || output.is_evicted);
    // Outputs are prefetched some pixels at each step: how many, and how many were so far.
    let steps = tile.channels.div_ceil(tile.block) * tile.taps.len();
    let share = match prefetched {
        Some(_) => P.div_ceil(steps.max(1)),
        None => 0,
    };
    let mut done = 0;
    let pixels = A::new(tile.input, &tile.pixels);
    let mut weights = tile.weights;
    let mut input = tile.input;
    let mut channels = tile.channels;
    let [mut next_weights, mut next_inputs] = *tile.prefetch;
    while channels > 0 {
        let block = channels.min(tile.block);
        for &tap in tile.taps {
            let addresses = pixels.moved(input.wrapping_add(tap), &tile.pixels);
            next_inputs.step();
            if let Some(output) = prefetched {
                let end = P.min(done + share);
                while done < end {
                    let to = output.to.wrapping_add(outputs[done]);
                    let at = output.at + outputs[done];
                    prefetch_output(output.epilogue, to, at, V * lanes);
                    done += 1;
                }
            }
            let ahead = next_weights.by_channel::<I>(weights);
            // SAFETY: the caller's promise about the tile's addresses.
            unsafe {
                accumulate(isa, sums, addresses, weights, block, ahead);
                weights = weights.add(block * V * lanes);
            }
        }
        input = input.wrapping_add(tile.plane);
        channels -= block;
    }
}

/// Applies the epilogue to vector `N` of each pixel's sums and stores the results.
///
/// One vector of channels at a time, as the factors of two and all sums do not fit in the
/// registers. `N` is a constant, as indexing the sums by a variable would move them to memory.
///
/// # Safety
///
/// As for [`run_tile`].
#[inline(always)]
unsafe fn store<I: Isa, const P: usize, const V: usize, const N: usize>(
    isa: I,
    sums: &[[I::F32; V]; P],
    output: &TileOutput<'_>,
    outputs: &[usize; P],
) {
    let ops = isa.f32();
    let skipped = N * ops.len();
    // A loop, as the closure of an array's `map` is not inlined here.
    let mut vector = [ops.zero(); P];
    for p in 0..P {
        vector[p] = sums[p][N];
    }
    // SAFETY: the tile's addresses are valid by `run_tile`'s contract, and residual and second
    // output have the output's length, in which the tile lies.
    unsafe {
        output.epilogue.store_full(
            isa,
            output.channel + skipped,
            vector,
            outputs,
            output.to.add(skipped),
            output.at + skipped,
            output.accumulate,
        );
    }
}

/// Stores the sums of a tile whose last vector is only partly used. Made by [`run_tile`] only,
/// whose contract it relies on.
struct StoreEdge<'a> {
    sums: &'a [f32],
    vectors: usize,
    pixels: &'a Pixels<'a>,
    count: usize,
    output: &'a TileOutput<'a>,
}

impl SimdOp for StoreEdge<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let StoreEdge {
            sums,
            vectors,
            pixels,
            count,
            output,
        } = self;
        let ops = isa.f32();
        let lanes = ops.len();
        for v in 0..vectors {
            let channels = lanes.min(output.channels - v * lanes);
            let lane_epilogue = output
                .epilogue
                .lanes(isa, output.channel + v * lanes, channels);
            for pixel in 0..count {
                let mut sum = ops.load(&sums[(pixel * vectors + v) * lanes..]);
                let at = pixels.output(pixel, count) + v * lanes;
                // SAFETY: as in `store`.
                unsafe {
                    let to = output.to.add(at);
                    if output.accumulate {
                        sum = ops.add(load_masked(isa, to, lane_epilogue.mask), sum);
                    }
                    output
                        .epilogue
                        .store(isa, &lane_epilogue, sum, to, output.at + at);
                }
            }
        }
    }
}

/// Adds the products of `channels` channels at one tap, one step, to `sums`.
///
/// # Safety
///
/// As for [`run_tile`].
#[inline(always)]
unsafe fn accumulate<I: Isa, A: Addresses<I, P>, const P: usize, const V: usize>(
    isa: I,
    sums: &mut [[I::F32; V]; P],
    mut addresses: A,
    weights: *const f32,
    channels: usize,
    mut prefetch: LoopPrefetch,
) {
    let unroll = const { unroll(Registers::of::<I>()) };
    let unrolled = channels / unroll * unroll;
    // SAFETY: the tile's addresses are valid by `run_tile`'s contract.
    unsafe {
        for first in (0..unrolled).step_by(unroll) {
            prefetch.step::<I>();
            for c in 0..unroll {
                multiply(isa, sums, &mut addresses, weights, first + c);
            }
        }
        for c in unrolled..channels {
            multiply(isa, sums, &mut addresses, weights, c);
        }
    }
}

/// Adds the products of one channel to `sums`.
///
/// # Safety
///
/// As for [`run_tile`].
#[inline(always)]
unsafe fn multiply<I: Isa, A: Addresses<I, P>, const P: usize, const V: usize>(
    isa: I,
    sums: &mut [[I::F32; V]; P],
    addresses: &mut A,
    weights: *const f32,
    channel: usize,
) {
    let ops = isa.f32();
    // With three vectors, 12 sums and the weights leave one register, for a pixel.
    if const { V > 2 } {
        keep_order();
    }
    // SAFETY: the caller's promise.
    unsafe {
        let row: [I::F32; V] = array(|v| ops.load_ptr(weights.add((channel * V + v) * ops.len())));
        // Unrolled by a macro, as the compiler does not unroll a loop over 14 pixels.
        macro_rules! pixels {
            ($($p:literal)*) => {$(
                if const { $p < P } {
                    if const { V > 2 } {
                        keep_order();
                    }
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
