//! What kernels run on: instruction set, threads and working memory.

use std::error::Error;
use std::fmt;
use std::num::NonZeroUsize;
use std::panic::{RefUnwindSafe, UnwindSafe};
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
#[non_exhaustive]
pub enum ContextError {
    /// The value of `SDPOINT_ISA` is not an instruction set.
    UnknownIsa(UnknownIsa),
    /// The value of `SDPOINT_CONV` is not an algorithm.
    UnknownAlgorithm(UnknownAlgorithm),
    /// The machine does not have the instruction set.
    UnavailableIsa(Isa),
    /// More threads than [`Context::MAX_THREADS`].
    TooManyThreads {
        /// The number of threads.
        threads: usize,
    },
    /// The operating system refused the threads.
    Threads {
        /// The number of threads.
        threads: usize,
        /// The operating system's error.
        source: std::io::Error,
    },
}

// Written by hand rather than derived. This crate takes longest to compile: with a procedural
// macro among its dependencies it would start later, and be compiled again for each set of
// packages that enables other features of the macro's parser.
impl fmt::Display for ContextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ContextError::UnknownIsa(error) => write!(f, "{ISA_VARIABLE}: {error}"),
            ContextError::UnknownAlgorithm(error) => write!(f, "{CONV_VARIABLE}: {error}"),
            ContextError::UnavailableIsa(isa) => {
                let names = available_names();
                write!(
                    f,
                    "this machine has no {isa}, which was requested by {ISA_VARIABLE} or the \
                     program; it has {names}"
                )
            }
            ContextError::TooManyThreads { threads } => {
                let max = Context::MAX_THREADS;
                write!(f, "{threads} threads are too many: the maximum is {max}")
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
            | ContextError::UnavailableIsa(_)
            | ContextError::TooManyThreads { .. } => None,
        }
    }
}

/// The threads and the instruction set that kernels run on, and their working memory.
///
/// One context serves any number of concurrent callers.
pub struct Context {
    /// One thread fewer than [`Context::threads`], as the caller works too.
    workers: Workers,
    threads: usize,
    token: Token,
    algorithms: AlgorithmChoice,
    scratch: ScratchPool,
    slabs: Slabs,
    interlude: Option<Interlude>,
}

/// See [`Context::with_interlude`].
type Interlude = Box<dyn Fn() + Send + Sync + UnwindSafe + RefUnwindSafe>;

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("threads", &self.threads)
            .field("algorithms", &self.algorithms)
            .finish_non_exhaustive()
    }
}

impl Context {
    /// The maximum number of threads, more than machines have cores. With tens of thousands, the
    /// system refuses what a new thread allocates as it starts, and the process aborts.
    pub const MAX_THREADS: usize = 1024;

    /// A context with `threads` threads (all that the machine offers where `None`) and the
    /// instruction set named by the environment variable `SDPOINT_ISA`, or the best there is. If
    /// `SDPOINT_CONV` names an algorithm, convolutions that it can compute are computed by it.
    ///
    /// # Errors
    ///
    /// If `SDPOINT_ISA` names no instruction set of this machine, `SDPOINT_CONV` no algorithm,
    /// there are more threads than [`Context::MAX_THREADS`], or threads cannot be started.
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

    /// A context with this instruction set, regardless of the environment.
    ///
    /// # Errors
    ///
    /// If this machine has no such instruction set, there are more threads than
    /// [`Context::MAX_THREADS`], or threads cannot be started.
    pub fn with_isa(threads: Option<NonZeroUsize>, isa: Isa) -> Result<Self, ContextError> {
        let token = Token::new(isa).ok_or(ContextError::UnavailableIsa(isa))?;
        let threads = match threads {
            Some(threads) => threads.get(),
            None => std::thread::available_parallelism()
                .map_or(1, NonZeroUsize::get)
                .min(Self::MAX_THREADS),
        };
        if threads > Self::MAX_THREADS {
            return Err(ContextError::TooManyThreads { threads });
        }
        let workers = Workers::new(threads - 1)
            .map_err(|source| ContextError::Threads { threads, source })?;
        Ok(Context {
            workers,
            threads,
            token,
            algorithms: AlgorithmChoice::new(isa),
            scratch: ScratchPool::default(),
            slabs: Slabs::default(),
            interlude: None,
        })
    }

    /// The same context with an algorithm forced for all convolutions that it supports. Weights
    /// have to be packed with a context that forces the same one.
    pub fn forcing(self, algorithm: ConvAlgorithm) -> Self {
        Context {
            algorithms: self.algorithms.forcing(algorithm),
            ..self
        }
    }

    /// The same context without the algorithms that keep the weights of a convolution in several
    /// forms: less memory for models, more time. Last bits of results may differ.
    pub fn with_low_memory(self) -> Self {
        Context {
            algorithms: self.algorithms.with_low_memory(),
            ..self
        }
    }

    /// The same context with a function that each kernel calls before it starts, and before its
    /// parts if it has several, on the thread that runs it: there, a program can let other threads
    /// have the core. A batch calls it about every millisecond, a small one more often.
    pub fn with_interlude(
        self,
        interlude: impl Fn() + Send + Sync + UnwindSafe + RefUnwindSafe + 'static,
    ) -> Self {
        Context {
            interlude: Some(Box::new(interlude)),
            ..self
        }
    }

    /// A context of the calling thread alone. Weights that it packs are for this one, too.
    pub fn alone(&self) -> Self {
        Context {
            workers: Workers::none(),
            threads: 1,
            token: self.token,
            algorithms: self.algorithms,
            scratch: ScratchPool::default(),
            slabs: Slabs::default(),
            interlude: None,
        }
    }

    /// The rule by which the algorithms of convolutions are chosen.
    pub fn algorithms(&self) -> AlgorithmChoice {
        self.algorithms
    }

    /// The number of threads that work on a kernel, the caller's included.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// The instruction set that kernels run on.
    pub fn isa(&self) -> Isa {
        self.algorithms.isa()
    }

    /// Bytes of working memory allocated so far and kept for further calls.
    pub fn scratch_bytes(&self) -> usize {
        self.scratch.bytes()
    }

    /// Floats in a vector register.
    pub(crate) fn lanes(&self) -> usize {
        self.isa().lanes()
    }

    /// Runs `op` compiled for this context's instruction set.
    ///
    /// All functions and closures that `op` calls must be `#[inline(always)]`; otherwise they are
    /// compiled without the instruction set.
    pub(crate) fn dispatch<Op: SimdOp>(&self, op: Op) -> Op::Output {
        match self.token {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an `Avx512Isa` exists only on machines with these features.
            Token::Avx512(isa) => unsafe { op.avx512(isa) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an `Avx2Isa` exists only on machines with these features.
            Token::Avx2(isa) => unsafe { op.avx2(isa) },
            #[cfg(target_arch = "aarch64")]
            Token::Neon(isa) => op.baseline(isa),
            Token::Portable(isa) => op.baseline(isa),
        }
    }

    /// Runs `f(0)` to `f(tasks - 1)`, each once, on all threads, and returns when all are done.
    /// Each thread begins with a share of consecutive tasks, in order.
    pub(crate) fn parallel(&self, tasks: usize, f: impl Fn(usize) + Sync) {
        self.parallel_with(tasks, || (), |(), task| f(task));
    }

    /// As [`Context::parallel`], with a state that each thread creates once for its tasks.
    pub(crate) fn parallel_with<S>(
        &self,
        tasks: usize,
        init: impl Fn() -> S + Sync,
        f: impl Fn(&mut S, usize) + Sync,
    ) {
        if let Some(interlude) = &self.interlude {
            interlude();
        }
        let queue = TaskQueue::new(tasks, self.threads);
        let work = || {
            let mut taken = queue.tasks();
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

    /// Whether `task` is the last of some thread's own share of `tasks` tasks. Kernels prefetch for
    /// the task after any other.
    pub(crate) fn ends_share(&self, tasks: usize, task: usize) -> bool {
        let shares = shares(tasks, self.threads);
        (1..=shares).any(|share| share_start(tasks, shares, share) == task + 1)
    }

    /// Fills working memory for `len` floats with `value`, for tests that results do not depend on
    /// its previous content.
    #[doc(hidden)]
    pub fn fill_scratch(&self, len: usize, value: f32) {
        self.scratch(len).fill(value);
    }

    /// Divides `out` into chunks of `chunk_len` (the last may be shorter) and runs
    /// `f(index, chunk)` for each, on all threads.
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

    /// Zeroed memory for `len` floats of weights, kept until dropped.
    pub(crate) fn persistent(&self, len: usize) -> AlignedVec {
        self.slabs.zeros(len)
    }

    /// Working memory for `len` floats with unspecified content, aligned to a cache line. Returned
    /// to a pool when dropped.
    pub(crate) fn scratch(&self, len: usize) -> Scratch<'_> {
        self.scratch.take(len)
    }
}

/// [`SimdOp::eval`] compiled once for each instruction set.
///
/// These are default methods of a trait because the compiler puts such a method into the codegen
/// unit of the type that it is called on. As functions of this module, all kernels of the crate
/// would be in one codegen unit, compiled on one core.
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

    /// For an instruction set that every processor of the compilation target has.
    #[inline(never)]
    fn baseline<I: rten_simd::Isa>(self, isa: I) -> Self::Output {
        self.eval(isa)
    }
}

impl<Op: SimdOp> Compiled for Op {}

/// The most shares that tasks are divided into: bounds the size of a [`TaskQueue`], which is on the
/// caller's stack. With more threads, several begin with the same share.
const MOST_SHARES: usize = 64;

/// Tasks divided into equal shares of consecutive tasks, one per thread. A thread runs its share in
/// order, so that the next task finds data of the previous one in its caches, and then steals from
/// the shares of the other threads.
struct TaskQueue {
    tasks: usize,
    shares: usize,
    /// Threads that have taken a share so far.
    threads: AtomicUsize,
    /// Each share's next task.
    next: [AtomicUsize; MOST_SHARES],
}

impl TaskQueue {
    fn new(tasks: usize, threads: usize) -> Self {
        let shares = shares(tasks, threads);
        let start = |share| AtomicUsize::new(share_start(tasks, shares, share));
        TaskQueue {
            tasks,
            shares,
            threads: AtomicUsize::new(0),
            next: std::array::from_fn(|share| start(share.min(shares))),
        }
    }

    /// The tasks for the calling thread: those of its own share, then the remaining ones of the
    /// others.
    fn tasks(&self) -> impl Iterator<Item = usize> {
        let first = self.threads.fetch_add(1, Ordering::Relaxed);
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
    use crate::isa::Registers;
    use rten_simd::ops::BitOps;
    use std::sync::atomic::AtomicU32;

    struct KernelRegisters;

    impl SimdOp for KernelRegisters {
        type Output = Registers;

        #[inline(always)]
        fn eval<I: rten_simd::Isa>(self, isa: I) -> Registers {
            assert_eq!(isa.f32().len(), Registers::of::<I>().lanes);
            Registers::of::<I>()
        }
    }

    #[test]
    fn registers_are_those_that_kernels_are_compiled_for() {
        for isa in Isa::available() {
            let ctx = Context::with_isa(None, isa).unwrap();
            assert_eq!(ctx.dispatch(KernelRegisters), isa.registers());
        }
    }

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
    fn more_threads_than_the_system_can_start_are_an_error() {
        for n in [Context::MAX_THREADS + 1, 20_000, usize::MAX] {
            let error = Context::with_isa(threads(n), Isa::Portable).unwrap_err();
            assert!(matches!(error, ContextError::TooManyThreads { threads } if threads == n));
            let message = error.to_string();
            assert!(message.contains("1024"), "{message}");
        }
    }

    #[test]
    fn errors_are_messages_for_users() {
        let error = ContextError::UnknownIsa("sse9".parse::<Isa>().unwrap_err());
        let message = error.to_string();
        let names = available_names();
        assert_eq!(
            message,
            format!("SDPOINT_ISA: unknown instruction set 'sse9'; this machine has {names}")
        );
        let error = ContextError::UnknownAlgorithm("fft".parse::<ConvAlgorithm>().unwrap_err());
        assert!(
            error
                .to_string()
                .starts_with("SDPOINT_CONV: unknown convolution algorithm 'fft'")
        );
        for message in [message, error.to_string()] {
            assert!(!message.contains(['"', '(', '{']), "{message}");
        }
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
