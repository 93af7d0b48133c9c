//! The machine's peak of multiply-adds, with which kernels are compared.

use std::time::Instant;

use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp};

use crate::context::Context;

/// Measures the peak of multiply-adds on registers, on all threads of `ctx` at once, in GFLOP/s: an
/// upper bound for any kernel. Takes about 50 ms.
pub fn peak_gflops(ctx: &Context) -> f64 {
    const ROUNDS: usize = 1 << 16;
    // More tasks than threads, so that a thread that starts late runs fewer.
    let tasks = 16 * ctx.threads();
    (0..5)
        .map(|_| {
            let start = Instant::now();
            ctx.parallel(tasks, |_| {
                std::hint::black_box(ctx.dispatch(MultiplyAdd(ROUNDS)));
            });
            let flops = (2 * SUMS * ROUNDS * ctx.lanes() * tasks) as f64;
            1e-9 * flops / start.elapsed().as_secs_f64()
        })
        .fold(0.0, f64::max)
}

/// Independent sums, enough to hide the latency of a multiply-add, which fit in the registers: two
/// per cycle of 4 or 5 cycles' latency on x86-64, up to four of 4 cycles' on Arm.
const SUMS: usize = if cfg!(target_arch = "aarch64") {
    24
} else {
    12
};

struct MultiplyAdd(usize);

impl SimdOp for MultiplyAdd {
    type Output = f32;

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) -> f32 {
        let ops = isa.f32();
        let (a, b) = (
            ops.splat(std::hint::black_box(0.5)),
            ops.splat(std::hint::black_box(0.25)),
        );
        let mut sums = [ops.zero(); SUMS];
        for _ in 0..self.0 {
            for sum in &mut sums {
                // Added to, as Arm's multiply-add overwrites its addend.
                *sum = ops.mul_add(a, b, *sum);
            }
        }
        sums.into_iter().map(|sum| ops.sum(sum)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_a_plausible_speed() {
        let ctx = Context::new(None).unwrap();
        let peak = peak_gflops(&ctx);
        // An emulator on a busy machine reaches 0.03.
        assert!((1e-3..1e6).contains(&peak), "{peak}");
    }
}
