//! Weights packed into the layout of the kernels.

use sdpoint_core::{LayerId, Network, Op, Weights};
use sdpoint_kernels::{Context, PackedConv, PackedLinear};

use crate::lower::geometry;
use crate::parameters::ParameterTable;

/// The packed weights of a network's convolutions and linear layers.
#[derive(Clone, Debug)]
pub(crate) struct PackedLayers {
    layers: Vec<Packed>,
}

#[derive(Clone, Debug)]
enum Packed {
    Conv(PackedConv),
    Linear(PackedLinear),
    /// A layer without packed weights: batch norms use theirs as they are.
    Nothing,
}

impl Packed {
    /// Packs the weight of a layer, if it has one to be packed.
    fn new<'a>(ctx: &Context, op: &Op, weight: impl FnOnce() -> &'a [f32], backward: bool) -> Self {
        match *op {
            Op::Conv(conv) => Packed::Conv(PackedConv::new(ctx, geometry(&conv), weight())),
            Op::Linear {
                in_features,
                out_features,
                ..
            } => Packed::Linear(PackedLinear::new(
                ctx,
                in_features,
                out_features,
                weight(),
                backward,
            )),
            Op::Input { .. }
            | Op::BatchNorm { .. }
            | Op::Relu
            | Op::Relu6
            | Op::MaxPool(_)
            | Op::AvgPool(_)
            | Op::GlobalAvgPool
            | Op::Add
            | Op::Concat => Packed::Nothing,
        }
    }
}

impl PackedLayers {
    /// Packs `weights`. With `backward`, linear layers are also packed for the
    /// backward pass.
    pub fn new(
        ctx: &Context,
        network: &Network,
        table: &ParameterTable,
        weights: &Weights,
        backward: bool,
    ) -> Self {
        let mut layers = Self::nothing(network);
        layers.pack_rest(ctx, network, table, weights, backward);
        layers
    }

    /// Packs the weights of the layers that have none packed yet.
    pub fn pack_rest(
        &mut self,
        ctx: &Context,
        network: &Network,
        table: &ParameterTable,
        weights: &Weights,
        backward: bool,
    ) {
        for layer in (0..network.layers().len()).map(LayerId) {
            if !self.has(layer) {
                let weight = || &*weights.0[table.weight(layer)];
                self.pack(ctx, network, layer, weight, backward);
            }
        }
    }

    /// Nothing packed yet for any layer.
    pub fn nothing(network: &Network) -> Self {
        let layers = network.layers().iter().map(|_| Packed::Nothing);
        Self {
            layers: layers.collect(),
        }
    }

    /// Packs the weight of a layer, if it has one to be packed.
    pub fn pack<'a>(
        &mut self,
        ctx: &Context,
        network: &Network,
        layer: LayerId,
        weight: impl FnOnce() -> &'a [f32],
        backward: bool,
    ) {
        self.layers[layer.0] = Packed::new(ctx, &network.layer(layer).op, weight, backward);
    }

    /// Whether the weight of a layer is packed.
    pub fn has(&self, layer: LayerId) -> bool {
        !matches!(self.layers[layer.0], Packed::Nothing)
    }

    /// Packs new weights into the same buffers.
    pub fn repack(&mut self, ctx: &Context, table: &ParameterTable, weights: &Weights) {
        for (index, packed) in self.layers.iter_mut().enumerate() {
            let weight = || &weights.0[table.weight(LayerId(index))];
            match packed {
                Packed::Conv(conv) => conv.repack(ctx, weight()),
                Packed::Linear(linear) => linear.repack(ctx, weight()),
                Packed::Nothing => {}
            }
        }
    }

    /// The packed weights of a convolution.
    ///
    /// # Panics
    /// If the layer is not a convolution.
    pub fn conv(&self, layer: LayerId) -> &PackedConv {
        match &self.layers[layer.0] {
            Packed::Conv(conv) => conv,
            _ => unreachable!("every convolution is packed"),
        }
    }

    /// The packed weights of a linear layer.
    ///
    /// # Panics
    /// If the layer is not linear.
    pub fn linear(&self, layer: LayerId) -> &PackedLinear {
        match &self.layers[layer.0] {
            Packed::Linear(linear) => linear,
            _ => unreachable!("every linear layer is packed"),
        }
    }

    /// The size of all packed weights in bytes.
    pub fn bytes(&self) -> usize {
        let bytes = |packed: &Packed| match packed {
            Packed::Conv(conv) => conv.bytes(),
            Packed::Linear(linear) => linear.bytes(),
            Packed::Nothing => 0,
        };
        self.layers.iter().map(bytes).sum()
    }
}
