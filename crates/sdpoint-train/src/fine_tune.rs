//! Training that starts from a trained model.

use sdpoint_core::{Model, Network, NetworkError, Weights};
use sdpoint_engine::initial_weights;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use sdpoint_core::digest::hex;

/// The model that a run starts from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Init {
    /// The path of the file, as the user gave it.
    pub model: String,
    /// The SHA-256 of its weights, in hexadecimal digits: the result of a run
    /// depends on them, not on the path.
    pub sha256: String,
}

impl Init {
    /// Describes a model.
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

/// A model's network for a number of classes, and weights to start from.
///
/// If the number differs from the model's, the classifier gets random weights,
/// as from [`initial_weights`], and all other layers keep the model's.
///
/// ```no_run
/// use sdpoint_core::Model;
/// use sdpoint_data::{OpenOptions, Source, open_pair};
/// use sdpoint_train::{Run, Silent, TrainPlan, fine_tune};
///
/// # let ctx = std::sync::Arc::new(sdpoint_engine::Context::new(None)?);
/// let model = Model::load("resnet18.safetensors")?;
/// let (train, test) = open_pair(&Source::Folder("photos".into()), &OpenOptions::default())?;
/// let (network, weights) = fine_tune(&model, train.classes().len(), 0)?;
/// let mut plan = TrainPlan::with_preprocessing(network, &train, model.preprocessing.clone());
/// plan.recipe.rate = 0.01;
/// let run = Run::new(&ctx, &train, &test, "runs/photos".as_ref());
/// run.start_from(plan, weights, &mut Silent)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// If the network cannot have this many classes.
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
    use sdpoint_core::{Preprocessing, zoo};

    use super::*;

    #[test]
    fn another_number_of_classes_renews_the_classifier_alone() {
        let network = zoo::build("preresnet8", 3).unwrap();
        let weights = initial_weights(&network, 1);
        let preprocessing = Preprocessing::new([32, 32], vec![0.5; 3], vec![0.5; 3]);
        let mut model = Model::new(network, weights, preprocessing, &[]).unwrap();
        model.classes = vec!["a".into(), "b".into(), "c".into()];
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
