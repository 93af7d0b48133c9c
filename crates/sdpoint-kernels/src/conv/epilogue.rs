//! What happens to finished sums while they are in cache.

use rten_simd::Isa;
use rten_simd::ops::{BitOps, NumOps};

use crate::shared_mut::SharedMut;

/// [`super::Epilogue`] in the form that tasks share.
#[derive(Clone, Copy, Default)]
pub(super) struct Finish<'a> {
    pub scale: Option<&'a [f32]>,
    pub shift: Option<&'a [f32]>,
    pub residual: Option<&'a [f32]>,
    pub relu: bool,
    pub second: Option<SecondFinish<'a>>,
}

#[derive(Clone, Copy)]
pub(super) struct SecondFinish<'a> {
    pub scale: &'a [f32],
    pub shift: &'a [f32],
    pub relu: bool,
    pub out: SharedMut<'a, f32>,
}

impl Finish<'_> {
    /// Whether the sums are the result.
    pub fn is_identity(&self) -> bool {
        self.scale.is_none()
            && self.shift.is_none()
            && self.residual.is_none()
            && !self.relu
            && self.second.is_none()
    }

    /// Finishes `pixels` pixels, `step` floats apart, of `channels` channels from `channel`
    /// on; the first float is element `at` of the output tensor `output`.
    ///
    /// # Safety
    ///
    /// The elements must lie in the output tensor, whose length the residual and the second
    /// output share, and no other thread may use them.
    #[inline(always)]
    pub unsafe fn apply<I: Isa>(
        &self,
        isa: I,
        output: *mut f32,
        at: usize,
        pixels: usize,
        step: usize,
        channel: usize,
        channels: usize,
    ) {
        let ops = isa.f32();
        for c in (0..channels).step_by(ops.len()) {
            let count = ops.len().min(channels - c);
            let mask = ops.first_n_mask(count);
            let lanes = self.lanes(isa, channel + c, count);
            for p in 0..pixels {
                let i = at + p * step + c;
                // SAFETY: the caller promises that these elements exist and are ours.
                unsafe {
                    let load = |from: *const f32| ops.load_ptr_mask(from.add(i), mask);
                    let sum = load(output);
                    let y = match self.residual {
                        Some(residual) => lanes.first_with(isa, sum, load(residual.as_ptr())),
                        None => lanes.first(isa, sum),
                    };
                    ops.store_ptr_mask(y, output.add(i), mask);
                    if let Some(second) = &self.second {
                        let z = lanes.second(isa, y);
                        ops.store_ptr_mask(z, second.out.as_ptr().add(i), mask);
                    }
                }
            }
        }
    }

    /// What is done to one vector of channels, of which `count` exist.
    #[inline(always)]
    pub fn lanes<I: Isa>(&self, isa: I, channel: usize, count: usize) -> FinishLanes<I> {
        let ops = isa.f32();
        let per_channel = |values: Option<&[f32]>, default: f32| match values {
            Some(values) => ops.load_pad(&values[channel..][..count]).0,
            None => ops.splat(default),
        };
        let floor = |relu: bool| ops.splat(if relu { 0.0 } else { f32::NEG_INFINITY });
        FinishLanes {
            scale: per_channel(self.scale, 1.0),
            shift: per_channel(self.shift, 0.0),
            floor: floor(self.relu),
            second_scale: per_channel(self.second.map(|s| s.scale), 1.0),
            second_shift: per_channel(self.second.map(|s| s.shift), 0.0),
            second_floor: floor(self.second.is_some_and(|s| s.relu)),
        }
    }
}

/// A [`Finish`] for one vector of channels.
pub(super) struct FinishLanes<I: Isa> {
    scale: I::F32,
    shift: I::F32,
    /// Zero for ReLU, and otherwise below everything.
    floor: I::F32,
    second_scale: I::F32,
    second_shift: I::F32,
    second_floor: I::F32,
}

impl<I: Isa> FinishLanes<I> {
    /// The output that a sum becomes.
    #[inline(always)]
    pub fn first(&self, isa: I, sum: I::F32) -> I::F32 {
        let ops = isa.f32();
        ops.max(ops.mul_add(sum, self.scale, self.shift), self.floor)
    }

    /// The same with a residual.
    #[inline(always)]
    pub fn first_with(&self, isa: I, sum: I::F32, residual: I::F32) -> I::F32 {
        let ops = isa.f32();
        let y = ops.add(ops.mul_add(sum, self.scale, self.shift), residual);
        ops.max(y, self.floor)
    }

    /// The second output that an output becomes.
    #[inline(always)]
    pub fn second(&self, isa: I, y: I::F32) -> I::F32 {
        let ops = isa.f32();
        let z = ops.mul_add(y, self.second_scale, self.second_shift);
        ops.max(z, self.second_floor)
    }
}
