//! Image files to RGB.
//!
//! Every kind of file has a module of its own; [`kind`] tells them apart by
//! their first bytes and lists the names that they have. A decoder that panics
//! on a damaged file gives an error like any other.

mod exif;
mod jpeg;
pub(crate) mod kind;
mod png;
mod webp;

use crate::error::ImageError;
use crate::guard::guarded;
use crate::image::Image;
use kind::ImageKind;

/// Decodes a JPEG, PNG or WebP file, told apart by its first bytes, to RGB with
/// 8 bits a channel: grey is repeated, CMYK converted, 16 bits cut to the upper
/// 8, transparency dropped; colour profiles are ignored, and of an animation
/// the first frame is taken. The size is checked before memory is taken for it.
///
/// The pixels are those of the file; what its EXIF data says about turning them
/// is the image's [`orientation`](Image::orientation).
///
/// # Errors
/// Another kind of file, a damaged or truncated one, or one beyond the limits
/// of size.
pub fn decode(bytes: &[u8]) -> Result<Image, ImageError> {
    let kind = ImageKind::of(bytes)?;
    let decoder = match kind {
        ImageKind::Jpeg => jpeg::decode,
        ImageKind::Png => png::decode,
        ImageKind::WebP => webp::decode,
    };
    guarded(|| decoder(bytes)).unwrap_or(Err(ImageError::Damaged(kind)))
}
