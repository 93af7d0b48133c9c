//! Weights in the order in which the micro-kernels read them.

use super::gather::BLOCK;
use super::microkernel::VECTORS;
use crate::context::{Context, SharedMut};
use crate::scratch::AlignedVec;

/// A run of output channels of one group that a micro-kernel computes together.
#[derive(Clone, Copy, Debug)]
pub(super) struct OutputBlock {
    /// The first channel, counted in the group.
    pub first: usize,
    pub channels: usize,
    /// Vectors that hold them.
    pub vectors: usize,
    /// Where the block's weights start in its group's.
    pub weights: usize,
}

/// The weights of a window's taps for a number of equal, dense groups:
/// `[group][output block][channel block][tap][channel][output channel]`.
#[derive(Clone, Debug)]
pub(super) struct PackedWeights {
    pub groups: usize,
    pub group_in: usize,
    pub group_out: usize,
    taps: usize,
    lanes: usize,
    blocks: Vec<OutputBlock>,
    /// Weights of one group.
    group_len: usize,
    data: AlignedVec,
}

impl PackedWeights {
    pub fn zeros(
        ctx: &Context,
        groups: usize,
        group_in: usize,
        group_out: usize,
        taps: usize,
    ) -> Self {
        let lanes = ctx.lanes();
        let mut blocks = Vec::new();
        let (mut first, mut weights) = (0, 0);
        while first < group_out {
            let channels = (VECTORS * lanes).min(group_out - first);
            let vectors = channels.div_ceil(lanes);
            blocks.push(OutputBlock {
                first,
                channels,
                vectors,
                weights,
            });
            first += channels;
            weights += group_in * taps * vectors * lanes;
        }
        PackedWeights {
            groups,
            group_in,
            group_out,
            taps,
            lanes,
            blocks,
            group_len: weights,
            data: AlignedVec::zeros(groups * weights),
        }
    }

    /// Sets every weight to `weight(output channel, channel in the group, tap)`.
    pub fn fill(&mut self, ctx: &Context, weight: impl Fn(usize, usize, usize) -> f32 + Sync) {
        let blocks = &self.blocks;
        let data = SharedMut::new(&mut self.data);
        ctx.parallel(self.groups * blocks.len(), |unit| {
            let (group, block) = (unit / blocks.len(), &blocks[unit % blocks.len()]);
            let start = group * self.group_len + block.weights;
            let width = block.vectors * self.lanes;
            // SAFETY: units are disjoint blocks of weights, and each runs once.
            let out = unsafe { data.slice(start..start + self.group_in * self.taps * width) };
            let mut rows = out.chunks_exact_mut(width);
            for first in (0..self.group_in).step_by(BLOCK) {
                for tap in 0..self.taps {
                    for channel in first..self.group_in.min(first + BLOCK) {
                        let row = rows.next().expect("a row for each channel and tap");
                        for (i, out) in row[..block.channels].iter_mut().enumerate() {
                            let output = group * self.group_out + block.first + i;
                            *out = weight(output, channel, tap);
                        }
                    }
                }
            }
        });
    }

    /// Output blocks of one group.
    pub fn blocks(&self) -> &[OutputBlock] {
        &self.blocks
    }

    pub fn block_weights(&self, group: usize, block: &OutputBlock) -> &[f32] {
        let len = self.group_in * self.taps * block.vectors * self.lanes;
        &self.data[group * self.group_len + block.weights..][..len]
    }

    /// Multiply-accumulates for one output pixel.
    pub fn macs_per_pixel(&self) -> usize {
        self.groups * self.group_in * self.group_out * self.taps
    }

    /// # Panics
    ///
    /// If the weights were packed for another instruction set than the context's.
    pub fn assert_packed_for(&self, ctx: &Context) {
        assert_eq!(
            self.lanes,
            ctx.lanes(),
            "weights packed for another context"
        );
    }

    pub fn bytes(&self) -> usize {
        size_of_val::<[f32]>(&self.data)
    }
}
