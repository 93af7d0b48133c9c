//! Packed weights of groups of few channels.

use crate::context::Context;
use crate::conv::gather::BLOCK;
use crate::conv::kernels::{KernelPlace, Kernels};
use crate::memory::AlignedVec;

/// The weights of groups of `width` channels, in the order `[channel block][tap][channel of the
/// group][BLOCK]`.
#[derive(Clone, Debug)]
pub(in crate::conv) struct GroupedWeights {
    pub channels: usize,
    /// Channels of a group.
    pub width: usize,
    pub taps: usize,
    data: AlignedVec,
}

impl GroupedWeights {
    pub fn zeros(ctx: &Context, channels: usize, width: usize, taps: usize) -> Self {
        let data = ctx.persistent(channels.next_multiple_of(BLOCK) * width * taps);
        GroupedWeights {
            channels,
            width,
            taps,
            data,
        }
    }

    /// Packs the weights from `kernels`, which counts input channels within merged groups of
    /// `merged` channels.
    pub fn fill(&mut self, kernels: &Kernels<'_, impl KernelPlace>, merged: usize) {
        let width = self.width;
        for channel in 0..self.channels {
            let first = channel % merged / width * width;
            for input in 0..width {
                let place = (kernels.place)(channel, first + input);
                let place = place.expect("a kernel within a group");
                for (tap, offset) in kernels.taps.iter().enumerate() {
                    let row = (channel / BLOCK * self.taps + tap) * width + input;
                    self.data[row * BLOCK + channel % BLOCK] = kernels.weights[place + offset];
                }
            }
        }
    }

    pub fn bytes(&self) -> usize {
        size_of_val::<[f32]>(&self.data)
    }

    /// The weights of the output channels of a channel block.
    pub fn block(&self, block: usize) -> &[f32] {
        let len = self.taps * self.width * BLOCK;
        &self.data[block * len..][..len]
    }
}
