//! Resizing of 8-bit RGB images, equal to Pillow's.
//!
//! A package of its own because the resizer's generic code, for one type of pixel, takes as
//! long to compile as all of `sdpoint-data`, which is compiled several times with its tests.

mod average;

use std::ops::Range;

use fast_image_resize as fir;
use fir::images::{TypedImage, TypedImageRef};
use fir::pixels::U8x3;

/// Values of a pixel.
const CHANNELS: usize = 3;

/// The filters of Pillow whose support grows with the reduction: all but nearest-neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Filter {
    /// The average of the pixels that a resized one covers.
    Box,
    /// Linear in the distance.
    Bilinear,
    /// A Hamming window.
    Hamming,
    /// Catmull and Rom's cubic (a = -0.5).
    Bicubic,
    /// Lanczos' window of three lobes.
    Lanczos,
}

impl Filter {
    /// The library's filter, and the distance from a pixel's centre up to which others
    /// contribute: in target pixels where an image is reduced, in source pixels where it is
    /// enlarged. `None` for the box.
    fn kernel(self) -> Option<Kernel> {
        Some(match self {
            Filter::Box => return None,
            Filter::Bilinear => (fir::FilterType::Bilinear, 1.0),
            Filter::Hamming => (fir::FilterType::Hamming, 1.0),
            Filter::Bicubic => (fir::FilterType::CatmullRom, 2.0),
            Filter::Lanczos => (fir::FilterType::Lanczos3, 3.0),
        })
    }
}

type Kernel = (fir::FilterType, f64);

/// A rectangle of the source, in pixels and parts of pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Crop {
    /// Left edge.
    pub left: f64,
    /// Top edge.
    pub top: f64,
    /// Width.
    pub width: f64,
    /// Height.
    pub height: f64,
}

/// An image could not be resized: a side is zero, the crop lies outside, or a length does not
/// fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResizeError;

impl std::fmt::Display for ResizeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the image cannot be resized to this size")
    }
}

impl std::error::Error for ResizeError {}

/// The resizer with its buffers.
#[derive(Default)]
pub struct Resizer {
    passes: fir::Resizer,
    /// The result of the horizontal pass.
    between: Vec<u8>,
}

impl Resizer {
    /// Resizes the part `crop` of `source` to all of `target`. Sizes are height and width, pixels
    /// are rows of RGB bytes.
    ///
    /// # Errors
    ///
    /// If a length does not fit its size or the crop is not inside of the source.
    ///
    /// ```
    /// use sdpoint_resize::{Crop, Filter, Resizer};
    ///
    /// let source = [0, 0, 0, 100, 100, 100];
    /// let mut target = [0; 3];
    /// let all = Crop { left: 0.0, top: 0.0, width: 2.0, height: 1.0 };
    /// Resizer::default().resize(&source, [1, 2], all, Filter::Box, &mut target, [1, 1])?;
    /// assert_eq!(target, [50; 3]);
    /// # Ok::<(), sdpoint_resize::ResizeError>(())
    /// ```
    pub fn resize(
        &mut self,
        source: &[u8],
        source_size: [usize; 2],
        crop: Crop,
        filter: Filter,
        target: &mut [u8],
        target_size: [usize; 2],
    ) -> Result<(), ResizeError> {
        let Some(kernel) = filter.kernel() else {
            let between = &mut self.between;
            return average::resize(between, source, source_size, crop, target, target_size);
        };
        let [height, width] = target_size;
        let horizontal = changes(crop.left, crop.width, width);
        let vertical = changes(crop.top, crop.height, height);
        if !(horizontal && vertical) {
            return pass(
                &mut self.passes,
                source,
                source_size,
                crop,
                kernel,
                target,
                target_size,
            );
        }
        // Pillow resizes horizontally first, and rounds and clips to 8 bits before it resizes
        // vertically. The order matters where a filter overshoots. The library's own order for
        // 8 bits is the other one.
        let rows = rows_needed(crop, kernel, height, source_size[0]);
        let across = Crop {
            top: rows.start as f64,
            height: rows.len() as f64,
            ..crop
        };
        let down = Crop {
            left: 0.0,
            top: crop.top - rows.start as f64,
            width: width as f64,
            // Rounding must not lead out of the rows.
            height: crop.height.min(rows.end as f64 - crop.top),
        };
        let between_size = [rows.len(), width];
        let len = rows
            .len()
            .checked_mul(width)
            .and_then(|pixels| pixels.checked_mul(CHANNELS));
        let len = len.ok_or(ResizeError)?;
        if self.between.len() < len {
            self.between.resize(len, 0);
        }
        let between = &mut self.between[..len];
        pass(
            &mut self.passes,
            source,
            source_size,
            across,
            kernel,
            between,
            between_size,
        )?;
        pass(
            &mut self.passes,
            between,
            between_size,
            down,
            kernel,
            target,
            target_size,
        )
    }
}

/// Whether `len` source pixels from `start` on have to be resampled to become `side` pixels.
fn changes(start: f64, len: f64, side: usize) -> bool {
    len != side as f64 || start != start.round()
}

/// The source rows that contribute to a target of `height` rows.
fn rows_needed(
    crop: Crop,
    (_, support): Kernel,
    height: usize,
    source_height: usize,
) -> Range<usize> {
    let scale = crop.height / height as f64;
    let radius = support * scale.max(1.0);
    let first = crop.top + 0.5 * scale - radius;
    let last = crop.top + (height as f64 - 0.5) * scale + radius;
    // A row more, as the library may round differently. At least the crop's own rows, which the
    // library wants to be there.
    let first = first.min(crop.top).floor() - 1.0;
    let last = last.max(crop.top + crop.height).ceil() + 1.0;
    let last = (last as usize).min(source_height);
    (first.max(0.0) as usize).min(last)..last
}

/// Resizes in the directions in which the size changes, vertically first if it is both.
fn pass(
    resizer: &mut fir::Resizer,
    source: &[u8],
    [source_height, source_width]: [usize; 2],
    crop: Crop,
    (filter, _): Kernel,
    target: &mut [u8],
    [height, width]: [usize; 2],
) -> Result<(), ResizeError> {
    let side = |side: usize| u32::try_from(side).map_err(|_| ResizeError);
    let source =
        TypedImageRef::<U8x3>::from_buffer(side(source_width)?, side(source_height)?, source)
            .map_err(|_| ResizeError)?;
    let mut target = TypedImage::<U8x3>::from_buffer(side(width)?, side(height)?, target)
        .map_err(|_| ResizeError)?;
    let options = fir::ResizeOptions::new()
        .resize_alg(fir::ResizeAlg::Convolution(filter))
        .crop(crop.left, crop.top, crop.width, crop.height);
    resizer
        .resize_typed(&source, &mut target, &options)
        .map_err(|_| ResizeError)
}
