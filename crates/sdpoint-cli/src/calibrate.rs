//! `sdpoint calibrate`: instances for a trained model, without training.

mod combine;

use std::path::PathBuf;
use std::sync::Arc;

use sdpoint::core::{Ratio, Record};
use sdpoint::data::{Source, Split};
use sdpoint::engine::NormSource;
use sdpoint::train::{CALIBRATION_IMAGES, Evaluation, Feed, calibrate, evaluate};
use sdpoint::{Instance, Model};

use crate::data::{Reading, SOURCES, note_skipped, open_split, open_test};
use crate::failure::{Class, Failure, Outcome};
use crate::interrupt::Interrupt;
use crate::output::{note, print};
use crate::output_file::{Kind, Output, Outputs, Replacing};
use crate::progress::Display;
use crate::shares::{parse_cascade, parse_ensemble};
use crate::{Machine, model, report, size};

const EXAMPLES: &str = "\
Examples:
  sdpoint calibrate runs/shapes/model.safetensors --data shapes --ratios 0.35,0.6
  sdpoint calibrate model.safetensors --data folder:DIR --ratios 0.25 -o cheaper.safetensors
  sdpoint calibrate model.safetensors --data folder:DIR
  sdpoint calibrate model.safetensors --data folder:DIR --cascade 40%,60% --ensemble 150%
  sdpoint calibrate model.safetensors --data folder:DIR --input 24 -o small.safetensors

With --ratios, what the model has stays as it is, and the new instances are added. Without it, \
the statistics of all its instances are taken anew, and cascades and ensembles are forgotten. \
--input makes that a model for images of another size: the weights stay, costs and accuracies are \
those of the new size.

--cascade and --ensemble take no statistics. They fit combinations of the instances that are there \
to one half of the test images, measure them on the other half, and keep them in the model, in \
place of those that it had. A cascade runs a cheap instance, and a dearer one where that is \
unsure; an ensemble averages the probabilities of several.";

/// Add instances to a trained model, without training
///
/// An instance is the weights that all share and batch-norm statistics of its own, which are the
/// average over some thousand training images. If the data has a test split, all instances are
/// measured on it.
#[derive(clap::Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{SOURCES}"))]
pub struct Args {
    /// A model file, or the folder of a run
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// Where the training images come from; see below
    #[arg(long, value_name = "SRC")]
    data: Source,
    /// What the new instances keep of each side [default: the instances that are there, anew]
    #[arg(long, value_name = "R,R", value_delimiter = ',')]
    ratios: Vec<Ratio>,
    /// Side of the images in pixels, or HxW, that the model takes from now on
    #[arg(long, value_name = "N|HxW", value_parser = size::parse,
          conflicts_with_all = ["ratios", "cascade", "ensemble"])]
    input: Option<[usize; 2]>,
    /// Fit cascades that cost, on average, at most these shares of the full network
    #[arg(long, value_name = "SHARE,SHARE", value_delimiter = ',', value_parser = parse_cascade,
          conflicts_with = "ratios")]
    cascade: Vec<f64>,
    /// Fit ensembles that cost at most these shares, which may exceed 100%
    #[arg(long, value_name = "SHARE,SHARE", value_delimiter = ',', value_parser = parse_ensemble,
          conflicts_with = "ratios")]
    ensemble: Vec<f64>,
    /// Training images to take the statistics from, chosen from all of them
    #[arg(long, value_name = "N", default_value_t = CALIBRATION_IMAGES)]
    images: usize,
    /// Seed of the choice of images
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Where the model goes [default: in place of MODEL, whole or not at all]
    #[arg(short, long, value_name = "OUT")]
    output: Option<PathBuf>,
    #[command(flatten)]
    replacing: Replacing,
    #[command(flatten)]
    reading: Reading,
}

pub fn run(args: &Args, machine: &Machine) -> Outcome {
    if args.images == 0 {
        return Err(Failure::new(
            Class::Usage,
            "calibration needs at least one image",
        ));
    }
    let file = model::file(&args.model);
    let mut model = model::load(&file)?;
    let out = args.output.as_ref().unwrap_or(&file);
    let out = Outputs::new(&args.replacing)
        .reads_model(&file)
        .reads_data(&args.data)
        .in_place("-o", out, Kind::Model, &file)?;
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
    let wanted = wanted(&model, &args.ratios);
    if wanted.is_empty() {
        return Err(Failure::new(
            Class::Usage,
            "the model has all instances of these ratios already",
        )
        .hint("name other ratios, or leave --ratios out to take all statistics anew"));
    }
    let options = args.reading.options();
    let train = open_split(&args.data, Split::Train, &options)?;
    let test = open_test(&args.data, &options)?;
    if let Some(test) = &test {
        model::check_classes(&model, test)?;
    }
    model::name_classes(&mut model, &train);
    let ctx = machine.context()?;
    let network = Arc::new(model.network.clone());
    let batch_size = model::batch_size(&model)?;
    let preprocessing = model.preprocessing.clone();
    let feed = |data| Feed {
        data,
        preprocessing: &preprocessing,
        batch_size,
    };
    let mut display = Display::new(Interrupt::install()?, batch_size);

    let statistics = calibrate(
        &ctx,
        &network,
        &model.weights,
        &wanted,
        feed(&train),
        args.images,
        args.seed,
        &mut display,
    )?;
    for &instance in &wanted {
        if let Some((_, own)) = statistics.own(instance) {
            model.statistics.set(&network, instance, own.to_vec());
        }
        if model.record(instance).is_none() {
            let macs = network.cost(preprocessing.size, instance)?.macs;
            model.instances.push(Record::unmeasured(instance, macs));
        }
    }
    model.instances.sort_by_key(|record| record.instance);

    let measured = match &test {
        None => None,
        Some(test) => Some(evaluate(
            &ctx,
            &network,
            &model.weights,
            &model.statistics,
            &model::listed(&model, &[])?,
            &[],
            NormSource::Own,
            feed(test),
            &mut display,
        )?),
    };
    display.finish();
    note_skipped(&test.iter().chain([&train]).collect::<Vec<_>>());
    if args.ratios.is_empty() {
        // Thresholds hold for the statistics that they were fitted with.
        model.combinations.clear();
    }
    save(model, measured.as_ref(), &wanted, &out)
}

/// The instances to take statistics of.
fn wanted(model: &Model, ratios: &[Ratio]) -> Vec<Instance> {
    let there = |instance: &Instance| model.record(*instance).is_some();
    if ratios.is_empty() {
        return model
            .instances
            .iter()
            .map(|record| record.instance)
            .collect();
    }
    let mut wanted = model.network.instances(ratios);
    wanted.retain(|instance| !there(instance));
    wanted
}

fn save(
    mut model: Model,
    measured: Option<&Evaluation>,
    calibrated: &[Instance],
    out: &Output,
) -> Outcome {
    match measured {
        Some(evaluation) => model.instances = evaluation.records.clone(),
        // What was measured with older statistics holds no longer.
        None => {
            for record in &mut model.instances {
                if calibrated.contains(&record.instance) {
                    *record = Record::unmeasured(record.instance, record.macs);
                }
            }
            note("The data has no test split: the new instances are not measured.");
        }
    }
    model.save(out.path())?;
    let sharing = measured.map(report::sharing).unwrap_or_default();
    print(&format!(
        "{}\n{}Calibrated {} of {} instances; the model is in {}.\n",
        report::accuracy_table(&model.instances, &model.combinations),
        sharing,
        calibrated.len(),
        model.instances.len(),
        out.path().display()
    ))
}
