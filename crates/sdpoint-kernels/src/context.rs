//! Where kernels run: the instruction set and the threads.

use std::error::Error;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};

use rten_simd::SimdOp;

#[cfg(target_arch = "x86_64")]
use rten_simd::isa::{Avx2Isa, Avx512Isa};

use crate::conv::algorithm::{AlgorithmChoice, ConvAlgorithm, UnknownAlgorithm};
use crate::isa::{Isa, Token, UnknownIsa, available_names};
use crate::memory::{AlignedVec, Slabs};
use crate::scratch::{Scratch, ScratchPool};
use crate::shared_mut::SharedMut;
use crate::workers::Workers;

/// The environment variable that forces an instruction set: one of the names of [`Isa`].
const ISA_VARIABLE: &str = "SDPOINT_ISA";

/// The environment variable that forces an algorithm: one of the names of [`ConvAlgorithm`].
const CONV_VARIABLE: &str = "SDPOINT_CONV";

/// Why a [`Context`] could not be made.
#[derive(Debug)]
pub enum ContextError {
    /// `SDPOINT_ISA` names no instruction set.
    UnknownIsa(UnknownIsa),
    /// `SDPOINT_CONV` names no algorithm.
    UnknownAlgorithm(UnknownAlgorithm),
    /// The machine lacks the instruction set.
    UnavailableIsa(Isa),
    /// The operating system refused the threads.
    Threads {
        /// The number of threads.
        threads: usize,
        /// What the operating system said.
        source: std::io::Error,
    },
}

// Written out, not derived: with a procedural macro among its dependencies this crate,
// the longest to compile, would start late, and be compiled again for each set of
// packages whose other members turn on other features of the macro's parser.
impl fmt::Display for ContextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ContextError::UnknownIsa(error) => write!(f, "{ISA_VARIABLE}: {error}"),
            ContextError::UnknownAlgorithm(error) => write!(f, "{CONV_VARIABLE}: {error}"),
            ContextError::UnavailableIsa(isa) => {
                let names = available_names();
                write!(f, "this machine has no {isa}; it has {names}")
            }
            ContextError::Threads { threads, .. } => write!(f, "cannot start {threads} threads"),
        }
    }
}

impl Error for ContextError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            ContextError::Threads { source, .. } => Some(source),
            ContextError::UnknownIsa(_)
            | ContextError::UnknownAlgorithm(_)
            | ContextError::UnavailableIsa(_) => None,
        }
    }
}

/// The threads and the instruction set that kernels run on, and their working memory.
///
/// One context serves any number of callers at once.
pub struct Context {
    /// One thread fewer than [`Context::threads`], for the caller works too.
    workers: Workers,
    threads: usize,
    token: Token,
    algorithms: AlgorithmChoice,
    scratch: ScratchPool,
    slabs: Slabs,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("threads", &self.threads)
            .field("algorithms", &self.algorithms)
            .finish_non_exhaustive()
    }
}

impl Context {
    /// A context with `threads` threads (all that the machine offers where `None`) and the
    /// instruction set named by the environment variable `SDPOINT_ISA`, or the best there is. If
    /// `SDPOINT_CONV` names an algorithm, convolutions that it can compute are computed by it.
    ///
    /// # Errors
    ///
    /// If `SDPOINT_ISA` names no instruction set of this machine, `SDPOINT_CONV` no algorithm, or
    /// threads cannot be started.
    pub fn new(threads: Option<NonZeroUsize>) -> Result<Self, ContextError> {
        let variable = |name| {
            let value = std::env::var_os(name)?;
            (!value.is_empty()).then(|| value.to_string_lossy().into_owned())
        };
        let isa = match variable(ISA_VARIABLE) {
            Some(name) => name.parse().map_err(ContextError::UnknownIsa)?,
            None => Isa::available()[0],
        };
        let algorithm = match variable(CONV_VARIABLE) {
            Some(name) => Some(name.parse().map_err(ContextError::UnknownAlgorithm)?),
            None => None,
        };
        let context = Self::with_isa(threads, isa)?;
        Ok(match algorithm {
            Some(algorithm) => context.forcing(algorithm),
            None => context,
        })
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
        let workers = Workers::new(threads - 1)
            .map_err(|source| ContextError::Threads { threads, source })?;
        Ok(Context {
            workers,
            threads,
            token,
            algorithms: AlgorithmChoice::new(isa),
            scratch: ScratchPool::default(),
            slabs: Slabs::default(),
        })
    }

    /// The same context, with an algorithm for all convolutions that it can compute; weights have to
    /// be packed with it.
    pub fn forcing(self, algorithm: ConvAlgorithm) -> Self {
        Context {
            algorithms: self.algorithms.forcing(algorithm),
            ..self
        }
    }

    /// How algorithms are chosen.
    pub fn algorithms(&self) -> AlgorithmChoice {
        self.algorithms
    }

    /// How many threads work on a kernel, the caller's included.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// The instruction set that kernels run on.
    pub fn isa(&self) -> Isa {
        self.algorithms.isa()
    }

    /// Bytes of working memory that kernels have made so far and keep for the next call.
    pub fn scratch_bytes(&self) -> usize {
        self.scratch.bytes()
    }

    /// Floats in a vector register.
    pub(crate) fn lanes(&self) -> usize {
        self.isa().lanes()
    }

    /// Runs `op` compiled for this context's instruction set.
    ///
    /// All that `op` calls must be `#[inline(always)]`, closures included, or it is compiled
    /// without the instruction set.
    pub(crate) fn dispatch<Op: SimdOp>(&self, op: Op) -> Op::Output {
        match self.token {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an `Avx512Isa` exists only where these features were found.
            Token::Avx512(isa) => unsafe { op.avx512(isa) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an `Avx2Isa` exists only where these features were found.
            Token::Avx2(isa) => unsafe { op.avx2(isa) },
            #[cfg(target_arch = "aarch64")]
            Token::Neon(isa) => op.baseline(isa),
            Token::Portable(isa) => op.baseline(isa),
        }
    }

    /// Runs `f(0)` to `f(tasks - 1)`, each once, on all threads, which take neighbouring tasks
    /// one after the other. Returns when all are done.
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
        let supply = Supply::new(tasks, self.threads);
        let work = || {
            let mut taken = supply.tasks();
            let Some(first) = taken.next() else { return };
            let mut state = init();
            f(&mut state, first);
            for task in taken {
                f(&mut state, task);
            }
        };
        match self.threads.min(tasks) {
            0 | 1 => work(),
            wanted => self.workers.run(wanted - 1, &work),
        }
    }

    /// Whether a thread's own share of so many tasks ends with this one.
    pub(crate) fn ends_share(&self, tasks: usize, task: usize) -> bool {
        let shares = shares(tasks, self.threads);
        (1..=shares).any(|share| share_start(tasks, shares, share) == task + 1)
    }

    /// Fills working memory for `len` floats, for tests that what it held makes no difference.
    #[doc(hidden)]
    pub fn fill_scratch(&self, len: usize, value: f32) {
        self.scratch(len).fill(value);
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

    /// `len` zeros to keep weights in.
    pub(crate) fn lasting(&self, len: usize) -> AlignedVec {
        self.slabs.zeros(len)
    }

    /// Working memory for `len` floats with unspecified content, aligned to a cache line;
    /// kept for the next call when dropped.
    pub(crate) fn scratch(&self, len: usize) -> Scratch<'_> {
        self.scratch.take(len)
    }
}

/// [`SimdOp::eval`] compiled once for each instruction set.
///
/// These are default methods of a trait because the compiler puts such a method into the
/// codegen unit of the type that it is called on. As functions of this module, all kernels
/// of the crate would be in one codegen unit, which is compiled on one core.
trait Compiled: SimdOp + Sized {
    /// # Safety
    ///
    /// The processor must have the features.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,f16c")]
    unsafe fn avx512(self, isa: Avx512Isa) -> Self::Output {
        self.eval(isa)
    }

    /// # Safety
    ///
    /// The processor must have the features.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn avx2(self, isa: Avx2Isa) -> Self::Output {
        self.eval(isa)
    }

    /// For an instruction set that the compilation target includes.
    #[inline(never)]
    fn baseline<I: rten_simd::Isa>(self, isa: I) -> Self::Output {
        self.eval(isa)
    }
}

impl<Op: SimdOp> Compiled for Op {}

/// The most threads that have a share of the tasks of their own.
const MOST_SHARES: usize = 64;

/// Tasks in equal shares, one for each thread. A thread works through a share in order, so that
/// what a task leaves in caches serves its next; then it helps with the others' shares.
struct Supply {
    tasks: usize,
    shares: usize,
    /// How many threads came so far.
    came: AtomicUsize,
    /// Each share's next task.
    next: [AtomicUsize; MOST_SHARES],
}

impl Supply {
    fn new(tasks: usize, threads: usize) -> Self {
        let shares = shares(tasks, threads);
        let start = |share| AtomicUsize::new(share_start(tasks, shares, share));
        Supply {
            tasks,
            shares,
            came: AtomicUsize::new(0),
            next: std::array::from_fn(|share| start(share.min(shares))),
        }
    }

    /// The tasks that the thread which calls this is to do.
    fn tasks(&self) -> impl Iterator<Item = usize> {
        let first = self.came.fetch_add(1, Ordering::Relaxed);
        (0..self.shares).flat_map(move |further| {
            let share = (first + further) % self.shares;
            let end = share_start(self.tasks, self.shares, share + 1);
            std::iter::from_fn(move || {
                let task = self.next[share].fetch_add(1, Ordering::Relaxed);
                (task < end).then_some(task)
            })
        })
    }
}

fn shares(tasks: usize, threads: usize) -> usize {
    threads.min(tasks).clamp(1, MOST_SHARES)
}

fn share_start(tasks: usize, shares: usize, share: usize) -> usize {
    tasks * share / shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    fn threads(n: usize) -> Option<NonZeroUsize> {
        NonZeroUsize::new(n)
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
    fn a_share_ends_for_each_thread_that_has_one() {
        let context = Context::with_isa(threads(3), Isa::Portable).unwrap();
        for tasks in [1, 2, 3, 7, 100] {
            let ends = (0..tasks).filter(|&task| context.ends_share(tasks, task));
            assert_eq!(ends.count(), tasks.min(3));
            assert!(context.ends_share(tasks, tasks - 1));
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
}
