//! WebP.

use std::io::{Cursor, ErrorKind};

use image_webp::{DecodingError, WebPDecoder};

use super::exif;
use super::kind::ImageKind;
use super::png::without_alpha;
use crate::error::ImageError;
use crate::image::{Image, check_size};
use crate::limits::MAX_PIXELS;

/// Bytes of the header that has the length of the rest.
const RIFF_HEADER: usize = 8;

/// The height and width.
pub(super) fn size(bytes: &[u8]) -> Result<[usize; 2], ImageError> {
    Ok(open(bytes)?.1)
}

/// A decoder that has read the header, and the height and width in it.
type Opened<'a> = (WebPDecoder<Cursor<&'a [u8]>>, [usize; 2]);

fn open(bytes: &[u8]) -> Result<Opened<'_>, ImageError> {
    let length = bytes[4..]
        .first_chunk()
        .map_or(0, |b| u32::from_le_bytes(*b));
    if (bytes.len() - RIFF_HEADER) < length as usize {
        return Err(ImageError::Truncated(ImageKind::WebP));
    }
    let mut decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(problem)?;
    decoder.set_memory_limit(MAX_PIXELS * 8);
    let (width, height) = decoder.dimensions();
    let (width, height) = (width as usize, height as usize);
    check_size(width, height)?;
    Ok((decoder, [height, width]))
}

pub(super) fn decode(bytes: &[u8]) -> Result<Image, ImageError> {
    let (mut decoder, [height, width]) = open(bytes)?;
    let len = decoder.output_buffer_size();
    let mut decoded = vec![0; len.ok_or(ImageError::Damaged(ImageKind::WebP))?];
    // Of an animation this is the first frame.
    decoder.read_image(&mut decoded).map_err(problem)?;
    let pixels = if decoder.has_alpha() {
        without_alpha(&decoded)
    } else {
        decoded
    };
    let exif = decoder.exif_metadata().ok().flatten();
    let orientation = exif.as_deref().map(exif::orientation);
    Ok(Image::new(width, height, pixels)?.with_orientation(orientation.unwrap_or_default()))
}

fn problem(error: DecodingError) -> ImageError {
    match error {
        DecodingError::IoError(e) if e.kind() == ErrorKind::UnexpectedEof => {
            ImageError::Truncated(ImageKind::WebP)
        }
        _ => ImageError::Damaged(ImageKind::WebP),
    }
}
