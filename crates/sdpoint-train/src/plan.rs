//! All that decides what a run will give.

use sdpoint_core::{Instance, Network, Preprocessing, Ratio, ShapeError};
use serde::{Deserialize, Serialize};

use crate::draw::{Draw, Draws, Method};
use crate::error::TrainError;
use crate::fine_tune::Init;
use crate::recipe::Recipe;

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
    /// The ratios that make the instances; for [`Method::Plain`], of those
    /// that are calibrated and evaluated in the end.
    pub ratios: Vec<Ratio>,
    /// The seed of everything random: weights, order and augmentation of the
    /// images, drawn instances, choice of calibration images.
    pub seed: u64,
    /// How many training images the statistics of batch norms are taken from.
    pub calibration_images: usize,
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
        self.costs()?;
        Ok(())
    }
}
