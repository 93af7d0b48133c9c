//! `sdpoint calibrate`: adds instances to a trained model, without training.

mod combine;
mod images;
mod tune;

use std::path::PathBuf;

use sdpoint::core::{Ratio, Record};
use sdpoint::data::Source;
use sdpoint::train::{
    CALIBRATION_IMAGES, CalibrateOptions, Evaluation, Feed, StatisticsFrom, calibrate_model,
};
use sdpoint::{Instance, Model};

use crate::data::{DataArgs, SOURCES};
use crate::failure::{Class, Failure, Outcome};
use crate::interrupt::Interrupt;
use crate::output::{plural, print};
use crate::output_file::{Kind, Output, Outputs, OverwriteArgs};
use crate::progress::Display;
use crate::shares::{parse_cascade, parse_ensemble};
use crate::{MachineArgs, model, path, report, size};
use images::CalibrateData;
use tune::TuneArgs;

const EXAMPLES: &str = "\
Examples:
  sdpoint calibrate runs/shapes/model.safetensors --data shapes --ratios 0.35,0.6
  sdpoint calibrate model.safetensors --data folder:DIR --ratios 0.25 -o cheaper.safetensors
  sdpoint calibrate model.safetensors --data folder:DIR
  sdpoint calibrate model.safetensors --data folder:DIR --cascade 40%,60% --ensemble 150%
  sdpoint calibrate model.safetensors --data folder:DIR --own-scale 0@0.5,0@0.75
  sdpoint calibrate model.safetensors --data folder:DIR --input 24 -o small.safetensors

--ratios adds instances and leaves those of the model unchanged. Without it, all instances of the \
model are calibrated again, and its cascades and ensembles are removed. --input adapts the model to \
another image size: the weights stay, costs and accuracies are those of the new size.

--own-scale trains the scales and shifts of the batch norms after an instance's point, and the bias \
of the classifier, as parameters of the instance's own: one pass over some training images, from \
which the instance learns half the labels and half the predictions of full. All other weights stay, \
and the instances cost the same at run time. Calibrating them again removes these parameters.

--cascade and --ensemble calibrate nothing. They fit combinations of the model's instances on one \
half of the images that were held out of training, measure them on the other half, and store them \
in the model, replacing earlier ones. If none were held out, they use the test images. A cascade \
runs a cheap instance, and a costlier one where that is unsure; with --blend, the answers are \
averaged, and there may be a third stage. An ensemble averages the probabilities of several \
instances.";

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
    /// With --cascade, average the answers of the stages, with a temperature for each, and use up to
    /// three
    #[arg(long, requires = "cascade")]
    blend: bool,
    /// Fit an ensemble for each of these costs, which may exceed 100%
    #[arg(long, value_name = "SHARE,SHARE", value_delimiter = ',', value_parser = parse_ensemble,
          conflicts_with = "ratios", allow_hyphen_values = true)]
    ensemble: Vec<f64>,
    #[command(flatten)]
    tuning: TuneArgs,
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
    if let Some(selected) = &args.tuning.own_scale {
        return tune::run(args, selected, model, &out, machine);
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
    let data = CalibrateData::open(args, &mut model)?;
    let ctx = machine.context()?;
    let batch_size = Feed::for_model(&model, &data.train)?.batch_size;
    let mut display = Display::new(Interrupt::install()?, batch_size);
    let mut options = CalibrateOptions::new(&instances)
        .with_images(args.images)
        .with_seed(args.seed);
    options.statistics_from = args.statistics_from;
    calibrate_model(&ctx, &mut model, &data.train, options, &mut display)?;
    let measured = data.measure(&ctx, &mut model, &mut display)?;
    save(&model, measured.as_ref(), instances.len(), &out)
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
        "{}\n{}Calibrated {} of {}; the model is in {}.\n",
        report::accuracy_table(&model.instances, &model.combinations),
        sharing,
        calibrated,
        plural(model.instances.len(), "instance", "instances"),
        out.path().display()
    ))
}
