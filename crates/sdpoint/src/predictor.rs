//! Class probabilities of an image, at a cost chosen for each call.

use std::sync::Arc;

use sdpoint_core::select::SelectError;
use sdpoint_core::{Budget, Choice, Instance, Model, Preprocessing, Record, select};
use sdpoint_data::{DataError, Image, prepare};
use sdpoint_engine::{Context, EngineError, Images, InferenceEngine, softmax};

/// A model ready to classify images, in any of its instances.
///
/// All instances share one packed copy of the weights, so that choosing
/// another one for the next image costs nothing. Calls may come from several
/// threads at once.
#[derive(Debug)]
pub struct Predictor {
    engine: InferenceEngine,
    classes: Vec<String>,
    preprocessing: Preprocessing,
    instances: Vec<Record>,
}

/// An image that could not be classified.
#[derive(Debug, thiserror::Error)]
pub enum PredictError {
    /// The image cannot be brought to the network's input.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The model has no such instance.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl Predictor {
    /// Packs a model's weights for the instruction set of a context.
    ///
    /// # Errors
    /// If the weights do not fit the network, which those of a model from a
    /// file always do.
    pub fn new(ctx: Arc<Context>, model: Model) -> Result<Self, EngineError> {
        let network = Arc::new(model.network);
        let engine = InferenceEngine::new(ctx, network, &model.weights, &model.statistics)?;
        Ok(Self {
            engine,
            classes: model.classes,
            preprocessing: model.preprocessing,
            instances: model.instances,
        })
    }

    /// Names of the classes, in the order of the probabilities.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// The instance for a budget; see [`select()`].
    ///
    /// # Errors
    /// If no instance fits the budget, or if the one asked for is not there.
    pub fn choose(&self, budget: Budget) -> Result<Choice, SelectError> {
        select(&self.instances, budget)
    }

    /// The probability of each class, with the image prepared as in the
    /// evaluation of the model.
    ///
    /// # Errors
    /// If the image cannot be prepared, or if the model has no such instance.
    pub fn predict(&self, image: &Image, instance: Instance) -> Result<Vec<f32>, PredictError> {
        let input = prepare(image, &self.preprocessing)?;
        let images = Images {
            data: &input,
            batch: 1,
            size: self.preprocessing.size,
        };
        let mut scores = self.engine.run(images, instance)?;
        softmax(&mut scores, self.classes.len());
        Ok(scores)
    }
}
