//! The innermost loops of the implicit matrix product: a tile of neighbouring pixels times a
//! block of output channels, held in registers over the whole reduction.

use rten_simd::Isa;
use rten_simd::ops::{BitOps, NumOps};

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
        while channels > 0 {
            let block = channels.min(BLOCK);
            for &tap in tile.taps {
                accumulate::<I, P, V>(isa, &mut sums, input.add(tap), weights, block);
                weights = weights.add(block * V * lanes);
            }
            input = input.wrapping_add(tile.plane);
            channels -= block;
        }
        let full_vectors = tile.output_channels == V * lanes;
        match (tile.accumulate, full_vectors) {
            (false, true) => store::<I, P, V, false, true>(isa, &sums, tile),
            (false, false) => store::<I, P, V, false, false>(isa, &sums, tile),
            (true, true) => store::<I, P, V, true, true>(isa, &sums, tile),
            (true, false) => store::<I, P, V, true, false>(isa, &sums, tile),
        }
    }
}

/// Stores the sums, or adds them to the output if `ADD`; not `FULL` leaves alone the lanes of
/// the last vector beyond the tile's channels. The loop has no branches, so that it is
/// unrolled; a loop over the sums that is not would keep them in memory all along.
#[inline(always)]
unsafe fn store<I: Isa, const P: usize, const V: usize, const ADD: bool, const FULL: bool>(
    isa: I,
    sums: &[[I::F32; V]; P],
    tile: &Tile<'_>,
) {
    let ops = isa.f32();
    let lanes = ops.len();
    let mask = ops.first_n_mask(tile.output_channels - (V - 1) * lanes);
    for p in 0..P {
        for v in 0..V {
            let masked = !FULL && v + 1 == V;
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
) {
    let ops = isa.f32();
    for c in 0..channels {
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
