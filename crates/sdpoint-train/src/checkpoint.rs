//! Checkpoints: the whole state of a run, on disk.
//!
//! A checkpoint is one safetensors file: weights as `weights.NAME`, momentum
//! as `momentum.NAME`, for some recipes also `second_moment.NAME` and
//! `average.NAME`, and in its metadata the plan, the counters, and a SHA-256 of all
//! of it. A damaged file is refused.

mod fault;

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors, View};
use sdpoint_core::atomic::write_atomically;
use sdpoint_core::digest::hex;
use sdpoint_core::file::{self, FileError};
use sdpoint_core::words::plural;
use sdpoint_core::{Model, Network, Parameter, Weights};
use sdpoint_data::{DataError, Dataset};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::TrainError;
use crate::folder::{CHECKPOINT, MODEL};
use crate::optimizer::Optimizer;
use crate::plan::TrainPlan;
use crate::recipe::Recipe;
use fault::Fault;

/// The version of the layout that is written, and the newest one that is read.
/// Version 1 has no digest of the data, version 2 no images held out of training and
/// no choice of the transform for statistics.
const VERSION: u32 = 3;

const STATE: &str = "sdpoint_checkpoint";
const DIGEST: &str = "sha256";

/// The state of a run between two steps.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Checkpoint {
    /// The plan of the run.
    pub plan: TrainPlan,
    /// The progress of the run.
    pub counters: Counters,
    /// The weights.
    pub weights: Weights,
    /// The optimiser's momentum; for AdamW, the mean of gradients.
    pub momentum: Weights,
    /// The mean of squared gradients, for AdamW.
    pub second_moment: Option<Weights>,
    /// The average of the weights, if the recipe has one.
    pub average: Option<Weights>,
}

/// The progress of a run, and sums over its current epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Counters {
    /// Steps done, over all epochs.
    pub step: u64,
    /// The number of training images, those held out included.
    pub images: usize,
    /// The number of images held out of training.
    #[serde(default, skip_serializing_if = "is_none")]
    pub held_out: usize,
    /// Digests of the images when the run began; `None` in checkpoints of
    /// version 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<DataDigest>,
    /// Steps in an epoch.
    pub steps_per_epoch: usize,
    /// The instruction set of the kernels; others round differently.
    pub isa: String,
    /// Steps in each instance since the run began, in the network's order.
    pub drawn: Vec<u64>,
    /// Multiply-accumulates of all steps since the run began, forward and
    /// backward passes.
    #[serde(default)]
    pub macs: u64,
    /// Sums since the epoch began.
    pub epoch: EpochSums,
}

fn is_none(images: &usize) -> bool {
    *images == 0
}

/// Digests of both splits, which show whether images have changed; see
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
    /// Computes the digests of both splits.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn of(train: &Dataset, test: &Dataset) -> Result<Self, DataError> {
        Ok(Self {
            train: train.digest()?,
            test: test.digest()?,
        })
    }
}

/// Sums over the steps of the current epoch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochSums {
    /// Loss, over images.
    pub loss: f64,
    /// Images classified correctly.
    pub correct: u64,
    /// The number of images.
    pub images: u64,
    /// The duration of the steps, in seconds.
    pub seconds: f64,
    /// The part of it that steps waited for data.
    pub data_wait_seconds: f64,
    /// Steps in each instance, in the network's order.
    pub drawn: Vec<u64>,
    /// Multiply-accumulates.
    #[serde(default)]
    pub macs: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State<'a> {
    version: u32,
    plan: Cow<'a, TrainPlan>,
    counters: Cow<'a, Counters>,
}

/// Parsed before the rest, so that the error for a newer file says that it is
/// newer, not that it is damaged.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

impl Checkpoint {
    /// Reads the checkpoint of the run in a folder.
    ///
    /// # Errors
    /// If there is none, or it is truncated, altered, or from a newer version
    /// of the program.
    pub fn read(folder: &Path) -> Result<Self, TrainError> {
        let path = folder.join(CHECKPOINT);
        match file::read(&path, u64::MAX) {
            Ok(bytes) => Self::parse_file(&bytes, path),
            Err(FileError::Io(error)) if error.kind() == ErrorKind::NotFound => {
                Err(TrainError::NoRun(folder.to_owned()))
            }
            Err(error) => Err(TrainError::io("read", &path)(error.into())),
        }
    }

    /// Reads a checkpoint by the name of its file.
    ///
    /// # Errors
    /// As [`Checkpoint::read`].
    pub fn read_file(path: &Path) -> Result<Self, TrainError> {
        let bytes = file::read(path, u64::MAX);
        let bytes = bytes.map_err(|error| TrainError::io("read", path)(error.into()))?;
        Self::parse_file(&bytes, path.to_owned())
    }

    fn parse_file(bytes: &[u8], path: PathBuf) -> Result<Self, TrainError> {
        Self::parse(bytes).map_err(|fault| fault.at(path))
    }

    /// The network with its weights as they are, for [`fine_tune`](crate::fine_tune()):
    /// a model that is not calibrated and has no instances.
    ///
    /// # Errors
    /// If the run trains early exits, whose joint network is not a model.
    pub fn into_model(self) -> Result<Model, TrainError> {
        let Self { plan, weights, .. } = self;
        if plan.exits {
            return Err(TrainError::Plan(
                "a run with early exits has no single network to start from before it is \
                 finished; use one of its models"
                    .into(),
            ));
        }
        let mut model = Model::new(plan.network, weights, plan.preprocessing, &[])?;
        model.classes = plan.classes;
        Ok(model)
    }

    /// Writes the checkpoint into the folder of its run, replacing an older
    /// one.
    pub(crate) fn write(&self, folder: &Path) -> Result<PathBuf, TrainError> {
        let state = serde_json::to_string(&State {
            version: VERSION,
            plan: Cow::Borrowed(&self.plan),
            counters: Cow::Borrowed(&self.counters),
        })
        .expect("plain data has a JSON form");
        let network = self.plan.trained_network()?;
        let tensors = self.tensors(network.parameters());
        let mut digest = Sha256::new();
        digest.update(&state);
        for (_, tensor) in &tensors {
            digest.update(tensor.data());
        }
        let metadata = HashMap::from([
            (STATE.to_owned(), state),
            (DIGEST.to_owned(), hex(&digest.finalize())),
        ]);
        let path = folder.join(CHECKPOINT);
        let bytes = safetensors::serialize(tensors, Some(metadata)).map_err(|error| {
            TrainError::Checkpoint {
                path: path.clone(),
                problem: error.to_string(),
            }
        })?;
        write_atomically(&path, |out| out.write_all(&bytes))?;
        Ok(path)
    }

    fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        let file = SafeTensors::deserialize(bytes);
        let file = file.map_err(|error| Fault::of_container(bytes, &error))?;
        let (_, header) = SafeTensors::read_metadata(bytes)
            .map_err(|error| Fault::of_container(bytes, &error))?;
        let metadata = header.metadata().as_ref();
        let entry = |key| {
            let found = metadata.and_then(|entries| entries.get(key));
            found.ok_or_else(|| {
                Fault::Unusable(match Model::from_bytes(bytes) {
                    Ok(_) => format!(
                        "it is a model, not the state of a run: rename it to {MODEL} to use it; \
                         `train --init` starts a new run from its weights"
                    ),
                    Err(_) => "it is a safetensors file, but not a checkpoint".into(),
                })
            })
        };
        let unreadable =
            |_| Fault::damaged("its description of the run (plan and progress) cannot be read");
        let (state_text, digest) = (entry(STATE)?, entry(DIGEST)?);
        let Version { version } = serde_json::from_str(state_text).map_err(unreadable)?;
        if !(1..=VERSION).contains(&version) {
            return Err(Fault::Unusable(format!(
                "it has version {version}, but this program reads versions up to {VERSION}: use \
                 the program that wrote it"
            )));
        }
        let state: State = serde_json::from_str(state_text).map_err(unreadable)?;
        let network = state.plan.trained_network();
        let network = network.map_err(|error| Fault::damaged(error.to_string()))?;
        let mut found = Sha256::new();
        found.update(state_text);
        let mut read =
            |prefix| read_weights(&file, &network, prefix, &mut found).map_err(Fault::Damaged);
        let (weights, momentum) = (read(WEIGHTS)?, read(MOMENTUM)?);
        let recipe = &state.plan.recipe;
        let second_moment = has_second_moment(recipe).then(|| read(SECOND_MOMENT));
        let second_moment = second_moment.transpose()?;
        let average = recipe.ema.map(|_| read(AVERAGE)).transpose()?;
        if hex(&found.finalize()) != *digest {
            return Err(Fault::damaged(
                "its checksum is wrong, so weights or settings in it were changed",
            ));
        }
        let checkpoint = Self {
            plan: state.plan.into_owned(),
            counters: state.counters.into_owned(),
            weights,
            momentum,
            second_moment,
            average,
        };
        checkpoint
            .check()
            .map_err(|problem| Fault::Damaged(format!("its content is inconsistent: {problem}")))?;
        Ok(checkpoint)
    }

    /// The number of steps of the whole run.
    pub(crate) fn steps(&self) -> u64 {
        (self.plan.recipe.epochs * self.counters.steps_per_epoch) as u64
    }

    /// Checks that a run could have been in this state.
    fn check(&self) -> Result<(), String> {
        let Self { plan, counters, .. } = self;
        plan.check().map_err(|error| error.to_string())?;
        let trained = counters.images.saturating_sub(counters.held_out);
        let an_epoch = trained.div_ceil(plan.recipe.batch_size);
        if an_epoch == 0 || counters.steps_per_epoch != an_epoch {
            return Err(format!(
                "it has {} per epoch, but {} make {an_epoch}",
                plural(counters.steps_per_epoch, "step", "steps"),
                plural(trained, "image", "images"),
            ));
        }
        if (counters.held_out > 0) != plan.held_out().is_some() {
            return Err(format!(
                "it has {} held out of training, but a share of {}",
                plural(counters.held_out, "image", "images"),
                plan.val_share
            ));
        }
        let steps = plan.recipe.epochs as u128 * an_epoch as u128;
        if u128::from(counters.step) > steps {
            return Err(format!("it is at step {} of {steps}", counters.step));
        }
        let instances = plan.network.instances(&plan.ratios).len();
        let in_epoch = counters.epoch.drawn.len();
        if counters.drawn.len() != instances || !(in_epoch == 0 || in_epoch == instances) {
            return Err(format!(
                "its counts of drawn instances are not those of a network with {instances}"
            ));
        }
        Ok(())
    }
}

/// The weights or the momentum of one parameter, for safetensors.
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

/// The prefixes of the tensors' names.
const WEIGHTS: &str = "weights";
const MOMENTUM: &str = "momentum";
const SECOND_MOMENT: &str = "second_moment";
const AVERAGE: &str = "average";

/// Whether the optimiser keeps a mean of squared gradients.
fn has_second_moment(recipe: &Recipe) -> bool {
    matches!(recipe.optimizer, Optimizer::AdamW { .. })
}

impl Checkpoint {
    /// The state before the first step.
    pub(crate) fn new(
        plan: TrainPlan,
        counters: Counters,
        weights: Weights,
    ) -> Result<Self, TrainError> {
        let zeros = || Ok::<_, TrainError>(Weights::zeros(&plan.trained_network()?));
        let second_moment = has_second_moment(&plan.recipe).then(zeros).transpose()?;
        Ok(Self {
            momentum: zeros()?,
            second_moment,
            average: plan.recipe.ema.map(|_| weights.clone()),
            weights,
            counters,
            plan,
        })
    }

    fn tensors<'a>(&'a self, parameters: &'a [Parameter]) -> Vec<(String, Tensor<'a>)> {
        let sets = [
            (WEIGHTS, Some(&self.weights)),
            (MOMENTUM, Some(&self.momentum)),
            (SECOND_MOMENT, self.second_moment.as_ref()),
            (AVERAGE, self.average.as_ref()),
        ];
        let all = sets
            .into_iter()
            .filter_map(|(prefix, values)| Some((prefix, values?)));
        let named = all.flat_map(|(prefix, values)| {
            std::iter::zip(parameters, &values.0).map(move |(parameter, values)| {
                let shape = parameter.shape.as_slice();
                (
                    format!("{prefix}.{}", parameter.name),
                    Tensor { shape, values },
                )
            })
        });
        named.collect()
    }
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
                "its tensor '{name}' does not have the type and the shape that the network needs"
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
    use std::fs;

    use sdpoint_core::{EvalTransform, Preprocessing, TrainTransform, zoo};
    use sdpoint_data::{OpenOptions, Source, open_pair};

    use super::*;
    use crate::draw::Draw;
    use crate::recipe::Preset;
    use crate::statistics_from::StatisticsFrom;

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
        let (train, _) = open_pair(&Source::Shapes, &OpenOptions::default()).unwrap();
        let preprocessing = Preprocessing {
            train: TrainTransform::None,
            evaluate: EvalTransform::Resize,
            ..Preprocessing::new(
                [32, 32],
                vec![0.4914, 0.4822, 0.4465],
                vec![0.2023, 0.1994, 0.201],
            )
        };
        let mut plan = TrainPlan::with_preprocessing(network, &train, preprocessing)
            .with_recipe(Preset::Cifar.recipe().with_epochs(7))
            .with_draw(Draw::Full { probability: 0.1 })
            .with_seed(u64::MAX);
        plan.classes = vec!["a".into(), "b".into(), "c".into()];
        plan.recipe.batch_size = 10;
        plan.calibration_images = 10;
        Checkpoint {
            plan,
            counters: Counters {
                step: 12,
                images: 105,
                held_out: 5,
                data: Some(DataDigest {
                    train: "a1".into(),
                    test: "b2".into(),
                }),
                steps_per_epoch: 10,
                isa: "avx2".into(),
                drawn: vec![3; 7],
                macs: u64::MAX,
                epoch: EpochSums {
                    loss: 0.1 + 0.2,
                    correct: 5,
                    images: 20,
                    seconds: 1e-9,
                    data_wait_seconds: 0.0,
                    drawn: vec![1; 7],
                    macs: 1 << 60,
                },
            },
            weights,
            momentum,
            second_moment: None,
            average: None,
        }
    }

    #[test]
    fn every_bit_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut written = checkpoint();
        written.plan.recipe.optimizer = Optimizer::ADAMW;
        written.plan.recipe.ema = Some(0.99);
        written.second_moment = Some(written.weights.clone());
        written.average = Some(written.momentum.clone());
        written.write(folder.path()).unwrap();
        assert_eq!(Checkpoint::read(folder.path()).unwrap(), written);

        let written = checkpoint();
        written.write(folder.path()).unwrap();
        let read = Checkpoint::read(folder.path()).unwrap();
        assert_eq!(read, written);
        assert_eq!(read.counters.epoch.loss.to_bits(), (0.1f64 + 0.2).to_bits());
    }

    /// What version 0.1 wrote: no digest of the data, and another version.
    #[test]
    fn an_older_checkpoint_is_read() {
        let mut older = checkpoint();
        older.counters.data = None;
        older.counters.images = 100;
        older.counters.held_out = 0;
        older.plan.val_share = 0.0;
        older.plan.statistics_from = StatisticsFrom::Evaluation;
        let folder = tempfile::tempdir().unwrap();
        let path = older.write(folder.path()).unwrap();
        let bytes = fs::read(&path).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let state =
            header.metadata().as_ref().unwrap()[STATE].replace(r#""version":3"#, r#""version":1"#);
        let state = state.replace(r#","statistics_from":"evaluation""#, "");
        for absent in [r#""data":{"#, "statistics_from", "val_share", "held_out"] {
            assert!(!state.contains(absent), "{state}");
        }
        let network = older.plan.trained_network().unwrap();
        let parameters = network.parameters();
        let tensors = older.tensors(parameters);
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
        let path = checkpoint().write(folder.path()).unwrap();
        let whole = fs::read(&path).unwrap();
        let refused = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            let error = Checkpoint::read(folder.path()).expect_err("damaged");
            let damaged = matches!(error, TrainError::DamagedCheckpoint { .. });
            assert!(damaged, "{error}");
            let message = error.to_string();
            assert!(message.contains(path.to_str().unwrap()), "{message}");
            // No text of a library.
            for word in ["header", "invalid", "expected", "line 1", "buffer", "JSON"] {
                assert!(!message.contains(word), "{message}");
            }
            message
        };
        assert!(refused(b"").contains("is damaged: it is empty"));
        assert!(refused(&whole[..1]).contains("truncated: it has 1 byte,"));
        for length in [7, 100, whole.len() / 2, whole.len() - 1] {
            let message = refused(&whole[..length]);
            assert!(message.contains("truncated"), "{message}");
            assert!(message.contains(&format!("{length} bytes")), "{message}");
        }
        assert!(refused(&[&whole[..], b"more"].concat()).contains("appended"));
        assert!(refused(&[b'x'; 99]).contains("first 8 bytes"));
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
            altered.write(folder.path()).unwrap();
            let message = Checkpoint::read(folder.path()).unwrap_err().to_string();
            assert!(message.contains("inconsistent"), "{message}");
        };
        refused(|c| c.counters.step = 71);
        refused(|c| c.counters.images = 0);
        refused(|c| c.counters.held_out = 105);
        refused(|c| c.counters.held_out = usize::MAX);
        refused(|c| (c.counters.images, c.counters.held_out) = (100, 0));
        refused(|c| c.plan.val_share = 0.0);
        refused(|c| c.plan.val_share = 0.7);
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
            let fault = Checkpoint::parse(&bytes).unwrap_err();
            assert!(matches!(fault, Fault::Unusable(_)), "{fault:?}");
            fault.at("x".into()).to_string()
        };
        assert!(parse(None).contains("not a checkpoint"));
        assert!(parse(Some(r#"{"version":9,"new":1}"#)).contains("version 9"));
    }

    #[test]
    fn a_folder_without_a_run_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = Checkpoint::read(folder.path()).unwrap_err();
        assert!(matches!(error, TrainError::NoRun(_)));
        assert!(error.to_string().contains(CHECKPOINT), "{error}");
    }
}
