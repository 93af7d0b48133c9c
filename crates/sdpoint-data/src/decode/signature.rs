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
        match Self::by_start(bytes) {
            Some(kind) => Ok(kind),
            None if bytes.is_empty() => Err(ImageError::Empty),
            None => Err(shifted(bytes).unwrap_or_else(|| foreign(bytes))),
        }
    }

    fn by_start(bytes: &[u8]) -> Option<ImageKind> {
        match bytes {
            [0xff, 0xd8, 0xff, ..] => Some(ImageKind::Jpeg),
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some(ImageKind::Png),
            _ if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") => {
                Some(ImageKind::WebP)
            }
            _ => None,
        }
    }
}

/// The error for an image behind white space or byte-order marks, as they come from
/// programs that treat files as text.
fn shifted(bytes: &[u8]) -> Option<ImageError> {
    /// The most bytes that are passed over.
    const MOST: usize = 1024;
    let mut offset = 0;
    while offset < MOST {
        offset += match bytes[offset..] {
            [b' ' | b'\t'..=b'\r', ..] => 1,
            [0xef, 0xbb, 0xbf, ..] => 3,
            // Not `ff d8`, the start of a JPEG.
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => 2,
            _ => break,
        };
    }
    let is_shifted = (1..=MOST).contains(&offset);
    let kind = is_shifted.then(|| ImageKind::by_start(&bytes[offset..]))??;
    Some(ImageError::Shifted { kind, offset })
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
    (0, b"#?RGBE", "a Radiance HDR image", CONVERT),
    (0, b"DDS ", "a DDS texture", CONVERT),
    (0, b"FUJIFILMCCD-RAW", "a camera's raw file", CONVERT),
    (0, b"IIRO", "a camera's raw file", CONVERT),
    (0, b"IIRS", "a camera's raw file", CONVERT),
    (0, b"MMOR", "a camera's raw file", CONVERT),
    (0, b"IIU\0", "a camera's raw file", CONVERT),
    (6, b"HEAPCCDR", "a camera's raw file", CONVERT),
    (0, b"FOVb", "a camera's raw file", CONVERT),
    (0, b"\0MRM", "a camera's raw file", CONVERT),
    (0, b"II\xbc\x01", "a JPEG XR image", CONVERT),
    (0, b"\x8aMNG\r\n\x1a\n", "an MNG animation", EXTRACT),
    (0, b"\x8bJNG\r\n\x1a\n", "a JNG image", CONVERT),
    (0, b"BPG\xfb", "a BPG image", CONVERT),
    (0, b"FLIF", "a FLIF image", CONVERT),
    (0, b"\xabKTX ", "a KTX texture", CONVERT),
    (0, b"AT&TFORM", "a DjVu document", EXTRACT),
    (0, b"gimp xcf", "a GIMP file", EXTRACT),
    (0, b"%!PS", "a PostScript document", EXTRACT),
    (0, b"\xc5\xd0\xd3\xc6", "a PostScript document", EXTRACT),
    (0, b"SIMPLE  =", "a FITS file", EXTRACT),
    (0, b"\x59\xa6\x6a\x95", "a Sun raster image", CONVERT),
    (0, b"/* XPM */", "an XPM image", CONVERT),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file", EXTRACT),
    (8, b"AVI ", "a video", EXTRACT),
    (0, b"\x1a\x45\xdf\xa3", "a video", EXTRACT),
    (0, b"\0\0\x01\xba", "a video", EXTRACT),
    (0, b"FLV\x01", "a video", EXTRACT),
    (0, b"\x93NUMPY", "a NumPy array", CONVERT),
    (128, b"DICM", "a DICOM file", EXTRACT),
    (0, b"\x1f\x8b", "a gzip archive", UNPACK),
    (0, b"PK\x03\x04", "a zip archive", UNPACK),
    (0, b"Rar!\x1a\x07", "a RAR archive", UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard archive", UNPACK),
    (0, b"\xfd7zXZ\0", "an xz archive", UNPACK),
    (0, b"BZh", "a bzip2 archive", UNPACK),
    (0, b"LZIP", "an lzip archive", UNPACK),
    (0, b"\x1f\x9d", "an archive of the program compress", UNPACK),
    (0, b"\x04\x22\x4d\x18", "an LZ4 archive", UNPACK),
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
    if let Some(what) = without_mark(bytes) {
        return ImageError::Foreign {
            what,
            advice: CONVERT,
        };
    }
    let start = &bytes[..bytes.len().min(TEXT_START)];
    if start.iter().all(|&byte| byte == 0) {
        return ImageError::Zeros;
    }
    let start = String::from_utf8_lossy(start).to_ascii_lowercase();
    let text = start.trim_start_matches('\u{feff}').trim_start();
    let is_svg = start.contains("<svg") || start.contains("<!doctype svg");
    let (what, advice) = if text.starts_with('<') && is_svg {
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

/// The name of an image whose format is known by several fields, not by one mark.
fn without_mark(bytes: &[u8]) -> Option<&'static str> {
    match *bytes {
        // The format, and white space or a comment before the size.
        [
            b'P',
            digit @ b'1'..=b'7',
            b' ' | b'\t' | b'\r' | b'\n' | b'#',
            ..,
        ] => Some(match digit {
            b'1' | b'4' => "a PBM image",
            b'2' | b'5' => "a PGM image",
            b'3' | b'6' => "a PPM image",
            _ => "a PAM image",
        }),
        [b'P', b'f' | b'F', b'\n' | b'\r', ..] => Some("a PFM image"),
        // Version, run lengths, bits of a pixel and plane.
        [0x0a, 0 | 2..=5, 0 | 1, 1 | 2 | 4 | 8, ..] => Some("a PCX image"),
        _ if is_tga(bytes) => Some("a TGA image"),
        // A number of cursors; in TGA, the same bytes are zero.
        [0, 0, 2, 0, low, high, ..] if [low, high] != [0; 2] => Some("a cursor"),
        _ => None,
    }
}

/// Whether the bytes are those of a TGA image: by the mark at the end of a file of
/// version 2, or a header of version 1 whose fields all have possible values.
fn is_tga(bytes: &[u8]) -> bool {
    const END: &[u8] = b"TRUEVISION-XFILE.\0";
    if bytes.ends_with(END) {
        return true;
    }
    let Some(&[_, map, kind, rest @ .., depth, descriptor]) = bytes.first_chunk::<18>() else {
        return false;
    };
    let [m0, m1, m2, m3, map_depth, _, _, _, _, w0, w1, h0, h1] = rest;
    let has_map = match map {
        0 => [m0, m1, m2, m3, map_depth] == [0; 5] && !matches!(kind, 1 | 9),
        1 => matches!(map_depth, 15 | 16 | 24 | 32) && [m2, m3] != [0; 2],
        _ => false,
    };
    let depths: &[u8] = match kind {
        1 | 9 => &[8, 16],
        2 | 10 => &[15, 16, 24, 32],
        3 | 11 => &[8, 16],
        _ => &[],
    };
    has_map
        && depths.contains(&depth)
        && descriptor & 0xc0 == 0
        && [w0, w1] != [0; 2]
        && [h0, h1] != [0; 2]
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
        named(b"RIFF\0\0\0\0AVI LIST", "a video");
        for (start, what) in [
            (&b"P6\n# made by\n8 8\n255\n"[..], "a PPM image"),
            (b"P3\r\n8 8", "a PPM image"),
            (b"P2 8 8 255", "a PGM image"),
            (b"P4\t8 8\n", "a PBM image"),
            (b"P7\nWIDTH 8", "a PAM image"),
            (b"PF\n8 8\n-1.0\n", "a PFM image"),
            (b"\x0a\x05\x01\x08\0\0\0\0", "a PCX image"),
            (b"\x0a\x00\x01\x01\0\0\0\0", "a PCX image"),
            (b"\0\0\x01\0\x01\0\x10\x10", "an icon"),
            (b"\0\0\x02\0\x01\0\x10\x10", "a cursor"),
            (b"#?RGBE\nFORMAT", "a Radiance HDR image"),
            (b"IIU\0\x18\0\0\0", "a camera's raw file"),
            (b"IIRO\x08\0\0\0", "a camera's raw file"),
            (b"II\x1a\0\0\0HEAPCCDR", "a camera's raw file"),
            (b"II*\0\x10\0\0\0CR\x02\0", "a camera's raw file"),
            (
                b"<?xml version='1.0'?><!DOCTYPE svg PUBLIC",
                "an SVG drawing",
            ),
            (b"LZIP\x01", "an lzip archive"),
            (b"BZh91AY&SY", "a bzip2 archive"),
        ] {
            named(start, what);
        }
        named(b"P8\n8 8", "is not an image");
        named(b"Papers, please", "is not an image");
        named(b"\nplain text", "is not an image");
        named(b"RIFF\0\0\0\0WAVE", "is not an image");
        named(b"hello", "is not an image");
    }

    #[test]
    fn bytes_before_an_image_are_named() {
        for (before, offset) in [
            (&b"\n"[..], 1),
            (b"\r\n\r\n", 4),
            (b" \t\x0b\x0c", 4),
            (b"\xef\xbb\xbf", 3),
            (b"\xef\xbb\xbf\n", 4),
            (b"\xff\xfe", 2),
            (b"\xfe\xff", 2),
            (&[b' '; 1024], 1024),
        ] {
            for (start, name) in [
                (&b"\xff\xd8\xff\xe0"[..], "JPEG"),
                (b"\x89PNG\r\n\x1a\n", "PNG"),
                (b"RIFF\0\0\0\0WEBP", "WebP"),
            ] {
                let error = ImageKind::of(&[before, start].concat()).unwrap_err();
                let text = error.to_string();
                assert!(
                    text.contains(name) && text.contains(&format!("at offset {offset};")),
                    "{text}"
                );
            }
        }
        for other in [&b"\n\n"[..], b"\nGIF89a", &[b' '; 5000], b"x\xff\xd8\xff"] {
            let error = ImageKind::of(other).unwrap_err();
            assert!(!matches!(error, ImageError::Shifted { .. }), "{error}");
        }
    }

    #[test]
    fn tga_images_are_known_without_a_mark() {
        let tga = |map: [u8; 7], depth: u8, descriptor| {
            let mut bytes = vec![0];
            bytes.extend(map);
            bytes.extend([0, 0, 0, 0, 40, 0, 30, 0, depth, descriptor]);
            bytes.extend([7; 60]);
            bytes
        };
        let none = |kind| [0, kind, 0, 0, 0, 0, 0];
        for bytes in [
            tga(none(2), 24, 0x20),
            tga(none(2), 32, 8),
            tga(none(10), 24, 0),
            tga(none(3), 8, 0),
            tga(none(11), 8, 0x20),
            tga([1, 1, 0, 0, 0, 1, 24], 8, 0),
            tga([1, 9, 0, 0, 16, 0, 32], 8, 0),
            b"anything, then TRUEVISION-XFILE.\0".to_vec(),
        ] {
            let error = ImageKind::of(&bytes).unwrap_err().to_string();
            assert!(error.contains("a TGA image"), "{error}: {bytes:?}");
        }
        for bytes in [
            tga(none(4), 24, 0),
            tga(none(2), 23, 0),
            tga([0, 2, 1, 0, 0, 0, 0], 24, 0),
            tga(none(2), 24, 0)[..17].to_vec(),
        ] {
            let error = ImageKind::of(&bytes).unwrap_err().to_string();
            assert!(!error.contains("TGA"), "{error}: {bytes:?}");
        }
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
