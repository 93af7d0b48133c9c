//! A product by sums of quarters.

use std::ops::Range;

use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp};

use super::weights::QuarterSums;
use crate::context::Context;
use crate::conv::cut::Cut;
use crate::conv::gather::{BLOCK, Band};
use crate::conv::layout::BlockedLayout;
use crate::conv::microkernel::{Sums, Tile, TileOutput, run_tile};
use crate::conv::pack::PackedWeights;
use crate::conv::prefetch::{Prefetch, Prefetcher};
use crate::conv::problem::Problem;
use crate::conv::product::Product;
use crate::conv::tiling::Tiling;
use crate::conv::tuning::{MAX_PIXELS, STRASSEN_BAND_FLOATS, VECTORS};
use crate::scratch::Scratch;

/// Products of quarters.
const PRODUCTS: usize = 7;

/// The left sides of the products, in the order in which they are computed. Their right sides
/// are `B11`, `B21`, `T2`, `T3`, `T4`, `T1` and `B22`.
const A11: usize = 0;
const A12: usize = 1;
const S2: usize = 2;
const S3: usize = 3;
const A22: usize = 4;
const S1: usize = 5;
const S4: usize = 6;

/// What is kept of a tile: `A11 B11`, `U2`, `U3` and `S1 T1`.
const P1: usize = 0;
const U2: usize = 1;
const U3: usize = 2;
const P5: usize = 3;
const KEPT: usize = 4;

/// A product and what becomes of it.
struct Step {
    /// Of what was kept, where its sums start.
    start: Option<usize>,
    /// Where they are kept.
    keep: Option<usize>,
    /// Of what was kept, what makes outputs of them, if anything has to be added.
    addend: Option<usize>,
    /// The halves of the pixels and of the channels whose outputs that makes.
    output: Option<[usize; 2]>,
}

const fn step(
    start: Option<usize>,
    keep: Option<usize>,
    addend: Option<usize>,
    output: Option<[usize; 2]>,
) -> Step {
    Step {
        start,
        keep,
        addend,
        output,
    }
}

/// What becomes of each product.
const STEPS: [Step; PRODUCTS] = [
    step(None, Some(P1), None, None),
    step(Some(P1), None, None, Some([0, 0])),
    step(Some(P1), Some(U2), None, None),
    step(Some(U2), Some(U3), None, None),
    step(Some(U3), None, None, Some([1, 0])),
    step(None, Some(P5), Some(U3), Some([1, 1])),
    step(Some(U2), None, Some(P5), Some([0, 1])),
];

/// The right sides of the products for a pair of units.
#[inline(always)]
fn right_sides<'a>(
    sums: &'a QuarterSums,
    packed: &'a PackedWeights,
    unit: usize,
) -> [&'a [f32]; PRODUCTS] {
    let quarter = sums.quarter();
    let len = quarter.range(0).len();
    let [(b11, b21), (_, b22)] =
        [unit, unit + quarter.units()].map(|unit| packed.of_unit(unit).split_at(len));
    let [t2, t3, t4, t1] = sums.of_unit(unit);
    [b11, b21, t2, t3, t4, t1, b22]
}

/// A product of a kernel of one tap, whose pixels are counted through the rows of an image.
struct ImagePixels<'a> {
    product: &'a Product<'a>,
    images: usize,
    /// Pixels of an image, and of its first half: the second has one less if they are odd.
    count: usize,
    half: usize,
    /// Pixels of a row, if the input's are not all neighbours.
    row: usize,
    /// Floats between the inputs of neighbouring images, rows and pixels.
    input: [usize; 3],
    /// Floats between the outputs of neighbouring images.
    output: usize,
}

impl<'a> ImagePixels<'a> {
    fn of(product: &'a Product<'a>) -> Self {
        let source = &product.source;
        let Problem {
            window,
            batch,
            joined,
            grid: [height, width],
            output,
            ..
        } = product.problem;
        let channels = source.channels;
        let count = height * width / joined;
        let row = if joined > 1 { count } else { width };
        let [row_step, pixel_step] = [window.stride[0] * source.width, window.stride[1]];
        ImagePixels {
            product,
            images: batch * joined,
            count,
            half: count.div_ceil(2),
            row,
            input: [source.height * source.width / joined, row_step, pixel_step]
                .map(|pixels| pixels * channels),
            output: count * output.pixel,
        }
    }

    /// What the pixel of this number in an image sees.
    #[inline(always)]
    fn seen(&self, image: usize, pixel: usize) -> &'a [f32] {
        let [image_step, row_step, pixel_step] = self.input;
        let (row, column) = (pixel / self.row, pixel % self.row);
        let at = image * image_step + row * row_step + column * pixel_step;
        &self.product.source.data[at..at + self.product.source.channels]
    }

    /// What the pixels of a band see in each half of their image, if they lie side by side.
    fn seen_by(&self, band: &Band) -> [&'a [f32]; 2] {
        let channels = self.product.source.channels;
        if self.input[1..] != [self.row * channels, channels] {
            return [&[]; 2];
        }
        let data = self.product.source.data;
        [0, self.half].map(|half| {
            let [first, end] = band.columns.map(|pixel| self.count.min(pixel + half));
            let image = band.image * self.input[0];
            &data[image + first * channels..image + end * channels]
        })
    }

    /// Where the output of a pixel is.
    #[inline(always)]
    fn output(&self, image: usize, pixel: usize) -> usize {
        let layout = &self.product.problem.output;
        layout.offset + image * self.output + pixel * layout.pixel
    }
}

/// Where the left sides of the products of a band are, `[product][channel block][pixel][BLOCK]`.
#[derive(Clone, Copy)]
struct LeftSides {
    /// Floats between channel blocks, an odd number of cache lines to keep those of a pixel out
    /// of one another's sets.
    plane: usize,
    /// Floats between products.
    panel: usize,
}

impl LeftSides {
    fn new(pixels: usize, channels: usize) -> Self {
        let plane = (pixels * BLOCK) | BLOCK;
        LeftSides {
            plane,
            panel: channels / BLOCK * plane,
        }
    }
}

/// Computes a product of a kernel of one tap, rows of whose outputs meet.
pub(in crate::conv) fn run(ctx: &Context, product: &Product<'_>, sums: &QuarterSums) {
    let quarter = sums.quarter();
    let pixels = ImagePixels::of(product);
    let units = quarter.units();
    let cut = cut(&pixels, quarter, ctx.threads());
    let band = cut.band[1];
    let bands = cut.all_bands(pixels.images);
    let left = LeftSides::new(band, quarter.group_in);
    let kept = KEPT * band * VECTORS * quarter.lanes();
    let state = || State {
        scratch: ctx.scratch(PRODUCTS * left.panel + kept),
        gathered: None,
    };
    let tasks = cut.tasks(pixels.images);
    ctx.parallel_with(tasks, state, |state, task| {
        let ends_share = ctx.ends_share(tasks, task);
        let task = cut.task(task, pixels.images, units);
        for index in task.bands {
            let band = |index| cut.band([1, pixels.half], index);
            let last = task.units.end == units && index + 1 < bands;
            ctx.dispatch(RunBand {
                ctx,
                pixels: &pixels,
                sums,
                left,
                band: band(index),
                next: if last {
                    pixels.seen_by(&band(index + 1))
                } else {
                    [&[]; 2]
                },
                units: task.units.clone(),
                ends_share,
                state,
            });
        }
    });
}

/// Bands of the first halves of the images, as long as their left sides stay near, but of a
/// number that threads share evenly: so few of them are copied by several threads.
fn cut(pixels: &ImagePixels<'_>, quarter: &BlockedLayout, threads: usize) -> Cut {
    let most =
        (STRASSEN_BAND_FLOATS / (PRODUCTS * quarter.group_in)).clamp(MAX_PIXELS, 8 * MAX_PIXELS);
    let mut bands = pixels.half.div_ceil(most);
    let even = (bands..2 * bands.max(threads))
        .find(|bands| (pixels.images * bands).is_multiple_of(threads));
    if let Some(even) = even
        && even * 2 * MAX_PIXELS <= pixels.half
    {
        bands = even;
    }
    let most_splits = |_| quarter.units();
    Cut::of_row(pixels.half, bands, pixels.images, most_splits, threads)
}

/// What a thread keeps from one task to the next.
struct State<'a> {
    /// The left sides of the products, and the sums that are kept.
    scratch: Scratch<'a>,
    /// The band whose left sides are there.
    gathered: Option<Band>,
}

struct RunBand<'a, 'b> {
    ctx: &'b Context,
    pixels: &'a ImagePixels<'a>,
    sums: &'a QuarterSums,
    left: LeftSides,
    /// Of the first half of the pixels.
    band: Band,
    /// Inputs that the next band will copy.
    next: [&'a [f32]; 2],
    /// Output blocks of the first half of the channels.
    units: Range<usize>,
    /// Whether the thread's own share of the tasks ends with them.
    ends_share: bool,
    state: &'a mut State<'b>,
}

impl SimdOp for RunBand<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let RunBand {
            ctx,
            pixels,
            sums,
            left,
            band,
            next,
            units,
            ends_share,
            state,
        } = self;
        if state.gathered != Some(band) {
            state.gathered = Some(band);
            gather_left_sides(isa, pixels, left, &band, &mut state.scratch);
        }
        run_tiles::<I>(
            ctx,
            pixels,
            sums,
            left,
            &band,
            next,
            units,
            ends_share,
            &mut state.scratch,
        );
    }
}

/// Copies the left sides of the products from what the pixels of a band and their partners see.
/// Where there is no partner, it is zero.
#[inline(always)]
fn gather_left_sides<I: Isa>(
    isa: I,
    pixels: &ImagePixels<'_>,
    left: LeftSides,
    band: &Band,
    out: &mut [f32],
) {
    let half = pixels.product.source.channels / 2;
    assert!(out.len() >= PRODUCTS * left.panel && left.panel >= half / BLOCK * left.plane);
    assert!(band.width() * BLOCK <= left.plane);
    for pixel in band.columns[0]..band.columns[1] {
        let to = out[(pixel - band.columns[0]) * BLOCK..].as_mut_ptr();
        let first = pixels.seen(band.image, pixel).as_ptr();
        let partner = pixel + pixels.half;
        // SAFETY: both pixels have two halves of the channels; and there is room for the pixel
        // at each of the channel blocks of each product, as asserted.
        unsafe {
            if partner < pixels.count {
                let second = pixels.seen(band.image, partner).as_ptr();
                let seen = [first, first.add(half), second, second.add(half)];
                write_left_sides::<I, true>(isa, seen, half, to, left);
            } else {
                let seen = [first, first.add(half), first, first];
                write_left_sides::<I, false>(isa, seen, half, to, left);
            }
        }
    }
}

/// Writes what two pixels are in the left sides of the products, from their halves of the
/// channels; that of the second is zero unless `PARTNER`.
///
/// # Safety
///
/// `half` floats of each half must be readable, and a block of each plane of each product
/// writable.
#[inline(always)]
unsafe fn write_left_sides<I: Isa, const PARTNER: bool>(
    isa: I,
    seen: [*const f32; 4],
    half: usize,
    to: *mut f32,
    left: LeftSides,
) {
    let ops = isa.f32();
    let LeftSides { plane, panel } = left;
    for block in (0..half).step_by(BLOCK) {
        for lane in (0..BLOCK).step_by(ops.len()) {
            let to = to.wrapping_add(block / BLOCK * plane + lane);
            // SAFETY: the caller's promise.
            unsafe {
                let a11 = ops.load_ptr(seen[0].add(block + lane));
                let a12 = ops.load_ptr(seen[1].add(block + lane));
                let (mut a21, mut a22) = (ops.zero(), ops.zero());
                if PARTNER {
                    a21 = ops.load_ptr(seen[2].add(block + lane));
                    a22 = ops.load_ptr(seen[3].add(block + lane));
                }
                let s1 = ops.add(a21, a22);
                let s2 = ops.sub(s1, a11);
                let s3 = ops.sub(a11, a21);
                let s4 = ops.sub(a12, s2);
                ops.store_ptr(a11, to.add(A11 * panel));
                ops.store_ptr(a12, to.add(A12 * panel));
                ops.store_ptr(s2, to.add(S2 * panel));
                ops.store_ptr(s3, to.add(S3 * panel));
                ops.store_ptr(a22, to.add(A22 * panel));
                ops.store_ptr(s1, to.add(S1 * panel));
                ops.store_ptr(s4, to.add(S4 * panel));
            }
        }
    }
}

/// Computes the outputs of a band and its partners of pairs of units, from the left sides of the
/// products in `scratch`, which has room for what is kept behind them.
#[inline(always)]
fn run_tiles<I: Isa>(
    ctx: &Context,
    pixels: &ImagePixels<'_>,
    sums: &QuarterSums,
    left: LeftSides,
    band: &Band,
    next_inputs: [&[f32]; 2],
    units: Range<usize>,
    ends_share: bool,
    scratch: &mut [f32],
) {
    let LeftSides { plane, panel } = left;
    let quarter = sums.quarter();
    let product = pixels.product;
    let (panels, kept) = scratch.split_at_mut(PRODUCTS * panel);
    let width = VECTORS * quarter.lanes();
    assert!(kept.len() >= KEPT * band.width() * width);
    let kept = kept.as_mut_ptr();
    let kept =
        |number: usize, pixel: usize| kept.wrapping_add((number * band.width() + pixel) * width);

    let addresses = [[0, BLOCK], [0, product.problem.output.pixel]];
    let tiling = Tiling::new::<I>(band, addresses, VECTORS);
    let tiles = tiling.tiles();
    let [first, end] = band.columns;
    let missing = (end + pixels.half).saturating_sub(pixels.count);
    let origins = [first, first + pixels.half].map(|pixel| pixels.output(band.image, pixel));
    let blocks = quarter.group_in / BLOCK;
    // Half of the products prefetch one of them, and half the other.
    let products = PRODUCTS / 2 * units.len();
    let mut inputs = next_inputs.map(|next| Prefetcher::new(next, products * tiles * blocks));
    for unit in units.clone() {
        let right = right_sides(sums, product.weights, unit);
        // Of this task or, most often, the thread's next one.
        let next_unit = (unit + 1) % quarter.units();
        let next = if ends_share && unit + 1 == units.end {
            &[]
        } else {
            right_sides(sums, product.weights, next_unit)[0]
        };
        for (number, step) in STEPS.iter().enumerate() {
            let next = right.get(number + 1).copied().unwrap_or(next);
            let mut ahead = Prefetcher::new(next, tiles * blocks);
            let [half, channels] = step.output.unwrap_or_default();
            let channel = channels * quarter.group_out + unit * width;
            let mut pixel = 0;
            for tile in 0..tiles {
                let missing = if half == 1 && tile + 1 == tiles {
                    missing
                } else {
                    0
                };
                let tile = tiling.tile(tile);
                let first = pixel;
                let kept = |number: usize| kept(number, first);
                pixel += tile.count;
                let at = origins[half] + tile.first[1] + channel;
                let tile_sums = Sums {
                    start: step.start.map(|number| kept(number).cast_const()),
                    keep: step.keep.map(kept),
                    addend: step.addend.map(|number| kept(number).cast_const()),
                };
                let output = step.output.map(|_| TileOutput {
                    to: product.output.as_ptr().wrapping_add(at),
                    channels: width,
                    accumulate: product.accumulate,
                    is_evicted: product.output_is_evicted(),
                    finish: &product.finish,
                    at,
                    channel,
                });
                let run = |pixels, channels, sums, output, prefetch: [Prefetch; 2]| {
                    if pixels == 0 {
                        return;
                    }
                    // SAFETY: the panels have all pixels and channels of the band; as many sums
                    // are kept as asserted; the outputs are this task's alone, and `Product`'s
                    // makers assert that they lie in the output tensor, which residual and
                    // second output equal in length.
                    unsafe {
                        run_tile(
                            ctx,
                            pixels,
                            VECTORS,
                            &Tile {
                                input: panels[number * panel + tile.first[0]..].as_ptr(),
                                pixels: tile.pixels(addresses),
                                plane,
                                taps: &[0],
                                channels,
                                block: BLOCK,
                                weights: right[number].as_ptr(),
                                sums,
                                output,
                                prefetch: &prefetch,
                            },
                        );
                    }
                };
                let prefetch = [ahead.next(blocks), inputs[number % 2].next(blocks)];
                let channels = quarter.group_in;
                match step.keep {
                    // A pixel without a partner has no output there, but what is kept of it is
                    // needed for its own.
                    Some(keep) if missing > 0 => {
                        let keep_alone = Sums {
                            addend: None,
                            ..tile_sums
                        };
                        run(tile.count, channels, keep_alone, None, prefetch);
                        let go_on = Sums {
                            start: Some(kept(keep).cast_const()),
                            keep: None,
                            ..tile_sums
                        };
                        let nothing = [Prefetch::NOTHING; 2];
                        run(tile.count - missing, 0, go_on, output, nothing);
                    }
                    _ => run(tile.count - missing, channels, tile_sums, output, prefetch),
                }
            }
        }
    }
}
