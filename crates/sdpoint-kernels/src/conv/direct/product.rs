//! The loop nest of the direct algorithm around the micro-kernel.

use std::ops::Range;

use rten_simd::{Isa, SimdOp};

use crate::context::Context;
use crate::conv::epilogue::TileEpilogue;
use crate::conv::gather::{BLOCK, ConvWindow, Source, Strip, StripLayout, Taps, gather};
use crate::conv::layout::Panel;
use crate::conv::microkernel::{Sums, Tile, TileOutput, run_tile};
use crate::conv::pack::PackedWeights;
use crate::conv::partition::{Partition, Work};
use crate::conv::prefetch::{Prefetch, Prefetcher};
use crate::conv::problem::Problem;
use crate::conv::product::Product;
use crate::conv::tiling::{TilePixels, Tiling};
use crate::conv::tuning::{L1_WAY, WEIGHT_FLOATS, blocks_of_step, part_floats};
use crate::isa::Registers;
use crate::scratch::Scratch;

/// Computes a product with the direct algorithm.
pub(in crate::conv) fn run(ctx: &Context, product: &Product<'_>) {
    let Problem {
        window,
        batch,
        grid,
        ..
    } = product.problem;
    let weights = &product.weights.layout;
    let panels = weights.panels();
    let partition = Partition::new(
        &Work {
            window,
            batch,
            grid,
            channels: weights.groups * weights.group_in.next_multiple_of(weights.block),
            macs_per_pixel: weights.macs_per_pixel(),
            weights: weights.len(),
            panels,
        },
        ctx.threads(),
    );
    let layout = StripLayout::new(window, partition.strip[0], partition.strip[1]);
    let taps = Taps::new(&layout);
    let strips = partition.all_strips(batch);
    let tasks = partition.tasks(batch);
    ctx.parallel_with(tasks, State::default, |state, task| {
        let ends_share = ctx.ends_share(tasks, task);
        let task = partition.task(task, batch, panels);
        for index in task.strips {
            let last_of_strip = task.panels.end == panels;
            ctx.dispatch(RunStrip {
                next: if last_of_strip && index + 1 < strips {
                    new_inputs(
                        product,
                        &partition.strip(grid, index),
                        &partition.strip(grid, index + 1),
                    )
                } else {
                    &[]
                },
                ctx,
                product,
                layout: &layout,
                taps: &taps,
                strip: partition.strip(grid, index),
                panels: task.panels.clone(),
                ends_share,
                state,
            });
        }
    });
}

/// The number of parts of K (BLIS's blocks of k_C). With several, the output holds the partial sums
/// between them, so that it cannot hold a residual.
pub(in crate::conv) fn parts(weights: &PackedWeights) -> usize {
    let most = part_floats(weights.isa().registers());
    let floats = weights.layout.range(0).len();
    // Half a part more is not worth another pass over the sums.
    if floats <= most * 3 / 2 {
        1
    } else {
        floats.div_ceil(most)
    }
}

/// The pixels of the tensor itself as the input of a strip, from group `first_group` on, instead of
/// a gathered copy. With one tap each pixel is read once per panel, so that a copy would not pay
/// off. `None` if there are several taps or padding, or the pixels map to one set of L1.
fn in_place<'a>(
    product: &Product<'a>,
    strip: &Strip,
    first_group: usize,
    registers: Registers,
) -> Option<StripInput<'a>> {
    let Source {
        data,
        height,
        width,
        channels,
    } = product.source;
    let ConvWindow {
        kernel: [1, 1],
        stride,
        origin: [0, 0],
        ..
    } = product.problem.window
    else {
        return None;
    };
    let pixel = stride[1] * channels;
    // All pixels of a tile would map to one set of L1, which has fewer ways than a tile has pixels
    // with 32 registers.
    if registers.count == 32 && pixel.is_multiple_of(L1_WAY) {
        return None;
    }
    let at = |y: usize, x: usize| {
        let [y, x] = [y * stride[0], x * stride[1]];
        (y < height && x < width).then(|| ((strip.image * height + y) * width + x) * channels)
    };
    let first = at(strip.rows[0], strip.columns[0])?;
    let last = at(strip.rows[1] - 1, strip.columns[1] - 1)?;
    let group = product.weights.layout.group_in;
    Some(StripInput {
        data: &data[first + first_group * group..last + channels],
        group,
        block: BLOCK * blocks_of_step(registers),
        plane: BLOCK * blocks_of_step(registers),
        row: stride[0] * width * channels,
        pixel,
    })
}

/// The inputs that a strip reads and the strip `before` it did not, to be prefetched; empty unless
/// they are contiguous in memory.
fn new_inputs<'a>(product: &Product<'a>, before: &Strip, strip: &Strip) -> &'a [f32] {
    let Source {
        data,
        height,
        width,
        channels,
    } = product.source;
    let Problem {
        window:
            ConvWindow {
                kernel,
                stride,
                origin,
                ..
            },
        grid: [grid_height, grid_width],
        ..
    } = product.problem;
    let whole_rows = grid_height > 1 && strip.width() == grid_width;
    if kernel[0] < stride[0] || !(whole_rows || grid_height == 1) {
        return &[];
    }
    let inputs_of = |axis: usize, span: [usize; 2], size: usize| {
        let clamp = |x: isize| x.clamp(0, size as isize) as usize;
        let start = (span[0] * stride[axis]) as isize + origin[axis];
        let end = ((span[1] - 1) * stride[axis] + kernel[axis]) as isize + origin[axis];
        [clamp(start), clamp(end)]
    };
    let [mut top, bottom] = inputs_of(0, strip.rows, height);
    let [left, right] = if whole_rows {
        [0, width]
    } else {
        inputs_of(1, strip.columns, width)
    };
    if whole_rows && before.image == strip.image {
        top = top.max(inputs_of(0, before.rows, height)[1]);
    }
    if top >= bottom {
        return &[];
    }
    let row = |y: usize| (strip.image * height + y) * width;
    &data[(row(top) + left) * channels..(row(bottom - 1) + right) * channels]
}

/// A thread's buffer. Tasks that compute other panels of the same strip reuse its content.
#[derive(Default)]
struct State<'a> {
    /// The gathered pixels; allocated when first needed.
    scratch: Option<Scratch<'a>>,
    /// The strip and the range of groups in `scratch`.
    gathered: Option<(Strip, [usize; 2])>,
}

struct RunStrip<'a, 'b> {
    ctx: &'b Context,
    product: &'a Product<'a>,
    layout: &'a StripLayout,
    taps: &'a [usize],
    strip: Strip,
    panels: Range<usize>,
    /// Whether this is the last task of the thread's own share. Which task follows is then unknown,
    /// so no weights are prefetched for it.
    ends_share: bool,
    /// Inputs of the next strip, to prefetch.
    next: &'a [f32],
    state: &'a mut State<'b>,
}

impl SimdOp for RunStrip<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let RunStrip {
            ctx,
            product,
            layout,
            taps,
            strip,
            panels,
            ends_share,
            next,
            state,
        } = self;
        let weights = &product.weights.layout;
        let panels_of_group = weights.panels_of_group();
        let groups = [
            panels.start / panels_of_group,
            panels.end.div_ceil(panels_of_group),
        ];
        let registers = Registers::of::<I>();
        let input = match in_place(product, &strip, groups[0], registers) {
            Some(input) => input,
            None => gather_strip(isa, ctx, product, layout, strip, groups, state),
        };
        let work = StripWork {
            strip: &strip,
            panels,
            ends_share,
            next_input: next,
        };
        run_tiles::<I>(ctx, product, &input, taps, work);
    }
}

/// Gathers the inputs of a strip and a range of groups, unless they are those gathered last.
#[inline(always)]
fn gather_strip<'a, 'b, I: Isa>(
    isa: I,
    ctx: &'b Context,
    product: &Product<'_>,
    layout: &StripLayout,
    strip: Strip,
    groups: [usize; 2],
    state: &'a mut State<'b>,
) -> StripInput<'a> {
    let weights = &product.weights.layout;
    let group_in = weights.group_in;
    let group = layout.len(group_in);
    let data = state
        .scratch
        .get_or_insert_with(|| ctx.scratch(weights.groups * group));
    if state.gathered != Some((strip, groups)) {
        state.gathered = Some((strip, groups));
        // Groups that are whole channel blocks are adjacent, and gathered in one call.
        let (calls, channels) = if group_in.is_multiple_of(layout.block) {
            (1, (groups[1] - groups[0]) * group_in)
        } else {
            (groups[1] - groups[0], group_in)
        };
        for call in 0..calls {
            let first = groups[0] * group_in + call * channels;
            let out = &mut data[call * group..];
            gather(isa, &product.source, layout, &strip, first, channels, out);
        }
    }
    StripInput {
        data,
        group,
        block: layout.block,
        plane: layout.plane,
        row: layout.row,
        pixel: layout.pixel,
    }
}

/// The inputs of a strip, gathered or in place; strides in floats.
struct StripInput<'a> {
    /// Starts with the first tap's first pixel, at the first channel of the first group.
    data: &'a [f32],
    /// Between groups.
    group: usize,
    /// Channels of a channel block.
    block: usize,
    /// Between channel blocks.
    plane: usize,
    /// Between the inputs of neighbouring rows of outputs.
    row: usize,
    /// Between the inputs of neighbouring pixels of outputs.
    pixel: usize,
}

/// The part of a product that [`run_tiles`] computes.
struct StripWork<'a> {
    strip: &'a Strip,
    panels: Range<usize>,
    /// As for [`RunStrip`].
    ends_share: bool,
    /// Inputs to prefetch for the next strip.
    next_input: &'a [f32],
}

/// Computes a strip's outputs for a range of panels, tile by tile.
///
/// Within a part of K, the loop over panels is outside the loop over tiles, as in BLIS: all tiles
/// use a panel's part, which stays in cache, before the next panel's is loaded. If all weights stay
/// in L2, the loop over tiles is outside instead, so that the output channels of a pixel are written
/// in sequence. Between parts, the output holds the partial sums.
#[inline(always)]
fn run_tiles<I: Isa>(
    ctx: &Context,
    product: &Product<'_>,
    input: &StripInput<'_>,
    taps: &[usize],
    work: StripWork<'_>,
) {
    let StripWork {
        strip,
        panels,
        ends_share,
        next_input,
    } = work;
    let weights = &product.weights.layout;
    let out = &product.problem.output;
    let runner = TileRunner {
        ctx,
        product,
        input,
        taps,
        first_group: panels.start / weights.panels_of_group(),
        origin: out.of(strip),
    };
    let strides = [[input.row, input.pixel], [out.row, out.pixel]];
    let tiling = |vectors: usize| Tiling::new::<I>(strip, strides, vectors);
    let vectors = |panel: usize| weights.panel(panel).1.vectors;
    let tiles_of_panel = tiling(vectors(panels.start)).tiles();
    let blocks = weights.group_in.div_ceil(input.block);
    let mut inputs = Prefetcher::new(
        next_input,
        panels.len() * tiles_of_panel * blocks * taps.len(),
    );
    let tiles_outside = weights.len() <= WEIGHT_FLOATS;
    let none = TileEpilogue::default();
    // The parts depend on the weights alone, as they determine the order of the additions.
    let mut parts = Part::split(product, &none).peekable();
    let first_channels = parts.peek().map_or(0..0, |part| part.channels.clone());
    while let Some(part) = parts.next() {
        let steps = part.channels.len().div_ceil(input.block) * taps.len();
        if tiles_outside {
            // Panels of fewer vectors have other tiles.
            for panels in weights.alike(panels.clone()) {
                let tiling = tiling(vectors(panels.start));
                for number in 0..tiling.tiles() {
                    let tile = tiling.tile(number);
                    for panel in weights.walk(panels.clone()) {
                        let prefetch = [Prefetch::NOTHING, inputs.next(steps)];
                        runner.run(&part, &panel, &tile, prefetch);
                    }
                }
            }
            continue;
        }
        // What to prefetch during the last panel: the next part of the first panel; or, after the
        // last part, the first panel of the thread's next task. That task usually has the panels
        // that follow, or, after the last panel, the first ones of the next strip.
        let next = match parts.peek() {
            Some(next) => Some((panels.start, &next.channels)),
            None if ends_share => None,
            None => Some((panels.end % weights.panels(), &first_channels)),
        };
        let after = next.and_then(|(panel, channels)| {
            let panel = weights.walk(panel..panel + 1).next()?;
            Some(product.weights.of(&panel, channels.clone()))
        });
        let after = after.unwrap_or(&[]);
        let mut walk = weights.walk(panels.clone()).peekable();
        while let Some(panel) = walk.next() {
            let next = walk.peek();
            let next = next.map_or(after, |next| {
                product.weights.of(next, part.channels.clone())
            });
            let tiling = tiling(panel.block.vectors);
            let tiles = tiling.tiles();
            let mut weights = Prefetcher::new(next, tiles * steps);
            for number in 0..tiles {
                let prefetch = [weights.next(steps), inputs.next(steps)];
                runner.run(&part, &panel, &tiling.tile(number), prefetch);
            }
        }
    }
}

/// The arguments of the micro-kernel that all tiles of a strip share.
struct TileRunner<'a> {
    ctx: &'a Context,
    product: &'a Product<'a>,
    input: &'a StripInput<'a>,
    taps: &'a [usize],
    /// The first group in `input`.
    first_group: usize,
    /// Offset of the strip's first output in the output tensor.
    origin: usize,
}

impl TileRunner<'_> {
    // Inlined: a call would copy its arguments by narrow stores followed by wide loads. Such loads
    // cannot be forwarded from the store buffer, and wait until all earlier stores, those of
    // outputs included, are done.
    #[inline(always)]
    fn run(&self, part: &Part<'_>, panel: &Panel, tile: &TilePixels, prefetch: [Prefetch; 2]) {
        let TileRunner { product, input, .. } = self;
        let out = &product.problem.output;
        let weights = &product.weights.layout;
        let Panel { group, block, .. } = *panel;
        let channel = group * weights.group_out + block.first;
        // Parts are whole blocks, in place also of fewer channels than a step.
        let start = part.channels.start * input.plane / input.block;
        let data = &input.data[(group - self.first_group) * input.group + start..];
        let at = self.origin + tile.first[1] + channel;
        // SAFETY: `input` has the pixels of all taps and channels of the strip; the outputs are
        // this task's alone, and `Product`'s makers assert that they lie in the output tensor,
        // which residual and second output equal in length.
        unsafe {
            run_tile(
                self.ctx,
                tile.count,
                block.vectors,
                &Tile {
                    input: data[tile.first[0]..].as_ptr(),
                    pixels: tile.pixels([[input.row, input.pixel], [out.row, out.pixel]]),
                    plane: input.plane,
                    taps: self.taps,
                    channels: part.channels.len(),
                    block: input.block,
                    weights: product.weights.of(panel, part.channels.clone()).as_ptr(),
                    sums: Sums::default(),
                    output: Some(TileOutput {
                        to: product.output.as_ptr().add(at),
                        channels: block.channels,
                        accumulate: product.accumulate || part.channels.start > 0,
                        is_evicted: product.output_is_evicted(),
                        epilogue: part.epilogue,
                        at,
                        channel,
                    }),
                    prefetch: &prefetch,
                },
            );
        }
    }
}

/// A part of K: one of BLIS's blocks of k_C.
struct Part<'a> {
    /// The range of the group's input channels, at all taps.
    channels: Range<usize>,
    /// The epilogue after this part: the identity for all but the last.
    epilogue: &'a TileEpilogue<'a>,
}

impl<'a> Part<'a> {
    /// Parts of equal length, except for the last.
    fn split(product: &'a Product<'_>, none: &'a TileEpilogue<'a>) -> impl Iterator<Item = Self> {
        let layout = &product.weights.layout;
        let channels = layout.group_in;
        let part = channels
            .div_ceil(parts(product.weights))
            .next_multiple_of(layout.block);
        (0..channels).step_by(part).map(move |first| {
            let end = channels.min(first + part);
            Part {
                channels: first..end,
                epilogue: if end == channels {
                    &product.epilogue
                } else {
                    none
                },
            }
        })
    }
}
