//! `sdpoint calibrate --cascade --ensemble`: fits combinations of instances.

use std::sync::Arc;

use sdpoint::Model;
use sdpoint::data::Split;
use sdpoint::train::{Feed, FitOptions, Trained, fit_combinations};

use super::Args;
use crate::data::{note_skipped, open_split};
use crate::failure::{Class, Failure, Outcome};
use crate::interrupt::Interrupt;
use crate::output::{plural, print};
use crate::output_file::Output;
use crate::progress::Display;
use crate::{MachineArgs, model, report};

pub fn run(args: &Args, mut model: Model, out: &Output, machine: &MachineArgs) -> Outcome {
    let held_out = open_split(&args.data, Split::Test, &args.reading.options())?;
    model::check_classes(&model, &held_out)?;
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
    let fitted = fit_combinations(&ctx, trained, feed, options, &mut display);
    display.finish();
    let fitted = fitted?;
    note_skipped(&[&held_out]);
    if fitted.records.is_empty() {
        let problem = "no combination of the model's instances is more accurate than a single \
                       instance at this cost";
        return Err(Failure::new(Class::Instance, problem)
            .hint("allow a higher cost, or add instances with `sdpoint calibrate --ratios`"));
    }
    model.combinations = fitted.records;
    model.save(out.path())?;
    print(&format!(
        "{}\nFitted {} on one half of {} test images{} and measured on the other; the model is in \
         {}.\n",
        report::accuracy_table(&model.instances, &model.combinations),
        plural(model.combinations.len(), "combination", "combinations"),
        fitted.images,
        report::skipped(fitted.skipped),
        out.path().display()
    ))
}
