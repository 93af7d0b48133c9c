//! Comparison with results of Pillow 13, recorded from `Image.resize`.

use super::*;

/// Black and white pixels without a pattern, where filters overshoot.
fn speckled([height, width]: [usize; 2]) -> Image {
    let white = |at: usize| {
        let (x, y) = (at % width, at / width);
        (x * 7 + y * 13 + x * y * 5) % 11 < 5
    };
    let pixels = (0..width * height).flat_map(|at| [if white(at) { 255 } else { 0 }; 3]);
    Image::new(width, height, pixels.collect()).unwrap()
}

/// The red values of a resized image.
fn resized(image: &Image, filter: Interpolation, size: [usize; 2]) -> Vec<u8> {
    let all = [0..size[0], 0..size[1]];
    let mut resizer = Resizer::new(filter);
    let shown = resizer.show(image, whole(image), size, all, usize::MAX);
    shown.unwrap().rows().flatten().map(|p| p[0]).collect()
}

#[test]
fn filters_are_pillows() {
    type Case = (Interpolation, [usize; 2], [usize; 2], &'static [u8]);
    let cases: [Case; 7] = [
        (
            Interpolation::Bicubic,
            [11, 13],
            [7, 8],
            &[
                197, 177, 7, 88, 17, 127, 236, 172, 159, 82, 76, 70, 79, 102, 141, 133, 43, 52, 63,
                68, 17, 61, 56, 64, 47, 36, 55, 86, 183, 248, 176, 48, 203, 50, 55, 151, 188, 106,
                87, 180, 64, 194, 61, 151, 192, 23, 111, 76, 104, 246, 70, 94, 137, 139, 14, 152,
            ],
        ),
        (
            Interpolation::Lanczos,
            [11, 13],
            [7, 8],
            &[
                203, 180, 14, 89, 18, 130, 243, 184, 155, 77, 80, 58, 73, 99, 148, 127, 36, 53, 64,
                70, 22, 60, 41, 62, 45, 49, 60, 79, 181, 255, 183, 51, 197, 46, 55, 141, 207, 95,
                91, 176, 68, 207, 53, 165, 197, 9, 113, 76, 100, 252, 71, 100, 135, 155, 14, 151,
            ],
        ),
        (
            Interpolation::Bicubic,
            [5, 7],
            [6, 9],
            &[
                255, 57, 101, 229, 0, 0, 169, 198, 0, 255, 225, 240, 226, 0, 0, 26, 29, 0, 255,
                166, 109, 116, 172, 22, 92, 119, 0, 154, 28, 0, 16, 159, 20, 93, 119, 0, 0, 37, 33,
                4, 39, 5, 23, 29, 0, 0, 198, 154, 33, 255, 33, 154, 198, 0,
            ],
        ),
        (
            Interpolation::Lanczos,
            [11, 13],
            [4, 13],
            &[
                252, 93, 182, 61, 0, 147, 0, 63, 56, 154, 160, 252, 93, 35, 83, 0, 138, 0, 107, 45,
                81, 146, 115, 124, 35, 83, 164, 85, 37, 122, 0, 92, 255, 160, 146, 137, 115, 164,
                85, 17, 201, 252, 143, 0, 121, 172, 166, 56, 78, 55, 17, 201,
            ],
        ),
        (
            Interpolation::Box,
            [11, 13],
            [11, 5],
            &[
                170, 0, 85, 128, 170, 255, 0, 0, 128, 255, 85, 128, 170, 128, 85, 0, 0, 0, 0, 0,
                85, 128, 85, 128, 170, 0, 0, 170, 255, 85, 85, 128, 85, 255, 85, 170, 0, 255, 0,
                170, 85, 128, 170, 0, 85, 170, 0, 170, 128, 85, 170, 128, 85, 128, 85,
            ],
        ),
        (
            Interpolation::Hamming,
            [11, 13],
            [4, 5],
            &[
                173, 60, 49, 130, 193, 58, 64, 68, 102, 74, 111, 64, 179, 132, 133, 144, 99, 147,
                95, 80,
            ],
        ),
        (
            Interpolation::Bilinear,
            [5, 7],
            [3, 9],
            &[
                255, 158, 174, 198, 0, 0, 81, 97, 0, 198, 104, 57, 76, 142, 32, 79, 95, 0, 0, 97,
                81, 32, 146, 32, 81, 97, 0,
            ],
        ),
    ];
    for (filter, from, to, expected) in cases {
        let found = resized(&speckled(from), filter, to);
        let far = std::iter::zip(&found, expected).map(|(a, b)| a.abs_diff(*b));
        // The weights have 16 bits here.
        assert!(
            far.max().unwrap() <= 1,
            "{filter:?} {from:?} to {to:?}: {found:?}"
        );
    }
}

/// Centres that lie between two pixels are decided by Pillow's rounding.
#[test]
fn nearest_is_pillows() {
    let cases: [(usize, &[u8]); 4] = [
        (
            24,
            &[
                0, 1, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 16, 17, 18, 19, 20, 22, 23,
            ],
        ),
        (
            48,
            &[
                1, 3, 6, 8, 10, 13, 15, 18, 20, 22, 25, 27, 29, 32, 34, 37, 39, 41, 44, 46,
            ],
        ),
        (
            23,
            &[
                0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14, 15, 16, 17, 18, 20, 21, 22,
            ],
        ),
        (3, &[0, 0, 1, 1, 1, 2, 2]),
    ];
    for (from, expected) in cases {
        let row: Vec<u8> = (0..from).flat_map(|x| [x as u8; 3]).collect();
        let image = Image::new(from, 1, row).unwrap();
        let found = resized(&image, Interpolation::Nearest, [1, expected.len()]);
        assert_eq!(found, expected, "{from}");
    }
}
