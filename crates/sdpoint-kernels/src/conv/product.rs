//! The implicit matrix product that forward and backward-to-data passes are: gathered pixels
//! times packed weights, cut into tasks.

use rten_simd::{Isa, SimdOp};

use super::epilogue::Finish;
use super::gather::{BLOCK, Band, BandLayout, Source, Taps, Window, gather};
use super::microkernel::{Ahead, Tile, max_pixels, run_tile};
use super::pack::{BlockedLayout, PackedWeights};
use super::{depthwise, winograd};
use crate::context::Context;
use crate::scratch::Scratch;
use crate::shared_mut::SharedMut;

/// Floats of a band's gathered copy: about half of a core's second-level cache, for the
/// weights of an output block need the rest.
const BAND_FLOATS: usize = 64 * 1024;

/// Multiply-accumulates under which a task is not worth a thread's while.
pub(super) const TASK_MACS: usize = 1 << 20;

/// Tasks for each thread, so that threads that start late or run slower find the others'
/// work still divided.
pub(super) const TASKS_PER_THREAD: usize = 4;

/// Where the grid's outputs lie in the output tensor, in floats.
#[derive(Clone, Copy, Debug)]
pub(super) struct OutputLayout {
    pub offset: usize,
    pub image: usize,
    pub row: usize,
    pub pixel: usize,
}

/// A grid of outputs to compute for each image.
pub(super) struct Product<'a> {
    pub source: Source<'a>,
    pub window: Window,
    pub weights: &'a PackedWeights,
    pub batch: usize,
    /// Rows and columns of the grid.
    pub grid: [usize; 2],
    pub output: SharedMut<'a, f32>,
    pub layout: OutputLayout,
    /// Whether to add to the output rather than replace it.
    pub accumulate: bool,
    pub finish: Finish<'a>,
}

/// How a product is cut: the grid into bands, output channels into runs of blocks.
pub(super) struct Cut {
    /// Rows and columns of a band.
    pub band: [usize; 2],
    /// Bands of an image, in rows and columns.
    pub bands: [usize; 2],
    /// Tasks that share a band, each with its own output blocks.
    splits: usize,
    /// Bands that a task computes.
    bands_per_task: usize,
}

impl Product<'_> {
    /// Computes the product; the path depends on the shape alone, so that threads do not
    /// change the result.
    pub fn run(&self, ctx: &Context) {
        let [height, width] = self.grid;
        if self.batch == 0 || height == 0 || width == 0 {
            return;
        }
        if let Some(depthwise) = &self.weights.depthwise {
            return depthwise::run(ctx, self, depthwise);
        }
        if let Some(transformed) = &self.weights.transformed
            && winograd::fits(self.batch, self.grid)
        {
            return winograd::run(ctx, self, transformed);
        }
        let cut = self.cut(ctx.threads());
        let layout = BandLayout::new(self.window, cut.band[0], cut.band[1]);
        let taps = Taps::new(&layout);
        let units = self.weights.layout.units();
        let bands = self.batch * cut.bands[0] * cut.bands[1];
        let tasks = bands.div_ceil(cut.bands_per_task) * cut.splits;
        let BlockedLayout {
            groups, group_in, ..
        } = self.weights.layout;
        let groups_len = groups * layout.len(group_in);
        ctx.parallel_with(
            tasks,
            || State {
                scratch: ctx.scratch(groups_len),
                gathered: None,
            },
            |state, task| {
                let first = task / cut.splits * cut.bands_per_task;
                let part = task % cut.splits;
                let units = units * part / cut.splits..units * (part + 1) / cut.splits;
                for index in first..bands.min(first + cut.bands_per_task) {
                    ctx.dispatch(RunBand {
                        product: self,
                        layout: &layout,
                        taps: &taps,
                        band: self.band(&cut, index),
                        units: units.clone(),
                        state,
                    });
                }
            },
        );
    }

    pub fn band(&self, cut: &Cut, index: usize) -> Band {
        let (index, column) = (index / cut.bands[1], index % cut.bands[1]);
        let (image, row) = (index / cut.bands[0], index % cut.bands[0]);
        let span = |i: usize, size: usize, end: usize| [i * size, end.min((i + 1) * size)];
        Band {
            image,
            rows: span(row, cut.band[0], self.grid[0]),
            columns: span(column, cut.band[1], self.grid[1]),
        }
    }

    pub fn cut(&self, threads: usize) -> Cut {
        let [height, width] = self.grid;
        let weights = &self.weights.layout;
        let channels = weights.groups * weights.group_in.next_multiple_of(BLOCK);
        let floats =
            |rows: usize, columns: usize| BandLayout::new(self.window, rows, columns).len(channels);
        let largest = |end: usize, fits: &dyn Fn(usize) -> bool| {
            let size = (1..=end).rev().find(|&size| fits(size)).unwrap_or(1);
            // Equal parts rather than full ones and a rest.
            end.div_ceil(end.div_ceil(size))
        };
        let wanted = (TASKS_PER_THREAD * threads).div_ceil(self.batch);
        // Bands this low would copy more rows of their neighbours than of their own.
        let lowest = 2 * (self.window.kernel[0] - 1) / self.window.stride[0];
        let columns = if height == 1 {
            // A row of pixels without neighbours: whole tiles.
            let pixels = (BAND_FLOATS / channels).min(width.div_ceil(wanted));
            width.min(pixels.next_multiple_of(56))
        } else {
            largest(width, &|columns| {
                columns <= 16 || floats(1, columns) <= 2 * BAND_FLOATS
            })
        };
        let rows = largest(height, &|rows| floats(rows, columns) <= BAND_FLOATS);
        let rows = if threads > 1 {
            rows.min(height.div_ceil(wanted).max(lowest))
        } else {
            rows
        };
        let rows = rows.clamp(1, height);
        let bands = [height.div_ceil(rows), width.div_ceil(columns)];

        let all_bands = self.batch * bands[0] * bands[1];
        let units = weights.units();
        let wanted = TASKS_PER_THREAD * threads;
        let macs = rows * columns * weights.macs_per_pixel();
        let splits = if threads == 1 {
            1
        } else {
            wanted
                .div_ceil(all_bands)
                .min(macs.div_ceil(TASK_MACS))
                .clamp(1, units)
        };
        let bands_per_task = if splits > 1 {
            1
        } else {
            TASK_MACS
                .div_ceil(macs)
                .min(all_bands.div_ceil(wanted))
                .max(1)
        };
        Cut {
            band: [rows, columns],
            bands,
            splits,
            bands_per_task,
        }
    }
}

/// What a thread keeps from one task to the next.
struct State<'a> {
    scratch: Scratch<'a>,
    /// The band and groups whose pixels are in `scratch`.
    gathered: Option<(Band, [usize; 2])>,
}

struct RunBand<'a, 'b> {
    product: &'a Product<'a>,
    layout: &'a BandLayout,
    taps: &'a [usize],
    band: Band,
    /// Which output blocks, counted over all groups.
    units: std::ops::Range<usize>,
    state: &'a mut State<'b>,
}

impl SimdOp for RunBand<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let RunBand {
            product,
            layout,
            taps,
            band,
            units,
            state,
        } = self;
        let weights = &product.weights.layout;
        let blocks = weights.blocks();
        let groups = [units.start / blocks, units.end.div_ceil(blocks)];
        let group_len = layout.len(weights.group_in);
        if state.gathered != Some((band, groups)) {
            state.gathered = Some((band, groups));
            let group_in = weights.group_in;
            // Groups that fill their channel blocks lie side by side like one.
            let (calls, channels) = if group_in.is_multiple_of(BLOCK) {
                (1, (groups[1] - groups[0]) * group_in)
            } else {
                (groups[1] - groups[0], group_in)
            };
            for call in 0..calls {
                let first = groups[0] * group_in + call * channels;
                let out = &mut state.scratch[call * group_len..];
                gather(isa, &product.source, layout, &band, first, channels, out);
            }
        }
        for unit in units.clone() {
            let next = if unit + 1 < units.end {
                product.weights.unit(unit + 1)
            } else {
                &[]
            };
            let (group, block) = weights.unit(unit);
            let input = &state.scratch[(group - groups[0]) * group_len..][..group_len];
            match block.vectors {
                1 => run_block::<I, 1>(isa, product, layout, taps, &band, unit, next, input),
                _ => run_block::<I, 2>(isa, product, layout, taps, &band, unit, next, input),
            }
        }
    }
}

#[inline(always)]
fn run_block<I: Isa, const V: usize>(
    isa: I,
    product: &Product<'_>,
    layout: &BandLayout,
    taps: &[usize],
    band: &Band,
    unit: usize,
    next: &[f32],
    input: &[f32],
) {
    let weights = &product.weights.layout;
    let (group, block) = weights.unit(unit);
    let packed = product.weights.unit(unit);
    let out = &product.layout;
    let first_channel = group * weights.group_out + block.first;
    let tiles = band.width().div_ceil(max_pixels::<I>(V));
    for row in 0..band.height() {
        for tile in 0..tiles {
            let [start, end] = [tile, tile + 1].map(|t| band.width() * t / tiles);
            let at = out.offset
                + band.image * out.image
                + (band.rows[0] + row) * out.row
                + (band.columns[0] + start) * out.pixel
                + first_channel;
            // SAFETY: `input` holds the band for which `layout` gives addresses; the outputs
            // are this task's alone, and `Product`'s makers assert that they lie in the
            // output tensor, which residual and second output equal in length.
            unsafe {
                run_tile::<I, V>(
                    isa,
                    end - start,
                    &Tile {
                        input: input.as_ptr().add(row * layout.row + start * BLOCK),
                        plane: layout.plane,
                        taps,
                        channels: weights.group_in,
                        weights: packed.as_ptr(),
                        output: product.output.as_ptr().add(at),
                        output_step: out.pixel,
                        output_channels: block.channels,
                        accumulate: product.accumulate,
                        ahead: Ahead::of(next, row * tiles + tile, weights.group_in * taps.len()),
                        finish: &product.finish,
                        at,
                        channel: first_channel,
                    },
                );
            }
        }
    }
}
