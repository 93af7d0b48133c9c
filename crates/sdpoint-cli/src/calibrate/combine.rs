//! `sdpoint calibrate --cascade --ensemble`: fits combinations of instances.

use std::sync::Arc;

use sdpoint::Model;
use sdpoint::core::Combination;
use sdpoint::data::{Dataset, Split};
use sdpoint::train::{EvaluateOptions, Feed, FitOptions, Trained, fit_combinations};

use super::Args;
use crate::data::{hold_out, note_skipped, open_split, open_test};
use crate::failure::{Class, Failure, Outcome};
use crate::interrupt::Interrupt;
use crate::output::{plural, print};
use crate::output_file::Output;
use crate::progress::Display;
use crate::{MachineArgs, model, report};

pub fn run(args: &Args, mut model: Model, out: &Output, machine: &MachineArgs) -> Outcome {
    let reading = args.reading.options();
    let open = |split| -> Result<Dataset, Failure> {
        let images = open_split(&args.data, split, &reading)?;
        model::check_classes(&model, &images)?;
        Ok(images)
    };
    let (held_out, test, what) = match model.held_out {
        Some(_) => {
            let (_, held_out) = hold_out(&model, open(Split::Train)?)?;
            let held_out = held_out.expect("the model has images held out");
            (
                held_out,
                open_test(&args.data, &reading)?,
                "held-out images",
            )
        }
        None => (open(Split::Test)?, None, "test images"),
    };
    let feed = Feed::for_model(&model, &held_out)?;
    let mut display = Display::new(Interrupt::install()?, feed.batch_size);
    let instances = model::listed(&model, &[])?;
    let options = FitOptions::new(&instances)
        .with_cascades(&args.cascade)
        .with_blend(args.blend)
        .with_ensembles(&args.ensemble)
        .with_seed(args.seed);
    let network = Arc::new(model.network.clone());
    let trained = Trained {
        network: &network,
        weights: &model.weights,
        statistics: &model.statistics,
    };
    let ctx = machine.context()?;
    let mut fitted = fit_combinations(&ctx, trained, feed, options, &mut display)?;
    if let Some(test) = &test {
        let found = fitted.records.iter();
        let found: Vec<Combination> = found.map(|record| record.combination.clone()).collect();
        let options = EvaluateOptions::new(&instances).with_combinations(&found);
        let evaluation = model::evaluate(&ctx, &model, test, options, &mut display)?;
        for (record, on_test) in std::iter::zip(&mut fitted.records, &evaluation.combined) {
            record.test = Some(on_test.scores());
        }
    }
    display.finish();
    note_skipped(&test.iter().chain([&held_out]).collect::<Vec<_>>());
    if fitted.records.is_empty() {
        let problem = "no combination of the model's instances is more accurate than a single \
                       instance at this cost";
        return Err(Failure::new(Class::Instance, problem)
            .hint("allow a higher cost, or add instances with `sdpoint calibrate --ratios`"));
    }
    let costs = args.cascade.len() + args.ensemble.len();
    let without = costs - fitted.records.len();
    let lack = match without {
        0 => String::new(),
        _ => format!(
            "At {without} of the {costs} costs, no combination is more accurate than a single \
             instance, so none is stored for them.\n"
        ),
    };
    // Two costs may have the same best combination.
    fitted
        .records
        .dedup_by(|one, other| one.combination == other.combination);
    model.combinations = fitted.records;
    model.save(out.path())?;
    print(&format!(
        "{}\n{lack}Fitted {} on one half of {} {what}{} and measured on the other; the model is in {}.\n",
        report::accuracy_table(&model.instances, &model.combinations),
        plural(model.combinations.len(), "combination", "combinations"),
        fitted.images,
        report::skipped(fitted.skipped),
        out.path().display()
    ))
}
