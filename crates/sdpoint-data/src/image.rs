//! An image in memory.

use crate::error::ImageError;

/// The longest side of an image that is read.
pub const MAX_SIDE: usize = 1 << 15;

/// The most pixels of an image that is read: 192 MiB in RGB.
pub const MAX_PIXELS: usize = 1 << 26;

/// An RGB image: 8 bits a channel, rows from the top, channels interleaved
/// (HWC). Neither side is ever zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Image {
    /// An image of `height` rows of `width` RGB pixels.
    ///
    /// # Errors
    /// The size is zero or beyond [`MAX_SIDE`] and [`MAX_PIXELS`], or the
    /// number of bytes is not that of the size.
    pub fn new(width: usize, height: usize, pixels: Vec<u8>) -> Result<Image, ImageError> {
        check_size(width, height)?;
        let expected = width * height * 3;
        if pixels.len() != expected {
            return Err(ImageError::Length {
                expected,
                actual: pixels.len(),
            });
        }
        Ok(Image {
            width,
            height,
            pixels,
        })
    }

    /// Pixels in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// All bytes, `height × width × 3`.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The pixel in column `x` of row `y`.
    ///
    /// # Panics
    /// The pixel lies outside the image.
    pub fn pixel(&self, x: usize, y: usize) -> [u8; 3] {
        assert!(
            x < self.width && y < self.height,
            "pixel ({x}, {y}) outside the image"
        );
        let at = (y * self.width + x) * 3;
        [self.pixels[at], self.pixels[at + 1], self.pixels[at + 2]]
    }
}

/// Refuses sizes that no buffer should be made for; called before any is.
pub(crate) fn check_size(width: usize, height: usize) -> Result<(), ImageError> {
    let fits = width >= 1
        && height >= 1
        && width <= MAX_SIDE
        && height <= MAX_SIDE
        && width * height <= MAX_PIXELS;
    if fits {
        Ok(())
    } else {
        Err(ImageError::Size { width, height })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_bytes_must_fit_the_size() {
        assert!(Image::new(2, 3, vec![0; 18]).is_ok());
        assert!(matches!(
            Image::new(2, 3, vec![0; 17]),
            Err(ImageError::Length {
                expected: 18,
                actual: 17
            })
        ));
    }

    #[test]
    fn sizes_beyond_the_limits_are_refused() {
        assert!(check_size(0, 4).is_err());
        assert!(check_size(MAX_SIDE + 1, 1).is_err());
        assert!(check_size(MAX_SIDE, MAX_SIDE).is_err());
        assert!(check_size(MAX_SIDE, MAX_PIXELS / MAX_SIDE).is_ok());
    }
}
