//! A limit on the memory of requests: bodies, and what is parsed and decoded from them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::protocol::error::ApiError;

/// Counts the bytes of all requests in memory.
#[derive(Debug)]
pub struct Memory {
    used: AtomicUsize,
    most: usize,
}

/// The bytes of one request, released when this is dropped.
#[derive(Debug)]
pub struct Reservation {
    memory: Arc<Memory>,
    bytes: AtomicUsize,
}

impl Memory {
    /// Creates a limit of `most` bytes.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            used: AtomicUsize::new(0),
            most,
        })
    }

    /// Starts an empty reservation for a request.
    pub fn begin(self: &Arc<Self>) -> Arc<Reservation> {
        Arc::new(Reservation {
            memory: self.clone(),
            bytes: AtomicUsize::new(0),
        })
    }

    /// The bytes in use.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

impl Reservation {
    /// Adds bytes that were received, or that the next step takes beside them.
    ///
    /// # Errors
    /// If the total would exceed the limit.
    pub fn add(&self, bytes: usize) -> Result<(), ApiError> {
        let Memory { used, most } = &*self.memory;
        let fits = |used: usize| used.checked_add(bytes).filter(|sum| sum <= most);
        let order = Ordering::Relaxed;
        if used.fetch_update(order, order, fits).is_err() {
            return Err(ApiError::overloaded(
                "overloaded: the memory for requests is full",
                Duration::from_millis(100),
            ));
        }
        self.bytes.fetch_add(bytes, order);
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let bytes = *self.bytes.get_mut();
        self.memory.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::error::Kind;

    #[test]
    fn bytes_are_counted_until_dropped() {
        let memory = Memory::new(10);
        let [one, two] = [memory.begin(), memory.begin()];
        one.add(6).unwrap();
        one.add(2).unwrap();
        assert_eq!(two.add(3).unwrap_err().kind, Kind::Overloaded);
        two.add(2).unwrap();
        assert!(two.add(usize::MAX).is_err());
        drop(one);
        assert_eq!(memory.used(), 2);
        two.add(8).unwrap();
        drop(two);
        assert_eq!(memory.used(), 0);
    }
}
