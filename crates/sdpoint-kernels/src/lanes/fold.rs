//! Per-channel sums of an expression.

use rten_simd::ops::BitOps;
use rten_simd::{Isa, SimdOp};

use super::{Expression, block, load_masked, mask_of, parts, parts_mut, store_masked};

/// Sums an expression over pixels: evaluates it for every element of
/// `streams`, tile by tile, with the accumulators (one tile long) as its
/// outputs. A tile holds several pixels; adding those of an accumulator is
/// left to the caller.
///
/// All of `streams` have the same length, a multiple of the channel count.
pub(crate) struct Fold<'a, E, const OUT: usize, const IN: usize, const TILES: usize> {
    pub expression: E,
    pub accumulators: [&'a mut [f32]; OUT],
    pub streams: [&'a [f32]; IN],
    pub tiles: [&'a [f32]; TILES],
}

/// Vectors of a tile that [`Fold`] accumulates in registers at once: enough to
/// hide the latency of the additions.
pub(super) const COLUMNS: usize = 4;

/// Elements of a block of a stream, 16 KB. [`Fold`] reads a block once for each
/// set of `COLUMNS` vectors, the first time from memory and then from L1.
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
            let rows = parts(&streams, start..end);
            let mut column = 0;
            while column + COLUMNS * lanes <= tile_len {
                fold_columns::<_, _, COLUMNS, OUT, IN, TILES>(
                    isa,
                    expression,
                    parts_mut(&mut accumulators, 0..tile_len),
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
                    parts_mut(&mut accumulators, 0..tile_len),
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
            parts_mut(&mut accumulators, 0..len - whole),
            parts(&streams, whole..len),
            parts(&tiles, 0..len - whole),
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
    let mask = if V == 1 {
        mask_of(isa, tile_len - column)
    } else {
        None
    };

    let mut sums = [[ops.zero(); OUT]; V];
    let mut parameters = [[ops.zero(); TILES]; V];
    for v in 0..V {
        for i in 0..OUT {
            // SAFETY: the tile holds V vectors from `column` on, or those lanes that the mask
            // selects.
            sums[v][i] =
                unsafe { load_masked(isa, accumulators[i].as_ptr().add(column + v * lanes), mask) };
        }
        for i in 0..TILES {
            // SAFETY: as above.
            parameters[v][i] =
                unsafe { load_masked(isa, tiles[i].as_ptr().add(column + v * lanes), mask) };
        }
    }
    let mut start = 0;
    while start < len {
        for v in 0..V {
            let mut inputs = [ops.zero(); IN];
            for i in 0..IN {
                let at = start + column + v * lanes;
                // SAFETY: the stream holds a whole tile from `start` on.
                inputs[i] = unsafe { load_masked(isa, streams[i].as_ptr().add(at), mask) };
            }
            sums[v] = expression.eval(isa, sums[v], inputs, parameters[v]);
        }
        start += tile_len;
    }
    for (i, accumulator) in accumulators.into_iter().enumerate() {
        for (v, sums) in sums.iter().enumerate() {
            let at = column + v * lanes;
            // SAFETY: as for loading; the slice is borrowed mutably.
            unsafe { store_masked(isa, sums[i], accumulator.as_mut_ptr().add(at), mask) };
        }
    }
}
