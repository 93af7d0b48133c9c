//! Where kernels run: the instruction set and the threads.

use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};

use rten_simd::SimdOp;
#[cfg(target_arch = "aarch64")]
use rten_simd::isa::ArmNeonIsa;
use rten_simd::isa::GenericIsa;
#[cfg(target_arch = "x86_64")]
use rten_simd::isa::{Avx2Isa, Avx512Isa};
use rten_simd::ops::BitOps;

use crate::scratch::{Scratch, ScratchPool};

/// The environment variable that forces an instruction set: one of the names of [`Isa`].
const ISA_VARIABLE: &str = "SDPOINT_ISA";

/// An instruction set that the kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// x86-64 with AVX-512 F, VL, BW and DQ.
    Avx512,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// 64-bit Arm.
    Neon,
    /// Four-lane code that the compiler vectorises as the target's baseline allows.
    Portable,
}

impl Isa {
    const ALL: [Isa; 4] = [Isa::Avx512, Isa::Avx2, Isa::Neon, Isa::Portable];

    /// The instruction sets that this machine has, the fastest first.
    pub fn available() -> Vec<Isa> {
        Self::ALL
            .into_iter()
            .filter(|&isa| Token::new(isa).is_some())
            .collect()
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Isa::Avx512 => "avx512",
            Isa::Avx2 => "avx2",
            Isa::Neon => "neon",
            Isa::Portable => "portable",
        })
    }
}

impl FromStr for Isa {
    type Err = ContextError;

    fn from_str(name: &str) -> Result<Self, ContextError> {
        Self::ALL
            .into_iter()
            .find(|isa| isa.to_string() == name)
            .ok_or_else(|| ContextError::UnknownIsa(name.to_owned()))
    }
}

/// Why a [`Context`] could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// The name is none of the instruction sets that this program knows.
    #[error("unknown instruction set {0:?}; this machine has {names}", names = available_names())]
    UnknownIsa(String),
    /// The machine lacks the instruction set.
    #[error("this machine has no {0}; it has {names}", names = available_names())]
    UnavailableIsa(Isa),
    /// The operating system refused the threads.
    #[error("cannot start {threads} threads")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// What the operating system said.
        source: rayon::ThreadPoolBuildError,
    },
}

fn available_names() -> String {
    Isa::available()
        .iter()
        .map(Isa::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

/// Proof that an instruction set is there: the inner types exist only where it is.
#[derive(Clone, Copy)]
enum Token {
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512Isa),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2Isa),
    #[cfg(target_arch = "aarch64")]
    Neon(ArmNeonIsa),
    Portable(GenericIsa),
}

impl Token {
    fn new(isa: Isa) -> Option<Token> {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Avx512Isa::new().map(Token::Avx512),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Avx2Isa::new().map(Token::Avx2),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => ArmNeonIsa::new().map(Token::Neon),
            Isa::Portable => Some(Token::Portable(GenericIsa::new())),
            #[allow(unreachable_patterns)]
            _ => None,
        }
    }
}

/// The threads and the instruction set that kernels run on, and their working memory.
///
/// One context serves any number of callers at once.
pub struct Context {
    /// One thread fewer than [`Context::threads`], for the caller works too.
    helpers: Option<rayon::ThreadPool>,
    threads: usize,
    isa: Isa,
    token: Token,
    scratch: ScratchPool,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("threads", &self.threads)
            .field("isa", &self.isa)
            .finish_non_exhaustive()
    }
}

impl Context {
    /// A context with `threads` threads (all that the machine offers where `None`) and the
    /// instruction set named by the environment variable `SDPOINT_ISA`, or the best there is.
    ///
    /// # Errors
    ///
    /// If `SDPOINT_ISA` names no instruction set of this machine, or threads cannot be started.
    pub fn new(threads: Option<NonZeroUsize>) -> Result<Self, ContextError> {
        let isa = match std::env::var_os(ISA_VARIABLE) {
            Some(name) if !name.is_empty() => name.to_string_lossy().parse()?,
            _ => Isa::available()[0],
        };
        Self::with_isa(threads, isa)
    }

    /// A context with this instruction set, whatever the environment says.
    ///
    /// # Errors
    ///
    /// If this machine has no such instruction set, or threads cannot be started.
    pub fn with_isa(threads: Option<NonZeroUsize>, isa: Isa) -> Result<Self, ContextError> {
        let token = Token::new(isa).ok_or(ContextError::UnavailableIsa(isa))?;
        let threads = threads
            .or_else(|| std::thread::available_parallelism().ok())
            .map_or(1, NonZeroUsize::get);
        let helpers = (threads > 1)
            .then(|| {
                rayon::ThreadPoolBuilder::new()
                    .num_threads(threads - 1)
                    .thread_name(|i| format!("sdpoint-{}", i + 1))
                    .build()
                    .map_err(|source| ContextError::Threads { threads, source })
            })
            .transpose()?;
        Ok(Context {
            helpers,
            threads,
            isa,
            token,
            scratch: ScratchPool::default(),
        })
    }

    /// How many threads work on a kernel, the caller's included.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// The instruction set that kernels run on.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Bytes of working memory that kernels have made so far and keep for the next call.
    pub fn scratch_bytes(&self) -> usize {
        self.scratch.bytes()
    }

    /// Floats in a vector.
    pub(crate) fn lanes(&self) -> usize {
        self.dispatch(Lanes)
    }

    /// Runs `op` compiled for this context's instruction set.
    ///
    /// All that `op` calls must be `#[inline(always)]`, closures included, or it is compiled
    /// without the instruction set.
    pub(crate) fn dispatch<Op: SimdOp>(&self, op: Op) -> Op::Output {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,f16c")]
        fn avx512<Op: SimdOp>(isa: Avx512Isa, op: Op) -> Op::Output {
            op.eval(isa)
        }

        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma,f16c")]
        fn avx2<Op: SimdOp>(isa: Avx2Isa, op: Op) -> Op::Output {
            op.eval(isa)
        }

        match self.token {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an `Avx512Isa` exists only where these features were found.
            Token::Avx512(isa) => unsafe { avx512(isa, op) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an `Avx2Isa` exists only where these features were found.
            Token::Avx2(isa) => unsafe { avx2(isa, op) },
            #[cfg(target_arch = "aarch64")]
            Token::Neon(isa) => op.eval(isa),
            Token::Portable(isa) => op.eval(isa),
        }
    }

    /// Runs `f(0)` to `f(tasks - 1)`, each once, on all threads; threads take the next task
    /// as they finish one. Returns when all are done.
    pub(crate) fn parallel(&self, tasks: usize, f: impl Fn(usize) + Sync) {
        self.parallel_with(tasks, || (), |(), task| f(task));
    }

    /// As [`Context::parallel`], with a state that each thread makes once for its tasks.
    pub(crate) fn parallel_with<S>(
        &self,
        tasks: usize,
        init: impl Fn() -> S + Sync,
        f: impl Fn(&mut S, usize) + Sync,
    ) {
        let next = AtomicUsize::new(0);
        let work = || {
            let mut task = next.fetch_add(1, Ordering::Relaxed);
            if task >= tasks {
                return;
            }
            let mut state = init();
            while task < tasks {
                f(&mut state, task);
                task = next.fetch_add(1, Ordering::Relaxed);
            }
        };
        match &self.helpers {
            Some(pool) if tasks > 1 => pool.in_place_scope(|scope| {
                for _ in 1..self.threads.min(tasks) {
                    scope.spawn(|_| work());
                }
                work();
            }),
            _ => work(),
        }
    }

    /// Cuts `out` into chunks of `chunk_len` (the last may be shorter) and runs
    /// `f(index, chunk)` for each on all threads.
    pub(crate) fn parallel_chunks<T: Send>(
        &self,
        out: &mut [T],
        chunk_len: usize,
        f: impl Fn(usize, &mut [T]) + Sync,
    ) {
        let len = out.len();
        let out = SharedMut::new(out);
        self.parallel(len.div_ceil(chunk_len), |i| {
            let start = i * chunk_len;
            // SAFETY: each index runs once, and chunks of different indices do not overlap.
            f(i, unsafe { out.slice(start..len.min(start + chunk_len)) });
        });
    }

    /// Working memory for `len` floats with unspecified content, aligned to a cache line;
    /// kept for the next call when dropped.
    pub(crate) fn scratch(&self, len: usize) -> Scratch<'_> {
        self.scratch.take(len)
    }
}

struct Lanes;

impl SimdOp for Lanes {
    type Output = usize;

    #[inline(always)]
    fn eval<I: rten_simd::Isa>(self, isa: I) -> usize {
        isa.f32().len()
    }
}

/// A mutable slice that several threads write at once, each its own elements, for tilings
/// that `chunks_mut` cannot express.
#[derive(Clone, Copy)]
pub(crate) struct SharedMut<'a, T> {
    start: *mut T,
    len: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: the elements are reachable only through `unsafe` methods whose callers promise that
// no two threads hold the same one.
unsafe impl<T: Send> Send for SharedMut<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for SharedMut<'_, T> {}

impl<'a, T> SharedMut<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        SharedMut {
            start: slice.as_mut_ptr(),
            len: slice.len(),
            slice: PhantomData,
        }
    }

    /// The elements of `range`.
    ///
    /// # Safety
    ///
    /// While the result lives, nobody else may use an element of `range` through a copy of
    /// `self`.
    #[inline(always)]
    pub(crate) unsafe fn slice(&self, range: Range<usize>) -> &'a mut [T] {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "range outside the slice"
        );
        // SAFETY: the range lies in the slice that `new` borrowed for 'a, and the caller
        // promises that it is not used elsewhere.
        unsafe {
            std::slice::from_raw_parts_mut(self.start.add(range.start), range.end - range.start)
        }
    }

    /// Elements of the slice.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The slice's first element, for kernels that compute addresses themselves.
    #[inline(always)]
    pub(crate) fn as_ptr(&self) -> *mut T {
        self.start
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    fn threads(n: usize) -> Option<NonZeroUsize> {
        NonZeroUsize::new(n)
    }

    #[test]
    fn isa_names_parse_back() {
        for isa in Isa::ALL {
            assert_eq!(isa.to_string().parse::<Isa>().unwrap(), isa);
        }
    }

    #[test]
    fn an_unknown_isa_is_refused_with_the_available_ones() {
        let message = "sse9".parse::<Isa>().unwrap_err().to_string();
        assert!(
            message.contains("sse9") && message.contains("portable"),
            "{message}"
        );
    }

    #[test]
    fn an_isa_of_another_machine_is_refused() {
        let other = if cfg!(target_arch = "aarch64") {
            Isa::Avx2
        } else {
            Isa::Neon
        };
        let message = Context::with_isa(threads(1), other)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains(&other.to_string()) && message.contains("portable"),
            "{message}"
        );
    }

    #[test]
    fn every_task_runs_once() {
        for n in [1, 2, 3] {
            let context = Context::with_isa(threads(n), Isa::Portable).unwrap();
            for tasks in [0, 1, 2, 7, 1000] {
                let runs: Vec<_> = (0..tasks).map(|_| AtomicU32::new(0)).collect();
                context.parallel(tasks, |i| {
                    runs[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(runs.iter().all(|r| r.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn nested_and_concurrent_calls_finish() {
        let context = Context::with_isa(threads(2), Isa::Portable).unwrap();
        let sum = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    context.parallel(4, |_| {
                        context.parallel(5, |i| {
                            sum.fetch_add(i, Ordering::Relaxed);
                        });
                    });
                });
            }
        });
        assert_eq!(sum.into_inner(), 3 * 4 * 10);
    }

    #[test]
    fn chunks_cover_the_slice() {
        let context = Context::with_isa(threads(2), Isa::Portable).unwrap();
        let mut out = vec![0; 103];
        context.parallel_chunks(&mut out, 10, |i, chunk| {
            assert_eq!(chunk.len(), if i == 10 { 3 } else { 10 });
            chunk.fill(i);
        });
        assert!(out.iter().enumerate().all(|(at, &i)| i == at / 10));
    }

    #[test]
    fn dispatch_uses_the_chosen_instruction_set() {
        for isa in Isa::available() {
            let lanes = Context::with_isa(threads(1), isa).unwrap().lanes();
            let expected = match isa {
                Isa::Avx512 => 16,
                Isa::Avx2 => 8,
                Isa::Neon | Isa::Portable => 4,
            };
            assert_eq!(lanes, expected, "{isa}");
        }
    }
}
