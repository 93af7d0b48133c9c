//! An image file from anywhere, through all that happens to one: decoded,
//! turned upright, prepared by every transform and with every filter. Refused
//! in a line of words or right in its size; never a panic.

#![no_main]

use chacha20::ChaCha8Rng;
use libfuzzer_sys::fuzz_target;
use rand::SeedableRng;
use sdpoint_core::{EvalTransform, ExifOrientation, Interpolation, Preprocessing, TrainTransform};
use sdpoint_data::{Image, MAX_PIXELS, Preparer, decode};

/// Pictures beyond are not tried: they only take long.
const MOST_PIXELS: usize = 1 << 16;

fuzz_target!(|file: &[u8]| {
    if promises_much(file) {
        return;
    }
    match decode(file) {
        Ok(image) => exercise(&image),
        Err(error) => {
            let text = error.to_string();
            assert!(!text.contains('\n') && text.len() < 200, "{text}");
        }
    }
});

fn exercise(image: &Image) {
    let pixels = image.width() * image.height();
    assert!(pixels <= MAX_PIXELS && image.pixels().len() == 3 * pixels);
    let upright = image.upright();
    assert_eq!(upright.pixels().len(), image.pixels().len());
    if pixels > MOST_PIXELS {
        return;
    }
    let (area, aspect) = ([0.08, 1.0], [0.75, 1.333]);
    let ways = [
        (
            EvalTransform::Resize,
            TrainTransform::PadCrop {
                padding: 2,
                flip: true,
            },
        ),
        (
            EvalTransform::CenterCrop { resize: 11 },
            TrainTransform::None,
        ),
        (
            EvalTransform::SquashCrop { resize: [12, 7] },
            TrainTransform::RandomResizedCrop {
                area,
                aspect,
                flip: true,
            },
        ),
    ];
    for (number, interpolation) in Interpolation::ALL.into_iter().enumerate() {
        for (evaluate, train) in ways {
            let exif_orientation = match number % 2 {
                0 => ExifOrientation::Apply,
                _ => ExifOrientation::Ignore,
            };
            let preprocessing = Preprocessing {
                evaluate,
                train,
                interpolation,
                exif_orientation,
                ..Preprocessing::new([8, 9], vec![0.5; 3], vec![0.25; 3])
            };
            let mut preparer = Preparer::new(&preprocessing).expect("sound preprocessing");
            let mut input = vec![f32::NAN; preparer.input_len()];
            preparer
                .prepare(image, &mut input)
                .expect("an image can be prepared");
            assert!(input.iter().all(|value| value.abs() <= 2.0));
            let mut rng = ChaCha8Rng::seed_from_u64(number as u64);
            preparer
                .augment(image, &mut rng, &mut input)
                .expect("an image can be augmented");
            assert!(input.iter().all(|value| value.abs() <= 2.0));
        }
    }
}

/// Whether a header claims a picture that would take long.
fn promises_much(file: &[u8]) -> bool {
    let two = |at: usize, big_endian: bool| -> usize {
        let bytes = file.get(at..).and_then(|b| b.first_chunk()).copied();
        let bytes = bytes.unwrap_or_default();
        usize::from(match big_endian {
            true => u16::from_be_bytes(bytes),
            false => u16::from_le_bytes(bytes),
        })
    };
    if file.starts_with(b"RIFF") {
        let extended = (two(24, false) + 1) * (two(27, false) + 1);
        let lossy = (two(26, false) & 0x3fff) * (two(28, false) & 0x3fff);
        let lossless =
            (two(21, false) & 0x3fff) * (two(22, false) >> 6 | two(24, false) << 10 & 0x3fff);
        return match file.get(12..16) {
            Some(b"VP8X") => extended > MOST_PIXELS || file.get(26) != Some(&0),
            Some(b"VP8 ") => lossy > MOST_PIXELS,
            _ => lossless > MOST_PIXELS,
        };
    }
    if file.starts_with(b"\x89PNG") {
        let sides = [16, 20].map(|at| two(at, true) << 16 | two(at + 2, true));
        return sides[0].saturating_mul(sides[1]) > MOST_PIXELS;
    }
    let frames = file.windows(2).enumerate();
    let mut frames = frames.filter(|(_, mark)| matches!(mark, [0xff, 0xc0..=0xc2]));
    frames.any(|(at, _)| two(at + 5, true) * two(at + 7, true) > MOST_PIXELS)
}
