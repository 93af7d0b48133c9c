//! The forward pass.

use super::algorithm::ConvAlgorithm;
use super::epilogue::{Addend, SecondEpilogue, TileEpilogue};
use super::execute::execute;
use super::gather::Source;
use super::geometry::{ConvGeometry, ConvShape, Flattened};
use super::kernels::Kernels;
use super::merge::Merged;
use super::pack::PackedWeights;
use super::problem::Problem;
use super::product::Product;
use super::{Epilogue, Residual, assert_len, direct};
use crate::context::Context;
use crate::shared_mut::SharedMut;

/// A convolution's weights, packed for [`conv_forward`] on one instruction set. One copy serves any
/// batch and input size.
#[derive(Clone, Debug)]
pub struct PackedConv {
    geometry: ConvGeometry,
    weights: PackedWeights,
}

impl PackedConv {
    /// Packs `weights`, `[out_channels, in_channels / groups, kernel height, kernel width]`, in the
    /// forms that convolutions with this context need.
    ///
    /// # Panics
    ///
    /// If the geometry has a size of zero, its groups do not divide its channels, or the number of
    /// weights does not fit it.
    pub fn new(ctx: &Context, geometry: ConvGeometry, weights: &[f32]) -> Self {
        geometry.assert_valid();
        let merged = Merged::new(&geometry);
        let mut packed = PackedConv {
            geometry,
            weights: PackedWeights::zeros(
                ctx,
                merged.forward_layout(ctx.isa(), &geometry),
                &geometry,
                &geometry.window(),
            ),
        };
        packed.repack(ctx, weights);
        packed
    }

    /// Replaces the weights, reusing the packed memory.
    ///
    /// # Panics
    ///
    /// If the number of weights does not fit the geometry.
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
                stride: (!unrolls && !merged.merges()).then_some(taps),
            },
        );
    }

    /// The convolution.
    pub fn geometry(&self) -> &ConvGeometry {
        &self.geometry
    }

    /// The algorithm that computes a shape with these weights.
    pub fn algorithm(&self, shape: &ConvShape) -> ConvAlgorithm {
        self.weights.algorithm(&Problem::forward(shape))
    }

    /// Whether the output may hold the residual ([`Residual::Output`]): where the algorithm stores
    /// no partial sums in the output, which would overwrite it.
    pub fn adds_in_place(&self, shape: &ConvShape) -> bool {
        match self.algorithm(shape) {
            ConvAlgorithm::Direct => direct::product::parts(&self.weights) == 1,
            ConvAlgorithm::Grouped | ConvAlgorithm::Winograd(_) | ConvAlgorithm::Strassen => true,
        }
    }

    /// Bytes of the packed weights, in all forms made so far.
    pub fn bytes(&self) -> usize {
        self.weights.bytes()
    }
}

/// Convolves `x` (`[batch, in_height, in_width, in_channels]`) with `w`, applies the epilogue and
/// stores the result in `y` (`[batch, out_height, out_width, out_channels]`). Returns the algorithm
/// that computed it.
///
/// # Panics
///
/// If a length does not fit `shape`, `w` was packed for another geometry, instruction set or forced
/// algorithm, or the residual is [`Residual::Output`] where [`PackedConv::adds_in_place`] is false.
pub fn conv_forward(
    ctx: &Context,
    shape: &ConvShape,
    x: &[f32],
    w: &PackedConv,
    epilogue: Epilogue<'_>,
    y: &mut [f32],
) -> ConvAlgorithm {
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
        SecondEpilogue {
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
            assert!(w.adds_in_place(shape), "sums overwrite the residual");
            Addend::Output(output)
        }
    });
    let tile_epilogue = TileEpilogue {
        scale: epilogue.scale,
        shift: epilogue.shift,
        residual,
        activation: epilogue.activation,
        second,
    };

    let Flattened {
        input: [height, width],
        ..
    } = shape.flattened();
    let product = Product {
        problem: Problem::forward(shape),
        source: Source {
            data: x,
            height,
            width,
            channels: geometry.in_channels,
        },
        weights: &w.weights,
        output,
        accumulate: false,
        epilogue: tile_epilogue,
    };
    execute(ctx, &product)
}
