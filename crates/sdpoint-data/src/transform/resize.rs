//! Resizing of a whole image, or of only the pixels inside a crop.

use std::ops::Range;

use sdpoint_core::Interpolation;
pub(super) use sdpoint_resize::Crop;
use sdpoint_resize::Filter;

use super::CHANNELS;
use crate::error::ImageError;
use crate::guard::guarded;
use crate::image::Image;

pub(super) fn whole(image: &Image) -> Crop {
    Crop {
        left: 0.0,
        top: 0.0,
        width: image.width() as f64,
        height: image.height() as f64,
    }
}

/// A filter with its buffers.
pub(super) struct Resizer {
    /// `None` for nearest-neighbour.
    filter: Option<Filter>,
    resizer: sdpoint_resize::Resizer,
    resized: Vec<u8>,
}

/// Rows of resized pixels.
pub(super) struct Shown<'a> {
    pixels: &'a [[u8; CHANNELS]],
    /// Pixels from one row to the next.
    stride: usize,
    rows: Range<usize>,
    columns: Range<usize>,
}

impl Shown<'_> {
    pub fn rows(&self) -> impl Iterator<Item = &[[u8; CHANNELS]]> {
        let row = |y: usize| &self.pixels[y * self.stride..][self.columns.clone()];
        self.rows.clone().map(row)
    }
}

impl Resizer {
    pub fn new(interpolation: Interpolation) -> Resizer {
        Resizer {
            filter: filter(interpolation),
            resizer: sdpoint_resize::Resizer::default(),
            resized: Vec::new(),
        }
    }

    /// The given rows and columns of `area` of `image`, resized to `size`
    /// (height, width) where it is not of that size already.
    ///
    /// The longer side of a very oblong image may become millions of pixels, so
    /// beyond `most` pixels only the requested ones are computed.
    pub fn show<'a>(
        &'a mut self,
        image: &'a Image,
        area: Crop,
        size: [usize; 2],
        [rows, columns]: [Range<usize>; 2],
        most: usize,
    ) -> Result<Shown<'a>, ImageError> {
        let [height, width] = size;
        let unchanged = area == whole(image) && size == [image.height(), image.width()];
        let (pixels, stride, rows, columns) = if unchanged {
            (image.pixels(), width, rows, columns)
        } else if height * width <= most {
            self.resize(image, area, size, &(0..height), &(0..width))?;
            (&self.resized[..], width, rows, columns)
        } else {
            self.resize(image, area, size, &rows, &columns)?;
            let (rows, columns) = (0..rows.len(), 0..columns.len());
            (&self.resized[..], columns.end, rows, columns)
        };
        Ok(Shown {
            pixels: pixels.as_chunks().0,
            stride,
            rows,
            columns,
        })
    }

    /// Resizes `area` of `image` to `size` (height, width), but computes only
    /// the rows and columns of that which are wanted.
    fn resize(
        &mut self,
        image: &Image,
        area: Crop,
        size: [usize; 2],
        rows: &Range<usize>,
        columns: &Range<usize>,
    ) -> Result<(), ImageError> {
        self.resized
            .resize(rows.len() * columns.len() * CHANNELS, 0);
        let Some(filter) = self.filter else {
            nearest(image, area, size, rows, columns, &mut self.resized);
            return Ok(());
        };
        let source_size = [image.height(), image.width()];
        let (left, width) = part(area.left, area.width, size[1], columns, source_size[1]);
        let (top, height) = part(area.top, area.height, size[0], rows, source_size[0]);
        let crop = Crop {
            left,
            top,
            width,
            height,
        };
        let (pixels, target) = (image.pixels(), &mut self.resized);
        let target_size = [rows.len(), columns.len()];
        let resizer = &mut self.resizer;
        match guarded(|| resizer.resize(pixels, source_size, crop, filter, target, target_size)) {
            Some(Ok(())) => Ok(()),
            _ => {
                self.resizer = sdpoint_resize::Resizer::default();
                Err(ImageError::Resize)
            }
        }
    }
}

/// Of the source pixels `start` to `start + len`, which become `side` pixels,
/// those that become the `wanted` ones: start and length, inside of `all`.
fn part(start: f64, len: f64, side: usize, wanted: &Range<usize>, all: usize) -> (f64, f64) {
    let at = |pixel: usize| start + pixel as f64 * len / side as f64;
    let from = at(wanted.start);
    // Rounding must not lead out of the image.
    (from, (at(wanted.end) - from).min(all as f64 - from))
}

/// Resizing without a filter: the pixel of `area` in which the centre of a
/// resized one lies.
fn nearest(
    image: &Image,
    area: Crop,
    size: [usize; 2],
    rows: &Range<usize>,
    columns: &Range<usize>,
    out: &mut [u8],
) {
    let columns = centres(area.left, area.width, size[1], columns, image.width());
    let rows = centres(area.top, area.height, size[0], rows, image.height());
    let (pixels, _) = image.pixels().as_chunks::<CHANNELS>();
    let (out, _) = out.as_chunks_mut::<CHANNELS>();
    for (y, out) in rows.into_iter().zip(out.chunks_exact_mut(columns.len())) {
        let row = &pixels[y * image.width()..][..image.width()];
        for (x, out) in columns.iter().zip(out) {
            *out = row[*x];
        }
    }
}

/// The source pixels with the centres of the `wanted` ones of `side` pixels, which
/// are resized from `len` source pixels from `start` on.
///
/// As in Pillow, the position is a sum of steps. Where a centre lies between two
/// pixels, the sum's rounding errors decide.
fn centres(start: f64, len: f64, side: usize, wanted: &Range<usize>, all: usize) -> Vec<usize> {
    let step = len / side as f64;
    let mut centre = start + step * 0.5;
    let mut pixels = Vec::with_capacity(wanted.len());
    for pixel in 0..wanted.end {
        if pixel >= wanted.start {
            pixels.push((centre as usize).min(all - 1));
        }
        centre += step;
    }
    pixels
}

/// The filter of this name, or `None` for nearest-neighbour.
fn filter(interpolation: Interpolation) -> Option<Filter> {
    Some(match interpolation {
        Interpolation::Nearest => return None,
        Interpolation::Box => Filter::Box,
        Interpolation::Bilinear => Filter::Bilinear,
        Interpolation::Hamming => Filter::Hamming,
        Interpolation::Bicubic => Filter::Bicubic,
        Interpolation::Lanczos => Filter::Lanczos,
    })
}

#[cfg(test)]
mod tests;
