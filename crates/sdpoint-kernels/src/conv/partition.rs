//! Partitions a product into tasks: the grid of outputs into strips, and the output channels into
//! ranges of panels.

use std::ops::Range;

use super::gather::{ConvWindow, Strip, StripLayout};
use super::tuning::{
    GATHER_COST, LARGE_WEIGHTS_COST, ROW_FLOATS, STRIP_FLOATS, STRIP_FLOATS_LARGE_WEIGHTS,
    TASK_MACS, TASKS_PER_THREAD, WEIGHT_FLOATS,
};

/// The number of tasks that keeps all threads busy: several per thread, see [`TASKS_PER_THREAD`].
pub(super) fn wanted_tasks(threads: usize) -> usize {
    if threads > 1 {
        TASKS_PER_THREAD * threads
    } else {
        1
    }
}

/// The work to partition.
pub(super) struct Work {
    pub window: ConvWindow,
    /// Images.
    pub batch: usize,
    /// Rows and columns of outputs.
    pub grid: [usize; 2],
    /// Input channels that are gathered per pixel.
    pub channels: usize,
    /// Multiply-accumulates per output pixel.
    pub macs_per_pixel: usize,
    /// Floats of all weights.
    pub weights: usize,
    /// Weight panels, which the tasks of one strip may divide among themselves.
    pub panels: usize,
}

/// A partition of a product into tasks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Partition {
    /// Rows and columns of outputs of a strip.
    pub strip: [usize; 2],
    /// Numbers of strips of an image along rows and columns.
    pub strips: [usize; 2],
    /// Tasks per strip, among which its panels are divided.
    pub splits: usize,
    /// Strips per task; more than 1 only if `splits` is 1.
    pub strips_per_task: usize,
}

/// The strips and panels of one task.
pub(super) struct Task {
    pub strips: Range<usize>,
    pub panels: Range<usize>,
}

impl Partition {
    /// The partition whose busiest thread finishes first, by a model of the cost: the
    /// multiply-accumulates, plus [`GATHER_COST`] for each gathered float, plus
    /// [`LARGE_WEIGHTS_COST`] for each float of weights loaded from beyond L2. It favours equal
    /// tasks whose number is a multiple of the number of threads, few inputs gathered twice, and
    /// few weights loaded twice.
    ///
    /// Tries strips of decreasing size, from the largest whose gathered inputs fit in the cache,
    /// and for each size numbers of splits that double, until there are about twice as many tasks
    /// as wanted.
    pub fn new(work: &Work, threads: usize) -> Self {
        let &Work { batch, panels, .. } = work;
        let [height, width] = work.grid;
        let floats = |[rows, columns]: [usize; 2]| {
            StripLayout::new(work.window, rows, columns).len(work.channels)
        };
        let large_weights = work.weights > WEIGHT_FLOATS;
        let limit = match (large_weights, height) {
            (true, _) => STRIP_FLOATS_LARGE_WEIGHTS,
            (false, 1) => ROW_FLOATS,
            (false, _) => STRIP_FLOATS,
        };
        // Whole rows of outputs, unless the inputs of one exceed half of L2. 16 columns, little
        // more than a tile, are never divided.
        let columns = equal_parts(width)
            .find(|&columns| columns <= 16 || floats([1, columns]) <= 2 * STRIP_FLOATS)
            .unwrap_or(1);
        // A grid of one row is partitioned along the row, others between rows.
        let (length, across) = if height == 1 {
            (width, 1)
        } else {
            (height, width.div_ceil(columns))
        };
        let strip = |size: usize| {
            if height == 1 {
                [1, size]
            } else {
                [size, columns]
            }
        };
        let wanted = TASKS_PER_THREAD * threads;
        let mut best: Option<(usize, usize, usize)> = None;
        let sizes = equal_parts(length)
            .filter(|&size| size == 1 || floats(strip(size)) <= limit)
            .take(2 * wanted.div_ceil(batch));
        for size in sizes {
            let strips = batch * across * length.div_ceil(size);
            let [rows, columns] = strip(size);
            let macs = rows * columns * work.macs_per_pixel;
            let gather = GATHER_COST * floats([rows, columns]);
            let load = if large_weights {
                LARGE_WEIGHTS_COST * work.weights
            } else {
                0
            };
            let most_splits = if threads > 1 {
                macs.div_ceil(TASK_MACS).clamp(1, panels)
            } else {
                1
            };
            let mut splits = 1;
            loop {
                let tasks = strips * splits;
                // Of a cost that is proportional to the panels, the largest share of a split.
                let share = |cost: usize| cost * panels.div_ceil(splits) / panels;
                let of_thread = tasks.div_ceil(threads);
                // A thread that runs several tasks of a strip gathers its inputs once.
                let busiest = of_thread * share(macs + load) + of_thread.min(strips) * gather;
                // Threads do not run in step: the last one finishes late by a fraction of a task,
                // more so if another program occupies its core.
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
        let [rows, columns] = strip(size);
        let strips = [height.div_ceil(rows), width.div_ceil(columns)];
        let all_strips = batch * strips[0] * strips[1];
        let macs = rows * columns * work.macs_per_pixel;
        // Strips too small to be worth waking a thread for are combined.
        let strips_per_task = if splits > 1 {
            1
        } else {
            let most = TASK_MACS.div_ceil(macs).min(all_strips.div_ceil(wanted));
            // Of the numbers that give the busiest thread the fewest strips, the largest.
            let of_busiest =
                |strips: &usize| all_strips.div_ceil(*strips).div_ceil(threads) * strips;
            (1..=most).rev().min_by_key(of_busiest).unwrap_or(1)
        };
        Partition {
            strip: [rows, columns],
            strips,
            splits,
            strips_per_task,
        }
    }

    /// A partition of one row per image into about `strips` equal strips, each split into as many
    /// tasks as keep all threads busy, but at most `most_splits(strip length)`. For algorithms that
    /// choose the size of their strips themselves rather than by the model of costs.
    pub fn of_row(
        length: usize,
        strips: usize,
        batch: usize,
        most_splits: impl Fn(usize) -> usize,
        threads: usize,
    ) -> Self {
        let size = length.div_ceil(strips);
        let strips = length.div_ceil(size);
        Partition {
            strip: [1, size],
            strips: [1, strips],
            splits: wanted_tasks(threads)
                .div_ceil(batch * strips)
                .min(most_splits(size))
                .max(1),
            strips_per_task: 1,
        }
    }

    /// The number of tasks for a batch.
    pub fn tasks(&self, batch: usize) -> usize {
        self.all_strips(batch).div_ceil(self.strips_per_task) * self.splits
    }

    /// The strips and panels of task `number`, for a batch and a number of panels. The tasks of one
    /// strip follow one another, so that a thread that runs several gathers its inputs once.
    pub fn task(&self, number: usize, batch: usize, panels: usize) -> Task {
        let (number, part) = (number / self.splits, number % self.splits);
        let first = number * self.strips_per_task;
        Task {
            strips: first..self.all_strips(batch).min(first + self.strips_per_task),
            panels: panels * part / self.splits..panels * (part + 1) / self.splits,
        }
    }

    /// The number of strips of all images.
    pub fn all_strips(&self, batch: usize) -> usize {
        batch * self.strips[0] * self.strips[1]
    }

    /// Strip `index` of a grid of outputs.
    pub fn strip(&self, grid: [usize; 2], index: usize) -> Strip {
        let (index, column) = (index / self.strips[1], index % self.strips[1]);
        let (image, row) = (index / self.strips[0], index % self.strips[0]);
        let span = |i: usize, size: usize, end: usize| [i * size, end.min((i + 1) * size)];
        Strip {
            image,
            rows: span(row, self.strip[0], grid[0]),
            columns: span(column, self.strip[1], grid[1]),
        }
    }
}

/// The sizes, in decreasing order and each once, of the parts that result from dividing `length`
/// into 1, 2, 3 … parts of equal size, except for the last.
fn equal_parts(length: usize) -> impl Iterator<Item = usize> {
    let mut size = length + 1;
    std::iter::from_fn(move || {
        if size <= 1 {
            return None;
        }
        // The fewest parts whose size is less than the previous one.
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
            window: ConvWindow {
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
            panels: channels.div_ceil(32),
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
    fn strips_cover_the_grid_once() {
        for (grid, kernel) in [([1, 784], 1), ([7, 7], 3), ([56, 56], 3), ([2, 300], 5)] {
            for (batch, channels, threads) in [(1, 64, 2), (1, 512, 3), (8, 512, 1), (128, 16, 2)] {
                let partition = Partition::new(&work(batch, grid, kernel, channels), threads);
                let mut seen = vec![0; batch * grid[0] * grid[1]];
                for index in 0..partition.all_strips(batch) {
                    let strip = partition.strip(grid, index);
                    for y in strip.rows[0]..strip.rows[1] {
                        for x in strip.columns[0]..strip.columns[1] {
                            seen[(strip.image * grid[0] + y) * grid[1] + x] += 1;
                        }
                    }
                }
                assert!(seen.iter().all(|&n| n == 1), "{grid:?} {partition:?}");
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
            let partition = Partition::new(&work(1, grid, 1, channels), 2);
            let tasks = partition.tasks(1);
            assert!(
                tasks >= 4 && tasks.is_multiple_of(2),
                "{grid:?} {partition:?}"
            );
        }
    }

    #[test]
    fn large_weights_are_not_loaded_for_each_row() {
        // 8 MB of weights for a map of 7 rows.
        let partition = Partition::new(&work(1, [7, 7], 3, 512), 2);
        assert_eq!(partition.strips, [1, 1]);
    }
}
