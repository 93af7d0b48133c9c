//! Transformed kernels.

use std::ops::Range;

use rten_simd::ops::BitOps;
use rten_simd::{Isa, SimdOp};

use super::lines::{F2, F4, Filter};
use crate::context::Context;
use crate::conv::algorithm::WinogradTile;
use crate::conv::layout::BlockedLayout;
use crate::conv::tuning::WINOGRAD_PREFETCH_FLOATS;
use crate::memory::AlignedVec;
use crate::shared_mut::SharedMut;

/// Transformed weights: the units of `layout` one after the other, and of each unit one matrix
/// for each of the points.
#[derive(Clone, Debug)]
pub(in crate::conv) struct TransformedWeights {
    tile: WinogradTile,
    layout: BlockedLayout,
    data: AlignedVec,
}

impl TransformedWeights {
    /// Room for the weights of a layout of nine taps, transformed for tiles of this size.
    pub fn zeros(ctx: &Context, tile: WinogradTile, layout: BlockedLayout) -> Self {
        let layout = layout.with_taps(1);
        let data = ctx.lasting(tile.points() * layout.len());
        TransformedWeights { tile, layout, data }
    }

    /// Transforms weights in the order of `packed_layout`, which has nine taps.
    pub fn fill(&mut self, ctx: &Context, packed_layout: &BlockedLayout, packed: &[f32]) {
        let layout = self.layout;
        let data = SharedMut::new(&mut self.data);
        ctx.parallel(layout.units(), |unit| {
            ctx.dispatch(TransformKernels {
                tile: self.tile,
                layout,
                data,
                unit,
                packed_layout,
                packed: &packed[packed_layout.range(unit)],
            });
        });
    }

    pub(super) fn tile(&self) -> WinogradTile {
        self.tile
    }

    pub(super) fn layout(&self) -> &BlockedLayout {
        &self.layout
    }

    pub fn bytes(&self) -> usize {
        size_of_val::<[f32]>(&self.data)
    }

    /// A unit's matrix at a point.
    pub(super) fn unit(&self, point: usize, unit: usize) -> &[f32] {
        &self.data[self.range(point, unit)]
    }

    /// The weights to prefetch while a unit's matrix at a point is used: the next matrix, or what
    /// is used when memory has answered.
    pub(super) fn to_prefetch(&self, point: usize, unit: usize) -> &[f32] {
        let Range { start, end } = self.range(point, unit);
        let len = end - start;
        let start = start + WINOGRAD_PREFETCH_FLOATS.next_multiple_of(len);
        // After the last weights come the first, for the thread's next task.
        let rest = self.data.get(start..start + len);
        rest.unwrap_or(&self.data[..len])
    }

    fn range(&self, point: usize, unit: usize) -> Range<usize> {
        let unit = self.layout.range(unit);
        let start = unit.start * self.tile.points() + point * unit.len();
        start..start + unit.len()
    }
}

/// Transforms the kernels of a unit. No other thread may store into the unit meanwhile.
struct TransformKernels<'a> {
    tile: WinogradTile,
    layout: BlockedLayout,
    data: SharedMut<'a, f32>,
    unit: usize,
    packed_layout: &'a BlockedLayout,
    packed: &'a [f32],
}

impl SimdOp for TransformKernels<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        match self.tile {
            WinogradTile::Two => self.run::<I, F2, 2, 4>(isa),
            WinogradTile::Four => self.run::<I, F4, 4, 6>(isa),
        }
    }
}

impl TransformKernels<'_> {
    #[inline(always)]
    fn run<I: Isa, F: Filter<M, N>, const M: usize, const N: usize>(self, isa: I) {
        let ops = isa.f32();
        let lanes = ops.len();
        let TransformKernels { layout, data, .. } = self;
        let (_, block) = layout.unit(self.unit);
        let width = block.vectors * lanes;
        let unit = layout.range(self.unit);
        for input in 0..layout.group_in {
            let row = unit.start * N * N + layout.kernel_rows(input).0 * width;
            let (packed_row, step) = self.packed_layout.kernel_rows(input);
            for v in 0..block.vectors {
                let mut lines = [[ops.zero(); 3]; N];
                for c in 0..3 {
                    let tap = |r: usize| {
                        let row = packed_row + (r * 3 + c) * step;
                        ops.load(&self.packed[row * width + v * lanes..])
                    };
                    let line = F::kernel_line(isa, [tap(0), tap(1), tap(2)]);
                    for r in 0..N {
                        lines[r][c] = line[r];
                    }
                }
                for (r, line) in lines.into_iter().enumerate() {
                    for (c, value) in F::kernel_line(isa, line).into_iter().enumerate() {
                        let at = (r * N + c) * unit.len() + row + v * lanes;
                        // SAFETY: units have disjoint weights, and the caller has this one.
                        ops.store(value, unsafe { data.slice(at..at + lanes) });
                    }
                }
            }
        }
    }
}
