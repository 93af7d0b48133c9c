//! Catching of panics in third-party decoders.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::thread;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

static HOOK: Once = Once::new();

/// Calls `work`; returns `None` if it panicked. The panic is not printed on
/// standard error, as the caller turns it into an error with the image's name.
/// Other panics, including concurrent ones of other threads, are printed as
/// usual.
pub(crate) fn guarded<T>(work: impl FnOnce() -> T) -> Option<T> {
    // While a thread unwinds, the hook cannot be replaced.
    if !thread::panicking() {
        HOOK.call_once(|| {
            let before = panic::take_hook();
            panic::set_hook(Box::new(move |info| {
                if !QUIET.try_with(Cell::get).unwrap_or(false) {
                    before(info);
                }
            }));
        });
    }
    let outer = QUIET.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    QUIET.set(outer);
    outcome.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_caught_and_the_next_one_reported_again() {
        assert_eq!(guarded(|| 7), Some(7));
        assert_eq!(guarded(|| -> u8 { panic!("on a file") }), None);
        assert!(!QUIET.get());
        let nested = guarded(|| {
            assert_eq!(guarded(|| -> u8 { panic!("inside") }), None);
            QUIET.get()
        });
        assert_eq!(nested, Some(true));
    }
}
