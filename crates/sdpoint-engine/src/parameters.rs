//! The parameters of each layer.

use sdpoint_core::{LayerId, Network, OwnParameters, Role, Weights};

/// The index of each layer's parameters in [`sdpoint_core::Weights`].
#[derive(Clone, Debug)]
pub(crate) struct ParameterTable {
    /// Weight and bias, or scale and shift of a batch norm, by layer.
    indices: Vec<[Option<usize>; 2]>,
}

impl ParameterTable {
    pub fn new(network: &Network) -> Self {
        let mut indices = vec![[None; 2]; network.layers().len()];
        for (index, parameter) in network.parameters().iter().enumerate() {
            let slot = match parameter.role {
                Role::Weight | Role::NormScale => 0,
                Role::Bias | Role::NormShift => 1,
            };
            indices[parameter.layer.0][slot] = Some(index);
        }
        Self { indices }
    }

    /// The index of a convolution's or linear layer's weight, or of a batch
    /// norm's scale.
    ///
    /// # Panics
    /// If the layer has no weight.
    pub fn weight(&self, layer: LayerId) -> usize {
        self.indices[layer.0][0].expect("the layer has a weight")
    }

    /// The index of a convolution's or linear layer's bias, or of a batch
    /// norm's shift, if the layer has one.
    pub fn bias(&self, layer: LayerId) -> Option<usize> {
        self.indices[layer.0][1]
    }
}

/// The parameters that a pass runs with: those of the network, and those of an
/// instance's own that replace some of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parameters<'a> {
    pub weights: &'a Weights,
    pub own: Option<&'a OwnParameters>,
}

impl<'a> Parameters<'a> {
    /// The values of the parameter with this index.
    pub fn get(&self, index: usize) -> &'a [f32] {
        let own = self.own.and_then(|own| own.get(&index));
        own.unwrap_or(&self.weights.0[index])
    }
}

impl<'a> From<&'a Weights> for Parameters<'a> {
    fn from(weights: &'a Weights) -> Self {
        Self { weights, own: None }
    }
}
