//! The forward pass with batch statistics, as training and calibration have it.

use sdpoint_core::{LayerId, Op, Weights};
use sdpoint_kernels as kernels;
use sdpoint_kernels::{Epilogue, PackedConv, PackedLinear, elementwise, norm as batch_norm, pool};

use super::noise::Masks;
use super::plan::{Buffer, Plan};
use crate::Base;
use crate::arena::{Arena, Reader};
use crate::lower::{Node, Work, geometry};
use crate::parameters::ParameterTable;

/// What a forward pass works with, and what it leaves behind.
#[derive(Debug)]
pub(crate) struct BatchPass {
    pub base: Base,
    pub table: ParameterTable,
    /// Packed weights of each layer.
    convs: Vec<Option<PackedConv>>,
    pub linears: Vec<Option<PackedLinear>>,
    /// What each batch norm saw, in the order of `Network::norms`.
    pub norms: Vec<BatchNorm>,
    pub arena: Arena,
    /// Which input won in each window of a max pool, by layer.
    pub winners: Vec<Vec<u32>>,
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
    scale: Vec<f32>,
    shift: Vec<f32>,
    /// Pixels of all images together.
    pub pixels: usize,
}

impl BatchPass {
    /// `trained` says whether the backward pass will be wanted too.
    pub fn new(base: Base, weights: &Weights, trained: bool) -> Self {
        let table = ParameterTable::new(&base.network);
        let layers = base.network.layers().len();
        let mut convs = vec![None; layers];
        let mut linears = vec![None; layers];
        for (index, layer) in base.network.layers().iter().enumerate() {
            let weight = || &weights.0[table.weight(LayerId(index))];
            match &layer.op {
                Op::Conv(conv) => {
                    convs[index] = Some(PackedConv::new(&base.ctx, geometry(conv), weight()));
                }
                &Op::Linear {
                    in_features,
                    out_features,
                    ..
                } => {
                    linears[index] = Some(PackedLinear::new(
                        &base.ctx,
                        in_features,
                        out_features,
                        weight(),
                        trained,
                    ));
                }
                _ => {}
            }
        }
        let norms = base.network.norms();
        let norms = norms.iter().map(|norm| BatchNorm::new(norm.channels));
        Self {
            norms: norms.collect(),
            winners: vec![Vec::new(); layers],
            masks: None,
            arena: Arena::default(),
            base,
            table,
            convs,
            linears,
        }
    }

    /// Bytes of the packed weights, and of what pools note.
    pub fn bytes(&self) -> usize {
        let convs = self.convs.iter().flatten().map(PackedConv::bytes);
        let linears = self.linears.iter().flatten().map(PackedLinear::bytes);
        let winners = self.winners.iter().map(|w| size_of_val(w.as_slice()));
        let masks = self.masks.iter().map(Masks::bytes);
        convs.chain(linears).chain(winners).chain(masks).sum()
    }

    /// Takes new weights.
    pub fn repack(&mut self, weights: &Weights) {
        for (index, (conv, linear)) in self.convs.iter_mut().zip(&mut self.linears).enumerate() {
            let weight = || &weights.0[self.table.weight(LayerId(index))];
            if let Some(conv) = conv {
                conv.repack(&self.base.ctx, weight());
            }
            if let Some(linear) = linear {
                linear.repack(&self.base.ctx, weight());
            }
        }
    }

    /// Runs all nodes of a plan; the results stay in the arena. `done` is called after each.
    pub fn run(
        &mut self,
        plan: &Plan,
        weights: &Weights,
        images: &[f32],
        mut done: impl FnMut(&Node),
    ) {
        self.arena.reserve(plan.layout.len());
        for node in &plan.lowered.nodes {
            self.run_node(plan, node, weights, images);
            done(node);
        }
    }

    fn run_node(&mut self, plan: &Plan, node: &Node, weights: &Weights, images: &[f32]) {
        let ctx = &*self.base.ctx;
        let (reader, y) = self.arena.write(plan.layout.place(node.output.0));
        let tensors = Tensors::new(plan, reader, images);
        let x = tensors.get(Buffer::of(node.inputs[0]));
        let layer = node.layer.0;
        let bias = || {
            let place = self.table.bias(node.layer)?;
            Some(weights.0[place].as_slice())
        };
        match node.work {
            Work::Conv(conv) => {
                let shape = plan.lowered.conv_shape(node.inputs[0], &conv, plan.batch);
                let packed = self.convs[layer].as_ref().expect("every conv is packed");
                let epilogue = Epilogue {
                    shift: bias().filter(|_| conv.bias),
                    ..Epilogue::default()
                };
                kernels::conv_forward(ctx, &shape, x, packed, epilogue, y);
            }
            Work::Norm { norm, eps, relu } => {
                let gamma = &weights.0[self.table.weight(node.layer)];
                let beta = bias().expect("every norm has a shift");
                self.norms[norm].observe(ctx, x, eps, gamma, beta);
                let BatchNorm { scale, shift, .. } = &self.norms[norm];
                batch_norm::scale_shift(ctx, x, scale, shift, None, relu, y);
            }
            Work::Relu => elementwise::relu(ctx, x, y),
            Work::MaxPool(_) | Work::AdaptiveMaxPool => {
                let winners = &mut self.winners[layer];
                winners.resize(y.len(), 0);
                pool::max_pool_with_indices(ctx, plan.pool(node), x, y, winners);
            }
            Work::AvgPool(_) | Work::AdaptiveAvgPool => {
                pool::average_pool(ctx, plan.pool(node), x, y);
            }
            Work::Linear { .. } => {
                let packed = self.linears[layer]
                    .as_ref()
                    .expect("every linear is packed");
                kernels::linear_forward(ctx, plan.batch, x, packed, bias(), y);
            }
            Work::Add => elementwise::add(ctx, x, tensors.get(Buffer::of(node.inputs[1])), y),
            Work::Concat => {
                let inputs: Vec<(&[f32], usize)> = node
                    .inputs
                    .iter()
                    .map(|&input| {
                        let channels = plan.lowered.shapes[input.0].channels;
                        (tensors.get(Buffer::of(input)), channels)
                    })
                    .collect();
                elementwise::concat_channels(ctx, &inputs, false, y);
            }
            Work::Mask { site, mask } => {
                let masks = self.masks.as_mut().expect("noise comes with its masks");
                masks.draw(site, mask, plan.batch, y.len());
                masks.apply(site, x, false, y);
            }
        }
    }
}

impl BatchNorm {
    fn new(channels: usize) -> Self {
        let zeros = || vec![0.0; channels];
        Self {
            mean: zeros(),
            var: zeros(),
            inverse_std: zeros(),
            scale: zeros(),
            shift: zeros(),
            pixels: 0,
        }
    }

    fn observe(
        &mut self,
        ctx: &kernels::Context,
        x: &[f32],
        eps: f32,
        gamma: &[f32],
        beta: &[f32],
    ) {
        batch_norm::batch_statistics(ctx, x, gamma.len(), &mut self.mean, &mut self.var);
        batch_norm::inverse_std(&self.var, eps, &mut self.inverse_std);
        batch_norm::fold(
            gamma,
            beta,
            &self.mean,
            &self.var,
            eps,
            &mut self.scale,
            &mut self.shift,
        );
        self.pixels = x.len() / gamma.len();
    }
}

/// The tensors of a step that are being read.
#[derive(Clone, Copy)]
pub(crate) struct Tensors<'a> {
    plan: &'a Plan,
    reader: Reader<'a>,
    images: &'a [f32],
}

impl<'a> Tensors<'a> {
    pub fn new(plan: &'a Plan, reader: Reader<'a>, images: &'a [f32]) -> Self {
        Self {
            plan,
            reader,
            images,
        }
    }

    pub fn get(&self, buffer: Buffer) -> &'a [f32] {
        if buffer == Buffer::of(self.plan.lowered.input) {
            self.images
        } else {
            self.reader.get(self.plan.layout.place(buffer.0))
        }
    }
}
