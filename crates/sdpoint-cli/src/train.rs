//! `sdpoint train`: from images to a model with a choice of costs.

mod method;
mod setup;
mod summary;

use std::path::PathBuf;
use std::time::Duration;

use sdpoint::core::Ratio;
use sdpoint::data::Source;
use sdpoint::train::{Draw, Outcome as RunOutcome, Preset, Run};

use crate::data::{Reading, SOURCES, note_skipped};
use crate::failure::{Class, Failure, Outcome};
use crate::interrupt::Interrupt;
use crate::output::{note, print, program};
use crate::preparation::Preparation;
use crate::progress::Display;
use crate::{Machine, size};
use method::Named;
use setup::{Setup, Start};

const EXAMPLES: &str = "\
Examples:
  sdpoint train                                        built-in images, about two minutes
  sdpoint train --data folder:DIR --network wrn16-4 --epochs 60 --out runs/a
  sdpoint train --data cifar10:DIR --network preresnet20 --recipe cifar
  sdpoint train --data folder:DIR --network resnet18 --input 128 --recipe imagenet
  sdpoint train --init resnet18.safetensors --data folder:DIR --rate 0.01 --epochs 30
  sdpoint train --method plain --out runs/plain        what stochastic downsampling is compared with
  sdpoint train --ratios 0.25,0.5,0.75 --draw cost:-1   cheaper instances, drawn more often
  sdpoint train --resume runs/a

Ctrl-C stops after the step with a checkpoint; --resume then gives, bit for bit, what the \
uninterrupted run would have given, with any number of threads.

Methods:
  sdpoint    an instance drawn at random: the paper's
  thrifty    the same, with cheap instances drawn more often (--draw cost:-1), which makes them
             more accurate and the training shorter, at some cost to full
  plain      full
  sandwich   full, the cheapest instance and a drawn one, of which the last two learn from what
             full predicts; a step takes two to three times as long

Draws:
  uniform      the paper's: no downsampling or one of the points, then a ratio, all equally likely
  instances    every instance equally likely
  cost:POWER   in proportion to an instance's MACs to that power; cost is cost:1
  full:P       full with probability P, else a point and a ratio

Recipes:
  cifar-cosine   15 epochs, batch 128, rate 0.1 with warm-up, cosine to zero, weight decay 5e-4
  cifar          200 epochs, batch 128, rate 0.1, times 0.2 after 60, 120 and 160, weight decay 5e-4
  imagenet       115 epochs, batch 256, rate 0.1, a tenth after 40, 75 and 105, weight decay 1e-4";

/// Train a network whose cost can be chosen afterwards
///
/// Leaves in its folder the model, the cost-accuracy curve as a table and as a picture, and a line
/// of metrics an epoch.
#[derive(clap::Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{SOURCES}"))]
pub struct Args {
    /// Where the images come from; see below [default: shapes]
    #[arg(long, value_name = "SRC")]
    data: Option<Source>,
    /// The folder for everything that the run leaves [default: runs/DATA or runs/DATA-NETWORK]
    #[arg(long, value_name = "DIR", conflicts_with = "resume")]
    out: Option<PathBuf>,
    /// Go on with the run in this folder
    #[arg(long, value_name = "DIR", conflicts_with_all = ["Settings", "Preparation", "overwrite"])]
    resume: Option<PathBuf>,
    /// With --resume, go on although images were replaced, renamed or moved since the run began;
    /// the result is not what the uninterrupted run would have given
    #[arg(long, requires = "resume")]
    accept_changed_data: bool,
    /// Throw away the run that the folder holds
    #[arg(long)]
    overwrite: bool,
    /// Seconds between checkpoints; there is one after every epoch in any case
    #[arg(long, value_name = "S", default_value_t = 600)]
    checkpoint_every: u64,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    preparation: Preparation,
    #[command(flatten)]
    reading: Reading,
}

/// What a resumed run takes from its checkpoint.
#[derive(clap::Args)]
#[group(multiple = true)]
struct Settings {
    /// The network [default: preresnet8 for shapes, preresnet20 for small images, else resnet18]
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// Start from the weights of this model, with its network and preprocessing; for another number
    /// of classes, the classifier starts afresh [default: random weights]
    #[arg(long, value_name = "MODEL", conflicts_with = "network")]
    init: Option<PathBuf>,
    /// Side of the images in pixels, or HxW [default: small images' own, 224 for others]
    #[arg(long, value_name = "N|HxW", value_parser = size::parse)]
    input: Option<[usize; 2]>,
    /// Never mirror images in training, where left and right matter: digits, text, road signs
    #[arg(long)]
    no_flip: bool,
    /// What a step trains: sdpoint, thrifty, plain or sandwich; see below
    #[arg(long, value_name = "METHOD", default_value = "sdpoint")]
    method: Named,
    /// With --method sandwich, the share of full's predictions in what the others learn from; the
    /// labels make the rest [default: 1]
    #[arg(long, value_name = "X")]
    distill: Option<f64>,
    /// Probability of dropping each value that goes into the last convolution of a block
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    dropout: f64,
    /// Probability of skipping the last block, image by image; earlier ones are skipped less often
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    stochastic_depth: f64,
    /// Sides of images to train on besides the input's, in pixels or HxW: each batch has one of all
    /// these sizes, drawn at random
    #[arg(long, value_name = "N,N", value_delimiter = ',', value_parser = size::parse)]
    scales: Vec<[usize; 2]>,
    /// Train classifiers after each stage along, by the sum of their losses, and leave for each a
    /// model that ends there, exit1.safetensors and so on; with --method plain alone
    #[arg(long)]
    exits: bool,
    /// Measure full on test images, and on some training images, each time so many epochs are done
    /// [default: never]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    measure_every: usize,
    /// How instances are drawn; see below [default: uniform, with --method thrifty cost:-1]
    #[arg(long, value_name = "DRAW")]
    draw: Option<Draw>,
    /// What downsampling may keep of each side
    #[arg(long, value_name = "R,R", value_delimiter = ',', default_values_t = Ratio::DEFAULT)]
    ratios: Vec<Ratio>,
    /// Settings by name; see below [default: cifar-cosine, for large images imagenet]
    #[arg(long, value_name = "RECIPE")]
    recipe: Option<Preset>,
    /// Passes over the training images [default: the recipe's; 12 for shapes]
    #[arg(long, value_name = "N")]
    epochs: Option<usize>,
    /// Images in a step [default: the recipe's]
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// Peak learning rate [default: the recipe's]
    #[arg(long, value_name = "X")]
    rate: Option<f64>,
    /// Share of the steps in which the rate rises to its peak [default: the recipe's]
    #[arg(long, value_name = "X")]
    warm_up: Option<f64>,
    /// Weight decay [default: the recipe's]
    #[arg(long, value_name = "X")]
    weight_decay: Option<f64>,
    /// No weight decay on batch norms
    #[arg(long)]
    no_norm_decay: bool,
    /// Share of the target that is spread over all classes [default: 0]
    #[arg(long, value_name = "X")]
    label_smoothing: Option<f64>,
    /// Training images that the statistics of the instances are taken from
    #[arg(long, value_name = "N", default_value_t = sdpoint::train::CALIBRATION_IMAGES)]
    calibration_images: usize,
    /// Use only so many training images, balanced over the classes
    #[arg(long, value_name = "N")]
    train_images: Option<usize>,
    /// Seed of everything random
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
}

pub fn run(args: &Args, machine: &Machine) -> Outcome {
    let ctx = machine.context()?;
    let setup = match &args.resume {
        Some(folder) => setup::resume(args, folder)?,
        None => setup::start(args)?,
    };
    let Setup {
        folder,
        train,
        test,
        start,
    } = setup;
    let plan = match &start {
        Start::New(plan, _) => plan,
        Start::Resume(checkpoint) => &checkpoint.plan,
    };
    note(&summary::introduction(plan, &train, &test, &ctx, &folder));
    if let Start::Resume(checkpoint) = &start {
        note(&format!(
            "Going on after step {}.",
            checkpoint.counters.step
        ));
    }
    let data = plan.data.clone();
    let mut display = Display::new(Interrupt::install()?, plan.recipe.batch_size);
    let run = Run {
        ctx: &ctx,
        train: &train,
        test: &test,
        folder: &folder,
        checkpoint_every: Duration::from_secs(args.checkpoint_every),
    };
    let outcome = match start {
        Start::New(plan, None) => run.start(*plan, args.overwrite, &mut display),
        Start::New(plan, Some(weights)) => {
            run.start_from(*plan, weights, args.overwrite, &mut display)
        }
        Start::Resume(checkpoint) => run.resume(*checkpoint, &mut display),
    };
    display.finish();
    note_skipped(&[&train, &test]);
    match outcome? {
        RunOutcome::Finished(finished) => print(&summary::results(&data, &finished, &folder)),
        RunOutcome::Stopped { step, steps } => {
            Err(stopped(&folder.display().to_string(), step, steps))
        }
    }
}

fn stopped(folder: &str, step: u64, steps: u64) -> Failure {
    Failure::new(
        Class::Interrupted,
        format!("interrupted after step {step} of {steps}; all of it is kept in {folder}"),
    )
    .hint(format!("to go on: {} train --resume {folder}", program()))
}
