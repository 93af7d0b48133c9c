//! The kind of an image file by its first bytes, and the names of kinds that are
//! not supported.

use super::kind::ImageKind;
use crate::error::ImageError;

impl ImageKind {
    /// The kind of a file, by its first bytes.
    ///
    /// # Errors
    /// If the kind is not supported; the error names it, if it is recognised.
    pub fn of(bytes: &[u8]) -> Result<ImageKind, ImageError> {
        match bytes {
            [] => Err(ImageError::Empty),
            [0xff, 0xd8, 0xff, ..] => Ok(ImageKind::Jpeg),
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Ok(ImageKind::Png),
            [
                b'R',
                b'I',
                b'F',
                b'F',
                _,
                _,
                _,
                _,
                b'W',
                b'E',
                b'B',
                b'P',
                ..,
            ] => Ok(ImageKind::WebP),
            _ => Err(foreign(bytes)),
        }
    }
}

const CONVERT: &str = "convert it to JPEG, PNG or WebP";
const EXTRACT: &str = "save the picture in it as JPEG or PNG";
const DOWNLOAD: &str = "the download probably failed: fetch it again";
const UNPACK: &str = "unpack it first";

/// Signatures of unsupported kinds of files: offset, bytes, the kind's name, and
/// advice.
#[rustfmt::skip]
const FOREIGN: &[(usize, &[u8], &str, &str)] = &[
    (0, b"GIF87a", "a GIF image", CONVERT),
    (0, b"GIF89a", "a GIF image", CONVERT),
    (0, b"BM", "a BMP image", CONVERT),
    (0, b"II*\0", "a TIFF image, or a camera's raw file", CONVERT),
    (0, b"MM\0*", "a TIFF image, or a camera's raw file", CONVERT),
    (0, b"II+\0", "a TIFF image", CONVERT),
    (0, b"MM\0+", "a TIFF image", CONVERT),
    (4, b"ftypavi", "an AVIF image", CONVERT),
    (4, b"ftyphe", "a HEIC image", CONVERT),
    (4, b"ftypmi", "a HEIC image", CONVERT),
    (4, b"ftypms", "a HEIC image", CONVERT),
    (4, b"ftypcrx", "a camera's raw file", CONVERT),
    (4, b"ftyp", "a video", EXTRACT),
    (0, b"\xff\x0a", "a JPEG XL image", CONVERT),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL image", CONVERT),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 image", CONVERT),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 image", CONVERT),
    (0, b"8BPS", "a Photoshop file", EXTRACT),
    (0, b"%PDF", "a PDF document", EXTRACT),
    (0, b"qoif", "a QOI image", CONVERT),
    (0, b"\0\0\x01\0", "an icon", CONVERT),
    (0, b"\x76\x2f\x31\x01", "an OpenEXR image", CONVERT),
    (0, b"#?RADIANCE", "a Radiance HDR image", CONVERT),
    (0, b"DDS ", "a DDS texture", CONVERT),
    (0, b"FUJIFILMCCD-RAW", "a camera's raw file", CONVERT),
    (0, b"P1\n", "a PBM image", CONVERT),
    (0, b"P2\n", "a PGM image", CONVERT),
    (0, b"P3\n", "a PPM image", CONVERT),
    (0, b"P4\n", "a PBM image", CONVERT),
    (0, b"P5\n", "a PGM image", CONVERT),
    (0, b"P6\n", "a PPM image", CONVERT),
    (0, b"P4 ", "a PBM image", CONVERT),
    (0, b"P5 ", "a PGM image", CONVERT),
    (0, b"P6 ", "a PPM image", CONVERT),
    (0, b"\x93NUMPY", "a NumPy array", CONVERT),
    (128, b"DICM", "a DICOM file", EXTRACT),
    (0, b"\x1f\x8b", "a gzip archive", UNPACK),
    (0, b"PK\x03\x04", "a zip archive", UNPACK),
    (0, b"Rar!\x1a\x07", "a RAR archive", UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard archive", UNPACK),
    (0, b"\xfd7zXZ\0", "an xz archive", UNPACK),
    (257, b"ustar", "a tar archive", UNPACK),
    (0, b"version https://git-lfs", "a pointer of Git LFS", "run `git lfs pull`"),
    (0, b"\0\x05\x16\x07", "macOS metadata (AppleDouble)", "remove it"),
];

/// Bytes that are searched for text formats, which may start with comments.
const TEXT_START: usize = 1024;

/// The error for a file of an unsupported kind.
fn foreign(bytes: &[u8]) -> ImageError {
    let at = |start: usize, mark: &[u8]| bytes.get(start..).is_some_and(|b| b.starts_with(mark));
    if let Some((_, _, what, advice)) = FOREIGN.iter().find(|(start, mark, _, _)| at(*start, mark))
    {
        return ImageError::Foreign { what, advice };
    }
    let start = &bytes[..bytes.len().min(TEXT_START)];
    if start.iter().all(|&byte| byte == 0) {
        return ImageError::Zeros;
    }
    let start = String::from_utf8_lossy(start).to_ascii_lowercase();
    let text = start.trim_start_matches('\u{feff}').trim_start();
    let (what, advice) = if text.starts_with('<') && start.contains("<svg") {
        ("an SVG drawing", "render it as PNG")
    } else if text.starts_with("<!doctype html") || text.starts_with("<html") {
        ("an HTML page", DOWNLOAD)
    } else if text.starts_with("<?xml") || text.starts_with("<error") {
        ("an XML document", DOWNLOAD)
    } else if text.starts_with("{\"") {
        ("a JSON document", DOWNLOAD)
    } else {
        return ImageError::Format;
    };
    ImageError::Foreign { what, advice }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_kinds_are_named() {
        let named = |bytes: &[u8], part: &str| {
            let error = ImageKind::of(bytes).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
            assert!(!error.contains('\n'), "{error:?}");
        };
        named(b"", "is empty");
        named(&[0; 900], "zeros");
        named(b"GIF89a....", "is a GIF image");
        named(b"BM......", "a BMP image");
        named(b"II*\0....", "a TIFF image");
        named(b"MM\0*....", "a TIFF image");
        named(b"\0\0\0\x1cftypavif", "an AVIF image");
        named(b"\0\0\0\x18ftypheic", "a HEIC image");
        named(b"\0\0\0\x18ftypmif1", "a HEIC image");
        named(b"\0\0\0\x18ftypmp42", "a video");
        named(b"\xff\x0a....", "a JPEG XL image");
        named(b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL image");
        named(b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 image");
        named(b"8BPS\0\x01", "a Photoshop file");
        named(b"%PDF-1.7", "a PDF document");
        named(
            b"<svg xmlns='http://www.w3.org/2000/svg'>",
            "an SVG drawing",
        );
        named(b"<?xml version='1.0'?>\n<!-- x --><svg>", "an SVG drawing");
        named(b"\xef\xbb\xbf\n<!DOCTYPE html><html>", "an HTML page");
        named(b"<?xml version='1.0'?><Error>", "an XML document");
        named(b"{\"error\": 404}", "a JSON document");
        named(b"RIFF\0\0\0\0WAVE", "is not an image");
        named(b"hello", "is not an image");
    }

    #[test]
    fn the_first_mark_that_fits_is_the_most_precise() {
        for (number, (start, mark, what, _)) in FOREIGN.iter().enumerate() {
            let mut bytes = vec![1; start + mark.len() + 8];
            bytes[*start..][..mark.len()].copy_from_slice(mark);
            let ImageError::Foreign { what: found, .. } = foreign(&bytes) else {
                panic!("{what} is not known");
            };
            assert_eq!(found, *what, "entry {number}");
        }
    }
}
