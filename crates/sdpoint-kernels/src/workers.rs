//! A thread pool whose threads help callers with their work.
//!
//! Rayon's scope returns only when each spawned job has been started by a thread of the pool. If
//! another program occupies that thread's core, a caller that has already done all tasks itself
//! waits for a time slice of the scheduler. Here, the caller withdraws a job that no thread has
//! started.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::PoisonError;

use crate::sync::{
    Arc, AtomicUsize, Builder, Condvar, JoinHandle, Mutex, MutexGuard, Ordering, SPINS, spin_loop,
};

/// A pool of threads. Dropping it stops them.
pub(crate) struct Workers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    /// Signalled when a job is posted, or the pool closes.
    posted: Condvar,
    /// Signalled when the last helper of a job has left it.
    left: Condvar,
    /// The number of jobs posted so far, for threads that spin.
    posts: AtomicUsize,
}

#[derive(Default)]
struct State {
    /// The jobs that are posted and not withdrawn.
    open: Vec<Posted>,
    /// Threads that wait for [`Shared::posted`].
    asleep: usize,
    /// Whether the pool is being dropped.
    closing: bool,
}

/// A job that helpers may still join.
struct Posted {
    job: JobPtr,
    /// How many more helpers may join.
    seats: usize,
}

/// A job on its caller's stack.
struct Job<'a> {
    work: &'a (dyn Fn() + Sync),
    /// Helpers at work. Changed only under the pool's lock.
    helpers: AtomicUsize,
    /// The payload of the first helper's panic.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct JobPtr(*const Job<'static>);

// SAFETY: threads access a job by shared reference only, and all its fields are `Sync`.
unsafe impl Send for JobPtr {}

impl Workers {
    /// No threads.
    pub(crate) fn none() -> Self {
        Workers {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                posted: Condvar::new(),
                left: Condvar::new(),
                posts: AtomicUsize::new(0),
            }),
            threads: Vec::new(),
        }
    }

    /// Starts `count` threads.
    pub(crate) fn new(count: usize) -> std::io::Result<Self> {
        let mut workers = Self::none();
        for i in 0..count {
            let shared = workers.shared.clone();
            let thread = Builder::new()
                .name(format!("sdpoint-{}", i + 1))
                .spawn(move || shared.serve())?;
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    /// Runs `work` on this thread and on up to `helpers` other threads as they become free. Returns
    /// when all calls that were started have returned.
    ///
    /// `work` has to take its tasks from a queue shared by all calls, and return when the queue is
    /// empty, as the number of calls is not known in advance.
    ///
    /// # Panics
    ///
    /// If `work` does, on any thread.
    pub(crate) fn run(&self, helpers: usize, work: &(dyn Fn() + Sync)) {
        let job = Job {
            work,
            helpers: AtomicUsize::new(0),
            panic: Mutex::new(None),
        };
        let posting = Posting::new(&self.shared, &job, helpers.min(self.threads.len()));
        work();
        drop(posting);
        let panic = job.panic.into_inner();
        if let Some(panic) = panic.unwrap_or_else(PoisonError::into_inner) {
            resume_unwind(panic);
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.posts.fetch_add(1, Ordering::Release);
        self.shared.posted.notify_all();
        for thread in self.threads.drain(..) {
            // A helper's panics are its job's; the thread itself has none to report.
            let _ = thread.join();
        }
    }
}

/// Keeps a job open. When dropped, by a panic too, withdraws the job and waits for its helpers.
struct Posting<'a> {
    shared: &'a Shared,
    job: JobPtr,
    helpers: &'a AtomicUsize,
}

impl<'a> Posting<'a> {
    fn new(shared: &'a Shared, job: &'a Job<'_>, seats: usize) -> Self {
        // Erases the lifetime. Sound because no thread has the pointer after `drop` has returned.
        let ptr = JobPtr(std::ptr::from_ref(job).cast());
        let mut state = shared.lock();
        state.open.push(Posted { job: ptr, seats });
        let wake = seats.min(state.asleep);
        drop(state);
        shared.posts.fetch_add(1, Ordering::Release);
        for _ in 0..wake {
            shared.posted.notify_one();
        }
        Posting {
            shared,
            job: ptr,
            helpers: &job.helpers,
        }
    }
}

impl Drop for Posting<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.open.retain(|posted| posted.job != self.job);
        let mut spins = 0;
        while self.helpers.load(Ordering::Acquire) > 0 {
            if spins < SPINS {
                drop(state);
                while spins < SPINS && self.helpers.load(Ordering::Acquire) > 0 {
                    spins += 1;
                    spin_loop();
                }
                state = self.shared.lock();
            } else {
                state = wait(&self.shared.left, state);
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The loop of a thread of the pool.
    fn serve(&self) {
        while let Some(ptr) = self.join_job() {
            // SAFETY: the caller's `Posting` outlives the helpers that it counts, and this
            // thread was counted by `join_job`.
            let job = unsafe { &*ptr.0 };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(job.work)) {
                let mut first = job.panic.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert(panic);
            }
            let state = self.lock();
            // From here on the job may no longer exist.
            if job.helpers.fetch_sub(1, Ordering::Release) == 1 {
                self.left.notify_all();
            }
            drop(state);
        }
    }

    /// Waits for a job and joins it; `None` if the pool closes.
    fn join_job(&self) -> Option<JobPtr> {
        let mut spins = 0;
        let mut state = self.lock();
        loop {
            if state.closing {
                return None;
            }
            if let Some(index) = state.open.iter().position(|posted| posted.seats > 0) {
                let posted = &mut state.open[index];
                posted.seats -= 1;
                // SAFETY: a posted job is valid until its `Posting` withdraws it.
                let job = unsafe { &*posted.job.0 };
                job.helpers.fetch_add(1, Ordering::Relaxed);
                return Some(posted.job);
            }
            if spins < SPINS {
                let seen = self.posts.load(Ordering::Acquire);
                drop(state);
                while spins < SPINS && self.posts.load(Ordering::Acquire) == seen {
                    spins += 1;
                    spin_loop();
                }
                state = self.lock();
            } else {
                state.asleep += 1;
                state = wait(&self.posted, state);
                state.asleep -= 1;
                spins = 0;
            }
        }
    }
}

fn wait<'a>(condition: &Condvar, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
    condition
        .wait(state)
        .unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::time::Duration;

    #[test]
    fn helpers_join_the_caller() {
        let workers = Workers::new(2).unwrap();
        // Passes only if three threads wait at once.
        let barrier = Barrier::new(3);
        for _ in 0..100 {
            workers.run(2, &|| {
                barrier.wait();
            });
        }
    }

    #[test]
    fn sleeping_helpers_wake() {
        let workers = Workers::new(1).unwrap();
        let barrier = Barrier::new(2);
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(20));
            workers.run(1, &|| {
                barrier.wait();
            });
        }
    }

    #[test]
    fn a_caller_does_not_wait_for_those_who_did_not_come() {
        let workers = Workers::new(1).unwrap();
        let (entered, leave) = (Barrier::new(3), Barrier::new(2));
        let caller = std::thread::current().id();
        std::thread::scope(|scope| {
            // Occupies the only helper until the end.
            scope.spawn(|| {
                let holder = std::thread::current().id();
                workers.run(1, &|| {
                    // The holder waits too, or it would withdraw the job
                    // before a slow helper has joined it.
                    entered.wait();
                    if std::thread::current().id() != holder {
                        leave.wait();
                    }
                });
            });
            entered.wait();
            workers.run(1, &|| assert_eq!(std::thread::current().id(), caller));
            leave.wait();
        });
    }

    #[test]
    fn a_panic_reaches_the_caller_and_leaves_the_pool_usable() {
        let workers = Workers::new(1).unwrap();
        let barrier = Barrier::new(2);
        let caller = std::thread::current().id();
        for on_helper in [true, false] {
            let result = catch_unwind(AssertUnwindSafe(|| {
                workers.run(1, &|| {
                    barrier.wait();
                    assert!(
                        (std::thread::current().id() == caller) == on_helper,
                        "wanted"
                    );
                });
            }));
            assert!(result.is_err());
        }
        workers.run(1, &|| {
            barrier.wait();
        });
    }
}
