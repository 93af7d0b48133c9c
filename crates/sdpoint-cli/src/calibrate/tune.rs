//! `sdpoint calibrate --own-scale`: scales and shifts of instances' own.

use sdpoint::train::{Feed, TUNING_IMAGES, TUNING_RATE, TuneOptions, tune_model};
use sdpoint::{Instance, Model};

use super::images::CalibrateData;
use super::{Args, save};
use crate::failure::Outcome;
use crate::instances::{Selection, parse_selection};
use crate::interrupt::Interrupt;
use crate::output_file::Output;
use crate::progress::Display;
use crate::{MachineArgs, model};

/// Options of tuning.
#[derive(clap::Args)]
#[group(multiple = true)]
pub struct TuneArgs {
    /// Train batch-norm scales and shifts, and classifier biases, of these instances' own, with full
    /// as teacher: all or a list such as 0@0.5,0@0.75
    #[arg(long, value_name = "INSTANCES", value_parser = parse_selection,
          conflicts_with_all = ["ratios", "input", "cascade", "ensemble"])]
    pub own_scale: Option<Selection>,
    /// With --own-scale, the number of training images to learn from
    #[arg(long, value_name = "N", default_value_t = TUNING_IMAGES, requires = "own_scale")]
    tuning_images: usize,
    /// With --own-scale, the peak learning rate
    #[arg(long, value_name = "X", default_value_t = TUNING_RATE, requires = "own_scale")]
    tuning_rate: f64,
}

/// Trains the parameters of the selected instances' own.
pub fn run(
    args: &Args,
    selected: &Selection,
    mut model: Model,
    out: &Output,
    machine: &MachineArgs,
) -> Outcome {
    let mut instances = model::listed(&model, selected.names())?;
    if selected.names().is_empty() {
        instances.retain(|&instance| instance != Instance::Full);
    }
    let data = CalibrateData::open(args, &mut model)?;
    // Here, the labels of the training images are used, too.
    model::check_classes(&model, &data.train)?;
    let ctx = machine.context()?;
    let batch_size = Feed::for_model(&model, &data.train)?.batch_size;
    let mut display = Display::new(Interrupt::install()?, batch_size);
    let options = TuneOptions::new(&instances)
        .with_images(args.tuning.tuning_images)
        .with_rate(args.tuning.tuning_rate)
        .with_calibration_images(args.images)
        .with_seed(args.seed);
    tune_model(&ctx, &mut model, &data.train, options, &mut display)?;
    let measured = data.measure(&ctx, &mut model, &mut display)?;
    save(&model, measured.as_ref(), instances.len(), out)
}
