//! All that decides what a run will give.

use sdpoint_core::{Instance, Network, Preprocessing, Ratio, ShapeError};
use sdpoint_engine::Noise;
use serde::{Deserialize, Serialize};

use crate::draw::{Draw, Draws, Method};
use crate::error::TrainError;
use crate::fine_tune::Init;
use crate::recipe::{Recipe, RecipeError};

/// What is trained on what and how: two runs of one plan on the same kind of
/// processor give the same bits, whatever the number of threads.
///
/// The plan is part of every checkpoint, so that a resumed run needs nothing
/// from the user but its folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The data set in the user's words, such as `shapes` or `folder:DIR`.
    pub data: String,
    /// How many of its training images are used, balanced over the classes;
    /// all where `None`.
    pub train_images: Option<usize>,
    /// In WebDataset samples with several images, which one is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_key: Option<String>,
    /// In WebDataset samples, the key of `.json` members that has the class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_key: Option<String>,
    /// The network; it has as many outputs as there are classes.
    pub network: Network,
    /// The model whose weights it starts from; random ones where `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<Init>,
    /// The classes' names in the order of their labels.
    pub classes: Vec<String>,
    /// How images become tensors.
    pub preprocessing: Preprocessing,
    /// What the optimiser does.
    pub recipe: Recipe,
    /// What is trained.
    pub method: Method,
    /// How instances are drawn.
    pub draw: Draw,
    /// In [`Method::Sandwich`], the share of `full`'s predictions in what the
    /// other instances learn from; the labels make the rest.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub distill: f64,
    /// The probability of dropout in residual blocks; see [`Noise`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dropout: f64,
    /// The probability with which the last residual block is skipped; see
    /// [`Noise`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub stochastic_depth: f64,
    /// Input sizes that are trained on besides that of the preprocessing, a
    /// size for each batch, all equally likely.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scales: Vec<[usize; 2]>,
    /// Whether classifiers after each stage are trained as well; see
    /// [`Network::with_exits`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exits: bool,
    /// After how many epochs each `full` is measured on training and test
    /// images; never where it is 0.
    #[serde(default, skip_serializing_if = "is_never")]
    pub measure_every: usize,
    /// The ratios that make the instances; for [`Method::Plain`], of those
    /// that are calibrated and evaluated in the end.
    pub ratios: Vec<Ratio>,
    /// The seed of everything random: weights, order and augmentation of the
    /// images, drawn instances, choice of calibration images.
    pub seed: u64,
    /// How many training images the statistics of batch norms are taken from.
    pub calibration_images: usize,
}

fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

fn is_never(epochs: &usize) -> bool {
    *epochs == 0
}

/// Calibration images where the user does not say otherwise.
pub const CALIBRATION_IMAGES: usize = 5000;

impl Plan {
    /// Every instance of the network with its MACs on one image.
    ///
    /// # Errors
    /// If the network cannot take images of this size.
    pub fn costs(&self) -> Result<Vec<(Instance, u64)>, ShapeError> {
        let size = self.preprocessing.size;
        self.network
            .instances(&self.ratios)
            .into_iter()
            .map(|instance| Ok((instance, self.network.cost(size, instance)?.macs)))
            .collect()
    }

    /// The network whose weights are trained: the run's, or the one with its exits.
    ///
    /// # Errors
    /// If the network cannot have exits.
    pub fn trained(&self) -> Result<Network, TrainError> {
        if !self.exits {
            return Ok(self.network.clone());
        }
        let joint = self.network.with_exits();
        joint.map_err(|error| TrainError::Plan(format!("there can be no exits: {error}")))
    }

    /// What training drops at random, if anything.
    pub fn noise(&self) -> Option<Noise> {
        let noise = Noise {
            dropout: self.dropout,
            depth: self.stochastic_depth,
        };
        (noise != Noise::default()).then_some(noise)
    }

    /// How images are prepared for training: in the size of evaluation, and
    /// in the others.
    pub fn training_sizes(&self) -> Vec<Preprocessing> {
        let others = self.scales.iter();
        let others = others.map(|&size| self.preprocessing.clone().with_size(size));
        [self.preprocessing.clone()]
            .into_iter()
            .chain(others)
            .collect()
    }

    /// The run's distribution over instances.
    ///
    /// # Errors
    /// If the network cannot take images of this size.
    pub fn draws(&self) -> Result<Draws, ShapeError> {
        Ok(Draws::new(
            &self.costs()?,
            self.method,
            self.draw,
            self.seed,
        ))
    }

    /// Whether the parts fit together.
    ///
    /// # Errors
    /// Names the first that does not.
    pub fn check(&self) -> Result<(), TrainError> {
        self.recipe.check()?;
        if self.network.classes() != self.classes.len() {
            return Err(TrainError::Plan(format!(
                "{} tells {} classes apart, but the data has {}",
                self.network.name(),
                self.network.classes(),
                self.classes.len()
            )));
        }
        if self.ratios.is_empty() {
            return Err(TrainError::Plan(
                "no ratio is given; 0.5 and 0.75 are usual".into(),
            ));
        }
        if self.calibration_images == 0 {
            return Err(TrainError::Plan(
                "calibration needs at least one image".into(),
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
            return Err(TrainError::Plan(format!(
                "the share of full's predictions is {}; it must be from 0 to 1",
                self.distill
            )));
        }
        if self.distill > 0.0 && self.method != Method::Sandwich {
            return Err(TrainError::Plan(
                "only the method sandwich trains full and others in one step, \
                 so that they can learn from its predictions"
                    .into(),
            ));
        }
        if self.exits {
            if self.method != Method::Plain || self.init.is_some() || self.measure_every > 0 {
                return Err(TrainError::Plan(
                    "exits are trained by the method plain, from random weights, and are measured \
                     in the end alone"
                        .into(),
                ));
            }
            self.trained()?;
        }
        for preprocessing in self.training_sizes() {
            for instance in self.network.instances(&self.ratios) {
                self.network.cost(preprocessing.size, instance)?;
            }
        }
        Ok(())
    }
}
