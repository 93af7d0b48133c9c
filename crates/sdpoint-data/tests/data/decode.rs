//! JPEG and PNG files of every kind, sound and broken.

use crate::common::{is_colour, jpeg, png};
use png::{BitDepth, ColorType};
use sdpoint_data::{ImageError, decode};

#[test]
fn jpeg_in_colour_grey_and_cmyk_becomes_rgb() {
    let image = decode(&jpeg(20, 10, [200, 100, 50])).unwrap();
    assert_eq!((image.width(), image.height()), (20, 10));
    assert!(is_colour(&image, [200, 100, 50]), "{:?}", image.pixel(3, 3));

    let encode = |colour, data: &[u8]| {
        let mut bytes = Vec::new();
        jpeg_encoder::Encoder::new(&mut bytes, 95)
            .encode(data, 16, 16, colour)
            .unwrap();
        bytes
    };
    let grey = decode(&encode(jpeg_encoder::ColorType::Luma, &[77; 256])).unwrap();
    assert!(is_colour(&grey, [77; 3]), "{:?}", grey.pixel(0, 0));

    let inks = [0, 128, 255, 0].repeat(256);
    for colour in [
        jpeg_encoder::ColorType::Cmyk,
        jpeg_encoder::ColorType::CmykAsYcck,
    ] {
        let image = decode(&encode(colour, &inks)).unwrap();
        assert!(
            is_colour(&image, [255, 127, 0]),
            "{colour:?}: {:?}",
            image.pixel(0, 0)
        );
    }
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
fn other_files_and_broken_ones_are_refused() {
    assert!(matches!(decode(b""), Err(ImageError::Format)));
    assert!(matches!(decode(b"GIF89a"), Err(ImageError::Format)));
    let sound = jpeg(40, 40, [9, 90, 190]);
    let cut = &sound[..sound.len() - 20];
    assert!(matches!(decode(cut), Err(ImageError::Jpeg(_))));
    let sound = png(40, 40, ColorType::Grayscale, BitDepth::Eight, &[7; 1600]);
    let cut = &sound[..sound.len() - 30];
    assert!(matches!(decode(cut), Err(ImageError::Png(_))));
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
    ];
    for file in files {
        for at in 0..file.len() {
            for value in [0, 0x7f, 0xff] {
                let mut damaged = file.clone();
                damaged[at] = value;
                let _ = decode(&damaged);
            }
            let _ = decode(&file[..at]);
        }
    }
}

/// The checksum of a PNG chunk.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}
