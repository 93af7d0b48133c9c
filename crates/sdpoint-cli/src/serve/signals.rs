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

    /// Loads all models again at each signal to do so, until one to end. Signals that come
    /// meanwhile are followed by one more pass, since files may have changed that were read before.
    #[cfg(unix)]
    pub async fn reload_until_stop(&mut self, handle: &Handle) {
        let mut running = None;
        let mut again = false;
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = tokio::signal::ctrl_c() => return,
                _ = self.hang_up.recv() => again = true,
                () = ended(&mut running) => running = None,
            }
            if again && running.is_none() {
                again = false;
                tracing::info!("loading all models again");
                let handle = handle.clone();
                // What goes wrong is logged, and the old model stays.
                let pass = move || drop(handle.registry().load_all());
                running = Some(tokio::task::spawn_blocking(pass));
            }
        }
    }

    /// Waits for a signal to end; there is none to load models again.
    #[cfg(not(unix))]
    pub async fn reload_until_stop(&mut self, _: &Handle) {
        self.stop().await;
    }
}

/// Waits until a pass over the models has ended; for ever if there is none.
#[cfg(unix)]
async fn ended(pass: &mut Option<tokio::task::JoinHandle<()>>) {
    match pass {
        // A panic was reported when it happened.
        Some(pass) => drop(pass.await),
        None => std::future::pending().await,
    }
}
