//! The images of a run by their use.

use sdpoint_core::HeldOut;
use sdpoint_data::{DataError, Dataset};
use sdpoint_engine::Context;

use crate::error::TrainError;
use crate::observer::Observer;

/// The images of a run by their use.
#[derive(Clone, Debug)]
pub(crate) struct Splits {
    /// For training and calibration.
    pub train: Dataset,
    /// Held out of training, for choices; if `None`, choices are based on the test
    /// images.
    pub held_out: Option<Dataset>,
    /// For reports.
    pub test: Dataset,
}

impl Splits {
    /// Divides the training images.
    pub fn new(
        train: &Dataset,
        test: &Dataset,
        held_out: Option<HeldOut>,
    ) -> Result<Self, DataError> {
        let divided = held_out.map(|how| train.hold_out(&how)).transpose()?;
        let (train, held_out) = match divided {
            Some(parts) => (parts.train, Some(parts.held_out)),
            None => (train.clone(), None),
        };
        Ok(Self {
            train,
            held_out,
            test: test.clone(),
        })
    }

    /// The number of images held out of training.
    pub fn held_out_len(&self) -> usize {
        self.held_out.as_ref().map_or(0, Dataset::len)
    }

    /// Decodes all images of measurements: faults of them would otherwise show
    /// only after training.
    pub fn check(&self, ctx: &Context, observer: &mut dyn Observer) -> Result<(), TrainError> {
        // As many take a minute.
        const MANY: usize = 5000;
        let images = self.test.len();
        if images >= MANY {
            observer.note(&format!(
                "Checking that the {images} test images can be read."
            ));
        }
        check_readable(&self.test, ctx, observer)?;
        let Some(held_out) = &self.held_out else {
            return Ok(());
        };
        check_readable(held_out, ctx, observer)?;
        for index in 0..held_out.len() {
            if held_out.readable(index)?.is_some() {
                return Ok(());
            }
        }
        let none = match held_out.len() {
            1 => "the only image held out of training cannot be read".to_owned(),
            images => format!("none of the {images} images held out of training can be read"),
        };
        Err(TrainError::Plan(format!(
            "{none}: hold out a larger share, or none"
        )))
    }
}

fn check_readable(
    data: &Dataset,
    ctx: &Context,
    observer: &mut dyn Observer,
) -> Result<(), TrainError> {
    const AT_A_TIME: usize = 1024;
    for start in (0..data.len()).step_by(AT_A_TIME) {
        if observer.stop_requested() {
            return Err(TrainError::Stopped);
        }
        let end = (start + AT_A_TIME).min(data.len());
        data.check_readable(start..end, ctx.threads())?;
    }
    Ok(())
}
