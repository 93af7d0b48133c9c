//! `sdpoint calibrate`: adds instances to a trained model, without training.

mod combine;

use std::path::PathBuf;

use sdpoint::core::{Ratio, Record};
use sdpoint::data::{Dataset, Source, Split};
use sdpoint::train::{
    CALIBRATION_IMAGES, CalibrateOptions, EvaluateOptions, Evaluation, Feed, StatisticsFrom,
    calibrate_model,
};
use sdpoint::{Instance, Model};

use crate::data::{self, DataArgs, SOURCES, note_skipped, note_squashed, open_split, open_test};
use crate::failure::{Class, Failure, Outcome};
use crate::interrupt::Interrupt;
use crate::output::{note, print};
use crate::output_file::{Kind, Output, Outputs, OverwriteArgs};
use crate::progress::Display;
use crate::shares::{parse_cascade, parse_ensemble};
use crate::{MachineArgs, model, path, report, size};

const EXAMPLES: &str = "\
Examples:
  sdpoint calibrate runs/shapes/model.safetensors --data shapes --ratios 0.35,0.6
  sdpoint calibrate model.safetensors --data folder:DIR --ratios 0.25 -o cheaper.safetensors
  sdpoint calibrate model.safetensors --data folder:DIR
  sdpoint calibrate model.safetensors --data folder:DIR --cascade 40%,60% --ensemble 150%
  sdpoint calibrate model.safetensors --data folder:DIR --input 24 -o small.safetensors

--ratios adds instances and leaves those of the model unchanged. Without it, all instances of the \
model are calibrated again, and its cascades and ensembles are removed. --input adapts the model to \
another image size: the weights stay, costs and accuracies are those of the new size.

--cascade and --ensemble calibrate nothing. They fit combinations of the model's instances on one \
half of the images that were held out of training, measure them on the other half, and store them \
in the model, replacing earlier ones. If none were held out, they use the test images. A cascade runs a cheap instance, and a costlier one where that is unsure; an ensemble \
averages the probabilities of several instances.";

/// Add instances to a trained model, without training
///
/// An instance needs batch-norm statistics of its own: their average over a few thousand training
/// images. The accuracies of all instances are then measured on the images that were held out of
/// training, and on the test split, if the data has one.
#[derive(clap::Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{SOURCES}"))]
pub struct Args {
    /// Model file, or folder of a run
    #[arg(value_name = "MODEL", value_parser = path::parser())]
    model: PathBuf,
    /// Source of the training images; see below
    #[arg(long, value_name = "SRC")]
    data: Source,
    /// Ratios of the new instances [default: calibrate the model's instances again]
    #[arg(long, value_name = "R,R", value_delimiter = ',')]
    ratios: Vec<Ratio>,
    /// New image size of the model: side in pixels, or HxW
    #[arg(long, value_name = "N|HxW", value_parser = size::parse,
          conflicts_with_all = ["ratios", "cascade", "ensemble"])]
    input: Option<[usize; 2]>,
    /// Fit a cascade for each of these mean costs, as shares of the full network
    #[arg(long, value_name = "SHARE,SHARE", value_delimiter = ',', value_parser = parse_cascade,
          conflicts_with = "ratios", allow_hyphen_values = true)]
    cascade: Vec<f64>,
    /// Fit an ensemble for each of these costs, which may exceed 100%
    #[arg(long, value_name = "SHARE,SHARE", value_delimiter = ',', value_parser = parse_ensemble,
          conflicts_with = "ratios", allow_hyphen_values = true)]
    ensemble: Vec<f64>,
    /// Number of training images for the statistics, drawn at random
    #[arg(long, value_name = "N", default_value_t = CALIBRATION_IMAGES)]
    images: usize,
    /// How these images are prepared: cropped and mirrored at random as in training, or as for
    /// evaluation [default: as for the instances that the model keeps; if it keeps none, training
    /// for small images, otherwise evaluation]
    #[arg(long, value_name = "training|evaluation", conflicts_with_all = ["cascade", "ensemble"])]
    statistics_from: Option<StatisticsFrom>,
    /// Seed for the choice of images
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Output file [default: replace MODEL]
    #[arg(short, long, value_name = "OUT", value_parser = path::parser())]
    output: Option<PathBuf>,
    #[command(flatten)]
    replacing: OverwriteArgs,
    #[command(flatten)]
    reading: DataArgs,
}

pub fn run(args: &Args, machine: &MachineArgs) -> Outcome {
    if args.images == 0 {
        return Err(Failure::new(
            Class::Usage,
            "calibration needs at least one image",
        ));
    }
    let file = model::file(&args.model);
    let mut model = model::load(&file)?;
    let out = args.output.as_ref().unwrap_or(&file);
    // Nothing is lost with another calibration of the same weights.
    let is_same = |other: Model| other.weights == model.weights;
    let replaced = match &args.output {
        Some(out) if Model::load(out).is_ok_and(is_same) => out,
        _ => &file,
    };
    let out = Outputs::new(&args.replacing)
        .reads_model(&file)
        .reads_data(&args.data)
        .in_place("-o", out, Kind::Model, replaced)?;
    if !args.cascade.is_empty() || !args.ensemble.is_empty() {
        return combine::run(args, model, &out, machine);
    }
    if let Some(size) = args.input {
        model.preprocessing = model.preprocessing.with_size(size);
        for record in &mut model.instances {
            let macs = model.network.cost(size, record.instance)?.macs;
            *record = Record::unmeasured(record.instance, macs);
        }
    }
    let instances = instances(&model, &args.ratios);
    if instances.is_empty() {
        return Err(Failure::new(
            Class::Usage,
            "the model has all instances of these ratios already",
        )
        .hint("give other ratios, or omit --ratios to calibrate all instances again"));
    }
    let options = args.reading.options();
    let train = open_split(&args.data, Split::Train, &options)?;
    let test = open_test(&args.data, &options)?;
    let (train, held_out) = data::hold_out(&model, train)?;
    if let Some(test) = &test {
        model::check_classes(&model, test)?;
    }
    note_squashed(&model, &train)?;
    model::name_classes(&mut model, &train);
    let ctx = machine.context()?;
    let batch_size = Feed::for_model(&model, &train)?.batch_size;
    let mut display = Display::new(Interrupt::install()?, batch_size);
    let mut options = CalibrateOptions::new(&instances)
        .with_images(args.images)
        .with_seed(args.seed);
    options.statistics_from = args.statistics_from;
    calibrate_model(&ctx, &mut model, &train, options, &mut display)?;
    let all = model::listed(&model, &[])?;
    let mut measured = |images: &Option<Dataset>| -> Result<Option<Evaluation>, Failure> {
        let options = EvaluateOptions::new(&all);
        let images = images.as_ref();
        images
            .map(|images| model::evaluate(&ctx, &model, images, options, &mut display))
            .transpose()
    };
    let on_test = measured(&test)?;
    let on_held_out = measured(&held_out)?;
    display.finish();
    note_skipped(&test.iter().chain([&train]).collect::<Vec<_>>());
    match (&on_held_out, &on_test) {
        (Some(chosen_by), reported) => {
            model.instances.clone_from(&chosen_by.records);
            for (record, on_test) in std::iter::zip(
                &mut model.instances,
                reported.iter().flat_map(|evaluation| &evaluation.records),
            ) {
                record.test = on_test.scores();
            }
        }
        (None, Some(evaluation)) => model.instances.clone_from(&evaluation.records),
        (None, None) => note("The data has no test split: the new instances are not measured."),
    }
    save(
        &model,
        on_test.or(on_held_out).as_ref(),
        instances.len(),
        &out,
    )
}

/// The instances to calibrate.
fn instances(model: &Model, ratios: &[Ratio]) -> Vec<Instance> {
    if ratios.is_empty() {
        return model
            .instances
            .iter()
            .map(|record| record.instance)
            .collect();
    }
    let mut instances = model.network.instances(ratios);
    instances.retain(|&instance| model.record(instance).is_none());
    instances
}

fn save(model: &Model, measured: Option<&Evaluation>, calibrated: usize, out: &Output) -> Outcome {
    model.save(out.path())?;
    let sharing = measured.map(report::sharing).unwrap_or_default();
    print(&format!(
        "{}\n{}Calibrated {} of {} instances; the model is in {}.\n",
        report::accuracy_table(&model.instances, &model.combinations),
        sharing,
        calibrated,
        model.instances.len(),
        out.path().display()
    ))
}
