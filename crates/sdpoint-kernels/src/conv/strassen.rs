//! One level of Strassen's algorithm, in Winograd's form: seven products where quarters of
//! two matrices would take eight.
//!
//! The outputs of an image are cut into two halves of its pixels, `1` and `2`, and two of the
//! channels; the reduction into two halves of the input channels. With `Aij` half `j` of the
//! input channels that pixels `i` see, and `Bij` the weights from half `i` of the input channels
//! to half `j` of the output channels,
//!
//! ```text
//! S1 = A21 + A22   S2 = S1 - A11   S3 = A11 - A21   S4 = A12 - S2
//! T1 = B12 - B11   T2 = B22 - T1   T3 = B22 - B12   T4 = B21 - T2
//!
//! C11 = A11 B11 + A12 B21
//! U2  = A11 B11 + S2 T2
//! U3  = U2 + S3 T3
//! C21 = U3 + A22 T4
//! C12 = U2 + S1 T1 + S4 B22
//! C22 = U3 + S1 T1
//! ```
//!
//! See Winograd, "On multiplication of 2 × 2 matrices" (1971). It is done for each tile of the
//! micro-kernel and its partner in the other half, so that products that are needed twice
//! never leave the first-level cache, and sums go on from them.
//!
//! Rounding errors of one output reach those of its partner; so both are of one image, and no
//! image's result depends on what else is in its batch.

use std::ops::Range;

use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp};

use super::ahead::{Ahead, Spread};
use super::cut::Cut;
use super::gather::{BLOCK, Band};
use super::geometry::ConvGeometry;
use super::microkernel::{MAX_PIXELS, Shared, Tile, VECTORS, run_tile};
use super::pack::{BlockedLayout, PackedWeights};
use super::product::{Product, Tiling};
use crate::context::Context;
use crate::memory::AlignedVec;
use crate::scratch::Scratch;
use crate::shared_mut::SharedMut;

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

/// With fewer input channels, a tile spends on sums that it passes on what a product saves;
/// with fewer output channels, sums of inputs are used too seldom to pay. That depends on where
/// inputs come from and outputs go to: from memory, or the cache that all cores share.
const FEWEST_CHANNELS: usize = 256;
const FEWEST_NEAR_CHANNELS: usize = 128;

/// Floats of inputs and outputs that stay in the shared cache from one layer to the next.
const SHARED_FLOATS: usize = 2 * 1024 * 1024;

/// With fewer outputs, bringing the weights takes longer than the products, or threads that
/// share the weights copy the same inputs.
const FEWEST_OUTPUTS: usize = 48 * 1024;

/// Floats of the left sides of a band. Those of a product are met by all its weights before the
/// next product's, so that they and no more than the weights of two products share the
/// second-level cache.
const NEAR_FLOATS: usize = 192 * 1024;

/// Whether this is a layout that the algorithm computes, and not too narrow for it.
pub(super) fn applies(geometry: &ConvGeometry, layout: &BlockedLayout) -> bool {
    geometry.is_pointwise()
        && layout.groups == 1
        && layout.group_in.min(layout.group_out) >= FEWEST_NEAR_CHANNELS
        && layout.group_in.is_multiple_of(2 * BLOCK)
        && layout
            .group_out
            .is_multiple_of(2 * VECTORS * layout.lanes())
}

/// Whether a batch of grids has enough outputs, and images of more than one pixel.
pub(super) fn fits(
    layout: &BlockedLayout,
    batch: usize,
    joined: usize,
    [height, width]: [usize; 2],
) -> bool {
    let pixels = batch * height * width;
    let near = pixels * (layout.group_in + layout.group_out) <= SHARED_FLOATS;
    let fewest_channels = if near {
        FEWEST_NEAR_CHANNELS
    } else {
        FEWEST_CHANNELS
    };
    layout.group_in.min(layout.group_out) >= fewest_channels
        && pixels * layout.group_out >= FEWEST_OUTPUTS
        && height * width > joined
}

/// `T2`, `T3`, `T4` and `T1` of each pair of units, one after the other.
#[derive(Clone, Debug)]
pub(super) struct QuarterSums {
    quarter: BlockedLayout,
    data: AlignedVec,
}

impl QuarterSums {
    /// The sums of weights in the order of `layout`.
    pub fn new(ctx: &Context, layout: &BlockedLayout, packed: &[f32]) -> Self {
        let quarter = layout.quarter();
        let data = ctx.lasting(4 * quarter.len());
        let mut sums = QuarterSums { quarter, data };
        sums.fill(ctx, layout, packed);
        sums
    }

    /// Replaces the weights that the sums are of without allocating.
    pub fn fill(&mut self, ctx: &Context, layout: &BlockedLayout, packed: &[f32]) {
        let units = self.quarter.units();
        let len = self.quarter.range(0).len();
        let data = SharedMut::new(&mut self.data);
        ctx.parallel(units, |unit| {
            let [(b11, b21), (b12, b22)] =
                [unit, unit + units].map(|unit| packed[layout.range(unit)].split_at(len));
            // SAFETY: units have disjoint sums, and each runs once.
            let out = unsafe { data.slice(4 * unit * len..4 * (unit + 1) * len) };
            let (t2_t3, t4_t1) = out.split_at_mut(2 * len);
            let ((t2, t3), (t4, t1)) = (t2_t3.split_at_mut(len), t4_t1.split_at_mut(len));
            for i in 0..len {
                t1[i] = b12[i] - b11[i];
                t2[i] = b22[i] - t1[i];
                t3[i] = b22[i] - b12[i];
                t4[i] = b21[i] - t2[i];
            }
        });
    }

    pub fn bytes(&self) -> usize {
        size_of_val::<[f32]>(&self.data)
    }

    /// The right sides of the products for a pair of units of weights that the sums are of.
    #[inline(always)]
    fn right_sides<'a>(&'a self, packed: &'a PackedWeights, unit: usize) -> [&'a [f32]; PRODUCTS] {
        let len = self.quarter.range(0).len();
        let [(b11, b21), (_, b22)] =
            [unit, unit + self.quarter.units()].map(|unit| packed.of_unit(unit).split_at(len));
        let sum = |i: usize| &self.data[(4 * unit + i) * len..][..len];
        [b11, b21, sum(0), sum(1), sum(2), sum(3), b22]
    }
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
        let Product {
            source,
            window,
            batch,
            joined,
            grid: [height, width],
            ..
        } = product;
        let channels = source.channels;
        let count = height * width / joined;
        let row = if *joined > 1 { count } else { *width };
        let [row_step, pixel_step] = [window.stride[0] * source.width, window.stride[1]];
        ImagePixels {
            product,
            images: batch * joined,
            count,
            half: count.div_ceil(2),
            row,
            input: [source.height * source.width / joined, row_step, pixel_step]
                .map(|pixels| pixels * channels),
            output: count * product.layout.pixel,
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
        let layout = &self.product.layout;
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
pub(super) fn run(ctx: &Context, product: &Product<'_>, sums: &QuarterSums) {
    let quarter = &sums.quarter;
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
    let most = (NEAR_FLOATS / (PRODUCTS * quarter.group_in)).clamp(MAX_PIXELS, 8 * MAX_PIXELS);
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
    let quarter = &sums.quarter;
    let product = pixels.product;
    let (panels, kept) = scratch.split_at_mut(PRODUCTS * panel);
    let width = VECTORS * quarter.lanes();
    assert!(kept.len() >= KEPT * band.width() * width);
    let kept = kept.as_mut_ptr();
    let kept =
        |number: usize, pixel: usize| kept.wrapping_add((number * band.width() + pixel) * width);

    let addresses = [[0, BLOCK], [0, product.layout.pixel]];
    let tiling = Tiling::new::<I>(band, addresses, VECTORS);
    let tiles = tiling.tiles();
    let [first, end] = band.columns;
    let missing = (end + pixels.half).saturating_sub(pixels.count);
    let origins = [first, first + pixels.half].map(|pixel| pixels.output(band.image, pixel));
    let blocks = quarter.group_in / BLOCK;
    // Half of the products bring one of them near, and half the other.
    let products = PRODUCTS / 2 * units.len();
    let mut inputs = next_inputs.map(|next| Spread::over(next, products * tiles * blocks));
    for unit in units.clone() {
        let right = sums.right_sides(product.weights, unit);
        // Of this task or, most often, the thread's next one.
        let next_unit = (unit + 1) % quarter.units();
        let next = if ends_share && unit + 1 == units.end {
            &[]
        } else {
            sums.right_sides(product.weights, next_unit)[0]
        };
        for (number, step) in STEPS.iter().enumerate() {
            let next = right.get(number + 1).copied().unwrap_or(next);
            let mut ahead = Spread::over(next, tiles * blocks);
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
                let shared = Shared {
                    start: step.start.map(|number| kept(number).cast_const()),
                    keep: step.keep.map(kept),
                    addend: step.addend.map(|number| kept(number).cast_const()),
                    no_output: step.output.is_none(),
                };
                let run = |pixels: usize, channels: usize, shared: Shared, ahead: [Ahead; 2]| {
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
                                output: product.output.as_ptr().add(at),
                                output_channels: width,
                                accumulate: product.accumulate,
                                far_output: product.far_output(),
                                shared,
                                ahead: &ahead,
                                finish: &product.finish,
                                at,
                                channel,
                            },
                        );
                    }
                };
                let ahead = [ahead.next(blocks), inputs[number % 2].next(blocks)];
                let channels = quarter.group_in;
                match step.keep {
                    // A pixel without a partner has no output there, but what is kept of it is
                    // needed for its own.
                    Some(keep) if missing > 0 => {
                        let keep_alone = Shared {
                            addend: None,
                            no_output: true,
                            ..shared
                        };
                        run(tile.count, channels, keep_alone, ahead);
                        let go_on = Shared {
                            start: Some(kept(keep).cast_const()),
                            keep: None,
                            ..shared
                        };
                        run(tile.count - missing, 0, go_on, [Ahead::NOTHING; 2]);
                    }
                    _ => run(tile.count - missing, channels, shared, ahead),
                }
            }
        }
    }
}
