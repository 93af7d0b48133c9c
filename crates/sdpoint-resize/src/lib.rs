//! Resizing of 8-bit RGB images, equal to Pillow's.
//!
//! A package of its own because the resizer's generic code, for one type of pixel, takes as
//! long to compile as all of `sdpoint-data`, which is compiled several times with its tests.

use fast_image_resize as fir;
use fir::images::{TypedImage, TypedImageRef};
use fir::pixels::U8x3;

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
pub struct Resizer(fir::Resizer);

impl Default for Resizer {
    fn default() -> Self {
        Resizer(fir::Resizer::new())
    }
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
        let side = |side: usize| u32::try_from(side).map_err(|_| ResizeError);
        let ([height, width], [out_height, out_width]) = (source_size, target_size);
        let source = TypedImageRef::<U8x3>::from_buffer(side(width)?, side(height)?, source)
            .map_err(|_| ResizeError)?;
        let mut target =
            TypedImage::<U8x3>::from_buffer(side(out_width)?, side(out_height)?, target)
                .map_err(|_| ResizeError)?;
        let filter = match filter {
            Filter::Box => fir::FilterType::Box,
            Filter::Bilinear => fir::FilterType::Bilinear,
            Filter::Hamming => fir::FilterType::Hamming,
            Filter::Bicubic => fir::FilterType::CatmullRom,
            Filter::Lanczos => fir::FilterType::Lanczos3,
        };
        let options = fir::ResizeOptions::new()
            .resize_alg(fir::ResizeAlg::Convolution(filter))
            .crop(crop.left, crop.top, crop.width, crop.height);
        self.0
            .resize_typed(&source, &mut target, &options)
            .map_err(|_| ResizeError)
    }
}
