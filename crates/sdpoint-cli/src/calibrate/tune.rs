//! `sdpoint calibrate --own-scale`: scales and shifts of instances' own.

use sdpoint::data::Split;
use sdpoint::train::{EvaluateOptions, Feed, TUNING_IMAGES, TUNING_RATE, TuneOptions, tune_model};
use sdpoint::{Instance, Model};

use super::{Args, save};
use crate::data::{note_skipped, note_squashed, open_split, open_test};
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
    let options = args.reading.options();
    let train = open_split(&args.data, Split::Train, &options)?;
    let test = open_test(&args.data, &options)?;
    // The labels of both splits are used.
    model::check_classes(&model, &train)?;
    if let Some(test) = &test {
        model::check_classes(&model, test)?;
    }
    note_squashed(&model, &train)?;
    model::name_classes(&mut model, &train);
    let ctx = machine.context()?;
    let batch_size = Feed::for_model(&model, &train)?.batch_size;
    let mut display = Display::new(Interrupt::install()?, batch_size);
    let options = TuneOptions::new(&instances)
        .with_images(args.tuning.tuning_images)
        .with_rate(args.tuning.tuning_rate)
        .with_calibration_images(args.images)
        .with_seed(args.seed);
    tune_model(&ctx, &mut model, &train, options, &mut display)?;
    let measured = match &test {
        None => None,
        Some(test) => {
            let all = model::listed(&model, &[])?;
            let options = EvaluateOptions::new(&all);
            Some(model::evaluate(&ctx, &model, test, options, &mut display)?)
        }
    };
    display.finish();
    note_skipped(&test.iter().chain([&train]).collect::<Vec<_>>());
    save(model, measured.as_ref(), instances.len(), out)
}
