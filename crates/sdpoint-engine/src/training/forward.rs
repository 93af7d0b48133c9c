//! The forward pass with batch statistics, for training and calibration.

use sdpoint_core::{LayerId, Weights};
use sdpoint_kernels::{Context, norm as batch_norm};

use super::noise::Masks;
use super::plan::StepPlan;
use crate::Base;
use crate::arena::Arena;
use crate::forward::{Executor, FoldedNorm, ForwardMode};
use crate::lower::{Mask, Node};
use crate::packed::PackedLayers;
use crate::parameters::{ParameterTable, Parameters};

/// The state of forward passes that normalise with the batch's own statistics:
/// weights, memory, and results saved for the backward pass.
#[derive(Debug)]
pub(crate) struct BatchPass {
    pub base: Base,
    pub table: ParameterTable,
    pub packed: PackedLayers,
    pub saved: Saved,
    pub arena: Arena,
}

/// The results that a forward pass saves outside of the arena.
#[derive(Debug)]
pub(crate) struct Saved {
    /// The batch statistics of each batch norm, in the order of
    /// `Network::norms`.
    pub norms: Vec<NormState>,
    /// The argmax of each window of each max pool, by layer; none if no
    /// backward pass follows.
    pub argmax: Option<Vec<Vec<u32>>>,
    /// The masks of training noise, if enabled.
    pub masks: Option<Masks>,
}

/// The statistics of the last batch in one batch norm, and its scale and shift
/// folded with them.
#[derive(Clone, Debug)]
pub(crate) struct NormState {
    pub mean: Vec<f32>,
    /// The biased variance, as used for normalisation.
    pub var: Vec<f32>,
    pub inverse_std: Vec<f32>,
    folded: FoldedNorm,
    /// The number of pixels of the whole batch.
    pub pixels: usize,
}

impl BatchPass {
    /// Packs the weights. `backward` says whether backward passes will follow.
    pub fn new(base: Base, weights: &Weights, backward: bool) -> Self {
        let Base { ctx, network } = &base;
        let table = ParameterTable::new(network);
        let norms = network.norms();
        let norms = norms.iter().map(|norm| NormState::new(norm.channels));
        Self {
            packed: PackedLayers::new(ctx, network, &table, weights, backward),
            saved: Saved {
                norms: norms.collect(),
                argmax: backward.then(|| vec![Vec::new(); network.layers().len()]),
                masks: None,
            },
            arena: Arena::default(),
            table,
            base,
        }
    }

    /// The size in bytes of the packed weights, argmaxes and masks.
    pub fn bytes(&self) -> usize {
        let argmax = self.saved.argmax.iter().flatten();
        let argmax = argmax.map(|indices| size_of_val(indices.as_slice()));
        let masks = self.saved.masks.iter().map(Masks::bytes);
        self.packed.bytes() + argmax.chain(masks).sum::<usize>()
    }

    /// Packs new weights into the same buffers.
    pub fn repack(&mut self, weights: &Weights) {
        self.packed.repack(&self.base.ctx, &self.table, weights);
    }

    /// Executes all nodes of a plan. The results stay in the arena. `on_node` is
    /// called after each node.
    pub fn run(
        &mut self,
        plan: &StepPlan,
        parameters: Parameters<'_>,
        images: &[f32],
        mut on_node: impl FnMut(&Node),
    ) {
        self.arena.reserve(plan.placement.layout.len());
        let mut executor = Executor {
            ctx: &self.base.ctx,
            packed: &self.packed,
            placement: &plan.placement,
            images,
            arena: &mut self.arena,
            mode: BatchStatistics {
                saved: &mut self.saved,
                table: &self.table,
                parameters,
            },
        };
        for node in &plan.placement.lowered.nodes {
            executor.node(node);
            on_node(node);
        }
    }
}

/// The mode of training and calibration: batch norms use the statistics of the
/// batch.
struct BatchStatistics<'a> {
    saved: &'a mut Saved,
    table: &'a ParameterTable,
    parameters: Parameters<'a>,
}

impl ForwardMode for BatchStatistics<'_> {
    fn bias(&self, layer: LayerId) -> Option<&[f32]> {
        let bias = self.table.bias(layer);
        bias.map(|index| self.parameters.get(index))
    }

    fn observe(&mut self, ctx: &Context, layer: LayerId, norm: usize, eps: f32, x: &[f32]) {
        let gamma = self.parameters.get(self.table.weight(layer));
        let beta = self.table.bias(layer).expect("every norm has a shift");
        let beta = self.parameters.get(beta);
        self.saved.norms[norm].observe(ctx, x, eps, gamma, beta);
    }

    fn norm(&self, norm: usize) -> &FoldedNorm {
        &self.saved.norms[norm].folded
    }

    fn argmax(&mut self, layer: LayerId) -> Option<&mut Vec<u32>> {
        self.saved
            .argmax
            .as_mut()
            .map(|layers| &mut layers[layer.0])
    }

    fn mask(&mut self, site: usize, mask: Mask, images: usize, x: &[f32], y: &mut [f32]) {
        let masks = self.saved.masks.as_mut();
        let masks = masks.expect("a plan with noise has masks");
        masks.draw(site, mask, images, y.len());
        masks.apply(site, x, false, y);
    }
}

impl NormState {
    fn new(channels: usize) -> Self {
        let zeros = || vec![0.0; channels];
        Self {
            mean: zeros(),
            var: zeros(),
            inverse_std: zeros(),
            folded: FoldedNorm::zeros(channels),
            pixels: 0,
        }
    }

    fn observe(&mut self, ctx: &Context, x: &[f32], eps: f32, gamma: &[f32], beta: &[f32]) {
        batch_norm::batch_statistics(ctx, x, gamma.len(), &mut self.mean, &mut self.var);
        batch_norm::inverse_std(&self.var, eps, &mut self.inverse_std);
        batch_norm::fold(
            gamma,
            beta,
            &self.mean,
            &self.var,
            eps,
            &mut self.folded.scale,
            &mut self.folded.shift,
        );
        self.pixels = x.len() / gamma.len();
    }
}
