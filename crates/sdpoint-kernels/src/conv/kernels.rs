//! Where the weights that are packed stand in a convolution's own order.

/// Weights to pack.
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
