//! Limits on memory, time and connections.

use std::time::Duration;

/// The default limit on connections.
const CONNECTIONS: usize = 1000;

/// Limits per server, connection, client and request.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Open connections, over all protocols.
    pub connections: usize,
    /// Time to receive a request's header.
    pub header_time: Duration,
    /// Time from an HTTP response to the end of the next request's header.
    pub keep_alive: Duration,
    /// Time to receive a request's body.
    pub body_time: Duration,
    /// Time after which a gRPC connection without requests is closed.
    pub idle_time: Duration,
    /// Time within which a client must accept some of a response, over HTTP/2 all of it.
    pub write_time: Duration,
    /// Size of a request's body, in bytes.
    pub body: usize,
    /// Size of all bodies in memory, and of what is parsed and decoded from them, in bytes.
    pub memory: usize,
    /// Images per request.
    pub images: usize,
    /// Pixels per image file; no more than [`MAX_PIXELS`](sdpoint::data::MAX_PIXELS) are read.
    pub pixels: usize,
    /// Image files that wait to be decoded.
    pub undecoded: usize,
    /// Threads that decode image files.
    pub decoders: usize,
    /// Threads that parse or decompress long bodies of REST.
    pub parsers: usize,
    /// Images in flight per client address.
    pub per_client: usize,
    /// Connections with a request in progress per client address.
    pub busy_per_client: usize,
}

impl Limits {
    /// The default of [`busy_per_client`](Self::busy_per_client) for this many connections: most,
    /// since behind a proxy all clients have one address, but not all, so that no client can keep
    /// out the others.
    pub fn share_of_a_client(connections: usize) -> usize {
        connections - connections / 4
    }
}

impl Default for Limits {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            connections: CONNECTIONS,
            header_time: Duration::from_secs(10),
            // Longer than the usual keep-alive of proxies, so that the proxy closes first.
            keep_alive: Duration::from_secs(75),
            body_time: Duration::from_secs(30),
            idle_time: Duration::from_secs(300),
            write_time: Duration::from_secs(30),
            body: 64 << 20,
            memory: 512 << 20,
            images: 256,
            pixels: 1 << 24,
            undecoded: 1024,
            decoders: cores,
            parsers: cores,
            per_client: 4096,
            busy_per_client: Self::share_of_a_client(CONNECTIONS),
        }
    }
}
