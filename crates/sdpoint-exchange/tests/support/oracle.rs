//! Small networks with random weights, and what PyTorch computed of them.

#[path = "../../../../fixtures/oracles/networks.rs"]
pub mod networks;

use std::path::Path;

use safetensors::SafeTensors;
use sdpoint_core::{
    EvalTransform, Instance, Model, Moments, Network, Preprocessing, Ratio, Record, Statistics,
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
            let macs = network.cost(size, instance).unwrap().macs;
            instances.push(Record::unmeasured(instance, macs));
        }
        Model {
            weights: Weights(weights.collect()),
            statistics,
            classes: (0..10).map(|class| format!("class {class}")).collect(),
            preprocessing: Preprocessing {
                train: TrainTransform::None,
                evaluate: EvalTransform::Resize,
                ..Preprocessing::new(size, vec![0.5; 3], vec![0.25; 3])
            },
            instances,
            combinations: Vec::new(),
            held_out: None,
            training: serde_json::Value::Null,
            network,
        }
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
