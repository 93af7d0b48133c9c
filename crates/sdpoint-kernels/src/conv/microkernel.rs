//! The innermost loops of the implicit matrix product: a tile of neighbouring pixels times a
//! block of output channels, held in registers over the whole reduction.

use rten_simd::Isa;
use rten_simd::ops::{BitOps, NumOps};

use super::epilogue::{Finish, FinishLanes};
use super::gather::BLOCK;

/// Vectors of output channels in a full block.
pub(super) const VECTORS: usize = 2;

/// The most pixels of a tile whose output channels are `vectors` vectors.
///
/// With 32 registers, 12 × 2 sums leave room for two vectors of weights, a broadcast pixel and
/// what the compiler moves about; 14 × 2 would just fit, but measured slower for the spills at
/// the loops' edges. With 16 registers 6 × 2 do. A single vector needs enough pixels to hide
/// the latency of a multiply-add.
#[inline(always)]
pub(super) const fn max_pixels<I: Isa>(vectors: usize) -> usize {
    match (has_32_registers::<I>(), vectors) {
        (true, 1) => 16,
        (true, _) => 12,
        (false, 1) => 12,
        (false, _) => 6,
    }
}

/// Whether the instruction set has 32 vector registers, and not 16.
pub(super) const fn has_32_registers<I: Isa>() -> bool {
    size_of::<I::F32>() == 64 || cfg!(target_arch = "aarch64")
}

/// One tile's addresses.
#[derive(Clone, Copy)]
pub(super) struct Tile<'a> {
    /// The first pixel at the first tap in the first channel block; pixels are [`BLOCK`]
    /// floats apart.
    pub input: *const f32,
    /// Between channel blocks of the input.
    pub plane: usize,
    /// Where each tap's pixels lie, seen from `input`.
    pub taps: &'a [usize],
    /// Channels to reduce over.
    pub channels: usize,
    /// `[channel block][tap][channel][output channel]`, output channels padded to vectors.
    pub weights: *const f32,
    /// The first pixel's first output channel.
    pub output: *mut f32,
    /// Between pixels of the output.
    pub output_step: usize,
    /// Output channels that exist.
    pub output_channels: usize,
    /// Whether to add to the output rather than replace it.
    pub accumulate: bool,
    /// Memory that will be needed soon.
    pub ahead: Ahead,
    /// What happens to sums that are not added.
    pub finish: &'a Finish<'a>,
    /// Which element of the output tensor `output` is.
    pub at: usize,
    /// Which of the output tensor's channels that is.
    pub channel: usize,
}

/// Weights that a later tile starts with. They come from afar, and a tile on its own would wait
/// for them: a core's share of memory bandwidth is about what one tile asks for. So the tiles
/// before it bring them near, a cache line for each channel and tap.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    start: *const f32,
    /// Floats between lines; 0 where nothing is left to bring.
    step: usize,
}

impl Ahead {
    /// What tile number `tile` of those that come before `weights` brings, with `rows` channels
    /// and taps to reduce over.
    #[inline(always)]
    pub fn of(weights: &[f32], tile: usize, rows: usize) -> Self {
        let first = tile * rows * LINE;
        if first < weights.len() {
            Ahead {
                start: weights[first..].as_ptr(),
                step: LINE,
            }
        } else {
            Ahead {
                start: weights.as_ptr(),
                step: 0,
            }
        }
    }
}

/// Floats of a cache line.
const LINE: usize = 16;

/// Asks for the cache line at an address, which need not be valid.
#[inline(always)]
fn prefetch(at: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch faults on no address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Computes `pixels` pixels of a tile.
///
/// # Safety
///
/// All of the tile's addresses must be valid for the pixels, channels and taps it states, and
/// `pixels` at most [`max_pixels`].
#[inline(always)]
pub(super) unsafe fn run_tile<I: Isa, const V: usize>(isa: I, pixels: usize, tile: &Tile<'_>) {
    macro_rules! choose {
        ($($n:literal)*) => {
            match pixels {
                // SAFETY: this function's contract.
                $($n if $n <= max_pixels::<I>(V) => unsafe { tile_of::<I, $n, V>(isa, tile) },)*
                _ => unreachable!("tile of {pixels} pixels"),
            }
        };
    }
    choose!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16)
}

#[inline(always)]
unsafe fn tile_of<I: Isa, const P: usize, const V: usize>(isa: I, tile: &Tile<'_>) {
    let ops = isa.f32();
    let lanes = ops.len();
    let mut sums = [[ops.zero(); V]; P];
    // SAFETY: the caller's promise about the tile's addresses.
    unsafe {
        let mut weights = tile.weights;
        let mut input = tile.input;
        let mut channels = tile.channels;
        let mut ahead = tile.ahead;
        while channels > 0 {
            let block = channels.min(BLOCK);
            for &tap in tile.taps {
                accumulate::<I, P, V>(isa, &mut sums, input.add(tap), weights, block, ahead);
                weights = weights.add(block * V * lanes);
                ahead.start = ahead.start.wrapping_add(block * ahead.step);
            }
            input = input.wrapping_add(tile.plane);
            channels -= block;
        }
        let full = tile.output_channels == V * lanes;
        let add = |sum, at: *const f32| ops.add(ops.load_ptr(at), sum);
        match (tile.accumulate, full) {
            (true, true) => store::<I, P, V>(isa, &sums, tile, tile.output, |sum, _, at| {
                add(sum, tile.output.add(at))
            }),
            (true, false) => store_part::<I, P, V, true>(isa, &sums, tile),
            (false, true) if tile.finish.is_identity() => {
                store::<I, P, V>(isa, &sums, tile, tile.output, |sum, _, _| sum);
            }
            (false, true) => store_finished::<I, P, V>(isa, &sums, tile),
            (false, false) => {
                store_part::<I, P, V, false>(isa, &sums, tile);
                if !tile.finish.is_identity() {
                    let (channel, channels) = (tile.channel, tile.output_channels);
                    let output = tile.output.sub(tile.at);
                    let finish = tile.finish;
                    finish.apply(isa, output, tile.at, P, tile.output_step, channel, channels);
                }
            }
        }
    }
}

/// Stores what `value` makes of each sum, its vector's number and its distance from the first
/// output. No loop here has branches, so that they are unrolled; a loop over the sums that is
/// not would keep them in memory all along.
#[inline(always)]
unsafe fn store<I: Isa, const P: usize, const V: usize>(
    isa: I,
    sums: &[[I::F32; V]; P],
    tile: &Tile<'_>,
    to: *mut f32,
    value: impl Fn(I::F32, usize, usize) -> I::F32,
) {
    let ops = isa.f32();
    for p in 0..P {
        for v in 0..V {
            let at = p * tile.output_step + v * ops.len();
            // SAFETY: the tile's addresses are valid by `run_tile`'s contract.
            unsafe { ops.store_ptr(value(sums[p][v], v, at), to.add(at)) };
        }
    }
}

/// Stores the finished sums, and the second output.
#[inline(always)]
unsafe fn store_finished<I: Isa, const P: usize, const V: usize>(
    isa: I,
    sums: &[[I::F32; V]; P],
    tile: &Tile<'_>,
) {
    let ops = isa.f32();
    let lanes: [FinishLanes<I>; V] = std::array::from_fn(|v| {
        tile.finish
            .lanes(isa, tile.channel + v * ops.len(), ops.len())
    });
    let to = tile.output;
    // SAFETY: residual and second output have the output's length, in which the tile lies.
    unsafe {
        let second = tile
            .finish
            .second
            .map(|second| second.out.as_ptr().add(tile.at));
        if let Some(residual) = tile.finish.residual {
            let from = residual.as_ptr().add(tile.at);
            let first = |sum, v: usize, at: usize| {
                lanes[v].first_with(isa, sum, ops.load_ptr(from.add(at)))
            };
            if let Some(out) = second {
                store::<I, P, V>(isa, sums, tile, out, |sum, v, at| {
                    lanes[v].second(isa, first(sum, v, at))
                });
            }
            store::<I, P, V>(isa, sums, tile, to, first);
        } else {
            let first = |sum, v: usize, _: usize| lanes[v].first(isa, sum);
            store::<I, P, V>(isa, sums, tile, to, first);
            if let Some(out) = second {
                store::<I, P, V>(isa, sums, tile, out, |sum, v, at| {
                    lanes[v].second(isa, first(sum, v, at))
                });
            }
        }
    }
}

/// Stores the sums, or adds them to the output if `ADD`, and leaves alone the lanes of the last
/// vector beyond the tile's channels.
#[inline(always)]
unsafe fn store_part<I: Isa, const P: usize, const V: usize, const ADD: bool>(
    isa: I,
    sums: &[[I::F32; V]; P],
    tile: &Tile<'_>,
) {
    let ops = isa.f32();
    let lanes = ops.len();
    let mask = ops.first_n_mask(tile.output_channels - (V - 1) * lanes);
    for p in 0..P {
        for v in 0..V {
            let masked = v + 1 == V;
            // SAFETY: the tile's addresses are valid by `run_tile`'s contract.
            unsafe {
                let at = tile.output.add(p * tile.output_step + v * lanes);
                let sum = match (ADD, masked) {
                    (false, _) => sums[p][v],
                    (true, false) => ops.add(ops.load_ptr(at), sums[p][v]),
                    (true, true) => ops.add(ops.load_ptr_mask(at, mask), sums[p][v]),
                };
                if masked {
                    ops.store_ptr_mask(sum, at, mask);
                } else {
                    ops.store_ptr(sum, at);
                }
            }
        }
    }
}

/// Adds the products of `channels` channels at one tap to `sums`.
#[inline(always)]
unsafe fn accumulate<I: Isa, const P: usize, const V: usize>(
    isa: I,
    sums: &mut [[I::F32; V]; P],
    input: *const f32,
    weights: *const f32,
    channels: usize,
    ahead: Ahead,
) {
    let ops = isa.f32();
    for c in 0..channels {
        prefetch(ahead.start.wrapping_add(c * ahead.step));
        // SAFETY: the tile's addresses are valid by `run_tile`'s contract.
        unsafe {
            let row: [I::F32; V] =
                std::array::from_fn(|v| ops.load_ptr(weights.add((c * V + v) * ops.len())));
            for (p, sums) in sums.iter_mut().enumerate() {
                let pixel = ops.splat(*input.add(p * BLOCK + c));
                for v in 0..V {
                    sums[v] = ops.mul_add(pixel, row[v], sums[v]);
                }
            }
        }
    }
}
