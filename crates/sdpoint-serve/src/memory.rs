//! A bound on the bytes of requests that are in memory at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::protocol::error::ApiError;

/// The bytes that all requests hold.
#[derive(Debug)]
pub struct Memory {
    used: AtomicUsize,
    most: usize,
}

/// The bytes that one request holds; they are free when this is dropped.
#[derive(Debug)]
pub struct Reservation {
    memory: Arc<Memory>,
    bytes: AtomicUsize,
}

impl Memory {
    /// A bound of so many bytes.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            used: AtomicUsize::new(0),
            most,
        })
    }

    /// Nothing yet, for a request that begins.
    pub fn begin(self: &Arc<Self>) -> Arc<Reservation> {
        Arc::new(Reservation {
            memory: self.clone(),
            bytes: AtomicUsize::new(0),
        })
    }

    /// The bytes that are held.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

impl Reservation {
    /// Adds bytes that have arrived.
    ///
    /// # Errors
    /// If all requests together then hold too many.
    pub fn add(&self, bytes: usize) -> Result<(), ApiError> {
        let Memory { used, most } = &*self.memory;
        let fits = |used: usize| used.checked_add(bytes).filter(|sum| sum <= most);
        let order = Ordering::Relaxed;
        if used.fetch_update(order, order, fits).is_err() {
            return Err(ApiError::overloaded(
                "overloaded: requests take all the memory that they may",
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
