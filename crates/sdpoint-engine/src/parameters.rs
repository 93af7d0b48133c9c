//! The parameters of each layer.

use sdpoint_core::{LayerId, Network, Role};

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
