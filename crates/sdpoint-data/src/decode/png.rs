//! PNG.

use std::io::{Cursor, ErrorKind};

use png::{ColorType, Decoder, DecodingError, Info, Limits, Transformations};

use super::exif;
use super::kind::ImageKind;
use crate::error::ImageError;
use crate::image::{Image, Orientation, check_size};
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
    // What describes the image may follow its pixels. They are complete, so what is damaged
    // there is no problem.
    let _ = reader.finish();
    let orientation = orientation(reader.info());
    // An animation's first frame may be smaller than the whole picture.
    let image = Image::new(frame.width as usize, frame.height as usize, pixels)?;
    Ok(image.with_orientation(orientation))
}

/// The orientation in the `eXIf` chunk, or else in the text that older programs, such as
/// ImageMagick, write in place of it.
fn orientation(info: &Info) -> Orientation {
    if let Some(chunk) = &info.exif_metadata {
        return exif::orientation(chunk);
    }
    let plain = info.uncompressed_latin1_text.iter();
    let plain = plain.map(|text| (&text.keyword, Some(text.text.clone())));
    let packed = info.compressed_latin1_text.iter();
    let packed = packed.map(|text| (&text.keyword, text.get_text().ok()));
    let utf8 = info.utf8_text.iter();
    let utf8 = utf8.map(|text| (&text.keyword, text.get_text().ok()));
    let texts = plain.chain(packed).chain(utf8);
    let mut profiles = texts.filter(|(keyword, _)| *keyword == "Raw profile type exif");
    let profile = profiles.find_map(|(_, text)| raw_profile(&text?));
    profile.map_or_else(Orientation::default, |it| exif::orientation(&it))
}

/// The bytes in a raw profile: a line with its name, one with its length, and lines of
/// hexadecimal digits.
fn raw_profile(text: &str) -> Option<Vec<u8>> {
    let lines = text.trim_start().lines().skip(2);
    let digits: Vec<u8> = lines
        .flat_map(str::bytes)
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    let byte = |pair: &[u8; 2]| {
        let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
        Some((high? << 4 | low?) as u8)
    };
    digits.as_chunks().0.iter().map(byte).collect()
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
