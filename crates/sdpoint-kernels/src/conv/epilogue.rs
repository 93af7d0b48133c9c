//! What happens to finished sums while they are in cache.

use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, Simd};

use crate::activation::Activation;
use crate::shared_mut::SharedMut;

/// [`super::Epilogue`] in the form that tasks share.
#[derive(Clone, Copy, Default)]
pub(super) struct Finish<'a> {
    pub scale: Option<&'a [f32]>,
    pub shift: Option<&'a [f32]>,
    pub residual: Option<Addend<'a>>,
    pub activation: Activation,
    pub second: Option<SecondFinish<'a>>,
}

/// [`super::Residual`] in the form that tasks share.
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

#[derive(Clone, Copy)]
pub(super) struct SecondFinish<'a> {
    pub scale: &'a [f32],
    pub shift: &'a [f32],
    pub activation: Activation,
    pub out: SharedMut<'a, f32>,
}

impl Finish<'_> {
    /// Whether the sums are the result.
    pub fn is_identity(&self) -> bool {
        self.scale.is_none()
            && self.shift.is_none()
            && self.residual.is_none()
            && self.activation == Activation::Identity
            && self.second.is_none()
    }

    /// Stores what a vector of sums becomes at `to`, which is element `at` of the output tensor,
    /// and the second output.
    ///
    /// # Safety
    ///
    /// The elements must lie in the output tensor, whose length the residual and the second
    /// output share, and no other thread may use them.
    #[inline(always)]
    pub unsafe fn store<I: Isa>(
        &self,
        isa: I,
        lanes: &FinishLanes<I>,
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
                    lanes
                        .first
                        .with(isa, sum, load(isa, residual.as_ptr().add(at), mask))
                }
                None => lanes.first.of(isa, sum),
            };
            store(isa, y, to, mask);
            if let Some(second) = &self.second {
                store(
                    isa,
                    lanes.second.of(isa, y),
                    second.out.as_ptr().add(at),
                    mask,
                );
            }
        }
    }

    /// The same for `N` vectors of the channels from `channel` on, which all exist; `places` says
    /// how far from `to` each belongs. With `accumulate`, sums go on from what is there.
    ///
    /// No loop here has branches, so that all is unrolled and the sums stay in registers; and
    /// factors are loaded when they are needed, for a micro-kernel has no registers for all.
    ///
    /// # Safety
    ///
    /// As for [`Finish::store`].
    #[inline(always)]
    pub unsafe fn store_whole<I: Isa, const N: usize>(
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
                    sums[n] = first.with(isa, sums[n], ops.load_ptr(from.add(places[n])));
                }
            } else if !self.is_identity() {
                let first = self.first(isa, channel, ops.len());
                for n in 0..N {
                    sums[n] = first.of(isa, sums[n]);
                }
            }
            for n in 0..N {
                ops.store_ptr(sums[n], to.add(places[n]));
            }
            if let Some(second) = &self.second {
                let out = second.out.as_ptr().add(at);
                let second = second.affine(isa, channel, ops.len());
                for n in 0..N {
                    ops.store_ptr(second.of(isa, sums[n]), out.add(places[n]));
                }
            }
        }
    }

    /// What is done to one vector of channels, of which `count` exist.
    #[inline(always)]
    pub fn lanes<I: Isa>(&self, isa: I, channel: usize, count: usize) -> FinishLanes<I> {
        FinishLanes {
            mask: (count < isa.f32().len()).then(|| isa.f32().first_n_mask(count)),
            first: self.first(isa, channel, count),
            second: match &self.second {
                Some(second) => second.affine(isa, channel, count),
                None => Affine::new(isa, channel, count, None, None, Activation::Identity),
            },
        }
    }

    /// What makes the output of a vector of sums, of which `count` exist.
    #[inline(always)]
    fn first<I: Isa>(&self, isa: I, channel: usize, count: usize) -> Affine<I> {
        Affine::new(isa, channel, count, self.scale, self.shift, self.activation)
    }
}

impl SecondFinish<'_> {
    /// What makes the second output of a vector of outputs, of which `count` exist.
    #[inline(always)]
    fn affine<I: Isa>(&self, isa: I, channel: usize, count: usize) -> Affine<I> {
        let (scale, shift) = (Some(self.scale), Some(self.shift));
        Affine::new(isa, channel, count, scale, shift, self.activation)
    }
}

/// Which lanes to load or store, if not all.
type Mask<I> = Option<<<I as Isa>::F32 as Simd>::Mask>;

/// # Safety
///
/// The lanes of the mask must be readable.
#[inline(always)]
pub(super) unsafe fn load<I: Isa>(isa: I, from: *const f32, mask: Mask<I>) -> I::F32 {
    // SAFETY: the caller's promise.
    unsafe {
        match mask {
            Some(mask) => isa.f32().load_ptr_mask(from, mask),
            None => isa.f32().load_ptr(from),
        }
    }
}

/// # Safety
///
/// The lanes of the mask must be writable.
#[inline(always)]
pub(super) unsafe fn store<I: Isa>(isa: I, x: I::F32, to: *mut f32, mask: Mask<I>) {
    // SAFETY: the caller's promise.
    unsafe {
        match mask {
            Some(mask) => isa.f32().store_ptr_mask(x, to, mask),
            None => isa.f32().store_ptr(x, to),
        }
    }
}

/// A [`Finish`] for one vector of channels.
pub(super) struct FinishLanes<I: Isa> {
    /// The channels that exist; none where all do, for masks are slow where a processor has
    /// them for memory alone.
    pub mask: Mask<I>,
    /// What makes the output of a sum.
    pub first: Affine<I>,
    /// What makes the second output of an output.
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
    /// Of the `count` channels from `channel` on.
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
    pub fn of(&self, isa: I, x: I::F32) -> I::F32 {
        let ops = isa.f32();
        self.bounded(isa, ops.mul_add(x, self.scale, self.shift))
    }

    /// The same with a residual, which is added before the activation.
    #[inline(always)]
    pub fn with(&self, isa: I, x: I::F32, residual: I::F32) -> I::F32 {
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

/// The values of `count` channels from `channel` on, or the default for all.
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
            if count == ops.len() {
                ops.load(values)
            } else {
                ops.load_pad(values).0
            }
        }
        None => ops.splat(default),
    }
}
