//! Inference: any instance of a network with frozen weights, from one packed
//! copy of them.

mod flight;
mod plan;
mod timed;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sdpoint_core::{
    Instance, Layer, LayerId, Network, Op, PointId, ShapeError, Statistics, Weights,
};
use sdpoint_kernels as kernels;
use sdpoint_kernels::{Context, ConvShape};

use crate::arena::Arena;
use crate::forward::{Executor, Folded, Mode};
use crate::lower::Mask;
use crate::packed::PackedLayers;
use crate::parameters::ParameterTable;
use crate::{Base, EngineError, Images, check_weights};
pub use flight::Flight;
use plan::{Plan, Routes};

/// Runs any calibrated instance of a network.
///
/// All instances share one packed copy of the weights; an instance's batch
/// norms are applied as it runs, so that switching costs nothing. Calls may
/// come from several threads at once.
#[derive(Debug)]
pub struct InferenceEngine {
    base: Base,
    packed: PackedLayers,
    /// Of convolutions and linear layers, by layer.
    biases: Vec<Option<Vec<f32>>>,
    /// What the batch norms behind an instance's point do.
    folded: BTreeMap<Instance, Vec<Folded>>,
    norms: usize,
    routes: Mutex<HashMap<BatchShape, Arc<Routes>>>,
    arenas: Mutex<Vec<Arena>>,
}

/// Whose batch-norm statistics an instance runs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormSource {
    /// The instance's own.
    Own,
    /// Those of `full`, for comparison.
    Shared,
}

/// Batch size, and height and width of the images.
type BatchShape = (usize, [usize; 2]);

/// Plans are small; this only bounds what a caller with ever new sizes piles up.
const MAX_ROUTES: usize = 64;

impl InferenceEngine {
    /// Packs the weights, and folds the statistics of every instance.
    ///
    /// # Errors
    /// If the weights do not fit the network, or `full` has no statistics.
    pub fn new(
        ctx: Arc<Context>,
        network: Arc<Network>,
        weights: &Weights,
        statistics: &Statistics,
    ) -> Result<Self, EngineError> {
        check_weights(&network, weights)?;
        if !statistics.contains(Instance::Full) {
            return Err(EngineError::NotCalibrated(Instance::Full));
        }
        let table = ParameterTable::new(&network);
        let bias = |(index, layer): (usize, &Layer)| match layer.op {
            // A batch norm's shift is in what its statistics fold into.
            Op::BatchNorm { .. } => None,
            _ => table.bias(LayerId(index)).map(|b| weights.0[b].clone()),
        };
        let mut engine = Self {
            packed: PackedLayers::new(&ctx, &network, &table, weights, false),
            biases: network.layers().iter().enumerate().map(bias).collect(),
            folded: BTreeMap::new(),
            norms: network.norms().len(),
            routes: Mutex::default(),
            arenas: Mutex::default(),
            base: Base { ctx, network },
        };
        engine.fold(weights, statistics, &table);
        Ok(engine)
    }

    fn fold(&mut self, weights: &Weights, statistics: &Statistics, table: &ParameterTable) {
        let network = &self.base.network;
        let norms = network.norms();
        for instance in statistics.instances().filter(|&i| network.has(i)) {
            let (range, own) = statistics.own(instance).expect("listed above");
            let folded = norms[range].iter().zip(own).map(|(norm, moments)| {
                let Op::BatchNorm { eps, .. } = network.layer(norm.layer).op else {
                    unreachable!("norms are batch norms");
                };
                let beta = table.bias(norm.layer).expect("every norm has a shift");
                let mut folded = Folded::zeros(norm.channels);
                kernels::norm::fold(
                    &weights.0[table.weight(norm.layer)],
                    &weights.0[beta],
                    &moments.mean,
                    &moments.var,
                    eps,
                    &mut folded.scale,
                    &mut folded.shift,
                );
                folded
            });
            let folded = folded.collect();
            self.folded.insert(instance, folded);
        }
    }

    /// The network that runs.
    pub fn network(&self) -> &Network {
        &self.base.network
    }

    /// The instances that can run: those with statistics.
    pub fn instances(&self) -> impl Iterator<Item = Instance> {
        self.folded.keys().copied()
    }

    /// What the kernels run on.
    pub fn context(&self) -> &Arc<Context> {
        &self.base.ctx
    }

    /// Begins a run that may be left at any point.
    ///
    /// # Errors
    /// If the images do not fit the network.
    pub fn start<'a>(&'a self, images: Images<'a>) -> Result<Flight<'a>, EngineError> {
        Flight::new(self, images)
    }

    /// The logits of a batch in one instance, `batch · classes` values.
    ///
    /// # Errors
    /// If the images do not fit the network, or the instance was not calibrated.
    pub fn run(&self, images: Images<'_>, instance: Instance) -> Result<Vec<f32>, EngineError> {
        self.start(images)?.branch(instance)
    }

    /// The logits of a batch in several instances, in their order; the
    /// layers before a point are computed once for all.
    ///
    /// # Errors
    /// If the images do not fit the network, or an instance was not calibrated.
    pub fn run_all(
        &self,
        images: Images<'_>,
        instances: &[Instance],
        source: NormSource,
    ) -> Result<Vec<Vec<f32>>, EngineError> {
        let mut order: Vec<usize> = (0..instances.len()).collect();
        // The order of names is the order of the data; `full` goes furthest.
        order.sort_by_key(|&i| (instances[i] == Instance::Full, instances[i]));
        let mut flight = self.start(images)?;
        let mut logits = vec![Vec::new(); instances.len()];
        for i in order {
            logits[i] = flight.branch_with(instances[i], source, |_, _| {})?;
        }
        Ok(logits)
    }

    /// Bytes that a run of a batch in an instance needs: the packed weights,
    /// which all instances share, and the block that its tensors lie in. What
    /// the kernels work with comes on top; see [`Context::scratch_bytes`].
    ///
    /// # Errors
    /// If the network cannot take images of this size, or has no such point.
    pub fn memory_bytes(
        &self,
        size: [usize; 2],
        batch: usize,
        instance: Instance,
    ) -> Result<usize, EngineError> {
        let routes = self.routes(batch, size)?;
        let mut tensors = routes.full.placement.layout.len();
        if instance != Instance::Full {
            let branch = routes.branch(&self.base.network, instance, &self.in_place())?;
            tensors = tensors.max(branch.placement.layout.len());
        }
        Ok(self.packed.bytes() + size_of::<f32>() * tensors)
    }

    /// What each batch norm does in an instance.
    fn norms_of(
        &self,
        instance: Instance,
        source: NormSource,
    ) -> Result<FoldedNorms<'_>, EngineError> {
        let full = self.norms_of_full().full;
        let own = match source {
            NormSource::Shared => full,
            NormSource::Own => self
                .folded
                .get(&instance)
                .ok_or(EngineError::NotCalibrated(instance))?,
        };
        Ok(FoldedNorms {
            full,
            own,
            first: self.norms - own.len(),
        })
    }

    fn norms_of_full(&self) -> FoldedNorms<'_> {
        let full = &self.folded[&Instance::Full];
        FoldedNorms {
            full,
            own: full,
            first: 0,
        }
    }

    /// Whether a layer's convolution can be added to what lies where its output goes.
    fn in_place(&self) -> impl Fn(LayerId, &ConvShape) -> bool {
        |layer, shape| self.packed.conv(layer).adds_in_place(&self.base.ctx, shape)
    }

    /// What runs the steps of a plan with these batch norms.
    fn executor<'a>(
        &'a self,
        plan: &'a Plan,
        arena: &'a mut Arena,
        images: &'a [f32],
        norms: FoldedNorms<'a>,
    ) -> Executor<'a, Frozen<'a>> {
        Executor {
            ctx: &self.base.ctx,
            packed: &self.packed,
            placement: &plan.placement,
            images,
            arena,
            mode: Frozen {
                norms,
                biases: &self.biases,
            },
        }
    }

    fn routes(&self, batch: usize, size: [usize; 2]) -> Result<Arc<Routes>, EngineError> {
        if let Some(routes) = lock(&self.routes).get(&(batch, size)) {
            return Ok(routes.clone());
        }
        let routes = Routes::new(&self.base.network, size, batch, &self.in_place());
        let made = Arc::new(routes?);
        made.full.check_memory()?;
        let mut routes = lock(&self.routes);
        if routes.len() >= MAX_ROUTES {
            routes.clear();
        }
        routes.insert((batch, size), made.clone());
        Ok(made)
    }
}

/// For each point, the layer with which its instances leave `full`.
pub(crate) fn exit_layers(
    network: &Network,
    size: [usize; 2],
) -> Result<Vec<(PointId, LayerId)>, ShapeError> {
    Ok(Routes::new(network, size, 1, &|_, _| false)?.exit_layers())
}

/// What each batch norm of an instance does: its own behind the point, that
/// of `full` before it.
#[derive(Clone, Copy)]
struct FoldedNorms<'a> {
    full: &'a [Folded],
    own: &'a [Folded],
    /// The first norm that `own` has.
    first: usize,
}

impl<'a> FoldedNorms<'a> {
    fn get(&self, norm: usize) -> &'a Folded {
        match norm.checked_sub(self.first) {
            Some(index) => &self.own[index],
            None => &self.full[norm],
        }
    }
}

/// A forward pass with the statistics that an instance was given.
struct Frozen<'a> {
    norms: FoldedNorms<'a>,
    biases: &'a [Option<Vec<f32>>],
}

impl Mode for Frozen<'_> {
    fn bias(&self, layer: LayerId) -> Option<&[f32]> {
        self.biases[layer.0].as_deref()
    }

    fn observe(&mut self, _: &Context, _: LayerId, _: usize, _: f32, _: &[f32]) {}

    fn norm(&self, norm: usize) -> &Folded {
        self.norms.get(norm)
    }

    fn argmax(&mut self, _: LayerId) -> Option<&mut Vec<u32>> {
        None
    }

    fn mask(&mut self, _: usize, _: Mask, _: usize, _: &[f32], _: &mut [f32]) {
        unreachable!("noise is training's alone");
    }
}

/// What a panicking caller left is whole: plans and arenas are replaced, not edited.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
