//! Lowering: turns the layers of a network into the operations that compute
//! one instance of it.

use std::collections::HashMap;
use std::ops::Range;

use sdpoint_core::{Conv, Instance, LayerId, Network, Op, PointId, Shape, ShapeError, Window};
use sdpoint_kernels::pool::{PoolAxis, PoolGeometry};
use sdpoint_kernels::{Activation, ConvGeometry, ConvShape};

use crate::operation::Pooling;

/// A section of a network between two points.
///
/// At a point a single tensor is live, so execution can stop there and resume
/// with any instance that is identical up to the point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Span {
    /// The start: a point's tensor before downsampling, or the images.
    pub from: Option<PointId>,
    /// The end: a point's tensor before downsampling, or the logits.
    pub to: Option<PointId>,
}

impl Span {
    pub const WHOLE: Span = Span {
        from: None,
        to: None,
    };
}

/// One tensor of a lowered network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Value(pub usize);

/// One operation of a lowered network, with its operands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub op: NodeOp,
    /// The layer that it computes; for downsampling, the point's layer.
    pub layer: LayerId,
    pub inputs: Vec<Value>,
    pub output: Value,
}

/// The operation of a [`Node`]: that of a layer, downsampling, or noise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum NodeOp {
    Conv(Conv),
    /// Batch norm number `norm` of [`Network::norms`], fused with the
    /// activation that follows it, if any, into one pass over memory.
    Norm {
        norm: usize,
        eps: f32,
        activation: Activation,
    },
    Activation(Activation),
    MaxPool(Window),
    AvgPool(Window),
    /// Adaptive max pooling to the output's size: the stem's downsampling.
    AdaptiveMaxPool,
    /// Adaptive average pooling to the output's size: a block's downsampling,
    /// or the global average pool before the classifier.
    AdaptiveAvgPool,
    Linear {
        bias: bool,
    },
    Add,
    Concat,
    /// Training noise: multiplies each part of the tensor by zero or a scale.
    /// `site` identifies the mask within the network.
    Mask {
        site: usize,
        mask: Mask,
    },
}

/// What a mask drops as a unit, and with which probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Mask {
    /// Single values.
    Values(f32),
    /// The whole tensor of an image.
    Images(f32),
}

/// The operations of a span in execution order, and the sizes of their tensors.
#[derive(Clone, Debug)]
pub(crate) struct Lowered {
    pub nodes: Vec<Node>,
    /// The size of each value for one image.
    pub shapes: Vec<Shape>,
    pub input: Value,
    pub output: Value,
}

/// Lowers the layers of a span for an instance at an input size. The instance
/// downsamples at its point, unless the span ends there.
///
/// # Errors
/// If the network does not accept the input size, or has no such point.
pub(crate) fn lower(
    network: &Network,
    size: [usize; 2],
    instance: Instance,
    span: Span,
) -> Result<Lowered, ShapeError> {
    let (mut lowered, _) = lower_unfused(network, size, instance, span)?;
    lowered.fuse_activations_into_norms(&[]);
    Ok(lowered)
}

/// Lowers all of `full` such that the tensors at all points exist, and returns
/// the value of each, before downsampling.
///
/// # Errors
/// If the network does not accept the input size.
pub(crate) fn lower_with_cuts(
    network: &Network,
    size: [usize; 2],
) -> Result<(Lowered, Vec<(PointId, Value)>), ShapeError> {
    let (mut lowered, values) = lower_unfused(network, size, Instance::Full, Span::WHOLE)?;
    let points = network.points().iter().map(|point| point.id());
    let cuts: Vec<(PointId, Value)> = points
        .map(|id| (id, values[&cut_layer(network, id)]))
        .collect();
    let kept: Vec<Value> = cuts.iter().map(|&(_, value)| value).collect();
    lowered.fuse_activations_into_norms(&kept);
    Ok((lowered, cuts))
}

/// Lowers a span to one node per layer; also returns the value that holds each
/// layer's output.
fn lower_unfused(
    network: &Network,
    size: [usize; 2],
    instance: Instance,
    span: Span,
) -> Result<(Lowered, HashMap<LayerId, Value>), ShapeError> {
    let shapes = network.shapes(size, instance)?;
    let norm_index: HashMap<LayerId, usize> = network
        .norms()
        .iter()
        .enumerate()
        .map(|(index, norm)| (norm.layer, index))
        .collect();
    let (range, source) = match span.from {
        None => (1.., LayerId(0)),
        Some(id) => {
            let source = cut_layer(network, id);
            (source.0 + 1.., source)
        }
    };
    let end = match span.to {
        None => network.layers().len(),
        Some(id) => cut_layer(network, id).0 + 1,
    };
    let layers: Range<usize> = range.start..end;
    // A span ends with the tensor before downsampling.
    let down = instance
        .point()
        .filter(|&id| span.to != Some(id))
        .and_then(|id| network.point(id));

    let mut lowered = Lowered {
        nodes: Vec::new(),
        shapes: vec![shapes.computed(source)],
        input: Value(0),
        output: Value(0),
    };
    // The value that holds each layer's output.
    let mut values: HashMap<LayerId, Value> = HashMap::from([(source, lowered.input)]);
    let downsampled_block = |layer: LayerId| {
        down.is_some_and(|point| point.layer() == layer && point.id() != PointId::Stem)
    };
    if downsampled_block(source) {
        let value = lowered.push(
            NodeOp::AdaptiveAvgPool,
            source,
            vec![lowered.input],
            shapes.passed_on(source),
        );
        values.insert(source, value);
    }
    for index in layers {
        let id = LayerId(index);
        let layer = network.layer(id);
        let at_stem = down.is_some_and(|p| p.layer() == id && p.id() == PointId::Stem);
        let op = match layer.op {
            Op::Input { .. } => unreachable!("the input is the first layer"),
            Op::Conv(conv) => NodeOp::Conv(conv),
            Op::BatchNorm { eps, .. } => NodeOp::Norm {
                norm: norm_index[&id],
                eps,
                activation: Activation::Identity,
            },
            Op::Relu => NodeOp::Activation(Activation::Relu),
            Op::Relu6 => NodeOp::Activation(Activation::Relu6),
            Op::MaxPool(_) if at_stem => NodeOp::AdaptiveMaxPool,
            Op::MaxPool(window) => NodeOp::MaxPool(window),
            Op::AvgPool(window) => NodeOp::AvgPool(window),
            Op::GlobalAvgPool => NodeOp::AdaptiveAvgPool,
            Op::Linear { bias, .. } => NodeOp::Linear { bias },
            Op::Add => NodeOp::Add,
            Op::Concat => NodeOp::Concat,
        };
        let inputs = layer.inputs.iter().map(|input| values[input]).collect();
        let mut value = lowered.push(op, id, inputs, shapes.computed(id));
        if downsampled_block(id) {
            value = lowered.push(
                NodeOp::AdaptiveAvgPool,
                id,
                vec![value],
                shapes.passed_on(id),
            );
        }
        values.insert(id, value);
        lowered.output = value;
    }
    if let Some(id) = span.to {
        lowered.output = values[&cut_layer(network, id)];
    }
    Ok((lowered, values))
}

/// The layer whose output is the only live tensor at a point, before
/// downsampling.
fn cut_layer(network: &Network, id: PointId) -> LayerId {
    let point = network.point(id).expect("spans end at points");
    match id {
        PointId::Stem => network.layer(point.layer()).inputs[0],
        PointId::Block(_) => point.layer(),
    }
}

impl Lowered {
    fn push(&mut self, op: NodeOp, layer: LayerId, inputs: Vec<Value>, shape: Shape) -> Value {
        let output = Value(self.shapes.len());
        self.shapes.push(shape);
        self.nodes.push(Node {
            op,
            layer,
            inputs,
            output,
        });
        output
    }

    /// The number of reads of each value. The caller's read of the final
    /// output counts as one.
    pub fn use_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.shapes.len()];
        counts[self.output.0] += 1;
        for value in self.nodes.iter().flat_map(|node| &node.inputs) {
            counts[value.0] += 1;
        }
        counts
    }

    /// Fuses each activation that is the only consumer of a batch norm into it,
    /// unless the batch norm's output is in `kept`.
    fn fuse_activations_into_norms(&mut self, kept: &[Value]) {
        let mut use_counts = self.use_counts();
        for value in kept {
            use_counts[value.0] += 1;
        }
        let mut producer: Vec<Option<usize>> = vec![None; self.shapes.len()];
        for index in 0..self.nodes.len() {
            let node = &self.nodes[index];
            let (output, source) = (node.output, node.inputs[0]);
            if let NodeOp::Activation(function) = node.op
                && use_counts[source.0] == 1
                && let Some(norm) = producer[source.0]
                && let NodeOp::Norm { activation, .. } = &mut self.nodes[norm].op
                && *activation == Activation::Identity
            {
                *activation = function;
                self.nodes[norm].output = output;
                producer[output.0] = Some(norm);
                // A node without inputs is removed below.
                self.nodes[index].inputs.clear();
                continue;
            }
            producer[output.0] = Some(index);
        }
        self.nodes.retain(|node| !node.inputs.is_empty());
    }

    /// Multiply-accumulates of a node for one image.
    pub fn macs(&self, node: &Node) -> u64 {
        match node.op {
            NodeOp::Conv(conv) => self.conv_shape(node.inputs[0], &conv, 1).macs(),
            NodeOp::Linear { .. } => {
                let features = |value: Value| self.shapes[value.0].channels as u64;
                features(node.inputs[0]) * features(node.output)
            }
            NodeOp::Norm { .. }
            | NodeOp::Activation(_)
            | NodeOp::MaxPool(_)
            | NodeOp::AvgPool(_)
            | NodeOp::AdaptiveMaxPool
            | NodeOp::AdaptiveAvgPool
            | NodeOp::Add
            | NodeOp::Concat
            | NodeOp::Mask { .. } => 0,
        }
    }

    /// The kernel shape of a convolution of `input`.
    pub fn conv_shape(&self, input: Value, conv: &Conv, batch: usize) -> ConvShape {
        let x = self.shapes[input.0];
        ConvShape {
            geometry: geometry(conv),
            batch,
            in_height: x.height,
            in_width: x.width,
        }
    }

    /// The pooling geometry of each value that a pooling operation produces,
    /// indexed by value.
    pub fn pools(&self, batch: usize) -> Vec<Option<PoolGeometry>> {
        let mut pools = vec![None; self.shapes.len()];
        for node in &self.nodes {
            let (x, y) = (self.shapes[node.inputs[0].0], self.shapes[node.output.0]);
            let sliding = |w: Window, side: usize, input: usize| {
                PoolAxis::sliding(input, w.kernel[side], w.stride[side], w.padding[side])
            };
            let (height, width) = match node.op.properties().pooling {
                None => continue,
                Some(Pooling::Sliding(w)) => (sliding(w, 0, x.height), sliding(w, 1, x.width)),
                Some(Pooling::Adaptive) => (
                    PoolAxis::adaptive(x.height, y.height),
                    PoolAxis::adaptive(x.width, y.width),
                ),
            };
            pools[node.output.0] = Some(PoolGeometry {
                batch,
                channels: x.channels,
                height,
                width,
            });
        }
        pools
    }
}

/// The kernel geometry of a convolution.
pub(crate) fn geometry(conv: &Conv) -> ConvGeometry {
    ConvGeometry {
        in_channels: conv.in_channels,
        out_channels: conv.out_channels,
        kernel: conv.kernel,
        stride: conv.stride,
        padding: conv.padding,
        groups: conv.groups,
    }
}
