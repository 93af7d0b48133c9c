//! Cascades and ensembles for a trained model.

use std::sync::Arc;

use sdpoint::Model;
use sdpoint::data::Split;
use sdpoint::train::{Feed, Wanted, fit_combinations};

use super::Args;
use crate::data::{note_skipped, open_split};
use crate::failure::{Class, Failure, Outcome};
use crate::interrupt::Interrupt;
use crate::output::{plural, print};
use crate::output_file::Output;
use crate::progress::Display;
use crate::{Machine, model, report};

pub fn run(args: &Args, mut model: Model, out: &Output, machine: &Machine) -> Outcome {
    let held_out = open_split(&args.data, Split::Test, &args.reading.options())?;
    model::check_classes(&model, &held_out)?;
    let batch_size = model::batch_size(&model)?;
    let mut display = Display::new(Interrupt::install()?, batch_size);
    let wanted = Wanted {
        cascades: args.cascade.clone(),
        ensembles: args.ensemble.clone(),
    };
    let fitted = fit_combinations(
        &machine.context()?,
        &Arc::new(model.network.clone()),
        &model.weights,
        &model.statistics,
        &model::listed(&model, &[])?,
        Feed {
            data: &held_out,
            preprocessing: &model.preprocessing,
            batch_size,
        },
        args.seed,
        &wanted,
        &mut display,
    );
    display.finish();
    let fitted = fitted?;
    note_skipped(&[&held_out]);
    if fitted.records.is_empty() {
        let problem = "no combination of the model's instances is better than a single one \
                       at such a cost";
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
