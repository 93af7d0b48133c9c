//! Weights in the order in which the micro-kernels read them.

use std::ops::Range;
use std::sync::OnceLock;

use super::gather::BLOCK;
use super::geometry::ConvGeometry;
use super::microkernel::VECTORS;
use super::narrow::NarrowWeights;
use super::product;
use super::strassen::{self, QuarterSums};
use super::winograd::{self, TransformedWeights};
use crate::context::Context;
use crate::memory::AlignedVec;
use crate::shared_mut::SharedMut;

/// A run of output channels of one group that a micro-kernel computes together.
#[derive(Clone, Copy, Debug)]
pub(super) struct OutputBlock {
    /// The first channel, counted in the group.
    pub first: usize,
    pub channels: usize,
    /// Vectors that hold them; lanes beyond the channels have zero weights.
    pub vectors: usize,
}

/// An output block of a group and where its weights are.
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
    taps: usize,
    lanes: usize,
}

impl BlockedLayout {
    pub fn new(
        ctx: &Context,
        groups: usize,
        group_in: usize,
        group_out: usize,
        taps: usize,
    ) -> Self {
        BlockedLayout {
            groups,
            group_in,
            group_out,
            block: BLOCK,
            taps,
            lanes: ctx.lanes(),
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

    /// Neighbouring units one after the other, without the divisions of [`Self::unit`], which
    /// take as long as a small tile's products.
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

/// Where the weights to pack are.
pub(super) struct Kernels<'a, P> {
    /// All weights of the convolution.
    pub weights: &'a [f32],
    /// How far behind a kernel's place the weight of each of its taps is.
    pub taps: &'a [usize],
    /// The place of the kernel from an input channel of the group to an output channel; none
    /// where it is zero.
    pub place: P,
}

/// [`Kernels::place`], for output channel and input channel of the group.
pub(super) trait KernelPlace: Fn(usize, usize) -> Option<usize> + Sync {}

impl<P: Fn(usize, usize) -> Option<usize> + Sync> KernelPlace for P {}

/// Weights in the form that the path for them takes.
#[derive(Clone, Debug)]
pub(super) struct PackedWeights {
    pub layout: BlockedLayout,
    /// In the order of `layout`; empty for narrow groups.
    data: AlignedVec,
    /// For narrow groups.
    pub narrow: Option<NarrowWeights>,
    /// Where Winograd's algorithm applies, for each of its [sizes](winograd::SIZES); made by the
    /// first batch that they pay for, or at once if they are few.
    transformed: Option<[OnceLock<TransformedWeights>; winograd::SIZES.len()]>,
    /// Where Strassen's algorithm applies; made by the first grid that it pays for.
    quarter_sums: Option<OnceLock<QuarterSums>>,
}

impl PackedWeights {
    /// Whether the output sees finished sums alone.
    pub fn sums_in_registers(
        &self,
        ctx: &Context,
        batch: usize,
        joined: usize,
        grid: [usize; 2],
    ) -> bool {
        self.narrow.is_some()
            || self.winograd(batch, grid).is_some()
            || self.strassen(batch, joined, grid).is_some()
            || product::parts(ctx, &self.layout) == 1
    }

    /// Room for weights of a convolution, or of a phase of its gradient, that a window of
    /// `kernel` taps with this stride meets.
    pub fn zeros(
        ctx: &Context,
        layout: BlockedLayout,
        geometry: &ConvGeometry,
        kernel: [usize; 2],
        stride: [usize; 2],
    ) -> Self {
        let narrow = geometry.narrow_groups(layout.lanes);
        let channels = layout.groups * layout.group_in;
        let dense = narrow.is_none();
        PackedWeights {
            layout,
            data: ctx.lasting(if narrow.is_some() { 0 } else { layout.len() }),
            narrow: narrow.map(|width| NarrowWeights::zeros(ctx, channels, width, layout.taps)),
            quarter_sums: (dense && strassen::applies(geometry, &layout)).then(OnceLock::new),
            transformed: (dense && winograd::applies(kernel, stride, &layout)).then(|| {
                winograd::SIZES.map(|size| {
                    if TransformedWeights::at_once(size, &layout) {
                        OnceLock::from(TransformedWeights::zeros(ctx, size, layout))
                    } else {
                        OnceLock::new()
                    }
                })
            }),
        }
    }

    /// Takes the weights from where `kernels` finds them.
    pub fn fill(&mut self, ctx: &Context, kernels: &Kernels<'_, impl KernelPlace>) {
        let layout = self.layout;
        if let Some(narrow) = &mut self.narrow {
            return narrow.fill(kernels, layout.group_in);
        }
        let data = SharedMut::new(&mut self.data);
        ctx.parallel(layout.units(), |unit| {
            let (group, block) = layout.unit(unit);
            let width = block.vectors * layout.lanes;
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
        let transformed = self.transformed.iter_mut().flatten();
        for transformed in transformed.filter_map(OnceLock::get_mut) {
            transformed.fill(ctx, &layout, &self.data);
        }
        if let Some(sums) = self.quarter_sums.as_mut().and_then(OnceLock::get_mut) {
            sums.fill(ctx, &layout, &self.data);
        }
    }

    /// Transformed weights, if they pay for this batch of grids; made by the first that they
    /// pay for if they are many.
    pub fn transformed(
        &self,
        ctx: &Context,
        batch: usize,
        grid: [usize; 2],
    ) -> Option<&TransformedWeights> {
        let (size, transformed) = self.winograd(batch, grid)?;
        Some(transformed.get_or_init(|| {
            let mut transformed = TransformedWeights::zeros(ctx, size, self.layout);
            transformed.fill(ctx, &self.layout, &self.data);
            transformed
        }))
    }

    /// The size of Winograd's tiles that pay for a batch of grids, and the weights for it.
    fn winograd(
        &self,
        batch: usize,
        grid: [usize; 2],
    ) -> Option<(winograd::Size, &OnceLock<TransformedWeights>)> {
        let transformed = self.transformed.as_ref()?;
        winograd::SIZES
            .into_iter()
            .zip(transformed)
            .find(|(size, _)| size.fits(&self.layout, batch, grid))
    }

    /// Sums of weights, if they pay for this batch of grids in whose rows so many images are
    /// joined; made by the first that they pay for.
    pub fn quarter_sums(
        &self,
        ctx: &Context,
        batch: usize,
        joined: usize,
        grid: [usize; 2],
    ) -> Option<&QuarterSums> {
        let sums = self.strassen(batch, joined, grid)?;
        Some(sums.get_or_init(|| QuarterSums::new(ctx, &self.layout, &self.data)))
    }

    /// The sums for Strassen's algorithm, if it pays for such grids.
    fn strassen(
        &self,
        batch: usize,
        joined: usize,
        grid: [usize; 2],
    ) -> Option<&OnceLock<QuarterSums>> {
        let sums = self.quarter_sums.as_ref();
        sums.filter(|_| strassen::fits(&self.layout, batch, joined, grid))
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
        size_of_val::<[f32]>(&self.data)
            + self.narrow.as_ref().map_or(0, NarrowWeights::bytes)
            + self
                .transformed
                .iter()
                .flatten()
                .filter_map(OnceLock::get)
                .map(TransformedWeights::bytes)
                .sum::<usize>()
            + self
                .quarter_sums
                .as_ref()
                .and_then(OnceLock::get)
                .map_or(0, QuarterSums::bytes)
    }

    /// # Panics
    ///
    /// If the weights were packed for another instruction set than the context's.
    pub fn assert_packed_for(&self, ctx: &Context) {
        assert_eq!(
            self.layout.lanes,
            ctx.lanes(),
            "weights packed for another instruction set"
        );
    }
}
