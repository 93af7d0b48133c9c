//! Validation of network descriptions.

use std::collections::HashSet;

use super::{NetworkError, Point};
use crate::instance::PointId;
use crate::layer::{Conv, Layer, LayerId, Op, Window, last_uses};

/// The prefix of the statistics of instances in model files. Names of layers
/// must not start with it.
pub(crate) const STATISTICS_PREFIX: &str = "instances/";

/// Validates every layer and returns the output channels of each.
pub(super) fn layers(layers: &[Layer]) -> Result<Vec<usize>, NetworkError> {
    let mut names = HashSet::new();
    let mut used = vec![false; layers.len()];
    let mut channels: Vec<usize> = Vec::with_capacity(layers.len());
    if layers.is_empty() {
        return Err(NetworkError::Input("has no layers".into()));
    }
    for (index, layer) in layers.iter().enumerate() {
        let fail = |problem: String| NetworkError::Layer {
            index,
            name: layer.name.clone(),
            problem,
        };
        if layer.name.starts_with(STATISTICS_PREFIX) {
            return Err(fail(format!(
                "names that start with '{STATISTICS_PREFIX}' are taken by statistics"
            )));
        }
        if !names.insert(&layer.name) {
            return Err(fail("an earlier layer has this name".into()));
        }
        for input in &layer.inputs {
            if input.0 >= index {
                return Err(fail(format!(
                    "its input {} does not come before it",
                    input.0
                )));
            }
            used[input.0] = true;
        }
        let inputs: Vec<usize> = layer.inputs.iter().map(|input| channels[input.0]).collect();
        if matches!(layer.op, Op::Input { .. }) != (index == 0) {
            return Err(NetworkError::Input(format!(
                "has '{}' as layer {index}",
                layer.name
            )));
        }
        channels.push(output_channels(&layer.op, &inputs).map_err(fail)?);
    }
    match used[..layers.len() - 1].iter().position(|&used| !used) {
        Some(index) => Err(NetworkError::Unused(layers[index].name.clone())),
        None => Ok(channels),
    }
}

/// The output channels of a layer whose inputs have `inputs` channels.
fn output_channels(op: &Op, inputs: &[usize]) -> Result<usize, String> {
    let arity = match op {
        Op::Input { .. } => 0..=0,
        Op::Add => 2..=2,
        Op::Concat => 1..=usize::MAX,
        _ => 1..=1,
    };
    if !arity.contains(&inputs.len()) {
        return Err(format!("it has {} inputs", inputs.len()));
    }
    let expect = |channels: usize| {
        if inputs[0] == channels {
            Ok(())
        } else {
            Err(format!(
                "it takes {channels} channels, but its input has {}",
                inputs[0]
            ))
        }
    };
    let out = match *op {
        Op::Input { channels } => channels,
        Op::Conv(conv) => {
            expect(conv.in_channels)?;
            conv_numbers(&conv)?;
            conv.out_channels
        }
        Op::BatchNorm { channels, eps } => {
            expect(channels)?;
            if !(eps.is_finite() && eps >= 0.0) {
                return Err(format!("its eps is {eps}"));
            }
            channels
        }
        Op::MaxPool(window) | Op::AvgPool(window) => {
            window_numbers(&window)?;
            inputs[0]
        }
        Op::Relu | Op::Relu6 | Op::GlobalAvgPool => inputs[0],
        Op::Linear {
            in_features,
            out_features,
            ..
        } => {
            expect(in_features)?;
            out_features
        }
        Op::Add => {
            expect(inputs[1])?;
            inputs[0]
        }
        Op::Concat => inputs
            .iter()
            .try_fold(0usize, |sum, &channels| sum.checked_add(channels))
            .ok_or("it has too many channels")?,
    };
    if out == 0 || out > MAX_CHANNELS {
        return Err(format!(
            "it has {out} channels; the number must be between 1 and {MAX_CHANNELS}"
        ));
    }
    Ok(out)
}

/// The most channels of a layer: more than any network has, and small enough
/// that products of sizes from a hostile file cannot overflow.
const MAX_CHANNELS: usize = 1 << 20;
/// The largest side of kernels, strides and padding, for the same reason.
const MAX_KERNEL: usize = 1 << 10;

fn conv_numbers(conv: &Conv) -> Result<(), String> {
    sides(conv.kernel, conv.stride, conv.padding)?;
    let Conv {
        in_channels,
        out_channels,
        groups,
        ..
    } = *conv;
    if groups == 0 || in_channels % groups != 0 || out_channels % groups != 0 {
        return Err(format!(
            "{in_channels} input and {out_channels} output channels do not make {groups} groups"
        ));
    }
    Ok(())
}

fn window_numbers(window: &Window) -> Result<(), String> {
    sides(window.kernel, window.stride, window.padding)?;
    if (0..2).any(|side| 2 * window.padding[side] > window.kernel[side]) {
        return Err("its padding is more than half of its window".into());
    }
    Ok(())
}

fn sides(kernel: [usize; 2], stride: [usize; 2], padding: [usize; 2]) -> Result<(), String> {
    let sensible = |size: usize| (1..=MAX_KERNEL).contains(&size);
    if !kernel.into_iter().chain(stride).all(sensible) {
        return Err(format!(
            "kernel {kernel:?} and stride {stride:?} must be between 1 and {MAX_KERNEL}"
        ));
    }
    if padding.into_iter().any(|size| size > MAX_KERNEL) {
        return Err(format!("padding {padding:?} must be at most {MAX_KERNEL}"));
    }
    Ok(())
}

/// Validates that the points are in order and that each cuts the network.
pub(super) fn points(layers: &[Layer], points: &[Point]) -> Result<(), NetworkError> {
    let last_use = last_uses(layers);
    let live = live_counts(&last_use);
    let mut last: Option<Point> = None;
    for &point in points {
        let fail = |problem: String| {
            Err(NetworkError::Point {
                point: point.id,
                problem,
            })
        };
        if last.is_some_and(|last| point.id <= last.id || point.layer <= last.layer) {
            return fail("points must be listed once each, in the order of the layers".into());
        }
        last = Some(point);
        let place = point.layer.0;
        let Some(layer) = layers.get(place) else {
            return fail(format!("there is no layer {place}"));
        };
        if place == 0 || place == layers.len() - 1 {
            return fail("the network's input and its output cannot be downsampled".into());
        }
        // The name of a layer other than `cut` whose output is live right
        // after layer `line`, if there is one.
        let crossing = |line: usize, cut: LayerId| {
            let other = |&from: &usize| from != cut.0 && last_use[from] > line;
            (live[line] > 1)
                .then(|| (0..=line).find(other))
                .flatten()
                .map(|from| &layers[from].name)
        };
        if let Some(other) = crossing(place, point.layer) {
            return fail(format!(
                "later layers read the output of '{other}' besides that of '{}'; \
                 at a point, they may depend on one tensor only",
                layer.name
            ));
        }
        if point.id == PointId::Stem {
            if !matches!(layer.op, Op::MaxPool(_)) {
                return fail(format!("'{}' is not a max pool", layer.name));
            }
            if let Some(other) = crossing(place - 1, layer.inputs[0]) {
                return fail(format!(
                    "the input of the max pool '{}' must be the only live tensor, \
                     but later layers read the output of '{other}' too",
                    layer.name
                ));
            }
        }
    }
    Ok(())
}

/// The number of live outputs right after each layer. Computed for all layers
/// in one pass, so that validation is linear in layers and points.
fn live_counts(last_use: &[usize]) -> Vec<usize> {
    let mut ends = vec![0; last_use.len()];
    for &last in last_use {
        ends[last] += 1;
    }
    let mut live = 0;
    ends.iter()
        .map(|ended| {
            live = live + 1 - ended;
            live
        })
        .collect()
}
