//! Per-channel sums over pixels, in an order that does not depend on the
//! number of threads.

use std::ops::Range;

use crate::context::Context;
use crate::lanes::fold_tile_len;

/// Tiles of a chunk, which is summed in f32 before it is added in f64: few, to
/// keep rounding errors small, but enough to make the conversion cheap.
const CHUNK_TILES: usize = 128;

/// Parts of the pixels that are summed in parallel. Fixed, as the order of the
/// additions must not depend on the number of threads.
const PARTS: usize = 32;

/// Computes `SUMS` sums per channel over all pixels and passes the totals to
/// `finish`.
///
/// `add(elements, before, sums)` adds a chunk, a range of elements; `before` is
/// the number of pixels already in `sums`.
pub(super) fn channel_sums<const SUMS: usize>(
    ctx: &Context,
    channels: usize,
    pixels: usize,
    add: impl Fn(Range<usize>, usize, [&mut [f64]; SUMS]) + Sync,
    finish: impl FnOnce([&mut [f64]; SUMS]),
) {
    let chunk = CHUNK_TILES * fold_tile_len(channels) / channels;
    let part = pixels.div_ceil(chunk).div_ceil(PARTS).max(1) * chunk;
    let parts = pixels.div_ceil(part).max(1);
    let part_sums = SUMS * channels;
    let mut scratch = ctx.scratch(2 * parts * part_sums);
    let partial = doubles(&mut scratch);
    partial.fill(0.0);
    ctx.parallel_chunks(partial, part_sums, |i, sums| {
        let begin = i * part;
        let end = pixels.min(begin + part);
        for start in (begin..end).step_by(chunk) {
            let elements = start * channels..end.min(start + chunk) * channels;
            add(elements, start - begin, split(sums, channels));
        }
    });
    let (totals, others) = partial.split_at_mut(part_sums);
    for other in others.chunks_exact(part_sums) {
        for (total, other) in totals.iter_mut().zip(other) {
            *total += other;
        }
    }
    finish(split(totals, channels));
}

/// An even number of floats reinterpreted as half as many f64.
fn doubles(floats: &mut [f32]) -> &mut [f64] {
    // SAFETY: an f64 has no invalid bit patterns.
    let (before, doubles, after) = unsafe { floats.align_to_mut() };
    // Working memory is aligned to a cache line.
    assert!(before.is_empty() && after.is_empty());
    doubles
}

fn split<const SUMS: usize>(sums: &mut [f64], channels: usize) -> [&mut [f64]; SUMS] {
    let mut rest = sums;
    std::array::from_fn(|_| {
        let (sum, others) = std::mem::take(&mut rest).split_at_mut(channels);
        rest = others;
        sum
    })
}

/// Adds the accumulators of a [`crate::lanes::Fold`] to the per-channel sums.
pub(super) fn add_tile(tile: &[f32], sums: &mut [f64]) {
    for pixel in tile.chunks_exact(sums.len()) {
        for (sum, &value) in sums.iter_mut().zip(pixel) {
            *sum += f64::from(value);
        }
    }
}
