//! The description of a network: layers in topological order, and the points
//! at which it may be downsampled.

mod builder;
mod check;
mod exits;

pub use builder::NetworkBuilder;
pub(crate) use check::STATISTICS_PREFIX;

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::instance::{Instance, PointId};
use crate::layer::{Layer, LayerId, Op};
use crate::ratio::Ratio;

/// A network as data.
///
/// Networks come from a [`NetworkBuilder`] or from a file; both validate the
/// description in the same way. So every `Network` is well formed: inputs
/// precede the layers that read them, channel counts agree, names are unique,
/// the last layer is the output, and every point cuts the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Description", into = "Description")]
pub struct Network {
    description: Description,
    /// The output channels of each layer.
    channels: Vec<usize>,
    parameters: Vec<Parameter>,
    norms: Vec<Norm>,
}

/// A point at which the feature map may be downsampled: a single tensor is live
/// there, so all later layers depend on it alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Point {
    id: PointId,
    layer: LayerId,
}

impl Point {
    /// The name of the point.
    pub fn id(&self) -> PointId {
        self.id
    }

    /// For a block, the layer whose output is downsampled. For the stem, the
    /// max pool that is replaced by an adaptive max pool.
    pub fn layer(&self) -> LayerId {
        self.layer
    }
}

/// A learnable parameter of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// PyTorch's name, such as `layer1.0.conv1.weight`.
    pub name: String,
    /// PyTorch's shape.
    pub shape: Vec<usize>,
    /// The layer that it belongs to.
    pub layer: LayerId,
    /// Its role in that layer.
    pub role: Role,
}

impl Parameter {
    /// The number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no elements; always false for a parameter of a network.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The role of a parameter in its layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The weight of a convolution or a linear layer.
    Weight,
    /// The bias of a convolution or a linear layer.
    Bias,
    /// The scale of a batch norm (`weight` in PyTorch).
    NormScale,
    /// The shift of a batch norm (`bias` in PyTorch).
    NormShift,
}

/// A batch norm of a network. Its statistics differ between instances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Norm {
    /// The layer's name; PyTorch appends `.running_mean` and `.running_var`.
    pub name: String,
    /// The layer.
    pub layer: LayerId,
    /// The number of channels.
    pub channels: usize,
}

/// An error in the description of a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// There are no layers, the first is not the input, or there are several
    /// inputs.
    #[error("a network starts with its one input layer; this one {0}")]
    Input(String),
    /// An invalid layer.
    #[error("layer {index} ('{name}'): {problem}")]
    Layer {
        /// The index of the layer.
        index: usize,
        /// The name of the layer.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A layer other than the last whose output no layer reads.
    #[error("layer '{0}' is used by no other layer and is not the last")]
    Unused(String),
    /// A point where more than one tensor is live, or that is out of order.
    #[error("point {point}: {problem}")]
    Point {
        /// The name of the point.
        point: PointId,
        /// What is wrong with it.
        problem: String,
    },
}

/// The serialised form of a network, before validation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    name: String,
    layers: Vec<Layer>,
    points: Vec<Point>,
}

impl Network {
    /// The architecture's name, such as `resnet50`.
    pub fn name(&self) -> &str {
        &self.description.name
    }

    /// The layers in topological order; the first is the input and the last
    /// gives the logits.
    pub fn layers(&self) -> &[Layer] {
        &self.description.layers
    }

    /// The layer with an id.
    ///
    /// # Panics
    /// If the id is of another, larger network.
    pub fn layer(&self, id: LayerId) -> &Layer {
        &self.description.layers[id.0]
    }

    /// The output channels of a layer.
    ///
    /// # Panics
    /// If the id is of another, larger network.
    pub fn channels(&self, id: LayerId) -> usize {
        self.channels[id.0]
    }

    /// The number of channels of input images.
    pub fn input_channels(&self) -> usize {
        self.channels[0]
    }

    /// The number of output channels: the number of classes.
    pub fn classes(&self) -> usize {
        *self.channels.last().expect("a network has layers")
    }

    /// Returns the same network with another number of classes.
    ///
    /// # Errors
    /// If the network does not end in a linear layer, or `classes` is zero or
    /// more than a layer can output.
    pub fn with_classes(&self, classes: usize) -> Result<Self, NetworkError> {
        let mut description = self.description.clone();
        let index = description.layers.len() - 1;
        let last = &mut description.layers[index];
        let Op::Linear { out_features, .. } = &mut last.op else {
            return Err(NetworkError::Layer {
                index,
                name: last.name.clone(),
                problem: "the last layer is not linear, so the number of classes cannot be changed"
                    .into(),
            });
        };
        *out_features = classes;
        Self::try_from(description)
    }

    /// The downsampling points, in the order of their layers.
    pub fn points(&self) -> &[Point] {
        &self.description.points
    }

    /// The point with the name `id`, if the network has it.
    pub fn point(&self, id: PointId) -> Option<&Point> {
        self.points().iter().find(|point| point.id == id)
    }

    /// Lists the instances for a set of ratios: `full`, then for each point the
    /// ratios in ascending order without duplicates.
    pub fn instances(&self, ratios: &[Ratio]) -> Vec<Instance> {
        let mut ratios = ratios.to_vec();
        ratios.sort();
        ratios.dedup();
        std::iter::once(Instance::Full)
            .chain(self.points().iter().flat_map(|point| {
                ratios
                    .iter()
                    .map(|&ratio| Instance::At(point.id, ratio))
                    .collect::<Vec<_>>()
            }))
            .collect()
    }

    /// Whether the network has the point of an instance.
    pub fn has(&self, instance: Instance) -> bool {
        instance.point().is_none_or(|id| self.point(id).is_some())
    }

    /// The parameters, in the order of their layers; for each layer the weight
    /// or scale, then the bias or shift.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// The batch norms, in the order of their layers.
    pub fn norms(&self) -> &[Norm] {
        &self.norms
    }

    /// The range in [`Network::norms`] of the batch norms whose input in an
    /// instance differs from that in `full`: those after its point. For `full`
    /// itself, all.
    pub fn own_norms(&self, instance: Instance) -> Range<usize> {
        let point = instance.point().and_then(|id| self.point(id));
        let first = point.map_or(0, |point| {
            self.norms.partition_point(|norm| norm.layer <= point.layer)
        });
        first..self.norms.len()
    }

    /// The parameters that an instance may have of its own, as indices into
    /// [`Network::parameters`] in ascending order: the scales and shifts of the
    /// batch norms after its point, and the bias of the classifier if it has one.
    /// `full` has none of its own.
    pub fn own_parameters(&self, instance: Instance) -> Vec<usize> {
        let Some(point) = instance.point().and_then(|id| self.point(id)) else {
            return Vec::new();
        };
        let classifier = LayerId(self.layers().len() - 1);
        let parameters = self.parameters().iter().enumerate();
        let own = parameters.filter(|(_, parameter)| match parameter.role {
            Role::NormScale | Role::NormShift => parameter.layer > point.layer,
            Role::Bias => parameter.layer == classifier,
            Role::Weight => false,
        });
        own.map(|(index, _)| index).collect()
    }
}

impl From<Network> for Description {
    fn from(network: Network) -> Self {
        network.description
    }
}

impl TryFrom<Description> for Network {
    type Error = NetworkError;

    fn try_from(description: Description) -> Result<Self, NetworkError> {
        let channels = check::layers(&description.layers)?;
        check::points(&description.layers, &description.points)?;
        Ok(Self {
            parameters: parameters(&description.layers),
            norms: norms(&description.layers),
            description,
            channels,
        })
    }
}

/// Lists the parameters of `layers`, in their order.
fn parameters(layers: &[Layer]) -> Vec<Parameter> {
    let mut parameters = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        let mut push = |suffix: &str, shape: &[usize], role| {
            parameters.push(Parameter {
                name: format!("{}.{suffix}", layer.name),
                shape: shape.to_vec(),
                layer: LayerId(index),
                role,
            });
        };
        match layer.op {
            Op::Conv(conv) => {
                push("weight", &conv.weight_shape(), Role::Weight);
                if conv.bias {
                    push("bias", &[conv.out_channels], Role::Bias);
                }
            }
            Op::BatchNorm { channels, .. } => {
                push("weight", &[channels], Role::NormScale);
                push("bias", &[channels], Role::NormShift);
            }
            Op::Linear {
                in_features,
                out_features,
                bias,
            } => {
                push("weight", &[out_features, in_features], Role::Weight);
                if bias {
                    push("bias", &[out_features], Role::Bias);
                }
            }
            Op::Input { .. }
            | Op::Relu
            | Op::Relu6
            | Op::MaxPool(_)
            | Op::AvgPool(_)
            | Op::GlobalAvgPool
            | Op::Add
            | Op::Concat => {}
        }
    }
    parameters
}

/// Lists the batch norms among `layers`, in their order.
fn norms(layers: &[Layer]) -> Vec<Norm> {
    let norm = |(index, layer): (usize, &Layer)| match layer.op {
        Op::BatchNorm { channels, .. } => Some(Norm {
            name: layer.name.clone(),
            layer: LayerId(index),
            channels,
        }),
        _ => None,
    };
    layers.iter().enumerate().filter_map(norm).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;
    use crate::layer::{Conv, Window};

    /// input → conv → pool → (conv, identity) → add → relu → pool → fc
    fn residual() -> NetworkBuilder {
        let mut b = NetworkBuilder::new("residual", 3);
        let x = b.conv("conv1", b.input(), Conv::square(3, 8, 3, 1));
        let x = b.layer("maxpool", Op::MaxPool(Window::square(3, 2, 1)), &[x]);
        let y = b.conv("conv2", x, Conv::square(8, 8, 3, 1).grouped(8));
        let y = b.batch_norm("bn2", y, 8);
        let sum = b.add("add", y, x);
        let x = b.relu("relu", sum);
        let x = b.layer("avgpool", Op::GlobalAvgPool, &[x]);
        let op = Op::Linear {
            in_features: 8,
            out_features: 10,
            bias: true,
        };
        b.layer("fc", op, &[x]);
        b
    }

    fn layer(b: &NetworkBuilder, name: &str) -> LayerId {
        let network = b.clone().finish().unwrap();
        let found = network.layers().iter().position(|l| l.name == name);
        LayerId(found.unwrap())
    }

    #[test]
    fn points_are_legal_where_one_tensor_is_live() {
        let mut b = residual();
        b.point(PointId::Stem, layer(&b, "maxpool"));
        b.point(PointId::Block(0), layer(&b, "add"));
        let network = b.finish().unwrap();
        let names: Vec<String> = network
            .instances(&Ratio::DEFAULT)
            .iter()
            .map(Instance::to_string)
            .collect();
        assert_eq!(names, ["full", "stem@0.5", "stem@0.75", "0@0.5", "0@0.75"]);
        assert_eq!(network.own_norms("0@0.5".parse().unwrap()), 1..1);
        assert_eq!(network.own_norms("stem@0.5".parse().unwrap()), 0..1);

        let mut b = residual();
        b.point(PointId::Block(0), layer(&b, "conv2"));
        let error = b.finish().unwrap_err().to_string();
        assert!(error.contains("'maxpool'"), "{error}");

        let mut b = residual();
        b.point(PointId::Stem, layer(&b, "add"));
        let error = b.finish().unwrap_err().to_string();
        assert!(error.contains("not a max pool"), "{error}");
    }

    #[test]
    fn a_description_goes_through_json_unchanged() {
        let mut b = residual();
        b.point(PointId::Stem, layer(&b, "maxpool"));
        let network = b.finish().unwrap();
        let text = serde_json::to_string(&network).unwrap();
        assert_eq!(serde_json::from_str::<Network>(&text).unwrap(), network);
        let broken = text.replace("\"in_channels\":3", "\"in_channels\":4");
        let error = serde_json::from_str::<Network>(&broken).unwrap_err();
        assert!(error.to_string().contains("takes 4 channels"), "{error}");
    }

    #[test]
    fn invalid_descriptions_are_refused() {
        let refuse = |build: &dyn Fn(&mut NetworkBuilder), part: &str| {
            let mut b = residual();
            build(&mut b);
            let error = b.finish().unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        };
        refuse(
            &|b| {
                let input = b.input();
                b.relu("relu", input);
            },
            "has this name",
        );
        refuse(
            &|b| {
                b.relu("late", LayerId(99));
            },
            "does not come before",
        );
        refuse(
            &|b| {
                let input = b.input();
                b.conv("other", input, Conv::square(3, 8, 3, 1).grouped(2));
            },
            "do not make 2 groups",
        );
        refuse(
            &|b| {
                let input = b.input();
                b.relu("other", input);
            },
            "'fc' is used by no other layer",
        );
        refuse(
            &|b| {
                let input = b.input();
                b.layer("other", Op::Input { channels: 3 }, &[input]);
            },
            "one input layer",
        );
        refuse(
            &|b| {
                let input = b.input();
                b.relu("instances/3@0.5/bn1", input);
            },
            "are taken",
        );
    }

    #[test]
    fn parameters_carry_pytorch_names_and_shapes() {
        let network = residual().finish().unwrap();
        let listed: Vec<(&str, &[usize])> = network
            .parameters()
            .iter()
            .map(|p| (p.name.as_str(), p.shape.as_slice()))
            .collect();
        assert_eq!(
            listed,
            [
                ("conv1.weight", &[8, 3, 3, 3][..]),
                ("conv2.weight", &[8, 1, 3, 3]),
                ("bn2.weight", &[8]),
                ("bn2.bias", &[8]),
                ("fc.weight", &[10, 8]),
                ("fc.bias", &[10]),
            ]
        );
    }

    proptest! {
        /// In any graph of ReLUs and sums, a point is accepted exactly where
        /// later layers read no earlier output other than the point's own.
        #[test]
        fn points_cut_any_graph(reads in prop::collection::vec((any::<Index>(), any::<Index>(), any::<bool>()), 2..12)) {
            let mut b = NetworkBuilder::new("random", 2);
            let mut inputs: Vec<Vec<usize>> = vec![Vec::new()];
            for (place, (left, right, sum)) in reads.iter().enumerate() {
                let mut read = vec![left.index(place + 1)];
                let op = if *sum { Op::Add } else { Op::Relu };
                read.extend(sum.then(|| right.index(place + 1)));
                let ids: Vec<LayerId> = read.iter().map(|&id| LayerId(id)).collect();
                b.layer(format!("layer{place}"), op, &ids);
                inputs.push(read);
            }
            // The output layer reads all outputs that no layer has read.
            let unread: Vec<usize> = (0..inputs.len())
                .filter(|id| !inputs.iter().flatten().any(|read| read == id))
                .collect();
            let ids: Vec<LayerId> = unread.iter().map(|&id| LayerId(id)).collect();
            b.layer("output", Op::Concat, &ids);
            inputs.push(unread);

            for place in 1..inputs.len() - 1 {
                let mut b = b.clone();
                b.point(PointId::Block(0), LayerId(place));
                let after = inputs[place + 1..].iter().flatten();
                let legal = after.filter(|&&read| read <= place).all(|&read| read == place);
                prop_assert_eq!(b.finish().is_ok(), legal, "at layer {}", place);
            }
        }
    }
}
