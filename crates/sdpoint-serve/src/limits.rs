//! What one server, one connection, one client and one request may take.

use std::time::Duration;

/// Bounds on memory, time and connections.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Connections at once, of all protocols.
    pub connections: usize,
    /// Time for a request's header.
    pub header_time: Duration,
    /// Time between an answer over HTTP and the end of the next request's header.
    pub keep_alive: Duration,
    /// Time for a request's body.
    pub body_time: Duration,
    /// Time after which a gRPC connection without requests is closed.
    pub idle_time: Duration,
    /// Time in which a client must take some of its answer.
    pub write_time: Duration,
    /// Bytes of a request's body.
    pub body: usize,
    /// Bytes of all bodies that are held at a time.
    pub memory: usize,
    /// Images in a request.
    pub images: usize,
    /// Pixels of an image file.
    pub pixels: usize,
    /// Image files that wait for being decoded.
    pub undecoded: usize,
    /// Threads that decode image files.
    pub decoders: usize,
    /// Images that one client, known by its address, may have in flight.
    pub per_client: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1000,
            header_time: Duration::from_secs(10),
            // Longer than proxies keep their connections, so that it is they who close them.
            keep_alive: Duration::from_secs(75),
            body_time: Duration::from_secs(30),
            idle_time: Duration::from_secs(300),
            write_time: Duration::from_secs(30),
            body: 64 << 20,
            memory: 512 << 20,
            images: 256,
            pixels: 1 << 24,
            undecoded: 1024,
            decoders: std::thread::available_parallelism().map_or(1, usize::from),
            per_client: 4096,
        }
    }
}
