//! How the pixels of a band are cut into register blocks, called tiles.

use rten_simd::Isa;

use super::addresses::Pixels;
use super::gather::{BLOCK, Band};
use super::tuning::{MAX_PIXELS, VECTORS, max_pixels};
use crate::isa::Registers;

/// How a band is cut into tiles of about equal size.
pub(super) struct Tiling {
    /// Rows and columns of the band.
    size: [usize; 2],
    /// How far apart rows and pixels are in the input, and in the output.
    steps: [[usize; 2]; 2],
    /// The most pixels of a tile.
    most: usize,
    /// From how many neighbouring rows a tile's pixels are, one or two, if not from anywhere.
    rows: Option<usize>,
}

/// The pixels of a tile.
pub(super) struct TilePixels {
    pub count: usize,
    /// In how many rows they lie, if not anywhere.
    rows: Option<usize>,
    /// The first pixel's place in input and output if they lie in rows, and otherwise the
    /// band's.
    pub first: [usize; 2],
    /// How far from there all are, if not in rows.
    places: [[usize; 2]; MAX_PIXELS],
}

impl Tiling {
    /// Tiles of a band for output blocks of this many vectors; `steps` says how far apart rows
    /// and pixels are in the input, and in the output.
    #[inline(always)]
    pub fn new<I: Isa>(band: &Band, steps: [[usize; 2]; 2], vectors: usize) -> Self {
        let most = max_pixels(Registers::of::<I>(), vectors);
        Tiling {
            size: [band.height(), band.width()],
            steps,
            most,
            rows: Registers::are_32::<I>().then(|| {
                let two = vectors == VECTORS && steps[0][1] == BLOCK && 2 * band.width() <= most;
                1 + usize::from(two)
            }),
        }
    }

    /// The pixels that tiles share, those of further rows aside, and how many share them.
    fn runs(&self) -> [usize; 2] {
        let [height, width] = self.size;
        match self.rows {
            Some(rows) => [width, height.div_ceil(rows)],
            None => [height * width, 1],
        }
    }

    fn tiles_of_run(&self) -> usize {
        self.runs()[0].div_ceil(self.most)
    }

    pub fn tiles(&self) -> usize {
        self.runs()[1] * self.tiles_of_run()
    }

    #[inline(always)]
    pub fn tile(&self, number: usize) -> TilePixels {
        let [pixels, _] = self.runs();
        let tiles = self.tiles_of_run();
        let (run, tile) = (number / tiles, number % tiles);
        let [start, end] = [tile, tile + 1].map(|t| pixels * t / tiles);
        let place = |row: usize, column: usize| {
            self.steps
                .map(|[row_step, step]| row * row_step + column * step)
        };
        let mut tile = TilePixels {
            count: end - start,
            rows: None,
            first: [0; 2],
            places: [[0; 2]; MAX_PIXELS],
        };
        if let Some(rows) = self.rows {
            let rows_here = rows.min(self.size[0] - run * rows);
            tile.rows = Some(rows_here);
            tile.count *= rows_here;
            tile.first = place(run * rows, start);
        } else {
            let [mut row, mut column] = [start / self.size[1], start % self.size[1]];
            for to in &mut tile.places[..end - start] {
                *to = place(row, column);
                column += 1;
                if column == self.size[1] {
                    (row, column) = (row + 1, 0);
                }
            }
        }
        tile
    }
}

impl TilePixels {
    /// Their addresses, by the steps of their [`Tiling`].
    #[inline(always)]
    pub fn pixels(&self, steps: [[usize; 2]; 2]) -> Pixels<'_> {
        let [[input_row, input], [output_row, output]] = steps;
        match self.rows {
            Some(1) => Pixels::Row { input, output },
            Some(_) => Pixels::TwoRows {
                input_row,
                output_row,
                output,
            },
            None => Pixels::Scattered(&self.places[..self.count]),
        }
    }
}
