//! PNG and WebP files of every kind, and what is no image.

use crate::common::{is_colour, jpeg, png};
use png::{BitDepth, ColorType};
use sdpoint_data::{Image, ImageError, ImageKind, Orientation, decode, image_size};

/// A PNG file of one pixel, with a chunk before its data.
fn png_with_chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    png_with_chunk_before(b"IDAT", kind, data)
}

fn png_with_chunk_before(next: &[u8; 4], kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let plain = png(1, 1, ColorType::Grayscale, BitDepth::Eight, &[7]);
    let data_at = plain.windows(4).position(|w| w == next).unwrap() - 4;
    let mut bytes = plain[..data_at].to_vec();
    bytes.extend((data.len() as u32).to_be_bytes());
    bytes.extend(kind);
    bytes.extend(data);
    let crc = crc32(&[kind, data].concat());
    bytes.extend(crc.to_be_bytes());
    bytes.extend(&plain[data_at..]);
    bytes
}

#[test]
fn every_kind_of_png_becomes_rgb() {
    let first = |colour, depth, data: &[u8]| {
        let image = decode(&png(2, 1, colour, depth, data)).unwrap();
        assert_eq!((image.width(), image.height()), (2, 1));
        image.pixel(1, 0)
    };
    let eight = BitDepth::Eight;
    assert_eq!(first(ColorType::Rgb, eight, &[1, 2, 3, 4, 5, 6]), [4, 5, 6]);
    assert_eq!(
        first(ColorType::Rgba, eight, &[1, 2, 3, 0, 4, 5, 6, 0]),
        [4, 5, 6]
    );
    assert_eq!(first(ColorType::Grayscale, eight, &[1, 9]), [9; 3]);
    assert_eq!(
        first(ColorType::GrayscaleAlpha, eight, &[1, 0, 9, 0]),
        [9; 3]
    );
    assert_eq!(
        first(ColorType::Grayscale, BitDepth::One, &[0b0100_0000]),
        [255; 3]
    );
    assert_eq!(first(ColorType::Indexed, eight, &[0, 1]), [40, 50, 60]);
    let deep = [0, 0, 0, 0, 0, 0, 7, 200, 8, 200, 9, 200];
    assert_eq!(first(ColorType::Rgb, BitDepth::Sixteen, &deep), [7, 8, 9]);
}

#[test]
fn webp_is_read_lossless_lossy_with_alpha_and_animated() {
    let lossless = |colour, data: &[u8]| {
        let mut bytes = Vec::new();
        image_webp::WebPEncoder::new(&mut bytes)
            .encode(data, 2, 1, colour)
            .unwrap();
        decode(&bytes).unwrap()
    };
    let rgb = lossless(image_webp::ColorType::Rgb8, &[1, 2, 3, 4, 5, 6]);
    assert_eq!(rgb.pixels(), [1, 2, 3, 4, 5, 6]);
    let rgba = [1, 2, 3, 9, 4, 5, 6, 255];
    let rgba = lossless(image_webp::ColorType::Rgba8, &rgba);
    assert_eq!(rgba.pixels(), [1, 2, 3, 4, 5, 6]);

    for file in [LOSSY_WEBP, ALPHA_WEBP, ANIMATED_WEBP] {
        let image = decode(file).unwrap();
        assert!(is_colour(&image, [200, 100, 50]), "{:?}", image.pixel(0, 0));
        assert!(decode(&[file, b"something after it"].concat()).is_ok());
        for len in 12..file.len() {
            let error = decode(&file[..len]).unwrap_err();
            assert!(matches!(error, ImageError::Truncated(ImageKind::WebP)));
        }
    }
}

#[test]
fn orientation_of_png_and_webp_is_known() {
    let exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0";
    let turned = Orientation::from_exif(6).unwrap();
    let hex: String = exif.iter().map(|byte| format!("{byte:02x}")).collect();
    let (first, second) = hex.split_at(20);
    let text = format!("\nexif\n      {}\n{first}\n{second}\n", exif.len());
    let plain = format!("Raw profile type exif\0{text}");
    let packed = {
        let mut chunk = b"Raw profile type exif\0\0".to_vec();
        let mut zlib = flate2::write::ZlibEncoder::new(&mut chunk, flate2::Compression::fast());
        std::io::Write::write_all(&mut zlib, text.as_bytes()).unwrap();
        zlib.finish().unwrap();
        chunk
    };
    // Two bytes on compression, an empty language, and an empty translation.
    let international = |compression: &[u8; 2], text: &[u8]| {
        [b"Raw profile type exif\0", &compression[..], b"\0\0", text].concat()
    };
    let utf8 = international(b"\0\0", text.as_bytes());
    let packed_utf8 = international(b"\x01\0", &packed[b"Raw profile type exif\0\0".len()..]);
    for next in [b"IDAT", b"IEND"] {
        for (kind, data) in [
            (b"eXIf", &exif[..]),
            (b"tEXt", plain.as_bytes()),
            (b"zTXt", &packed),
            (b"iTXt", &utf8),
            (b"iTXt", &packed_utf8),
        ] {
            let png = png_with_chunk_before(next, kind, data);
            assert_eq!(decode(&png).unwrap().orientation(), turned, "{kind:?}");
        }
        // Text that is something else, or no profile at all.
        for text in [
            "Raw profile type xmp\0\nexif\n 26\n4d4d",
            "Raw profile type exif\0",
            "Raw profile type exif\0\nexif\n 9\n4g4é",
        ] {
            let png = png_with_chunk_before(next, b"tEXt", text.as_bytes());
            assert_eq!(decode(&png).unwrap().orientation(), Orientation::default());
        }
    }

    let mut webp = Vec::new();
    let mut encoder = image_webp::WebPEncoder::new(&mut webp);
    encoder.set_exif_metadata(exif.to_vec());
    encoder
        .encode(&[9; 6], 2, 1, image_webp::ColorType::Rgb8)
        .unwrap();
    let image = decode(&webp).unwrap();
    assert_eq!(image.orientation(), turned);
    assert_eq!(image.upright().width(), 1);
}

#[test]
fn the_size_is_read_without_the_pixels() {
    let mut webp = Vec::new();
    image_webp::WebPEncoder::new(&mut webp)
        .encode(&[0; 18], 2, 3, image_webp::ColorType::Rgb8)
        .unwrap();
    let png = png(2, 3, ColorType::Rgb, BitDepth::Eight, &[0; 18]);
    for bytes in [&jpeg(2, 3, [1, 2, 3]), &webp, &png] {
        assert_eq!(image_size(bytes).unwrap(), [3, 2]);
        assert!(decode(bytes).is_ok());
    }
    // The pixels of a PNG come behind its header.
    assert_eq!(image_size(&png[..40]).unwrap(), [3, 2]);
    assert!(matches!(
        image_size(&png[..20]),
        Err(ImageError::Truncated(_))
    ));
    assert!(image_size(b"GIF89a").is_err());
    assert!(image_size(b"").is_err());
}

#[test]
fn other_files_and_broken_ones_are_refused() {
    assert!(matches!(decode(b""), Err(ImageError::Empty)));
    assert!(matches!(decode(b"GIF89a"), Err(ImageError::Foreign { .. })));
    assert!(matches!(decode(b"plain text"), Err(ImageError::Format)));
    let sound = png(40, 40, ColorType::Grayscale, BitDepth::Eight, &[7; 1600]);
    let cut = &sound[..sound.len() - 30];
    assert!(matches!(
        decode(cut),
        Err(ImageError::Truncated(ImageKind::Png))
    ));
    let apple = png_with_chunk(b"CgBI", &[0; 4]);
    let header_at = apple.windows(4).position(|w| w == b"CgBI").unwrap() - 4;
    let apple = [&apple[..8], &apple[header_at..]].concat();
    assert!(matches!(
        decode(&apple),
        Err(ImageError::Unsupported { .. })
    ));
}

/// A header may promise any size: it must be refused before memory is taken.
#[test]
fn huge_sizes_are_refused_by_the_header() {
    let mut bytes = png(4, 4, ColorType::Grayscale, BitDepth::Eight, &[7; 16]);
    bytes[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
    let crc = crc32(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&crc.to_be_bytes());
    assert!(matches!(
        decode(&bytes),
        Err(ImageError::Size {
            width: 65536,
            height: 65536
        })
    ));

    let mut bytes = jpeg(16, 16, [1, 2, 3]);
    let frame = bytes.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    bytes[frame + 5..frame + 9].copy_from_slice(&[0x7f, 0xff, 0x7f, 0xff]);
    assert!(matches!(
        decode(&bytes),
        Err(ImageError::Size {
            width: 32767,
            height: 32767
        })
    ));
}

/// No bytes may make the decoder panic, whatever they decode to.
#[test]
fn damaged_bytes_never_panic() {
    let files = [
        jpeg(24, 24, [200, 10, 60]),
        png(24, 24, ColorType::Rgb, BitDepth::Eight, &[7; 24 * 24 * 3]),
        LOSSY_WEBP.to_vec(),
        ALPHA_WEBP.to_vec(),
        ANIMATED_WEBP.to_vec(),
    ];
    for file in files {
        for at in 0..file.len() {
            for value in [0, 0x7f, 0xff] {
                let mut damaged = file.clone();
                damaged[at] = value;
                check(decode(&damaged));
            }
            check(decode(&file[..at]));
        }
    }
}

/// What is said of a file is a line of words.
fn check(decoded: Result<Image, ImageError>) {
    if let Err(error) = decoded {
        let text = error.to_string();
        assert!(
            !text.contains(['\n', '"', '{', '(']) || text.contains("(JPEG, PNG"),
            "{text}"
        );
        assert!(!text.contains("limit"), "{text}");
    }
}

/// The checksum of a PNG chunk.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// A lossy picture of 16×12 pixels.
#[rustfmt::skip]
const LOSSY_WEBP: &[u8] = &[
    82, 73, 70, 70, 62, 0, 0, 0, 87, 69, 66, 80, 86, 80, 56, 32, 50, 0, 0, 0,
    208, 1, 0, 157, 1, 42, 16, 0, 12, 0, 0, 192, 18, 37, 160, 2, 116, 186, 1, 248,
    0, 3, 176, 0, 254, 218, 38, 255, 238, 243, 126, 211, 215, 180, 245, 253, 76, 255, 248, 202,
    159, 32, 63, 227, 42, 127, 197, 204, 0, 0,
];

/// The same, half transparent.
#[rustfmt::skip]
const ALPHA_WEBP: &[u8] = &[
    82, 73, 70, 70, 98, 0, 0, 0, 87, 69, 66, 80, 86, 80, 56, 88, 10, 0, 0, 0,
    16, 0, 0, 0, 15, 0, 0, 11, 0, 0, 65, 76, 80, 72, 10, 0, 0, 0, 1, 7,
    80, 192, 136, 8, 68, 68, 255, 3, 86, 80, 56, 32, 50, 0, 0, 0, 208, 1, 0, 157,
    1, 42, 16, 0, 12, 0, 0, 192, 18, 37, 160, 2, 116, 186, 1, 248, 0, 3, 176, 0,
    254, 218, 38, 255, 238, 243, 126, 211, 215, 180, 245, 253, 76, 255, 248, 202, 159, 32, 63, 227,
    42, 127, 197, 204, 0, 0,
];

/// An animation of two frames, of which the second is blue.
#[rustfmt::skip]
const ANIMATED_WEBP: &[u8] = &[
    82, 73, 70, 70, 134, 0, 0, 0, 87, 69, 66, 80, 86, 80, 56, 88, 10, 0, 0, 0,
    2, 0, 0, 0, 7, 0, 0, 7, 0, 0, 65, 78, 73, 77, 6, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 65, 78, 77, 70, 42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0,
    0, 7, 0, 0, 0, 0, 0, 0, 86, 80, 56, 76, 17, 0, 0, 0, 47, 7, 192, 1,
    0, 7, 80, 178, 34, 87, 166, 255, 129, 136, 232, 127, 0, 0, 65, 78, 77, 70, 40, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 7, 0, 0, 0, 0, 0, 0, 86, 80,
    56, 76, 15, 0, 0, 0, 47, 7, 192, 1, 0, 7, 16, 209, 255, 254, 7, 34, 162, 255,
    1, 0,
];
