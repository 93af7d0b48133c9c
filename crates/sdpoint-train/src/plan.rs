//! The settings that determine the result of a run.

mod sharing;

use sdpoint_core::{
    HeldOut, Instance, KeptImage, Network, Preprocessing, Ratio, ShapeError, Weights,
};
use sdpoint_data::{Augmentation, Dataset, Source, default_preprocessing};
use sdpoint_engine::{Noise, initial_weights};
use serde::{Deserialize, Serialize};

use crate::branching::Branching;
use crate::calibrate::{CALIBRATION_IMAGES, CalibrateOptions, Feed};
use crate::draw::{Draw, Method};
use crate::error::TrainError;
use crate::fine_tune::Init;
use crate::recipe::{Preset, Recipe, RecipeError};
use crate::sampler::{InstanceSampler, Phases};
use crate::statistics_from::StatisticsFrom;

/// What is trained on which data and how.
///
/// Two runs of one plan on the same instruction set give the same bits,
/// whatever the number of threads. The plan is part of every checkpoint, so
/// that a run can be resumed from its folder alone.
///
/// [`TrainPlan::new`] has a default for every setting; methods and fields
/// change them.
///
/// ```
/// use sdpoint_core::zoo;
/// use sdpoint_data::{OpenOptions, Source, open_pair};
/// use sdpoint_train::{Method, TrainPlan};
///
/// let (train, _) = open_pair(&Source::Shapes, &OpenOptions::default())?;
/// let network = zoo::build("preresnet8", train.classes().len())?;
/// let mut plan = TrainPlan::new(network, &train)?
///     .with_method(Method::Sandwich)
///     .with_epochs(4)
///     .with_seed(1);
/// plan.recipe.rate = 0.05;
/// plan.check()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct TrainPlan {
    /// The data source as text, such as `shapes` or `folder:DIR`.
    pub data: String,
    /// The number of training images used, balanced over the classes; all if
    /// `None`. It records how the data was opened and selects nothing itself;
    /// see [`Dataset::balanced`].
    pub train_images: Option<usize>,
    /// The image that is read of WebDataset samples with several; see
    /// [`OpenOptions`](sdpoint_data::OpenOptions).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_key: Option<String>,
    /// The key in `.json` members that holds the class of WebDataset samples;
    /// see [`OpenOptions`](sdpoint_data::OpenOptions).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_key: Option<String>,
    /// The share of these images that is held out of training; 0 for none. The
    /// accuracies by which instances are chosen are measured on them, so that no
    /// choice depends on the test images. At most 0.5. Plans of version 0.1 lack
    /// it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub val_share: f64,
    /// The seed by which they are chosen, if it is not [`TrainPlan::seed`]: that of
    /// the run whose model is trained further, so that no image is held out that
    /// the model was trained on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val_seed: Option<u64>,
    /// The network, with one output per class.
    pub network: Network,
    /// The model whose weights training starts from; random weights if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<Init>,
    /// The names of the classes, in the order of their labels.
    pub classes: Vec<String>,
    /// The preprocessing of images.
    pub preprocessing: Preprocessing,
    /// Augmentation of training images beyond that of the preprocessing.
    #[serde(default, skip_serializing_if = "no_augmentation")]
    pub augmentation: Augmentation,
    /// The hyperparameters of the optimiser.
    pub recipe: Recipe,
    /// Which instances a step trains.
    pub method: Method,
    /// The distribution that instances are drawn from.
    pub draw: Draw,
    /// How the choice of instances changes in the course of the run.
    #[serde(default, skip_serializing_if = "is_default")]
    pub phases: Phases,
    /// For [`Method::SdPoint`], the number of equal parts of a batch that an
    /// instance is drawn for each; batch norms use the statistics of their parts. A
    /// batch of few images has fewer, as in [`Branching::branches`].
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub parts: usize,
    /// For [`Method::Branched`], how a step trains instances besides `full`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub branching: Branching,
    /// For [`Method::Branched`], sizes of images: instead of instances, the
    /// branches are then `full` on the images of their parts reduced to sizes that
    /// are drawn uniformly from these. They share no layers with the step's `full`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub branch_scales: Vec<[usize; 2]>,
    /// For [`Method::Sandwich`] and [`Method::Branched`], the share of `full`'s
    /// predictions in the target of the other instances, from 0 to 1; the labels
    /// are the rest.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub distill: f64,
    /// The dropout probability in residual blocks; see [`Noise`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dropout: f64,
    /// The probability of skipping the last residual block; see [`Noise`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub stochastic_depth: f64,
    /// Image sizes to train on besides that of the preprocessing. Every batch
    /// has one of these sizes, all equally likely.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scales: Vec<[usize; 2]>,
    /// Whether to train a classifier after each stage as well; see
    /// [`Network::with_exits`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exits: bool,
    /// The number of epochs between measurements of `full` on training and
    /// test images; 0 for none.
    #[serde(default, skip_serializing_if = "is_never")]
    pub measure_every: usize,
    /// The ratios of the instances. [`Method::Plain`] does not train them, but
    /// they are calibrated and evaluated.
    pub ratios: Vec<Ratio>,
    /// The seed of everything random: initial weights, order and augmentation
    /// of the images, instances, and the choice of calibration images.
    pub seed: u64,
    /// The number of training images for calibration.
    pub calibration_images: usize,
    /// How the images for calibration are prepared. Plans of version 0.1 lack it.
    #[serde(default)]
    pub statistics_from: StatisticsFrom,
    /// The number of small test images that the model file keeps, at most
    /// [`KeptImage::MOST`].
    #[serde(default, skip_serializing_if = "is_never")]
    pub samples: usize,
}

fn one() -> usize {
    1
}

fn is_one(value: &usize) -> bool {
    *value == 1
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

fn no_augmentation(augmentation: &Augmentation) -> bool {
    *augmentation == Augmentation::default()
}

fn is_never(epochs: &usize) -> bool {
    *epochs == 0
}

/// The share of the training images that a run holds out unless set otherwise.
pub const VAL_SHARE: f64 = 0.05;

/// The number of epochs for [`Source::Shapes`]: enough to show the method, in
/// about two minutes.
const SHAPES_EPOCHS: usize = 12;

impl TrainPlan {
    /// A plan to train a network on a training split by stochastic
    /// downsampling, with the preprocessing and the recipe that are usual for
    /// images of this size: [`default_preprocessing`] and [`Preset::for_size`].
    ///
    /// # Errors
    /// If the images that the defaults depend on cannot be read.
    pub fn new(network: Network, train: &Dataset) -> Result<Self, TrainError> {
        let preprocessing = default_preprocessing(train)?;
        Ok(Self::with_preprocessing(network, train, preprocessing))
    }

    /// As [`TrainPlan::new`], with a given preprocessing.
    pub fn with_preprocessing(
        network: Network,
        train: &Dataset,
        preprocessing: Preprocessing,
    ) -> Self {
        let mut recipe = Preset::for_size(preprocessing.size).recipe();
        if *train.source() == Source::Shapes {
            recipe = recipe.with_epochs(SHAPES_EPOCHS);
        }
        Self {
            data: train.source().to_string(),
            train_images: None,
            image_key: None,
            label_key: None,
            val_share: VAL_SHARE,
            val_seed: None,
            network,
            init: None,
            classes: train.classes().to_vec(),
            statistics_from: StatisticsFrom::usual(&preprocessing),
            preprocessing,
            augmentation: Augmentation::default(),
            recipe,
            method: Method::default(),
            draw: Draw::default(),
            phases: Phases::default(),
            parts: 1,
            branching: Branching::default(),
            branch_scales: Vec::new(),
            distill: 0.0,
            dropout: 0.0,
            stochastic_depth: 0.0,
            scales: Vec::new(),
            exits: false,
            measure_every: 0,
            ratios: Ratio::DEFAULT.to_vec(),
            seed: 0,
            calibration_images: CALIBRATION_IMAGES,
            samples: 0,
        }
    }

    /// Sets the hyperparameters of the optimiser.
    pub fn with_recipe(self, recipe: Recipe) -> Self {
        Self { recipe, ..self }
    }

    /// Sets the hyperparameters and the augmentation of a preset.
    pub fn with_preset(self, preset: Preset) -> Self {
        Self {
            recipe: preset.recipe(),
            augmentation: preset.augmentation(),
            ..self
        }
    }

    /// Sets the number of epochs; the learning rate schedule scales with it.
    pub fn with_epochs(self, epochs: usize) -> Self {
        let recipe = self.recipe.with_epochs(epochs);
        Self { recipe, ..self }
    }

    /// Sets which instances a step trains. [`Method::Sandwich`] trains the
    /// other instances on `full`'s predictions alone, and [`Method::Branched`] half
    /// on them and half on the labels, unless [`TrainPlan::distill`] is changed.
    pub fn with_method(self, method: Method) -> Self {
        let distill = match method {
            Method::Sandwich => 1.0,
            Method::Branched => 0.5,
            Method::SdPoint | Method::Plain => 0.0,
        };
        Self {
            method,
            distill,
            ..self
        }
    }

    /// Sets how the choice of instances changes in the course of the run.
    pub fn with_phases(self, phases: Phases) -> Self {
        Self { phases, ..self }
    }

    /// Sets the distribution that instances are drawn from.
    pub fn with_draw(self, draw: Draw) -> Self {
        Self { draw, ..self }
    }

    /// Sets the ratios of the instances.
    pub fn with_ratios(self, ratios: impl Into<Vec<Ratio>>) -> Self {
        let ratios = ratios.into();
        Self { ratios, ..self }
    }

    /// Sets the seed of everything random.
    pub fn with_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// Sets the share of the training images that is held out for choices; 0 for
    /// none.
    pub fn with_val_share(self, val_share: f64) -> Self {
        Self { val_share, ..self }
    }

    /// The images that are held out of training, unless there are none.
    pub fn held_out(&self) -> Option<HeldOut> {
        (self.val_share > 0.0).then_some(HeldOut {
            share: self.val_share,
            seed: self.val_seed.unwrap_or(self.seed),
        })
    }

    /// Every instance of the network with its MACs for one image.
    ///
    /// # Errors
    /// If the network does not accept images of this size.
    pub fn costs(&self) -> Result<Vec<(Instance, u64)>, ShapeError> {
        let size = self.preprocessing.size;
        self.network
            .instances(&self.ratios)
            .into_iter()
            .map(|instance| Ok((instance, self.network.cost(size, instance)?.macs)))
            .collect()
    }

    /// The network whose weights are trained: [`TrainPlan::network`], with
    /// its exits if [`TrainPlan::exits`] is set.
    ///
    /// # Errors
    /// If the network cannot have exits.
    pub fn trained_network(&self) -> Result<Network, TrainError> {
        if !self.exits {
            return Ok(self.network.clone());
        }
        let joint = self.network.with_exits();
        joint.map_err(|error| TrainError::Plan(format!("the network cannot have exits: {error}")))
    }

    /// The random weights that training starts from.
    ///
    /// # Errors
    /// If the network cannot have exits.
    pub(crate) fn initial_weights(&self) -> Result<Weights, TrainError> {
        Ok(initial_weights(&self.trained_network()?, self.seed))
    }

    /// Dropout and stochastic depth, if any.
    pub(crate) fn noise(&self) -> Option<Noise> {
        let noise = Noise {
            dropout: self.dropout,
            depth: self.stochastic_depth,
        };
        (noise != Noise::default()).then_some(noise)
    }

    /// The preprocessing for each size that is trained on, that of evaluation
    /// first.
    pub(crate) fn training_sizes(&self) -> Vec<Preprocessing> {
        let others = self.scales.iter();
        let others = others.map(|&size| self.preprocessing.clone().with_size(size));
        [self.preprocessing.clone()]
            .into_iter()
            .chain(others)
            .collect()
    }

    /// The choice of the instances of every step of a run of so many steps.
    ///
    /// # Errors
    /// If the network does not accept images of this size.
    pub fn sampler(&self, steps: u64) -> Result<InstanceSampler, ShapeError> {
        let sampler = InstanceSampler::new(&self.costs()?, self.method, &self.draw, self.seed);
        let branches = match self.branch_scales.is_empty() {
            true => self.branching.branches,
            false => 0,
        };
        Ok(sampler
            .with_branches(branches)
            .with_parts(self.parts)
            .with_phases(self.phases, steps))
    }

    /// Images in batches, with the preprocessing of the plan.
    pub(crate) fn feed<'a>(&'a self, data: &'a Dataset) -> Feed<'a> {
        Feed {
            data,
            preprocessing: &self.preprocessing,
            batch_size: self.recipe.batch_size,
        }
    }

    /// How instances are calibrated after training.
    pub(crate) fn calibrate_options<'a>(&self, instances: &'a [Instance]) -> CalibrateOptions<'a> {
        CalibrateOptions::new(instances)
            .with_images(self.calibration_images)
            .with_seed(self.seed)
            .with_statistics_from(self.statistics_from)
    }

    /// Checks that every setting is in range and that they fit together.
    ///
    /// # Errors
    /// For the first setting that does not.
    pub fn check(&self) -> Result<(), TrainError> {
        self.recipe.check()?;
        let refuse = |problem: String| Err(TrainError::Plan(problem));
        if let Err(error) = self.augmentation.check() {
            return refuse(error.to_string());
        }
        if self.network.classes() != self.classes.len() {
            return refuse(format!(
                "{} has {} outputs, but the data has {} classes",
                self.network.name(),
                self.network.classes(),
                self.classes.len()
            ));
        }
        if self.ratios.is_empty() {
            return refuse("no ratios are given; 0.5 and 0.75 are usual".into());
        }
        if !(0.0..=0.5).contains(&self.val_share) {
            return refuse(format!(
                "the share held out of training is {}; it must be from 0 to 0.5",
                self.val_share
            ));
        }
        if self.calibration_images == 0 {
            return refuse("calibration needs at least one image".into());
        }
        if self.samples > KeptImage::MOST {
            return refuse(format!(
                "a model file keeps at most {} test images, not {}",
                KeptImage::MOST,
                self.samples
            ));
        }
        let probability = |setting, value: f64| match (0.0..1.0).contains(&value) {
            true => Ok(()),
            false => Err(RecipeError {
                setting,
                value: value.to_string(),
                range: "at least 0 and below 1",
            }),
        };
        probability("the dropout", self.dropout)?;
        probability("the stochastic depth", self.stochastic_depth)?;
        if !(0.0..=1.0).contains(&self.distill) {
            return refuse(format!(
                "the distillation is {}; it must be from 0 to 1",
                self.distill
            ));
        }
        if self.distill > 0.0 && !matches!(self.method, Method::Sandwich | Method::Branched) {
            return refuse(
                "distillation needs the method sandwich or branched: the others do not run full \
                 and another instance in the same step"
                    .into(),
            );
        }
        if self.exits && self.augmentation.mixes() {
            return refuse(
                "early exits are trained on labels alone: mixup and cutmix cannot be combined with \
                 them"
                    .into(),
            );
        }
        self.check_sharing()?;
        if self.exits {
            if self.method != Method::Plain || self.init.is_some() || self.measure_every > 0 {
                return refuse(
                    "early exits need the method plain and random initial weights, and full cannot \
                     be measured during their training"
                        .into(),
                );
            }
            self.trained_network()?;
        }
        for &size in &self.branch_scales {
            self.network.cost(size, Instance::Full)?;
        }
        for preprocessing in self.training_sizes() {
            for instance in self.network.instances(&self.ratios) {
                self.network.cost(preprocessing.size, instance)?;
            }
        }
        Ok(())
    }
}
