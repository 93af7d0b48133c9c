//! Inference: runs any instance of a network from one packed copy of the
//! weights.

mod packing;
mod partial_run;
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
use crate::forward::{Executor, FoldedNorm, ForwardMode};
use crate::lower::Mask;
use crate::packed::PackedLayers;
use crate::parameters::ParameterTable;
use crate::{Base, EngineError, Images};
pub use packing::Packing;
pub use partial_run::PartialRun;
use plan::{InferencePlan, PlanSet};

/// Runs any calibrated instance of a network.
///
/// All instances share one packed copy of the weights. The batch norms of an
/// instance are applied in the epilogues of the convolutions instead of being
/// folded into the weights, so switching instances costs nothing. The engine
/// can be used from several threads at once.
#[derive(Debug)]
pub struct InferenceEngine {
    base: Base,
    packed: PackedLayers,
    /// The biases of convolutions and linear layers, by layer.
    biases: Vec<Option<Vec<f32>>>,
    /// The batch norms after each instance's point.
    folded: BTreeMap<Instance, Vec<FoldedNorm>>,
    /// The classifier's bias of the instances that have one of their own.
    classifier_biases: BTreeMap<Instance, Vec<f32>>,
    /// The number of batch norms in the network.
    norms: usize,
    plans: Mutex<HashMap<BatchShape, Arc<PlanSet>>>,
    arenas: Mutex<Vec<Arena>>,
}

/// The batch-norm statistics that an instance runs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NormSource {
    /// The instance's own.
    Own,
    /// The statistics of `full`, for comparison.
    Shared,
}

/// Batch size, and height and width of the images.
type BatchShape = (usize, [usize; 2]);

/// The most batch shapes whose plans are cached. Plans are small; the limit
/// bounds memory for callers whose sizes keep changing.
const MAX_PLAN_SETS: usize = 64;

impl InferenceEngine {
    /// Packs the weights, and folds the batch norms of every instance in
    /// `statistics` into scales and shifts, with parameters of its own if it has
    /// any. Instances whose point the network lacks are skipped.
    ///
    /// # Errors
    /// If the weights do not fit the network, or `full` has no statistics.
    pub fn new(
        ctx: Arc<Context>,
        network: Arc<Network>,
        weights: &Weights,
        statistics: &Statistics,
    ) -> Result<Self, EngineError> {
        let nothing = PackedLayers::nothing(&network);
        Self::with_packed(ctx, network, nothing, weights, statistics)
    }

    /// As [`InferenceEngine::new`] where some layers are packed already.
    fn with_packed(
        ctx: Arc<Context>,
        network: Arc<Network>,
        mut packed: PackedLayers,
        weights: &Weights,
        statistics: &Statistics,
    ) -> Result<Self, EngineError> {
        if !packing::fit(&network, &packed, weights) {
            return Err(EngineError::Weights(network.name().to_owned()));
        }
        if !statistics.contains(Instance::Full) {
            return Err(EngineError::NotCalibrated(Instance::Full));
        }
        let table = ParameterTable::new(&network);
        let bias = |(index, layer): (usize, &Layer)| match layer.op {
            // A batch norm's shift is part of its folded statistics.
            Op::BatchNorm { .. } => None,
            _ => table.bias(LayerId(index)).map(|b| weights.0[b].clone()),
        };
        packed.pack_rest(&ctx, &network, &table, weights, false);
        let mut engine = Self {
            packed,
            biases: network.layers().iter().enumerate().map(bias).collect(),
            folded: BTreeMap::new(),
            classifier_biases: BTreeMap::new(),
            norms: network.norms().len(),
            plans: Mutex::default(),
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
                let parameter = |index| statistics.parameter(weights, instance, index);
                let mut folded = FoldedNorm::zeros(norm.channels);
                kernels::norm::fold(
                    parameter(table.weight(norm.layer)),
                    parameter(beta),
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
            let own = statistics.parameters(instance);
            let bias = table.bias(classifier(network));
            if let Some(bias) = bias.and_then(|index| own?.get(&index)) {
                self.classifier_biases.insert(instance, bias.clone());
            }
        }
    }

    /// The network that the engine runs.
    pub fn network(&self) -> &Network {
        &self.base.network
    }

    /// The instances that can run: those that have statistics.
    pub fn instances(&self) -> impl Iterator<Item = Instance> {
        self.folded.keys().copied()
    }

    /// The context that the kernels run in.
    pub fn context(&self) -> &Arc<Context> {
        &self.base.ctx
    }

    /// Starts a run that can stop at any point and resume from there.
    ///
    /// # Errors
    /// If the images do not fit the network.
    pub fn start<'a>(&'a self, images: Images<'a>) -> Result<PartialRun<'a>, EngineError> {
        PartialRun::new(self, images)
    }

    /// Runs a batch in one instance and returns the logits, `batch · classes`
    /// values.
    ///
    /// # Errors
    /// If the images do not fit the network, or the instance is not calibrated.
    pub fn run(&self, images: Images<'_>, instance: Instance) -> Result<Vec<f32>, EngineError> {
        self.start(images)?.branch(instance)
    }

    /// Runs a batch in several instances and returns the logits of each, in the
    /// order of `instances`. The layers that instances have in common are
    /// computed once.
    ///
    /// # Errors
    /// If the images do not fit the network, or an instance is not calibrated.
    pub fn run_all(
        &self,
        images: Images<'_>,
        instances: &[Instance],
        source: NormSource,
    ) -> Result<Vec<Vec<f32>>, EngineError> {
        let mut order: Vec<usize> = (0..instances.len()).collect();
        // In execution order of the points; `full` last, because it passes all.
        order.sort_by_key(|&i| (instances[i] == Instance::Full, instances[i]));
        let mut run = self.start(images)?;
        let mut logits = vec![Vec::new(); instances.len()];
        for i in order {
            logits[i] = run.branch_with(instances[i], source, |_, _| {})?;
        }
        Ok(logits)
    }

    /// The memory in bytes for running an instance on a batch of `batch` images
    /// of `[height, width]`: the packed weights, which all instances share, and
    /// the block of tensors. The scratch memory of the kernels is extra; see
    /// [`Context::scratch_bytes`].
    ///
    /// # Errors
    /// If the network does not accept images of this size, or has no such
    /// point.
    pub fn memory_bytes(
        &self,
        size: [usize; 2],
        batch: usize,
        instance: Instance,
    ) -> Result<usize, EngineError> {
        let plans = self.plans(batch, size)?;
        let mut tensors = plans.full.placement.layout.len();
        if instance != Instance::Full {
            let branch = plans.branch(&self.base.network, instance, &self.in_place())?;
            tensors = tensors.max(branch.placement.layout.len());
        }
        Ok(self.packed.bytes() + size_of::<f32>() * tensors)
    }

    /// The folded batch norms of an instance.
    fn norms_of(
        &self,
        instance: Instance,
        source: NormSource,
    ) -> Result<InstanceNorms<'_>, EngineError> {
        let full = self.norms_of_full().full;
        let own = match source {
            NormSource::Shared => full,
            NormSource::Own => self
                .folded
                .get(&instance)
                .ok_or(EngineError::NotCalibrated(instance))?,
        };
        let bias = match source {
            NormSource::Shared => None,
            NormSource::Own => self.classifier_biases.get(&instance),
        };
        Ok(InstanceNorms {
            full,
            own,
            first: self.norms - own.len(),
            classifier_bias: bias.map(Vec::as_slice),
        })
    }

    fn norms_of_full(&self) -> InstanceNorms<'_> {
        let full = &self.folded[&Instance::Full];
        InstanceNorms {
            full,
            own: full,
            first: 0,
            classifier_bias: None,
        }
    }

    /// Returns a predicate: whether a layer's convolution can use its output
    /// buffer as the residual.
    fn in_place(&self) -> impl Fn(LayerId, &ConvShape) -> bool {
        |layer, shape| self.packed.conv(layer).adds_in_place(shape)
    }

    /// An executor for a plan with the given batch norms.
    fn executor<'a>(
        &'a self,
        plan: &'a InferencePlan,
        arena: &'a mut Arena,
        images: &'a [f32],
        norms: InstanceNorms<'a>,
    ) -> Executor<'a, FrozenStatistics<'a>> {
        Executor {
            ctx: &self.base.ctx,
            packed: &self.packed,
            placement: &plan.placement,
            images,
            arena,
            mode: FrozenStatistics {
                norms,
                biases: &self.biases,
                classifier: classifier(&self.base.network),
            },
        }
    }

    /// The plans for a batch shape, cached.
    fn plans(&self, batch: usize, size: [usize; 2]) -> Result<Arc<PlanSet>, EngineError> {
        if let Some(plans) = lock(&self.plans).get(&(batch, size)) {
            return Ok(plans.clone());
        }
        let new = PlanSet::new(&self.base.network, size, batch, &self.in_place());
        let new = Arc::new(new?);
        new.full.check_memory()?;
        let mut plans = lock(&self.plans);
        if plans.len() >= MAX_PLAN_SETS {
            plans.clear();
        }
        plans.insert((batch, size), new.clone());
        Ok(new)
    }
}

/// The last layer of a network.
fn classifier(network: &Network) -> LayerId {
    LayerId(network.layers().len() - 1)
}

/// For each point, the first layer at which its instances differ from `full`.
pub(crate) fn exit_layers(
    network: &Network,
    size: [usize; 2],
) -> Result<Vec<(PointId, LayerId)>, ShapeError> {
    Ok(PlanSet::new(network, size, 1, &|_, _| false)?.exit_layers())
}

/// The folded batch norms of an instance: its own after the point, those of
/// `full` before it.
#[derive(Clone, Copy)]
struct InstanceNorms<'a> {
    full: &'a [FoldedNorm],
    own: &'a [FoldedNorm],
    /// The index of the first norm in `own`.
    first: usize,
    /// The classifier's bias, if the instance has one of its own.
    classifier_bias: Option<&'a [f32]>,
}

impl<'a> InstanceNorms<'a> {
    fn get(&self, norm: usize) -> &'a FoldedNorm {
        match norm.checked_sub(self.first) {
            Some(index) => &self.own[index],
            None => &self.full[norm],
        }
    }
}

/// The mode of inference: batch norms use the calibrated statistics.
struct FrozenStatistics<'a> {
    norms: InstanceNorms<'a>,
    biases: &'a [Option<Vec<f32>>],
    classifier: LayerId,
}

impl ForwardMode for FrozenStatistics<'_> {
    fn bias(&self, layer: LayerId) -> Option<&[f32]> {
        let own = self.norms.classifier_bias;
        own.filter(|_| layer == self.classifier)
            .or(self.biases[layer.0].as_deref())
    }

    fn observe(&mut self, _: &Context, _: LayerId, _: usize, _: f32, _: &[f32]) {}

    fn norm(&self, norm: usize) -> &FoldedNorm {
        self.norms.get(norm)
    }

    fn argmax(&mut self, _: LayerId) -> Option<&mut Vec<u32>> {
        None
    }

    fn mask(&mut self, _: usize, _: Mask, _: usize, _: &[f32], _: &mut [f32]) {
        unreachable!("inference plans have no noise");
    }
}

/// Locks a mutex and ignores poisoning: caches only insert, remove and clear
/// complete entries, so they are valid after a panic too.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
