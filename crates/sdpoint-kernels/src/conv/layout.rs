//! The order of packed weights: panels of output channels, as the micro-kernels read them.

use std::ops::Range;

use super::gather::BLOCK;
use super::tuning::VECTORS;
use crate::isa::Isa;

/// A run of output channels of one group that a micro-kernel computes together.
#[derive(Clone, Copy, Debug)]
pub(super) struct OutputBlock {
    /// The first channel, counted in the group.
    pub first: usize,
    pub channels: usize,
    /// Vectors that hold them; lanes beyond the channels have zero weights.
    pub vectors: usize,
}

/// An output block of a group and where its weights start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unit {
    pub group: usize,
    pub block: OutputBlock,
    /// The first of its weights, of which there are `row` for each input channel and tap.
    pub weights: usize,
    pub row: usize,
}

/// The order of the weights of equal, dense groups:
/// `[group][output block][channel block][tap][channel][output channel]`.
///
/// A unit is an output block of a group, counted through all groups.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockedLayout {
    pub groups: usize,
    pub group_in: usize,
    pub group_out: usize,
    /// Input channels that lie together.
    pub block: usize,
    pub taps: usize,
    lanes: usize,
}

impl BlockedLayout {
    pub fn new(isa: Isa, groups: usize, group_in: usize, group_out: usize, taps: usize) -> Self {
        BlockedLayout {
            groups,
            group_in,
            group_out,
            block: BLOCK,
            taps,
            lanes: isa.lanes(),
        }
    }

    /// The layout with channel blocks of another size.
    pub fn with_block(self, block: usize) -> Self {
        BlockedLayout { block, ..self }
    }

    /// The layout of the same channels with another number of taps.
    pub fn with_taps(self, taps: usize) -> Self {
        BlockedLayout { taps, ..self }
    }

    /// The layout of half the input channels and half the output channels.
    pub fn quarter(self) -> Self {
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
        self.group_in * self.taps * self.group_out.next_multiple_of(self.lanes)
    }

    pub fn lanes(&self) -> usize {
        self.lanes
    }

    /// Output blocks of one group.
    #[inline(always)]
    pub fn blocks(&self) -> usize {
        self.group_out.div_ceil(VECTORS * self.lanes)
    }

    pub fn units(&self) -> usize {
        self.groups * self.blocks()
    }

    /// A unit's group and block.
    #[inline(always)]
    pub fn unit(&self, unit: usize) -> (usize, OutputBlock) {
        (
            unit / self.blocks(),
            self.output_block(unit % self.blocks()),
        )
    }

    /// The input channels of a group, counted over all groups.
    pub fn inputs_of(&self, group: usize) -> Range<usize> {
        group * self.group_in..(group + 1) * self.group_in
    }

    /// A block of a group.
    #[inline(always)]
    fn output_block(&self, index: usize) -> OutputBlock {
        let width = VECTORS * self.lanes;
        let first = index * width;
        let channels = width.min(self.group_out - first);
        let vectors = if channels == width {
            VECTORS
        } else {
            channels.div_ceil(self.lanes)
        };
        OutputBlock {
            first,
            channels,
            vectors,
        }
    }

    /// The weights of a unit.
    #[inline(always)]
    pub fn range(&self, unit: usize) -> Range<usize> {
        let (group, block) = self.unit(unit);
        let rows = self.group_in * self.taps;
        let start = group * self.group_len() + block.first * rows;
        start..start + rows * block.vectors * self.lanes
    }

    /// Neighbouring units one after the other, without the divisions of [`Self::unit`], which take
    /// as long as the products of a small tile.
    #[inline(always)]
    pub fn walk(self, units: Range<usize>) -> impl Iterator<Item = Unit> {
        let blocks = self.blocks();
        let rows = self.group_in * self.taps;
        let (mut group, mut index) = (units.start / blocks, units.start % blocks);
        let mut start = group * self.group_len() + index * VECTORS * self.lanes * rows;
        units.map(move |_| {
            let block = self.output_block(index);
            let unit = Unit {
                group,
                block,
                weights: start,
                row: block.vectors * self.lanes,
            };
            start += rows * unit.row;
            index += 1;
            if index == blocks {
                (group, index) = (group + 1, 0);
            }
            unit
        })
    }

    /// The weights of neighbouring units.
    pub fn range_of(&self, units: &Range<usize>) -> Range<usize> {
        self.range(units.start).start..self.range(units.end - 1).end
    }

    /// The row of a block's weights that has input channel `input` at the first tap, and how
    /// many rows further each next tap is. A row has one weight for each output channel.
    #[inline(always)]
    pub fn kernel_rows(&self, input: usize) -> (usize, usize) {
        let first = input / self.block * self.block;
        let step = self.block.min(self.group_in - first);
        (first * self.taps + input - first, step)
    }

    /// Multiply-accumulates for one output pixel.
    pub fn macs_per_pixel(&self) -> usize {
        self.groups * self.group_in * self.group_out * self.taps
    }
}
