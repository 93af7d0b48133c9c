//! The right operands of Strassen's products: sums of quadrants of the weights.

use crate::context::Context;
use crate::conv::layout::BlockedLayout;
use crate::memory::AlignedVec;
use crate::shared_mut::SharedMut;

/// `T2`, `T3`, `T4` and `T1` of each pair of panels: one of the first half of the output channels,
/// and its partner in the second half, at the same position there.
#[derive(Clone, Debug)]
pub(in crate::conv) struct QuadrantSums {
    quadrant: BlockedLayout,
    data: AlignedVec,
}

impl QuadrantSums {
    /// The sums for packed weights in the order of `layout`.
    pub fn new(ctx: &Context, layout: &BlockedLayout, packed: &[f32]) -> Self {
        let quadrant = layout.quadrant();
        let data = ctx.persistent(4 * quadrant.len());
        let mut sums = QuadrantSums { quadrant, data };
        sums.fill(ctx, layout, packed);
        sums
    }

    /// Recomputes the sums for other weights.
    pub fn fill(&mut self, ctx: &Context, layout: &BlockedLayout, packed: &[f32]) {
        let panels = self.quadrant.panels();
        let len = self.quadrant.range(0).len();
        let data = SharedMut::new(&mut self.data);
        ctx.parallel(panels, |panel| {
            let [(b11, b21), (b12, b22)] =
                [panel, panel + panels].map(|panel| packed[layout.range(panel)].split_at(len));
            // SAFETY: panels have disjoint sums, and each runs once.
            let out = unsafe { data.slice(4 * panel * len..4 * (panel + 1) * len) };
            let (t2_t3, t4_t1) = out.split_at_mut(2 * len);
            let ((t2, t3), (t4, t1)) = (t2_t3.split_at_mut(len), t4_t1.split_at_mut(len));
            for i in 0..len {
                t1[i] = b12[i] - b11[i];
                t2[i] = b22[i] - t1[i];
                t3[i] = b22[i] - b12[i];
                t4[i] = b21[i] - t2[i];
            }
        });
    }

    pub fn bytes(&self) -> usize {
        size_of_val::<[f32]>(&self.data)
    }

    /// The layout of one quadrant of the weights.
    pub fn quadrant(&self) -> &BlockedLayout {
        &self.quadrant
    }

    /// `T2`, `T3`, `T4` and `T1` of a pair of panels.
    #[inline(always)]
    pub fn of_panel(&self, panel: usize) -> [&[f32]; 4] {
        let len = self.quadrant.range(0).len();
        [0, 1, 2, 3].map(|i| &self.data[(4 * panel + i) * len..][..len])
    }
}
