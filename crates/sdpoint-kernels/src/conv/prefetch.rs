//! Software prefetches, spread evenly over the multiply-adds that precede the use of the memory.
//!
//! A core has only 10 to 16 line-fill buffers (Intel's from Haswell to Golden Cove). A burst of
//! prefetches occupies all of them, so that loads from L2 wait for memory. Therefore only a few
//! prefetches are issued at a time, between multiply-adds (log in `docs/performance.md`:
//! "prefetches spread evenly").
//!
//! A [`Prefetcher`] divides memory among a sequence of tiles; a [`Prefetch`] is one tile's share,
//! issued step by step; a [`LoopPrefetch`] is the share of one step or run, issued by its innermost
//! loop.

use std::ops::Range;

use rten_simd::Isa;

use super::epilogue::{Addend, TileEpilogue};
use super::gather::BLOCK;
use super::tuning::LINE;
use crate::isa::Registers;

/// The memory that one tile prefetches for later tiles.
///
/// The first tile that uses a panel needs more bandwidth than memory provides, so a prefetch just
/// ahead of it would not hide the latency. Instead, all tiles before it prefetch a share each: a
/// few cache lines per step of their reduction, or one line per channel.
#[derive(Clone, Copy)]
pub(super) struct Prefetch {
    start: *const f32,
    /// Cache lines per step; a step is a channel block at a tap.
    lines: usize,
}

impl Prefetch {
    pub const NOTHING: Prefetch = Prefetch {
        start: std::ptr::null(),
        lines: 0,
    };

    /// Prefetches the lines of one step.
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

    /// The share of one step, for the loop over its channels to prefetch at most one line per
    /// channel. Lines in excess of that are prefetched at once. `cached` is as for
    /// [`LoopPrefetch::new`].
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

/// Memory that an innermost loop prefetches, a share in each iteration.
#[derive(Clone, Copy)]
pub(super) struct LoopPrefetch {
    next: *const f32,
    /// Floats per iteration, at most a cache line. If they are fewer, some prefetches are repeated:
    /// cheaper than a branch.
    share: usize,
}

impl LoopPrefetch {
    /// `memory`, spread over a number of iterations. If it is empty, every iteration prefetches
    /// `cached`, an address that is in L1: no memory traffic, and no branch in the loop.
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

    /// The remainder after a number of iterations.
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

/// Whether the innermost loops have a general-purpose register left for a prefetch address.
const fn prefetches_in_loops<I: Isa>() -> bool {
    Registers::are_32::<I>()
}

/// Memory that a sequence of tiles prefetches, divided among them.
pub(super) struct Prefetcher<'a> {
    rest: &'a [f32],
    /// Cache lines per step of a tile.
    lines: usize,
}

impl<'a> Prefetcher<'a> {
    /// `memory`, divided among tiles that have `steps` steps in total.
    #[inline(always)]
    pub fn new(memory: &'a [f32], steps: usize) -> Self {
        Prefetcher {
            rest: memory,
            lines: memory.len().div_ceil(LINE * steps),
        }
    }

    /// The share of the next tile, which has `steps` steps.
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

/// Parts `range` of a tensor divided into `count` equal parts.
pub(super) fn part_of(tensor: &[f32], range: Range<usize>, count: usize) -> &[f32] {
    let at = |part: usize| tensor.len() * part.min(count) / count;
    &tensor[at(range.start)..at(range.end)]
}

/// The memory that step `step` of `count` prefetches: the first half of the steps divide
/// `memory[0]` among them, and the second half `memory[1]`.
pub(super) fn share_of_step(memory: [&[f32]; 2], step: usize, count: usize) -> &[f32] {
    let firsts = count.div_ceil(2);
    match step.checked_sub(firsts) {
        None => part_of(memory[0], step..step + 1, firsts),
        Some(step) => part_of(memory[1], step..step + 1, count - firsts),
    }
}

/// Prefetches for writing the `floats` outputs at `to`, which is element `at` of the output tensor,
/// and those of the second output; and for reading the residual that is added to them.
#[inline(always)]
pub(super) fn prefetch_output(epilogue: &TileEpilogue<'_>, to: *mut f32, at: usize, floats: usize) {
    for line in (0..floats).step_by(LINE) {
        prefetch::<{ hint::STORE }>(to.wrapping_add(line));
        if let Some(second) = &epilogue.second {
            prefetch::<{ hint::STORE }>(second.out.as_ptr().wrapping_add(at + line));
        }
        if let Some(Addend::Tensor(tensor)) = epilogue.residual {
            prefetch::<{ hint::L1 }>(tensor.as_ptr().wrapping_add(at + line));
        }
    }
}

/// The purpose of a prefetch: into L1 for a load soon, into L2 for a later load, or for a store.
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

/// Prefetches the cache line at an address. An invalid address does no harm, but costs a walk of
/// the page table.
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
