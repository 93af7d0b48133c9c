//! Image files to RGB.
//!
//! Each kind of file has a module of its own. [`kind`] lists them and their
//! extensions, [`signature`] detects them by the first bytes. A panic of a decoder on a damaged file
//! becomes an ordinary error.

mod exif;
mod jpeg;
pub(crate) mod kind;
mod png;
mod signature;
mod webp;

use crate::error::ImageError;
use crate::guard::guarded;
use crate::image::Image;
use kind::ImageKind;

/// Decodes a JPEG, PNG or WebP file, detected by its first bytes, to 8-bit RGB.
/// Grey is replicated to three channels, CMYK converted, 16 bits reduced to the
/// upper 8, and transparency dropped. Colour profiles are ignored. Of an
/// animation, the first frame is decoded. The size is checked before memory is
/// allocated.
///
/// The pixels are in the order of the file; the rotation in its EXIF data is the
/// image's [`orientation`](Image::orientation).
///
/// # Errors
/// If the file is of another kind, damaged, truncated, or beyond the limits of
/// size.
pub fn decode(bytes: &[u8]) -> Result<Image, ImageError> {
    let kind = ImageKind::of(bytes)?;
    let decoder = match kind {
        ImageKind::Jpeg => jpeg::decode,
        ImageKind::Png => png::decode,
        ImageKind::WebP => webp::decode,
    };
    guarded(|| decoder(bytes)).unwrap_or(Err(ImageError::Damaged(kind)))
}

/// Reads the height and width of a JPEG, PNG or WebP file without decoding its pixels, for
/// callers with limits of their own.
///
/// # Errors
/// Another kind of file, a damaged header, or a size beyond the limits of [`decode`].
pub fn image_size(bytes: &[u8]) -> Result<[usize; 2], ImageError> {
    let kind = ImageKind::of(bytes)?;
    let size = match kind {
        ImageKind::Jpeg => jpeg::size,
        ImageKind::Png => png::size,
        ImageKind::WebP => webp::size,
    };
    guarded(|| size(bytes)).unwrap_or(Err(ImageError::Damaged(kind)))
}
