//! The thread pool of `sdpoint-kernels`, compiled from its source file, under loom: all
//! interleavings of its threads up to a number of preemptions are explored. Loom finds data
//! races and deadlocks.
//!
//! `cargo run --release`

mod sync;
#[path = "../../../crates/sdpoint-kernels/src/workers.rs"]
mod workers;

use std::panic::{AssertUnwindSafe, catch_unwind};

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use workers::Workers;

/// The most preemptions per interleaving. Almost all concurrency bugs need no more (Musuvathi
/// and Qadeer, "Iterative Context Bounding", PLDI 2007).
const PREEMPTIONS: usize = 3;

/// The memory that tasks write, each its own element, with no synchronisation but the pool's.
struct Results(Vec<UnsafeCell<usize>>);

// SAFETY: loom reports unsynchronised accesses of two threads to one element.
unsafe impl Sync for Results {}
unsafe impl Send for Results {}

/// Runs `tasks` tasks as the kernels do: taken from a counter that all threads share.
fn run(pool: &Workers, helpers: usize, tasks: usize) {
    let next = AtomicUsize::new(0);
    let results = Results((0..tasks).map(|_| UnsafeCell::new(0)).collect());
    let results = &results;
    pool.run(helpers, &|| {
        loop {
            let task = next.fetch_add(1, Ordering::Relaxed);
            let Some(place) = results.0.get(task) else {
                break;
            };
            // SAFETY: the counter assigns each element to one thread.
            place.with_mut(|value| unsafe { *value += task + 1 });
        }
    });
    for (task, place) in results.0.iter().enumerate() {
        // SAFETY: all calls have returned, which is the pool's guarantee under test.
        place.with(|value| assert_eq!(unsafe { *value }, task + 1));
    }
}

fn model(name: &str, scenario: impl Fn() + Sync + Send + 'static) {
    let orders = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = orders.clone();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.check(move || {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        scenario();
    });
    let orders = orders.load(std::sync::atomic::Ordering::Relaxed);
    println!("{name}: {orders} orders, all fine");
}

fn main() {
    model("a pool that nobody uses closes", || {
        drop(Workers::new(1).expect("a thread"));
    });
    model("a caller and a helper", || {
        let pool = Workers::new(1).expect("a thread");
        run(&pool, 1, 2);
    });
    model("two calls, one after the other", || {
        let pool = Workers::new(1).expect("a thread");
        run(&pool, 1, 1);
        run(&pool, 1, 2);
    });
    model("a caller and two helpers", || {
        let pool = Workers::new(2).expect("threads");
        run(&pool, 2, 2);
    });
    model("two callers, one helper", || {
        let pool = Arc::new(Workers::new(1).expect("a thread"));
        let other = pool.clone();
        let caller = loom::thread::spawn(move || run(&other, 1, 1));
        run(&pool, 1, 1);
        caller.join().expect("no panic");
    });
    // Not a panic of the caller: loom runs all threads on one, whose unwinding would poison the
    // locks of the others.
    model("a helper's panic reaches the caller", || {
        let pool = Workers::new(1).expect("a thread");
        let caller = loom::thread::current().id();
        let came = AtomicUsize::new(0);
        let result = catch_unwind(AssertUnwindSafe(|| {
            pool.run(1, &|| {
                if loom::thread::current().id() != caller {
                    came.fetch_add(1, Ordering::Relaxed);
                    // Not `panic!`, whose message would be printed for every interleaving.
                    std::panic::resume_unwind(Box::new("wanted"));
                }
            });
        }));
        assert_eq!(result.is_err(), came.load(Ordering::Relaxed) == 1);
    });
}
