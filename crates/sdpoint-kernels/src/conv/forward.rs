//! The forward pass.

use super::epilogue::{Addend, Finish, SecondFinish};
use super::gather::Source;
use super::geometry::{ConvGeometry, ConvShape, Flattened};
use super::grouped::Merged;
use super::pack::{Kernels, PackedWeights};
use super::product::{OutputLayout, Product};
use super::{Epilogue, Residual, assert_len};
use crate::context::Context;
use crate::shared_mut::SharedMut;

/// A convolution's weights, laid out for [`conv_forward`] on one instruction set; any batch
/// and any input size use the same copy.
#[derive(Clone, Debug)]
pub struct PackedConv {
    geometry: ConvGeometry,
    weights: PackedWeights,
}

impl PackedConv {
    /// Packs `weights`, in the order output channel, input channel, row, column.
    pub fn new(ctx: &Context, geometry: ConvGeometry, weights: &[f32]) -> Self {
        geometry.assert_valid();
        let merged = Merged::new(&geometry);
        let mut packed = PackedConv {
            geometry,
            weights: PackedWeights::zeros(
                ctx,
                merged.forward_layout(ctx, &geometry),
                &geometry,
                geometry.kernel,
                geometry.stride,
            ),
        };
        packed.repack(ctx, weights);
        packed
    }

    /// Replaces the weights without allocating.
    pub fn repack(&mut self, ctx: &Context, weights: &[f32]) {
        assert_len("weights", weights.len(), self.geometry.weight_len());
        let merged = Merged::new(&self.geometry);
        let geometry = &self.geometry;
        let [height, width] = geometry.kernel;
        let taps = geometry.taps();
        let channels = geometry.in_channels;
        let unrolls = geometry.unrolls();
        let offsets: Vec<usize> = if unrolls {
            (0..height).map(|row| row * width).collect()
        } else {
            (0..taps).collect()
        };
        self.weights.fill(
            ctx,
            &Kernels {
                weights,
                taps: &offsets,
                place: |output: usize, input: usize| {
                    let (input, column) = if unrolls {
                        (input % channels, input / channels)
                    } else {
                        (input, 0)
                    };
                    Some(merged.kernel_index(output, input)? * taps + column)
                },
            },
        );
    }

    /// The convolution.
    pub fn geometry(&self) -> &ConvGeometry {
        &self.geometry
    }

    /// Whether the output may hold the residual ([`Residual::Output`]): only where no part of
    /// a sum waits there for the rest.
    pub fn adds_in_place(&self, ctx: &Context, shape: &ConvShape) -> bool {
        let Flattened {
            batch,
            joined,
            output,
            ..
        } = shape.flattened();
        self.weights.sums_in_registers(ctx, batch, joined, output)
    }

    /// Memory that the packed weights take.
    pub fn bytes(&self) -> usize {
        self.weights.bytes()
    }
}

/// Convolves `x` with `w` and stores the epilogue's result in `y`.
///
/// # Panics
///
/// If a length does not fit `shape`, or `w` is of another geometry or instruction set.
pub fn conv_forward(
    ctx: &Context,
    shape: &ConvShape,
    x: &[f32],
    w: &PackedConv,
    epilogue: Epilogue<'_>,
    y: &mut [f32],
) {
    let geometry = &shape.geometry;
    assert_eq!(
        *geometry, w.geometry,
        "weights packed for another convolution"
    );
    w.weights.assert_packed_for(ctx);
    assert_len("input", x.len(), shape.input_len());
    assert_len("output", y.len(), shape.output_len());
    let channels = geometry.out_channels;
    for part in [epilogue.scale, epilogue.shift].into_iter().flatten() {
        assert_len("scale or shift", part.len(), channels);
    }
    let second = epilogue.second.map(|second| {
        assert_len("second scale", second.scale.len(), channels);
        assert_len("second shift", second.shift.len(), channels);
        assert_len("second output", second.out.len(), y.len());
        SecondFinish {
            scale: second.scale,
            shift: second.shift,
            activation: second.activation,
            out: SharedMut::new(second.out),
        }
    });
    let output = SharedMut::new(y);
    let residual = epilogue.residual.map(|residual| match residual {
        Residual::Tensor(tensor) => {
            assert_len("residual", tensor.len(), output.len());
            Addend::Tensor(tensor)
        }
        Residual::Output => {
            assert!(w.adds_in_place(ctx, shape), "sums overwrite the residual");
            Addend::Output(output)
        }
    });
    let finish = Finish {
        scale: epilogue.scale,
        shift: epilogue.shift,
        residual,
        activation: epilogue.activation,
        second,
    };

    let Flattened {
        batch,
        joined,
        input: [height, width],
        output: grid,
    } = shape.flattened();
    Product {
        source: Source {
            data: x,
            height,
            width,
            channels: geometry.in_channels,
        },
        window: geometry.window(),
        weights: &w.weights,
        batch,
        joined,
        grid,
        output,
        layout: OutputLayout {
            offset: 0,
            image: grid[0] * grid[1] * channels,
            row: grid[1] * channels,
            pixel: channels,
        },
        accumulate: false,
        finish,
    }
    .run(ctx);
}
