//! The packed weights of a convolution, in the forms that the algorithms need.

use std::ops::Range;
use std::sync::OnceLock;

use super::algorithm::{AlgorithmChoice, ConvAlgorithm, WinogradTile};
use super::gather::ConvWindow;
use super::geometry::ConvGeometry;
use super::grouped::weights::GroupedWeights;
use super::kernels::{KernelPlace, Kernels};
use super::layout::{BlockedLayout, Panel};
use super::problem::Problem;
use super::strassen::weights::QuadrantSums;
use super::winograd::weights::TransformedWeights;
use crate::context::Context;
use crate::isa::Isa;
use crate::memory::AlignedVec;
use crate::shared_mut::SharedMut;

/// Packed weights of a convolution, or of a phase of its data gradient.
///
/// The algorithm, and so the form of the weights, depends on the batch size and the size of the
/// images. All forms needed so far are kept.
#[derive(Clone, Debug)]
pub(super) struct PackedWeights {
    pub layout: BlockedLayout,
    choice: AlgorithmChoice,
    /// In the order of `layout`; empty if the grouped algorithm is used, which needs no other form.
    data: AlignedVec,
    grouped: Option<GroupedWeights>,
    /// For F(4×4, 3×3) and F(2×2, 3×3); computed at packing time or by the first product that needs
    /// them.
    transformed: [OnceLock<TransformedWeights>; 2],
    /// For Strassen's algorithm; computed by the first product that needs them.
    quadrant_sums: OnceLock<QuadrantSums>,
}

impl PackedWeights {
    /// Zero weights in the order of `layout`, for products with this window.
    pub fn zeros(
        ctx: &Context,
        layout: BlockedLayout,
        geometry: &ConvGeometry,
        window: &ConvWindow,
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
            data: ctx.persistent(if width.is_some() { 0 } else { layout.len() }),
            grouped: width.map(|width| GroupedWeights::zeros(ctx, channels, width, layout.taps)),
            transformed,
            quadrant_sums: OnceLock::new(),
        }
    }

    /// Packs the weights from `kernels`, and updates all forms made so far.
    pub fn fill(&mut self, ctx: &Context, kernels: &Kernels<'_, impl KernelPlace>) {
        let layout = self.layout;
        if let Some(grouped) = &mut self.grouped {
            return grouped.fill(kernels, layout.group_in);
        }
        let data = SharedMut::new(&mut self.data);
        ctx.parallel(layout.panels(), |panel| {
            let (group, block) = layout.panel(panel);
            let width = block.vectors * layout.lanes();
            // SAFETY: panels have disjoint weights, and each runs once.
            let out = unsafe { data.slice(layout.range(panel)) };
            for first in (0..layout.group_in).step_by(layout.block) {
                let (row, channels) = layout.rows_of_input(first);
                let rows = &mut out[row * width..(row + layout.taps * channels) * width];
                // Unused lanes keep their initial zeros.
                for i in 0..block.channels {
                    let output = group * layout.group_out + block.first + i;
                    for (tap, rows) in rows.chunks_exact_mut(channels * width).enumerate() {
                        let column = rows[i..].iter_mut().step_by(width);
                        kernels.copy(output, first, tap, column);
                    }
                }
            }
        });
        for transformed in self.transformed.iter_mut().filter_map(OnceLock::get_mut) {
            transformed.fill(ctx, &layout, &self.data);
        }
        if let Some(sums) = self.quadrant_sums.get_mut() {
            sums.fill(ctx, &layout, &self.data);
        }
    }

    /// The instruction set that the weights are packed for.
    pub fn isa(&self) -> Isa {
        self.choice.isa()
    }

    /// The algorithm for a problem with these weights.
    pub fn algorithm(&self, problem: &Problem) -> ConvAlgorithm {
        if self.grouped.is_some() {
            ConvAlgorithm::Grouped
        } else {
            self.choice.of_dense(&self.layout, problem)
        }
    }

    /// The weights for the grouped algorithm.
    ///
    /// # Panics
    ///
    /// If the weights are packed for another algorithm.
    pub fn grouped(&self) -> &GroupedWeights {
        let grouped = self.grouped.as_ref();
        grouped.expect("weights are packed for groups where the grouped algorithm is chosen")
    }

    /// The weights for Winograd's algorithm, transformed now if they were not before.
    pub fn transformed(&self, ctx: &Context, tile: WinogradTile) -> &TransformedWeights {
        self.transformed[index(tile)].get_or_init(|| {
            let mut transformed = TransformedWeights::zeros(ctx, tile, self.layout);
            transformed.fill(ctx, &self.layout, &self.data);
            transformed
        })
    }

    /// The sums of quadrants for Strassen's algorithm, computed now if they were not before.
    pub fn quadrant_sums(&self, ctx: &Context) -> &QuadrantSums {
        self.quadrant_sums
            .get_or_init(|| QuadrantSums::new(ctx, &self.layout, &self.data))
    }

    /// All weights of a panel.
    #[inline(always)]
    pub fn of_panel(&self, panel: usize) -> &[f32] {
        &self.data[self.layout.range(panel)]
    }

    /// A panel's weights for a range of the group's input channels, which starts at the start of a
    /// channel block.
    #[inline(always)]
    pub fn of(&self, panel: &Panel, channels: Range<usize>) -> &[f32] {
        let channel = self.layout.taps * panel.row;
        &self.data[panel.weights + channels.start * channel..panel.weights + channels.end * channel]
    }

    pub fn bytes(&self) -> usize {
        let transformed = self.transformed.iter().filter_map(OnceLock::get);
        size_of_val::<[f32]>(&self.data)
            + self.grouped.as_ref().map_or(0, GroupedWeights::bytes)
            + transformed.map(TransformedWeights::bytes).sum::<usize>()
            + self.quadrant_sums.get().map_or(0, QuadrantSums::bytes)
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

/// The index of a tile size in [`PackedWeights::transformed`].
fn index(tile: WinogradTile) -> usize {
    match tile {
        WinogradTile::Four => 0,
        WinogradTile::Two => 1,
    }
}
