//! The tiles that cover a grid of outputs, and the input transform.

use std::ops::Range;

use rten_simd::Isa;
use rten_simd::ops::BitOps;

use super::transforms::Transforms;
use crate::conv::gather::{BLOCK, Source};
use crate::shared_mut::SharedMut;

/// The tiles that cover a grid of outputs, numbered through all images.
#[derive(Clone, Copy)]
pub(super) struct Tiles {
    /// Rows and columns of the grid of outputs.
    pub grid: [usize; 2],
    /// Row and column of the first input of output (0, 0): minus the padding.
    pub origin: [isize; 2],
    /// Rows of outputs of a tile, and columns.
    pub outputs: usize,
}

impl Tiles {
    fn per_image(&self) -> [usize; 2] {
        self.grid.map(|size| size.div_ceil(self.outputs))
    }

    pub fn count(&self, batch: usize) -> usize {
        let [rows, columns] = self.per_image();
        batch * rows * columns
    }

    /// Image, row and column of a tile's first output.
    #[inline(always)]
    pub fn position(&self, tile: usize) -> [usize; 3] {
        let [rows, columns] = self.per_image();
        let (tile, column) = (tile / columns, tile % columns);
        [
            tile / rows,
            tile % rows * self.outputs,
            column * self.outputs,
        ]
    }

    /// The position of the tile after the one at a position.
    #[inline(always)]
    pub(super) fn after(&self, [image, row, column]: [usize; 3]) -> [usize; 3] {
        if column + self.outputs < self.grid[1] {
            [image, row, column + self.outputs]
        } else if row + self.outputs < self.grid[0] {
            [image, row + self.outputs, 0]
        } else {
            [image + 1, 0, 0]
        }
    }
}

/// The rows of output pixels of consecutive tiles, divided evenly among the calls of the
/// micro-kernel (steps) that prefetch them.
pub(super) struct TileRows<'a> {
    tiles: &'a Tiles,
    /// The first pixel of the current tile.
    position: [usize; 3],
    /// The next row of the current tile.
    row: usize,
    /// Remaining rows and steps.
    rows: usize,
    steps: usize,
}

impl<'a> TileRows<'a> {
    #[inline(always)]
    pub fn over(tiles: &'a Tiles, range: Range<usize>, steps: usize) -> Self {
        TileRows {
            tiles,
            position: tiles.position(range.start),
            row: 0,
            rows: range.len() * tiles.outputs,
            steps,
        }
    }

    /// The rows of the next step: image, row and first column of each, which may be beyond the
    /// image.
    #[inline(always)]
    pub fn next(&mut self) -> impl Iterator<Item = [usize; 3]> {
        let share = self.rows.div_ceil(self.steps);
        self.rows -= share;
        self.steps = 1.max(self.steps - 1);
        (0..share).map(|_| {
            let [image, row, column] = self.position;
            let next = [image, row + self.row, column];
            self.row += 1;
            if self.row == self.tiles.outputs {
                self.row = 0;
                self.position = self.tiles.after(self.position);
            }
            next
        })
    }
}

/// Strides of the transformed inputs `[point][channel block][tile][BLOCK]`, in floats.
#[derive(Clone, Copy)]
pub(super) struct TransformedLayout {
    /// Between channel blocks.
    pub plane: usize,
    /// Between points.
    pub point: usize,
    points: usize,
}

impl TransformedLayout {
    pub fn new(points: usize, channels: usize, tiles: usize) -> Self {
        let plane = tiles * BLOCK;
        // An odd number of cache lines, so that a tile's points map to different sets of the
        // caches.
        let point = (channels.div_ceil(BLOCK) * plane) | BLOCK;
        TransformedLayout {
            plane,
            point,
            points,
        }
    }

    pub fn len(&self) -> usize {
        self.points * self.point
    }
}

/// Where [`transform_input_tiles`] stores transformed tiles: one slot each.
pub(super) struct Slots<'a> {
    pub layout: &'a TransformedLayout,
    /// The slot of the first tile.
    pub first: usize,
    pub out: SharedMut<'a, f32>,
}

/// Transforms the channels `of` of the inputs of tiles `range` into `slots`. In the last channel
/// block, unused lanes are zero. No other thread may access these slots meanwhile.
#[inline(always)]
pub(super) fn transform_input_tiles<I: Isa, F: Transforms<M, N>, const M: usize, const N: usize>(
    isa: I,
    source: &Source<'_>,
    of: Range<usize>,
    tiles: &Tiles,
    range: Range<usize>,
    slots: Slots<'_>,
) {
    let Slots {
        layout,
        first: slot,
        out,
    } = slots;
    let channels = source.channels;
    assert!(tiles.outputs == M && layout.points == N * N);
    assert!(out.len() >= layout.len() && (slot + range.len()) * BLOCK <= layout.plane);
    let mut padded = [[[0.0_f32; BLOCK]; N]; N];
    let mut position = tiles.position(range.start);
    for i in 0..range.len() {
        let [image, row, column] = position;
        position = tiles.after(position);
        let y = row as isize + tiles.origin[0];
        let x = column as isize + tiles.origin[1];
        let rows = inside::<N>(y, source.height);
        let columns = inside::<N>(x, source.width);
        let whole = rows.len() == N && columns.len() == N;
        let pixel = |r: usize, c: usize| {
            let y = image * source.height + (y + r as isize) as usize;
            (y * source.width + (x + c as isize) as usize) * channels
        };
        for (block, first) in of.clone().step_by(BLOCK).enumerate() {
            let to = out
                .as_ptr()
                .wrapping_add(block * layout.plane + (slot + i) * BLOCK);
            if first + BLOCK <= of.end && !rows.is_empty() && !columns.is_empty() {
                // From the first to the last pixel that exists.
                let start = pixel(rows.start, columns.start) + first;
                let end = pixel(rows.end - 1, columns.end - 1) + first + BLOCK;
                let patch = Patch {
                    start: source.data[start..end].as_ptr(),
                    row: source.width * channels,
                    pixel: channels,
                    rows: rows.clone(),
                    columns: columns.clone(),
                };
                // SAFETY: the pixels that exist are readable as the bounds of the slice show,
                // and `out` holds `BLOCK` floats of every tile at every point.
                unsafe {
                    if whole {
                        transform_patch::<I, F, M, N, true>(isa, &patch, to, layout.point);
                    } else {
                        transform_patch::<I, F, M, N, false>(isa, &patch, to, layout.point);
                    }
                }
                continue;
            }
            let count = BLOCK.min(of.end - first);
            for r in 0..N {
                for c in 0..N {
                    let to = &mut padded[r][c];
                    *to = [0.0; BLOCK];
                    if rows.contains(&r) && columns.contains(&c) {
                        to[..count].copy_from_slice(&source.data[pixel(r, c) + first..][..count]);
                    }
                }
            }
            let patch = Patch {
                start: padded.as_ptr().cast(),
                row: N * BLOCK,
                pixel: BLOCK,
                rows: 0..N,
                columns: 0..N,
            };
            // SAFETY: the patch is all of `padded`; `out` as above.
            unsafe { transform_patch::<I, F, M, N, true>(isa, &patch, to, layout.point) };
        }
    }
}

/// One channel block of the inputs of a tile.
struct Patch {
    /// The first pixel that exists.
    start: *const f32,
    /// Stride between rows, in floats.
    row: usize,
    /// Stride between pixels, in floats.
    pixel: usize,
    /// The rows and columns that exist; the others are padding, zero.
    rows: Range<usize>,
    columns: Range<usize>,
}

/// Transforms a patch; points are stored `point` floats apart. If `WHOLE`, all pixels exist.
///
/// # Safety
///
/// [`BLOCK`] floats of each pixel that exists must be readable, and of each point writable.
#[inline(always)]
unsafe fn transform_patch<
    I: Isa,
    F: Transforms<M, N>,
    const M: usize,
    const N: usize,
    const WHOLE: bool,
>(
    isa: I,
    patch: &Patch,
    to: *mut f32,
    point: usize,
) {
    let ops = isa.f32();
    let [top, left] = [patch.rows.start, patch.columns.start];
    for lane in (0..BLOCK).step_by(ops.len()) {
        let mut lines = [[ops.zero(); N]; N];
        for c in 0..N {
            let mut line = [ops.zero(); N];
            for r in 0..N {
                if WHOLE || patch.rows.contains(&r) && patch.columns.contains(&c) {
                    let at = (r - top) * patch.row + (c - left) * patch.pixel + lane;
                    // SAFETY: the caller's promise.
                    line[r] = unsafe { ops.load_ptr(patch.start.add(at)) };
                }
            }
            let line = F::transform_input(isa, line);
            for r in 0..N {
                lines[r][c] = line[r];
            }
        }
        for r in 0..N {
            let line = F::transform_input(isa, lines[r]);
            for c in 0..N {
                let at = (r * N + c) * point + lane;
                // SAFETY: the caller's promise.
                unsafe { ops.store_ptr(line[c], to.add(at)) };
            }
        }
    }
}

/// The range of a tile's `N` inputs that are in the image, along one axis, when the first is at
/// `start`.
#[inline(always)]
fn inside<const N: usize>(start: isize, size: usize) -> Range<usize> {
    let clamp = |x: isize| x.clamp(0, N as isize) as usize;
    let lo = clamp(-start);
    lo..clamp(size as isize - start).max(lo)
}
