//! Which parameters belong to which layer.

use sdpoint_core::{LayerId, Network, Role};

/// The places of each layer's parameters in [`sdpoint_core::Weights`].
#[derive(Clone, Debug)]
pub(crate) struct ParameterTable {
    /// Weight and bias, or a batch norm's scale and shift.
    places: Vec<[Option<usize>; 2]>,
}

impl ParameterTable {
    pub fn new(network: &Network) -> Self {
        let mut places = vec![[None; 2]; network.layers().len()];
        for (index, parameter) in network.parameters().iter().enumerate() {
            let slot = match parameter.role {
                Role::Weight | Role::NormScale => 0,
                Role::Bias | Role::NormShift => 1,
            };
            places[parameter.layer.0][slot] = Some(index);
        }
        Self { places }
    }

    /// The weight of a convolution or linear layer, or a batch norm's scale.
    pub fn weight(&self, layer: LayerId) -> usize {
        self.places[layer.0][0].expect("only layers with weights are asked for them")
    }

    /// The bias of a convolution or linear layer, or a batch norm's shift.
    pub fn bias(&self, layer: LayerId) -> Option<usize> {
        self.places[layer.0][1]
    }
}
