//! `sdpoint train`: trains a model whose inference cost can be chosen.

mod augment;
mod method;
mod optimiser;
mod setup;
mod sharing;
mod summary;

use std::path::PathBuf;
use std::time::Duration;

use sdpoint::core::Ratio;
use sdpoint::data::Source;
use sdpoint::train::{Draw, Outcome as RunOutcome, Run, StatisticsFrom};

use crate::data::{DataArgs, SOURCES, note_skipped};
use crate::failure::{Class, Failure, Outcome};
use crate::interrupt::Interrupt;
use crate::output::{note, print, program};
use crate::preprocessing::PreprocessingArgs;
use crate::progress::Display;
use crate::shares::parse_val_share;
use crate::{MachineArgs, path, size};
use augment::{Augment, RecipeName};
use method::NamedMethod;
use optimiser::OptimiserArgs;
use setup::{Setup, Start};
use sharing::SharingArgs;

const EXAMPLES: &str = "\
Examples:
  sdpoint train                                        built-in images, about two minutes
  sdpoint train --data folder:DIR --network wrn16-4 --epochs 60 --out runs/a
  sdpoint train --data cifar10:DIR --network preresnet20 --recipe cifar
  sdpoint train --data folder:DIR --network resnet18 --input 128 --recipe imagenet
  sdpoint train --init resnet18.safetensors --data folder:DIR --rate 0.01 --epochs 30
  sdpoint train --method plain --out runs/plain        the baseline without stochastic downsampling
  sdpoint train --ratios 0.25,0.5,0.75 --draw cost:-1  cheaper instances, drawn more often
  sdpoint train --resume runs/a

Ctrl-C writes a checkpoint after the current step and stops; --resume then continues, and the \
result is bit for bit that of an uninterrupted run, with any number of threads.

Methods:
  sdpoint    one instance drawn at random per step, as in the paper
  sdpoint+   the same with the ratios 0.5, 0.6 and 0.75, where four draws of five are full or one of
             a few instances of the first two points, which save most for their loss of accuracy;
             the best so far for equal work of training
  thrifty    the same, but cheap instances are drawn more often (--draw cost:-1): they become more
             accurate and training takes less time, at some cost in the accuracy of full
  plain      full in every step
  sandwich   full, the cheapest instance and one drawn at random in every step; the last two learn
             from the predictions of full; a step takes two to three times as long
  branched   full on the whole batch, and four instances drawn at random, each on a quarter of it;
             they continue from full's activations at their points and learn half from the labels,
             half from the predictions of full; a step takes a quarter longer than with plain

Distributions of instances (--draw):
  uniform      as in the paper: no downsampling or one of the points, all equally likely, then one
               of the ratios, all equally likely
  instances    all instances equally likely
  cost:POWER   in proportion to an instance's MACs to this power; cost means cost:1
  full:P       full with probability P, otherwise a random point and ratio
  menu:LIST    a list of instances with their probabilities; see --menu

Recipes:
  cifar-cosine   15 epochs, batch 128, learning rate 0.1 with warm-up and cosine decay to zero,
                 weight decay 5e-4
  cifar          200 epochs, batch 128, learning rate 0.1, times 0.2 after epochs 60, 120 and 160,
                 weight decay 5e-4
  imagenet       115 epochs, batch 256, learning rate 0.1, divided by 10 after epochs 40, 75 and
                 105, weight decay 1e-4
  modern         many epochs with today's usual augmentation; for small images:
                 200 epochs as cifar-cosine, label smoothing 0.1, weights averaged (0.999),
                 --augment trivial,erase:0.1
                 for larger ones: 300 epochs, batch 256, learning rate 0.125 with warm-up and cosine
                 decay to zero, weight decay 2e-5 (none for batch norms), label smoothing 0.1,
                 weights averaged (0.9999), --augment trivial,erase:0.1,mixup:0.2,cutmix:1

Augmentation (--augment), any of these, separated by commas:
  none           no random crops and no mirroring
  trivial        TrivialAugment: one of 14 operations of random strength
  jitter:X       brightness, contrast and saturation times 1 - X to 1 + X
  erase:P        random erasing: a rectangle of 2 to 33 % of the area, with probability P
  cutout:N       a square of N pixels, anywhere
  mixup:A        blends two images and their labels, by shares from the distribution Beta(A, A)
  cutmix:A       replaces a rectangle of one image by that of another, likewise; with both, each
                 batch gets one";

/// Headings of the options.
const NETWORK: &str = "Network and images";
const METHOD: &str = "Method";
const HYPERPARAMETERS: &str = "Hyperparameters";

/// Train a network whose inference cost can be chosen afterwards
///
/// Writes the model, the cost-accuracy curve as a table and as a picture, and a line of metrics per
/// epoch into a folder.
#[derive(clap::Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{SOURCES}"))]
pub struct Args {
    /// Source of the images; see below [default: shapes]
    #[arg(long, value_name = "SRC")]
    data: Option<Source>,
    /// Folder for all results of the run [default: runs/DATA or runs/DATA-NETWORK]
    #[arg(long, value_name = "DIR", conflicts_with = "resume", value_parser = path::parser())]
    out: Option<PathBuf>,
    /// Resume the run in this folder
    #[arg(long, value_name = "DIR",
          conflicts_with_all = ["TrainingArgs", "OptimiserArgs", "SharingArgs", "PreprocessingArgs",
                                "overwrite"],
          value_parser = path::parser())]
    resume: Option<PathBuf>,
    /// With --resume, continue even if images were replaced, renamed or moved since the run began;
    /// the result then differs from that of an uninterrupted run
    #[arg(long, requires = "resume")]
    accept_changed_data: bool,
    /// Replace an earlier run in the folder
    #[arg(long)]
    overwrite: bool,
    /// Seconds between checkpoints; there is also one after every epoch
    #[arg(long, value_name = "S", default_value_t = 600)]
    checkpoint_every: u64,
    #[command(flatten)]
    training: TrainingArgs,
    #[command(flatten)]
    optimiser: OptimiserArgs,
    // Not within the group of the other settings: one with a group in it is empty
    // for `conflicts_with_all`.
    #[command(flatten)]
    sharing: SharingArgs,
    #[command(flatten, next_help_heading = NETWORK)]
    preprocessing: PreprocessingArgs,
    #[command(flatten)]
    reading: DataArgs,
}

/// Settings that a resumed run takes from its checkpoint.
#[derive(clap::Args)]
#[group(multiple = true)]
struct TrainingArgs {
    /// Network [default: preresnet8 for shapes, preresnet20 for small images, otherwise resnet18]
    #[arg(long, help_heading = NETWORK, value_name = "NAME")]
    network: Option<String>,
    /// Start from the weights of this model or checkpoint, with its network and preprocessing; if the
    /// number of classes differs, the classifier starts from random weights [default: random weights]
    #[arg(long, help_heading = NETWORK, value_name = "MODEL", conflicts_with = "network",
          value_parser = path::parser())]
    init: Option<PathBuf>,
    /// Side of the images in pixels, or HxW [default: the size of small images, 224 for others]
    #[arg(long, help_heading = NETWORK, value_name = "N|HxW", value_parser = size::parse)]
    input: Option<[usize; 2]>,
    /// Do not mirror images in training: for digits, text or road signs, where left and right matter
    #[arg(long, help_heading = NETWORK)]
    no_flip: bool,
    /// Augmentation besides random crops and mirroring, or without them; see below [default: that
    /// of the recipe]
    #[arg(long, help_heading = NETWORK, value_name = "A,B")]
    augment: Option<Augment>,
    /// Multi-scale training: more image sizes, in pixels or HxW; the size of each batch is drawn at
    /// random from these and --input
    #[arg(long, help_heading = NETWORK, value_name = "N,N", value_delimiter = ',',
          value_parser = size::parse)]
    scales: Vec<[usize; 2]>,
    /// Use only N training images, balanced over the classes, those held out included
    #[arg(long, help_heading = NETWORK, value_name = "N")]
    train_images: Option<usize>,
    /// Share of these images that is held out of training, to choose instances by: 10% or 0.1, at
    /// most 50%; with 0, instances are chosen by their accuracy on the test images [default: 5%, or
    /// as in the training of --init]
    #[arg(long, help_heading = NETWORK, value_name = "SHARE", value_parser = parse_val_share,
          allow_hyphen_values = true)]
    val_share: Option<f64>,
    /// Training method: sdpoint, sdpoint+, thrifty, plain, sandwich or branched; see below
    #[arg(long, help_heading = METHOD, value_name = "METHOD", default_value = "sdpoint")]
    method: NamedMethod,
    /// Distribution that instances are drawn from; see below [default: uniform, with --method
    /// thrifty cost:-1]
    #[arg(long, help_heading = METHOD, value_name = "DRAW")]
    draw: Option<Draw>,
    /// Downsampling ratios: the shares of each side that instances keep [default: 0.5,0.75; with
    /// --method sdpoint+ 0.5,0.6,0.75]
    #[arg(long, help_heading = METHOD, value_name = "R,R", value_delimiter = ',')]
    ratios: Vec<Ratio>,
    /// With --method sandwich or branched, the share of full's predictions in the target of the
    /// other instances; the labels are the rest [default: 1 or 0.5]
    #[arg(long, help_heading = METHOD, value_name = "X")]
    distill: Option<f64>,
    /// Early exits: also train a classifier after each stage, on the sum of all losses, and write a
    /// model that ends there for each: exit1.safetensors and so on; requires --method plain
    #[arg(long, help_heading = METHOD)]
    exits: bool,
    /// Evaluate full on test images, held-out images and some training images every N epochs
    /// [default: never]
    #[arg(long, help_heading = METHOD, value_name = "N", default_value_t = 0,
          hide_default_value = true)]
    measure_every: usize,
    /// Number of training images for the batch-norm statistics of the instances
    #[arg(long, help_heading = METHOD, value_name = "N",
          default_value_t = sdpoint::train::CALIBRATION_IMAGES)]
    calibration_images: usize,
    /// How the images for these statistics are prepared: cropped and mirrored at random as in
    /// training, or as for evaluation [default: training for small images, otherwise evaluation]
    #[arg(long, help_heading = METHOD, value_name = "training|evaluation")]
    statistics_from: Option<StatisticsFrom>,
    /// Keep N small test images in the model file, for the page of `sdpoint serve` [default: none]
    #[arg(long, help_heading = METHOD, value_name = "N", default_value_t = 0,
          hide_default_value = true)]
    samples: usize,
    /// Hyperparameters by name; see below [default: cifar-cosine, for large images imagenet]
    #[arg(long, help_heading = HYPERPARAMETERS, value_name = "RECIPE")]
    recipe: Option<RecipeName>,
    /// Number of epochs [default: that of the recipe; 12 for shapes]
    #[arg(long, help_heading = HYPERPARAMETERS, value_name = "N")]
    epochs: Option<usize>,
    /// Batch size [default: that of the recipe]
    #[arg(long, alias = "batch-size", help_heading = HYPERPARAMETERS, value_name = "N")]
    batch: Option<usize>,
    /// Peak learning rate [default: that of the recipe]
    #[arg(long, visible_alias = "lr", help_heading = HYPERPARAMETERS, value_name = "X")]
    rate: Option<f64>,
    /// Share of the steps in which the learning rate warms up [default: that of the recipe]
    #[arg(long, help_heading = HYPERPARAMETERS, value_name = "X")]
    warm_up: Option<f64>,
    /// Weight decay [default: that of the recipe]
    #[arg(long, help_heading = HYPERPARAMETERS, value_name = "X")]
    weight_decay: Option<f64>,
    /// Do not apply weight decay to batch norms
    #[arg(long, help_heading = HYPERPARAMETERS)]
    no_norm_decay: bool,
    /// Label smoothing: the share of the target that is spread over all classes [default: 0]
    #[arg(long, help_heading = HYPERPARAMETERS, value_name = "X")]
    label_smoothing: Option<f64>,
    /// Dropout probability for the input of the last convolution of each block
    #[arg(long, help_heading = HYPERPARAMETERS, value_name = "P", default_value_t = 0.0)]
    dropout: f64,
    /// Stochastic depth: the probability of skipping the last block, per image; it increases linearly
    /// over the blocks
    #[arg(long, help_heading = HYPERPARAMETERS, value_name = "P", default_value_t = 0.0)]
    stochastic_depth: f64,
    /// Seed of everything random
    #[arg(long, help_heading = HYPERPARAMETERS, value_name = "S", default_value_t = 0)]
    seed: u64,
}

pub fn run(args: &Args, machine: &MachineArgs) -> Outcome {
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
    let parts = plan
        .held_out()
        .map(|how| train.hold_out(&how))
        .transpose()?;
    let held_out = parts.map_or(0, |parts| parts.held_out.len());
    let splits = [&train, &test];
    let introduction = summary::introduction(plan, splits, held_out, &ctx, &folder);
    note(&introduction?);
    if let Some(warning) = summary::few_held_out(held_out) {
        note(&warning);
    }
    if let Start::Resume(checkpoint) = &start {
        note(&format!(
            "Resuming after step {}.",
            checkpoint.counters.step
        ));
    }
    let data = plan.data.clone();
    let mut display = Display::new(Interrupt::install()?, plan.recipe.batch_size);
    let run = Run::new(&ctx, &train, &test, &folder)
        .with_checkpoint_every(Duration::from_secs(args.checkpoint_every))
        .with_overwrite(args.overwrite);
    let outcome = match start {
        Start::New(plan, None) => run.start(*plan, &mut display),
        Start::New(plan, Some(weights)) => run.start_from(*plan, weights, &mut display),
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
        format!("interrupted after step {step} of {steps}; the checkpoint is in {folder}"),
    )
    .hint(format!(
        "to continue: {} train --resume {folder}",
        program()
    ))
}
