//! The epilogue of the kernels: scale, shift, residual, activation and second output, applied to
//! sums in registers.

use rten_simd::Isa;
use rten_simd::ops::{BitOps, NumOps};

use crate::activation::Activation;
use crate::lanes::{Mask, load_masked, load_up_to, mask_of, store_masked};
use crate::shared_mut::SharedMut;

/// [`super::Epilogue`] in a form that can be shared by tasks: its outputs are [`SharedMut`].
#[derive(Clone, Copy, Default)]
pub(super) struct TileEpilogue<'a> {
    pub scale: Option<&'a [f32]>,
    pub shift: Option<&'a [f32]>,
    pub residual: Option<Addend<'a>>,
    pub activation: Activation,
    pub second: Option<SecondEpilogue<'a>>,
}

/// [`super::Residual`] in a form that can be shared by tasks.
#[derive(Clone, Copy)]
pub(super) enum Addend<'a> {
    Tensor(&'a [f32]),
    Output(SharedMut<'a, f32>),
}

impl Addend<'_> {
    #[inline(always)]
    pub fn as_ptr(&self) -> *const f32 {
        match self {
            Addend::Tensor(tensor) => tensor.as_ptr(),
            Addend::Output(output) => output.as_ptr(),
        }
    }
}

/// [`super::SecondOutput`] in a form that can be shared by tasks.
#[derive(Clone, Copy)]
pub(super) struct SecondEpilogue<'a> {
    pub scale: &'a [f32],
    pub shift: &'a [f32],
    pub activation: Activation,
    pub out: SharedMut<'a, f32>,
}

impl TileEpilogue<'_> {
    /// Whether the result is the sums themselves.
    pub fn is_identity(&self) -> bool {
        self.scale.is_none()
            && self.shift.is_none()
            && self.residual.is_none()
            && self.activation == Activation::Identity
            && self.second.is_none()
    }

    /// Applies the epilogue to one vector of sums and stores the result at `to`, which is element
    /// `at` of the output tensor, and the second output. Masked, where the vector is not full.
    ///
    /// # Safety
    ///
    /// The elements must lie in the output tensor, whose length the residual and the second
    /// output share, and no other thread may use them.
    #[inline(always)]
    pub unsafe fn store<I: Isa>(
        &self,
        isa: I,
        lanes: &EpilogueLanes<I>,
        sum: I::F32,
        to: *mut f32,
        at: usize,
    ) {
        let mask = lanes.mask;
        // SAFETY: the caller promises that these elements exist and are ours.
        unsafe {
            let y = match self.residual {
                _ if self.is_identity() => sum,
                Some(residual) => {
                    let residual = load_masked(isa, residual.as_ptr().add(at), mask);
                    lanes.first.apply_with_residual(isa, sum, residual)
                }
                None => lanes.first.apply(isa, sum),
            };
            store_masked(isa, y, to, mask);
            if let Some(second) = &self.second {
                store_masked(
                    isa,
                    lanes.second.apply(isa, y),
                    second.out.as_ptr().add(at),
                    mask,
                );
            }
        }
    }

    /// The same for full vectors of `N` pixels, all at the channels from `channel` on; `places` are
    /// the pixels' offsets from `to`. With `accumulate`, the previous content is added to the sums
    /// first.
    ///
    /// The loops contain no branches, so that they are unrolled and the sums stay in registers. The
    /// factors of the second output are loaded after the first is stored: there are not enough
    /// registers for both.
    ///
    /// # Safety
    ///
    /// As for [`TileEpilogue::store`].
    #[allow(
        clippy::too_many_arguments,
        reason = "the innermost loop keeps all of them in registers"
    )]
    #[inline(always)]
    pub unsafe fn store_full<I: Isa, const N: usize>(
        &self,
        isa: I,
        channel: usize,
        mut sums: [I::F32; N],
        places: &[usize; N],
        to: *mut f32,
        at: usize,
        accumulate: bool,
    ) {
        let ops = isa.f32();
        // SAFETY: the caller promises that these elements exist and are ours.
        unsafe {
            if accumulate {
                for n in 0..N {
                    sums[n] = ops.add(ops.load_ptr(to.add(places[n])), sums[n]);
                }
            }
            if let Some(residual) = self.residual {
                let from = residual.as_ptr().add(at);
                let first = self.first(isa, channel, ops.len());
                for n in 0..N {
                    let residual = ops.load_ptr(from.add(places[n]));
                    sums[n] = first.apply_with_residual(isa, sums[n], residual);
                }
            } else if !self.is_identity() {
                let first = self.first(isa, channel, ops.len());
                for n in 0..N {
                    sums[n] = first.apply(isa, sums[n]);
                }
            }
            for n in 0..N {
                ops.store_ptr(sums[n], to.add(places[n]));
            }
            if let Some(second) = &self.second {
                let out = second.out.as_ptr().add(at);
                let second = second.affine(isa, channel, ops.len());
                for n in 0..N {
                    ops.store_ptr(second.apply(isa, sums[n]), out.add(places[n]));
                }
            }
        }
    }

    /// The epilogue for the vector of channels from `channel` on, `count` of which exist.
    #[inline(always)]
    pub fn lanes<I: Isa>(&self, isa: I, channel: usize, count: usize) -> EpilogueLanes<I> {
        EpilogueLanes {
            mask: mask_of(isa, count),
            first: self.first(isa, channel, count),
            second: match &self.second {
                Some(second) => second.affine(isa, channel, count),
                None => Affine::new(isa, channel, count, None, None, Activation::Identity),
            },
        }
    }

    /// The map from sums to outputs, for the `count` channels from `channel` on.
    #[inline(always)]
    fn first<I: Isa>(&self, isa: I, channel: usize, count: usize) -> Affine<I> {
        Affine::new(isa, channel, count, self.scale, self.shift, self.activation)
    }
}

impl SecondEpilogue<'_> {
    /// The map from outputs to second outputs, for the `count` channels from `channel` on.
    #[inline(always)]
    fn affine<I: Isa>(&self, isa: I, channel: usize, count: usize) -> Affine<I> {
        let (scale, shift) = (Some(self.scale), Some(self.shift));
        Affine::new(isa, channel, count, scale, shift, self.activation)
    }
}

/// A [`TileEpilogue`] for one vector of channels.
pub(super) struct EpilogueLanes<I: Isa> {
    /// The channels that exist; `None` if all do, as masked loads and stores are slow with AVX2.
    pub mask: Mask<I>,
    /// The map from sums to outputs.
    pub first: Affine<I>,
    /// The map from outputs to second outputs.
    pub second: Affine<I>,
}

/// `min(max(x * scale + shift, floor), ceiling)` for one vector of channels.
#[derive(Clone, Copy)]
pub(super) struct Affine<I: Isa> {
    scale: I::F32,
    shift: I::F32,
    /// The bounds of the activation.
    floor: I::F32,
    ceiling: I::F32,
}

impl<I: Isa> Affine<I> {
    /// For the `count` channels from `channel` on; absent factors are 1, absent summands 0.
    #[inline(always)]
    fn new(
        isa: I,
        channel: usize,
        count: usize,
        scale: Option<&[f32]>,
        shift: Option<&[f32]>,
        activation: Activation,
    ) -> Self {
        let ops = isa.f32();
        let [floor, ceiling] = activation.bounds();
        Affine {
            scale: per_channel(isa, channel, count, scale, 1.0),
            shift: per_channel(isa, channel, count, shift, 0.0),
            floor: ops.splat(floor),
            ceiling: ops.splat(ceiling),
        }
    }

    #[inline(always)]
    pub fn apply(&self, isa: I, x: I::F32) -> I::F32 {
        let ops = isa.f32();
        self.bounded(isa, ops.mul_add(x, self.scale, self.shift))
    }

    /// The same with a residual, added before the activation.
    #[inline(always)]
    pub fn apply_with_residual(&self, isa: I, x: I::F32, residual: I::F32) -> I::F32 {
        let ops = isa.f32();
        let y = ops.add(ops.mul_add(x, self.scale, self.shift), residual);
        self.bounded(isa, y)
    }

    #[inline(always)]
    fn bounded(&self, isa: I, y: I::F32) -> I::F32 {
        let ops = isa.f32();
        ops.min(self.ceiling, ops.max(y, self.floor))
    }
}

/// The values of the `count` channels from `channel` on, or `default` in all lanes.
#[inline(always)]
fn per_channel<I: Isa>(
    isa: I,
    channel: usize,
    count: usize,
    values: Option<&[f32]>,
    default: f32,
) -> I::F32 {
    let ops = isa.f32();
    match values {
        Some(values) => {
            let values = &values[channel..][..count];
            load_up_to(ops, values)
        }
        None => ops.splat(default),
    }
}
