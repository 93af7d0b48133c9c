//! `sdpoint predict`: what is on an image, at a chosen cost.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use sdpoint::data::{Image, decode};
use sdpoint::engine::top_k;
use sdpoint::select::parse_macs;
use sdpoint::{Budget, Choice, Instance, Predictor};
use serde::Serialize;

use crate::failure::{Class, Failure, Outcome};
use crate::output::{Table, print, print_json};
use crate::{Machine, model};

const EXAMPLES: &str = "\
Examples:
  sdpoint predict runs/shapes/model.safetensors photo.png
  sdpoint predict model.safetensors *.jpg --budget 50%
  sdpoint predict model.safetensors photo.jpg --macs 20M --top 3
  sdpoint predict model.safetensors photo.jpg --instance 3@0.5 --json

The instance for a budget is the most accurate, as measured on the test images, of those that \
cost no more. Without a budget it is the most accurate of all, and of equals the cheapest.";

/// The largest image file that is read.
const MAX_FILE: u64 = 256 << 20;

/// Tell the classes of images, at a chosen cost
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A model file, or the folder of a run
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// JPEG or PNG files
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<PathBuf>,
    #[command(flatten)]
    cost: Cost,
    /// How many classes to name
    #[arg(long, value_name = "K", default_value_t = 5)]
    top: usize,
    /// Print an array of JSON objects instead of text
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
#[group(multiple = false)]
struct Cost {
    /// What an image may cost as a share of the full network: 50% or 0.5
    #[arg(long, value_name = "SHARE")]
    budget: Option<Budget>,
    /// What an image may cost in multiply-accumulates: 20M, 1.5G
    #[arg(long, value_name = "MACS", value_parser = parse_macs)]
    macs: Option<u64>,
    /// The instance to use: full, 3@0.5, stem@0.75
    #[arg(long, value_name = "INSTANCE")]
    instance: Option<Instance>,
}

impl Cost {
    fn budget(&self) -> Budget {
        let macs = self.macs.map(Budget::Macs);
        let instance = self.instance.map(Budget::Instance);
        self.budget
            .or(macs)
            .or(instance)
            .unwrap_or(Budget::Share(1.0))
    }
}

/// What is said of an image.
#[derive(Serialize)]
struct Answer {
    image: String,
    instance: Instance,
    macs: u64,
    share: f64,
    top: Vec<Guess>,
}

#[derive(Serialize)]
struct Guess {
    class: String,
    label: usize,
    probability: f32,
}

pub fn run(args: &Args, machine: &Machine) -> Outcome {
    let predictor = Predictor::new(machine.context()?, model::load(&args.model)?)?;
    let choice = predictor.choose(args.cost.budget())?;
    let mut answers = Vec::new();
    let mut failed = Vec::new();
    for path in &args.images {
        match read(path).and_then(|image| answer(&predictor, &choice, path, &image, args.top)) {
            Ok(answer) => answers.push(answer),
            Err(failure) => failed.push(failure),
        }
    }
    if args.json {
        print_json(&answers)?;
    } else {
        print(&format!("{choice}\n"))?;
        for answer in &answers {
            print(&text(answer))?;
        }
    }
    // Images that can be read are answered; the rest is told of at the end.
    let last = failed.pop();
    for failure in failed {
        failure.report();
    }
    last.map_or(Ok(()), Err)
}

fn read(path: &Path) -> Result<Image, Failure> {
    let unreadable = |error: std::io::Error| {
        Failure::io(
            format!("cannot read '{}': {error}", path.display()),
            error.kind(),
        )
    };
    let refuse =
        |problem: String| Failure::new(Class::Data, format!("'{}' {problem}", path.display()));
    // A pipe would block, and a device has no end.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(refuse("is not a file".into()));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(refuse(format!("has more than {MAX_FILE} bytes")));
    }
    decode(&bytes).map_err(|error| refuse(error.to_string()))
}

fn answer(
    predictor: &Predictor,
    choice: &Choice,
    path: &Path,
    image: &Image,
    top: usize,
) -> Result<Answer, Failure> {
    let probabilities = predictor.predict(image, choice.instance)?;
    let guess = |label: usize| Guess {
        class: predictor.classes()[label].clone(),
        label,
        probability: probabilities[label],
    };
    Ok(Answer {
        image: path.display().to_string(),
        instance: choice.instance,
        macs: choice.macs,
        share: choice.share,
        top: top_k(&probabilities, top).into_iter().map(guess).collect(),
    })
}

fn text(answer: &Answer) -> String {
    let mut table = Table::new([&*answer.image, ""]);
    for guess in &answer.top {
        table.row([
            format!("  {}", guess.class),
            format!("{:.1}%", 100.0 * guess.probability),
        ]);
    }
    format!("\n{}", table.text())
}
