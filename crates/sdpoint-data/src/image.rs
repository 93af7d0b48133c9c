//! An image in memory.

use std::borrow::Cow;

use crate::error::ImageError;
use crate::limits::{MAX_PIXELS, MAX_SIDE};

/// An RGB image: 8 bits a channel, rows from the top, channels interleaved
/// (HWC). Neither side is ever zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
    orientation: Orientation,
}

/// How a picture has to be rotated and mirrored to be upright: EXIF's
/// orientation. Upright by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Orientation {
    /// Whether rows become columns.
    transposed: bool,
    /// Whether the stored rows are read from their ends.
    from_right: bool,
    /// Whether the stored rows are read from the last one.
    from_bottom: bool,
}

impl Orientation {
    /// The orientation of EXIF's number, 1 to 8.
    pub fn from_exif(number: u32) -> Option<Orientation> {
        (1..=8).contains(&number).then_some(Orientation {
            transposed: number >= 5,
            from_right: matches!(number, 2 | 3 | 7 | 8),
            from_bottom: matches!(number, 3 | 4 | 6 | 7),
        })
    }
}

impl Image {
    /// An image of `height` rows of `width` RGB pixels.
    ///
    /// # Errors
    /// If the size is zero or exceeds [`MAX_SIDE`] or [`MAX_PIXELS`], or `pixels`
    /// does not have `width * height * 3` bytes.
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
            orientation: Orientation::default(),
        })
    }

    /// The same pixels with an orientation, not yet applied.
    pub fn with_orientation(self, orientation: Orientation) -> Image {
        Image {
            orientation,
            ..self
        }
    }

    /// The orientation, not yet applied to the pixels.
    pub fn orientation(&self) -> Orientation {
        self.orientation
    }

    /// The image with its orientation applied to the pixels.
    pub fn upright(&self) -> Cow<'_, Image> {
        let turn = self.orientation;
        if turn == Orientation::default() {
            return Cow::Borrowed(self);
        }
        let (stored, _) = self.pixels.as_chunks::<3>();
        let [width, height] = match turn.transposed {
            true => [self.height, self.width],
            false => [self.width, self.height],
        };
        let mut pixels = Vec::with_capacity(self.pixels.len());
        for y in 0..height {
            for x in 0..width {
                let (x, y) = if turn.transposed { (y, x) } else { (x, y) };
                let x = if turn.from_right {
                    self.width - 1 - x
                } else {
                    x
                };
                let y = if turn.from_bottom {
                    self.height - 1 - y
                } else {
                    y
                };
                pixels.extend(stored[y * self.width + x]);
            }
        }
        Cow::Owned(Image {
            width,
            height,
            pixels,
            orientation: Orientation::default(),
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

/// Rejects sizes beyond the limits; to be called before memory is allocated.
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

    /// The letter F, stored as each of EXIF's eight orientations has it.
    #[test]
    fn every_orientation_turns_upright() {
        let upright = ["##", "#.", "##", "#.", "#."];
        let stored: [&[&str]; 8] = [
            &upright,
            &["##", ".#", "##", ".#", ".#"],
            &[".#", ".#", "##", ".#", "##"],
            &["#.", "#.", "##", "#.", "##"],
            &["#####", "#.#.."],
            &["#.#..", "#####"],
            &["..#.#", "#####"],
            &["#####", "..#.#"],
        ];
        let image = |rows: &[&str]| {
            let pixels = rows.concat().bytes().flat_map(|b| [b; 3]).collect();
            Image::new(rows[0].len(), rows.len(), pixels).unwrap()
        };
        for (number, rows) in (1..).zip(stored) {
            let orientation = Orientation::from_exif(number).unwrap();
            let turned = image(rows).with_orientation(orientation);
            assert_eq!(turned.upright().as_ref(), &image(&upright), "{number}");
        }
        assert_eq!(Orientation::from_exif(0), None);
        assert_eq!(Orientation::from_exif(9), None);
    }

    #[test]
    fn sizes_beyond_the_limits_are_refused() {
        assert!(check_size(0, 4).is_err());
        assert!(check_size(MAX_SIDE + 1, 1).is_err());
        assert!(check_size(MAX_SIDE, MAX_SIDE).is_err());
        assert!(check_size(MAX_SIDE, MAX_PIXELS / MAX_SIDE).is_ok());
    }
}
