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
/// It can only be had from a [`NetworkBuilder`] or from a file through the
/// same checks, so every `Network` is well formed: inputs come before their
/// users, channel counts agree, names are unique, the last layer is the
/// output, and every point cuts the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Description", into = "Description")]
pub struct Network {
    description: Description,
    /// Output channels of each layer.
    channels: Vec<usize>,
    parameters: Vec<Parameter>,
    norms: Vec<Norm>,
}

/// A place where the feature map may be downsampled: there, one tensor alone
/// carries all that later layers see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Point {
    id: PointId,
    layer: LayerId,
}

impl Point {
    /// The point's name.
    pub fn id(&self) -> PointId {
        self.id
    }

    /// For a block, the layer whose output is downsampled. For the stem, the
    /// max pool that gives way to an adaptive one.
    pub fn layer(&self) -> LayerId {
        self.layer
    }
}

/// A parameter of a network, to be learnt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// PyTorch's name, such as `layer1.0.conv1.weight`.
    pub name: String,
    /// PyTorch's shape.
    pub shape: Vec<usize>,
    /// The layer that uses it.
    pub layer: LayerId,
    /// What it is to its layer.
    pub role: Role,
}

impl Parameter {
    /// The number of its elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no elements, which no parameter of a network does.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a parameter is to its layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Weight of a convolution or a linear layer.
    Weight,
    /// Bias of a convolution or a linear layer.
    Bias,
    /// Scale of a batch norm (`weight` in PyTorch).
    NormScale,
    /// Shift of a batch norm (`bias` in PyTorch).
    NormShift,
}

/// A batch norm of a network; its statistics are an instance's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Norm {
    /// The layer's name; PyTorch appends `.running_mean` and `.running_var`.
    pub name: String,
    /// Its layer.
    pub layer: LayerId,
    /// Its channels.
    pub channels: usize,
}

/// A description that is no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// No layers, or the first is not the input, or there are several inputs.
    #[error("a network starts with its one input layer; this one {0}")]
    Input(String),
    /// A layer that cannot be.
    #[error("layer {index} ('{name}'): {problem}")]
    Layer {
        /// Place of the layer.
        index: usize,
        /// Name of the layer.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A layer before the last whose output nobody uses.
    #[error("layer '{0}' is used by no other layer and is not the last")]
    Unused(String),
    /// A point where more than one tensor is live, or that is out of order.
    #[error("point {point}: {problem}")]
    Point {
        /// Name of the point.
        point: PointId,
        /// What is wrong with it.
        problem: String,
    },
}

/// What is written to files: a network before its checks.
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

    /// One layer.
    pub fn layer(&self, id: LayerId) -> &Layer {
        &self.description.layers[id.0]
    }

    /// Output channels of a layer.
    pub fn channels(&self, id: LayerId) -> usize {
        self.channels[id.0]
    }

    /// Channels of the images that go in.
    pub fn input_channels(&self) -> usize {
        self.channels[0]
    }

    /// Channels that come out: the number of classes.
    pub fn classes(&self) -> usize {
        *self.channels.last().expect("a network has layers")
    }

    /// The same network for another number of classes.
    ///
    /// # Errors
    /// If the network does not end in a linear layer, or if it cannot have so
    /// many classes.
    pub fn with_classes(&self, classes: usize) -> Result<Self, NetworkError> {
        let mut description = self.description.clone();
        let index = description.layers.len() - 1;
        let last = &mut description.layers[index];
        let Op::Linear { out_features, .. } = &mut last.op else {
            return Err(NetworkError::Layer {
                index,
                name: last.name.clone(),
                problem: "it is the last and not linear, so that the classes are fixed".into(),
            });
        };
        *out_features = classes;
        Self::try_from(description)
    }

    /// The downsampling points in the order of the layers.
    pub fn points(&self) -> &[Point] {
        &self.description.points
    }

    /// The point of that name, if the network has it.
    pub fn point(&self, id: PointId) -> Option<&Point> {
        self.points().iter().find(|point| point.id == id)
    }

    /// Every instance that some ratios make: `full`, then point by point,
    /// each with the ratios in ascending order and without repetition.
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

    /// The parameters in the order of the layers.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// The batch norms in the order of the layers.
    pub fn norms(&self) -> &[Norm] {
        &self.norms
    }

    /// Which of [`Network::norms`] see another input in an instance than in
    /// `full`: those behind its point. For `full` itself, all.
    pub fn own_norms(&self, instance: Instance) -> Range<usize> {
        let point = instance.point().and_then(|id| self.point(id));
        let first = point.map_or(0, |point| {
            self.norms.partition_point(|norm| norm.layer <= point.layer)
        });
        first..self.norms.len()
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
    fn what_is_no_network_is_refused() {
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
        /// In any graph of ReLUs and sums: a point is taken where all that
        /// later layers read from before is the point's own output.
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
            // What nobody has read goes into the output.
            let unread: Vec<usize> = (0..inputs.len())
                .filter(|id| !inputs.iter().flatten().any(|read| read == id))
                .collect();
            let ids: Vec<LayerId> = unread.iter().map(|&id| LayerId(id)).collect();
            b.layer("output", Op::Concat, &ids);
            inputs.push(unread);

            for place in 1..inputs.len() - 1 {
                let mut b = b.clone();
                b.point(PointId::Block(0), LayerId(place));
                let behind = inputs[place + 1..].iter().flatten();
                let legal = behind.filter(|&&read| read <= place).all(|&read| read == place);
                prop_assert_eq!(b.finish().is_ok(), legal, "at layer {}", place);
            }
        }
    }
}
