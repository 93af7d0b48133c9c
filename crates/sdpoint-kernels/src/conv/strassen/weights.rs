//! Sums of weights.

use crate::context::Context;
use crate::conv::layout::BlockedLayout;
use crate::memory::AlignedVec;
use crate::shared_mut::SharedMut;

/// `T2`, `T3`, `T4` and `T1` of each pair of units, one after the other.
#[derive(Clone, Debug)]
pub(in crate::conv) struct QuarterSums {
    quarter: BlockedLayout,
    data: AlignedVec,
}

impl QuarterSums {
    /// The sums of weights in the order of `layout`.
    pub fn new(ctx: &Context, layout: &BlockedLayout, packed: &[f32]) -> Self {
        let quarter = layout.quarter();
        let data = ctx.lasting(4 * quarter.len());
        let mut sums = QuarterSums { quarter, data };
        sums.fill(ctx, layout, packed);
        sums
    }

    /// Replaces the weights that the sums are of without allocating.
    pub fn fill(&mut self, ctx: &Context, layout: &BlockedLayout, packed: &[f32]) {
        let units = self.quarter.units();
        let len = self.quarter.range(0).len();
        let data = SharedMut::new(&mut self.data);
        ctx.parallel(units, |unit| {
            let [(b11, b21), (b12, b22)] =
                [unit, unit + units].map(|unit| packed[layout.range(unit)].split_at(len));
            // SAFETY: units have disjoint sums, and each runs once.
            let out = unsafe { data.slice(4 * unit * len..4 * (unit + 1) * len) };
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

    /// The layout of a quarter of the weights.
    pub fn quarter(&self) -> &BlockedLayout {
        &self.quarter
    }

    /// `T2`, `T3`, `T4` and `T1` of a pair of units.
    #[inline(always)]
    pub fn of_unit(&self, unit: usize) -> [&[f32]; 4] {
        let len = self.quarter.range(0).len();
        [0, 1, 2, 3].map(|i| &self.data[(4 * unit + i) * len..][..len])
    }
}
