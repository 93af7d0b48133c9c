//! The source of packing: where each weight is in the unpacked order of a convolution.

/// Unpacked weights, and how to find them.
pub(super) struct Kernels<'a, P> {
    /// All weights of the convolution.
    pub weights: &'a [f32],
    /// For each tap, the offset of its weight from the start of a kernel.
    pub taps: &'a [usize],
    /// The offset of the kernel between an output channel and an input channel of its group, or
    /// `None` where that kernel is zero.
    pub place: P,
}

/// The type of [`Kernels::place`], a function of output channel and input channel of the group.
pub(super) trait KernelPlace: Fn(usize, usize) -> Option<usize> + Sync {}

impl<P: Fn(usize, usize) -> Option<usize> + Sync> KernelPlace for P {}
