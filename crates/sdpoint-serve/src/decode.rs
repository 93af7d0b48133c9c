//! Decodes and preprocesses image files on a bounded number of blocking threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use sdpoint::ImageError;
use sdpoint::core::Preprocessing;
use sdpoint::data::{MAX_SIDE, Preparer, decode, image_size};
use tokio::sync::Semaphore;

use crate::limits::Limits;
use crate::models::Model;
use crate::protocol::error::{ApiError, Kind};

/// Decodes image files.
#[derive(Debug)]
pub struct Decoders {
    threads: Arc<Semaphore>,
    /// Files that are queued or being decoded, and the limit on them.
    waiting: Arc<AtomicUsize>,
    most: usize,
    /// Requests that wait for a thread.
    behind: Arc<AtomicUsize>,
    /// The limit on pixels of an image.
    pixels: usize,
}

/// How long a request waits for a thread to decode its files.
#[derive(Clone, Copy, Debug)]
pub enum Patience {
    /// Until its own deadline.
    Until(Instant),
    /// Until this time, or longer if no other request waits behind it: then there is no load to
    /// shed.
    While(Instant),
    /// As long as it takes.
    Endless,
}

impl Decoders {
    /// Creates decoders with the given limits.
    pub fn new(limits: &Limits) -> Self {
        Self {
            threads: Arc::new(Semaphore::new(limits.decoders.max(1))),
            waiting: Arc::default(),
            most: limits.undecoded,
            behind: Arc::default(),
            pixels: limits.pixels,
        }
    }

    /// Decodes files and preprocesses them as in evaluation: normalised values, NHWC. Files
    /// of requests that have waited too long or were cancelled are skipped.
    ///
    /// # Errors
    /// If a file is not an image or too large, too many files are queued, or the request has
    /// waited too long.
    pub async fn decode(
        &self,
        files: Vec<Bytes>,
        model: Arc<Model>,
        patience: Patience,
    ) -> Result<Vec<f32>, ApiError> {
        let places = self.queue(files.len())?;
        let waiting = Places::new(&self.behind, 1);
        let thread = self.threads.clone().acquire_owned().await;
        let thread = thread.map_err(|_| ApiError::from(crate::Refusal::Unavailable))?;
        drop(waiting);
        let now = Instant::now();
        match patience {
            Patience::Until(deadline) if deadline <= now => return Err(ApiError::expired()),
            Patience::While(time) if time <= now && self.behind.load(Ordering::Relaxed) > 0 => {
                return Err(ApiError::overloaded(
                    "overloaded: image files wait to be decoded for longer than the server's \
                     objective; retry later, or set 'late' to wait for an answer",
                    Duration::from_millis(100),
                ));
            }
            _ => {}
        }
        let abandoned = Abandon::default();
        let (flag, pixels) = (abandoned.0.clone(), self.pixels);
        let work = tokio::task::spawn_blocking(move || {
            // Held until the work ends, even if the request is cancelled meanwhile.
            let _taken = (places, thread);
            let preprocessing = model.engine.preprocessing();
            prepare(&files, preprocessing, pixels, &flag)
        });
        work.await
            .unwrap_or_else(|_| Err(ApiError::new(Kind::Internal, "decoding the image failed")))
    }

    /// Reserves places in the queue until the returned value is dropped.
    fn queue(&self, files: usize) -> Result<Places, ApiError> {
        let fits = |waiting: usize| Some(waiting + files).filter(|&sum| sum <= self.most);
        let order = Ordering::Relaxed;
        if self.waiting.fetch_update(order, order, fits).is_err() {
            return Err(ApiError::overloaded(
                format!(
                    "overloaded: {} image files are waiting to be decoded",
                    self.most
                ),
                Duration::from_millis(100),
            ));
        }
        Ok(Places {
            counter: self.waiting.clone(),
            taken: files,
        })
    }
}

/// What a request adds to a counter until this is dropped.
struct Places {
    counter: Arc<AtomicUsize>,
    taken: usize,
}

impl Places {
    fn new(counter: &Arc<AtomicUsize>, taken: usize) -> Self {
        counter.fetch_add(taken, Ordering::Relaxed);
        Self {
            counter: counter.clone(),
            taken,
        }
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        self.counter.fetch_sub(self.taken, Ordering::Relaxed);
    }
}

/// Tells the decoding thread, when dropped, that the request was cancelled.
#[derive(Default)]
struct Abandon(Arc<AtomicBool>);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What an error calls an image of a request.
fn called(index: usize, count: usize) -> String {
    if count == 1 {
        return "the image".to_owned();
    }
    format!("image {} of {count}", index + 1)
}

/// Checks the size of an image against the limits of the server, which are below those of the
/// decoders.
fn check_size(file: &[u8], pixels: usize) -> Result<(), String> {
    let [height, width] = match image_size(file) {
        Ok(size) => size,
        Err(ImageError::Size { width, height }) => [height, width],
        Err(error) => return Err(error.to_string()),
    };
    let size = format!("has {width}×{height} pixels");
    match height.saturating_mul(width) {
        area if area > pixels => Err(format!("{size}; the limit is {pixels} pixels")),
        0 => Err(size),
        _ if height.max(width) > MAX_SIDE => {
            Err(format!("{size}; the limit is {MAX_SIDE} pixels a side"))
        }
        _ => Ok(()),
    }
}

fn prepare(
    files: &[Bytes],
    preprocessing: &Preprocessing,
    pixels: usize,
    abandoned: &AtomicBool,
) -> Result<Vec<f32>, ApiError> {
    let internal = |error: &dyn std::fmt::Display| ApiError::new(Kind::Internal, error.to_string());
    let mut preparer = Preparer::new(preprocessing).map_err(|error| internal(&error))?;
    let mut inputs = vec![0.0; files.len() * preparer.input_len()];
    let rows = inputs.chunks_exact_mut(preparer.input_len());
    for (number, (file, input)) in std::iter::zip(files, rows).enumerate() {
        if abandoned.load(Ordering::Relaxed) {
            return Err(ApiError::expired());
        }
        let unusable = |error: &dyn std::fmt::Display| {
            ApiError::invalid(format!("{} {error}", called(number, files.len())))
        };
        check_size(file, pixels).map_err(|problem| unusable(&problem))?;
        let image = decode(file).map_err(|error| unusable(&error))?;
        preparer
            .prepare(&image, input)
            .map_err(|error| unusable(&error))?;
    }
    Ok(inputs)
}
