//! The loops under every kernel that is bound by memory rather than
//! arithmetic: an expression over a few long arrays ([`Sweep`]) and a sum of
//! such expressions for each channel ([`Fold`]).
//!
//! Channels are the fastest axis of NHWC, so a per-channel parameter recurs
//! with the period of the channel count, which need not be a multiple of the
//! vector width: 3, 17 and 40 all occur. Rather than finish each pixel with a
//! masked vector, which for 3 channels would waste most of every vector,
//! parameters are repeated into a *tile* that holds a whole number of pixels
//! and of vectors; the arrays are then walked tile by tile.

use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Elem, Isa, Simd, SimdOp};

use crate::context::{Context, SharedMut};

/// The widest vector of any instruction set, in f32 lanes. Tiles are built for
/// it whatever set runs, so that they do not depend on the machine.
const WIDEST: usize = 16;

/// Length of the tile of a [`Sweep`], long so that the work at a tile's end is
/// small beside the work inside it.
pub(crate) fn sweep_tile_len(channels: usize) -> usize {
    tile_len(channels, 16 * WIDEST)
}

/// Length of the tile of a [`Fold`], short so that one set of registers holds
/// it and the arrays are read from front to back.
pub(crate) fn fold_tile_len(channels: usize) -> usize {
    tile_len(channels, COLUMNS * WIDEST)
}

/// A whole number of pixels, and of vectors too unless a pixel alone is so long
/// that its remainder does not matter.
fn tile_len(channels: usize, shortest: usize) -> usize {
    if channels >= shortest {
        return channels;
    }
    // WIDEST is a power of two, so what it shares with a number is that
    // number's lowest set bit, up to WIDEST itself.
    let shared = (1 << channels.trailing_zeros()).min(WIDEST);
    let whole = channels * WIDEST / shared;
    whole * shortest.div_ceil(whole)
}

/// Repeats `parameter` (one value a channel) over `tile`.
pub(crate) fn fill_tile(parameter: &[f32], tile: &mut [f32]) {
    for pixel in tile.chunks_exact_mut(parameter.len()) {
        pixel.copy_from_slice(parameter);
    }
}

/// `max(x, 0)` that keeps NaN, which the machine's own maximum may not.
#[inline(always)]
pub(crate) fn relu<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let ops = isa.f32();
    ops.select(ops.zero(), x, ops.le(x, ops.zero()))
}

/// An expression evaluated lane by lane.
///
/// `old` holds what the outputs contain before, `streams` the inputs that are
/// as long as the outputs, `tiles` the per-channel parameters; the result is
/// what the outputs are to contain.
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

/// Elements of one output that a thread takes at a time.
const TASK: usize = 32 * 1024;

/// Evaluates an expression for every element of `outputs`, on all threads.
///
/// All of `outputs` and `streams` have one length; `tiles` have the length
/// [`sweep_tile_len`].
///
/// # Panics
/// If they do not.
pub(crate) fn sweep<E, const OUT: usize, const IN: usize, const TILES: usize>(
    ctx: &Context,
    expression: E,
    outputs: [&mut [f32]; OUT],
    streams: [&[f32]; IN],
    tiles: [&[f32]; TILES],
) where
    E: Expression<OUT, IN, TILES>,
{
    let len = outputs[0].len();
    for (i, stream) in streams.iter().enumerate() {
        assert_eq!(stream.len(), len, "length of input {i} is not the output's");
    }
    for (i, output) in outputs.iter().enumerate() {
        assert_eq!(
            output.len(),
            len,
            "length of output {i} is not the first one's"
        );
    }
    let tile_len = tiles.first().map_or(1, |tile| tile.len());
    let task_len = tile_len * (TASK / tile_len).max(1);
    let outputs = outputs.map(SharedMut::new);
    ctx.parallel(len.div_ceil(task_len), |task| {
        let range = task * task_len..len.min((task + 1) * task_len);
        ctx.dispatch(Sweep {
            expression,
            // SAFETY: each task runs once, and their ranges do not overlap.
            outputs: outputs.map(|output| unsafe { output.slice(range.clone()) }),
            streams: streams.map(|stream| &stream[range.clone()]),
            tiles,
        });
    });
}

/// What [`sweep`] does with a part of the arrays that starts where a tile does.
struct Sweep<'a, E, const OUT: usize, const IN: usize, const TILES: usize> {
    expression: E,
    outputs: [&'a mut [f32]; OUT],
    streams: [&'a [f32]; IN],
    tiles: [&'a [f32]; TILES],
}

impl<E, const OUT: usize, const IN: usize, const TILES: usize> SimdOp
    for Sweep<'_, E, OUT, IN, TILES>
where
    E: Expression<OUT, IN, TILES>,
{
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self {
            expression,
            mut outputs,
            streams,
            tiles,
        } = self;
        let len = outputs[0].len();
        let tile_len = tiles.first().map_or(len, |tile| tile.len());
        let mut start = 0;
        while start < len {
            let end = len.min(start + tile_len);
            block(
                isa,
                expression,
                outputs.each_mut().map(|output| &mut output[start..end]),
                streams.map(|stream| &stream[start..end]),
                tiles.map(|tile| &tile[..end - start]),
            );
            start = end;
        }
    }
}

/// Sums an expression over pixels: evaluates it for every element of
/// `streams`, one tile after another, with the accumulators (one tile long) as
/// its outputs.
///
/// All of `streams` have one length, a multiple of the channel count.
pub(crate) struct Fold<'a, E, const OUT: usize, const IN: usize, const TILES: usize> {
    pub expression: E,
    pub accumulators: [&'a mut [f32]; OUT],
    pub streams: [&'a [f32]; IN],
    pub tiles: [&'a [f32]; TILES],
}

/// Vectors of a tile that [`Fold`] keeps in registers at a time: enough to
/// hide the latency of the additions.
const COLUMNS: usize = 4;

/// Elements that [`Fold`] passes over with one set of registers, so that they
/// are still in the first-level cache for the next set.
const BLOCK: usize = 4096;

impl<E, const OUT: usize, const IN: usize, const TILES: usize> SimdOp
    for Fold<'_, E, OUT, IN, TILES>
where
    E: Expression<OUT, IN, TILES>,
{
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self {
            expression,
            mut accumulators,
            streams,
            tiles,
        } = self;
        let len = streams[0].len();
        let tile_len = accumulators[0].len();
        assert!(
            accumulators.iter().all(|sum| sum.len() == tile_len)
                && tiles.iter().all(|tile| tile.len() == tile_len)
                && streams.iter().all(|stream| stream.len() == len),
            "arrays of one sum differ in length"
        );
        let lanes = isa.f32().len();
        let block_len = tile_len * (BLOCK / tile_len).max(8);
        let whole = len - len % tile_len;
        let mut start = 0;
        while start < whole {
            let end = whole.min(start + block_len);
            let rows = streams.map(|stream| &stream[start..end]);
            let mut column = 0;
            while column + COLUMNS * lanes <= tile_len {
                fold_columns::<_, _, COLUMNS, OUT, IN, TILES>(
                    isa,
                    expression,
                    accumulators.each_mut().map(|sum| &mut **sum),
                    rows,
                    tiles,
                    column,
                );
                column += COLUMNS * lanes;
            }
            while column < tile_len {
                fold_columns::<_, _, 1, OUT, IN, TILES>(
                    isa,
                    expression,
                    accumulators.each_mut().map(|sum| &mut **sum),
                    rows,
                    tiles,
                    column,
                );
                column += lanes;
            }
            start = end;
        }
        block(
            isa,
            expression,
            accumulators.each_mut().map(|sum| &mut sum[..len - whole]),
            streams.map(|stream| &stream[whole..]),
            tiles.map(|tile| &tile[..len - whole]),
        );
    }
}

/// Folds `V` vectors of each tile, from `column` on, over all tiles of
/// `streams`; a single vector may reach past the tile's end.
#[inline(always)]
fn fold_columns<I, E, const V: usize, const OUT: usize, const IN: usize, const TILES: usize>(
    isa: I,
    expression: E,
    accumulators: [&mut [f32]; OUT],
    streams: [&[f32]; IN],
    tiles: [&[f32]; TILES],
    column: usize,
) where
    I: Isa,
    E: Expression<OUT, IN, TILES>,
{
    let ops = isa.f32();
    let lanes = ops.len();
    let tile_len = accumulators[0].len();
    let len = streams[0].len();
    assert!(len.is_multiple_of(tile_len) && (V == 1 || column + V * lanes <= tile_len));
    assert!(
        accumulators.iter().all(|sum| sum.len() == tile_len)
            && tiles.iter().all(|tile| tile.len() == tile_len)
            && streams.iter().all(|stream| stream.len() == len)
    );
    let mask = (column + V * lanes > tile_len).then(
        #[inline(always)]
        || ops.first_n_mask(tile_len - column),
    );

    let mut sums = [[ops.zero(); OUT]; V];
    let mut parameters = [[ops.zero(); TILES]; V];
    for v in 0..V {
        for i in 0..OUT {
            // SAFETY: the tile holds V vectors from `column` on, or what the mask admits.
            sums[v][i] =
                unsafe { load(ops, accumulators[i].as_ptr().add(column + v * lanes), mask) };
        }
        for i in 0..TILES {
            // SAFETY: as above.
            parameters[v][i] =
                unsafe { load(ops, tiles[i].as_ptr().add(column + v * lanes), mask) };
        }
    }
    let mut start = 0;
    while start < len {
        for v in 0..V {
            let mut inputs = [ops.zero(); IN];
            for i in 0..IN {
                let at = start + column + v * lanes;
                // SAFETY: the stream holds a whole tile from `start` on.
                inputs[i] = unsafe { load(ops, streams[i].as_ptr().add(at), mask) };
            }
            sums[v] = expression.eval(isa, sums[v], inputs, parameters[v]);
        }
        start += tile_len;
    }
    for (i, accumulator) in accumulators.into_iter().enumerate() {
        for (v, sums) in sums.iter().enumerate() {
            let at = column + v * lanes;
            // SAFETY: as for loading; the slice is borrowed mutably.
            unsafe {
                match mask {
                    Some(mask) => {
                        ops.store_ptr_mask(sums[i], accumulator.as_mut_ptr().add(at), mask)
                    }
                    None => ops.store_ptr(sums[i], accumulator.as_mut_ptr().add(at)),
                }
            }
        }
    }
}

/// A vector from `from` on, or the lanes of it that `mask` admits.
///
/// # Safety
/// Those lanes must be readable.
#[inline(always)]
unsafe fn load<O: BitOps<f32>>(
    ops: O,
    from: *const f32,
    mask: Option<<O::Simd as Simd>::Mask>,
) -> O::Simd {
    // SAFETY: the caller's promise.
    unsafe {
        match mask {
            Some(mask) => ops.load_ptr_mask(from, mask),
            None => ops.load_ptr(from),
        }
    }
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
            // SAFETY: the mask admits the len - at elements that are left.
            unsafe { ops.store_ptr_mask(new[i], outputs[i].as_mut_ptr().add(at), mask) };
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

/// Writes `vector` to the start of `values`, as far as that reaches.
#[inline(always)]
pub(crate) fn store_up_to<T: Elem, O: BitOps<T>>(ops: O, vector: O::Simd, values: &mut [T]) {
    if values.len() >= ops.len() {
        ops.store(vector, values);
    } else {
        let mask = ops.first_n_mask(values.len());
        // SAFETY: the mask admits no more lanes than `values` has elements.
        unsafe { ops.store_ptr_mask(vector, values.as_mut_ptr(), mask) };
    }
}
