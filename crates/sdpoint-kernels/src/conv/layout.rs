//! The order of packed weights: panels of output channels, in the order in which the micro-kernels
//! read them.

use std::ops::Range;

use super::gather::BLOCK;
use super::tuning::max_vectors;
use crate::isa::{Isa, Registers};

/// The output channels of a panel: those of one group that a register block computes together.
#[derive(Clone, Copy, Debug)]
pub(super) struct OutputBlock {
    /// The first channel, counted in the group.
    pub first: usize,
    pub channels: usize,
    /// Vectors that hold them; unused lanes have zero weights.
    pub vectors: usize,
}

/// A panel: an output block of a group, and where its weights are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Panel {
    pub group: usize,
    pub block: OutputBlock,
    /// Offset of its weights.
    pub weights: usize,
    /// Weights of a row, that is per input channel and tap: vectors times lanes.
    pub row: usize,
}

/// The order of the weights of equal, dense groups:
/// `[group][panel][channel block][tap][channel][output channel]`.
///
/// Panels are numbered through all groups.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockedLayout {
    pub groups: usize,
    pub group_in: usize,
    pub group_out: usize,
    /// Input channels of a channel block.
    pub block: usize,
    pub taps: usize,
    registers: Registers,
    /// Vectors that hold the output channels of a group.
    vectors: usize,
    /// Panels of a group: as few as possible. The first have as many vectors as fit into a register
    /// block, the others one fewer, so that none is much narrower.
    panels: usize,
    /// The number of those first ones.
    wide_panels: usize,
}

impl BlockedLayout {
    pub fn new(isa: Isa, groups: usize, group_in: usize, group_out: usize, taps: usize) -> Self {
        Self::with_registers(isa.registers(), groups, group_in, group_out, taps)
    }

    fn with_registers(
        registers: Registers,
        groups: usize,
        group_in: usize,
        group_out: usize,
        taps: usize,
    ) -> Self {
        let most = max_vectors(registers);
        let vectors = group_out.div_ceil(registers.lanes);
        let panels = vectors.div_ceil(most);
        BlockedLayout {
            groups,
            group_in,
            group_out,
            block: BLOCK,
            taps,
            registers,
            vectors,
            panels,
            wide_panels: panels.saturating_sub(panels * most - vectors),
        }
    }

    /// The same with channel blocks of another size.
    pub fn with_block(self, block: usize) -> Self {
        BlockedLayout { block, ..self }
    }

    /// The same with another number of taps.
    pub fn with_taps(self, taps: usize) -> Self {
        BlockedLayout { taps, ..self }
    }

    /// The layout of one quadrant: half the input channels and half the output channels, whose
    /// panels must be equal.
    pub fn quadrant(self) -> Self {
        assert!(self.panels_are_equal() && self.panels.is_multiple_of(2));
        let [group_in, group_out] = [self.group_in / 2, self.group_out / 2];
        Self::with_registers(self.registers, self.groups, group_in, group_out, self.taps)
            .with_block(self.block)
    }

    /// Floats of all weights.
    pub fn len(&self) -> usize {
        self.groups * self.group_len()
    }

    fn group_len(&self) -> usize {
        self.group_in * self.taps * self.vectors * self.registers.lanes
    }

    /// Those of the instruction set that the panels are for.
    pub fn registers(&self) -> Registers {
        self.registers
    }

    pub fn lanes(&self) -> usize {
        self.registers.lanes
    }

    #[inline(always)]
    pub fn panels_of_group(&self) -> usize {
        self.panels
    }

    pub fn panels(&self) -> usize {
        self.groups * self.panels
    }

    /// Output channels of the widest panels, which a layout of few channels does not have.
    pub fn widest_panel(&self) -> usize {
        max_vectors(self.registers) * self.registers.lanes
    }

    /// Whether all panels have as many vectors.
    pub fn panels_are_equal(&self) -> bool {
        self.panels == 1 || self.wide_panels == 0 || self.wide_panels == self.panels
    }

    /// Divides consecutive panels into ranges of panels with as many vectors.
    #[inline(always)]
    pub fn alike(self, panels: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let mut start = panels.start;
        std::iter::from_fn(move || {
            let end = if self.panels_are_equal() {
                panels.end
            } else {
                let index = start % self.panels;
                let end = if index < self.wide_panels {
                    self.wide_panels
                } else {
                    self.panels
                };
                panels.end.min(start - index + end)
            };
            let alike = start..end;
            start = end;
            (!alike.is_empty()).then_some(alike)
        })
    }

    /// A panel's group and output channels.
    #[inline(always)]
    pub fn panel(&self, panel: usize) -> (usize, OutputBlock) {
        (panel / self.panels, self.output_block(panel % self.panels))
    }

    /// The input channels of a group, counted over all groups.
    pub fn inputs_of(&self, group: usize) -> Range<usize> {
        group * self.group_in..(group + 1) * self.group_in
    }

    /// The output channels of a group's panel number `index`.
    #[inline(always)]
    fn output_block(&self, index: usize) -> OutputBlock {
        let lanes = self.registers.lanes;
        let most = max_vectors(self.registers);
        let first = index * most - index.saturating_sub(self.wide_panels);
        let narrower = usize::from(index >= self.wide_panels);
        let vectors = (most - narrower).min(self.vectors - first);
        let first = first * lanes;
        OutputBlock {
            first,
            channels: (vectors * lanes).min(self.group_out - first),
            vectors,
        }
    }

    /// The range of a panel's weights.
    #[inline(always)]
    pub fn range(&self, panel: usize) -> Range<usize> {
        let (group, block) = self.panel(panel);
        let rows = self.group_in * self.taps;
        let start = group * self.group_len() + block.first * rows;
        start..start + rows * block.vectors * self.registers.lanes
    }

    /// Iterates over consecutive panels without the integer divisions of [`Self::panel`], which
    /// take as long as the multiply-adds of a small tile.
    #[inline(always)]
    pub fn walk(self, panels: Range<usize>) -> impl Iterator<Item = Panel> {
        let rows = self.group_in * self.taps;
        let (mut group, mut index) = (panels.start / self.panels, panels.start % self.panels);
        let mut start = group * self.group_len() + self.output_block(index).first * rows;
        panels.map(move |_| {
            let block = self.output_block(index);
            let panel = Panel {
                group,
                block,
                weights: start,
                row: block.vectors * self.registers.lanes,
            };
            start += rows * panel.row;
            index += 1;
            if index == self.panels {
                (group, index) = (group + 1, 0);
            }
            panel
        })
    }

    /// The range of the weights of consecutive panels.
    pub fn range_of(&self, panels: &Range<usize>) -> Range<usize> {
        self.range(panels.start).start..self.range(panels.end - 1).end
    }

    /// The row of a panel that has input channel `input` at the first tap, and the number of rows
    /// from there to the row of the same channel at the next tap.
    #[inline(always)]
    pub fn rows_of_input(&self, input: usize) -> (usize, usize) {
        let first = input / self.block * self.block;
        let step = self.block.min(self.group_in - first);
        (first * self.taps + input - first, step)
    }

    /// Multiply-accumulates per output pixel.
    pub fn macs_per_pixel(&self) -> usize {
        self.groups * self.group_in * self.group_out * self.taps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_cover_a_group_with_as_few_register_blocks_as_possible() {
        for isa in Isa::available() {
            let Registers { lanes, .. } = isa.registers();
            let most = max_vectors(isa.registers());
            for channels in 1..12 * lanes {
                let layout = BlockedLayout::new(isa, 2, 5, channels, 9);
                let vectors = channels.div_ceil(lanes);
                assert_eq!(layout.panels_of_group(), vectors.div_ceil(most));
                let (mut next, mut weights) = ([0, 0], 0);
                for panel in layout.walk(0..layout.panels()) {
                    let OutputBlock {
                        first,
                        channels,
                        vectors,
                    } = panel.block;
                    assert_eq!([panel.group, first], next);
                    assert_eq!(panel.weights, weights);
                    assert_eq!(channels.div_ceil(lanes), vectors);
                    assert!(vectors + 1 >= most || layout.panels_of_group() == 1);
                    weights += 5 * 9 * vectors * lanes;
                    next = match first + channels {
                        end if end == layout.group_out => [panel.group + 1, 0],
                        end => [panel.group, end],
                    };
                }
                assert_eq!((next, weights), ([2, 0], layout.len()));
                let alike: Vec<_> = layout.alike(1..layout.panels()).collect();
                for range in &alike {
                    let vectors = |panel| layout.panel(panel).1.vectors;
                    assert!(
                        range
                            .clone()
                            .all(|panel| vectors(panel) == vectors(range.start))
                    );
                }
                assert!(alike.into_iter().flatten().eq(1..layout.panels()));
            }
        }
    }
}
