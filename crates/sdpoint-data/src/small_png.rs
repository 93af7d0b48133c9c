//! Small copies of images as PNG files.

use png::{BitDepth, ColorType, Compression, Encoder};

use crate::error::ImageError;
use crate::guard::guarded;
use crate::image::Image;
use sdpoint_resize::{Crop, Filter, Resizer};

/// An image as a PNG file, reduced so that no side is longer than `side` pixels. Its
/// orientation is not applied: see [`Image::upright`].
///
/// # Errors
/// If it cannot be resized.
pub fn small_png(image: &Image, side: usize) -> Result<Vec<u8>, ImageError> {
    let (width, height) = (image.width(), image.height());
    let longer = width.max(height);
    if longer <= side {
        return encode(width, height, image.pixels());
    }
    let reduced = |length: usize| (length * side / longer).max(1);
    let (small_width, small_height) = (reduced(width), reduced(height));
    let mut pixels = vec![0; small_width * small_height * 3];
    let all = Crop {
        left: 0.0,
        top: 0.0,
        width: width as f64,
        height: height as f64,
    };
    let resized = guarded(|| {
        let (from, to) = ([height, width], [small_height, small_width]);
        Resizer::default().resize(image.pixels(), from, all, Filter::Bilinear, &mut pixels, to)
    });
    match resized {
        Some(Ok(())) => encode(small_width, small_height, &pixels),
        _ => Err(ImageError::Resize),
    }
}

fn encode(width: usize, height: usize, pixels: &[u8]) -> Result<Vec<u8>, ImageError> {
    let side = |side: usize| u32::try_from(side).map_err(|_| ImageError::Resize);
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, side(width)?, side(height)?);
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_compression(Compression::High);
    // Writing to memory cannot fail, and the sizes are right.
    let mut writer = encoder.write_header().map_err(|_| ImageError::Resize)?;
    let written = writer.write_image_data(pixels);
    written.map_err(|_| ImageError::Resize)?;
    writer.finish().map_err(|_| ImageError::Resize)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::decode;

    fn image(width: usize, height: usize) -> Image {
        let pixels = (0..width * height * 3).map(|at| (at * 7919 / 13 % 251) as u8);
        Image::new(width, height, pixels.collect()).unwrap()
    }

    #[test]
    fn a_small_image_keeps_its_pixels() {
        let image = image(32, 20);
        let read = decode(&small_png(&image, 128).unwrap()).unwrap();
        assert_eq!(read, image);
    }

    #[test]
    fn a_larger_one_is_reduced_in_proportion() {
        for (width, height, small) in [(300, 200, (128, 85)), (10, 5000, (1, 128))] {
            let read = decode(&small_png(&image(width, height), 128).unwrap()).unwrap();
            assert_eq!((read.width(), read.height()), small);
        }
        // Noise of the largest size is within what a model file accepts.
        let file = small_png(&image(128, 128), 128).unwrap();
        assert!(file.len() <= sdpoint_core::KeptImage::MOST_BYTES);
    }
}
