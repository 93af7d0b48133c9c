//! The forward pass with batch statistics, as training and calibration have it.

use sdpoint_core::{LayerId, Weights};
use sdpoint_kernels::{Context, norm as batch_norm};

use super::noise::Masks;
use super::plan::Plan;
use crate::Base;
use crate::arena::Arena;
use crate::forward::{Executor, Folded, Mode};
use crate::lower::{Mask, Node};
use crate::packed::PackedLayers;
use crate::parameters::ParameterTable;

/// What a forward pass works with, and what it leaves behind.
#[derive(Debug)]
pub(crate) struct BatchPass {
    pub base: Base,
    pub table: ParameterTable,
    pub packed: PackedLayers,
    pub saved: Saved,
    pub arena: Arena,
}

/// What a forward pass saves outside of the arena.
#[derive(Debug)]
pub(crate) struct Saved {
    /// What each batch norm saw, in the order of `Network::norms`.
    pub norms: Vec<BatchNorm>,
    /// The place of the largest input of each window of a max pool, by
    /// layer; none where no backward pass follows.
    pub argmax: Option<Vec<Vec<u32>>>,
    /// Training's noise, if there is any.
    pub masks: Option<Masks>,
}

/// A batch norm's statistics of the last batch, and what they fold into.
#[derive(Clone, Debug)]
pub(crate) struct BatchNorm {
    pub mean: Vec<f32>,
    /// Biased, as normalisation uses it.
    pub var: Vec<f32>,
    pub inverse_std: Vec<f32>,
    folded: Folded,
    /// Pixels of all images together.
    pub pixels: usize,
}

impl BatchPass {
    /// `trained` says whether backward passes will follow.
    pub fn new(base: Base, weights: &Weights, trained: bool) -> Self {
        let Base { ctx, network } = &base;
        let table = ParameterTable::new(network);
        let norms = network.norms();
        let norms = norms.iter().map(|norm| BatchNorm::new(norm.channels));
        Self {
            packed: PackedLayers::new(ctx, network, &table, weights, trained),
            saved: Saved {
                norms: norms.collect(),
                argmax: trained.then(|| vec![Vec::new(); network.layers().len()]),
                masks: None,
            },
            arena: Arena::default(),
            table,
            base,
        }
    }

    /// Bytes of the packed weights, and of what is saved besides tensors.
    pub fn bytes(&self) -> usize {
        let argmax = self.saved.argmax.iter().flatten();
        let argmax = argmax.map(|places| size_of_val(places.as_slice()));
        let masks = self.saved.masks.iter().map(Masks::bytes);
        self.packed.bytes() + argmax.chain(masks).sum::<usize>()
    }

    /// Takes new weights.
    pub fn repack(&mut self, weights: &Weights) {
        self.packed.repack(&self.base.ctx, &self.table, weights);
    }

    /// Runs all nodes of a plan; the results stay in the arena. `done` is called after each.
    pub fn run(
        &mut self,
        plan: &Plan,
        weights: &Weights,
        images: &[f32],
        mut done: impl FnMut(&Node),
    ) {
        self.arena.reserve(plan.placement.layout.len());
        let mut executor = Executor {
            ctx: &self.base.ctx,
            packed: &self.packed,
            placement: &plan.placement,
            images,
            arena: &mut self.arena,
            mode: OfBatch {
                saved: &mut self.saved,
                table: &self.table,
                weights,
            },
        };
        for node in &plan.placement.lowered.nodes {
            executor.node(node);
            done(node);
        }
    }
}

/// A forward pass with the statistics of its batch.
struct OfBatch<'a> {
    saved: &'a mut Saved,
    table: &'a ParameterTable,
    weights: &'a Weights,
}

impl Mode for OfBatch<'_> {
    fn bias(&self, layer: LayerId) -> Option<&[f32]> {
        self.table.bias(layer).map(|b| self.weights.0[b].as_slice())
    }

    fn observe(&mut self, ctx: &Context, layer: LayerId, norm: usize, eps: f32, x: &[f32]) {
        let gamma = &self.weights.0[self.table.weight(layer)];
        let beta = self.table.bias(layer).expect("every norm has a shift");
        self.saved.norms[norm].observe(ctx, x, eps, gamma, &self.weights.0[beta]);
    }

    fn norm(&self, norm: usize) -> &Folded {
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
        let masks = masks.expect("noise comes with its masks");
        masks.draw(site, mask, images, y.len());
        masks.apply(site, x, false, y);
    }
}

impl BatchNorm {
    fn new(channels: usize) -> Self {
        let zeros = || vec![0.0; channels];
        Self {
            mean: zeros(),
            var: zeros(),
            inverse_std: zeros(),
            folded: Folded::zeros(channels),
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
