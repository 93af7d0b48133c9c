//! Ctrl-C: the first one requests an orderly stop, the second one ends the
//! process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::failure::{Class, Failure};
use crate::output::note;

/// Whether the user has requested a stop.
#[derive(Clone, Debug)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Handles Ctrl-C and SIGTERM from now on.
    pub fn install() -> Result<Self, Failure> {
        let requested = Arc::new(AtomicBool::new(false));
        let flag = requested.clone();
        ctrlc::set_handler(move || {
            if flag.swap(true, Ordering::SeqCst) {
                std::process::exit(Class::Interrupted as i32);
            }
            note("\nStopping after this step; press Ctrl-C again to stop immediately.");
        })
        .map_err(|error| Failure::from_error(Class::Files, &error))?;
        Ok(Self(requested))
    }

    /// Whether a stop was requested.
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
