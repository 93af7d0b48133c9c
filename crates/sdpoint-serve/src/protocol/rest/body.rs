//! Reads and decompresses the bodies of requests.

use std::io::Read;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderMap, HeaderValue, header};
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use http_body_util::BodyExt;
use tokio::sync::SemaphorePermit;

use super::super::error::{ApiError, Kind, quoted};
use crate::app::{App, Call};

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
    // The announced length is not trusted: allocate at most a little in advance.
    const AT_FIRST: u64 = 1 << 20;
    let announced = body.size_hint().lower().min(AT_FIRST);
    let mut whole = Vec::with_capacity(announced as usize);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(refused)?;
        if let Ok(data) = frame.into_data() {
            whole.extend_from_slice(&data);
        }
    }
    let Some(encoding) = headers.get(header::CONTENT_ENCODING) else {
        return Ok(whole.into());
    };
    // A short one may become long.
    let _turn = turn(app, most).await;
    aside(most, || uncompress(call, encoding, whole, most))
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
    let mut whole = Vec::new();
    let limit = most as u64 + 1;
    let read = match encoding.as_bytes() {
        b"identity" => return Ok(body.into()),
        b"gzip" => MultiGzDecoder::new(&*body)
            .take(limit)
            .read_to_end(&mut whole),
        b"deflate" => ZlibDecoder::new(&*body).take(limit).read_to_end(&mut whole),
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
    if whole.len() > most {
        return Err(ApiError::new(
            Kind::TooLarge,
            format!("the body has more than {most} bytes when decompressed"),
        ));
    }
    read.map_err(|_| ApiError::invalid("the compressed body is damaged"))?;
    call.memory.add(whole.len())?;
    Ok(whole.into())
}
