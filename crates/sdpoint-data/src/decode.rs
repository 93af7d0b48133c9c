//! JPEG and PNG files to RGB.

use std::io::Cursor;

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use crate::error::ImageError;
use crate::image::{Image, MAX_PIXELS, MAX_SIDE, check_size};

const JPEG_START: &[u8] = &[0xff, 0xd8, 0xff];
const JPEG_END: &[u8] = &[0xff, 0xd9];
const PNG_START: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Decodes a JPEG or PNG file, told apart by its content, to RGB with 8 bits
/// a channel: grey is repeated, CMYK converted, 16 bits cut to the upper 8,
/// transparency dropped. The size is checked before memory is taken for it.
///
/// # Errors
/// Another kind of file, a broken one, or one beyond the limits of size.
pub fn decode(bytes: &[u8]) -> Result<Image, ImageError> {
    if bytes.starts_with(JPEG_START) {
        decode_jpeg(bytes)
    } else if bytes.starts_with(PNG_START) {
        decode_png(bytes)
    } else {
        Err(ImageError::Format)
    }
}

fn decode_jpeg(bytes: &[u8]) -> Result<Image, ImageError> {
    let broken = |e: &dyn std::fmt::Display| ImageError::Jpeg(e.to_string());
    // The decoder fills what is missing of a file with grey. Damage inside is
    // worth that, as other readers think too; a file cut short is not.
    if !bytes.windows(JPEG_END.len()).rev().any(|w| w == JPEG_END) {
        return Err(ImageError::Jpeg("it ends before its end marker".to_owned()));
    }
    let options = DecoderOptions::default()
        .jpeg_set_out_colorspace(ColorSpace::RGB)
        .set_max_width(MAX_SIDE)
        .set_max_height(MAX_SIDE);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(|e| broken(&e))?;
    let (width, height) = decoder
        .dimensions()
        .ok_or_else(|| broken(&"it has no size"))?;
    check_size(width, height)?;
    let pixels = decoder.decode().map_err(|e| broken(&e))?;
    Image::new(width, height, pixels)
}

fn decode_png(bytes: &[u8]) -> Result<Image, ImageError> {
    let broken = |e: &dyn std::fmt::Display| ImageError::Png(e.to_string());
    let limits = png::Limits {
        bytes: MAX_PIXELS * 8,
    };
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), limits);
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let header = decoder.read_header_info().map_err(|e| broken(&e))?;
    let (width, height) = (header.width as usize, header.height as usize);
    check_size(width, height)?;
    let mut reader = decoder.read_info().map_err(|e| broken(&e))?;
    let len = reader
        .output_buffer_size()
        .ok_or_else(|| broken(&"it is too large"))?;
    let mut decoded = vec![0; len];
    let frame = reader.next_frame(&mut decoded).map_err(|e| broken(&e))?;
    decoded.truncate(frame.buffer_size());
    let grey = |v: u8| [v; 3];
    let pixels = match frame.color_type {
        png::ColorType::Rgb => decoded,
        png::ColorType::Rgba => decoded
            .as_chunks::<4>()
            .0
            .iter()
            .flat_map(|p| [p[0], p[1], p[2]])
            .collect(),
        png::ColorType::Grayscale => decoded.iter().flat_map(|&v| grey(v)).collect(),
        png::ColorType::GrayscaleAlpha => decoded
            .as_chunks::<2>()
            .0
            .iter()
            .flat_map(|p| grey(p[0]))
            .collect(),
        png::ColorType::Indexed => return Err(broken(&"its palette was not applied")),
    };
    // An animation's first frame may be smaller than the whole picture.
    Image::new(frame.width as usize, frame.height as usize, pixels)
}
