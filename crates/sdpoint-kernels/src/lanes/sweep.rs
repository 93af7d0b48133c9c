//! An expression over long arrays.

use rten_simd::{Isa, SimdOp};

use super::{Expression, block, parts, parts_mut};
use crate::context::Context;
use crate::shared_mut::SharedMut;

/// Elements of an output per task.
const TASK: usize = 32 * 1024;

/// Evaluates an expression for every element of `outputs`, on all threads.
///
/// All of `outputs` and `streams` must have the same length, and all of
/// `tiles` the length [`super::sweep_tile_len`].
///
/// # Panics
/// If the lengths of `outputs` and `streams` differ.
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

/// A task of [`sweep`]: a part of the arrays that starts at a tile.
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
                parts_mut(&mut outputs, start..end),
                parts(&streams, start..end),
                parts(&tiles, 0..end - start),
            );
            start = end;
        }
    }
}
