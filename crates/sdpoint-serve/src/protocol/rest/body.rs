//! Reads and decompresses the bodies of requests.

use std::io::{self, Read, Write};

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderMap, HeaderValue, header};
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use http_body_util::BodyExt;
use tokio::sync::SemaphorePermit;

use super::super::error::{ApiError, Kind, quoted};
use crate::app::{App, Call};
use crate::memory::Reservation;

/// Reads a body, which the connection limits in length, time and memory.
///
/// # Errors
/// If it exceeds these limits, the client disconnects, or the compression is not
/// supported.
pub async fn read(
    app: &App,
    call: &Call,
    headers: &HeaderMap,
    mut body: Body,
    most: usize,
) -> Result<Bytes, ApiError> {
    let announced = body.size_hint().exact();
    let announced = announced.map_or(most, |length| most.min(length as usize));
    let mut whole = Counted::new(&call.memory, announced);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(refused)?;
        if let Ok(data) = frame.into_data() {
            if whole.bytes.len() + data.len() > most {
                return Err(ApiError::too_long(most));
            }
            whole.extend(&data)?;
        }
    }
    let Some(encoding) = headers.get(header::CONTENT_ENCODING) else {
        return Ok(whole.bytes.into());
    };
    // A short one may become long.
    let _turn = turn(app, most).await;
    aside(most, || uncompress(call, encoding, whole.bytes, most))
}

/// Bytes of which the memory is counted as it is allocated.
struct Counted<'a> {
    bytes: Vec<u8>,
    memory: &'a Reservation,
    /// The length that they are expected to reach.
    expected: usize,
}

impl<'a> Counted<'a> {
    /// The least that is allocated, unless fewer are expected. The length that a client announces
    /// is not trusted: all connections together can reserve half of the default limit without
    /// sending anything.
    const AT_FIRST: usize = 1 << 18;

    fn new(memory: &'a Reservation, expected: usize) -> Self {
        Self {
            bytes: Vec::new(),
            memory,
            expected,
        }
    }

    /// Adds bytes, after at most doubling the capacity: up to the expected length and no further.
    fn extend(&mut self, more: &[u8]) -> Result<(), ApiError> {
        let (length, capacity) = (self.bytes.len() + more.len(), self.bytes.capacity());
        if length > capacity {
            let doubled = (2 * capacity).max(Self::AT_FIRST);
            let next = doubled.min(self.expected).max(length);
            self.memory.add(next - capacity)?;
            self.bytes.reserve_exact(next - self.bytes.len());
        }
        self.bytes.extend_from_slice(more);
        Ok(())
    }
}

impl Write for Counted<'_> {
    fn write(&mut self, more: &[u8]) -> io::Result<usize> {
        self.extend(more).map_err(io::Error::other)?;
        Ok(more.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes on which CPU-bound work is moved [`aside`].
const LONG: usize = 1 << 18;

/// Waits until few enough others do CPU-bound work on many bytes, so that the rest of the server
/// gets its share of the cores.
pub async fn turn(app: &App, length: usize) -> Option<SemaphorePermit<'_>> {
    if length < LONG {
        return None;
    }
    let turn = app.parsers.acquire().await;
    Some(turn.expect("nobody closes the semaphore"))
}

/// Does CPU-bound work on so many bytes. For many, the runtime moves the other tasks of this
/// thread elsewhere.
pub fn aside<T>(length: usize, work: impl FnOnce() -> T) -> T {
    if length < LONG {
        work()
    } else {
        tokio::task::block_in_place(work)
    }
}

/// The error of a body that could not be read.
fn refused(error: axum::Error) -> ApiError {
    match error.into_inner().downcast::<ApiError>() {
        Ok(error) => *error,
        Err(_) => ApiError::invalid("the body is truncated"),
    }
}

fn uncompress(
    call: &Call,
    encoding: &HeaderValue,
    body: Vec<u8>,
    most: usize,
) -> Result<Bytes, ApiError> {
    let mut whole = Counted::new(&call.memory, most);
    let limit = most as u64 + 1;
    let read = match encoding.as_bytes() {
        b"identity" => return Ok(body.into()),
        b"gzip" => io::copy(&mut MultiGzDecoder::new(&*body).take(limit), &mut whole),
        b"deflate" => io::copy(&mut ZlibDecoder::new(&*body).take(limit), &mut whole),
        other => {
            return Err(ApiError::new(
                Kind::MediaType,
                format!(
                    "Content-Encoding {} is not supported; use gzip or deflate",
                    quoted(&String::from_utf8_lossy(other))
                ),
            ));
        }
    };
    let whole = whole.bytes;
    if whole.len() > most {
        return Err(ApiError::new(
            Kind::TooLarge,
            format!("the body has more than {most} bytes when decompressed"),
        ));
    }
    let damaged = || ApiError::invalid("the compressed body is damaged");
    match read {
        Ok(_) => Ok(whole.into()),
        Err(error) => Err(error.downcast().unwrap_or_else(|_| damaged())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Memory;

    /// The capacity and the counted bytes after so many were added in pieces.
    fn collected(length: usize, expected: usize) -> [usize; 2] {
        let memory = Memory::new(usize::MAX);
        let reservation = memory.begin();
        let mut counted = Counted::new(&reservation, expected);
        let whole = vec![7; length];
        for piece in whole.chunks(50_000) {
            counted.extend(piece).unwrap();
            assert!(memory.used() >= counted.bytes.capacity());
        }
        assert_eq!(counted.bytes, whole);
        [counted.bytes.capacity(), memory.used()]
    }

    #[test]
    fn what_is_allocated_is_counted() {
        const MANY: usize = 5_000_000;
        assert_eq!(collected(1000, 1000), [1000; 2]);
        assert_eq!(collected(MANY, MANY), [MANY; 2]);
        // A client that announces much and sends little.
        assert_eq!(collected(1000, 1 << 26), [Counted::AT_FIRST; 2]);
        // Chunks without a length.
        let [capacity, counted] = collected(MANY, 1 << 26);
        assert!(capacity == counted && counted < 2 * MANY);
    }

    #[test]
    fn memory_is_reserved_before_it_is_allocated() {
        let memory = Memory::new(1 << 20);
        let reservation = memory.begin();
        let mut counted = Counted::new(&reservation, 1 << 26);
        let piece = [0; 1 << 16];
        let full = std::iter::repeat_with(|| counted.extend(&piece)).find_map(Result::err);
        assert_eq!(full.unwrap().kind, Kind::Overloaded);
        assert!(counted.bytes.capacity() <= 1 << 20);
    }
}
