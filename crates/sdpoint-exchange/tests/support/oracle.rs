//! Small networks with random weights, and what PyTorch computed of them.

#[path = "../../../../fixtures/oracles/networks.rs"]
pub mod networks;

use std::path::Path;

use safetensors::SafeTensors;
use sdpoint_core::{
    EvalTransform, Instance, Model, Moments, Network, Preprocessing, Ratio, Statistics,
    TrainTransform, Weights,
};

use networks::network;

pub struct Oracle {
    network: Network,
    bytes: Vec<u8>,
}

impl Oracle {
    pub fn open(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/oracles");
        let bytes = std::fs::read(folder.join(format!("{name}.safetensors"))).unwrap();
        Self {
            network: network(name),
            bytes,
        }
    }

    pub fn tensor(&self, name: &str) -> (Vec<usize>, Vec<f32>) {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let tensor = file.tensor(name).unwrap_or_else(|_| panic!("no {name}"));
        let (values, _) = tensor.data().as_chunks::<4>();
        let values = values.iter().map(|&x| f32::from_le_bytes(x)).collect();
        (tensor.shape().to_vec(), values)
    }

    /// Whether something was recorded for an instance.
    fn has(&self, name: &str) -> bool {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        file.names().contains(&name)
    }

    fn moments(&self, prefix: &str) -> Vec<Moments> {
        let value = |name: String| self.tensor(&name).1;
        let norms = self.network.norms();
        let moments = norms.iter().map(|norm| Moments {
            mean: value(format!("{prefix}/{}.running_mean", norm.name)),
            var: value(format!("{prefix}/{}.running_var", norm.name)),
        });
        moments.collect()
    }

    /// The recorded network as a model: with the running statistics for all
    /// instances alike, or with those that were calibrated for some.
    pub fn model(&self, calibrated: bool) -> Model {
        let network = self.network.clone();
        let (shape, _) = self.tensor("input");
        let size = [shape[2], shape[3]];
        let parameters = network.parameters();
        let weights = parameters
            .iter()
            .map(|p| self.tensor(&format!("weights/{}", p.name)).1);
        let mut statistics = Statistics::default();
        let mut instances = Vec::new();
        let all = network.instances(&Ratio::DEFAULT);
        // Recorded moments are those of all norms, also of the norms before
        // the point, which share those of full: the last point has the most.
        let recorded = |i: &&Instance| self.has(&format!("calibrated/{i}/logits"));
        if let (true, Some(last)) = (calibrated, all.iter().rev().find(recorded)) {
            let full = self.moments(&format!("calibrated/{last}"));
            statistics.set(&network, Instance::Full, full);
        }
        for instance in all {
            let prefix = match calibrated {
                true if !self.has(&format!("calibrated/{instance}/logits")) => continue,
                true => format!("calibrated/{instance}"),
                false => "weights".into(),
            };
            let own = self.moments(&prefix)[network.own_norms(instance)].to_vec();
            statistics.set(&network, instance, own);
            instances.push(instance);
        }
        let weights = Weights(weights.collect());
        let preprocessing = Preprocessing {
            train: TrainTransform::None,
            evaluate: EvalTransform::Resize,
            ..Preprocessing::new(size, vec![0.5; 3], vec![0.25; 3])
        };
        let mut model = Model::new(network, weights, preprocessing, &instances).unwrap();
        model.statistics = statistics;
        for class in &mut model.classes {
            *class = format!("class {class}");
        }
        model
    }

    /// The name of an instance's recorded logits.
    pub fn logits(&self, instance: Instance, calibrated: bool) -> Vec<f32> {
        let name = match calibrated {
            true => format!("calibrated/{instance}/logits"),
            false => format!("logits/{instance}"),
        };
        self.tensor(&name).1
    }
}

/// The model with parameters of its own for some instances: those that the
/// function returns of the shared values.
pub fn tuned(model: &Model, instances: &[Instance], own: impl Fn(f32) -> f32) -> Model {
    let mut model = model.clone();
    for &instance in instances {
        let indices = model.network.own_parameters(instance).into_iter();
        let values = |index: usize| model.weights.0[index].iter().map(|&v| own(v)).collect();
        let own = indices.map(|index| (index, values(index))).collect();
        model
            .statistics
            .set_parameters(&model.network, instance, own);
    }
    model
}

/// The model whose shared parameters are those that an instance uses.
pub fn replaced(model: &Model, instance: Instance) -> Model {
    let mut other = model.clone();
    for (&index, values) in model.statistics.parameters(instance).into_iter().flatten() {
        other.weights.0[index].clone_from(values);
    }
    let tuned: Vec<Instance> = model.statistics.tuned().collect();
    for instance in tuned {
        let (_, moments) = model.statistics.own(instance).unwrap();
        let moments = moments.to_vec();
        other.statistics.set(&other.network, instance, moments);
    }
    other
}
