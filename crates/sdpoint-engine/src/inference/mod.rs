//! Inference: any instance of a network with frozen weights, from one packed
//! copy of them.

mod fuse;
mod run;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use sdpoint_core::{Instance, LayerId, Network, Op, ShapeError, Statistics, Weights};
use sdpoint_kernels as kernels;
use sdpoint_kernels::pool::PoolGeometry;
use sdpoint_kernels::{Context, PackedConv, PackedLinear};

use crate::arena::{Arena, Layout, Lifetime};
use crate::lower::{Lowered, Node, Span, geometry, lower};
use crate::parameters::ParameterTable;
use crate::work::stages;
use crate::{Base, EngineError, Images, check_weights};
use fuse::{Step, fuse};

/// Runs any calibrated instance of a network.
///
/// All instances share one packed copy of the weights; an instance's batch
/// norms are applied as it runs, so that switching costs nothing. Calls may
/// come from several threads at once.
#[derive(Debug)]
pub struct InferenceEngine {
    base: Base,
    convs: Vec<Option<PackedConv>>,
    linears: Vec<Option<PackedLinear>>,
    biases: Vec<Option<Vec<f32>>>,
    /// What the batch norms behind an instance's point do.
    folded: BTreeMap<Instance, Vec<Folded>>,
    norms: usize,
    plans: Mutex<HashMap<PlanKey, Arc<Plan>>>,
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

/// Batch norm as scale and shift of each channel.
#[derive(Clone, Debug)]
struct Folded {
    scale: Vec<f32>,
    shift: Vec<f32>,
}

/// The kernel calls of a span and where its tensors lie.
#[derive(Debug)]
struct Plan {
    lowered: Lowered,
    steps: Vec<Step>,
    layout: Layout,
    /// The pooling of each value that a pool makes.
    pools: Vec<Option<PoolGeometry>>,
    batch: usize,
}

type PlanKey = (Instance, Span, usize, [usize; 2]);

/// Plans are small; this only bounds what a caller with ever new sizes piles up.
const MAX_PLANS: usize = 4096;

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
        let layers = network.layers().len();
        let mut engine = Self {
            convs: vec![None; layers],
            linears: vec![None; layers],
            biases: vec![None; layers],
            folded: BTreeMap::new(),
            norms: network.norms().len(),
            plans: Mutex::default(),
            arenas: Mutex::default(),
            base: Base { ctx, network },
        };
        engine.pack(weights, &table);
        engine.fold(weights, statistics, &table);
        Ok(engine)
    }

    fn pack(&mut self, weights: &Weights, table: &ParameterTable) {
        let Base { ctx, network } = &self.base;
        for (index, layer) in network.layers().iter().enumerate() {
            let id = LayerId(index);
            match &layer.op {
                Op::Conv(conv) => {
                    let weight = &weights.0[table.weight(id)];
                    self.convs[index] = Some(PackedConv::new(ctx, geometry(conv), weight));
                }
                Op::Linear {
                    in_features,
                    out_features,
                    ..
                } => {
                    let weight = &weights.0[table.weight(id)];
                    self.linears[index] = Some(PackedLinear::new(
                        ctx,
                        *in_features,
                        *out_features,
                        weight,
                        false,
                    ));
                }
                _ => continue,
            }
            self.biases[index] = table.bias(id).map(|place| weights.0[place].clone());
        }
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
                let mut folded = Folded {
                    scale: vec![0.0; norm.channels],
                    shift: vec![0.0; norm.channels],
                };
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

    /// The logits of a batch in one instance, `batch · classes` values.
    ///
    /// # Errors
    /// If the images do not fit the network, or the instance was not calibrated.
    pub fn run(&self, images: Images<'_>, instance: Instance) -> Result<Vec<f32>, EngineError> {
        images.check(&self.base.network)?;
        self.run_span(
            images,
            images.data,
            instance,
            Span::WHOLE,
            self.norms_of(instance, NormSource::Own)?,
        )
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
        images.check(&self.base.network)?;
        let full = self.norms_of(Instance::Full, NormSource::Own)?;
        let mut logits: BTreeMap<Instance, Vec<f32>> = BTreeMap::new();
        let mut carried: Option<Vec<f32>> = None;
        for stage in stages(&self.base.network, instances) {
            let input = carried.as_deref().unwrap_or(images.data);
            let output = self.run_span(images, input, Instance::Full, stage.trunk, full)?;
            for &instance in &stage.branches {
                let span = Span {
                    from: stage.trunk.to,
                    to: None,
                };
                let norms = self.norms_of(instance, source)?;
                let result = self.run_span(images, &output, instance, span, norms)?;
                logits.insert(instance, result);
            }
            carried = Some(output);
        }
        if let Some(output) = carried.filter(|_| instances.contains(&Instance::Full)) {
            logits.insert(Instance::Full, output);
        }
        Ok(instances
            .iter()
            .map(|instance| logits[instance].clone())
            .collect())
    }

    /// What each batch norm does in an instance.
    fn norms_of(
        &self,
        instance: Instance,
        source: NormSource,
    ) -> Result<FoldedNorms<'_>, EngineError> {
        let full = &self.folded[&Instance::Full];
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

    fn run_span(
        &self,
        images: Images<'_>,
        input: &[f32],
        instance: Instance,
        span: Span,
        norms: FoldedNorms<'_>,
    ) -> Result<Vec<f32>, EngineError> {
        let plan = self.plan((instance, span, images.batch, images.size))?;
        let mut arena = lock(&self.arenas).pop().unwrap_or_default();
        self.execute(&plan, &mut arena, input, norms);
        let place = plan.layout.place(plan.lowered.output.0);
        let output = arena.read().get(place).to_vec();
        lock(&self.arenas).push(arena);
        Ok(output)
    }

    fn plan(&self, key: PlanKey) -> Result<Arc<Plan>, ShapeError> {
        if let Some(plan) = lock(&self.plans).get(&key) {
            return Ok(plan.clone());
        }
        let (instance, span, batch, size) = key;
        let plan = Arc::new(Plan::new(&self.base.network, size, batch, instance, span)?);
        let mut plans = lock(&self.plans);
        if plans.len() >= MAX_PLANS {
            plans.clear();
        }
        plans.insert(key, plan.clone());
        Ok(plan)
    }
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

impl Plan {
    fn new(
        network: &Network,
        size: [usize; 2],
        batch: usize,
        instance: Instance,
        span: Span,
    ) -> Result<Self, ShapeError> {
        let lowered = lower(network, size, instance, span)?;
        let steps = fuse(&lowered);
        let mut lifetimes = vec![
            Lifetime {
                len: 0,
                first: 0,
                last: 0,
            };
            lowered.shapes.len()
        ];
        for (time, step) in steps.iter().enumerate() {
            for value in step.outputs() {
                lifetimes[value.0] = Lifetime {
                    len: lowered.shapes[value.0].len() * batch,
                    first: time,
                    last: time,
                };
            }
            for value in step.inputs() {
                lifetimes[value.0].last = time;
            }
        }
        lifetimes[lowered.output.0].last = steps.len();
        Ok(Self {
            layout: Layout::new(&lifetimes),
            pools: lowered.pools(batch),
            lowered,
            steps,
            batch,
        })
    }
}

impl Plan {
    /// The pooling that a node does.
    fn pool(&self, node: &Node) -> &PoolGeometry {
        let pool = self.pools[node.output.0].as_ref();
        pool.expect("asked for pools alone")
    }
}

/// What a panicking caller left is whole: plans and arenas are replaced, not edited.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
