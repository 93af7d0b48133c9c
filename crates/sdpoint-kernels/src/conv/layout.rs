//! The order of packed weights: panels of output channels, in the order in which the micro-kernels
//! read them.

use std::ops::Range;

use super::gather::BLOCK;
use super::tuning::VECTORS;
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
}

impl BlockedLayout {
    pub fn new(isa: Isa, groups: usize, group_in: usize, group_out: usize, taps: usize) -> Self {
        BlockedLayout {
            groups,
            group_in,
            group_out,
            block: BLOCK,
            taps,
            registers: isa.registers(),
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

    /// The layout of one quadrant: half the input channels and half the output channels.
    pub fn quadrant(self) -> Self {
        BlockedLayout {
            group_in: self.group_in / 2,
            group_out: self.group_out / 2,
            ..self
        }
    }

    /// Floats of all weights.
    pub fn len(&self) -> usize {
        self.groups * self.group_len()
    }

    fn group_len(&self) -> usize {
        self.group_in * self.taps * self.group_out.next_multiple_of(self.registers.lanes)
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
        self.group_out.div_ceil(VECTORS * self.registers.lanes)
    }

    pub fn panels(&self) -> usize {
        self.groups * self.panels_of_group()
    }

    /// A panel's group and output channels.
    #[inline(always)]
    pub fn panel(&self, panel: usize) -> (usize, OutputBlock) {
        (
            panel / self.panels_of_group(),
            self.output_block(panel % self.panels_of_group()),
        )
    }

    /// The input channels of a group, counted over all groups.
    pub fn inputs_of(&self, group: usize) -> Range<usize> {
        group * self.group_in..(group + 1) * self.group_in
    }

    /// The output channels of a group's panel number `index`.
    #[inline(always)]
    fn output_block(&self, index: usize) -> OutputBlock {
        let width = VECTORS * self.registers.lanes;
        let first = index * width;
        let channels = width.min(self.group_out - first);
        let vectors = if channels == width {
            VECTORS
        } else {
            channels.div_ceil(self.registers.lanes)
        };
        OutputBlock {
            first,
            channels,
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
        let panels_of_group = self.panels_of_group();
        let rows = self.group_in * self.taps;
        let (mut group, mut index) = (
            panels.start / panels_of_group,
            panels.start % panels_of_group,
        );
        let mut start = group * self.group_len() + index * VECTORS * self.registers.lanes * rows;
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
            if index == panels_of_group {
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
