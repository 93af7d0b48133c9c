//! The summaries of a run before training and after it.

use std::collections::BTreeMap;
use std::path::Path;

use sdpoint::core::{PointId, Ratio, Record, format_macs};
use sdpoint::data::{Augmentation, Dataset};
use sdpoint::train::folder::{CHECKPOINT, CURVE_CSV, CURVE_SVG, EVENTS, METRICS, MODEL, exit};
use sdpoint::train::{Finished, Method, Optimizer, Phases, Recipe, TrainError, TrainPlan};
use sdpoint::{Context, Instance, Model};

use crate::output::{percent, plural, program};
use crate::{report, size};

/// The summary before training.
pub fn introduction(
    plan: &TrainPlan,
    [train, test]: [&Dataset; 2],
    held_out: usize,
    ctx: &Context,
    folder: &Path,
) -> Result<String, TrainError> {
    plan.check()?;
    let recipe = &plan.recipe;
    let parameters: usize = plan.network.parameters().iter().map(|p| p.len()).sum();
    let drawn = match plan.method {
        Method::Plain => "every step trains full".to_owned(),
        Method::Sandwich => format!(
            "every step trains full, the cheapest instance and one drawn at random ({})",
            plan.draw
        ),
        Method::Branched => format!(
            "every step trains full, and {} on parts of the batch, drawn at random ({})",
            plural(plan.branching.branches, "branch", "branches"),
            plan.draw
        ),
        _ => format!("every step trains one, drawn at random ({})", plan.draw),
    };
    let mut extras = String::new();
    if plan.parts > 1 {
        extras.push_str(&format!(", for each of {} parts of the batch", plan.parts));
    }
    if plan.phases.shrink_after > 0.0 {
        let share = percent(plan.phases.shrink_after);
        extras.push_str(&format!("; full alone in the first {share} of the steps"));
    }
    if let Some(probability) = plan.phases.full_at_end {
        extras.push_str(&format!("; full with probability {probability} at the end"));
    }
    for (what, probability) in [
        ("dropout", plan.dropout),
        ("stochastic depth", plan.stochastic_depth),
    ] {
        if probability > 0.0 {
            extras.push_str(&format!("; {what} {probability}"));
        }
    }
    if plan.augmentation != Augmentation::default() {
        extras.push_str(&format!("; augmentation {}", plan.augmentation));
    }
    if plan.exits {
        extras.push_str("; with a classifier after each stage");
    }
    if !plan.scales.is_empty() {
        let sizes: Vec<String> = plan.scales.iter().map(|&size| size::pixels(size)).collect();
        extras.push_str(&format!("; also at {}", sizes.join(", ")));
    }
    let init = match &plan.init {
        Some(init) => format!("; starting from {}", init.model),
        None => String::new(),
    };
    let trained_on = train.len() - held_out;
    let macs = plan.training_macs(trained_on)?;
    let mut plain = plan.clone().with_method(Method::Plain);
    plain.phases = Phases::default();
    plain.parts = 1;
    plain.scales.clear();
    plain.branch_scales.clear();
    plain.exits = false;
    let plain = plain.training_macs(trained_on)?;
    Ok(format!(
        "{}: {} parameters, {}; {drawn}{init}{extras}\n\
         {}: {} for training{} and {} for testing, {}, input {}\n\
         {}, batch {}, {}learning rate {}, weight decay {}; seed {}; {}, {}\n\
         cost: {:.4e} multiply-accumulates, as {:.2} epochs of full\n\
         folder: {}",
        plan.network.name(),
        format_macs(parameters as u64),
        plural(
            plan.network.instances(&plan.ratios).len(),
            "instance",
            "instances"
        ),
        train.source(),
        match held_out {
            0 => plural(train.len(), "image", "images"),
            _ => plural(train.len() - held_out, "image", "images"),
        },
        match held_out {
            0 => String::new(),
            _ => format!(", {held_out} held out to choose instances by,"),
        },
        test.len(),
        plural(plan.classes.len(), "class", "classes"),
        size::pixels(plan.preprocessing.size),
        plural(recipe.epochs, "epoch", "epochs"),
        recipe.batch_size,
        optimiser(recipe),
        recipe.rate,
        recipe.weight_decay,
        plan.seed,
        plural(ctx.threads(), "thread", "threads"),
        ctx.isa(),
        macs as f64,
        recipe.epochs as f64 * macs as f64 / plain as f64,
        folder.display(),
    ))
}

/// What differs from plain stochastic gradient descent, followed by a comma.
fn optimiser(recipe: &Recipe) -> String {
    let mut text = String::new();
    if recipe.optimizer != Optimizer::Sgd {
        text.push_str(&format!("{}, ", recipe.optimizer.name()));
    }
    if let Some(norm) = recipe.clip_norm {
        text.push_str(&format!("gradients clipped at {norm}, "));
    }
    if let Some(decay) = recipe.ema {
        text.push_str(&format!("weights averaged with decay {decay}, "));
    }
    text
}

/// A warning if few images are held out to choose instances by.
pub fn few_held_out(held_out: usize) -> Option<String> {
    /// With fewer, accuracies are off by more than two points in one case of three.
    const FEW: usize = 400;
    (1..FEW).contains(&held_out).then(|| {
        format!(
            "Only {} held out of training to choose instances by, so their accuracies are \
             uncertain; --val-share sets a larger share.",
            plural(held_out, "image is", "images are")
        )
    })
}

/// The summary after training: results, files, and what to do next.
pub fn results(data: &str, finished: &Finished, folder: &Path) -> String {
    let evaluation = &finished.evaluation;
    format!(
        "{}\n{}\n{}{}\n{}\n{}",
        draws(
            &finished.drawn,
            finished.model.training.get("parts").is_some()
                || [Method::Sandwich, Method::Branched]
                    .iter()
                    .any(|method| finished.model.training["method"] == serde_json::json!(method))
        ),
        report::accuracy_table(&finished.model.instances, &[]),
        exits(&finished.exits),
        report::sharing(evaluation),
        files(folder, finished.exits.len()),
        next(data, folder, &evaluation.records),
    )
}

/// How often each point and each ratio was trained. If a step trains `several`
/// instances, each counts as a pass.
fn draws(drawn: &[(Instance, u64)], several: bool) -> String {
    let what = if several { "passes" } else { "steps" };
    let mut full = 0;
    let mut points: BTreeMap<PointId, u64> = BTreeMap::new();
    let mut ratios: BTreeMap<Ratio, u64> = BTreeMap::new();
    for &(instance, steps) in drawn {
        match instance {
            Instance::Full => full += steps,
            Instance::At(point, ratio) => {
                *points.entry(point).or_default() += steps;
                *ratios.entry(ratio).or_default() += steps;
            }
        }
    }
    let steps = full + points.values().sum::<u64>();
    if full == steps {
        let all = match steps {
            1 => "The only step".to_owned(),
            steps => format!("All {steps} steps"),
        };
        return format!("{all} trained the full network; no other instance was trained.\n");
    }
    let share = |part: u64| percent(part as f64 / steps.max(1) as f64);
    let list = |counts: Vec<String>| counts.join(", ");
    format!(
        "Of {steps} {what}, {full} ({}) trained the full network. Downsampled at each point: {}. \
         With each ratio: {}.\n",
        share(full),
        list(
            points
                .iter()
                .map(|(point, n)| format!("{point} in {n} ({})", share(*n)))
                .collect()
        ),
        list(
            ratios
                .iter()
                .map(|(ratio, n)| format!("{ratio} in {n} ({})", share(*n)))
                .collect()
        ),
    )
}

/// The cost and accuracy of each early exit.
fn exits(models: &[Model]) -> String {
    let mut text = String::new();
    for (index, model) in models.iter().enumerate() {
        let full = &model.instances[0];
        text.push_str(&format!(
            "Exit {}: {} MACs, top-1 {}.\n",
            index + 1,
            format_macs(full.macs),
            full.reported()
                .map_or("-".into(), |scores| percent(scores.top1)),
        ));
    }
    if !models.is_empty() {
        text.push('\n');
    }
    text
}

fn files(folder: &Path, exits: usize) -> String {
    let files = [
        (
            MODEL,
            "the model: weights, statistics, preprocessing, accuracies",
        ),
        (CURVE_SVG, "accuracy over cost as a picture"),
        (CURVE_CSV, "the table above, in full precision"),
        (METRICS, "loss and accuracy of each epoch"),
        (EVENTS, "the same for TensorBoard"),
        (CHECKPOINT, "the state of the run, needed only by --resume"),
    ];
    let exits: Vec<String> = (1..=exits).map(exit).collect();
    let exits = exits
        .iter()
        .map(|file| (file.as_str(), "the model that ends at this exit"));
    let mut text = format!("In {}:\n", folder.display());
    for (file, what) in files.into_iter().chain(exits) {
        text.push_str(&format!("  {file:<30}{what}\n"));
    }
    text
}

fn next(data: &str, folder: &Path, records: &[Record]) -> String {
    let program = program();
    let model = folder.join(MODEL);
    let model = model.display();
    format!(
        "Next:\n  \
         {program} predict {model} IMAGE --budget {}%\n  \
         {program} calibrate {model} --data {data} --ratios 0.35,0.6\n  \
         {program} evaluate {model} --data {data} --bn shared\n  \
         {program} train --help\n",
        budget(records)
    )
}

/// A budget in per cent: 50, or if no instance is that cheap, the next multiple
/// of five that one meets.
fn budget(records: &[Record]) -> u64 {
    let costs = || records.iter().map(|record| record.macs);
    let (lowest, highest) = (costs().min().unwrap_or(0), costs().max().unwrap_or(1));
    let percent = (100 * u128::from(lowest)).div_ceil(u128::from(highest.max(1))) as u64;
    percent.max(50).next_multiple_of(5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suggested_budget_is_one_that_is_met() {
        let records = |cheapest: u64| {
            ["full", "0@0.5"]
                .into_iter()
                .zip([1000, cheapest])
                .map(|(name, macs)| Record::unmeasured(name.parse().expect("an instance"), macs))
        };
        for (cheapest, suggested) in [(100, 50), (500, 50), (501, 55), (560, 60), (1000, 100)] {
            assert_eq!(budget(&records(cheapest).collect::<Vec<_>>()), suggested);
        }
    }
}
