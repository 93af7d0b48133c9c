//! The seven products of Strassen's algorithm on the micro-kernel.

use std::ops::Range;

use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp};

use super::weights::QuadrantSums;
use crate::context::Context;
use crate::conv::gather::{BLOCK, Strip};
use crate::conv::layout::BlockedLayout;
use crate::conv::microkernel::{Sums, Tile, TileOutput, run_tile};
use crate::conv::pack::PackedWeights;
use crate::conv::partition::Partition;
use crate::conv::prefetch::{Prefetch, Prefetcher};
use crate::conv::problem::Problem;
use crate::conv::product::Product;
use crate::conv::tiling::Tiling;
use crate::conv::tuning::{MAX_PIXELS, STRASSEN_STRIP_FLOATS};
use crate::scratch::Scratch;

/// The number of products.
const PRODUCTS: usize = 7;

// The left operands of the products, in the order of computation; see [`STEPS`] for their right
// operands.
const A11: usize = 0;
const A12: usize = 1;
const S2: usize = 2;
const S3: usize = 3;
const A22: usize = 4;
const S1: usize = 5;
const S4: usize = 6;

// The intermediate sums that are stored between products: `P1 = A11 B11`, `U2`, `U3` and
// `P5 = S1 T1`.
const P1: usize = 0;
const U2: usize = 1;
const U3: usize = 2;
const P5: usize = 3;
/// The number of intermediate sums.
const KEPT: usize = 4;

/// One product, and how its sums are used.
struct Step {
    /// The stored sums to start from instead of zero.
    start: Option<usize>,
    /// Where to store its sums.
    keep: Option<usize>,
    /// The stored sums to add before the epilogue.
    addend: Option<usize>,
    /// The quadrant of the outputs that it completes: the half of the pixels, and of the channels.
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

/// The seven products in order.
const STEPS: [Step; PRODUCTS] = [
    // P1 = A11 B11
    step(None, Some(P1), None, None),
    // C11 = P1 + A12 B21
    step(Some(P1), None, None, Some([0, 0])),
    // U2 = P1 + S2 T2
    step(Some(P1), Some(U2), None, None),
    // U3 = U2 + S3 T3
    step(Some(U2), Some(U3), None, None),
    // C21 = U3 + A22 T4
    step(Some(U3), None, None, Some([1, 0])),
    // P5 = S1 T1, C22 = P5 + U3
    step(None, Some(P5), Some(U3), Some([1, 1])),
    // C12 = U2 + S4 B22 + P5
    step(Some(U2), None, Some(P5), Some([0, 1])),
];

/// The right operands of the products in the order of [`STEPS`], for a panel and its partner.
#[inline(always)]
fn right_operands<'a>(
    sums: &'a QuadrantSums,
    packed: &'a PackedWeights,
    panel: usize,
) -> [&'a [f32]; PRODUCTS] {
    let quadrant = sums.quadrant();
    let len = quadrant.range(0).len();
    let [(b11, b21), (_, b22)] =
        [panel, panel + quadrant.panels()].map(|panel| packed.of_panel(panel).split_at(len));
    let [t2, t3, t4, t1] = sums.of_panel(panel);
    [b11, b21, t2, t3, t4, t1, b22]
}

/// A product with one tap, whose pixels are numbered through the rows of each image.
struct ImagePixels<'a> {
    product: &'a Product<'a>,
    images: usize,
    /// Pixels of an image.
    count: usize,
    /// Pixels of its first half; the second has one fewer if the count is odd.
    half: usize,
    /// Pixels of a row.
    row: usize,
    /// Strides between the inputs of neighbouring images, rows and pixels, in floats.
    input_strides: [usize; 3],
    /// Stride between the outputs of neighbouring images, in floats.
    output_stride: usize,
}

impl<'a> ImagePixels<'a> {
    fn of(product: &'a Product<'a>) -> Self {
        let source = &product.source;
        let Problem {
            window,
            batch,
            images_per_row,
            grid: [height, width],
            output,
            ..
        } = product.problem;
        let channels = source.channels;
        let count = height * width / images_per_row;
        let row = if images_per_row > 1 { count } else { width };
        let [row_step, pixel_step] = [window.stride[0] * source.width, window.stride[1]];
        ImagePixels {
            product,
            images: batch * images_per_row,
            count,
            half: count.div_ceil(2),
            row,
            input_strides: [
                source.height * source.width / images_per_row,
                row_step,
                pixel_step,
            ]
            .map(|pixels| pixels * channels),
            output_stride: count * output.pixel,
        }
    }

    /// The input of a pixel of an image: all of its channels.
    #[inline(always)]
    fn input(&self, image: usize, pixel: usize) -> &'a [f32] {
        let [image_step, row_step, pixel_step] = self.input_strides;
        let (row, column) = (pixel / self.row, pixel % self.row);
        let at = image * image_step + row * row_step + column * pixel_step;
        &self.product.source.data[at..at + self.product.source.channels]
    }

    /// The inputs of a strip's pixels and of their partners, to be prefetched; empty unless they
    /// are contiguous in memory.
    fn inputs_of(&self, strip: &Strip) -> [&'a [f32]; 2] {
        let channels = self.product.source.channels;
        if self.input_strides[1..] != [self.row * channels, channels] {
            return [&[]; 2];
        }
        let data = self.product.source.data;
        [0, self.half].map(|half| {
            let [first, end] = strip.columns.map(|pixel| self.count.min(pixel + half));
            let image = strip.image * self.input_strides[0];
            &data[image + first * channels..image + end * channels]
        })
    }

    /// The offset of a pixel's output.
    #[inline(always)]
    fn output(&self, image: usize, pixel: usize) -> usize {
        let layout = &self.product.problem.output;
        layout.offset + image * self.output_stride + pixel * layout.pixel
    }
}

/// Strides of a strip's left operands, `[product][channel block][pixel][BLOCK]`, in floats.
#[derive(Clone, Copy)]
struct LeftOperands {
    /// Between channel blocks: an odd number of cache lines, so that a pixel's channel blocks map
    /// to different sets.
    plane: usize,
    /// Between operands.
    operand: usize,
}

impl LeftOperands {
    fn new(pixels: usize, channels: usize) -> Self {
        let plane = (pixels * BLOCK) | BLOCK;
        LeftOperands {
            plane,
            operand: channels / BLOCK * plane,
        }
    }
}

/// Computes a product with Strassen's algorithm; it must have one tap, and adjacent rows of
/// outputs.
pub(in crate::conv) fn run(ctx: &Context, product: &Product<'_>, sums: &QuadrantSums) {
    let quadrant = sums.quadrant();
    let pixels = ImagePixels::of(product);
    let panels = quadrant.panels();
    let partition = partition(&pixels, quadrant, ctx.threads());
    let strip = partition.strip[1];
    let strips = partition.all_strips(pixels.images);
    let left = LeftOperands::new(strip, quadrant.group_in);
    let kept = KEPT * strip * quadrant.widest_panel();
    let state = || State {
        scratch: ctx.scratch(PRODUCTS * left.operand + kept),
        gathered: None,
    };
    let tasks = partition.tasks(pixels.images);
    ctx.parallel_with(tasks, state, |state, task| {
        let ends_share = ctx.ends_share(tasks, task);
        let task = partition.task(task, pixels.images, panels);
        for index in task.strips {
            let strip = |index| partition.strip([1, pixels.half], index);
            let last = task.panels.end == panels && index + 1 < strips;
            ctx.dispatch(RunStrip {
                ctx,
                pixels: &pixels,
                sums,
                left,
                strip: strip(index),
                next: if last {
                    pixels.inputs_of(&strip(index + 1))
                } else {
                    [&[]; 2]
                },
                panels: task.panels.clone(),
                ends_share,
                state,
            });
        }
    });
}

/// Divides the first halves of the images into strips whose left operands fit in L2. Prefers a
/// number of strips that is a multiple of the number of threads, so that few strips are gathered by
/// more than one thread.
fn partition(pixels: &ImagePixels<'_>, quadrant: &BlockedLayout, threads: usize) -> Partition {
    let most =
        (STRASSEN_STRIP_FLOATS / (PRODUCTS * quadrant.group_in)).clamp(MAX_PIXELS, 8 * MAX_PIXELS);
    let mut strips = pixels.half.div_ceil(most);
    let even = (strips..2 * strips.max(threads))
        .find(|strips| (pixels.images * strips).is_multiple_of(threads));
    if let Some(even) = even
        && even * 2 * MAX_PIXELS <= pixels.half
    {
        strips = even;
    }
    let most_splits = |_| quadrant.panels();
    Partition::of_row(pixels.half, strips, pixels.images, most_splits, threads)
}

/// A thread's buffer. Tasks that compute other panels of the same strip reuse its left operands.
struct State<'a> {
    /// The left operands, and behind them the intermediate sums.
    scratch: Scratch<'a>,
    /// The strip whose left operands are in `scratch`.
    gathered: Option<Strip>,
}

struct RunStrip<'a, 'b> {
    ctx: &'b Context,
    pixels: &'a ImagePixels<'a>,
    sums: &'a QuadrantSums,
    left: LeftOperands,
    /// A range of the first half of the pixels.
    strip: Strip,
    /// Inputs of the next strip, to prefetch.
    next: [&'a [f32]; 2],
    /// Panels of the first half of the output channels.
    panels: Range<usize>,
    /// Whether this is the last task of the thread's own share. Which task follows is then unknown,
    /// so no weights are prefetched for it.
    ends_share: bool,
    state: &'a mut State<'b>,
}

impl SimdOp for RunStrip<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let RunStrip {
            ctx,
            pixels,
            sums,
            left,
            strip,
            next,
            panels,
            ends_share,
            state,
        } = self;
        if state.gathered != Some(strip) {
            state.gathered = Some(strip);
            form_left_operands(isa, pixels, left, &strip, &mut state.scratch);
        }
        let work = StripWork {
            strip: &strip,
            panels,
            ends_share,
            next_inputs: next,
        };
        run_tiles::<I>(ctx, pixels, sums, left, work, &mut state.scratch);
    }
}

/// Computes the left operands from the inputs of a strip's pixels and of their partners. A missing
/// partner counts as zero.
#[inline(always)]
fn form_left_operands<I: Isa>(
    isa: I,
    pixels: &ImagePixels<'_>,
    left: LeftOperands,
    strip: &Strip,
    out: &mut [f32],
) {
    let half = pixels.product.source.channels / 2;
    assert!(out.len() >= PRODUCTS * left.operand && left.operand >= half / BLOCK * left.plane);
    assert!(strip.width() * BLOCK <= left.plane && half.is_multiple_of(BLOCK));
    for pixel in strip.columns[0]..strip.columns[1] {
        let to = out[(pixel - strip.columns[0]) * BLOCK..].as_mut_ptr();
        let first = pixels.input(strip.image, pixel).as_ptr();
        let partner = pixel + pixels.half;
        // SAFETY: both pixels have two halves of the channels; and there is room for the pixel
        // at each of the channel blocks of each product, as asserted.
        unsafe {
            if partner < pixels.count {
                let second = pixels.input(strip.image, partner).as_ptr();
                let halves = [first, first.add(half), second, second.add(half)];
                write_left_operands::<I, true>(isa, halves, half, to, left);
            } else {
                let halves = [first, first.add(half), first, first];
                write_left_operands::<I, false>(isa, halves, half, to, left);
            }
        }
    }
}

/// Computes the left operands of one pixel and its partner. `halves` are the two halves of the
/// pixel's channels, and those of the partner's, which is zero unless `PARTNER`.
///
/// # Safety
///
/// `half` floats of each half must be readable, and a block of each plane of each product
/// writable.
#[inline(always)]
unsafe fn write_left_operands<I: Isa, const PARTNER: bool>(
    isa: I,
    halves: [*const f32; 4],
    half: usize,
    to: *mut f32,
    left: LeftOperands,
) {
    let ops = isa.f32();
    let LeftOperands { plane, operand } = left;
    for block in (0..half).step_by(BLOCK) {
        for lane in (0..BLOCK).step_by(ops.len()) {
            let to = to.wrapping_add(block / BLOCK * plane + lane);
            // SAFETY: the caller's promise.
            unsafe {
                let a11 = ops.load_ptr(halves[0].add(block + lane));
                let a12 = ops.load_ptr(halves[1].add(block + lane));
                let (mut a21, mut a22) = (ops.zero(), ops.zero());
                if PARTNER {
                    a21 = ops.load_ptr(halves[2].add(block + lane));
                    a22 = ops.load_ptr(halves[3].add(block + lane));
                }
                let s1 = ops.add(a21, a22);
                let s2 = ops.sub(s1, a11);
                let s3 = ops.sub(a11, a21);
                let s4 = ops.sub(a12, s2);
                ops.store_ptr(a11, to.add(A11 * operand));
                ops.store_ptr(a12, to.add(A12 * operand));
                ops.store_ptr(s2, to.add(S2 * operand));
                ops.store_ptr(s3, to.add(S3 * operand));
                ops.store_ptr(a22, to.add(A22 * operand));
                ops.store_ptr(s1, to.add(S1 * operand));
                ops.store_ptr(s4, to.add(S4 * operand));
            }
        }
    }
}

/// The part of a product that [`run_tiles`] computes.
struct StripWork<'a> {
    strip: &'a Strip,
    panels: Range<usize>,
    /// As for [`RunStrip`].
    ends_share: bool,
    /// Inputs to prefetch for the next strip.
    next_inputs: [&'a [f32]; 2],
}

/// Computes the outputs of a strip and its partners for a range of pairs of panels, from the left
/// operands in `scratch`; the intermediate sums are stored behind them.
#[inline(always)]
fn run_tiles<I: Isa>(
    ctx: &Context,
    pixels: &ImagePixels<'_>,
    sums: &QuadrantSums,
    left: LeftOperands,
    work: StripWork<'_>,
    scratch: &mut [f32],
) {
    let StripWork {
        strip,
        panels,
        ends_share,
        next_inputs,
    } = work;
    let LeftOperands { plane, operand } = left;
    let quadrant = sums.quadrant();
    let product = pixels.product;
    let (operands, kept) = scratch.split_at_mut(PRODUCTS * operand);
    let width = quadrant.widest_panel();
    let vectors = width / quadrant.lanes();
    assert!(kept.len() >= KEPT * strip.width() * width);
    let kept = kept.as_mut_ptr();
    let kept =
        |number: usize, pixel: usize| kept.wrapping_add((number * strip.width() + pixel) * width);

    let addresses = [[0, BLOCK], [0, product.problem.output.pixel]];
    let tiling = Tiling::new::<I>(strip, addresses, vectors);
    let tiles = tiling.tiles();
    let [first, end] = strip.columns;
    // 1 if the strip's last pixel has no partner, as the image has an odd number of pixels.
    let missing = (end + pixels.half).saturating_sub(pixels.count);
    let origins = [first, first + pixels.half].map(|pixel| pixels.output(strip.image, pixel));
    let blocks = quadrant.group_in / BLOCK;
    // Each half's inputs are prefetched by every other product, three of the seven at least.
    let products = PRODUCTS / 2 * panels.len();
    let mut inputs = next_inputs.map(|next| Prefetcher::new(next, products * tiles * blocks));
    for panel in panels.clone() {
        let right = right_operands(sums, product.weights, panel);
        // The next panel of this task or, usually, the first one of the thread's next task.
        let next_panel = (panel + 1) % quadrant.panels();
        let next = if ends_share && panel + 1 == panels.end {
            &[]
        } else {
            right_operands(sums, product.weights, next_panel)[0]
        };
        for (number, step) in STEPS.iter().enumerate() {
            let next = right.get(number + 1).copied().unwrap_or(next);
            let mut ahead = Prefetcher::new(next, tiles * blocks);
            let [half, channels] = step.output.unwrap_or_default();
            let channel = channels * quadrant.group_out + panel * width;
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
                    epilogue: &product.epilogue,
                    at,
                    channel,
                });
                let run = |pixels, channels, sums, output, prefetch: [Prefetch; 2]| {
                    if pixels == 0 {
                        return;
                    }
                    // SAFETY: the operands have all pixels and channels of the strip; as many sums
                    // are kept as asserted; the outputs are this task's alone, and `Product`'s
                    // makers assert that they lie in the output tensor, which residual and
                    // second output equal in length.
                    unsafe {
                        run_tile(
                            ctx,
                            pixels,
                            vectors,
                            &Tile {
                                input: operands[number * operand + tile.first[0]..].as_ptr(),
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
                let channels = quadrant.group_in;
                match step.keep {
                    // The last pixel has no partner, whose outputs this product completes, but its
                    // sums are needed for outputs of the pixel itself. Store the sums of all
                    // pixels, then apply the epilogue to those that have a partner.
                    Some(keep) if missing > 0 => {
                        let keep_alone = Sums {
                            addend: None,
                            ..tile_sums
                        };
                        run(tile.count, channels, keep_alone, None, prefetch);
                        let continued = Sums {
                            start: Some(kept(keep).cast_const()),
                            keep: None,
                            ..tile_sums
                        };
                        let nothing = [Prefetch::NOTHING; 2];
                        run(tile.count - missing, 0, continued, output, nothing);
                    }
                    _ => run(tile.count - missing, channels, tile_sums, output, prefetch),
                }
            }
        }
    }
}
