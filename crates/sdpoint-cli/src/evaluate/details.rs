//! `evaluate --per-class --confusion`: classes, and the calibration of
//! confidences.

use std::path::Path;

use sdpoint::train::{ClassCounts, Details, Evaluation, MAX_PICTURED_CLASSES};
use sdpoint::{Instance, Model};
use serde::Serialize;

use crate::failure::{Class, Failure};
use crate::instances::Selection;
use crate::output::{Table, name};
use crate::output_file::Kind;

/// Details in the JSON output.
#[derive(Serialize)]
pub struct DetailsRow {
    /// The expected calibration error.
    ece: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    per_class: Option<Vec<ClassRow>>,
}

/// A class in the JSON output.
#[derive(Serialize)]
struct ClassRow {
    class: String,
    images: u64,
    predicted: u64,
    correct: u64,
    recall: Option<f64>,
    precision: Option<f64>,
}

impl DetailsRow {
    pub fn new(details: &Details, names: &[String], per_class: bool) -> Self {
        let row = |(name, counts): (&String, &ClassCounts)| ClassRow {
            class: name.clone(),
            images: counts.images,
            predicted: counts.predicted,
            correct: counts.correct,
            recall: counts.recall(),
            precision: counts.precision(),
        };
        let rows = || std::iter::zip(names, &details.classes).map(row).collect();
        Self {
            ece: details.calibration_error,
            per_class: per_class.then(rows),
        }
    }
}

/// The share of each class's images that instances recognise: of those that
/// were named, or of `full` and the cheapest.
pub fn class_table(model: &Model, evaluation: &Evaluation, selected: &Selection) -> String {
    let records = || evaluation.records.iter().enumerate();
    let columns: Vec<usize> = match selected.names() {
        [] => {
            let cheapest = records().min_by_key(|(_, record)| record.macs);
            let full = records().find(|(_, record)| record.instance == Instance::Full);
            let mut columns: Vec<usize> = full.into_iter().chain(cheapest).map(|c| c.0).collect();
            columns.dedup();
            columns
        }
        _ => records().map(|(index, _)| index).collect(),
    };
    let titles: Vec<String> = columns
        .iter()
        .map(|&index| evaluation.records[index].instance.to_string())
        .collect();
    let titles = titles.iter().map(String::as_str);
    let mut table = Table::new(["class", "images"].into_iter().chain(titles));
    for (class, title) in model.classes.iter().enumerate() {
        let counts = |index: usize| evaluation.details[index].classes.get(class).copied();
        let images = columns.first().and_then(|&index| counts(index));
        let images = images.unwrap_or_default().images.to_string();
        let recall = columns.iter().map(|&index| {
            let recall = counts(index).unwrap_or_default().recall();
            recall.map_or("-".into(), |share| format!("{:.2}%", 100.0 * share))
        });
        table.row([name(title).into_owned(), images].into_iter().chain(recall));
    }
    format!(
        "{}share of the images of each class that is recognised\n\n",
        table.text()
    )
}

/// Whether the confusion matrix is to be written as a picture.
pub fn is_picture(path: &Path) -> bool {
    let end = path.extension();
    end.is_some_and(|end| end.eq_ignore_ascii_case("svg"))
}

/// The kind of the file with the confusion matrix.
pub fn confusion_kind(path: Option<&Path>) -> Result<Kind, Failure> {
    let Some(path) = path else {
        return Ok(Kind::Confusion);
    };
    let end = path.extension();
    // Devices have no ending.
    let is_table = end.is_none_or(|end| end.eq_ignore_ascii_case("csv"));
    match (is_picture(path), is_table) {
        (true, _) => Ok(Kind::Picture),
        (_, true) => Ok(Kind::Confusion),
        _ => Err(Failure::new(
            Class::Usage,
            format!(
                "--confusion '{}': the name must end in .csv or .svg",
                path.display()
            ),
        )),
    }
}

/// The instance whose confusion matrix is written.
pub fn confused(model: &Model, selected: &Selection, path: &Path) -> Result<Instance, Failure> {
    let classes = model.classes.len();
    if is_picture(path) && classes > MAX_PICTURED_CLASSES {
        return Err(Failure::new(
            Class::Usage,
            format!(
                "a picture has room for {MAX_PICTURED_CLASSES} classes, but the model has {classes}"
            ),
        )
        .hint("a name that ends in .csv gives a table"));
    }
    match selected.names() {
        [] => Ok(Instance::Full),
        &[instance] => Ok(instance),
        _ => Err(Failure::new(
            Class::Usage,
            "--confusion is for one instance, but --instances names several",
        )),
    }
}
