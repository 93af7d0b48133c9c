//! `sdpoint instances`: lists every instance and its cost.

use std::path::Path;

use sdpoint::core::{Cost, PointId, Ratio, format_macs};
use sdpoint::data::expand_home;
use sdpoint::{Instance, Network, zoo};
use serde::{Serialize, Serializer};

use crate::failure::{Class, Failure, Outcome};
use crate::output::{Table, bytes, percent, plural, print, print_json};
use crate::{model, size};

const EXAMPLES: &str = "\
Examples:
  sdpoint instances resnet50 --input 224
  sdpoint instances wrn16-4 --classes 100 --ratios 0.25,0.5,0.75
  sdpoint instances runs/shapes/model.safetensors
  sdpoint instances resnet18 --input 224x320 --json

An instance is full, or POINT@RATIO: 3@0.5 downsamples each side of the feature map to half at the \
end of block 3, stem@0.75 to three quarters at the stem's max pool.";

/// List every instance of a network and its cost
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Network name, or model file
    #[arg(value_name = "NETWORK|MODEL")]
    network: String,
    /// Side of the images in pixels, or HxW [default: that of the network or the model]
    #[arg(long, value_name = "N|HxW", value_parser = size::parse)]
    input: Option<[usize; 2]>,
    /// Number of classes [default: that of the network or the model]
    #[arg(long, value_name = "C")]
    classes: Option<usize>,
    /// Downsampling ratios [default: 0.5,0.75, or those of the model]
    #[arg(long, value_name = "R,R", value_delimiter = ',')]
    ratios: Vec<Ratio>,
    /// Print an array of JSON objects instead of a table
    #[arg(long)]
    json: bool,
}

/// A selection of instances: a list, or all.
#[derive(Clone)]
pub struct Selection(Vec<Instance>);

impl Selection {
    /// The instances; empty for all.
    pub fn names(&self) -> &[Instance] {
        &self.0
    }
}

/// Parses `full,3@0.5` or `all`.
pub fn parse_selection(text: &str) -> Result<Selection, sdpoint::InstanceError> {
    if text == "all" {
        return Ok(Selection(Vec::new()));
    }
    let names = text.split(',').map(str::parse).collect::<Result<_, _>>()?;
    Ok(Selection(names))
}

/// The usual number of classes of networks for images with this side: those of
/// ImageNet or CIFAR-10.
pub fn usual_classes(side: usize) -> usize {
    if side > 32 { 1000 } else { 10 }
}

/// An instance in JSON output; commands add more fields.
#[derive(Serialize)]
pub struct Description {
    instance: Instance,
    #[serde(serialize_with = "point_or_null")]
    point: Option<PointId>,
    ratio: Option<Ratio>,
    macs: u64,
    share: f64,
}

impl Description {
    /// Describes an instance with `macs`; `full` is the MACs of the full network.
    pub fn new(instance: Instance, macs: u64, full: u64) -> Self {
        Self {
            instance,
            point: instance.point(),
            ratio: instance.ratio(),
            macs,
            share: macs as f64 / full.max(1) as f64,
        }
    }
}

/// A block is a number, the stem is the string `stem`.
fn point_or_null<S: Serializer>(point: &Option<PointId>, serializer: S) -> Result<S::Ok, S::Error> {
    match point {
        None => serializer.serialize_none(),
        Some(PointId::Block(block)) => serializer.serialize_u64(*block as u64),
        Some(PointId::Stem) => serializer.serialize_str("stem"),
    }
}

#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    description: Description,
    peak_memory_bytes: u64,
}

/// What to list.
struct Subject {
    network: Network,
    input: [usize; 2],
    instances: Vec<Instance>,
}

pub fn run(args: &Args) -> Outcome {
    let subject = subject(args)?;
    let costs: Result<Vec<(Instance, Cost)>, Failure> = subject
        .instances
        .iter()
        .map(|&instance| Ok((instance, subject.network.cost(subject.input, instance)?)))
        .collect();
    let costs = costs?;
    let full = subject.network.cost(subject.input, Instance::Full)?;
    if args.json {
        let row = |(instance, cost): &(Instance, Cost)| Row {
            description: Description::new(*instance, cost.macs, full.macs),
            peak_memory_bytes: cost.peak_bytes,
        };
        return print_json(&costs.iter().map(row).collect::<Vec<_>>());
    }
    let mut table = Table::new(["instance", "MACs", "share", "peak memory"]);
    for (instance, cost) in &costs {
        table.row([
            instance.to_string(),
            format_macs(cost.macs),
            percent(cost.share(&full)),
            bytes(cost.peak_bytes),
        ]);
    }
    let [height, width] = subject.input;
    print(&format!(
        "{}: {} parameters, {}, one image of {height}x{width} pixels\n\n{}",
        subject.network.name(),
        format_macs(full.parameters),
        plural(subject.network.classes(), "class", "classes"),
        table.text()
    ))
}

fn subject(args: &Args) -> Result<Subject, Failure> {
    if model::is_file(&args.network) {
        let model = model::load(expand_home(Path::new(&args.network)))?;
        if args.classes.is_some_and(|c| c != model.network.classes()) {
            return Err(Failure::new(
                Class::Usage,
                format!(
                    "the model has {}; --classes is for networks by name",
                    plural(model.network.classes(), "class", "classes")
                ),
            ));
        }
        let listed = || {
            model
                .instances
                .iter()
                .map(|record| record.instance)
                .collect()
        };
        return Ok(Subject {
            input: args.input.unwrap_or(model.preprocessing.size),
            instances: match &*args.ratios {
                [] => listed(),
                ratios => model.network.instances(ratios),
            },
            network: model.network,
        });
    }
    let name = &args.network;
    let side = zoo::input_size(name)?;
    let classes = args.classes.unwrap_or(usual_classes(side));
    let network = zoo::build(name, classes)?;
    let ratios = match &*args.ratios {
        [] => &Ratio::DEFAULT,
        ratios => ratios,
    };
    Ok(Subject {
        input: args.input.unwrap_or([side; 2]),
        instances: network.instances(ratios),
        network,
    })
}
