//! From a network's layers to what has to be computed for one instance.

use std::collections::HashMap;
use std::ops::Range;

use sdpoint_core::{Conv, Instance, LayerId, Network, Op, PointId, Shape, ShapeError, Window};
use sdpoint_kernels::pool::{PoolAxis, PoolGeometry};
use sdpoint_kernels::{ConvGeometry, ConvShape};

use crate::operation::Pooling;

/// A part of a network between points.
///
/// At a point one tensor carries everything, so a network can be left there
/// and taken up again, by any instance that agrees on what went before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Span {
    /// Where it starts: the images, or a point's tensor before downsampling.
    pub from: Option<PointId>,
    /// Where it ends: the logits, or a point's tensor before downsampling.
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

/// One computation of a lowered network.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub work: Work,
    /// The layer that it stands for; for downsampling, the point's layer.
    pub layer: LayerId,
    pub inputs: Vec<Value>,
    pub output: Value,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Work {
    Conv(Conv),
    /// Batch norm number `norm` of [`Network::norms`], with the ReLU behind
    /// it if there is one: together they are one pass over memory.
    Norm {
        norm: usize,
        eps: f32,
        relu: bool,
    },
    Relu,
    MaxPool(Window),
    AvgPool(Window),
    /// To the size of the output: the stem's downsampling.
    AdaptiveMaxPool,
    /// To the size of the output: a block's downsampling, or the global
    /// average pool before the classifier.
    AdaptiveAvgPool,
    Linear {
        bias: bool,
    },
    Add,
    Concat,
    /// Training's noise: each part of an image's tensor times zero or a
    /// scale. `site` tells the masks of a network apart.
    Mask {
        site: usize,
        mask: Mask,
    },
}

/// What is dropped at random, with which probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Mask {
    /// Single values.
    Values(f32),
    /// The whole tensor of an image.
    Images(f32),
}

/// The computations of a span, in order, and their tensors' sizes.
#[derive(Clone, Debug)]
pub(crate) struct Lowered {
    pub nodes: Vec<Node>,
    /// Size of each value for one image.
    pub shapes: Vec<Shape>,
    pub input: Value,
    pub output: Value,
}

/// Lowers the layers of a span for an instance at an input size.
///
/// # Errors
/// If the network cannot take the input size, or has no such point.
pub(crate) fn lower(
    network: &Network,
    size: [usize; 2],
    instance: Instance,
    span: Span,
) -> Result<Lowered, ShapeError> {
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
            let source = carrier(network, id);
            (source.0 + 1.., source)
        }
    };
    let end = match span.to {
        None => network.layers().len(),
        Some(id) => carrier(network, id).0 + 1,
    };
    let layers: Range<usize> = range.start..end;
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
    // The tensor that stands for each layer's output.
    let mut values: HashMap<LayerId, Value> = HashMap::from([(source, lowered.input)]);
    let downsampled_block = |layer: LayerId| {
        down.is_some_and(|point| point.layer() == layer && point.id() != PointId::Stem)
    };
    if downsampled_block(source) {
        let value = lowered.push(
            Work::AdaptiveAvgPool,
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
        let work = match layer.op {
            Op::Input { .. } => unreachable!("the input is the first layer"),
            Op::Conv(conv) => Work::Conv(conv),
            Op::BatchNorm { eps, .. } => Work::Norm {
                norm: norm_index[&id],
                eps,
                relu: false,
            },
            Op::Relu => Work::Relu,
            Op::MaxPool(_) if at_stem => Work::AdaptiveMaxPool,
            Op::MaxPool(window) => Work::MaxPool(window),
            Op::AvgPool(window) => Work::AvgPool(window),
            Op::GlobalAvgPool => Work::AdaptiveAvgPool,
            Op::Linear { bias, .. } => Work::Linear { bias },
            Op::Add => Work::Add,
            Op::Concat => Work::Concat,
        };
        let inputs = layer.inputs.iter().map(|input| values[input]).collect();
        let mut value = lowered.push(work, id, inputs, shapes.computed(id));
        if downsampled_block(id) {
            value = lowered.push(Work::AdaptiveAvgPool, id, vec![value], shapes.passed_on(id));
        }
        values.insert(id, value);
        lowered.output = value;
    }
    if let Some(id) = span.to {
        lowered.output = values[&carrier(network, id)];
    }
    lowered.join_relu_to_norm();
    Ok(lowered)
}

/// The layer whose output carries everything at a point, before downsampling.
fn carrier(network: &Network, id: PointId) -> LayerId {
    let point = network.point(id).expect("spans end at points");
    match id {
        PointId::Stem => network.layer(point.layer()).inputs[0],
        PointId::Block(_) => point.layer(),
    }
}

impl Lowered {
    fn push(&mut self, work: Work, layer: LayerId, inputs: Vec<Value>, shape: Shape) -> Value {
        let output = Value(self.shapes.len());
        self.shapes.push(shape);
        self.nodes.push(Node {
            work,
            layer,
            inputs,
            output,
        });
        output
    }

    /// How often each value is read, the final output counting as one.
    pub fn uses(&self) -> Vec<usize> {
        let mut uses = vec![0; self.shapes.len()];
        uses[self.output.0] += 1;
        for value in self.nodes.iter().flat_map(|node| &node.inputs) {
            uses[value.0] += 1;
        }
        uses
    }

    fn join_relu_to_norm(&mut self) {
        let uses = self.uses();
        let mut maker: Vec<Option<usize>> = vec![None; self.shapes.len()];
        for index in 0..self.nodes.len() {
            let node = &self.nodes[index];
            let (output, source) = (node.output, node.inputs[0]);
            let relu_alone = node.work == Work::Relu && uses[source.0] == 1;
            if let Some(before) = maker[source.0].filter(|_| relu_alone)
                && let Work::Norm { relu, .. } = &mut self.nodes[before].work
            {
                *relu = true;
                self.nodes[before].output = output;
                maker[output.0] = Some(before);
                // The marker for removal: a node without inputs.
                self.nodes[index].inputs.clear();
                continue;
            }
            maker[output.0] = Some(index);
        }
        self.nodes.retain(|node| !node.inputs.is_empty());
    }

    /// Multiply-accumulates of a node for one image.
    pub fn macs(&self, node: &Node) -> u64 {
        match node.work {
            Work::Conv(conv) => self.conv_shape(node.inputs[0], &conv, 1).macs(),
            Work::Linear { .. } => {
                let features = |value: Value| self.shapes[value.0].channels as u64;
                features(node.inputs[0]) * features(node.output)
            }
            Work::Norm { .. }
            | Work::Relu
            | Work::MaxPool(_)
            | Work::AvgPool(_)
            | Work::AdaptiveMaxPool
            | Work::AdaptiveAvgPool
            | Work::Add
            | Work::Concat
            | Work::Mask { .. } => 0,
        }
    }

    /// A convolution of a value in the kernels' terms.
    pub fn conv_shape(&self, input: Value, conv: &Conv, batch: usize) -> ConvShape {
        let x = self.shapes[input.0];
        ConvShape {
            geometry: geometry(conv),
            batch,
            in_height: x.height,
            in_width: x.width,
        }
    }
}

impl Lowered {
    /// The pooling of each value that a pool makes, by value.
    pub fn pools(&self, batch: usize) -> Vec<Option<PoolGeometry>> {
        let mut pools = vec![None; self.shapes.len()];
        for node in &self.nodes {
            let (x, y) = (self.shapes[node.inputs[0].0], self.shapes[node.output.0]);
            let sliding = |w: Window, side: usize, input: usize| {
                PoolAxis::sliding(input, w.kernel[side], w.stride[side], w.padding[side])
            };
            let (height, width) = match node.work.operation().pooling {
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

/// A convolution's numbers in the kernels' terms.
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
