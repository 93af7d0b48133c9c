//! Packing of the inputs: copies the part of an NHWC tensor that a strip of outputs reads into a
//! layout in which the micro-kernels' addresses are constant offsets.
//!
//! The layout is `[channel block][row phase][row][column phase][column][BLOCK]`. Unlike im2col it
//! holds each input once, not once per tap. Padding is stored as zeros, so that no micro-kernel
//! tests for it. Rows and columns are grouped by their remainder modulo the stride (phase), so that
//! neighbouring outputs read neighbouring columns for every tap and stride; phases that no tap
//! reads are left out.
//!
//! The copy costs a load and a store per vector of inputs, compared with a multiply-add per input
//! and output channel at each tap, and reads memory in the order that hardware prefetchers follow.
//! A convolution of one tap uses each pixel only once per panel and reads it in place, where there
//! are enough registers for the addresses (`direct/product.rs`). Tensors with few channels are
//! copied row by row as they are; the columns of the kernel then count as channels, and only its
//! rows as taps.

use std::ops::Deref;

use rten_simd::Isa;
use rten_simd::ops::BitOps;

use crate::lanes::{load_masked, mask_if_slow};

/// Channels of a channel block: one cache line of a pixel.
pub(super) const BLOCK: usize = 16;

/// Which input pixels a grid of outputs reads: output `(y, x)` reads, for tap `(ky, kx)`, pixel
/// `(y * stride + ky + origin, x * stride + kx + origin)`, or zero where there is none.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConvWindow {
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    pub origin: [isize; 2],
    /// The channels of a pixel, if they are so few that kernel columns are treated as channels
    /// too: a kernel row then reads one pixel of `kernel[1]` times as many channels, and only the
    /// kernel's rows are taps.
    pub unrolled: Option<usize>,
}

/// An input tensor `[batch, height, width, channels]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'a> {
    pub data: &'a [f32],
    pub height: usize,
    pub width: usize,
    pub channels: usize,
}

/// A rectangle of the grid of outputs of one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Strip {
    pub image: usize,
    pub rows: [usize; 2],
    pub columns: [usize; 2],
}

impl Strip {
    pub fn height(&self) -> usize {
        self.rows[1] - self.rows[0]
    }

    pub fn width(&self) -> usize {
        self.columns[1] - self.columns[0]
    }
}

/// The layout of the gathered copy of a strip; strides are in floats.
#[derive(Clone, Copy, Debug)]
pub(super) struct StripLayout {
    window: ConvWindow,
    /// Rows and columns stored per phase.
    stored: [usize; 2],
    /// Channels of a channel block: [`BLOCK`], or those of a kernel row where columns are unrolled.
    pub block: usize,
    /// Stride between the inputs of neighbouring outputs of a row, at the same tap.
    pub pixel: usize,
    /// Stride between column phases.
    column_phase: usize,
    /// Stride between rows.
    pub row: usize,
    /// Stride between row phases.
    row_phase: usize,
    /// Stride between channel blocks.
    pub plane: usize,
}

impl StripLayout {
    pub fn new(window: ConvWindow, height: usize, width: usize) -> Self {
        let ConvWindow { kernel, stride, .. } = window;
        let stored = [
            height + (kernel[0] - 1) / stride[0],
            width + (kernel[1] - 1) / stride[1],
        ];
        let phases = window.phases();
        // Where kernel columns are treated as channels, pixels overlap, and there are no phases.
        let (block, pixel, column_phase) = match window.unrolled {
            Some(channels) => {
                let input_columns = (width - 1) * stride[1] + kernel[1];
                (
                    kernel[1] * channels,
                    stride[1] * channels,
                    input_columns * channels,
                )
            }
            None => (BLOCK, BLOCK, stored[1] * BLOCK),
        };
        let row = phases[1] * column_phase;
        let row_phase = stored[0] * row;
        // An odd number of cache lines, so that a pixel's channel blocks map to different sets of
        // the caches.
        let plane = (phases[0] * row_phase) | BLOCK;
        StripLayout {
            window,
            stored,
            block,
            pixel,
            column_phase,
            row,
            row_phase,
            plane,
        }
    }

    /// Floats of a strip with a number of channels.
    pub fn len(&self, channels: usize) -> usize {
        channels.div_ceil(self.block) * self.plane
    }

    /// The offset of a tap's pixel from the first tap's.
    pub fn tap(&self, ky: usize, kx: usize) -> usize {
        let [sy, sx] = self.window.stride;
        ky % sy * self.row_phase
            + ky / sy * self.row
            + kx % sx * self.column_phase
            + kx / sx * BLOCK
    }
}

/// The offset of each tap's pixels from the first tap's in a gathered strip, in row-major order.
pub(super) struct Taps {
    count: usize,
    /// Storage for kernels up to 8 × 8, which need no allocation.
    few: [usize; 64],
    many: Vec<usize>,
}

impl Taps {
    pub fn new(layout: &StripLayout) -> Self {
        let [height, width] = layout.window.taps();
        let mut taps = Taps {
            count: height * width,
            few: [0; 64],
            many: Vec::new(),
        };
        if taps.count > taps.few.len() {
            taps.many.resize(taps.count, 0);
        }
        let offsets = if taps.many.is_empty() {
            &mut taps.few[..]
        } else {
            &mut taps.many
        };
        for (i, offset) in offsets[..taps.count].iter_mut().enumerate() {
            *offset = layout.tap(i / width, i % width);
        }
        taps
    }
}

impl Deref for Taps {
    type Target = [usize];

    fn deref(&self) -> &[usize] {
        if self.many.is_empty() {
            &self.few[..self.count]
        } else {
            &self.many
        }
    }
}

impl ConvWindow {
    /// Whether the kernel has three columns and neighbouring outputs share inputs.
    pub fn shares_three_columns(&self) -> bool {
        self.kernel[1] == 3 && self.stride[1] == 1
    }

    /// Rows and columns of taps.
    fn taps(&self) -> [usize; 2] {
        match self.unrolled {
            Some(_) => [self.kernel[0], 1],
            None => self.kernel,
        }
    }

    /// The numbers of row phases and column phases that taps read.
    fn phases(&self) -> [usize; 2] {
        let taps = self.taps();
        [taps[0].min(self.stride[0]), taps[1].min(self.stride[1])]
    }
}

/// Copies the inputs of `strip`, `count` channels from `first` on, into `out`. In the last channel
/// block, floats beyond `count` are unspecified.
#[inline(always)]
pub(super) fn gather<I: Isa>(
    isa: I,
    source: &Source<'_>,
    layout: &StripLayout,
    strip: &Strip,
    first: usize,
    count: usize,
    out: &mut [f32],
) {
    assert!(out.len() >= layout.len(count), "scratch too short");
    if let Some(channels) = layout.window.unrolled {
        assert!(channels == source.channels && first == 0 && count == layout.block);
        return gather_rows(source, layout, strip, out);
    }
    assert!(first + count <= source.channels);
    assert!(
        source.data.len() >= (strip.image + 1) * source.height * source.width * source.channels
    );
    let ConvWindow { stride, origin, .. } = layout.window;
    let [row_phases, column_phases] = layout.window.phases();
    let blocks = count.div_ceil(BLOCK);
    for row_phase in 0..row_phases {
        for i in 0..layout.stored[0] {
            let y = ((strip.rows[0] + i) * stride[0] + row_phase) as isize + origin[0];
            let y_inside = y >= 0 && y < source.height as isize;
            for column_phase in 0..column_phases {
                let at = row_phase * layout.row_phase
                    + i * layout.row
                    + column_phase * layout.column_phase;
                let x0 = (strip.columns[0] * stride[1] + column_phase) as isize + origin[1];
                let stored = layout.stored[1];
                let (lo, hi) = if y_inside {
                    inside(x0, stride[1], stored, source.width)
                } else {
                    (stored, stored)
                };
                for block in 0..blocks {
                    let line = &mut out[block * layout.plane + at..][..stored * BLOCK];
                    line[..lo * BLOCK].fill(0.0);
                    line[hi * BLOCK..].fill(0.0);
                }
                if lo < hi {
                    let x = (x0 + (lo * stride[1]) as isize) as usize;
                    let pixel = (strip.image * source.height + y as usize) * source.width + x;
                    let from = pixel * source.channels + first;
                    let step = stride[1] * source.channels;
                    let run = hi - lo;
                    assert!(from + (run - 1) * step + count <= source.data.len());
                    // SAFETY: the assertion covers the last pixel read; the last float
                    // written is column `hi - 1` of the last block, within `layout.len`.
                    unsafe {
                        copy_run(
                            isa,
                            source.data.as_ptr().add(from),
                            step,
                            out.as_mut_ptr().add(at + lo * BLOCK),
                            layout.plane,
                            run,
                            count,
                        );
                    }
                }
            }
        }
    }
}

/// [`gather`] where kernel columns are treated as channels.
#[inline(always)]
fn gather_rows(source: &Source<'_>, layout: &StripLayout, strip: &Strip, out: &mut [f32]) {
    let ConvWindow { stride, origin, .. } = layout.window;
    let Source {
        data,
        height,
        width,
        channels,
    } = *source;
    let x0 = (strip.columns[0] * stride[1]) as isize + origin[1];
    let (lo, hi) = inside(x0, 1, layout.row / channels, width);
    for row_phase in 0..layout.window.phases()[0] {
        for i in 0..layout.stored[0] {
            let y = ((strip.rows[0] + i) * stride[0] + row_phase) as isize + origin[0];
            let line = &mut out[row_phase * layout.row_phase + i * layout.row..][..layout.row];
            if lo == hi || y < 0 || y >= height as isize {
                line.fill(0.0);
                continue;
            }
            let row = (strip.image * height + y as usize) * width;
            let from = &data[(row + (x0 + lo as isize) as usize) * channels..];
            let (pixels, end) = line.split_at_mut(hi * channels);
            let (start, pixels) = pixels.split_at_mut(lo * channels);
            start.fill(0.0);
            pixels.copy_from_slice(&from[..pixels.len()]);
            end.fill(0.0);
        }
    }
}

/// The indices `lo..hi` of `0..n` for which `start + i * step` lies in `0..size`.
fn inside(start: isize, step: usize, n: usize, size: usize) -> (usize, usize) {
    let lo = if start < 0 {
        start.unsigned_abs().div_ceil(step)
    } else {
        0
    };
    let room = size as isize - start;
    let hi = if room > 0 {
        (room as usize).div_ceil(step)
    } else {
        0
    };
    let hi = hi.min(n);
    (lo.min(hi), hi)
}

/// Copies `run` pixels of `channels` floats, `stride` apart, into one plane per channel block.
///
/// # Safety
///
/// All pixels must be readable, and `run * BLOCK` floats from `to` on writable in each plane.
#[inline(always)]
unsafe fn copy_run<I: Isa>(
    isa: I,
    from: *const f32,
    stride: usize,
    to: *mut f32,
    plane: usize,
    run: usize,
    channels: usize,
) {
    let ops = isa.f32();
    let lanes = ops.len();
    let full = channels / BLOCK;
    let rest = channels % BLOCK;
    for i in 0..run {
        // SAFETY: as this function's contract.
        unsafe {
            let pixel = from.add(i * stride);
            let column = to.add(i * BLOCK);
            for block in 0..full {
                for lane in (0..BLOCK).step_by(lanes) {
                    let line = ops.load_ptr(pixel.add(block * BLOCK + lane));
                    ops.store_ptr(line, column.add(block * plane + lane));
                }
            }
            if rest > 0 {
                let (pixel, column) = (pixel.add(full * BLOCK), column.add(full * plane));
                for lane in (0..rest).step_by(lanes) {
                    let mask = mask_if_slow(isa, lanes.min(rest - lane));
                    let line = load_masked(isa, pixel.add(lane), mask);
                    ops.store_ptr(line, column.add(lane));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Context;
    use rten_simd::SimdOp;

    struct Gather<'a>(
        &'a Source<'a>,
        StripLayout,
        Strip,
        usize,
        usize,
        &'a mut [f32],
    );

    impl SimdOp for Gather<'_> {
        type Output = ();
        #[inline(always)]
        fn eval<I: Isa>(self, isa: I) {
            gather(isa, self.0, &self.1, &self.2, self.3, self.4, self.5);
        }
    }

    #[test]
    fn every_tap_of_every_output_is_where_the_layout_says() {
        let ctx = Context::new(None).unwrap();
        let (height, width, channels) = (7, 9, 21);
        let data: Vec<f32> = (0..2 * height * width * channels)
            .map(|i| 1.0 + i as f32)
            .collect();
        let source = Source {
            data: &data,
            height,
            width,
            channels,
        };
        for (kernel, stride, origin) in [
            ([3, 3], [1, 1], [-1, -1]),
            ([3, 2], [2, 3], [-2, 0]),
            ([1, 1], [3, 2], [0, 0]),
            ([5, 1], [2, 1], [-4, 2]),
        ] {
            let window = ConvWindow {
                kernel,
                stride,
                origin,
                unrolled: None,
            };
            let strip = Strip {
                image: 1,
                rows: [1, 4],
                columns: [1, 3],
            };
            let layout = StripLayout::new(window, strip.height(), strip.width());
            let (first, count) = (2, 18);
            let mut out = vec![f32::NAN; layout.len(count)];
            ctx.dispatch(Gather(&source, layout, strip, first, count, &mut out));
            for (y, x) in (0..3).flat_map(|y| (0..2).map(move |x| (y, x))) {
                for (ky, kx) in (0..kernel[0]).flat_map(|y| (0..kernel[1]).map(move |x| (y, x))) {
                    for c in 0..count {
                        let iy = ((1 + y) * stride[0] + ky) as isize + origin[0];
                        let ix = ((1 + x) * stride[1] + kx) as isize + origin[1];
                        let inside =
                            (0..height as isize).contains(&iy) && (0..width as isize).contains(&ix);
                        let expected = if inside {
                            let pixel = (height + iy as usize) * width + ix as usize;
                            data[pixel * channels + first + c]
                        } else {
                            0.0
                        };
                        let at = c / BLOCK * layout.plane
                            + y * layout.row
                            + x * BLOCK
                            + layout.tap(ky, kx)
                            + c % BLOCK;
                        assert_eq!(out[at], expected, "{window:?} {y} {x} {ky} {kx} {c}");
                    }
                }
            }
        }
    }
}
