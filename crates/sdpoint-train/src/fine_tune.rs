//! Starting from a trained model instead of from random weights.

use sdpoint_core::{Model, Network, NetworkError, Weights};
use sdpoint_engine::initial_weights;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use sdpoint_core::hex;

/// The model that a run starts from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Init {
    /// The file in the user's words.
    pub model: String,
    /// The SHA-256 of its weights, in hexadecimal digits: what a run gives
    /// depends on them, and not on the file's name.
    pub sha256: String,
}

impl Init {
    /// Names a model.
    pub fn new(file: impl Into<String>, model: &Model) -> Self {
        let mut digest = Sha256::new();
        for values in &model.weights.0 {
            for value in values {
                digest.update(value.to_le_bytes());
            }
        }
        Self {
            model: file.into(),
            sha256: hex(&digest.finalize()),
        }
    }
}

/// A model's network for this many classes, with its weights to start from.
///
/// Where the number is another than the model's, the classifier starts from
/// random weights, as in [`initial_weights`], and all else from the model's.
///
/// # Errors
/// If the network cannot have so many classes.
pub fn fine_tune(
    model: &Model,
    classes: usize,
    seed: u64,
) -> Result<(Network, Weights), NetworkError> {
    if classes == model.network.classes() {
        return Ok((model.network.clone(), model.weights.clone()));
    }
    let network = model.network.with_classes(classes)?;
    let mut weights = initial_weights(&network, seed);
    let classifier = network.layers().len() - 1;
    for (index, parameter) in network.parameters().iter().enumerate() {
        if parameter.layer.0 != classifier {
            weights.0[index].clone_from(&model.weights.0[index]);
        }
    }
    Ok((network, weights))
}

#[cfg(test)]
mod tests {
    use sdpoint_core::{EvalTransform, Preprocessing, Statistics, TrainTransform, zoo};

    use super::*;

    #[test]
    fn another_number_of_classes_renews_the_classifier_alone() {
        let network = zoo::build("preresnet8", 3).unwrap();
        let model = Model {
            weights: initial_weights(&network, 1),
            statistics: Statistics::identity(&network),
            classes: vec!["a".into(), "b".into(), "c".into()],
            preprocessing: Preprocessing {
                train: TrainTransform::None,
                evaluate: EvalTransform::Resize,
                ..Preprocessing::new([32, 32], vec![0.5; 3], vec![0.5; 3])
            },
            instances: Vec::new(),
            combinations: Vec::new(),
            training: serde_json::Value::Null,
            network,
        };
        let (network, weights) = fine_tune(&model, 3, 2).unwrap();
        assert_eq!((&network, &weights), (&model.network, &model.weights));

        let (network, weights) = fine_tune(&model, 5, 2).unwrap();
        assert_eq!(network.classes(), 5);
        assert!(weights.fit(&network));
        let (same, fresh) = weights.0.split_at(weights.0.len() - 2);
        assert_eq!(same, &model.weights.0[..same.len()]);
        assert_eq!(fresh, &initial_weights(&network, 2).0[same.len()..]);
        assert!(fine_tune(&model, 0, 2).is_err());
    }
}
