//! Lowering of layers to operators.

use sdpoint_core::{Conv, Instance, LayerId, Model, Op, PointId, Role, Shape, Shapes, Window};

use super::fold::{BatchNorm, folded};
use super::graph::Graph;
use super::proto::Attribute::{self, Float, Int, Ints};
use super::{ONNX_INPUT, ONNX_OUTPUT, pool};
use crate::error::ExportError;

/// The graph of an instance of the model.
pub(super) fn graph(model: &Model, instance: Instance) -> Result<Graph, ExportError> {
    let mut lowering = Lowering::new(model, instance)?;
    for index in 0..model.network.layers().len() {
        let tensor = lowering.layer(LayerId(index))?;
        lowering.tensors.push(tensor);
    }
    Ok(lowering.graph)
}

struct Lowering<'a> {
    model: &'a Model,
    instance: Instance,
    shapes: Shapes,
    /// Weight and bias of each layer in the instance, or scale and shift; empty if
    /// it has none.
    values: Vec<[&'a [f32]; 2]>,
    graph: Graph,
    /// The name of each layer's output, after downsampling.
    tensors: Vec<String>,
}

impl<'a> Lowering<'a> {
    fn new(model: &'a Model, instance: Instance) -> Result<Self, ExportError> {
        let layers = model.network.layers().len();
        let mut values: Vec<[&[f32]; 2]> = vec![[&[]; 2]; layers];
        for (index, parameter) in model.network.parameters().iter().enumerate() {
            let data = model.statistics.parameter(&model.weights, instance, index);
            let place = match parameter.role {
                Role::Weight | Role::NormScale => 0,
                Role::Bias | Role::NormShift => 1,
            };
            values[parameter.layer.0][place] = data;
        }
        Ok(Self {
            model,
            instance,
            shapes: model.network.shapes(model.preprocessing.size, instance)?,
            values,
            graph: Graph::default(),
            tensors: Vec::with_capacity(layers),
        })
    }

    /// Adds a layer and the downsampling after it; returns the name of its
    /// output.
    fn layer(&mut self, id: LayerId) -> Result<String, ExportError> {
        let last = id.0 + 1 == self.model.network.layers().len();
        // Names of tensors start with a slash, so that none equals a parameter's.
        let name = &if last {
            ONNX_OUTPUT.to_owned()
        } else {
            format!("/{}", self.model.network.layer(id).name)
        };
        match self.point_at(id) {
            None => self.operator(id, name),
            Some(PointId::Stem) => {
                let input = self.model.network.layer(id).inputs[0];
                let from = sides(self.shapes.passed_on(input));
                let to = sides(self.shapes.passed_on(id));
                let input = &self.tensors[input.0];
                Ok(pool::maximum(&mut self.graph, input, name, from, to))
            }
            Some(PointId::Block(_)) => {
                let full = self.operator(id, &format!("{name}/full"))?;
                let from = sides(self.shapes.computed(id));
                let to = sides(self.shapes.passed_on(id));
                Ok(pool::average(&mut self.graph, &full, name, from, to))
            }
        }
    }

    /// The instance's point, if it is at this layer.
    fn point_at(&self, id: LayerId) -> Option<PointId> {
        let point = self.model.network.point(self.instance.point()?)?;
        (point.layer() == id).then(|| point.id())
    }

    /// Adds a layer's operators; returns the name of their output.
    fn operator(&mut self, id: LayerId, output: &str) -> Result<String, ExportError> {
        let layer = self.model.network.layer(id);
        let inputs: Vec<String> = layer
            .inputs
            .iter()
            .map(|input| self.tensors[input.0].clone())
            .collect();
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let graph = &mut self.graph;
        Ok(match &layer.op {
            Op::Input { .. } => ONNX_INPUT.into(),
            Op::Conv(conv) => self.convolution(id, conv, inputs[0], output)?,
            Op::BatchNorm { eps, .. } => {
                if self.norm_behind(layer.inputs[0]) == Some(id) {
                    // It is folded into the convolution before it.
                    return Ok(inputs[0].to_owned());
                }
                self.batch_norm(id, *eps, inputs[0], output)?
            }
            Op::Relu => graph.node("Relu", &inputs, output, &[]),
            Op::Relu6 => {
                let [least, largest] = [("min", 0.0), ("max", 6.0)]
                    .map(|(bound, value)| graph.floats(format!("{output}/{bound}"), &[], &[value]));
                graph.node("Clip", &[inputs[0], &least, &largest], output, &[])
            }
            Op::MaxPool(window) => graph.node("MaxPool", &inputs, output, &windowed(window).list()),
            Op::AvgPool(window) => {
                let window = windowed(window);
                let mut attributes = window.list().to_vec();
                attributes.push(Int("count_include_pad", 1));
                graph.node("AveragePool", &inputs, output, &attributes)
            }
            Op::GlobalAvgPool => graph.node("GlobalAveragePool", &inputs, output, &[]),
            Op::Linear {
                in_features,
                out_features,
                ..
            } => self.linear(id, [*out_features, *in_features], inputs[0], output),
            Op::Add => graph.node("Add", &inputs, output, &[]),
            Op::Concat => graph.node("Concat", &inputs, output, &[Int("axis", 1)]),
        })
    }

    /// A convolution, including the batch norm after it if that can be folded.
    fn convolution(
        &mut self,
        id: LayerId,
        conv: &Conv,
        input: &str,
        output: &str,
    ) -> Result<String, ExportError> {
        let [weight, bias] = self.values[id.0];
        let (weight, bias) = match self.norm_behind(id) {
            Some(norm) => {
                let Op::BatchNorm { eps, .. } = self.model.network.layer(norm).op else {
                    return Err(self.uncalibrated());
                };
                folded(weight, bias, &self.moments(norm, eps)?)
            }
            None => (weight.to_vec(), bias.to_vec()),
        };
        let mut inputs = vec![input.to_owned()];
        let layer = &self.model.network.layer(id).name;
        let name = |kind: &str| format!("{layer}.{kind}");
        inputs.push(
            self.graph
                .floats(name("weight"), &conv.weight_shape(), &weight),
        );
        if !bias.is_empty() {
            inputs.push(self.graph.floats(name("bias"), &[bias.len()], &bias));
        }
        let window = windowed(&Window {
            kernel: conv.kernel,
            stride: conv.stride,
            padding: conv.padding,
        });
        let mut attributes = window.list().to_vec();
        attributes.push(Int("group", conv.groups as i64));
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        Ok(self.graph.node("Conv", &inputs, output, &attributes))
    }

    /// The batch norm that is the only user of a convolution's output, unless
    /// the instance downsamples between them.
    fn norm_behind(&self, id: LayerId) -> Option<LayerId> {
        let layers = self.model.network.layers();
        if !matches!(layers[id.0].op, Op::Conv(_)) || self.point_at(id).is_some() {
            return None;
        }
        let mut users = (id.0 + 1..layers.len()).filter(|&user| layers[user].inputs.contains(&id));
        let (Some(user), None) = (users.next(), users.next()) else {
            return None;
        };
        // The graph's output has a name of its own.
        let inner = user + 1 < layers.len();
        (inner && matches!(layers[user].op, Op::BatchNorm { .. })).then_some(LayerId(user))
    }

    fn batch_norm(
        &mut self,
        id: LayerId,
        eps: f32,
        input: &str,
        output: &str,
    ) -> Result<String, ExportError> {
        let norm = self.moments(id, eps)?;
        let parts = [
            ("weight", norm.scale),
            ("bias", norm.shift),
            ("running_mean", &norm.moments.mean),
            ("running_var", &norm.moments.var),
        ];
        let layer = &self.model.network.layer(id).name;
        let constants = parts.map(|(kind, values)| {
            self.graph
                .floats(format!("{layer}.{kind}"), &[values.len()], values)
        });
        let mut inputs = vec![input];
        inputs.extend(constants.iter().map(String::as_str));
        let attributes = [Float("epsilon", eps)];
        Ok(self
            .graph
            .node("BatchNormalization", &inputs, output, &attributes))
    }

    /// A batch norm with the instance's statistics.
    fn moments(&self, id: LayerId, eps: f32) -> Result<BatchNorm<'a>, ExportError> {
        let norms = self.model.network.norms();
        let index = norms.partition_point(|norm| norm.layer < id);
        let moments = self.model.statistics.get(self.instance, index);
        let [scale, shift] = self.values[id.0];
        Ok(BatchNorm {
            scale,
            shift,
            moments: moments.ok_or_else(|| self.uncalibrated())?,
            eps,
        })
    }

    fn uncalibrated(&self) -> ExportError {
        ExportError::NoInstance(self.instance)
    }

    /// Flat rows times the transposed weight.
    fn linear(&mut self, id: LayerId, shape: [usize; 2], input: &str, output: &str) -> String {
        let [weight, bias] = self.values[id.0];
        let layer = &self.model.network.layer(id).name;
        let graph = &mut self.graph;
        let flat = graph.node(
            "Flatten",
            &[input],
            &format!("{output}/flat"),
            &[Int("axis", 1)],
        );
        let mut inputs = vec![
            flat,
            graph.floats(format!("{layer}.weight"), &shape, weight),
        ];
        if !bias.is_empty() {
            inputs.push(graph.floats(format!("{layer}.bias"), &[bias.len()], bias));
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        graph.node("Gemm", &inputs, output, &[Int("transB", 1)])
    }
}

fn sides(shape: Shape) -> [usize; 2] {
    [shape.height, shape.width]
}

/// A window's parameters in ONNX's order.
struct Windowed {
    kernel: [i64; 2],
    strides: [i64; 2],
    /// Top, left, bottom, right.
    pads: [i64; 4],
}

fn windowed(window: &Window) -> Windowed {
    let [kernel, strides, padding] =
        [window.kernel, window.stride, window.padding].map(|sides| sides.map(|side| side as i64));
    Windowed {
        kernel,
        strides,
        pads: [padding[0], padding[1], padding[0], padding[1]],
    }
}

impl Windowed {
    fn list(&self) -> [Attribute<'_>; 3] {
        [
            Ints("kernel_shape", &self.kernel),
            Ints("strides", &self.strides),
            Ints("pads", &self.pads),
        ]
    }
}
