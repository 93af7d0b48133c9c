//! The micro-kernel of gradients of weights. Its register block is a tile of some input channels
//! (rows) times the output channels of a panel, whose sums stay in registers while the products of
//! a run of pixels are added: of the input channels, broadcast, and vectors of output gradients.

use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp};

use super::compiler::keep_order;
use super::layout::{BlockedLayout, OutputBlock};
use super::prefetch::LoopPrefetch;
use super::tuning::{MAX_ROWS, max_rows};
use crate::array::array;
use crate::context::Context;
use crate::isa::Registers;

/// A run of pixels, whose products are added between loading and storing the sums.
#[derive(Clone, Copy)]
pub(super) struct Run {
    /// The first pixel's first channel at the first tap.
    pub input: *const f32,
    /// Strides between images, rows and pixels.
    pub input_strides: [usize; 3],
    /// The gradient of the first pixel, at the panel's first output channel.
    pub gradient: *const f32,
    /// Strides between images, rows and pixels.
    pub gradient_strides: [usize; 3],
    /// Numbers of images, rows and columns.
    pub pixels: [usize; 3],
}

/// Where the inputs of a run's taps and channels are, as distances in floats from [`Run::input`].
#[derive(Clone, Copy)]
pub(super) struct RunInputs<'a> {
    /// Between channel blocks.
    pub plane: usize,
    /// From the first tap to each.
    pub taps: &'a [usize],
}

/// Adds the products of a run's inputs and gradients to the sums of a panel of `layout`, whose
/// output channels are `block`. Prefetches `next` meanwhile.
///
/// # Safety
///
/// The run's pixels must be readable at all taps and channels.
pub(super) unsafe fn reduce_panel(
    ctx: &Context,
    run: &Run,
    inputs: RunInputs<'_>,
    layout: &BlockedLayout,
    block: &OutputBlock,
    sums: &mut [f32],
    next: &[f32],
) {
    let RunInputs { plane, taps } = inputs;
    let registers = ctx.isa().registers();
    let width = block.vectors * registers.lanes;
    let group_in = layout.group_in;
    assert!(sums.len() >= group_in * taps.len() * width);
    let mut sums = sums.as_mut_ptr();
    let rows = Rows::of(registers, block);
    let channels_from = |first: usize| layout.block.min(group_in - first);
    let blocks = (0..group_in).step_by(layout.block);
    let tiles: usize = blocks
        .clone()
        .map(|first| rows.tiles(channels_from(first)))
        .sum();
    let pixels: usize = run.pixels.iter().product();
    let mut prefetch = LoopPrefetch::new(next, pixels * taps.len() * tiles, run.gradient);
    for first in blocks {
        let channels = channels_from(first);
        let tiles = rows.tiles(channels);
        for tap in taps {
            let mut start = 0;
            for tile in 0..tiles {
                let rows = rows.of_tile(channels, tile, start);
                // SAFETY: the caller's promise; `sums` stays within the asserted length.
                unsafe {
                    let tile = Tile {
                        run: Run {
                            input: run.input.add(first / layout.block * plane + tap + start),
                            ..*run
                        },
                        channels: block.channels,
                        sums,
                        prefetch,
                    };
                    run_tile(ctx, rows, block.vectors, rows_are_whole(block, width), tile);
                    sums = sums.add(rows * width);
                }
                start += rows;
                prefetch = prefetch.after(pixels);
            }
        }
    }
}

/// Whether all lanes of a panel are used.
fn rows_are_whole(block: &OutputBlock, width: usize) -> bool {
    block.channels == width
}

/// How the input channels of a channel block are divided into tiles, a row per channel.
#[derive(Clone, Copy)]
enum Rows {
    /// Tiles of equal size, at most this many rows.
    Equal(usize),
    /// As many tiles of this many rows (a power of two) as fit, then smaller powers of two. For
    /// panels whose last vector is partly used, for which fewer kernels are compiled.
    Halving(usize),
}

impl Rows {
    fn of(registers: Registers, block: &OutputBlock) -> Self {
        let most = max_rows(registers, block.vectors);
        if rows_are_whole(block, block.vectors * registers.lanes) {
            Rows::Equal(most)
        } else {
            Rows::Halving(most.min(MAX_PART_ROWS))
        }
    }

    fn tiles(self, channels: usize) -> usize {
        match self {
            Rows::Equal(most) => channels.div_ceil(most),
            Rows::Halving(most) => channels / most + (channels % most).count_ones() as usize,
        }
    }

    /// The rows of tile number `tile`, which begins with channel `start`.
    fn of_tile(self, channels: usize, tile: usize, start: usize) -> usize {
        match self {
            Rows::Equal(most) => {
                let tiles = channels.div_ceil(most);
                channels * (tile + 1) / tiles - start
            }
            Rows::Halving(most) => {
                let left = channels - start;
                most.min(1 << left.ilog2())
            }
        }
    }
}

/// The most rows of tiles whose last vector is partly used.
const MAX_PART_ROWS: usize = 8;

/// Computes a tile of `rows` input channels times `vectors` vectors of output channels, whose lanes
/// are all used if `whole`.
///
/// The only caller of the kernels, so that each is compiled once per size and instruction set.
///
/// # Safety
///
/// The tile's pixels and sums must be valid, and `rows` at most [`max_rows`].
unsafe fn run_tile(ctx: &Context, rows: usize, vectors: usize, whole: bool, tile: Tile) {
    macro_rules! choose {
        ($vectors:literal: $($n:literal)*) => {
            match (rows, whole) {
                $(($n, true) => ctx.dispatch(RunTile::<$n, $vectors, true>(tile)),)*
                (1, false) => ctx.dispatch(RunTile::<1, $vectors, false>(tile)),
                (2, false) => ctx.dispatch(RunTile::<2, $vectors, false>(tile)),
                (4, false) => ctx.dispatch(RunTile::<4, $vectors, false>(tile)),
                (MAX_PART_ROWS, false) => {
                    ctx.dispatch(RunTile::<MAX_PART_ROWS, $vectors, false>(tile));
                }
                _ => unreachable!("tile of {rows} rows"),
            }
        };
    }
    const { assert!(MAX_ROWS == 16) };
    match vectors {
        1 => choose!(1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16),
        2 => choose!(2: 1 2 3 4 5 6 7 8),
        _ => choose!(3: 1 2 3 4),
    }
}

/// The arguments of the micro-kernel for one tile.
struct Tile {
    run: Run,
    /// Output channels that exist.
    channels: usize,
    sums: *mut f32,
    prefetch: LoopPrefetch,
}

/// A tile with its sizes as constants. Made by [`run_tile`] only, whose contract it relies on.
struct RunTile<const R: usize, const V: usize, const WHOLE: bool>(Tile);

impl<const R: usize, const V: usize, const WHOLE: bool> SimdOp for RunTile<R, V, WHOLE> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        // A constant block, so that no code is generated for sizes that are never called.
        if const { R <= max_rows(Registers::of::<I>(), V) } {
            // SAFETY: the contract of `run_tile`.
            unsafe { tile_of::<I, R, V, WHOLE>(isa, self.0) };
        } else {
            unreachable!("a tile of more rows than this instruction set has a kernel for");
        }
    }
}

/// # Safety
///
/// As for [`run_tile`].
#[inline(always)]
unsafe fn tile_of<I: Isa, const R: usize, const V: usize, const WHOLE: bool>(isa: I, tile: Tile) {
    let ops = isa.f32();
    let lanes = ops.len();
    let Tile {
        run,
        channels,
        sums,
        mut prefetch,
    } = tile;
    let mask = ops.first_n_mask(channels - (V - 1) * lanes);
    // SAFETY: the caller's promise about pixels and sums.
    unsafe {
        let mut tile: [[I::F32; V]; R] =
            array(|r| array(|v| ops.load_ptr(sums.add((r * V + v) * lanes))));
        for image in 0..run.pixels[0] {
            for row in 0..run.pixels[1] {
                let mut input = run
                    .input
                    .add(image * run.input_strides[0] + row * run.input_strides[1]);
                let mut gradient = run
                    .gradient
                    .add(image * run.gradient_strides[0] + row * run.gradient_strides[1]);
                for _ in 0..run.pixels[2] {
                    prefetch.step::<I>();
                    if const { V > 2 } {
                        keep_order();
                    }
                    let dy: [I::F32; V] = array(|v| {
                        let at = gradient.add(v * lanes);
                        if WHOLE || v + 1 < V {
                            ops.load_ptr(at)
                        } else {
                            ops.load_ptr_mask(at, mask)
                        }
                    });
                    for (r, tile) in tile.iter_mut().enumerate() {
                        // As in the micro-kernel of products.
                        if const { V > 2 } {
                            keep_order();
                        }
                        let x = ops.splat(*input.add(r));
                        for v in 0..V {
                            tile[v] = ops.mul_add(x, dy[v], tile[v]);
                        }
                    }
                    input = input.add(run.input_strides[2]);
                    gradient = gradient.wrapping_add(run.gradient_strides[2]);
                }
            }
        }
        for (r, tile) in tile.iter().enumerate() {
            for (v, &sum) in tile.iter().enumerate() {
                ops.store_ptr(sum, sums.add((r * V + v) * lanes));
            }
        }
    }
}
