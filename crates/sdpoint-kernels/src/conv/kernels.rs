//! The source of packing: which weight of a convolution belongs to each output channel, input
//! channel and tap of a product.
//!
//! A product's kernels are those of the convolution, but may be divided (a phase of a backward pass
//! has some of the taps, in reverse order), combined (merged groups have zeros in between), or have
//! columns that count as input channels.

/// Unpacked weights, and how to find them.
pub(super) struct Kernels<'a, P> {
    /// All weights of the convolution.
    pub weights: &'a [f32],
    /// For each tap of the product, the offset of its weight from the start of a kernel.
    pub taps: &'a [usize],
    /// The offset of the kernel between an output channel and an input channel of its group, both
    /// of the product; `None` where that kernel is zero.
    pub place: P,
    /// The distance between the kernels of consecutive input channels, where it is the same for
    /// all and no kernel is zero.
    pub stride: Option<usize>,
}

impl<P: KernelPlace> Kernels<'_, P> {
    /// Copies the weights between an output channel and consecutive input channels from `first` on,
    /// at a tap.
    #[inline(always)]
    pub fn copy<'o>(
        &self,
        output: usize,
        first: usize,
        tap: usize,
        to: impl Iterator<Item = &'o mut f32>,
    ) {
        let offset = self.taps[tap];
        match (self.stride, (self.place)(output, first)) {
            // A loop of its own for the usual case, which packs ten times as fast.
            (Some(stride), Some(place)) => {
                let weights = self.weights[place + offset..].iter().step_by(stride);
                to.zip(weights).for_each(|(to, &weight)| *to = weight);
            }
            _ => {
                for (input, to) in to.enumerate() {
                    let place = (self.place)(output, first + input);
                    *to = place.map_or(0.0, |place| self.weights[place + offset]);
                }
            }
        }
    }
}

/// The type of [`Kernels::place`], a function of output channel and input channel of the group.
pub(super) trait KernelPlace: Fn(usize, usize) -> Option<usize> + Sync {}

impl<P: Fn(usize, usize) -> Option<usize> + Sync> KernelPlace for P {}
