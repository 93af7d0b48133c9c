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
        let zero = ops.zero();
        for c in (0..channels).step_by(ops.len()) {
            let lanes = ops.len().min(channels - c);
            let mask = ops.first_n_mask(lanes);
            let per_channel = |values: Option<&[f32]>, default: f32| match values {
                Some(values) => ops.load_pad(&values[channel + c..][..lanes]).0,
                None => ops.splat(default),
            };
            let scale = per_channel(self.scale, 1.0);
            let shift = per_channel(self.shift, 0.0);
            let second_scale = per_channel(self.second.map(|s| s.scale), 1.0);
            let second_shift = per_channel(self.second.map(|s| s.shift), 0.0);
            for p in 0..pixels {
                let i = at + p * step + c;
                // SAFETY: the caller promises that these elements exist and are ours.
                unsafe {
                    let load = |from: *const f32| {
                        if lanes == ops.len() {
                            ops.load_ptr(from.add(i))
                        } else {
                            ops.load_ptr_mask(from.add(i), mask)
                        }
                    };
                    let store = |value, to: *mut f32| {
                        if lanes == ops.len() {
                            ops.store_ptr(value, to.add(i));
                        } else {
                            ops.store_ptr_mask(value, to.add(i), mask);
                        }
                    };
                    let mut y = ops.mul_add(load(output), scale, shift);
                    if let Some(residual) = self.residual {
                        y = ops.add(y, load(residual.as_ptr()));
                    }
                    if self.relu {
                        y = ops.max(y, zero);
                    }
                    store(y, output);
                    if let Some(second) = &self.second {
                        let z = ops.mul_add(y, second_scale, second_shift);
                        let z = if second.relu { ops.max(z, zero) } else { z };
                        store(z, second.out.as_ptr());
                    }
                }
            }
        }
    }
}
