//! Divides the pixels of a strip into tiles, one register block each.

use rten_simd::Isa;

use super::addresses::Pixels;
use super::gather::{BLOCK, Strip};
use super::tuning::{MAX_PIXELS, max_pixels};
use crate::isa::Registers;

/// A division of a strip into tiles of about equal size.
pub(super) struct Tiling {
    /// Rows and columns of the strip.
    size: [usize; 2],
    /// As for [`Tiling::new`].
    strides: [[usize; 2]; 2],
    /// The most pixels of a tile.
    most: usize,
    /// Rows of a tile, one or two; `None` if a tile may begin and end anywhere in a row and
    /// continue on the next.
    rows: Option<usize>,
}

/// The pixels of a tile.
pub(super) struct TilePixels {
    pub count: usize,
    /// As for [`Tiling`]; the last tile of a strip may have one row where the others have two.
    rows: Option<usize>,
    /// Offsets in input and output, from the strip's first pixel, of the origin of the tile's
    /// pixels: its first pixel if it has `rows`; otherwise the strip's, and so zero.
    pub first: [usize; 2],
    /// Offsets of each pixel from that origin, if the tile has no `rows`.
    places: [[usize; 2]; MAX_PIXELS],
}

impl Tiling {
    /// Tiles of a strip for panels of `vectors` vectors. `strides` are those between rows and
    /// between pixels, first of the input and then of the output, in floats.
    #[inline(always)]
    pub fn new<I: Isa>(strip: &Strip, strides: [[usize; 2]; 2], vectors: usize) -> Self {
        let most = max_pixels(Registers::of::<I>(), vectors);
        Tiling {
            size: [strip.height(), strip.width()],
            strides,
            most,
            rows: Registers::are_32::<I>().then(|| {
                let two = vectors > 1 && strides[0][1] == BLOCK && 2 * strip.width() <= most;
                1 + usize::from(two)
            }),
        }
    }

    /// What is divided into tiles, a run of pixels: the length of a run, and the number of runs. A
    /// run is a row, a pair of rows (whose length is that of one), or the whole strip.
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
            self.strides
                .map(|[row_stride, stride]| row * row_stride + column * stride)
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
    /// The pixels in the form that their addresses are computed from; `strides` are those of their
    /// [`Tiling`].
    #[inline(always)]
    pub fn pixels(&self, strides: [[usize; 2]; 2]) -> Pixels<'_> {
        let [[input_row, input], [output_row, output]] = strides;
        match self.rows {
            Some(1) => Pixels::Row { input, output },
            Some(_) => Pixels::TwoRows {
                input_row,
                output_row,
                output,
            },
            None => Pixels::Scattered(&self.places),
        }
    }
}
