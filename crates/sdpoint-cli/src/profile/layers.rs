//! The time of each kernel call, in the order of the network.

use sdpoint::Network;
use sdpoint::core::{LayerId, Op, Shape};
use sdpoint::engine::{Pass, StepTime};
use serde::{Serialize, Serializer};

use super::measure::Samples;
use super::{gflops, milliseconds};
use crate::output::{Table, percent};

/// The result for a kernel call, as in the JSON output.
#[derive(Serialize)]
pub struct LayerTime {
    #[serde(skip)]
    layer: LayerId,
    name: String,
    #[serde(serialize_with = "pass_name")]
    pass: Pass,
    /// Height, width and channels for one image.
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<[usize; 3]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<[usize; 3]>,
    /// For one image.
    macs: u64,
    /// The algorithms of a convolution or linear layer, separated by plus signs.
    #[serde(skip_serializing_if = "String::is_empty")]
    algorithm: String,
    median_ms: f64,
    gflops: f64,
}

/// The kernel calls of an instance, grouped by layer.
pub fn times(samples: &Samples, batch: usize) -> Vec<LayerTime> {
    let sides = |shape: Shape| [shape.height, shape.width, shape.channels];
    let mut layers: Vec<LayerTime> = samples
        .step_medians()
        .map(|(step, median_ms)| LayerTime {
            layer: step.layer,
            name: step.name.clone(),
            pass: step.pass,
            input: step.shapes.map(|[input, _]| sides(input)),
            output: step.shapes.map(|[_, output]| sides(output)),
            macs: step.macs / batch as u64,
            algorithm: algorithm(step),
            median_ms,
            gflops: gflops(step.macs, median_ms),
        })
        .collect();
    // A backward pass visits layers in reverse; group the passes of each layer.
    layers.sort_by_key(|time| time.layer);
    layers
}

/// A table of the kernel calls, with their shares of the time and of the peak,
/// and totals.
pub fn table(network: &Network, layers: &[LayerTime], peak: f64) -> Table {
    let all: f64 = layers.iter().map(|time| time.median_ms).sum();
    let mut table = Table::new([
        "layer",
        "pass",
        "shape",
        "kernel",
        "algorithm",
        "time",
        "of all",
        "GFLOP/s",
        "of peak",
    ]);
    for time in layers {
        table.row([
            time.name.clone(),
            name(time.pass).into(),
            shape(time),
            kernel(network, time),
            time.algorithm.clone(),
            milliseconds(time.median_ms),
            percent(time.median_ms / all),
            speed(time.gflops),
            share(time.gflops / peak),
        ]);
    }
    let mut passes: Vec<Pass> = layers.iter().map(|time| time.pass).collect();
    passes.sort_unstable();
    passes.dedup();
    let one = passes.len() == 1;
    let totals = passes.into_iter().map(Some).chain((!one).then_some(None));
    for pass in totals {
        let of_pass = || {
            layers
                .iter()
                .filter(|time| pass.is_none_or(|p| p == time.pass))
        };
        let milli: f64 = of_pass().map(|time| time.median_ms).sum();
        // In 10⁶ operations, for the whole batch.
        let work: f64 = of_pass().map(|time| time.gflops * time.median_ms).sum();
        table.row([
            "total".into(),
            pass.map_or("", name).into(),
            String::new(),
            String::new(),
            String::new(),
            milliseconds(milli),
            percent(milli / all),
            speed(work / milli),
            share(work / milli / peak),
        ]);
    }
    table
}

fn shape(time: &LayerTime) -> String {
    let sides = |[height, width, channels]: [usize; 3]| format!("{height}x{width}x{channels}");
    match (time.input, time.output) {
        (Some(input), Some(output)) => format!("{} > {}", sides(input), sides(output)),
        _ => String::new(),
    }
}

/// The kernel of a convolution, its stride and its groups: `3x3/2 g32`.
fn kernel(network: &Network, time: &LayerTime) -> String {
    let Op::Conv(conv) = network.layer(time.layer).op else {
        return String::new();
    };
    let mut text = format!("{}x{}", conv.kernel[0], conv.kernel[1]);
    if conv.stride != [1, 1] {
        text.push_str(&format!("/{}", conv.stride[0].max(conv.stride[1])));
    }
    if conv.groups > 1 {
        text.push_str(&format!(" g{}", conv.groups));
    }
    text
}

fn algorithm(step: &StepTime) -> String {
    let names: Vec<String> = step.algorithms.iter().map(ToString::to_string).collect();
    names.join("+")
}

/// GFLOP/s; empty for layers without MACs.
fn speed(gflops: f64) -> String {
    if gflops > 0.0 {
        format!("{gflops:.1}")
    } else {
        String::new()
    }
}

fn share(part: f64) -> String {
    if part > 0.0 {
        percent(part)
    } else {
        String::new()
    }
}

fn name(pass: Pass) -> &'static str {
    match pass {
        Pass::Pack => "pack",
        Pass::Forward => "forward",
        Pass::Loss => "loss",
        Pass::BackwardWeights => "to weights",
        Pass::BackwardData => "to data",
        Pass::Update => "update",
    }
}

fn pass_name<S: Serializer>(pass: &Pass, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(name(*pass))
}
