//! `sdpoint evaluate`: the accuracy of every instance.

mod deadlines;
mod details;
mod logits;

use std::path::PathBuf;

use clap::ValueEnum;
use sdpoint::core::seal::{BLANK, SEAL, seal};
use sdpoint::core::{Combination, CombinedRecord, Record, Scores};
use sdpoint::data::{Dataset, Source, Split};
use sdpoint::engine::NormSource;
use sdpoint::train::{Details, EvaluateOptions, Evaluation, Feed, Series, curve_csv, curve_svg};
use sdpoint::{Instance, Model};
use sdpoint_serve::page;
use serde::Serialize;

use crate::data::{DataArgs, SOURCES, note_skipped, note_squashed, open_split};
use crate::failure::{Failure, Outcome};
use crate::instances::{Description, Selection, parse_selection};
use crate::interrupt::Interrupt;
use crate::model::ClassMatch;
use crate::output::{print, print_json};
use crate::output_file::{Kind, Output, Outputs, OverwriteArgs};
use crate::progress::Display;
use crate::{MachineArgs, model, path, report};
use details::DetailsRow;

const EXAMPLES: &str = "\
Examples:
  sdpoint evaluate runs/shapes/model.safetensors --data shapes
  sdpoint evaluate model.safetensors --data cifar10:DIR --instances full,3@0.5 --json
  sdpoint evaluate model.safetensors --data folder:DIR --bn shared --svg shared.svg
  sdpoint evaluate model.safetensors --data folder:DIR --per-class --confusion full.svg
  sdpoint evaluate model.safetensors --data folder:DIR --html curve.html
  sdpoint evaluate model.safetensors --data folder:DIR --logits logits.safetensors
  sdpoint evaluate model.safetensors --data folder:DIR --deadline 5ms,8ms,60%

With --deadline, every image runs alone and its instance is chosen during the run, as by \
`predict --deadline`; measure on a machine under the load of real use.";

/// Measure the accuracy of a model's instances on test images
///
/// All instances are measured in one pass: the layers before a point are computed once per batch.
#[derive(clap::Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{SOURCES}"))]
pub struct Args {
    /// Model file, or folder of a run
    #[arg(value_name = "MODEL", value_parser = path::parser())]
    model: PathBuf,
    /// Source of the test images; see below
    #[arg(long, value_name = "SRC")]
    data: Source,
    /// Batch-norm statistics: each instance's own, or those of full for all instances
    #[arg(long, value_name = "WHOSE", default_value = "own")]
    bn: Norms,
    /// Instances to measure
    #[arg(long, value_name = "A,B|all", default_value = "all", value_parser = parse_selection)]
    instances: Selection,
    /// Measure the answers given by these deadlines instead of instances: times, or shares of the
    /// time of full, such as 8ms or 60%
    #[arg(long, value_name = "T,T", value_delimiter = ',', conflicts_with_all = ["instances", "bn", "svg", "html"],
          allow_hyphen_values = true)]
    deadline: Vec<deadlines::Deadline>,
    /// Print an array of JSON objects instead of a table
    #[arg(long)]
    json: bool,
    /// Write accuracy over cost as an SVG picture
    #[arg(long, value_name = "FILE", value_parser = path::parser())]
    svg: Option<PathBuf>,
    /// Show the accuracy for each class: of full and the cheapest instance, or of those named by
    /// --instances; with --json, of all
    #[arg(long, conflicts_with = "deadline")]
    per_class: bool,
    /// Write how often each class was taken for each other one, by full or the instance named by
    /// --instances: a table, or a picture if the name ends in .svg
    #[arg(long, value_name = "FILE.csv|.svg", value_parser = path::parser(),
          conflicts_with = "deadline")]
    confusion: Option<PathBuf>,
    /// Write the logits of every test image in each instance as a safetensors file
    #[arg(long, value_name = "FILE", value_parser = path::parser(), conflicts_with = "deadline")]
    logits: Option<PathBuf>,
    /// Write accuracy over cost as a self-contained HTML file, with a picture to explore and a table
    #[arg(long, value_name = "FILE", value_parser = path::parser())]
    html: Option<PathBuf>,
    /// Write accuracy over cost as a CSV table
    #[arg(long, value_name = "FILE", value_parser = path::parser())]
    csv: Option<PathBuf>,
    #[command(flatten)]
    replacing: OverwriteArgs,
    #[command(flatten)]
    reading: DataArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum Norms {
    Own,
    Shared,
}

#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    description: Description,
    top1: Option<f64>,
    top5: Option<f64>,
    loss: Option<f64>,
    #[serde(flatten)]
    held_out: Option<HeldOutScores>,
    #[serde(flatten)]
    details: DetailsRow,
}

/// The recorded accuracies on images held out of training, by which instances
/// are chosen.
#[derive(Serialize)]
struct HeldOutScores {
    val_top1: f64,
    val_top5: f64,
    val_loss: f64,
}

impl HeldOutScores {
    fn new(Scores { top1, top5, loss }: Scores) -> Self {
        Self {
            val_top1: top1,
            val_top5: top5,
            val_loss: loss,
        }
    }
}

/// A combination in the JSON output.
#[derive(Serialize)]
struct CombinedRow {
    combination: String,
    macs: u64,
    share: f64,
    top1: f64,
    top5: f64,
    loss: f64,
    #[serde(flatten)]
    held_out: Option<HeldOutScores>,
    #[serde(flatten)]
    details: DetailsRow,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Measured {
    Instance(Row),
    Combination(CombinedRow),
}

#[derive(Serialize)]
struct Line {
    #[serde(flatten)]
    measured: Measured,
    /// The number of images measured, and of unreadable ones.
    images: usize,
    skipped: usize,
    classes: ClassMatch,
}

/// The files to write.
#[derive(Default)]
struct Files {
    svg: Option<Output>,
    html: Option<Output>,
    csv: Option<Output>,
    confusion: Option<Output>,
    logits: Option<Output>,
}

impl Files {
    fn prepare(args: &Args) -> Result<Self, Failure> {
        let paths = [
            &args.svg,
            &args.html,
            &args.csv,
            &args.confusion,
            &args.logits,
        ];
        if paths.into_iter().all(Option::is_none) {
            // The folders of a large data set need not be listed twice.
            return Ok(Self::default());
        }
        let mut outputs = Outputs::new(&args.replacing)
            .reads_model(&args.model)
            .reads_data(&args.data);
        let mut file = |option: &str, path: &Option<PathBuf>, kind| {
            let path = path.as_ref();
            path.map(|path| outputs.file(option, path, kind))
                .transpose()
        };
        Ok(Self {
            svg: file("--svg", &args.svg, Kind::Picture)?,
            html: file("--html", &args.html, Kind::Report)?,
            csv: file("--csv", &args.csv, Kind::Table)?,
            confusion: file(
                "--confusion",
                &args.confusion,
                details::confusion_kind(args.confusion.as_deref())?,
            )?,
            logits: file("--logits", &args.logits, Kind::Logits)?,
        })
    }
}

pub fn run(args: &Args, machine: &MachineArgs) -> Outcome {
    let files = Files::prepare(args)?;
    let test = || open_split(&args.data, Split::Test, &args.reading.options());
    if !args.deadline.is_empty() {
        return deadlines::run(args, &test()?, &args.deadline, files.csv.as_ref(), machine);
    }
    let model = model::load(&args.model)?;
    let instances = model::listed(&model, args.instances.names())?;
    let confusion = match &args.confusion {
        Some(path) => Some(details::confused(&model, &args.instances, path)?),
        None => None,
    };
    let test = test()?;
    if files.logits.is_some() {
        logits::check_size(test.len(), model.classes.len(), instances.len())?;
    }
    let classes = model::check_classes(&model, &test)?;
    note_squashed(&model, &test)?;
    let batch_size = Feed::for_model(&model, &test)?.batch_size;
    // Combinations were fitted with the instances' own statistics.
    let combinations: Vec<Combination> = match args.bn {
        Norms::Own => model.combinations.iter(),
        Norms::Shared => [].iter(),
    }
    .map(|record| record.combination.clone())
    .collect();
    let mut display = Display::new(Interrupt::install()?, batch_size);
    let norms = match args.bn {
        Norms::Own => NormSource::Own,
        Norms::Shared => NormSource::Shared,
    };
    let mut options = EvaluateOptions::new(&instances)
        .with_combinations(&combinations)
        .with_norms(norms);
    options.confusion = confusion;
    options.logits = files.logits.is_some();
    let evaluation = model::evaluate(&machine.context()?, &model, &test, options, &mut display);
    display.finish();
    let mut evaluation = evaluation?;
    if let (Norms::Own, Some(_)) = (args.bn, model.held_out) {
        add_recorded(&mut evaluation, &model);
    }
    note_skipped(&[&test]);
    // Results are printed even if a file cannot be written.
    let written = write(&files, args, &model, &evaluation);
    show(args, &model, &test, classes, &evaluation)?;
    written
}

/// Adds the accuracies by which instances and combinations are chosen: those in
/// the model, if all of them have been measured.
fn add_recorded(evaluation: &mut Evaluation, model: &Model) {
    let recorded = evaluation.records.iter().map(|measured| {
        let mut record = model.record(measured.instance)?.clone();
        record.scores()?;
        record.test = measured.scores();
        Some(record)
    });
    let Some(records) = recorded.collect::<Option<Vec<Record>>>() else {
        return;
    };
    evaluation.records = records;
    for measured in &mut evaluation.combined {
        let mut recorded = model.combinations.iter();
        let recorded = recorded.find(|record| record.combination == measured.combination);
        if let Some(recorded) = recorded {
            let scores = measured.scores();
            *measured = CombinedRecord {
                macs: measured.macs,
                test: Some(scores),
                ..recorded.clone()
            };
        }
    }
}

fn show(
    args: &Args,
    model: &Model,
    test: &Dataset,
    classes: ClassMatch,
    evaluation: &Evaluation,
) -> Outcome {
    if args.json {
        let full = model
            .network
            .cost(model.preprocessing.size, Instance::Full)?;
        let row = |(record, details): (&Record, &Details)| {
            let shown = record.reported();
            Row {
                description: Description::new(record.instance, record.macs, full.macs),
                top1: shown.map(|scores| scores.top1),
                top5: shown.map(|scores| scores.top5),
                loss: shown.map(|scores| scores.loss),
                held_out: record.test.and(record.scores()).map(HeldOutScores::new),
                details: DetailsRow::new(details, &model.classes, args.per_class),
            }
        };
        let (of_instances, of_combined) = evaluation.details.split_at(evaluation.records.len());
        let rows = std::iter::zip(&evaluation.records, of_instances);
        let rows = rows.map(row).map(Measured::Instance);
        let combined = std::iter::zip(&evaluation.combined, of_combined);
        let combined = combined.map(|(record, details)| {
            let Scores { top1, top5, loss } = record.reported();
            Measured::Combination(CombinedRow {
                combination: record.combination.to_string(),
                macs: record.macs,
                share: record.macs as f64 / full.macs.max(1) as f64,
                top1,
                top5,
                loss,
                held_out: record.test.map(|_| HeldOutScores::new(record.scores())),
                details: DetailsRow::new(details, &model.classes, args.per_class),
            })
        });
        let lines = rows.chain(combined).map(|measured| Line {
            measured,
            images: evaluation.images,
            skipped: evaluation.skipped,
            classes,
        });
        return print_json(&lines.collect::<Vec<_>>());
    }
    print(&format!(
        "{}\n{}{}{}",
        report::measured_table(evaluation),
        match args.per_class {
            true => details::class_table(model, evaluation, &args.instances),
            false => String::new(),
        },
        report::sharing(evaluation),
        report::warning(classes, test),
    ))
}

fn write(files: &Files, args: &Args, model: &Model, evaluation: &Evaluation) -> Outcome {
    if let Some(svg) = &files.svg {
        svg.write(picture(args, model, evaluation).as_bytes())?;
    }
    if let Some(html) = &files.html {
        html.write(html_file(args, model, evaluation).as_bytes())?;
    }
    if let Some(csv) = &files.csv {
        let table = curve_csv(&evaluation.records, &evaluation.combined);
        csv.write(table.as_bytes())?;
    }
    if let (Some(file), Some(logits)) = (&files.logits, &evaluation.logits) {
        file.write(&logits::file(model, &args.data.name(), evaluation, logits)?)?;
    }
    if let (Some(file), Some(confusion)) = (&files.confusion, &evaluation.confusion) {
        let text = match details::is_picture(file.path()) {
            true => {
                let title = format!(
                    "{} on {}, {}",
                    model.network.name(),
                    args.data.name(),
                    confusion.instance
                );
                confusion.svg(&title, &model.classes)
            }
            false => confusion.csv(&model.classes),
        };
        file.write(text.as_bytes())?;
    }
    Ok(())
}

fn title(args: &Args, model: &Model) -> String {
    format!(
        "{} on {}: accuracy over cost",
        model.network.name(),
        args.data.name()
    )
}

/// The HTML file, with a seal by which edits are noticed.
fn html_file(args: &Args, model: &Model, evaluation: &Evaluation) -> String {
    let [height, width] = model.preprocessing.size;
    let about = format!(
        "One network with one set of weights, for {} classes and images of {width}×{height}, \
         measured on {} test images{} in each of its instances{}.",
        model.classes.len(),
        evaluation.images,
        report::skipped(evaluation.skipped),
        match args.bn {
            Norms::Own => "",
            Norms::Shared => ", all with the batch-norm statistics of full",
        }
    );
    let title = title(args, model);
    let html = page::report(&title, &about, &evaluation.records, &evaluation.combined);
    let mut sealed = format!("{html}<!-- {SEAL}: {BLANK} -->\n").into_bytes();
    seal(&mut sealed);
    String::from_utf8_lossy(&sealed).into_owned()
}

fn picture(args: &Args, model: &Model, evaluation: &Evaluation) -> String {
    let name = match args.bn {
        Norms::Own => "own statistics",
        Norms::Shared => "statistics of full",
    };
    let series = Series::new(name, &evaluation.records, &evaluation.combined);
    curve_svg(&title(args, model), &[series])
}
