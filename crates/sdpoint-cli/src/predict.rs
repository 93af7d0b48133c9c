//! `sdpoint predict`: classifies images at a chosen cost.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sdpoint::core::file::FileError;
use sdpoint::core::{Combination, format_duration, format_macs, parse_accuracy, parse_duration};
use sdpoint::data::{decode, look_alike, read_file, visible_name};
use sdpoint::{Answer, Budget, Engine, Image, Inputs, Instance, RunError};
use serde::Serialize;

use crate::failure::{Class, Failure, Outcome};
use crate::output::{Table, name, print, print_json};
use crate::shares::{parse_cascade, parse_ensemble, parse_macs};
use crate::{MachineArgs, model, path};

const EXAMPLES: &str = "\
Examples:
  sdpoint predict runs/shapes/model.safetensors photo.png
  sdpoint predict model.safetensors *.jpg --budget 50%
  sdpoint predict model.safetensors photo.jpg --macs 20M --top 3
  sdpoint predict model.safetensors photo.jpg --latency 8ms
  sdpoint predict model.safetensors photo.jpg --min-accuracy 80%
  sdpoint predict model.safetensors photo.jpg --deadline 8ms
  sdpoint predict model.safetensors *.jpg --cascade 40%
  sdpoint predict model.safetensors photo.jpg --instance 3@0.5 --json

A budget selects the most accurate instance, as measured on held-out images, among those that cost no \
more. Without a budget it is the most accurate instance of all. Ties go to the cheapest.

--latency selects the instance before the run, by latencies that `sdpoint profile MODEL --save` \
measured on this machine; without a profile, a few instances are measured first. --deadline selects \
it during the run, which starts at full resolution and downsamples at the point where the remaining \
time requires it. Both count the time from the decoded image on.

--cascade and --ensemble need combinations fitted by `sdpoint calibrate MODEL --data SRC --cascade \
40%`.";

/// Classify images at a chosen cost
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Model file, or folder of a run
    #[arg(value_name = "MODEL", value_parser = path::parser())]
    model: PathBuf,
    /// JPEG, PNG or WebP files
    #[arg(value_name = "IMAGE", required = true, value_parser = path::parser())]
    images: Vec<PathBuf>,
    #[command(flatten)]
    cost: Cost,
    /// Number of classes to print
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = parse_top)]
    top: usize,
    /// Print an array of JSON objects instead of text
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
#[group(multiple = false)]
struct Cost {
    /// Maximum cost as a share of the full network: 50% or 0.5
    #[arg(long, value_name = "SHARE", allow_hyphen_values = true)]
    budget: Option<Budget>,
    /// Maximum cost in multiply-accumulates (MACs): 20M, 1.5G
    #[arg(long, value_name = "MACS", value_parser = parse_macs, allow_hyphen_values = true)]
    macs: Option<u64>,
    /// Maximum latency on this machine when it is otherwise idle: 8ms, 500us
    #[arg(long, value_name = "TIME", value_parser = parse_duration, allow_hyphen_values = true)]
    latency: Option<Duration>,
    /// Deadline for each image, also when the machine is under load: 8ms
    #[arg(long, value_name = "TIME", value_parser = parse_duration, allow_hyphen_values = true)]
    deadline: Option<Duration>,
    /// Minimum accuracy; selects the cheapest such instance: 80% or 0.8
    #[arg(long, value_name = "SHARE", value_parser = parse_accuracy, allow_hyphen_values = true)]
    min_accuracy: Option<f64>,
    /// Cascade of a cheap instance, and a costlier one where it is unsure, with at most this mean
    /// cost: 40%
    #[arg(long, value_name = "SHARE", value_parser = parse_cascade, allow_hyphen_values = true)]
    cascade: Option<f64>,
    /// Ensemble: average several instances, at no more than this cost: 150%
    #[arg(long, value_name = "SHARE", value_parser = parse_ensemble, allow_hyphen_values = true)]
    ensemble: Option<f64>,
    /// Instance to run: full, 3@0.5, stem@0.75
    #[arg(long, value_name = "INSTANCE")]
    instance: Option<Instance>,
}

impl Cost {
    fn budget(&self) -> Budget {
        let budget = self
            .budget
            .or(self.macs.map(Budget::Macs))
            .or(self.latency.map(Budget::Latency))
            .or(self.min_accuracy.map(Budget::MinAccuracy))
            .or(self.instance.map(Budget::Instance));
        budget.unwrap_or(Budget::Share(1.0))
    }

    /// Whether latencies are needed.
    fn timed(&self) -> bool {
        self.latency.is_some() || self.deadline.is_some()
    }

    /// How to classify each image, and the reason in words.
    fn strategy(&self, engine: &Engine) -> Result<(Strategy, String), Failure> {
        if let Some(allowed) = self.deadline {
            engine.warm_up(1)?;
            let why = format!(
                "instance chosen during the run, to finish within {}",
                format_duration(allowed)
            );
            return Ok((Strategy::Deadline(allowed), why));
        }
        let combined = match (self.cascade, self.ensemble) {
            (Some(share), _) => engine.choose_cascade(share)?,
            (_, Some(share)) => engine.choose_ensemble(share)?,
            (None, None) => {
                let choice = engine.choose(self.budget())?;
                return Ok((Strategy::Instance(choice.instance), choice.to_string()));
            }
        };
        let why = format!(
            "{}: {} MACs on average, {:.2}% accurate on held-out images; the most accurate fitted \
             combination within this cost",
            combined.combination,
            format_macs(combined.macs),
            100.0 * combined.top1
        );
        let strategy = Strategy::Combination(combined.combination.clone());
        Ok((strategy, why))
    }
}

fn parse_top(text: &str) -> Result<usize, String> {
    let number = text.trim().parse().ok();
    let number = number.filter(|&number| number > 0);
    number.ok_or_else(|| "give a number of at least 1".into())
}

/// The result for an image, as in the JSON output.
#[derive(Serialize)]
struct Row {
    image: String,
    /// The instance that made the prediction, or the members of the ensemble.
    instance: String,
    macs: u64,
    share: f64,
    time_ms: f64,
    /// Whether the deadline was met, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    met: Option<bool>,
    top: Vec<Guess>,
}

#[derive(Serialize)]
struct Guess {
    class: String,
    label: usize,
    probability: f32,
}

pub fn run(args: &Args, machine: &MachineArgs) -> Outcome {
    let file = model::file(&args.model);
    let engine = model::engine(&file, machine)?;
    let timed = args.cost.timed();
    if timed {
        model::note_time_source(&engine);
    }
    let (strategy, why) = args.cost.strategy(&engine)?;
    let mut rows = Vec::new();
    let mut failed = Vec::new();
    for path in &args.images {
        let row = read(path).and_then(|image| {
            let inputs = engine.prepare([&image]).map_err(|error| match error {
                RunError::Image { error, .. } => unusable(path, &error),
                error => error.into(),
            })?;
            let (answer, met) = strategy.run(&engine, &inputs)?;
            Ok(Row::new(&engine, path, &answer, met, args.top))
        });
        match row {
            Ok(row) => rows.push(row),
            Err(failure) => failed.push(failure),
        }
    }
    if args.json {
        print_json(&rows)?;
    } else {
        print(&format!("{why}\n"))?;
        let alike = look_alike(engine.classes());
        for row in &rows {
            print(&text(
                row,
                &engine,
                &alike,
                timed || args.cost.cascade.is_some(),
            ))?;
        }
    }
    // Readable images are classified; errors of the others come last.
    let last = failed.pop();
    for failure in failed {
        failure.report();
    }
    last.map_or(Ok(()), Err)
}

/// How each image is classified.
enum Strategy {
    /// In one instance, chosen beforehand.
    Instance(Instance),
    /// By a deadline after its preprocessing, in an instance chosen during the run.
    Deadline(Duration),
    /// By a cascade or an ensemble.
    Combination(Combination),
}

impl Strategy {
    /// Classifies a batch. With a deadline, also says whether it was met.
    fn run(&self, engine: &Engine, inputs: &Inputs) -> Result<(Answer, Option<bool>), Failure> {
        Ok(match self {
            Self::Instance(instance) => (engine.run(inputs, *instance)?, None),
            Self::Deadline(allowed) => {
                let answer = engine.run_by(inputs, Instant::now() + *allowed)?;
                let met = answer.time <= *allowed;
                (answer, Some(met))
            }
            Self::Combination(combination) => (engine.run_combination(inputs, combination)?, None),
        })
    }
}

impl Row {
    fn new(
        engine: &Engine,
        path: &Path,
        answer: &Answer,
        met_deadline: Option<bool>,
        top: usize,
    ) -> Self {
        let highest = engine.records().iter().map(|record| record.macs).max();
        let guesses = answer.predictions.top(0, top).into_iter();
        let top = guesses.map(|guess| Guess {
            class: guess.class.to_owned(),
            label: guess.label,
            probability: guess.probability,
        });
        let macs = answer.macs.round() as u64;
        Self {
            image: path.display().to_string(),
            top: top.collect(),
            instance: answer.instances.to_string(),
            macs,
            share: macs as f64 / highest.unwrap_or(1).max(1) as f64,
            time_ms: 1e3 * answer.time.as_secs_f64(),
            met: met_deadline,
        }
    }
}

fn read(path: &Path) -> Result<Image, Failure> {
    let bytes = read_file(path).map_err(|error| match error {
        FileError::Io(error) => Failure::io(
            format!("cannot read '{}': {error}", path.display()),
            error.kind(),
        ),
        error => unusable(path, &error),
    })?;
    decode(&bytes).map_err(|error| unusable(path, &error))
}

fn unusable(path: &Path, problem: &dyn std::fmt::Display) -> Failure {
    Failure::new(Class::Data, format!("'{}' {problem}", path.display()))
}

/// The result for an image as text. `alike` says which classes have names that
/// look like those of others.
fn text(row: &Row, engine: &Engine, alike: &[bool], with_instance: bool) -> String {
    let mut table = Table::new([&*row.image, ""]);
    for guess in &row.top {
        let class = match alike[guess.label] {
            true => visible_name(&guess.class),
            false => name(&guess.class).into_owned(),
        };
        table.row([
            format!("  {class}"),
            format!("{:.1}%", 100.0 * guess.probability),
        ]);
    }
    let mut text = format!("\n{}", table.text());
    if with_instance {
        let time = format_duration(Duration::from_secs_f64(row.time_ms / 1e3));
        text.push_str(&format!("  {} in {time}", row.instance));
        // An instance chosen before the run has been explained already.
        if let Some(met) = row.met {
            text.push_str(&explanation(row, engine, met));
        }
        text.push('\n');
    }
    text
}

/// Why a run by a deadline chose its instance.
fn explanation(row: &Row, engine: &Engine, met: bool) -> String {
    let instance: Option<Instance> = row.instance.parse().ok();
    let top1 = instance.and_then(|instance| engine.record(instance)?.top1);
    let accuracy = top1.map_or(String::new(), |top1| {
        format!(", {:.2}% accurate on held-out images", 100.0 * top1)
    });
    let why = match (met, instance) {
        (false, _) => "too late",
        (true, Some(Instance::Full)) => "there was time for the full network",
        (true, _) => "the most accurate that there was time for",
    };
    format!(
        ": {} MACs, {:.1}% of full{accuracy}; {why}",
        format_macs(row.macs),
        100.0 * row.share
    )
}
