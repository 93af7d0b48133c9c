//! The packed weights of a convolution, in the forms that its algorithms read.

use std::ops::Range;
use std::sync::OnceLock;

use super::algorithm::{AlgorithmChoice, ConvAlgorithm, WinogradTile};
use super::gather::Window;
use super::geometry::ConvGeometry;
use super::grouped::weights::GroupedWeights;
use super::kernels::{KernelPlace, Kernels};
use super::layout::{BlockedLayout, Unit};
use super::problem::Problem;
use super::strassen::weights::QuarterSums;
use super::winograd::weights::TransformedWeights;
use crate::context::Context;
use crate::isa::Isa;
use crate::memory::AlignedVec;
use crate::shared_mut::SharedMut;

/// Packed weights of a convolution, or of a phase of its gradient.
///
/// Which form an image needs depends on its size, so all forms that were needed so far are kept.
#[derive(Clone, Debug)]
pub(super) struct PackedWeights {
    pub layout: BlockedLayout,
    choice: AlgorithmChoice,
    /// In the order of `layout`, for all algorithms but the grouped one; empty for that one.
    data: AlignedVec,
    grouped: Option<GroupedWeights>,
    /// For Winograd's algorithm with tiles of 4×4 and of 2×2 outputs; made by the first product
    /// that is computed so, or when the weights are packed.
    transformed: [OnceLock<TransformedWeights>; 2],
    /// For Strassen's algorithm; made by the first product that is computed so.
    quarter_sums: OnceLock<QuarterSums>,
}

impl PackedWeights {
    /// Room for weights in the order of `layout` that are used through `window`.
    pub fn zeros(
        ctx: &Context,
        layout: BlockedLayout,
        geometry: &ConvGeometry,
        window: &Window,
    ) -> Self {
        let choice = ctx.algorithms();
        let width = choice.group_width(geometry, &layout, window);
        let channels = layout.groups * layout.group_in;
        let transformed = [const { OnceLock::new() }; 2];
        if width.is_none() && choice.transforms_when_packed(&layout, window) {
            let tile = WinogradTile::Four;
            let weights = TransformedWeights::zeros(ctx, tile, layout);
            transformed[index(tile)].get_or_init(|| weights);
        }
        PackedWeights {
            layout,
            choice,
            data: ctx.lasting(if width.is_some() { 0 } else { layout.len() }),
            grouped: width.map(|width| GroupedWeights::zeros(ctx, channels, width, layout.taps)),
            transformed,
            quarter_sums: OnceLock::new(),
        }
    }

    /// Takes the weights from where `kernels` finds them.
    pub fn fill(&mut self, ctx: &Context, kernels: &Kernels<'_, impl KernelPlace>) {
        let layout = self.layout;
        if let Some(grouped) = &mut self.grouped {
            return grouped.fill(kernels, layout.group_in);
        }
        let data = SharedMut::new(&mut self.data);
        ctx.parallel(layout.units(), |unit| {
            let (group, block) = layout.unit(unit);
            let width = block.vectors * layout.lanes();
            // SAFETY: units have disjoint weights, and each runs once.
            let out = unsafe { data.slice(layout.range(unit)) };
            for channel in 0..layout.group_in {
                let (row, step) = layout.kernel_rows(channel);
                // Lanes beyond the channels stay the zeros that they were made as.
                for i in 0..block.channels {
                    let output = group * layout.group_out + block.first + i;
                    let place = (kernels.place)(output, channel);
                    for (tap, offset) in kernels.taps.iter().enumerate() {
                        out[(row + tap * step) * width + i] =
                            place.map_or(0.0, |place| kernels.weights[place + offset]);
                    }
                }
            }
        });
        for transformed in self.transformed.iter_mut().filter_map(OnceLock::get_mut) {
            transformed.fill(ctx, &layout, &self.data);
        }
        if let Some(sums) = self.quarter_sums.get_mut() {
            sums.fill(ctx, &layout, &self.data);
        }
    }

    /// The instruction set that the weights are packed for.
    pub fn isa(&self) -> Isa {
        self.choice.isa()
    }

    /// The algorithm that computes a problem with these weights.
    pub fn algorithm(&self, problem: &Problem) -> ConvAlgorithm {
        if self.grouped.is_some() {
            ConvAlgorithm::Grouped
        } else {
            self.choice.of_dense(&self.layout, problem)
        }
    }

    /// The weights for the grouped algorithm, if it is the one for them.
    ///
    /// # Panics
    ///
    /// If it is not.
    pub fn grouped(&self) -> &GroupedWeights {
        let grouped = self.grouped.as_ref();
        grouped.expect("weights are packed for groups where the grouped algorithm is chosen")
    }

    /// The weights for Winograd's algorithm.
    pub fn transformed(&self, ctx: &Context, tile: WinogradTile) -> &TransformedWeights {
        self.transformed[index(tile)].get_or_init(|| {
            let mut transformed = TransformedWeights::zeros(ctx, tile, self.layout);
            transformed.fill(ctx, &self.layout, &self.data);
            transformed
        })
    }

    /// The sums of weights for Strassen's algorithm.
    pub fn quarter_sums(&self, ctx: &Context) -> &QuarterSums {
        self.quarter_sums
            .get_or_init(|| QuarterSums::new(ctx, &self.layout, &self.data))
    }

    /// All weights of the unit of this number.
    #[inline(always)]
    pub fn of_unit(&self, unit: usize) -> &[f32] {
        &self.data[self.layout.range(unit)]
    }

    /// The weights of a unit between `channels` of the group's input channels, the first a
    /// multiple of a channel block.
    #[inline(always)]
    pub fn of(&self, unit: &Unit, channels: Range<usize>) -> &[f32] {
        let channel = self.layout.taps * unit.row;
        &self.data[unit.weights + channels.start * channel..unit.weights + channels.end * channel]
    }

    pub fn bytes(&self) -> usize {
        let transformed = self.transformed.iter().filter_map(OnceLock::get);
        size_of_val::<[f32]>(&self.data)
            + self.grouped.as_ref().map_or(0, GroupedWeights::bytes)
            + transformed.map(TransformedWeights::bytes).sum::<usize>()
            + self.quarter_sums.get().map_or(0, QuarterSums::bytes)
    }

    /// # Panics
    ///
    /// If the weights were packed for another instruction set than the context's, or with another
    /// algorithm forced.
    pub fn assert_packed_for(&self, ctx: &Context) {
        assert_eq!(
            self.choice,
            ctx.algorithms(),
            "weights packed for another instruction set or algorithm"
        );
    }
}

/// The place of a tile size's transformed weights.
fn index(tile: WinogradTile) -> usize {
    match tile {
        WinogradTile::Four => 0,
        WinogradTile::Two => 1,
    }
}
