//! The kernel transform.

use std::ops::Range;

use rten_simd::ops::BitOps;
use rten_simd::{Isa, SimdOp};

use super::transforms::{F2, F4, Transforms};
use crate::context::Context;
use crate::conv::algorithm::WinogradTile;
use crate::conv::layout::BlockedLayout;
use crate::conv::tuning::WINOGRAD_PREFETCH_FLOATS;
use crate::memory::AlignedVec;
use crate::shared_mut::SharedMut;

/// Transformed weights, `[panel][point]`: for each panel in turn, its matrices (as a panel of
/// `layout`, which has one tap) at all points. A panel's products read them in this order.
#[derive(Clone, Debug)]
pub(in crate::conv) struct TransformedWeights {
    tile: WinogradTile,
    layout: BlockedLayout,
    data: AlignedVec,
}

impl TransformedWeights {
    /// Zero weights for a layout of nine taps and tiles of this size.
    pub fn zeros(ctx: &Context, tile: WinogradTile, layout: BlockedLayout) -> Self {
        let layout = layout.with_taps(1);
        let data = ctx.persistent(tile.points() * layout.len());
        TransformedWeights { tile, layout, data }
    }

    /// Transforms weights in the order of `packed_layout`, which has nine taps.
    pub fn fill(&mut self, ctx: &Context, packed_layout: &BlockedLayout, packed: &[f32]) {
        let layout = self.layout;
        let data = SharedMut::new(&mut self.data);
        ctx.parallel(layout.panels(), |panel| {
            ctx.dispatch(TransformKernels {
                tile: self.tile,
                layout,
                data,
                panel,
                packed_layout,
                packed: &packed[packed_layout.range(panel)],
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

    /// A panel's matrix at a point.
    pub(super) fn panel(&self, point: usize, panel: usize) -> &[f32] {
        &self.data[self.range(point, panel)]
    }

    /// The weights to prefetch while a panel's matrix at a point is used: as many as it has, about
    /// [`WINOGRAD_PREFETCH_FLOATS`] ahead, rounded up to whole matrices.
    pub(super) fn to_prefetch(&self, point: usize, panel: usize) -> &[f32] {
        let Range { start, end } = self.range(point, panel);
        let len = end - start;
        let start = start + WINOGRAD_PREFETCH_FLOATS.next_multiple_of(len);
        // The last weights are followed by the first, for the thread's next task.
        let rest = self.data.get(start..start + len);
        rest.unwrap_or(&self.data[..len])
    }

    fn range(&self, point: usize, panel: usize) -> Range<usize> {
        let panel = self.layout.range(panel);
        let start = panel.start * self.tile.points() + point * panel.len();
        start..start + panel.len()
    }
}

/// Transforms the kernels of a panel. No other thread may access the transformed panel meanwhile.
struct TransformKernels<'a> {
    tile: WinogradTile,
    layout: BlockedLayout,
    data: SharedMut<'a, f32>,
    panel: usize,
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
    fn run<I: Isa, F: Transforms<M, N>, const M: usize, const N: usize>(self, isa: I) {
        let ops = isa.f32();
        let lanes = ops.len();
        let TransformKernels { layout, data, .. } = self;
        let (_, block) = layout.panel(self.panel);
        let width = block.vectors * lanes;
        let panel = layout.range(self.panel);
        for input in 0..layout.group_in {
            let row = panel.start * N * N + layout.rows_of_input(input).0 * width;
            let (packed_row, step) = self.packed_layout.rows_of_input(input);
            for v in 0..block.vectors {
                let mut lines = [[ops.zero(); 3]; N];
                for c in 0..3 {
                    let tap = |r: usize| {
                        let row = packed_row + (r * 3 + c) * step;
                        ops.load(&self.packed[row * width + v * lanes..])
                    };
                    let line = F::transform_kernel(isa, [tap(0), tap(1), tap(2)]);
                    for r in 0..N {
                        lines[r][c] = line[r];
                    }
                }
                for (r, line) in lines.into_iter().enumerate() {
                    for (c, value) in F::transform_kernel(isa, line).into_iter().enumerate() {
                        let at = (r * N + c) * panel.len() + row + v * lanes;
                        // SAFETY: panels have disjoint weights, and the caller has this one.
                        ops.store(value, unsafe { data.slice(at..at + lanes) });
                    }
                }
            }
        }
    }
}
