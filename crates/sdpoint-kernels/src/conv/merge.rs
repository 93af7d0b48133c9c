//! Merging of groups that are too narrow for a GEMM: as many neighbouring groups as fit in a
//! channel block become one dense group, with zero weights between channels of different groups.

use std::ops::Range;

use super::gather::BLOCK;
use super::geometry::ConvGeometry;
use super::layout::BlockedLayout;
use crate::isa::Isa;

/// The merged groups of a convolution.
#[derive(Clone, Copy, Debug)]
pub(super) struct Merged {
    /// Groups after merging.
    pub groups: usize,
    /// Input channels of a merged group.
    pub group_in: usize,
    /// Output channels of a merged group.
    pub group_out: usize,
    /// Input and output channels of an original group.
    narrow: [usize; 2],
}

impl Merged {
    /// The layout of the merged groups' weights for the forward pass.
    pub fn forward_layout(&self, isa: Isa, geometry: &ConvGeometry) -> BlockedLayout {
        let [height, width] = geometry.kernel;
        let layout = |group_in: usize, taps: usize| {
            BlockedLayout::new(isa, self.groups, group_in, self.group_out, taps)
        };
        if geometry.unrolls() {
            let group_in = self.group_in * width;
            layout(group_in, height).with_block(group_in)
        } else {
            layout(self.group_in, height * width)
        }
    }

    /// The same for the backward pass to data, where inputs and outputs are exchanged.
    pub fn backward_layout(&self, isa: Isa, taps: usize) -> BlockedLayout {
        BlockedLayout::new(isa, self.groups, self.group_out, self.group_in, taps)
    }

    /// Merges the largest number of groups that fit in a channel block and divides the number of
    /// groups.
    pub fn new(geometry: &ConvGeometry) -> Self {
        let narrow = [geometry.group_in_channels(), geometry.group_out_channels()];
        let widest = narrow[0].max(narrow[1]);
        let merged = (1..=BLOCK / widest.min(BLOCK))
            .rev()
            .find(|&m| geometry.groups.is_multiple_of(m))
            .unwrap_or(1);
        Merged {
            groups: geometry.groups / merged,
            group_in: narrow[0] * merged,
            group_out: narrow[1] * merged,
            narrow,
        }
    }

    /// The input channels, counted in the merged group, of the original group of an output channel,
    /// counted over all groups.
    pub fn inputs_of(&self, output: usize) -> Range<usize> {
        let [group_in, group_out] = self.narrow;
        let group = output % self.group_out / group_out;
        group * group_in..(group + 1) * group_in
    }

    /// Whether a merged group has several original ones.
    #[inline(always)]
    pub fn merges(&self) -> bool {
        self.narrow[1] != self.group_out
    }

    /// The index in the original weights of the kernel between output channel `output` (counted
    /// over all groups) and input channel `input` (counted in its merged group); `None` if they
    /// belong to different original groups.
    #[inline(always)]
    pub fn kernel_index(&self, output: usize, input: usize) -> Option<usize> {
        let [group_in, group_out] = self.narrow;
        if !self.merges() {
            // Skipping the divisions halves the time of packing.
            return Some(output * group_in + input);
        }
        let same = output % self.group_out / group_out == input / group_in;
        same.then(|| output * group_in + input % group_in)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_groups_of_four_channels_become_one() {
        let geometry = ConvGeometry {
            in_channels: 32,
            out_channels: 32,
            kernel: [1, 1],
            stride: [1, 1],
            padding: [0, 0],
            groups: 8,
        };
        let merged = Merged::new(&geometry);
        assert_eq!(
            (merged.groups, merged.group_in, merged.group_out),
            (2, 16, 16)
        );
        assert_eq!(merged.inputs_of(21), 4..8);
        assert_eq!(merged.kernel_index(21, 6), Some(21 * 4 + 2));
        assert_eq!(merged.kernel_index(21, 3), None);
    }
}
