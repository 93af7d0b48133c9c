//! Construction of networks in code.

use super::{Description, Network, NetworkError, Point};
use crate::instance::PointId;
use crate::layer::{Conv, Layer, LayerId, Op};

/// Builds a network layer by layer.
///
/// Errors are reported by [`NetworkBuilder::finish`] alone, so code that builds
/// an architecture reads as a list of layers.
#[derive(Clone, Debug)]
pub struct NetworkBuilder {
    description: Description,
}

impl NetworkBuilder {
    /// Starts a network with an input of `channels` channels, which is layer 0.
    pub fn new(name: impl Into<String>, channels: usize) -> Self {
        let input = Layer {
            name: "input".into(),
            op: Op::Input { channels },
            inputs: Vec::new(),
        };
        Self {
            description: Description {
                name: name.into(),
                layers: vec![input],
                points: Vec::new(),
            },
        }
    }

    /// Starts with the layers of an existing network; more are appended.
    pub(super) fn from_layers(name: impl Into<String>, layers: Vec<Layer>) -> Self {
        Self {
            description: Description {
                name: name.into(),
                layers,
                points: Vec::new(),
            },
        }
    }

    /// The input layer.
    pub fn input(&self) -> LayerId {
        LayerId(0)
    }

    /// Adds a layer and returns its id.
    pub fn layer(&mut self, name: impl Into<String>, op: Op, inputs: &[LayerId]) -> LayerId {
        self.description.layers.push(Layer {
            name: name.into(),
            op,
            inputs: inputs.to_vec(),
        });
        LayerId(self.description.layers.len() - 1)
    }

    /// Adds a convolution.
    pub fn conv(&mut self, name: impl Into<String>, input: LayerId, conv: Conv) -> LayerId {
        self.layer(name, Op::Conv(conv), &[input])
    }

    /// Adds a batch norm with PyTorch's `eps` of 1e-5.
    pub fn batch_norm(
        &mut self,
        name: impl Into<String>,
        input: LayerId,
        channels: usize,
    ) -> LayerId {
        let op = Op::BatchNorm {
            channels,
            eps: 1e-5,
        };
        self.layer(name, op, &[input])
    }

    /// Adds a ReLU.
    pub fn relu(&mut self, name: impl Into<String>, input: LayerId) -> LayerId {
        self.layer(name, Op::Relu, &[input])
    }

    /// Adds a ReLU that stops at 6.
    pub fn relu6(&mut self, name: impl Into<String>, input: LayerId) -> LayerId {
        self.layer(name, Op::Relu6, &[input])
    }

    /// Adds a sum of two tensors.
    pub fn add(&mut self, name: impl Into<String>, left: LayerId, right: LayerId) -> LayerId {
        self.layer(name, Op::Add, &[left, right])
    }

    /// Adds a downsampling point at a layer; see [`Point::layer`].
    pub fn point(&mut self, id: PointId, layer: LayerId) {
        self.description.points.push(Point { id, layer });
    }

    /// Validates the layers and points and returns the network.
    ///
    /// # Errors
    /// The first invalid layer or point.
    pub fn finish(self) -> Result<Network, NetworkError> {
        Network::try_from(self.description)
    }
}
