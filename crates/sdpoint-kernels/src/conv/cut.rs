//! How a product is cut into tasks: the grid of outputs into bands, output channels into runs
//! of units.

use std::ops::Range;

use super::gather::{Band, BandLayout, Window};
use super::tuning::{
    BAND_FLOATS, BAND_FLOATS_LARGE_WEIGHTS, GATHER_COST, LARGE_WEIGHTS_COST, ROW_FLOATS, TASK_MACS,
    TASKS_PER_THREAD, WEIGHT_FLOATS,
};

/// Tasks that keep all threads busy.
pub(super) fn wanted_tasks(threads: usize) -> usize {
    if threads > 1 {
        TASKS_PER_THREAD * threads
    } else {
        1
    }
}

/// What is to be cut.
pub(super) struct Work {
    pub window: Window,
    /// Images.
    pub batch: usize,
    /// Rows and columns of outputs.
    pub grid: [usize; 2],
    /// Channels that a band gathers.
    pub channels: usize,
    /// Multiply-accumulates for an output pixel.
    pub macs_per_pixel: usize,
    /// Floats of all weights.
    pub weights: usize,
    /// Units that tasks may share out among them.
    pub units: usize,
}

/// How a product is cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    /// Rows and columns of a band.
    pub band: [usize; 2],
    /// Bands of an image, in rows and columns.
    pub bands: [usize; 2],
    /// Tasks that share a band, each with its own units.
    pub splits: usize,
    /// Bands that a task computes.
    pub bands_per_task: usize,
}

/// A part of a product.
pub(super) struct Task {
    pub bands: Range<usize>,
    pub units: Range<usize>,
}

impl Cut {
    /// The cut that keeps the busiest thread busy for the shortest time: equal tasks, of a
    /// number that threads share evenly, that gather few inputs and bring few weights twice.
    pub fn new(work: &Work, threads: usize) -> Self {
        let &Work { batch, units, .. } = work;
        let [height, width] = work.grid;
        let floats = |[rows, columns]: [usize; 2]| {
            BandLayout::new(work.window, rows, columns).len(work.channels)
        };
        let large_weights = work.weights > WEIGHT_FLOATS;
        let limit = match (large_weights, height) {
            (true, _) => BAND_FLOATS_LARGE_WEIGHTS,
            (false, 1) => ROW_FLOATS,
            (false, _) => BAND_FLOATS,
        };
        let columns = equal_parts(width)
            .find(|&columns| columns <= 16 || floats([1, columns]) <= 2 * BAND_FLOATS)
            .unwrap_or(1);
        // A row of pixels is cut in its length, other grids between rows.
        let (length, across) = if height == 1 {
            (width, 1)
        } else {
            (height, width.div_ceil(columns))
        };
        let band = |size: usize| {
            if height == 1 {
                [1, size]
            } else {
                [size, columns]
            }
        };
        let wanted = TASKS_PER_THREAD * threads;
        let mut best: Option<(usize, usize, usize)> = None;
        let sizes = equal_parts(length)
            .filter(|&size| size == 1 || floats(band(size)) <= limit)
            .take(2 * wanted.div_ceil(batch));
        for size in sizes {
            let bands = batch * across * length.div_ceil(size);
            let [rows, columns] = band(size);
            let macs = rows * columns * work.macs_per_pixel;
            let gather = GATHER_COST * floats([rows, columns]);
            let load = if large_weights {
                LARGE_WEIGHTS_COST * work.weights
            } else {
                0
            };
            let most_splits = if threads > 1 {
                macs.div_ceil(TASK_MACS).clamp(1, units)
            } else {
                1
            };
            let mut splits = 1;
            loop {
                let tasks = bands * splits;
                let share = |cost: usize| cost * units.div_ceil(splits) / units;
                let of_thread = tasks.div_ceil(threads);
                // A thread that takes several tasks of a band gathers it once.
                let busiest = of_thread * share(macs + load) + of_thread.min(bands) * gather;
                // And threads do not work in step: the last to finish is late by a part of
                // a task, which is longer where another program holds a core.
                let late = if threads > 1 {
                    (share(macs + load) + gather) / 2
                } else {
                    0
                };
                let cost = busiest + late;
                if best.is_none_or(|(least, ..)| cost < least) {
                    best = Some((cost, size, splits));
                }
                if splits >= most_splits || tasks >= 2 * wanted {
                    break;
                }
                splits = (2 * splits).min(most_splits);
            }
        }
        let (_, size, splits) = best.unwrap_or((0, 1, 1));
        let [rows, columns] = band(size);
        let bands = [height.div_ceil(rows), width.div_ceil(columns)];
        let all_bands = batch * bands[0] * bands[1];
        let macs = rows * columns * work.macs_per_pixel;
        let bands_per_task = if splits > 1 {
            1
        } else {
            let most = TASK_MACS.div_ceil(macs).min(all_bands.div_ceil(wanted));
            // The most that leave the busiest thread the fewest.
            let of_busiest = |bands: &usize| all_bands.div_ceil(*bands).div_ceil(threads) * bands;
            (1..=most).rev().min_by_key(of_busiest).unwrap_or(1)
        };
        Cut {
            band: [rows, columns],
            bands,
            splits,
            bands_per_task,
        }
    }

    /// The cut of a row for each image of a batch into about `bands` equal ones, each split
    /// into as many tasks as keep all threads busy, at most what `most_splits` says of a band
    /// of a size: where bands follow from what caches hold rather than from costs.
    pub fn of_row(
        length: usize,
        bands: usize,
        batch: usize,
        most_splits: impl Fn(usize) -> usize,
        threads: usize,
    ) -> Self {
        let size = length.div_ceil(bands);
        let bands = length.div_ceil(size);
        Cut {
            band: [1, size],
            bands: [1, bands],
            splits: wanted_tasks(threads)
                .div_ceil(batch * bands)
                .min(most_splits(size))
                .max(1),
            bands_per_task: 1,
        }
    }

    /// Tasks for a batch.
    pub fn tasks(&self, batch: usize) -> usize {
        self.all_bands(batch).div_ceil(self.bands_per_task) * self.splits
    }

    /// What the task of this number computes, for a batch and so many units.
    pub fn task(&self, number: usize, batch: usize, units: usize) -> Task {
        let (number, part) = (number / self.splits, number % self.splits);
        let first = number * self.bands_per_task;
        Task {
            bands: first..self.all_bands(batch).min(first + self.bands_per_task),
            units: units * part / self.splits..units * (part + 1) / self.splits,
        }
    }

    /// Bands of all images.
    pub fn all_bands(&self, batch: usize) -> usize {
        batch * self.bands[0] * self.bands[1]
    }

    /// The band of this number, of a grid of outputs.
    pub fn band(&self, grid: [usize; 2], index: usize) -> Band {
        let (index, column) = (index / self.bands[1], index % self.bands[1]);
        let (image, row) = (index / self.bands[0], index % self.bands[0]);
        let span = |i: usize, size: usize, end: usize| [i * size, end.min((i + 1) * size)];
        Band {
            image,
            rows: span(row, self.band[0], grid[0]),
            columns: span(column, self.band[1], grid[1]),
        }
    }
}

/// The sizes of parts, largest first, that cut `length` into 1, 2, 3 … parts of equal size but
/// for the last.
fn equal_parts(length: usize) -> impl Iterator<Item = usize> {
    let mut size = length + 1;
    std::iter::from_fn(move || {
        if size <= 1 {
            return None;
        }
        // The fewest parts whose size is less than the last one's.
        let parts = length.div_ceil(size - 1);
        size = length.div_ceil(parts);
        Some(size)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(batch: usize, grid: [usize; 2], kernel: usize, channels: usize) -> Work {
        Work {
            window: Window {
                kernel: [kernel; 2],
                stride: [1; 2],
                origin: [0; 2],
                unrolled: None,
            },
            batch,
            grid,
            channels,
            macs_per_pixel: kernel * kernel * channels * channels,
            weights: kernel * kernel * channels * channels,
            units: channels.div_ceil(32),
        }
    }

    #[test]
    fn parts_shrink_and_cover() {
        for length in [1, 2, 7, 56, 3136] {
            let sizes: Vec<usize> = equal_parts(length).collect();
            assert_eq!((sizes[0], sizes[sizes.len() - 1]), (length, 1));
            assert!(sizes.is_sorted_by(|a, b| a > b));
        }
    }

    #[test]
    fn bands_cover_the_grid_once() {
        for (grid, kernel) in [([1, 784], 1), ([7, 7], 3), ([56, 56], 3), ([2, 300], 5)] {
            for (batch, channels, threads) in [(1, 64, 2), (1, 512, 3), (8, 512, 1), (128, 16, 2)] {
                let cut = Cut::new(&work(batch, grid, kernel, channels), threads);
                let mut seen = vec![0; batch * grid[0] * grid[1]];
                for index in 0..cut.all_bands(batch) {
                    let band = cut.band(grid, index);
                    for y in band.rows[0]..band.rows[1] {
                        for x in band.columns[0]..band.columns[1] {
                            seen[(band.image * grid[0] + y) * grid[1] + x] += 1;
                        }
                    }
                }
                assert!(seen.iter().all(|&n| n == 1), "{grid:?} {cut:?}");
            }
        }
    }

    #[test]
    fn two_threads_get_equal_shares_of_large_work() {
        for (grid, channels) in [
            ([1, 784], 512),
            ([1, 784], 128),
            ([1, 196], 256),
            ([1, 49], 2048),
            ([14, 14], 512),
        ] {
            let cut = Cut::new(&work(1, grid, 1, channels), 2);
            let tasks = cut.tasks(1);
            assert!(tasks >= 4 && tasks.is_multiple_of(2), "{grid:?} {cut:?}");
        }
    }

    #[test]
    fn large_weights_are_not_loaded_for_each_row() {
        // 8 MB of weights for a map of 7 rows.
        let cut = Cut::new(&work(1, [7, 7], 3, 512), 2);
        assert_eq!(cut.bands, [1, 1]);
    }
}
