//! Random erasing and cutout, on normalised images, where zero is the mean
//! colour.

use std::ops::Range;

use rand::{Rng, RngExt};

use crate::transform::CHANNELS;

/// Erases a rectangle with this probability. Its share of the image is uniform
/// from 2 to 33 %, its ratio of height to width log-uniform from 0.3 to 3.3;
/// after ten draws that do not fit, nothing is erased.
pub fn random_erasing(
    input: &mut [f32],
    [height, width]: [usize; 2],
    probability: f64,
    rng: &mut impl Rng,
) {
    const DRAWS: usize = 10;
    const AREA: [f64; 2] = [0.02, 0.33];
    const ASPECT: [f64; 2] = [0.3, 3.3];
    if rng.random::<f64>() >= probability {
        return;
    }
    for _ in 0..DRAWS {
        let share = AREA[0] + (AREA[1] - AREA[0]) * rng.random::<f64>();
        let [low, high] = ASPECT.map(libm::log);
        let aspect = libm::exp(low + (high - low) * rng.random::<f64>());
        let area = share * (height * width) as f64;
        let rows = (area * aspect).sqrt().round_ties_even() as usize;
        let columns = (area / aspect).sqrt().round_ties_even() as usize;
        if rows < height && columns < width {
            let top = rng.random_range(0..=(height - rows) as u32) as usize;
            let left = rng.random_range(0..=(width - columns) as u32) as usize;
            fill(input, width, top..top + rows, left..left + columns);
            return;
        }
    }
}

/// Erases a square whose centre is any pixel; what lies outside of the image is
/// cut off.
pub fn cutout(input: &mut [f32], [height, width]: [usize; 2], side: usize, rng: &mut impl Rng) {
    let mut range = |len: usize| {
        let centre = rng.random_range(0..len as u32) as usize;
        let start = centre.saturating_sub(side / 2);
        start..(centre + side - side / 2).min(len)
    };
    let (rows, columns) = (range(height), range(width));
    fill(input, width, rows, columns);
}

fn fill(input: &mut [f32], width: usize, rows: Range<usize>, columns: Range<usize>) {
    for line in input
        .chunks_exact_mut(width * CHANNELS)
        .take(rows.end)
        .skip(rows.start)
    {
        line[columns.start * CHANNELS..columns.end * CHANNELS].fill(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Use, stream};

    /// The erased pixels of an image of ones: their number and their bounds.
    fn erased(input: &[f32], width: usize) -> Option<(usize, [usize; 2], [usize; 2])> {
        let (pixels, _) = input.as_chunks::<CHANNELS>();
        assert!(pixels.iter().all(|p| p == &[0.0; 3] || p == &[1.0; 3]));
        let gone = || (0..pixels.len()).filter(|&i| pixels[i] == [0.0; 3]);
        let rows = [
            gone().map(|i| i / width).min()?,
            gone().map(|i| i / width).max()?,
        ];
        let columns = [
            gone().map(|i| i % width).min()?,
            gone().map(|i| i % width).max()?,
        ];
        Some((gone().count(), rows, columns))
    }

    #[test]
    fn a_rectangle_is_erased_as_often_as_it_should_be() {
        let size = [20, 30];
        let mut times = 0;
        for index in 0..1000 {
            let mut input = vec![1.0; 600 * CHANNELS];
            let mut rng = stream(Use::Augmentation, 1, 2, index);
            random_erasing(&mut input, size, 0.25, &mut rng);
            if let Some((count, rows, columns)) = erased(&input, 30) {
                let sides = [rows, columns].map(|[from, to]| to + 1 - from);
                assert_eq!(count, sides[0] * sides[1], "a full rectangle");
                assert!((6..=230).contains(&count), "{count}");
                times += 1;
            }
        }
        assert!((190..310).contains(&times), "{times}");
    }

    #[test]
    fn a_square_is_cut_out_and_cut_off_at_the_border() {
        let mut sizes = std::collections::BTreeSet::new();
        for index in 0..500 {
            let mut input = vec![1.0; 12 * 10 * CHANNELS];
            let mut rng = stream(Use::Augmentation, 1, 2, index);
            cutout(&mut input, [12, 10], 4, &mut rng);
            let (count, rows, columns) = erased(&input, 10).expect("the centre is inside");
            let sides = [rows, columns].map(|[from, to]| to + 1 - from);
            assert_eq!(count, sides[0] * sides[1]);
            sizes.insert(count);
        }
        assert_eq!(sizes.last(), Some(&16));
        assert_eq!(sizes.first(), Some(&4));
        // A square that is larger than the image erases all of it.
        let mut input = vec![1.0; 6 * CHANNELS];
        cutout(
            &mut input,
            [2, 3],
            100,
            &mut stream(Use::Augmentation, 0, 0, 0),
        );
        assert_eq!(erased(&input, 3).unwrap().0, 6);
    }
}
