//! Model files on the command line.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sdpoint::data::{Dataset, visible_name};
use sdpoint::profile::TimeSource;
use sdpoint::train::folder::{CHECKPOINT, MODEL};
use sdpoint::train::{self, EvaluateOptions, Evaluation, Feed, Observer, Trained};
use sdpoint::{Context, Engine, Instance, LoadError, Model, ModelError, zoo};
use serde::Serialize;

use crate::MachineArgs;
use crate::failure::{Class, Failure};
use crate::output::note;
use crate::output_file::Kind;

/// Whether an argument is a file, not the name of a network.
pub fn is_file(argument: &str) -> bool {
    argument.ends_with(".safetensors")
        || argument.contains(std::path::is_separator)
        || (zoo::input_size(argument).is_err() && Path::new(argument).exists())
}

/// The model file of an argument, which may be the folder of a run.
pub fn file(path: &Path) -> PathBuf {
    if path.is_dir() {
        path.join(MODEL)
    } else {
        path.to_owned()
    }
}

/// Reads a model.
pub fn load(path: impl AsRef<Path>) -> Result<Model, Failure> {
    let path = path.as_ref();
    let file = file(path);
    Model::load(&file).map_err(|error| unreadable(&file, error))
}

/// The failure of a file that cannot be read as a model, which says what it is instead.
fn unreadable(file: &Path, error: ModelError) -> Failure {
    match &error {
        ModelError::Read { .. } => no_model(file).unwrap_or_else(|| error.into()),
        ModelError::NotSafetensors { .. }
        | ModelError::Truncated { .. }
        | ModelError::Foreign { .. } => something_else(file).unwrap_or_else(|| error.into()),
        _ => error.into(),
    }
}

/// The failure of a run or a folder without a model, if a file is missing for
/// that reason.
fn no_model(file: &Path) -> Option<Failure> {
    let folder = file.parent().filter(|folder| folder.is_dir())?;
    if file.file_name() != Some(MODEL.as_ref()) || file.exists() {
        return None;
    }
    let shown = folder.display();
    if folder.join(CHECKPOINT).exists() {
        let message = format!("the run in '{shown}' has no model yet: it is not finished");
        let failure = Failure::new(Class::Files, message);
        return Some(failure.hint(format!("`sdpoint train --resume {shown}` continues it")));
    }
    let message = format!("the folder '{shown}' holds no model: it has no {MODEL}");
    let failure = Failure::new(Class::Files, message);
    Some(failure.hint("give a model file, or the folder of a run"))
}

/// The failure of a file that is not a model, if its kind is known.
fn something_else(file: &Path) -> Option<Failure> {
    let kind = Kind::of(file).ok()?;
    let shown = file.display();
    let import = format!("`sdpoint import {shown} --network NAME -o MODEL` converts it to a model");
    let hint = match kind {
        Kind::Checkpoint => {
            let folder = file.parent().unwrap_or(Path::new("."));
            let model = folder.join(MODEL);
            if model.exists() {
                format!("the run's model is {}", model.display())
            } else {
                format!(
                    "`sdpoint train --resume {}` finishes the run, which writes the model",
                    folder.display()
                )
            }
        }
        Kind::StateDict => format!("give the model that they were exported from, or {import}"),
        Kind::Safetensors | Kind::Torch => import,
        Kind::Onnx | Kind::ForeignOnnx => {
            "sdpoint writes ONNX files but does not read them; give the model, or the weights to \
             `sdpoint import`"
                .into()
        }
        Kind::Image(_) => "the model comes first, then the images".into(),
        Kind::Profile => "give the model that it belongs to".into(),
        Kind::Metrics
        | Kind::Events
        | Kind::Module
        | Kind::Manifest
        | Kind::Table
        | Kind::Confusion
        | Kind::Logits
        | Kind::Picture
        | Kind::Report
        | Kind::Edited(_)
        | Kind::Empty
        | Kind::Archive(_)
        | Kind::Text => "give a model file, or the folder of a run".into(),
        Kind::Model | Kind::ImportedModel | Kind::Other => return None,
    };
    let message = format!("'{shown}' is {kind}, not a model");
    Some(Failure::new(Class::Model, message).hint(hint))
}

/// Loads a model for inference, with the latency profile next to its file.
pub fn engine(file: &Path, machine: &MachineArgs) -> Result<Engine, Failure> {
    Engine::load_with(machine.context()?, file).map_err(|error| match error {
        LoadError::Model(error) => unreadable(file, error),
        error => error.into(),
    })
}

/// Prints the source of latencies, unless it is a profile of this machine.
pub fn note_time_source(engine: &Engine) {
    if *engine.time_source() != TimeSource::Profile {
        note(&format!("{}.", engine.time_source()));
    }
}

/// Measures a model on test images.
pub fn evaluate(
    ctx: &Arc<Context>,
    model: &Model,
    test: &Dataset,
    options: EvaluateOptions<'_>,
    observer: &mut dyn Observer,
) -> Result<Evaluation, Failure> {
    let trained = Trained {
        network: &Arc::new(model.network.clone()),
        weights: &model.weights,
        statistics: &model.statistics,
    };
    let feed = Feed::for_model(model, test)?;
    Ok(train::evaluate(ctx, trained, feed, options, observer)?)
}

/// Numbers as names, for classes without names.
pub fn numbered(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|class| class.to_string())
}

/// How the classes of data were identified with those of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ClassMatch {
    /// They have the same names.
    Names,
    /// The model's are only numbered: the data's are taken in their order.
    Order,
}

impl ClassMatch {
    /// A warning about classes that were identified by their order.
    pub fn warning(self, data: &Dataset) -> Option<String> {
        const SHOWN: usize = 5;
        if self == Self::Names {
            return None;
        }
        let classes = data.classes();
        let pairs = classes.iter().enumerate().take(SHOWN);
        let pairs: Vec<String> = pairs
            .map(|(number, name)| format!("{number} is {}", visible_name(name)))
            .collect();
        let more = match classes.len().saturating_sub(SHOWN) {
            0 => "",
            _ => " and so on",
        };
        Some(format!(
            "The model's classes are only numbers. The classes of the data are taken in their \
             order: {}{more}. If the model was trained in another order, accuracies measured with \
             these images are wrong.",
            pairs.join(", ")
        ))
    }
}

/// Refuses data whose classes are not the model's: its labels would have
/// another meaning. If the model's classes are only numbered, as after an
/// import, their number must match; that the order decides is reported.
pub fn check_classes(model: &Model, data: &Dataset) -> Result<ClassMatch, Failure> {
    if model.classes == data.classes() {
        return Ok(ClassMatch::Names);
    }
    if only_numbered(model, data) {
        let found = ClassMatch::Order;
        if let Some(warning) = found.warning(data) {
            note(&warning);
        }
        return Ok(found);
    }
    let (ours, theirs) = (&model.classes, data.classes());
    let differing = std::iter::zip(ours, theirs).find(|(ours, theirs)| ours != theirs);
    let how = match differing {
        Some((one, other)) if ours.len() == theirs.len() => {
            format!(
                "one is {} in the model but {} in the data",
                visible_name(one),
                visible_name(other)
            )
        }
        _ => format!("{} in the model, {} in the data", ours.len(), theirs.len()),
    };
    let failure = Failure::new(
        Class::Data,
        format!(
            "the classes of {} are not the model's: {how}",
            data.source()
        ),
    );
    Err(failure.hint(match same_numbers(model, data) {
        true => {
            "the model's classes are the same numbers in another order; if they are positions, not \
             names, `sdpoint import --classes` names them in the order of the data"
        }
        false => "`sdpoint train --init MODEL` trains a model for other classes",
    }))
}

/// Whether the model's classes are numbered, and the data has classes of these
/// names in another order, as folders are sorted: 0, 1, 10, 2.
fn same_numbers(model: &Model, data: &Dataset) -> bool {
    let names: HashSet<&String> = model.classes.iter().collect();
    model
        .classes
        .iter()
        .cloned()
        .eq(numbered(model.classes.len()))
        && model.classes.len() == data.classes().len()
        && data.classes().iter().all(|class| names.contains(class))
}

/// Names the model's classes after the data's if they are only numbered.
pub fn name_classes(model: &mut Model, data: &Dataset) {
    if only_numbered(model, data) {
        model.classes = data.classes().to_vec();
    }
}

/// Whether the model's classes are only numbered, and match the data's in
/// number.
fn only_numbered(model: &Model, data: &Dataset) -> bool {
    let count = data.classes().len();
    model.classes.len() == count
        && model.classes.iter().cloned().eq(numbered(count))
        && !same_numbers(model, data)
}

/// The instances that the user listed, or all of the model, `full` first.
pub fn listed(model: &Model, names: &[Instance]) -> Result<Vec<Instance>, Failure> {
    if names.is_empty() {
        return Ok(model
            .instances
            .iter()
            .map(|record| record.instance)
            .collect());
    }
    for &instance in names {
        sdpoint::core::select(&model.instances, sdpoint::Budget::Instance(instance))?;
    }
    Ok(names.to_vec())
}
