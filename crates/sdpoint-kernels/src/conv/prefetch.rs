//! Software prefetches, spread over the products that come before their memory is used.
//!
//! A core has a dozen or so line-fill buffers. A burst of prefetches occupies all of them, and
//! loads from the second-level cache then wait until memory answers. So every prefetch here is
//! issued with a few others at most, between the multiplications of a step.

use std::ops::Range;

use rten_simd::Isa;

use super::epilogue::{Addend, Finish};
use super::gather::BLOCK;
use super::tuning::LINE;
use crate::isa::Registers;

/// A tile's share of memory that later tiles start with.
///
/// A tile that prefetched only for itself would wait: what it needs in a second is more than a
/// core's share of memory bandwidth. So all tiles before prefetch some of it, a few cache lines
/// with each step of their reduction, or a line with each channel.
#[derive(Clone, Copy)]
pub(super) struct Prefetch {
    start: *const f32,
    /// Cache lines for each step: a block of channels at a tap.
    lines: usize,
}

impl Prefetch {
    pub const NOTHING: Prefetch = Prefetch {
        start: std::ptr::null(),
        lines: 0,
    };

    /// Prefetches a step's lines.
    #[inline(always)]
    pub fn step(&mut self) {
        self.issue(self.lines);
    }

    #[inline(always)]
    fn issue(&mut self, lines: usize) {
        for _ in 0..lines {
            prefetch::<{ hint::L2 }>(self.start);
            self.start = self.start.wrapping_add(LINE);
        }
    }

    /// What the channels of a step prefetch, at most a line each; prefetches the rest of the
    /// step's lines at once. `cached` is as for [`LoopPrefetch::new`].
    #[inline(always)]
    pub fn by_channel<I: Isa>(&mut self, cached: *const f32) -> LoopPrefetch {
        let lines = if prefetches_in_loops::<I>() {
            self.lines.min(BLOCK)
        } else {
            0
        };
        self.issue(self.lines - lines);
        let next = if lines > 0 { self.start } else { cached };
        self.start = self.start.wrapping_add(lines * LINE);
        LoopPrefetch {
            next,
            share: lines * LINE / BLOCK,
        }
    }
}

/// Memory that an innermost loop prefetches, a share with each iteration.
#[derive(Clone, Copy)]
pub(super) struct LoopPrefetch {
    next: *const f32,
    /// Floats, at most those of a line; a line of which there are several shares is prefetched
    /// as often.
    share: usize,
}

impl LoopPrefetch {
    /// `memory`, over so many iterations. If it is empty they prefetch `cached`, which costs
    /// nothing, so that the loop needs no branch.
    #[inline(always)]
    pub fn new(memory: &[f32], iterations: usize, cached: *const f32) -> Self {
        LoopPrefetch {
            next: if memory.is_empty() {
                cached
            } else {
                memory.as_ptr()
            },
            share: memory.len().div_ceil(iterations).min(LINE),
        }
    }

    /// What is left after so many iterations.
    #[inline(always)]
    pub fn after(self, iterations: usize) -> Self {
        LoopPrefetch {
            next: self.next.wrapping_add(iterations * self.share),
            ..self
        }
    }

    /// Prefetches an iteration's share.
    #[inline(always)]
    pub fn step<I: Isa>(&mut self) {
        if prefetches_in_loops::<I>() {
            prefetch::<{ hint::L2 }>(self.next);
            self.next = self.next.wrapping_add(self.share);
        }
    }
}

/// Whether an innermost loop has a register left for the address that it prefetches.
const fn prefetches_in_loops<I: Isa>() -> bool {
    Registers::are_32::<I>()
}

/// Memory that a run of tiles prefetches, each its share.
pub(super) struct Prefetcher<'a> {
    rest: &'a [f32],
    /// Cache lines with each step of a tile.
    lines: usize,
}

impl<'a> Prefetcher<'a> {
    /// `memory`, by tiles that have this many steps together.
    #[inline(always)]
    pub fn new(memory: &'a [f32], steps: usize) -> Self {
        Prefetcher {
            rest: memory,
            lines: memory.len().div_ceil(LINE * steps),
        }
    }

    /// The share of the next tile, which has this many steps.
    #[inline(always)]
    pub fn next(&mut self, steps: usize) -> Prefetch {
        if self.rest.is_empty() {
            return Prefetch::NOTHING;
        }
        let share = Prefetch {
            start: self.rest.as_ptr(),
            lines: self.lines,
        };
        self.rest = self.rest.get(steps * self.lines * LINE..).unwrap_or(&[]);
        share
    }
}

/// The parts `range` of a tensor that is cut into `count` parts of equal size.
pub(super) fn part_of(tensor: &[f32], range: Range<usize>, count: usize) -> &[f32] {
    let at = |part: usize| tensor.len() * part.min(count) / count;
    &tensor[at(range.start)..at(range.end)]
}

/// The share of one of `count` steps that prefetch two runs of memory, one after the other.
pub(super) fn share_of_step(memory: [&[f32]; 2], step: usize, count: usize) -> &[f32] {
    let firsts = count.div_ceil(2);
    match step.checked_sub(firsts) {
        None => part_of(memory[0], step..step + 1, firsts),
        Some(step) => part_of(memory[1], step..step + 1, count - firsts),
    }
}

/// Prefetches `floats` outputs at `to`, which is element `at` of the output tensor, those of the
/// second output, and the residual that is added to them.
#[inline(always)]
pub(super) fn prefetch_output(finish: &Finish<'_>, to: *mut f32, at: usize, floats: usize) {
    for line in (0..floats).step_by(LINE) {
        prefetch::<{ hint::STORE }>(to.wrapping_add(line));
        if let Some(second) = &finish.second {
            prefetch::<{ hint::STORE }>(second.out.as_ptr().wrapping_add(at + line));
        }
        if let Some(Addend::Tensor(tensor)) = finish.residual {
            prefetch::<{ hint::L1 }>(tensor.as_ptr().wrapping_add(at + line));
        }
    }
}

/// What a cache line is prefetched for: a load from the first-level cache, a later one from the
/// second-level cache, or a store.
#[cfg(target_arch = "x86_64")]
mod hint {
    pub use std::arch::x86_64::{_MM_HINT_ET0 as STORE, _MM_HINT_T0 as L1, _MM_HINT_T1 as L2};
}
#[cfg(not(target_arch = "x86_64"))]
mod hint {
    pub const L1: i32 = 0;
    pub const L2: i32 = 1;
    pub const STORE: i32 = 2;
}

/// Prefetches the cache line at an address. It need not be valid, but an invalid one costs a
/// search of the page tables.
#[inline(always)]
fn prefetch<const HINT: i32>(at: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch faults on no address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<HINT>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
