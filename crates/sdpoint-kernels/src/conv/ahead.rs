//! Memory that is brought near before it is needed.
//!
//! A core has few places for requests under way. While many at once take them all, loads from
//! the second-level cache wait for memory to answer: so all that is asked for here is asked for
//! a few cache lines at a time, spread over the products that come before.

use std::ops::Range;

use rten_simd::Isa;

use super::epilogue::{Addend, Finish};
use super::gather::BLOCK;
use super::microkernel::has_32_registers;

/// Memory that later tiles start with. It comes from afar, and a tile on its own would wait
/// for it: what it asks for in a second is more than a core's share of memory bandwidth. So
/// all tiles before it bring it near, a few cache lines in each step of their reduction, or with
/// each channel of it.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    start: *const f32,
    /// Cache lines to bring for each block of channels at each tap.
    lines: usize,
}

impl Ahead {
    pub const NOTHING: Ahead = Ahead {
        start: std::ptr::null(),
        lines: 0,
    };

    /// Asks for a step's lines at once.
    #[inline(always)]
    pub fn at_once(&mut self) {
        self.ask(self.lines);
    }

    #[inline(always)]
    fn ask(&mut self, lines: usize) {
        for _ in 0..lines {
            prefetch::<{ hint::LATER }>(self.start);
            self.start = self.start.wrapping_add(LINE);
        }
    }

    /// What the channels of a step ask for one by one, at most a line each; asks for the rest
    /// of the step's lines at once. `near` is as for [`Evenly::over`].
    #[inline(always)]
    pub fn one_by_one<I: Isa>(&mut self, near: *const f32) -> Evenly {
        let lines = if asks_evenly::<I>() {
            self.lines.min(BLOCK)
        } else {
            0
        };
        self.ask(self.lines - lines);
        let next = if lines > 0 { self.start } else { near };
        self.start = self.start.wrapping_add(lines * LINE);
        Evenly {
            next,
            share: lines * LINE / BLOCK,
        }
    }
}

/// Memory of which each turn of an innermost loop asks for its share.
#[derive(Clone, Copy)]
pub(super) struct Evenly {
    next: *const f32,
    /// Floats, at most those of a line; lines of which there are several are asked for as often.
    share: usize,
}

impl Evenly {
    /// `memory`, over so many turns. If there is none they ask for `near`, which is, so that the
    /// loop needs no branch.
    #[inline(always)]
    pub fn over(memory: &[f32], turns: usize, near: *const f32) -> Self {
        Evenly {
            next: if memory.is_empty() {
                near
            } else {
                memory.as_ptr()
            },
            share: memory.len().div_ceil(turns).min(LINE),
        }
    }

    /// What is left after so many turns.
    #[inline(always)]
    pub fn after(self, turns: usize) -> Self {
        Evenly {
            next: self.next.wrapping_add(turns * self.share),
            ..self
        }
    }

    /// Asks for a turn's share.
    #[inline(always)]
    pub fn ask<I: Isa>(&mut self) {
        if asks_evenly::<I>() {
            prefetch::<{ hint::LATER }>(self.next);
            self.next = self.next.wrapping_add(self.share);
        }
    }
}

/// Whether an innermost loop has a register left for the address of what it asks for.
const fn asks_evenly<I: Isa>() -> bool {
    has_32_registers::<I>()
}

/// Memory that neighbouring tiles bring near, each its share.
pub(super) struct Spread<'a> {
    rest: &'a [f32],
    /// Cache lines in each step of a tile.
    lines: usize,
}

impl<'a> Spread<'a> {
    /// `memory`, by tiles that have this many steps together.
    #[inline(always)]
    pub fn over(memory: &'a [f32], steps: usize) -> Self {
        Spread {
            rest: memory,
            lines: memory.len().div_ceil(LINE * steps),
        }
    }

    /// The share of the next tile, which has this many steps.
    #[inline(always)]
    pub fn next(&mut self, steps: usize) -> Ahead {
        if self.rest.is_empty() {
            return Ahead::NOTHING;
        }
        let share = Ahead {
            start: self.rest.as_ptr(),
            lines: self.lines,
        };
        self.rest = self.rest.get(steps * self.lines * LINE..).unwrap_or(&[]);
        share
    }
}

/// What lies in a tensor at `range` of `count` parts of equal size.
pub(super) fn part_of(tensor: &[f32], range: Range<usize>, count: usize) -> &[f32] {
    let at = |part: usize| tensor.len() * part.min(count) / count;
    &tensor[at(range.start)..at(range.end)]
}

/// The share of one of `count` steps that bring two runs of memory near, one after the other.
pub(super) fn step_of(memory: [&[f32]; 2], step: usize, count: usize) -> &[f32] {
    let firsts = count.div_ceil(2);
    match step.checked_sub(firsts) {
        None => part_of(memory[0], step..step + 1, firsts),
        Some(step) => part_of(memory[1], step..step + 1, count - firsts),
    }
}

/// Asks for so many floats of outputs at `to`, which is element `at` of the output tensor, of the
/// second output and of what is added to them.
#[inline(always)]
pub(super) fn ask_for_output(finish: &Finish<'_>, to: *mut f32, at: usize, floats: usize) {
    for line in (0..floats).step_by(LINE) {
        prefetch::<{ hint::TO_STORE }>(to.wrapping_add(line));
        if let Some(second) = &finish.second {
            prefetch::<{ hint::TO_STORE }>(second.out.as_ptr().wrapping_add(at + line));
        }
        if let Some(Addend::Tensor(tensor)) = finish.residual {
            prefetch::<{ hint::SOON }>(tensor.as_ptr().wrapping_add(at + line));
        }
    }
}

/// Floats of a cache line.
const LINE: usize = 16;

/// What a cache line is asked for: to be loaded soon or later, or to be stored into.
#[cfg(target_arch = "x86_64")]
mod hint {
    pub use std::arch::x86_64::{
        _MM_HINT_ET0 as TO_STORE, _MM_HINT_T0 as SOON, _MM_HINT_T1 as LATER,
    };
}
#[cfg(not(target_arch = "x86_64"))]
mod hint {
    pub const SOON: i32 = 0;
    pub const LATER: i32 = 1;
    pub const TO_STORE: i32 = 2;
}

/// Asks for the cache line at an address, which need not be valid, but costs much where it is
/// not.
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
