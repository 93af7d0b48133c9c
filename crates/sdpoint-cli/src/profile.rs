//! `sdpoint profile`: measures the latency of instances on this machine.

mod layers;
mod measure;
mod save;
mod subject;
mod work;

use std::path::PathBuf;

use sdpoint::core::{Cost, Op, format_macs};
use sdpoint::engine::peak_gflops;
use sdpoint::{Instance, Network};
use serde::Serialize;

use crate::failure::{Failure, Outcome};
use crate::instances::{Selection, parse_selection};
use crate::output::{Table, bytes, percent, plural, print, print_json};
use crate::output_file::OverwriteArgs;
use crate::{MachineArgs, path, size};
use layers::LayerTime;
use subject::Subject;
use work::Work;

const EXAMPLES: &str = "\
Examples:
  sdpoint profile runs/shapes/model.safetensors --instances all
  sdpoint profile --network resnet50 --batch 8 --threads 2
  sdpoint profile --network resnet50 --layers
  sdpoint profile --network wrn16-4 --batch 128 --train --json
  sdpoint profile MODEL --save

Measured is one run of a batch in memory: inference, or with --train a training step, which is \
forward pass, loss, backward pass and the optimiser's update. Without a model, weights, images and \
labels are arbitrary; time does not depend on them. After two warm-up runs each, all instances run \
in turns until the time is up, so that other load on the machine affects all equally.

MACs are those of one image; those of a training step include the gradients with respect to the \
weights and to all inputs but the images. GFLOP/s is 2 · MACs · batch divided by the median, so \
algorithms that save multiplications can exceed the peak, which this machine reaches with \
multiply-adds on registers. Memory includes packed weights, the batch's tensors and the kernels' \
scratch memory; in training also weights, gradients and momentum.

--save measures all instances from point to point, and stores the times next to the model in \
MODEL.profile.json, for this processor, instruction set and number of threads; other values of \
--batch and --threads add to the file. Latency budgets and deadlines use them.";

/// Measure the latency of the instances of a model or a network
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    which: Which,
    /// Side of the images in pixels, or HxW [default: that of the network or the model]
    #[arg(long, value_name = "N|HxW", value_parser = size::parse)]
    input: Option<[usize; 2]>,
    /// Number of classes [default: that of the network]
    #[arg(long, value_name = "C", conflicts_with = "model")]
    classes: Option<usize>,
    /// Batch size
    #[arg(long, value_name = "B", default_value_t = 1,
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1 << 16))]
    batch: usize,
    /// Instances to measure
    #[arg(long, value_name = "A,B|all", default_value = "full", value_parser = parse_selection)]
    instances: Selection,
    /// Measure training steps instead of inference
    #[arg(long)]
    train: bool,
    /// Also measure each kernel call
    #[arg(long)]
    layers: bool,
    /// Measure all instances and store the times next to the model
    #[arg(long, requires = "model",
          conflicts_with_all = ["network", "input", "instances", "train", "layers"])]
    save: bool,
    #[command(flatten)]
    replacing: OverwriteArgs,
    /// Seconds per instance; each runs at least five times
    #[arg(long, value_name = "S", default_value_t = 3.0, value_parser = parse_seconds)]
    seconds: f64,
    /// Print an array of JSON objects instead of tables
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// Model file, or folder of a run
    #[arg(value_name = "MODEL", value_parser = path::parser())]
    model: Option<PathBuf>,
    /// Network by name, with random weights
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok();
    let day = 86400.0;
    seconds
        .filter(|seconds| (0.0..=day).contains(seconds))
        .ok_or_else(|| format!("give a number of seconds from 0 to {day}"))
}

/// The result for an instance, as in the JSON output.
#[derive(Serialize)]
struct Row {
    instance: Instance,
    batch: usize,
    threads: usize,
    median_ms: f64,
    p99_ms: f64,
    runs: usize,
    macs: u64,
    gflops: f64,
    peak_gflops: f64,
    peak_memory_bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    layers: Option<Vec<LayerTime>>,
}

pub fn run(args: &Args, machine: &MachineArgs) -> Outcome {
    if let (true, Some(path)) = (args.save, &args.which.model) {
        return save::run(args, path, machine);
    }
    let ctx = machine.context()?;
    let subject = Subject::new(args)?;
    // Reports an invalid instance before anything runs.
    let costs: Result<Vec<Cost>, Failure> = subject
        .instances
        .iter()
        .map(|&instance| Ok(subject.network.cost(subject.input, instance)?))
        .collect();
    let costs = costs?;
    let peak = peak_gflops(&ctx);
    let mut work = Work::new(ctx.clone(), &subject, args.batch, args.train)?;
    let samples = measure::measure(&mut work, &subject.instances, args.seconds, args.layers)?;
    let mut rows = Vec::with_capacity(samples.len());
    for ((&instance, cost), samples) in subject.instances.iter().zip(&costs).zip(&samples) {
        let macs = if args.train {
            training_macs(&subject.network, cost)
        } else {
            cost.macs
        };
        let median_ms = samples.median_ms();
        rows.push(Row {
            instance,
            batch: args.batch,
            threads: ctx.threads(),
            median_ms,
            p99_ms: samples.p99_ms(),
            runs: samples.runs(),
            macs,
            gflops: gflops(macs.saturating_mul(args.batch as u64), median_ms),
            peak_gflops: peak,
            peak_memory_bytes: work.memory_bytes(instance)?,
            layers: args.layers.then(|| layers::times(samples, args.batch)),
        });
    }
    if args.json {
        return print_json(&rows);
    }
    print(&format!(
        "{}: {}, batch {} of {}, {} on {}, peak {peak:.0} GFLOP/s\n\n{}",
        subject.network.name(),
        if args.train {
            "training steps"
        } else {
            "inference"
        },
        args.batch,
        size::text(subject.input),
        ctx.isa(),
        plural(ctx.threads(), "thread", "threads"),
        table(&rows).text(),
    ))?;
    for row in &rows {
        if let Some(layers) = &row.layers {
            let table = layers::table(&subject.network, layers, peak);
            print(&format!("\n{}\n\n{}", row.instance, table.text()))?;
        }
    }
    Ok(())
}

fn table(rows: &[Row]) -> Table {
    let full = rows.iter().find(|row| row.instance == Instance::Full);
    let share = |part: f64, of: Option<f64>| of.map_or("-".into(), |of| percent(part / of));
    let mut table = Table::new([
        "instance", "MACs", "share", "median", "of full", "p99", "GFLOP/s", "of peak", "memory",
        "runs",
    ]);
    for row in rows {
        table.row([
            row.instance.to_string(),
            format_macs(row.macs),
            share(row.macs as f64, full.map(|full| full.macs as f64)),
            milliseconds(row.median_ms),
            share(row.median_ms, full.map(|full| full.median_ms)),
            milliseconds(row.p99_ms),
            format!("{:.1}", row.gflops),
            percent(row.gflops / row.peak_gflops),
            bytes(row.peak_memory_bytes as u64),
            row.runs.to_string(),
        ]);
    }
    table
}

/// Multiply-accumulates of a training step for one image: those of the forward
/// pass once for each layer's output, once for the gradient of its weights, and
/// once for that of its input unless the input is the images.
fn training_macs(network: &Network, forward: &Cost) -> u64 {
    let layers = network.layers().iter().zip(&forward.layer_macs);
    layers
        .map(|(layer, &macs)| {
            let reads_images = layer
                .inputs
                .first()
                .is_some_and(|&input| matches!(network.layer(input).op, Op::Input { .. }));
            macs.saturating_mul(if reads_images { 2 } else { 3 })
        })
        .fold(0, u64::saturating_add)
}

/// 10⁹ floating-point operations per second.
fn gflops(macs: u64, milliseconds: f64) -> f64 {
    2e-6 * macs as f64 / milliseconds
}

/// A time with at least three significant digits.
pub fn milliseconds(value: f64) -> String {
    let digits = match value {
        v if v < 1.0 => 3,
        v if v < 100.0 => 2,
        _ => 1,
    };
    format!("{value:.digits$} ms")
}
