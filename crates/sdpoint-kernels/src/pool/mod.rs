//! Maximum and average pooling, forward and backward, over sliding windows or
//! windows that divide the input evenly (adaptive pooling).
//!
//! Both directions gather: forward, an output pixel reads its window; backward,
//! an input pixel reads the outputs whose windows contain it. So no two threads
//! write the same pixel. Vectors span the channels of a pixel.

mod average;
mod max;
#[cfg(test)]
mod tests;
mod walk;

use std::ops::Range;

use crate::context::Context;

pub use average::{average_pool, average_pool_backward};
pub use max::{max_pool, max_pool_backward, max_pool_with_indices};

/// The windows along one axis of an image.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolAxis {
    input: usize,
    /// For each output, the inputs of its window, without padding.
    windows: Vec<Range<usize>>,
    /// For each output, the reciprocal of the length that an average divides by.
    weights: Vec<f32>,
    /// For each input, the outputs whose windows contain it: a contiguous range,
    /// as windows start and end in the order of their outputs.
    covering: Vec<Range<usize>>,
}

impl PoolAxis {
    /// Windows of `kernel` inputs with a stride of `stride`, over `input` inputs
    /// with `padding` on both sides: `(input + 2 padding - kernel) / stride + 1`
    /// outputs. Averages include the padding, as zeros.
    ///
    /// # Panics
    /// If `kernel` or `stride` is 0, `padding` is more than half of `kernel`
    /// (a window could consist of padding only), or no window fits.
    pub fn sliding(input: usize, kernel: usize, stride: usize, padding: usize) -> Self {
        assert!(
            kernel > 0 && stride > 0,
            "windows of {kernel} inputs, {stride} apart"
        );
        assert!(
            padding <= kernel / 2,
            "padding {padding} for windows of {kernel} inputs"
        );
        assert!(
            input > 0 && kernel <= input + 2 * padding,
            "no window of {kernel} fits {input} inputs with padding {padding}"
        );
        let output = (input + 2 * padding - kernel) / stride + 1;
        let windows = (0..output)
            .map(|o| {
                let start = o * stride;
                start.saturating_sub(padding)..(start + kernel - padding).min(input)
            })
            .collect();
        Self::new(input, windows, vec![1.0 / kernel as f32; output])
    }

    /// `output` windows that divide `input` evenly: window i covers
    /// `floor(i * input / output)` up to, not including,
    /// `ceil((i + 1) * input / output)`, so that neighbouring windows may overlap.
    ///
    /// # Panics
    /// If either is 0.
    pub fn adaptive(input: usize, output: usize) -> Self {
        assert!(
            input > 0 && output > 0,
            "{output} windows over {input} inputs"
        );
        let windows: Vec<_> = (0..output)
            .map(|i| i * input / output..((i + 1) * input).div_ceil(output))
            .collect();
        let weights = windows
            .iter()
            .map(|window| 1.0 / window.len() as f32)
            .collect();
        Self::new(input, windows, weights)
    }

    fn new(input: usize, windows: Vec<Range<usize>>, weights: Vec<f32>) -> Self {
        let covering = (0..input)
            .map(|i| {
                let start = windows.partition_point(|window| window.end <= i);
                start..windows.partition_point(|window| window.start <= i)
            })
            .collect();
        Self {
            input,
            windows,
            weights,
            covering,
        }
    }

    /// Number of inputs.
    pub fn input(&self) -> usize {
        self.input
    }

    /// Number of outputs.
    pub fn output(&self) -> usize {
        self.windows.len()
    }
}

/// The shape of a pooling from `[batch, height.input(), width.input(),
/// channels]` to `[batch, height.output(), width.output(), channels]`.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolGeometry {
    /// Images.
    pub batch: usize,
    /// Channels of each pixel.
    pub channels: usize,
    /// Windows over the rows of an image.
    pub height: PoolAxis,
    /// Windows over the columns of an image.
    pub width: PoolAxis,
}

impl PoolGeometry {
    /// Values in the input.
    pub fn input_len(&self) -> usize {
        self.batch * self.height.input() * self.width.input() * self.channels
    }

    /// Values in the output.
    pub fn output_len(&self) -> usize {
        self.batch * self.height.output() * self.width.output() * self.channels
    }

    fn check(&self, input: usize, output: usize) {
        assert_eq!(input, self.input_len(), "length of the pooling's input");
        assert_eq!(output, self.output_len(), "length of the pooling's output");
    }

    /// Rows per task, when input or output has `rows` rows in all images: about
    /// 32768 values of the larger of the two.
    fn task_rows(&self, rows: usize) -> usize {
        let row = self.input_len().max(self.output_len()) / rows.max(1);
        (32 * 1024 / row.max(1)).max(1)
    }

    /// Runs `f(rows, chunk of y)` for ranges of output rows, counted over all
    /// images, on all threads.
    fn parallel_output_rows(
        &self,
        ctx: &Context,
        y: &mut [f32],
        f: impl Fn(Range<usize>, &mut [f32]) + Sync,
    ) {
        let rows = self.batch * self.height.output();
        parallel_rows(ctx, y, rows, self.task_rows(rows), f);
    }

    /// As [`PoolGeometry::parallel_output_rows`], for input rows.
    fn parallel_input_rows(
        &self,
        ctx: &Context,
        dx: &mut [f32],
        f: impl Fn(Range<usize>, &mut [f32]) + Sync,
    ) {
        let rows = self.batch * self.height.input();
        parallel_rows(ctx, dx, rows, self.task_rows(rows), f);
    }
}

fn parallel_rows(
    ctx: &Context,
    values: &mut [f32],
    rows: usize,
    task_rows: usize,
    f: impl Fn(Range<usize>, &mut [f32]) + Sync,
) {
    if values.is_empty() {
        return;
    }
    let row_len = values.len() / rows;
    ctx.parallel_chunks(values, task_rows * row_len, |task, chunk| {
        let start = task * task_rows;
        f(start..start + chunk.len() / row_len, chunk);
    });
}
