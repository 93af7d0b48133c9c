//! The loops of the kernels that are bound by memory bandwidth: an expression
//! over a few long arrays ([`sweep()`]), and per-channel sums of an expression
//! ([`Fold`]).
//!
//! Channels are the fastest axis of NHWC, so per-channel parameters repeat
//! with a period of the channel count, which need not be a multiple of the
//! vector width: 3, 17 and 40 all occur. A masked vector at the end of each
//! pixel would waste most lanes with 3 channels. Instead, parameters are
//! repeated into a *tile* (here not a register block) that holds a whole
//! number of pixels and of vectors, and arrays are processed tile by tile.

mod fold;
mod sweep;

use std::ops::Range;

use rten_simd::ops::BitOps;
use rten_simd::{Elem, Isa, Simd};

use crate::array::array;

pub(crate) use fold::Fold;
pub(crate) use sweep::sweep;

/// The widest vector of any instruction set, in f32 lanes. All instruction
/// sets use tiles of the same length, a multiple of it.
const WIDEST: usize = 16;

/// Length of the tile of a [`sweep()`]: long, to make the loop overhead per tile
/// small.
pub(crate) fn sweep_tile_len(channels: usize) -> usize {
    tile_len(channels, 16 * WIDEST)
}

/// Length of the tile of a [`Fold`]: short, so that its accumulators fit in
/// registers and the arrays are read sequentially.
pub(crate) fn fold_tile_len(channels: usize) -> usize {
    tile_len(channels, fold::COLUMNS * WIDEST)
}

/// A whole number of pixels of at least `shortest` floats in total; also a
/// whole number of vectors, unless a single pixel is that long.
fn tile_len(channels: usize, shortest: usize) -> usize {
    if channels >= shortest {
        return channels;
    }
    // WIDEST is a power of two, so its greatest common divisor with a number
    // is that number's lowest set bit, at most WIDEST.
    let shared = (1 << channels.trailing_zeros()).min(WIDEST);
    let whole = channels * WIDEST / shared;
    whole * shortest.div_ceil(whole)
}

/// Repeats `parameter` (one value per channel) over `tile`.
pub(crate) fn fill_tile(parameter: &[f32], tile: &mut [f32]) {
    for pixel in tile.chunks_exact_mut(parameter.len()) {
        pixel.copy_from_slice(parameter);
    }
}

/// An expression evaluated lane by lane.
///
/// `old` is the previous content of the outputs, `streams` the inputs, which
/// are as long as the outputs, and `tiles` the per-channel parameters. Returns
/// the new content of the outputs.
pub(crate) trait Expression<const OUT: usize, const IN: usize, const TILES: usize>:
    Copy + Sync
{
    fn eval<I: Isa>(
        self,
        isa: I,
        old: [I::F32; OUT],
        streams: [I::F32; IN],
        tiles: [I::F32; TILES],
    ) -> [I::F32; OUT];
}

/// Evaluates an expression for every element of `outputs`; every slice has
/// their length.
#[inline(always)]
pub(crate) fn block<I, E, const OUT: usize, const IN: usize, const TILES: usize>(
    isa: I,
    expression: E,
    outputs: [&mut [f32]; OUT],
    streams: [&[f32]; IN],
    tiles: [&[f32]; TILES],
) where
    I: Isa,
    E: Expression<OUT, IN, TILES>,
{
    let ops = isa.f32();
    let len = outputs[0].len();
    assert!(
        outputs.iter().all(|output| output.len() == len)
            && streams.iter().chain(&tiles).all(|input| input.len() == len),
        "arrays of one expression differ in length"
    );
    let lanes = ops.len();
    let whole = len - len % lanes;
    let mut old = [ops.zero(); OUT];
    let mut inputs = [ops.zero(); IN];
    let mut parameters = [ops.zero(); TILES];

    let mut at = 0;
    while at < whole {
        // SAFETY: at + lanes <= whole <= len, the length of every slice.
        unsafe {
            for i in 0..OUT {
                old[i] = ops.load_ptr(outputs[i].as_ptr().add(at));
            }
            for i in 0..IN {
                inputs[i] = ops.load_ptr(streams[i].as_ptr().add(at));
            }
            for i in 0..TILES {
                parameters[i] = ops.load_ptr(tiles[i].as_ptr().add(at));
            }
        }
        let new = expression.eval(isa, old, inputs, parameters);
        for i in 0..OUT {
            // SAFETY: as above; the slice is borrowed mutably.
            unsafe { ops.store_ptr(new[i], outputs[i].as_mut_ptr().add(at)) };
        }
        at += lanes;
    }
    if at < len {
        let mask = ops.first_n_mask(len - at);
        for i in 0..OUT {
            old[i] = ops.load_pad(&outputs[i][at..]).0;
        }
        for i in 0..IN {
            inputs[i] = ops.load_pad(&streams[i][at..]).0;
        }
        for i in 0..TILES {
            parameters[i] = ops.load_pad(&tiles[i][at..]).0;
        }
        let new = expression.eval(isa, old, inputs, parameters);
        for i in 0..OUT {
            // SAFETY: the mask selects the len - at remaining elements.
            unsafe { ops.store_ptr_mask(new[i], outputs[i].as_mut_ptr().add(at), mask) };
        }
    }
}

/// The elements `range` of each slice.
#[inline(always)]
pub(crate) fn parts<'a, T, const N: usize>(
    slices: &[&'a [T]; N],
    range: Range<usize>,
) -> [&'a [T]; N] {
    array(|i| &slices[i][range.clone()])
}

/// The elements `range` of each slice.
#[inline(always)]
pub(crate) fn parts_mut<'a, T, const N: usize>(
    slices: &'a mut [&mut [T]; N],
    range: Range<usize>,
) -> [&'a mut [T]; N] {
    let mut slices = slices.iter_mut();
    array(|_| &mut slices.next().expect("N slices")[range.clone()])
}

/// The lanes to load or store; `None` for all.
pub(crate) type Mask<I> = Option<<<I as Isa>::F32 as Simd>::Mask>;

/// The mask of the first `count` lanes, or `None` if a vector has no more.
#[inline(always)]
pub(crate) fn mask_of<I: Isa>(isa: I, count: usize) -> Mask<I> {
    let ops = isa.f32();
    if count < ops.len() {
        Some(ops.first_n_mask(count))
    } else {
        None
    }
}

/// As [`mask_of`] on Arm, where a masked load takes a branch for each lane. On x86-64 it takes no
/// longer than any other, and there is always a mask.
#[inline(always)]
pub(crate) fn mask_if_slow<I: Isa>(isa: I, count: usize) -> Mask<I> {
    if cfg!(target_arch = "aarch64") {
        mask_of(isa, count)
    } else {
        Some(isa.f32().first_n_mask(count))
    }
}

/// Loads the lanes of a mask, and zero in the others.
///
/// # Safety
///
/// The lanes of the mask must be readable.
#[inline(always)]
pub(crate) unsafe fn load_masked<I: Isa>(isa: I, from: *const f32, mask: Mask<I>) -> I::F32 {
    // SAFETY: the caller's promise.
    unsafe {
        match mask {
            Some(mask) => isa.f32().load_ptr_mask(from, mask),
            None => isa.f32().load_ptr(from),
        }
    }
}

/// Stores the lanes of a mask.
///
/// # Safety
///
/// The lanes of the mask must be writable.
#[inline(always)]
pub(crate) unsafe fn store_masked<I: Isa>(isa: I, x: I::F32, to: *mut f32, mask: Mask<I>) {
    // SAFETY: the caller's promise.
    unsafe {
        match mask {
            Some(mask) => isa.f32().store_ptr_mask(x, to, mask),
            None => isa.f32().store_ptr(x, to),
        }
    }
}

/// The first vector of `values`; lanes past its end are 0.
#[inline(always)]
pub(crate) fn load_up_to<T: Elem, O: BitOps<T>>(ops: O, values: &[T]) -> O::Simd {
    if values.len() >= ops.len() {
        ops.load(values)
    } else {
        ops.load_pad(values).0
    }
}

/// Stores `vector` at the start of `values`, or as many lanes as fit.
#[inline(always)]
pub(crate) fn store_up_to<T: Elem, O: BitOps<T>>(ops: O, vector: O::Simd, values: &mut [T]) {
    if values.len() >= ops.len() {
        ops.store(vector, values);
    } else {
        let mask = ops.first_n_mask(values.len());
        // SAFETY: the mask selects no more lanes than `values` has elements.
        unsafe { ops.store_ptr_mask(vector, values.as_mut_ptr(), mask) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_hold_whole_pixels_and_vectors() {
        for channels in 1..400 {
            for shortest in [64, 256] {
                let len = tile_len(channels, shortest);
                assert!(len >= shortest && len.is_multiple_of(channels));
                assert!(len.is_multiple_of(WIDEST) || len == channels);
            }
        }
    }
}
