//! The cost and accuracy of instances, as text.

use sdpoint::core::{CombinedRecord, Record, format_macs, pareto};
use sdpoint::data::Dataset;
use sdpoint::train::Evaluation;

use crate::model::ClassMatch;
use crate::output::{Table, percent};

/// A table of instances and combinations, with those on the Pareto frontier
/// marked.
pub fn accuracy_table(records: &[Record], combined: &[CombinedRecord]) -> String {
    let points: Vec<(u64, f64)> = records
        .iter()
        .map(|record| (record.macs, record.top1.unwrap_or(f64::NAN)))
        .chain(combined.iter().map(|record| (record.macs, record.top1)))
        .collect();
    let frontier = pareto(&points);
    let highest = records.iter().map(|record| record.macs).max().unwrap_or(1);
    let mut table = Table::new([
        "instance", "MACs", "share", "top-1", "top-5", "loss", "frontier",
    ]);
    let mut row = |name: String, macs: u64, [top1, top5, loss]: [Option<f64>; 3], best: bool| {
        let accuracy =
            |value: Option<f64>| value.map_or("-".into(), |value| format!("{:.2}%", 100.0 * value));
        table.row([
            name,
            format_macs(macs),
            percent(macs as f64 / highest as f64),
            accuracy(top1),
            accuracy(top5),
            loss.map_or("-".into(), |loss| format!("{loss:.4}")),
            if best { "*" } else { "" }.into(),
        ]);
    };
    let (singles, several) = frontier.split_at(records.len());
    for (record, &best) in records.iter().zip(singles) {
        let measured = [record.top1, record.top5, record.loss];
        row(record.instance.to_string(), record.macs, measured, best);
    }
    for (record, &best) in combined.iter().zip(several) {
        let measured = [record.top1, record.top5, record.loss].map(Some);
        row(record.combination.to_string(), record.macs, measured, best);
    }
    format!(
        "{}* on the Pareto frontier: no instance is both cheaper and more accurate\n",
        table.text()
    )
}

/// The work that computing all instances together saved.
pub fn sharing(evaluation: &Evaluation) -> String {
    format!(
        "Measured on {} images{}. The layers before a point were computed once for all instances, \
         which saved {} of the work: {} MACs per image instead of {}.\n",
        evaluation.images,
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
