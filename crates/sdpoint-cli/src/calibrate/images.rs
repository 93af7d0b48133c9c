//! The images of `sdpoint calibrate`, and the measurement of all instances on them.

use std::sync::Arc;

use sdpoint::data::{Dataset, Split};
use sdpoint::train::{EvaluateOptions, Evaluation};
use sdpoint::{Context, Model};

use super::Args;
use crate::data::{hold_out, note_skipped, note_squashed, open_split, open_test};
use crate::failure::Failure;
use crate::model;
use crate::output::note;
use crate::progress::Display;

/// The images of a data source.
pub(super) struct CalibrateData {
    /// The images to learn from.
    pub train: Dataset,
    /// Those held out of training, if there are any.
    held_out: Option<Dataset>,
    /// The test images, if the source has some.
    test: Option<Dataset>,
}

impl CalibrateData {
    /// Opens the data, and names the classes of a model without names.
    pub fn open(args: &Args, model: &mut Model) -> Result<Self, Failure> {
        let options = args.reading.options();
        let train = open_split(&args.data, Split::Train, &options)?;
        let test = open_test(&args.data, &options)?;
        let (train, held_out) = hold_out(model, train)?;
        if let Some(test) = &test {
            model::check_classes(model, test)?;
        }
        note_squashed(model, &train)?;
        model::name_classes(model, &train);
        Ok(Self {
            train,
            held_out,
            test,
        })
    }

    /// Measures all instances on the images held out of training, or else on the test
    /// images, and records the results in the model. Returns those to report: on the test
    /// images, if there are any.
    pub fn measure(
        &self,
        ctx: &Arc<Context>,
        model: &mut Model,
        display: &mut Display,
    ) -> Result<Option<Evaluation>, Failure> {
        let all = model::listed(model, &[])?;
        let mut measured = |images: &Option<Dataset>| -> Result<Option<Evaluation>, Failure> {
            let options = EvaluateOptions::new(&all);
            let images = images.as_ref();
            images
                .map(|images| model::evaluate(ctx, model, images, options, display))
                .transpose()
        };
        let on_test = measured(&self.test)?;
        let on_held_out = measured(&self.held_out)?;
        display.finish();
        note_skipped(&self.test.iter().chain([&self.train]).collect::<Vec<_>>());
        match (&on_held_out, &on_test) {
            (Some(chosen_by), reported) => {
                model.instances.clone_from(&chosen_by.records);
                let reported = reported.iter().flat_map(|evaluation| &evaluation.records);
                for (record, on_test) in std::iter::zip(&mut model.instances, reported) {
                    record.test = on_test.scores();
                }
            }
            (None, Some(evaluation)) => model.instances.clone_from(&evaluation.records),
            (None, None) => note("The data has no test split: the new instances are not measured."),
        }
        Ok(on_test.or(on_held_out))
    }
}
