use std::collections::HashSet;

use chacha20::ChaCha8Rng;
use rand::SeedableRng;
use sdpoint_core::Interpolation;

use super::*;

/// Mean 0 and deviation 1, so that values are bytes over 255.
fn plain(size: [usize; 2], train: TrainTransform, evaluate: EvalTransform) -> Preparer {
    let (mean, std) = (vec![0.0; CHANNELS], vec![1.0; CHANNELS]);
    Preparer::new(&Preprocessing {
        train,
        evaluate,
        ..Preprocessing::new(size, mean, std)
    })
    .unwrap()
}

/// An image whose every pixel tells where it is: red its column, green its
/// row, both from 1, blue 255.
fn marked(width: usize, height: usize) -> Image {
    let pixel = |i: usize| [(i % width + 1) as u8, (i / width + 1) as u8, 255];
    Image::new(width, height, (0..width * height).flat_map(pixel).collect()).unwrap()
}

fn bytes(input: &[f32]) -> Vec<[u8; 3]> {
    input
        .as_chunks()
        .0
        .iter()
        .map(|p: &[f32; 3]| p.map(|v| (v * 255.0).round() as u8))
        .collect()
}

#[test]
fn values_are_normalised_channel_by_channel() {
    let image = Image::new(1, 1, vec![0, 51, 255]).unwrap();
    let preprocessing = Preprocessing {
        train: TrainTransform::None,
        evaluate: EvalTransform::Resize,
        ..Preprocessing::new([1, 1], vec![0.5, 0.1, 0.25], vec![0.25, 0.2, 0.5])
    };
    let values = prepare(&image, &preprocessing).unwrap();
    for (value, expected) in values.iter().zip([-2.0, 0.5, 1.5]) {
        assert!((value - expected).abs() < 1e-6, "{values:?}");
    }
}

/// Every draw shows the image shifted as a whole, with zeros around it, and
/// mirrored or not; over many draws all shifts and both ways occur.
#[test]
fn pad_and_crop_shifts_and_mirrors_the_whole_image() {
    let (width, height, padding) = (7, 5, 2);
    let image = marked(width, height);
    let crop = TrainTransform::PadCrop {
        padding,
        flip: true,
    };
    let mut preparer = plain([height, width], crop, EvalTransform::Resize);
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut input = vec![0.0; preparer.input_len()];
    let mut seen = HashSet::new();
    for _ in 0..1000 {
        preparer.augment(&image, &mut rng, &mut input).unwrap();
        let shown = bytes(&input);
        let place = |column: usize, row: usize| {
            let [x, y, mark] = shown[row * width + column];
            (mark == 255).then_some((i32::from(x) - 1, i32::from(y) - 1))
        };
        let (x0, y0) = place(3, 2).unwrap();
        let step = place(4, 2).unwrap().0 - x0;
        assert!(step.abs() == 1);
        for row in 0..height {
            for column in 0..width {
                let x = x0 + step * (column as i32 - 3);
                let y = y0 + row as i32 - 2;
                let inside = (0..width as i32).contains(&x) && (0..height as i32).contains(&y);
                assert_eq!(place(column, row), inside.then_some((x, y)));
                assert!(inside || shown[row * width + column] == [0; 3]);
            }
        }
        seen.insert((x0 - 3, y0 - 2, step));
    }
    assert_eq!(seen.len(), (2 * padding + 1).pow(2) * 2);
    assert!(seen.iter().all(|(x, y, _)| x.abs() <= 2 && y.abs() <= 2));
}

/// Black would be -1 here.
#[test]
fn padding_is_the_mean_colour() {
    let preprocessing = Preprocessing {
        train: TrainTransform::PadCrop {
            padding: 2,
            flip: false,
        },
        ..Preprocessing::new([2, 2], vec![0.5; 3], vec![0.5; 3])
    };
    let mut preparer = Preparer::new(&preprocessing).unwrap();
    let white = Image::new(2, 2, vec![255; 12]).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut input = vec![0.0; preparer.input_len()];
    let mut padded = 0;
    for _ in 0..50 {
        preparer.augment(&white, &mut rng, &mut input).unwrap();
        assert!(input.iter().all(|&value| value == 0.0 || value == 1.0));
        padded += usize::from(input.contains(&0.0));
    }
    assert!(padded > 30, "{padded} of 50 show padding");
}

#[test]
fn without_padding_and_mirroring_training_sees_the_image_itself() {
    let image = marked(6, 4);
    let crop = TrainTransform::PadCrop {
        padding: 0,
        flip: false,
    };
    let mut preparer = plain([4, 6], crop, EvalTransform::Resize);
    let mut input = vec![0.0; preparer.input_len()];
    preparer
        .augment(&image, &mut ChaCha8Rng::seed_from_u64(1), &mut input)
        .unwrap();
    assert_eq!(bytes(&input).as_flattened(), image.pixels());
}

#[test]
fn the_middle_is_cut_out() {
    // The shorter side is 6 already: nothing is resized.
    let image = marked(11, 6);
    let crop = EvalTransform::CenterCrop { resize: 6 };
    let mut preparer = plain([4, 4], TrainTransform::None, crop);
    let mut input = vec![0.0; preparer.input_len()];
    preparer.prepare(&image, &mut input).unwrap();
    let shown = bytes(&input);
    // (11 - 4) / 2 = 3.5, rounded to the even 4; (6 - 4) / 2 = 1.
    assert_eq!(shown[0], [5, 2, 255]);
    assert_eq!(shown[15], [8, 5, 255]);
}

#[test]
fn sizes_are_rounded_as_in_torchvision() {
    let size = |width, height, resize| {
        shorter_side_to(
            &Image::new(width, height, vec![0; width * height * 3]).unwrap(),
            resize,
        )
    };
    assert_eq!(size(500, 375, 256), [256, 341]);
    assert_eq!(size(375, 500, 256), [341, 256]);
    assert_eq!(size(10, 10, 256), [256, 256]);
    let offsets = [
        (256, 224),
        (227, 224),
        (225, 224),
        (224, 224),
        (223, 224),
        (200, 224),
    ];
    assert_eq!(
        offsets.map(|(side, crop)| centred(side, crop)),
        [16, 2, 0, 0, 0, -12]
    );
}

/// Halving a side averages with weights 1, 3, 3, 1 over eight: the triangle
/// of bilinear filtering, stretched by the reduction.
#[test]
fn reducing_averages_instead_of_skipping() {
    let columns: [u8; 8] = [0, 0, 0, 240, 0, 0, 0, 0];
    let pixels = columns.repeat(8).into_iter().flat_map(|v| [v; 3]).collect();
    let image = Image::new(8, 8, pixels).unwrap();
    let mut preparer = plain([4, 4], TrainTransform::None, EvalTransform::Resize);
    let mut input = vec![0.0; preparer.input_len()];
    preparer.prepare(&image, &mut input).unwrap();
    let row: Vec<u8> = bytes(&input)[..4].iter().map(|p| p[0]).collect();
    assert_eq!(row, [0, 90, 30, 0]);
}

#[test]
fn random_parts_lie_inside_and_have_allowed_shapes() {
    let image = marked(200, 120);
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let (mut smallest, mut largest) = (f64::MAX, 0.0_f64);
    for _ in 0..2000 {
        let part = random_area(&image, [0.08, 1.0], [0.75, 4.0 / 3.0], &mut rng);
        assert!(part.left >= 0.0 && part.left + part.width <= 200.0);
        assert!(part.top >= 0.0 && part.top + part.height <= 120.0);
        let aspect = part.width / part.height;
        assert!((0.73..1.37).contains(&aspect), "{part:?}");
        let share = part.width * part.height / (200.0 * 120.0);
        smallest = smallest.min(share);
        largest = largest.max(share);
    }
    assert!((0.07..0.1).contains(&smallest) && (0.7..0.81).contains(&largest));
}

#[test]
fn where_no_draw_fits_the_largest_allowed_middle_is_taken() {
    let image = Image::new(1000, 10, vec![0; 30_000]).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let part = random_area(&image, [0.9, 1.0], [0.5, 2.0], &mut rng);
    assert_eq!(
        part,
        Crop {
            left: 490.0,
            top: 0.0,
            width: 20.0,
            height: 10.0
        }
    );
}

#[test]
fn a_random_part_fills_the_input() {
    let image = marked(60, 40);
    let crop = TrainTransform::RandomResizedCrop {
        area: [0.2, 0.5],
        aspect: [0.8, 1.2],
        flip: true,
    };
    let mut preparer = plain([8, 8], crop, EvalTransform::Resize);
    let mut input = vec![0.0; preparer.input_len()];
    let mut mirrored = 0;
    for seed in 0..100 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        preparer.augment(&image, &mut rng, &mut input).unwrap();
        let shown = bytes(&input);
        assert!(shown.iter().all(|p| p[2] == 255), "the image everywhere");
        assert!(shown[56][1] > shown[0][1], "rows stay in order");
        mirrored += usize::from(shown[0][0] > shown[7][0]);
    }
    assert!((30..70).contains(&mirrored), "{mirrored} of 100 mirrored");
}

/// The shorter side to 256 makes the longer one of such an image 7.7 million
/// pixels long, of which 224 are shown.
#[test]
fn oblong_images_are_prepared_like_others() {
    for (width, height) in [(30_000, 1), (1, 30_000), (300, 2)] {
        let mut image = marked(2, 2).pixels()[..3].repeat(width * height);
        // The middle is of another colour.
        for (at, pixel) in image.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            let along = (at % width).max(at / width);
            if along * 2 >= width.max(height) {
                *pixel = [200, 100, 50];
            }
        }
        let image = Image::new(width, height, image).unwrap();
        for train in [
            TrainTransform::None,
            TrainTransform::RandomResizedCrop {
                area: [0.08, 1.0],
                aspect: [0.75, 1.33],
                flip: true,
            },
            TrainTransform::PadCrop {
                padding: 4,
                flip: true,
            },
        ] {
            let crop = EvalTransform::CenterCrop { resize: 256 };
            let mut preparer = plain([224, 224], train, crop);
            let mut input = vec![0.0; preparer.input_len()];
            let mut rng = ChaCha8Rng::seed_from_u64(1);
            preparer.augment(&image, &mut rng, &mut input).unwrap();
            preparer.prepare(&image, &mut input).unwrap();
            let shown = bytes(&input);
            let (first, last) = (shown[0], shown[224 * 224 - 1]);
            assert!(first[0] < 60 && first[2] > 200, "{first:?}");
            assert!(last[0] > 140 && last[2] < 110, "{last:?}");
        }
    }
}

/// What is computed of the window alone is what the window shows of all: for
/// oblong images but for rounding, for others to the bit.
#[test]
fn cropping_before_resizing_is_cropping_after_it() {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let (mut equal, mut all) = (0, 0);
    for filter in Interpolation::ALL {
        for _ in 0..30 {
            let mut side = |most: u32| rng.random_range(1..=most) as usize;
            let (width, height) = match side(2) {
                1 => (side(90), side(90)),
                _ => (200 * side(4), side(20)),
            };
            let size = [side(40), side(40)];
            let (resize, squash) = (side(60), [side(60), side(60)]);
            let noise: Vec<u8> = (0..width * height * 3).map(|_| rng.random()).collect();
            let image = Image::new(width, height, noise).unwrap();
            let prepared = |size, evaluate| {
                let mut preprocessing = Preprocessing {
                    evaluate,
                    ..Preprocessing::new(size, vec![0.0; 3], vec![1.0; 3])
                };
                preprocessing.interpolation = filter;
                bytes(&prepare(&image, &preprocessing).unwrap())
            };
            for (evaluate, resized) in [
                (
                    EvalTransform::CenterCrop { resize },
                    shorter_side_to(&image, resize),
                ),
                (EvalTransform::SquashCrop { resize: squash }, squash),
            ] {
                if resized.iter().any(|side| *side > 4000) {
                    continue;
                }
                let found = prepared(size, evaluate);
                let whole = prepared(resized, EvalTransform::Resize);
                let starts = [0, 1].map(|axis| centred(resized[axis], size[axis]));
                for (at, found) in found.iter().enumerate() {
                    let y = (at / size[1]) as isize + starts[0];
                    let x = (at % size[1]) as isize + starts[1];
                    let inside = (0..resized[0] as isize).contains(&y)
                        && (0..resized[1] as isize).contains(&x);
                    let expected = match inside {
                        true => whole[y as usize * resized[1] + x as usize],
                        false => [0; 3],
                    };
                    let far = std::iter::zip(found, expected).map(|(a, b)| a.abs_diff(b));
                    let far = far.max().unwrap();
                    let oblong = resized[0] * resized[1] > OBLONG * size[0] * size[1];
                    // Where a box ends between two pixels, rounding decides.
                    let allowed = match (oblong, filter) {
                        (false, _) => 0,
                        (true, Interpolation::Box) => 255,
                        (true, _) => 2,
                    };
                    let sizes = format!("{width}×{height} to {resized:?}");
                    assert!(far <= allowed, "{filter:?} {sizes}: {far}");
                    if !oblong {
                        continue;
                    }
                    equal += usize::from(far == 0);
                    all += 1;
                }
            }
        }
    }
    assert!(all > 10_000);
    assert!(equal * 100 > all * 98, "{equal} of {all} are equal");
}

#[test]
fn images_are_turned_only_where_that_is_wanted() {
    let image = marked(3, 2).with_orientation(crate::image::Orientation::from_exif(6).unwrap());
    let first = |exif_orientation| {
        let preprocessing = Preprocessing {
            exif_orientation,
            ..Preprocessing::new([3, 2], vec![0.0; 3], vec![1.0; 3])
        };
        let mut preparer = Preparer::new(&preprocessing).unwrap();
        let mut input = vec![0.0; preparer.input_len()];
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        preparer.augment(&image, &mut rng, &mut input).unwrap();
        let augmented = input.clone();
        preparer.prepare(&image, &mut input).unwrap();
        assert_eq!(input, augmented);
        bytes(&input)[0]
    };
    // The lower left pixel comes to the upper left corner.
    assert_eq!(first(ExifOrientation::Apply), [1, 2, 255]);
    assert_eq!(first(ExifOrientation::Ignore)[..2], [1, 1]);
}

/// Black before normalisation, as torchvision pads, which is not zero after it.
#[test]
fn a_window_larger_than_the_image_is_black_outside() {
    let image = marked(4, 2);
    let (mean, std) = (vec![0.5, 0.25, 0.125], vec![0.25, 0.5, 1.0]);
    for evaluate in [
        EvalTransform::CenterCrop { resize: 2 },
        EvalTransform::SquashCrop { resize: [2, 4] },
    ] {
        let preprocessing = Preprocessing {
            evaluate,
            ..Preprocessing::new([4, 4], mean.clone(), std.clone())
        };
        let input = prepare(&image, &preprocessing).unwrap();
        let (shown, _) = input.as_chunks::<3>();
        let black = [-2.0, -0.5, -0.125];
        assert!(shown[..4].iter().chain(&shown[12..]).all(|p| *p == black));
        let value = |pixel: [u8; 3]| {
            let [r, g, b] = pixel.map(|byte| f32::from(byte) / 255.0);
            [(r - 0.5) / 0.25, (g - 0.25) / 0.5, b - 0.125]
        };
        assert_eq!(shown[4], value([1, 1, 255]));
        assert_eq!(shown[11], value([4, 2, 255]));
    }
}
