//! Weights that are packed one by one, as they are read from a file.

use std::sync::Arc;

use sdpoint_core::{LayerId, Network, Role, Statistics, Weights};
use sdpoint_kernels::Context;

use super::InferenceEngine;
use crate::EngineError;
use crate::packed::PackedLayers;

/// Packs the weights of a network one by one, as
/// [`Model::load_passing`](sdpoint_core::Model::load_passing) passes them.
///
/// It works on the calling thread only, because reading keeps another one busy with the file's
/// digest.
///
/// ```no_run
/// use std::sync::Arc;
/// use sdpoint_core::Model;
/// use sdpoint_engine::{Context, Packing};
///
/// let mut packing = Packing::new(Arc::new(Context::new(None)?));
/// let model = Model::load_passing("model.safetensors", |network, index, values| {
///     packing.take(network, index, values)
/// })?;
/// let engine = packing.finish(Arc::new(model.network), &model.weights, &model.statistics)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Packing {
    ctx: Arc<Context>,
    alone: Context,
    /// The network that parameters were taken of, and its packed layers.
    taken: Option<(Network, PackedLayers)>,
}

impl Packing {
    /// Nothing packed yet, for an engine that runs on `ctx`.
    pub fn new(ctx: Arc<Context>) -> Self {
        Self {
            alone: ctx.alone(),
            ctx,
            taken: None,
        }
    }

    /// Packs the parameter of `network` with this index, and returns whether its values are not
    /// needed any more: those of convolutions and linear layers. All calls have to be for the same
    /// network.
    ///
    /// # Panics
    /// If the network has no such parameter, or one of another length.
    pub fn take(&mut self, network: &Network, index: usize, values: &[f32]) -> bool {
        let parameter = &network.parameters()[index];
        if parameter.role != Role::Weight {
            return false;
        }
        let (_, layers) = self
            .taken
            .get_or_insert_with(|| (network.clone(), PackedLayers::nothing(network)));
        layers.pack(&self.alone, network, parameter.layer, || values, false);
        true
    }

    /// The engine. `weights` has the parameters that were not taken; those that were may be empty.
    ///
    /// # Errors
    /// As [`InferenceEngine::new`], or if parameters of another network were taken.
    pub fn finish(
        self,
        network: Arc<Network>,
        weights: &Weights,
        statistics: &Statistics,
    ) -> Result<InferenceEngine, EngineError> {
        let layers = match self.taken {
            Some((of, layers)) if of == *network => layers,
            Some(_) => return Err(EngineError::Weights(network.name().to_owned())),
            None => PackedLayers::nothing(&network),
        };
        InferenceEngine::with_packed(self.ctx, network, layers, weights, statistics)
    }
}

/// Whether the weights have the number and lengths of the network's parameters, except for those
/// that are packed.
pub(super) fn fit(network: &Network, packed: &PackedLayers, weights: &Weights) -> bool {
    let is_packed = |layer: LayerId, role| role == Role::Weight && packed.has(layer);
    let parameters = network.parameters();
    weights.0.len() == parameters.len()
        && std::iter::zip(&weights.0, parameters)
            .all(|(data, p)| data.len() == p.len() || is_packed(p.layer, p.role))
}
