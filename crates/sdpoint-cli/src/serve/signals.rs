//! Signals: to end, and to load models again.

use std::io;

use sdpoint_serve::Handle;

use crate::failure::Failure;

/// The signals that a server follows. Each of several receives all that come.
pub struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    hang_up: tokio::signal::unix::Signal,
}

impl Signals {
    /// Takes over SIGTERM, SIGHUP and Ctrl-C for the rest of the process.
    pub fn new() -> Result<Self, Failure> {
        Self::install()
            .map_err(|error| Failure::io(format!("cannot receive signals: {error}"), error.kind()))
    }

    #[cfg(unix)]
    fn install() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    #[cfg(not(unix))]
    fn install() -> io::Result<Self> {
        Ok(Self {})
    }

    /// Waits for a signal to end.
    #[cfg(unix)]
    pub async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    }

    /// Waits for a signal to end.
    #[cfg(not(unix))]
    pub async fn stop(&mut self) {
        let _ = tokio::signal::ctrl_c().await;
    }

    /// Loads all models again at each signal to do so, until one to end.
    #[cfg(unix)]
    pub async fn reload_until_stop(&mut self, handle: &Handle) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = tokio::signal::ctrl_c() => return,
                _ = self.hang_up.recv() => {
                    let handle = handle.clone();
                    // What goes wrong is logged, and the old model stays.
                    tokio::task::spawn_blocking(move || handle.registry().load_all());
                }
            }
        }
    }

    /// Waits for a signal to end; there is none to load models again.
    #[cfg(not(unix))]
    pub async fn reload_until_stop(&mut self, _: &Handle) {
        self.stop().await;
    }
}
