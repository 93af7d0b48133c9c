//! PNG.

use std::io::{Cursor, ErrorKind};

use png::{ColorType, Decoder, DecodingError, Limits, Transformations};

use super::exif;
use super::kind::ImageKind;
use crate::error::ImageError;
use crate::image::{Image, check_size};
use crate::limits::MAX_PIXELS;

/// The height and width.
pub(super) fn size(bytes: &[u8]) -> Result<[usize; 2], ImageError> {
    Ok(open(bytes)?.1)
}

/// A decoder that has read the header, and the height and width in it.
type Opened<'a> = (Decoder<Cursor<&'a [u8]>>, [usize; 2]);

fn open(bytes: &[u8]) -> Result<Opened<'_>, ImageError> {
    // What iPhone apps are shipped with; its pixels are not those of PNG.
    if bytes.get(12..16) == Some(b"CgBI") {
        return Err(ImageError::Unsupported {
            kind: ImageKind::Png,
            what: "in Apple's variant for iPhone apps",
        });
    }
    let limits = Limits {
        bytes: MAX_PIXELS * 8,
    };
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), limits);
    decoder.set_transformations(Transformations::normalize_to_color8());
    let header = decoder.read_header_info().map_err(problem)?;
    let (width, height) = (header.width as usize, header.height as usize);
    check_size(width, height)?;
    Ok((decoder, [height, width]))
}

pub(super) fn decode(bytes: &[u8]) -> Result<Image, ImageError> {
    let (decoder, _) = open(bytes)?;
    let mut reader = decoder.read_info().map_err(problem)?;
    let len = reader.output_buffer_size();
    let mut decoded = vec![0; len.ok_or(ImageError::Damaged(ImageKind::Png))?];
    let frame = reader.next_frame(&mut decoded).map_err(problem)?;
    decoded.truncate(frame.buffer_size());
    let pixels = rgb(decoded, frame.color_type)?;
    let orientation = reader
        .info()
        .exif_metadata
        .as_deref()
        .map(exif::orientation);
    // An animation's first frame may be smaller than the whole picture.
    let image = Image::new(frame.width as usize, frame.height as usize, pixels)?;
    Ok(image.with_orientation(orientation.unwrap_or_default()))
}

fn rgb(decoded: Vec<u8>, colour: ColorType) -> Result<Vec<u8>, ImageError> {
    let grey = |v: u8| [v; 3];
    Ok(match colour {
        ColorType::Rgb => decoded,
        ColorType::Rgba => without_alpha(&decoded),
        ColorType::Grayscale => decoded.iter().flat_map(|&v| grey(v)).collect(),
        ColorType::GrayscaleAlpha => decoded
            .as_chunks::<2>()
            .0
            .iter()
            .flat_map(|p| grey(p[0]))
            .collect(),
        ColorType::Indexed => return Err(ImageError::Damaged(ImageKind::Png)),
    })
}

/// The colours of RGBA pixels, also of those that are transparent.
pub(super) fn without_alpha(rgba: &[u8]) -> Vec<u8> {
    let (pixels, _) = rgba.as_chunks::<4>();
    pixels.iter().flat_map(|p| [p[0], p[1], p[2]]).collect()
}

fn problem(error: DecodingError) -> ImageError {
    match error {
        DecodingError::IoError(e) if e.kind() == ErrorKind::UnexpectedEof => {
            ImageError::Truncated(ImageKind::Png)
        }
        _ => ImageError::Damaged(ImageKind::Png),
    }
}
