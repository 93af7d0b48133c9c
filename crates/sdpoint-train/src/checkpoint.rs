//! The state of a run on disk, complete enough to go on as if nothing had
//! happened.
//!
//! A checkpoint is one safetensors file: weights as `weights.NAME`, momentum
//! as `momentum.NAME`, and in its metadata the plan, the counters, and a
//! SHA-256 of all of it. A file that a crash or a disk has damaged is
//! refused instead of trained on.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors, View};
use sdpoint_core::atomic::write_atomically;
use sdpoint_core::{Network, Parameter, Weights};
use sdpoint_data::{DataError, Dataset};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::TrainError;
use crate::plan::Plan;
use sdpoint_core::hex;

/// The checkpoint's name in the folder of a run.
pub const FILE: &str = "checkpoint.safetensors";

/// The newest layout of checkpoints that this program reads, and the one
/// that it writes. Those of version 1 have no digest of the data.
const VERSION: u32 = 2;

const STATE: &str = "sdpoint_checkpoint";
const DIGEST: &str = "sha256";

/// A run between two steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// What the run is.
    pub plan: Plan,
    /// How far it is.
    pub counters: Counters,
    /// The parameters.
    pub weights: Weights,
    /// The optimiser's momentum.
    pub momentum: Weights,
}

/// How far a run is, and what happened since its epoch began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counters {
    /// Steps done, over all epochs.
    pub step: u64,
    /// Training images; a data set of another size is another data set.
    pub images: usize,
    /// What the images were when the run began; not known to runs of older
    /// versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<DataDigest>,
    /// Steps in an epoch.
    pub steps_per_epoch: usize,
    /// The instruction set of the steps: another one rounds differently.
    pub isa: String,
    /// Steps in each instance since the run began, in the network's order.
    pub drawn: Vec<u64>,
    /// Sums since the epoch began.
    pub epoch: EpochSums,
}

/// What tells whether images are those that they were: see
/// [`Dataset::digest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataDigest {
    /// Of the training images.
    pub train: String,
    /// Of the test images.
    pub test: String,
}

impl DataDigest {
    /// The digests of both splits.
    ///
    /// # Errors
    /// A file is gone.
    pub fn of(train: &Dataset, test: &Dataset) -> Result<Self, DataError> {
        Ok(Self {
            train: train.digest()?,
            test: test.digest()?,
        })
    }
}

/// Sums over the steps of an epoch so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochSums {
    /// Loss, over images.
    pub loss: f64,
    /// Images classified rightly.
    pub correct: u64,
    /// Images.
    pub images: u64,
    /// Seconds.
    pub seconds: f64,
    /// Seconds that steps waited for data.
    pub data_wait_seconds: f64,
    /// Steps in each instance, in the network's order.
    pub drawn: Vec<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State<'a> {
    version: u32,
    plan: Cow<'a, Plan>,
    counters: Cow<'a, Counters>,
}

/// Read first and alone, so that a newer file is called newer, not damaged.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

impl Checkpoint {
    /// The checkpoint of the run in a folder.
    ///
    /// # Errors
    /// If the folder has none, or if it is truncated, altered, or from a
    /// newer version of the program.
    pub fn read(folder: &Path) -> Result<Self, TrainError> {
        let path = folder.join(FILE);
        match fs::read(&path) {
            Ok(bytes) => {
                Self::parse(&bytes).map_err(|problem| TrainError::Checkpoint { path, problem })
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(TrainError::NoRun(folder.to_owned()))
            }
            Err(error) => Err(TrainError::io("read", &path)(error)),
        }
    }

    /// Writes the checkpoint into the folder of its run, in place of an
    /// older one.
    pub(crate) fn write(
        folder: &Path,
        plan: &Plan,
        counters: &Counters,
        weights: &Weights,
        momentum: &Weights,
    ) -> Result<PathBuf, TrainError> {
        let state = serde_json::to_string(&State {
            version: VERSION,
            plan: Cow::Borrowed(plan),
            counters: Cow::Borrowed(counters),
        })
        .expect("plain data has a JSON form");
        let network = plan.trained()?;
        let parameters = network.parameters();
        let tensors = tensors(parameters, weights, momentum);
        let mut digest = Sha256::new();
        digest.update(&state);
        for (_, tensor) in &tensors {
            digest.update(tensor.data());
        }
        let metadata = HashMap::from([
            (STATE.to_owned(), state),
            (DIGEST.to_owned(), hex(&digest.finalize())),
        ]);
        let path = folder.join(FILE);
        let bytes = safetensors::serialize(tensors, Some(metadata)).map_err(|error| {
            TrainError::Checkpoint {
                path: path.clone(),
                problem: error.to_string(),
            }
        })?;
        write_atomically(&path, |out| out.write_all(&bytes))?;
        Ok(path)
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let damaged =
            |error: &dyn std::fmt::Display| format!("it is damaged or incomplete ({error})");
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| damaged(&e))?;
        let metadata = header.metadata().as_ref();
        let entry = |key| {
            metadata
                .and_then(|entries| entries.get(key))
                .ok_or_else(|| "it is a safetensors file, but no checkpoint".to_owned())
        };
        let (state_text, digest) = (entry(STATE)?, entry(DIGEST)?);
        let Version { version } = serde_json::from_str(state_text).map_err(|e| damaged(&e))?;
        if !(1..=VERSION).contains(&version) {
            return Err(format!(
                "it has version {version} where this program reads those up to {VERSION}; \
                 use the program that wrote it"
            ));
        }
        let state: State = serde_json::from_str(state_text).map_err(|e| damaged(&e))?;
        let file = SafeTensors::deserialize(bytes).map_err(|e| damaged(&e))?;

        let network = state.plan.trained().map_err(|error| error.to_string())?;
        let mut found = Sha256::new();
        found.update(state_text);
        let mut read = |prefix| read_weights(&file, &network, prefix, &mut found);
        let (weights, momentum) = (read("weights")?, read("momentum")?);
        if hex(&found.finalize()) != *digest {
            return Err("its checksum is wrong: it was altered or damaged".into());
        }
        let checkpoint = Self {
            plan: state.plan.into_owned(),
            counters: state.counters.into_owned(),
            weights,
            momentum,
        };
        checkpoint
            .check()
            .map_err(|problem| format!("it contradicts itself: {problem}"))?;
        Ok(checkpoint)
    }

    /// Whether a run could have been in this state.
    fn check(&self) -> Result<(), String> {
        let Self { plan, counters, .. } = self;
        plan.check().map_err(|error| error.to_string())?;
        let an_epoch = counters.images.div_ceil(plan.recipe.batch_size);
        if an_epoch == 0 || counters.steps_per_epoch != an_epoch {
            return Err(format!(
                "{} images do not make {} steps",
                counters.images, counters.steps_per_epoch
            ));
        }
        let steps = plan.recipe.epochs as u128 * an_epoch as u128;
        if u128::from(counters.step) > steps {
            return Err(format!("step {} of {steps}", counters.step));
        }
        let instances = plan.network.instances(&plan.ratios).len();
        let in_epoch = counters.epoch.drawn.len();
        if counters.drawn.len() != instances || !(in_epoch == 0 || in_epoch == instances) {
            return Err(format!("counts that are not of its {instances} instances"));
        }
        Ok(())
    }
}

/// One parameter's values or momentum, for safetensors.
struct Tensor<'a> {
    shape: &'a [usize],
    values: &'a [f32],
}

impl View for Tensor<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    fn data_len(&self) -> usize {
        size_of_val(self.values)
    }
}

fn tensors<'a>(
    parameters: &'a [Parameter],
    weights: &'a Weights,
    momentum: &'a Weights,
) -> Vec<(String, Tensor<'a>)> {
    let all = |prefix: &'static str, values: &'a Weights| {
        std::iter::zip(parameters, &values.0).map(move |(parameter, values)| {
            let shape = parameter.shape.as_slice();
            (
                format!("{prefix}.{}", parameter.name),
                Tensor { shape, values },
            )
        })
    };
    all("weights", weights)
        .chain(all("momentum", momentum))
        .collect()
}

fn read_weights(
    file: &SafeTensors,
    network: &Network,
    prefix: &str,
    digest: &mut Sha256,
) -> Result<Weights, String> {
    let values = network.parameters().iter().map(|parameter| {
        let name = format!("{prefix}.{}", parameter.name);
        let tensor = file
            .tensor(&name)
            .map_err(|_| format!("it lacks the tensor '{name}'"))?;
        if tensor.dtype() != Dtype::F32 || tensor.shape() != parameter.shape {
            return Err(format!(
                "tensor '{name}' is {:?} {:?} where F32 {:?} is needed",
                tensor.dtype(),
                tensor.shape(),
                parameter.shape
            ));
        }
        digest.update(tensor.data());
        let (values, _) = tensor.data().as_chunks::<4>();
        Ok(values
            .iter()
            .map(|&bytes| f32::from_le_bytes(bytes))
            .collect())
    });
    Ok(Weights(values.collect::<Result<_, String>>()?))
}

#[cfg(test)]
mod tests {
    use sdpoint_core::{EvalTransform, Preprocessing, Ratio, TrainTransform, zoo};

    use super::*;
    use crate::draw::{Draw, Method};
    use crate::recipe::{Preset, Recipe};

    fn checkpoint() -> Checkpoint {
        let network = zoo::build("preresnet8", 3).unwrap();
        let mut weights = Weights::zeros(&network);
        for (index, value) in weights.0.iter_mut().flatten().enumerate() {
            *value = 1.0 / (index + 1) as f32;
        }
        let momentum = Weights(
            weights
                .0
                .iter()
                .map(|w| w.iter().map(|v| -v).collect())
                .collect(),
        );
        Checkpoint {
            plan: Plan {
                data: "shapes".into(),
                train_images: None,
                image_key: None,
                label_key: None,
                network,
                init: None,
                classes: vec!["a".into(), "b".into(), "c".into()],
                preprocessing: Preprocessing {
                    train: TrainTransform::None,
                    evaluate: EvalTransform::Resize,
                    ..Preprocessing::new(
                        [32, 32],
                        vec![0.4914, 0.4822, 0.4465],
                        vec![0.2023, 0.1994, 0.201],
                    )
                },
                recipe: Recipe {
                    batch_size: 10,
                    ..Preset::Cifar.recipe().with_epochs(7)
                },
                method: Method::SdPoint,
                draw: Draw::Full { probability: 0.1 },
                distill: 0.0,
                dropout: 0.0,
                stochastic_depth: 0.0,
                scales: Vec::new(),
                exits: false,
                measure_every: 0,
                ratios: Ratio::DEFAULT.to_vec(),
                seed: u64::MAX,
                calibration_images: 10,
            },
            counters: Counters {
                step: 12,
                images: 100,
                data: Some(DataDigest {
                    train: "a1".into(),
                    test: "b2".into(),
                }),
                steps_per_epoch: 10,
                isa: "avx2".into(),
                drawn: vec![3; 7],
                epoch: EpochSums {
                    loss: 0.1 + 0.2,
                    correct: 5,
                    images: 20,
                    seconds: 1e-9,
                    data_wait_seconds: 0.0,
                    drawn: vec![1; 7],
                },
            },
            weights,
            momentum,
        }
    }

    fn write(folder: &Path, c: &Checkpoint) -> PathBuf {
        Checkpoint::write(folder, &c.plan, &c.counters, &c.weights, &c.momentum).unwrap()
    }

    #[test]
    fn every_bit_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let written = checkpoint();
        write(folder.path(), &written);
        let read = Checkpoint::read(folder.path()).unwrap();
        assert_eq!(read, written);
        assert_eq!(read.counters.epoch.loss.to_bits(), (0.1f64 + 0.2).to_bits());
    }

    /// What version 0.1 wrote: no digest of the data, and another version.
    #[test]
    fn an_older_checkpoint_is_read() {
        let mut older = checkpoint();
        older.counters.data = None;
        let folder = tempfile::tempdir().unwrap();
        let path = write(folder.path(), &older);
        let bytes = fs::read(&path).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let state =
            header.metadata().as_ref().unwrap()[STATE].replace(r#""version":2"#, r#""version":1"#);
        assert!(!state.contains(r#""data":{"#), "{state}");
        let network = older.plan.trained().unwrap();
        let parameters = network.parameters();
        let tensors = tensors(parameters, &older.weights, &older.momentum);
        let mut digest = Sha256::new();
        digest.update(&state);
        for (_, tensor) in &tensors {
            digest.update(tensor.data());
        }
        let metadata = HashMap::from([
            (STATE.to_owned(), state),
            (DIGEST.to_owned(), hex(&digest.finalize())),
        ]);
        fs::write(
            &path,
            safetensors::serialize(tensors, Some(metadata)).unwrap(),
        )
        .unwrap();
        assert_eq!(Checkpoint::read(folder.path()).unwrap(), older);
    }

    #[test]
    fn damage_anywhere_is_noticed_and_the_file_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = write(folder.path(), &checkpoint());
        let whole = fs::read(&path).unwrap();
        let refused = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            let error = Checkpoint::read(folder.path()).expect_err("damaged");
            let message = error.to_string();
            assert!(message.contains(path.to_str().unwrap()), "{message}");
            message
        };
        for length in [0, 7, 100, whole.len() / 2, whole.len() - 1] {
            refused(&whole[..length]);
        }
        for place in (0..whole.len()).step_by(whole.len() / 97) {
            let mut bytes = whole.clone();
            bytes[place] ^= 0x10;
            refused(&bytes);
        }
        let mut last = whole.clone();
        *last.last_mut().unwrap() ^= 1;
        assert!(refused(&last).contains("checksum"));
    }

    #[test]
    fn a_state_that_no_run_can_be_in_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |change: fn(&mut Checkpoint)| {
            let mut altered = checkpoint();
            change(&mut altered);
            write(folder.path(), &altered);
            let message = Checkpoint::read(folder.path()).unwrap_err().to_string();
            assert!(message.contains("contradicts itself"), "{message}");
        };
        refused(|c| c.counters.step = 71);
        refused(|c| c.counters.images = 0);
        refused(|c| c.counters.steps_per_epoch = 9);
        refused(|c| c.counters.drawn.truncate(2));
        refused(|c| c.counters.epoch.drawn.push(0));
        refused(|c| c.plan.recipe.batch_size = 0);
        refused(|c| c.plan.classes.truncate(1));
    }

    #[test]
    fn a_newer_version_and_other_files_are_told_apart() {
        let parse = |metadata: Option<&str>| {
            let metadata = metadata.map(|state| {
                HashMap::from([(STATE.into(), state.into()), (DIGEST.into(), String::new())])
            });
            let (shape, values) = (&[1][..], &[0.0][..]);
            let tensor = Tensor { shape, values };
            let bytes = safetensors::serialize([("x", tensor)], metadata).unwrap();
            Checkpoint::parse(&bytes).unwrap_err()
        };
        assert!(parse(None).contains("no checkpoint"));
        assert!(parse(Some(r#"{"version":9,"new":1}"#)).contains("version 9"));
    }

    #[test]
    fn a_folder_without_a_run_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = Checkpoint::read(folder.path()).unwrap_err();
        assert!(matches!(error, TrainError::NoRun(_)));
        assert!(error.to_string().contains(FILE), "{error}");
    }
}
