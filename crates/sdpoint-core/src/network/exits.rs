//! Early exits: a classifier after each stage.

use super::{Description, Network, NetworkBuilder, NetworkError};
use crate::instance::PointId;
use crate::layer::{Layer, LayerId, Op};

impl Network {
    /// Returns the same network with a classifier after each stage but the last:
    /// batch norm, ReLU, global average pooling, linear. Its output is the
    /// concatenation of the logits of all classifiers in the order of the
    /// stages, the original one last. It has no points, because after a
    /// classifier branches off more than one tensor is live.
    ///
    /// A stage ends at the last block before one with a stride.
    ///
    /// # Errors
    /// If the network does not end in a linear layer, or has only one stage.
    pub fn with_exits(&self) -> Result<Self, NetworkError> {
        let last = self.layers().len() - 1;
        let unfit = |problem: &str| NetworkError::Layer {
            index: last,
            name: self.layers()[last].name.clone(),
            problem: problem.to_owned(),
        };
        let Op::Linear { out_features, .. } = self.layers()[last].op else {
            return Err(unfit(
                "the last layer is not linear, so it cannot be repeated after each stage",
            ));
        };
        let stages = self.ends_of_stages();
        if stages.is_empty() {
            return Err(unfit("no stage ends before it"));
        }
        let name = format!("{}-exits", self.name());
        let mut b = NetworkBuilder::from_layers(name, self.layers().to_vec());
        let mut logits = Vec::new();
        for (index, end) in stages.into_iter().enumerate() {
            let channels = self.channels(end);
            let name = |layer: &str| format!("exits.{index}.{layer}");
            let x = b.batch_norm(name("bn"), end, channels);
            let x = b.relu(name("relu"), x);
            let x = b.layer(name("avgpool"), Op::GlobalAvgPool, &[x]);
            let op = Op::Linear {
                in_features: channels,
                out_features,
                bias: true,
            };
            logits.push(b.layer(name("fc"), op, &[x]));
        }
        logits.push(LayerId(last));
        b.layer("logits", Op::Concat, &logits);
        b.finish()
    }

    /// Returns a network for each classifier that [`Network::with_exits`] adds, in
    /// their order: the layers that the classifier depends on.
    ///
    /// # Errors
    /// As [`Network::with_exits`].
    pub fn exits(&self) -> Result<Vec<Self>, NetworkError> {
        let joint = self.with_exits()?;
        let ends = &joint.layers()[joint.layers().len() - 1].inputs;
        let ends = &ends[..ends.len() - 1];
        let exits = ends.iter().enumerate().map(|(index, end)| {
            Self::try_from(Description {
                name: format!("{}-exit{}", self.name(), index + 1),
                layers: joint.ancestors(*end),
                points: Vec::new(),
            })
        });
        exits.collect()
    }

    /// The last layer of each stage but the last.
    fn ends_of_stages(&self) -> Vec<LayerId> {
        let blocks = self.points().iter();
        let blocks: Vec<LayerId> = blocks
            .filter(|point| point.id != PointId::Stem)
            .map(|point| point.layer)
            .collect();
        let strides = |layer: &Layer| match layer.op {
            Op::Conv(conv) => conv.stride != [1; 2],
            Op::MaxPool(window) | Op::AvgPool(window) => window.stride != [1; 2],
            _ => false,
        };
        let pairs = blocks.windows(2);
        pairs
            .filter(|pair| self.layers()[pair[0].0 + 1..=pair[1].0].iter().any(strides))
            .map(|pair| pair[0])
            .collect()
    }

    /// The layer `end` and all layers that it depends on.
    fn ancestors(&self, end: LayerId) -> Vec<Layer> {
        let mut needed = vec![false; end.0 + 1];
        needed[end.0] = true;
        for index in (0..=end.0).rev() {
            if needed[index] {
                for input in &self.layers()[index].inputs {
                    needed[input.0] = true;
                }
            }
        }
        let mut places = vec![LayerId(0); end.0 + 1];
        let mut layers: Vec<Layer> = Vec::new();
        for (index, _) in needed.iter().enumerate().filter(|(_, needed)| **needed) {
            let mut layer = self.layers()[index].clone();
            for input in &mut layer.inputs {
                *input = places[input.0];
            }
            places[index] = LayerId(layers.len());
            layers.push(layer);
        }
        layers
    }
}

#[cfg(test)]
mod tests {
    use crate::zoo;

    #[test]
    fn exits_follow_the_stages_and_share_their_layers() {
        for (name, stages) in [("preresnet20", 3), ("wrn16-2", 3), ("resnet18", 4)] {
            let network = zoo::build(name, 7).unwrap();
            let joint = network.with_exits().unwrap();
            assert_eq!(joint.classes(), 7 * stages, "{name}");
            let exits = network.exits().unwrap();
            assert_eq!(exits.len(), stages - 1);
            let size = [64, 64];
            let full = crate::Instance::Full;
            let costs: Vec<u64> = exits
                .iter()
                .chain([&network])
                .map(|exit| exit.cost(size, full).unwrap().macs)
                .collect();
            assert!(costs.is_sorted_by(|a, b| a < b), "{costs:?}");
            let all = joint.parameters();
            for exit in &exits {
                assert_eq!(exit.classes(), 7);
                for parameter in exit.parameters() {
                    let same = |p: &&crate::network::Parameter| p.name == parameter.name;
                    let shared = all.iter().find(same).unwrap();
                    assert_eq!(shared.shape, parameter.shape);
                }
            }
        }
    }

    #[test]
    fn a_network_of_one_stage_has_no_exits() {
        let mut b = crate::network::NetworkBuilder::new("one", 3);
        let op = crate::layer::Op::Linear {
            in_features: 3,
            out_features: 2,
            bias: false,
        };
        let pooled = b.layer("avgpool", crate::layer::Op::GlobalAvgPool, &[b.input()]);
        b.layer("fc", op, &[pooled]);
        let error = b.finish().unwrap().with_exits().unwrap_err().to_string();
        assert!(error.contains("no stage"), "{error}");
    }
}
