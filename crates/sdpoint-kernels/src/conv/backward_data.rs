//! The backward pass to data: one product per [`Phase`] of the stride.

use super::assert_len;
use super::epilogue::TileEpilogue;
use super::execute::execute;
use super::gather::Source;
use super::geometry::{ConvGeometry, ConvShape, Flattened};
use super::kernels::Kernels;
use super::merge::Merged;
use super::pack::PackedWeights;
use super::problem::Phase;
use super::product::Product;
use crate::context::Context;
use crate::shared_mut::SharedMut;

/// A convolution's weights, transposed, flipped and packed for [`conv_backward_data`] on one
/// instruction set.
#[derive(Clone, Debug)]
pub struct PackedConvTranspose {
    geometry: ConvGeometry,
    /// Each with its weights, or `None` if it has no taps and its gradients are zero.
    phases: Vec<(Phase, Option<PackedWeights>)>,
}

impl PackedConvTranspose {
    /// Packs `weights`, `[out_channels, in_channels / groups, kernel height, kernel width]`.
    ///
    /// # Panics
    ///
    /// If the geometry has a size of zero, its groups do not divide its channels, or the number of
    /// weights does not fit it.
    pub fn new(ctx: &Context, geometry: ConvGeometry, weights: &[f32]) -> Self {
        geometry.assert_valid();
        let merged = Merged::new(&geometry);
        let phases = Phase::all(&geometry).map(|phase| {
            let weights = (phase.taps() > 0).then(|| {
                let layout = merged.backward_layout(ctx.isa(), phase.taps());
                PackedWeights::zeros(ctx, layout, &geometry, &phase.window(&geometry))
            });
            (phase, weights)
        });
        let mut packed = PackedConvTranspose {
            geometry,
            phases: phases.collect(),
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
        let geometry = &self.geometry;
        assert_len("weights", weights.len(), geometry.weight_len());
        let merged = Merged::new(geometry);
        for (phase, packed) in &mut self.phases {
            let Phase { remainder, kernel } = *phase;
            let Some(packed) = packed else { continue };
            let taps: Vec<usize> = (0..phase.taps())
                .map(|tap| {
                    let [ky, kx] = [tap / kernel[1], tap % kernel[1]];
                    let ky = remainder[0] + geometry.stride[0] * (kernel[0] - 1 - ky);
                    let kx = remainder[1] + geometry.stride[1] * (kernel[1] - 1 - kx);
                    ky * geometry.kernel[1] + kx
                })
                .collect();
            let place = |input: usize, output: usize| {
                let group = input / merged.group_in;
                let output = group * merged.group_out + output;
                let kernel = merged.kernel_index(output, input % merged.group_in)?;
                Some(kernel * geometry.taps())
            };
            packed.fill(
                ctx,
                &Kernels {
                    weights,
                    taps: &taps,
                    place,
                    stride: (!merged.merges()).then_some(merged.group_in * geometry.taps()),
                },
            );
        }
    }

    /// The convolution.
    pub fn geometry(&self) -> &ConvGeometry {
        &self.geometry
    }

    /// The phases that have taps.
    fn products(&self) -> impl Iterator<Item = (&Phase, &PackedWeights)> {
        let phases = self.phases.iter();
        phases.filter_map(|(phase, weights)| Some((phase, weights.as_ref()?)))
    }

    /// Bytes of the packed weights, in all forms made so far.
    pub fn bytes(&self) -> usize {
        self.products().map(|(_, weights)| weights.bytes()).sum()
    }
}

/// Computes the gradient `dx` with respect to the input (of the input's shape) from the gradient
/// `dy` with respect to the output. Adds it to the content of `dx` if `accumulate`, and replaces it
/// otherwise.
///
/// # Panics
///
/// If a length does not fit `shape`, or `w` was packed for another geometry, instruction set or
/// forced algorithm.
pub fn conv_backward_data(
    ctx: &Context,
    shape: &ConvShape,
    dy: &[f32],
    w: &PackedConvTranspose,
    dx: &mut [f32],
    accumulate: bool,
) {
    let geometry = &shape.geometry;
    assert_eq!(
        *geometry, w.geometry,
        "weights packed for another convolution"
    );
    assert_len("output gradient", dy.len(), shape.output_len());
    assert_len("input gradient", dx.len(), shape.input_len());
    let zeros = w.products().count() < w.phases.len();
    if !accumulate && zeros || dy.is_empty() {
        ctx.parallel_chunks(dx, 1 << 16, |_, chunk| chunk.fill(0.0));
    }
    if dy.is_empty() {
        return;
    }
    let Flattened {
        output: [height, width],
        ..
    } = shape.flattened();
    let output = SharedMut::new(dx);
    for (phase, weights) in w.products() {
        weights.assert_packed_for(ctx);
        let product = Product {
            problem: phase.problem(shape),
            source: Source {
                data: dy,
                height,
                width,
                channels: geometry.out_channels,
            },
            weights,
            output,
            accumulate,
            epilogue: TileEpilogue::default(),
        };
        execute(ctx, &product);
    }
}
