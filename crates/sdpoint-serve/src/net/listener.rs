//! Accepts connections.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use tokio::net::TcpListener;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::connection::{self, Shared};
use super::front::Front;

/// The delay before accepting again after an error.
const PAUSE: Duration = Duration::from_millis(50);

/// How long an idle connection has to close before the next one is woken.
const PATIENCE: Duration = Duration::from_millis(10);

/// Accepts connections until they have to end.
pub async fn accept(listener: TcpListener, front: Front, shared: Shared) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.stop() => return,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // The connection was reset before it was accepted, or there are no more
                // file descriptors.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let place = tokio::select! {
            place = find_place(&shared.places, &shared.room) => place,
            () = shared.stop() => return,
        };
        let Some(place) = place else { return };
        // Responses are written in one piece, so there is nothing to coalesce.
        let _ = stream.set_nodelay(true);
        let open = Open::new(front.app.metrics.connections.clone(), place);
        let (front, shared) = (front.clone(), shared.clone());
        tokio::spawn(async move {
            connection::serve(stream, address.ip().to_canonical(), front, shared).await;
            drop(open);
        });
    }
}

/// An open connection and its permit.
struct Open {
    count: Gauge,
    _place: OwnedSemaphorePermit,
}

impl Open {
    fn new(count: Gauge, place: OwnedSemaphorePermit) -> Self {
        count.inc();
        Self {
            count,
            _place: place,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.count.dec();
    }
}

/// Acquires a permit for a connection. If there is none, idle connections are closed.
async fn find_place(places: &Arc<Semaphore>, room: &Notify) -> Option<OwnedSemaphorePermit> {
    loop {
        let place = places.clone().acquire_owned();
        match tokio::time::timeout(PATIENCE, place).await {
            Ok(place) => return place.ok(),
            Err(_) => room.notify_one(),
        }
    }
}
