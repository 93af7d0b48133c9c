//! The box filter: each pixel is the mean of those that its area covers.
//!
//! Whether a pixel counts whose centre is at the end of the area is decided by rounding errors,
//! and shows: so positions are computed as in Pillow, in the same order of operations.

use std::ops::Range;

use crate::{CHANNELS, Crop, ResizeError, changes};

/// As [`Resizer::resize`](crate::Resizer::resize), with `between` as working memory.
pub(crate) fn resize(
    between: &mut Vec<u8>,
    source: &[u8],
    [source_height, source_width]: [usize; 2],
    crop: Crop,
    target: &mut [u8],
    [height, width]: [usize; 2],
) -> Result<(), ResizeError> {
    let len = |height: usize, width: usize| height.checked_mul(width)?.checked_mul(CHANNELS);
    if len(source_height, source_width) != Some(source.len())
        || len(height, width) != Some(target.len())
        || !inside(crop.left, crop.width, source_width)
        || !inside(crop.top, crop.height, source_height)
    {
        return Err(ResizeError);
    }
    if target.is_empty() {
        return Ok(());
    }
    let columns = covered(crop.left, crop.width, width, source_width);
    let rows = covered(crop.top, crop.height, height, source_height);
    let first = rows.first().map_or(0, |rows| rows.start);
    let last = rows.last().map_or(0, |rows| rows.end);
    between.clear();
    for row in source
        .chunks_exact(source_width * CHANNELS)
        .take(last)
        .skip(first)
    {
        across(row, &columns, between);
    }
    let stride = width * CHANNELS;
    for (rows, out) in rows.iter().zip(target.chunks_exact_mut(stride)) {
        let rows = &between[(rows.start - first) * stride..(rows.end - first) * stride];
        down(rows, out);
    }
    Ok(())
}

fn inside(start: f64, len: f64, all: usize) -> bool {
    start >= 0.0 && len > 0.0 && start + len <= all as f64
}

/// For each of `side` pixels, the source pixels whose centres are in its area. `len` source
/// pixels from `start` on become `side` pixels.
fn covered(start: f64, len: f64, side: usize, all: usize) -> Vec<Range<usize>> {
    if !changes(start, len, side) {
        return (0..side)
            .map(|at| start as usize + at..start as usize + at + 1)
            .collect();
    }
    let scale = (start + len - start) / side as f64;
    let area = scale.max(1.0);
    let (half, shrink) = (0.5 * area, 1.0 / area);
    let pixels = |at: usize| {
        let centre = start + (at as f64 + 0.5) * scale;
        let first = (centre - half + 0.5).max(0.0) as usize;
        let end = ((centre + half + 0.5) as usize).min(all);
        let counts = |pixel: &usize| {
            let place = (*pixel as f64 - centre + 0.5) * shrink;
            place > -0.5 && place <= 0.5
        };
        let first = (first..end).find(counts).unwrap_or(end.saturating_sub(1));
        let end = (first..end).rfind(counts).map_or(first, |last| last + 1);
        first..end.max(first + 1).min(all)
    };
    (0..side).map(pixels).collect()
}

/// Appends the means of `columns` of a row.
fn across(row: &[u8], columns: &[Range<usize>], out: &mut Vec<u8>) {
    let (pixels, _) = row.as_chunks::<CHANNELS>();
    for columns in columns {
        let pixels = &pixels[columns.clone()];
        let mut sums = [0_u32; CHANNELS];
        for pixel in pixels {
            for (sum, value) in sums.iter_mut().zip(pixel) {
                *sum += u32::from(*value);
            }
        }
        let mean = Mean::of(pixels.len());
        out.extend(sums.map(|sum| mean.round(sum)));
    }
}

/// Writes the mean of rows to one row.
fn down(rows: &[u8], out: &mut [u8]) {
    let count = rows.len() / out.len();
    if count == 1 {
        out.copy_from_slice(rows);
        return;
    }
    let mut sums = vec![0_u32; out.len()];
    for row in rows.chunks_exact(out.len()) {
        for (sum, value) in sums.iter_mut().zip(row) {
            *sum += u32::from(*value);
        }
    }
    let mean = Mean::of(count);
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = mean.round(sum);
    }
}

/// Division of a sum by a number of values, by a weight of 22 bits as in Pillow.
struct Mean(u64);

impl Mean {
    const BITS: u32 = 22;

    fn of(count: usize) -> Self {
        Self((0.5 + 1.0 / count as f64 * f64::from(1 << Self::BITS)) as u64)
    }

    fn round(&self, sum: u32) -> u8 {
        let rounded = (u64::from(sum) * self.0 + (1 << (Self::BITS - 1))) >> Self::BITS;
        rounded.min(255) as u8
    }
}
