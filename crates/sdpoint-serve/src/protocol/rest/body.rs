//! Bodies of requests: read in whole, and uncompressed.

use std::io::Read;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderMap, header};
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use http_body_util::BodyExt;

use super::super::error::{ApiError, Kind, quoted};
use crate::app::Call;

/// Reads a body, which the connection bounds in length, time and memory.
///
/// # Errors
/// If it is beyond those bounds, the client goes away, or it is compressed in a way that is
/// not read.
pub async fn read(
    call: &Call,
    headers: &HeaderMap,
    mut body: Body,
    most: usize,
) -> Result<Bytes, ApiError> {
    // What a client announces is no reason to take much memory for it.
    const AT_FIRST: u64 = 1 << 20;
    let announced = body.size_hint().lower().min(AT_FIRST);
    let mut whole = Vec::with_capacity(announced as usize);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(refused)?;
        if let Ok(data) = frame.into_data() {
            whole.extend_from_slice(&data);
        }
    }
    let length = whole.len();
    aside(length, || uncompress(call, headers, whole, most))
}

/// Does work on a body of this length. While a long one is read, other threads take over the
/// requests of this one.
pub fn aside<T>(length: usize, work: impl FnOnce() -> T) -> T {
    const LONG: usize = 1 << 18;
    if length < LONG {
        work()
    } else {
        tokio::task::block_in_place(work)
    }
}

/// Why a body could not be read: what the connection has found, or the connection's end.
fn refused(error: axum::Error) -> ApiError {
    match error.into_inner().downcast::<ApiError>() {
        Ok(error) => *error,
        Err(_) => ApiError::invalid("the body ends too early"),
    }
}

fn uncompress(
    call: &Call,
    headers: &HeaderMap,
    body: Vec<u8>,
    most: usize,
) -> Result<Bytes, ApiError> {
    let Some(encoding) = headers.get(header::CONTENT_ENCODING) else {
        return Ok(body.into());
    };
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
                    "Content-Encoding {} is not read; gzip and deflate are",
                    quoted(&String::from_utf8_lossy(other))
                ),
            ));
        }
    };
    if whole.len() > most {
        return Err(ApiError::new(
            Kind::TooLarge,
            format!("the body has more than {most} bytes when uncompressed"),
        ));
    }
    read.map_err(|_| ApiError::invalid("the compressed body is damaged"))?;
    call.memory.add(whole.len())?;
    Ok(whole.into())
}
