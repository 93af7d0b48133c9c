//! Cost and accuracy of instances, as tables for people.

use sdpoint::select::pareto;
use sdpoint::train::Evaluation;
use sdpoint::{Record, format_macs};

use crate::output::{Table, percent};

/// The evaluated instances, those on the Pareto frontier marked.
pub fn accuracy_table(records: &[Record]) -> String {
    let points: Vec<(u64, f64)> = records
        .iter()
        .map(|record| (record.macs, record.top1.unwrap_or(f64::NAN)))
        .collect();
    let full = records.iter().map(|record| record.macs).max().unwrap_or(1);
    let mut table = Table::new([
        "instance", "MACs", "share", "top-1", "top-5", "loss", "frontier",
    ]);
    for (record, on_frontier) in records.iter().zip(pareto(&points)) {
        let accuracy =
            |value: Option<f64>| value.map_or("-".into(), |value| format!("{:.2}%", 100.0 * value));
        table.row([
            record.instance.to_string(),
            format_macs(record.macs),
            percent(record.macs as f64 / full as f64),
            accuracy(record.top1),
            accuracy(record.top5),
            record.loss.map_or("-".into(), |loss| format!("{loss:.4}")),
            if on_frontier { "*" } else { "" }.into(),
        ]);
    }
    format!(
        "{}* on the Pareto frontier: no instance is both cheaper and more accurate\n",
        table.text()
    )
}

/// What computing all instances together saved.
pub fn sharing(evaluation: &Evaluation) -> String {
    format!(
        "Measured on {} images. The layers before a point were computed once for all instances, \
         which saved {} of the work: {} MACs an image instead of {}.\n",
        evaluation.images,
        percent(evaluation.work.saved()),
        format_macs(evaluation.work.shared),
        format_macs(evaluation.work.separate),
    )
}
