//! The cost and accuracy of instances, as text.

use sdpoint::core::{CombinedRecord, Record, Scores, format_macs, pareto};
use sdpoint::data::Dataset;
use sdpoint::train::Evaluation;

use crate::model::ClassMatch;
use crate::output::{Table, percent, plural};

/// A table of instances and combinations, with those on the Pareto frontier
/// marked.
pub fn accuracy_table(records: &[Record], combined: &[CombinedRecord]) -> String {
    table(records, combined, &[])
}

/// As [`accuracy_table`], with the expected calibration errors of all rows, if
/// there are any.
fn table(records: &[Record], combined: &[CombinedRecord], errors: &[f64]) -> String {
    let points: Vec<(u64, f64)> = records
        .iter()
        .map(|record| (record.macs, record.top1.unwrap_or(f64::NAN)))
        .chain(combined.iter().map(|record| (record.macs, record.top1)))
        .collect();
    let frontier = pareto(&points);
    let highest = records.iter().map(|record| record.macs).max().unwrap_or(1);
    let held_out = records.iter().any(|record| record.test.is_some());
    let mut table = Table::new(
        ["instance", "MACs", "share"]
            .into_iter()
            .chain(held_out.then_some("val top-1"))
            .chain(["top-1", "top-5", "loss"])
            .chain((!errors.is_empty()).then_some("ECE"))
            .chain(["frontier"]),
    );
    let mut errors = errors.iter();
    let mut row = |name: String, macs: u64, top1: Option<f64>, shown: Option<Scores>, best| {
        let accuracy =
            |value: Option<f64>| value.map_or("-".into(), |value| format!("{:.2}%", 100.0 * value));
        let loss = shown.map_or("-".into(), |scores| format!("{:.4}", scores.loss));
        let first = [
            name,
            format_macs(macs),
            percent(macs as f64 / highest as f64),
        ];
        let last = [
            accuracy(shown.map(|scores| scores.top1)),
            accuracy(shown.map(|scores| scores.top5)),
            loss,
        ];
        let val = held_out.then(|| accuracy(top1));
        let error = errors.next().map(|error| format!("{:.2}%", 100.0 * error));
        let mark = if best { "*" } else { "" }.to_owned();
        let cells = first.into_iter().chain(val).chain(last).chain(error);
        table.row(cells.chain([mark]));
    };
    let (singles, several) = frontier.split_at(records.len());
    for (record, &best) in records.iter().zip(singles) {
        let name = record.instance.to_string();
        row(name, record.macs, record.top1, record.reported(), best);
    }
    for (record, &best) in combined.iter().zip(several) {
        let (name, shown) = (record.combination.to_string(), Some(record.reported()));
        row(name, record.macs, Some(record.top1), shown, best);
    }
    let text = table.text();
    match held_out {
        true => format!(
            "{text}val top-1: on images held out of training, by which instances are chosen; the rest \
             on test images\n* on the Pareto frontier by val top-1: no instance is both cheaper and \
             more accurate\n"
        ),
        false => format!(
            "{text}* on the Pareto frontier: no instance is both cheaper and more accurate\n"
        ),
    }
}

/// The table of an evaluation, with the calibration error of each row.
pub fn measured_table(evaluation: &Evaluation) -> String {
    let errors = evaluation.details.iter();
    let errors: Vec<f64> = errors.map(|details| details.calibration_error).collect();
    table(&evaluation.records, &evaluation.combined, &errors)
}

/// The work that computing all instances together saved.
pub fn sharing(evaluation: &Evaluation) -> String {
    format!(
        "Measured on {}{}. The layers before a point were computed once for all instances, \
         which saved {} of the work: {} MACs per image instead of {}.\n",
        plural(evaluation.images, "image", "images"),
        skipped(evaluation.skipped),
        percent(evaluation.work.saved()),
        format_macs(evaluation.work.shared),
        format_macs(evaluation.work.separate),
    )
}

/// The warning about how classes were identified, as a paragraph, if there is one.
pub fn warning(classes: ClassMatch, data: &Dataset) -> String {
    let warning = classes.warning(data);
    warning.map_or(String::new(), |text| format!("\nWarning: {text}\n"))
}

/// A remark about images that were skipped because they are unreadable.
pub fn skipped(images: usize) -> String {
    match images {
        0 => String::new(),
        1 => " (1 unreadable one was skipped)".to_owned(),
        _ => format!(" ({images} unreadable ones were skipped)"),
    }
}
