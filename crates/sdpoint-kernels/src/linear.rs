//! Fully connected layers, computed as 1×1 convolutions of images of one pixel.

use crate::context::Context;
use crate::conv::{
    ConvGeometry, ConvShape, Epilogue, PackedConv, PackedConvTranspose, conv_backward_data,
    conv_backward_weights, conv_forward,
};

fn geometry(inputs: usize, outputs: usize) -> ConvGeometry {
    ConvGeometry {
        in_channels: inputs,
        out_channels: outputs,
        kernel: [1, 1],
        stride: [1, 1],
        padding: [0, 0],
        groups: 1,
    }
}

/// The convolution that computes a linear layer with `inputs` and `outputs` features for a batch.
pub fn linear_shape(batch: usize, inputs: usize, outputs: usize) -> ConvShape {
    shape(geometry(inputs, outputs), batch)
}

fn shape(geometry: ConvGeometry, batch: usize) -> ConvShape {
    ConvShape {
        geometry,
        batch,
        in_height: 1,
        in_width: 1,
    }
}

/// A linear layer's weights `[outputs, inputs]`, packed for [`linear_forward`] and, if trained,
/// [`linear_backward_data`].
#[derive(Clone, Debug)]
pub struct PackedLinear {
    forward: PackedConv,
    transpose: Option<PackedConvTranspose>,
}

impl PackedLinear {
    /// Packs `weights` (`[outputs, inputs]`) for the forward pass and, if `trained`, for the
    /// backward pass.
    ///
    /// # Panics
    ///
    /// If `inputs` or `outputs` is zero, or the number of weights is not their product.
    pub fn new(
        ctx: &Context,
        inputs: usize,
        outputs: usize,
        weights: &[f32],
        trained: bool,
    ) -> Self {
        let geometry = geometry(inputs, outputs);
        PackedLinear {
            forward: PackedConv::new(ctx, geometry, weights),
            transpose: trained.then(|| PackedConvTranspose::new(ctx, geometry, weights)),
        }
    }

    /// Replaces the weights, reusing the packed memory.
    pub fn repack(&mut self, ctx: &Context, weights: &[f32]) {
        self.forward.repack(ctx, weights);
        if let Some(transpose) = &mut self.transpose {
            transpose.repack(ctx, weights);
        }
    }

    /// Bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        self.forward.bytes()
            + self
                .transpose
                .as_ref()
                .map_or(0, PackedConvTranspose::bytes)
    }
}

/// Computes `y[n, o] = Σ x[n, i] w[o, i] + bias[o]`.
///
/// # Panics
///
/// If a length does not fit the layer and `batch`.
pub fn linear_forward(
    ctx: &Context,
    batch: usize,
    x: &[f32],
    w: &PackedLinear,
    bias: Option<&[f32]>,
    y: &mut [f32],
) {
    let epilogue = Epilogue {
        shift: bias,
        ..Epilogue::default()
    };
    conv_forward(
        ctx,
        &shape(*w.forward.geometry(), batch),
        x,
        &w.forward,
        epilogue,
        y,
    );
}

/// Computes `dx[n, i] = Σ dy[n, o] w[o, i]`, or adds it to `dx` if `accumulate`.
///
/// # Panics
///
/// If a length does not fit the layer and `batch`, or the layer was packed without `trained`.
pub fn linear_backward_data(
    ctx: &Context,
    batch: usize,
    dy: &[f32],
    w: &PackedLinear,
    dx: &mut [f32],
    accumulate: bool,
) {
    let transpose = w.transpose.as_ref().expect("a layer packed as trained");
    conv_backward_data(
        ctx,
        &shape(*transpose.geometry(), batch),
        dy,
        transpose,
        dx,
        accumulate,
    );
}

/// Computes `dw[o, i] = Σ dy[n, o] x[n, i]` and `db[o] = Σ dy[n, o]`, or adds them to `dw` and `db`
/// if `accumulate`.
///
/// # Panics
///
/// If a length does not fit `shape`, which [`linear_shape`] makes.
pub fn linear_backward_weights(
    ctx: &Context,
    shape: &ConvShape,
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
    db: Option<&mut [f32]>,
    accumulate: bool,
) {
    conv_backward_weights(ctx, shape, x, dy, dw, accumulate);
    let outputs = shape.geometry.out_channels;
    if let Some(db) = db {
        assert_eq!(db.len(), outputs, "bias gradient: one float per output");
        if !accumulate {
            db.fill(0.0);
        }
        for row in dy.chunks_exact(outputs) {
            for (db, dy) in db.iter_mut().zip(row) {
                *db += dy;
            }
        }
    }
}
