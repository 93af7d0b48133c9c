//! Element-wise operations on whole arrays, and concatenation and slicing of
//! channels.

use std::ops::Range;

use rten_simd::ops::NumOps;
use rten_simd::{Isa, SimdOp};

use crate::activation::Activation;
use crate::context::Context;
use crate::lanes::{Expression, block, sweep};

/// `y = activation(x)`; NaN stays NaN, so that a diverging run is noticed.
///
/// # Panics
/// If the lengths differ.
pub fn activate(ctx: &Context, activation: Activation, x: &[f32], y: &mut [f32]) {
    sweep(ctx, Activate { activation }, [y], [x], []);
}

/// The gradient of [`activate`]: `dx = dy` where the output `y` lies strictly
/// between the activation's bounds, else 0; added to `dx` if `accumulate`.
///
/// # Panics
/// If the lengths differ.
pub fn activate_backward(
    ctx: &Context,
    activation: Activation,
    y: &[f32],
    dy: &[f32],
    accumulate: bool,
    dx: &mut [f32],
) {
    let expression = ActivateBackward {
        activation,
        accumulate,
    };
    sweep(ctx, expression, [dx], [y, dy], []);
}

/// `y = a + b`.
///
/// # Panics
/// If the lengths differ.
pub fn add(ctx: &Context, a: &[f32], b: &[f32], y: &mut [f32]) {
    sweep(ctx, Add, [y], [a, b], []);
}

/// `y += x`.
///
/// # Panics
/// If the lengths differ.
pub fn accumulate(ctx: &Context, x: &[f32], y: &mut [f32]) {
    sweep(ctx, Accumulate, [y], [x], []);
}

/// Concatenates arrays along the channels. Each input is given with its number
/// of channels; a pixel of `y` holds that pixel of each input in turn.
///
/// # Panics
/// If an input is not a whole number of pixels, or not as many as `y`.
pub fn concat_channels(ctx: &Context, inputs: &[(&[f32], usize)], y: &mut [f32]) {
    let channels = inputs.iter().map(|(_, channels)| channels).sum();
    let parts = inputs.iter().map(|&(x, channels)| (x.len(), channels));
    let pixels = check_parts(std::iter::once((y.len(), channels)).chain(parts));
    let task_pixels = task_pixels(channels);
    ctx.parallel_chunks(y, task_pixels * channels, |task, y| {
        let mut at = 0;
        let pixels = task * task_pixels..pixels.min((task + 1) * task_pixels);
        for &(x, width) in inputs {
            ctx.dispatch(CopyColumns {
                from: &x[pixels.start * width..pixels.end * width],
                from_columns: (0, width),
                to: &mut *y,
                to_columns: (at, channels),
                width,
                accumulate: false,
            });
            at += width;
        }
    });
}

/// Copies a range of the channels of each pixel of `x` to `y`, or adds them if
/// `accumulate`. This is the gradient of [`concat_channels`] with respect to
/// one of its inputs.
///
/// # Panics
/// If `x` is not a whole number of pixels of `channels` channels, `y` is not
/// as many, or the range is empty or exceeds the channels.
pub fn slice_channels(
    ctx: &Context,
    x: &[f32],
    channels: usize,
    range: Range<usize>,
    accumulate: bool,
    y: &mut [f32],
) {
    let width = range.len();
    assert!(
        width > 0 && range.end <= channels,
        "channels {range:?} of {channels}"
    );
    check_parts([(x.len(), channels), (y.len(), width)]);
    let task_pixels = task_pixels(channels);
    ctx.parallel_chunks(y, task_pixels * width, |task, y| {
        let start = task * task_pixels;
        ctx.dispatch(CopyColumns {
            from: &x[start * channels..(start + y.len() / width) * channels],
            from_columns: (range.start, channels),
            to: y,
            to_columns: (0, width),
            width,
            accumulate,
        });
    });
}

/// Pixels per task.
fn task_pixels(channels: usize) -> usize {
    (32 * 1024 / channels.max(1)).max(1)
}

/// The number of pixels of arrays given by length and channels.
///
/// # Panics
/// If they differ in it.
fn check_parts(arrays: impl IntoIterator<Item = (usize, usize)>) -> usize {
    let mut pixels = None;
    for (i, (len, channels)) in arrays.into_iter().enumerate() {
        assert!(
            channels > 0 && len.is_multiple_of(channels),
            "array {i}: {len} values are not whole pixels of {channels} channels"
        );
        let found = len / channels;
        let expected = *pixels.get_or_insert(found);
        assert_eq!(found, expected, "pixels of array {i} and of the first");
    }
    pixels.unwrap_or(0)
}

/// Copies or adds `width` channels of each pixel. `from_columns` and
/// `to_columns` are the first of them and the number of channels of the array.
struct CopyColumns<'a> {
    from: &'a [f32],
    from_columns: (usize, usize),
    to: &'a mut [f32],
    to_columns: (usize, usize),
    width: usize,
    accumulate: bool,
}

impl SimdOp for CopyColumns<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let (from_at, from_channels) = self.from_columns;
        let (to_at, to_channels) = self.to_columns;
        let from = self.from.chunks_exact(from_channels);
        for (from, to) in from.zip(self.to.chunks_exact_mut(to_channels)) {
            let from = &from[from_at..from_at + self.width];
            let to = &mut to[to_at..to_at + self.width];
            if self.accumulate {
                block(isa, Accumulate, [to], [from], []);
            } else {
                block(isa, Identity, [to], [from], []);
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Identity;

impl Expression<1, 1, 0> for Identity {
    #[inline(always)]
    fn eval<I: Isa>(self, _: I, _: [I::F32; 1], x: [I::F32; 1], _: [I::F32; 0]) -> [I::F32; 1] {
        x
    }
}

#[derive(Clone, Copy)]
struct Activate {
    activation: Activation,
}

impl Expression<1, 1, 0> for Activate {
    #[inline(always)]
    fn eval<I: Isa>(self, isa: I, _: [I::F32; 1], [x]: [I::F32; 1], _: [I::F32; 0]) -> [I::F32; 1] {
        [self.activation.of(isa, x)]
    }
}

#[derive(Clone, Copy)]
struct ActivateBackward {
    activation: Activation,
    accumulate: bool,
}

impl Expression<1, 2, 0> for ActivateBackward {
    #[inline(always)]
    fn eval<I: Isa>(
        self,
        isa: I,
        [old]: [I::F32; 1],
        [y, dy]: [I::F32; 2],
        _: [I::F32; 0],
    ) -> [I::F32; 1] {
        let dx = self.activation.gradient(isa, y, dy);
        [if self.accumulate {
            isa.f32().add(old, dx)
        } else {
            dx
        }]
    }
}

#[derive(Clone, Copy)]
struct Add;

impl Expression<1, 2, 0> for Add {
    #[inline(always)]
    fn eval<I: Isa>(
        self,
        isa: I,
        _: [I::F32; 1],
        [a, b]: [I::F32; 2],
        _: [I::F32; 0],
    ) -> [I::F32; 1] {
        [isa.f32().add(a, b)]
    }
}

#[derive(Clone, Copy)]
struct Accumulate;

impl Expression<1, 1, 0> for Accumulate {
    #[inline(always)]
    fn eval<I: Isa>(
        self,
        isa: I,
        [y]: [I::F32; 1],
        [x]: [I::F32; 1],
        _: [I::F32; 0],
    ) -> [I::F32; 1] {
        [isa.f32().add(y, x)]
    }
}
