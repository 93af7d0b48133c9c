//! Model files that the user names.

use std::path::{Path, PathBuf};

use sdpoint::data::{Dataset, visible_name};
use sdpoint::profile::TimeSource;
use sdpoint::train::checkpoint;
use sdpoint::train::folder::MODEL;
use sdpoint::{Engine, Instance, Model, ModelError, zoo};

use crate::Machine;
use crate::failure::{Class, Failure};
use crate::output::note;
use crate::output_file::Kind;

/// Whether an argument that may be a network's name is a file's instead.
pub fn is_file(argument: &str) -> bool {
    argument.ends_with(".safetensors")
        || argument.contains(std::path::is_separator)
        || (zoo::input_size(argument).is_err() && Path::new(argument).exists())
}

/// The model file that an argument names; a run's folder stands for the
/// model in it.
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
    Model::load(&file).map_err(|error| match &error {
        ModelError::Read { .. } => no_model(&file).unwrap_or_else(|| error.into()),
        ModelError::NotSafetensors { .. }
        | ModelError::Truncated { .. }
        | ModelError::Foreign { .. } => something_else(&file).unwrap_or_else(|| error.into()),
        _ => error.into(),
    })
}

/// What to say of a folder without a model, if that is why a file is missing.
fn no_model(file: &Path) -> Option<Failure> {
    let folder = file.parent().filter(|folder| folder.is_dir())?;
    if file.file_name() != Some(MODEL.as_ref()) || file.exists() {
        return None;
    }
    let shown = folder.display();
    if folder.join(checkpoint::FILE).exists() {
        let message = format!("the run in '{shown}' has no model yet: it is not finished");
        let failure = Failure::new(Class::Files, message);
        return Some(failure.hint(format!("`sdpoint train --resume {shown}` goes on with it")));
    }
    let message = format!("the folder '{shown}' holds no model: it has no {MODEL}");
    let failure = Failure::new(Class::Files, message);
    Some(failure.hint("name a model file, or the folder of a run"))
}

/// What to say of a file that is no model, if it is known what it is.
fn something_else(file: &Path) -> Option<Failure> {
    let kind = Kind::of(file).ok()?;
    let shown = file.display();
    let import = format!("`sdpoint import {shown} --network NAME -o MODEL` makes a model of it");
    let hint = match kind {
        Kind::Checkpoint => {
            let folder = file.parent().unwrap_or(Path::new("."));
            let model = folder.join(MODEL);
            if model.exists() {
                format!("the run's model is {}", model.display())
            } else {
                format!(
                    "`sdpoint train --resume {}` finishes the run, which then has a model",
                    folder.display()
                )
            }
        }
        Kind::StateDict => format!("give the model that they were exported from, or {import}"),
        Kind::Safetensors | Kind::Torch => import,
        Kind::Onnx | Kind::ForeignOnnx => {
            "sdpoint writes ONNX files and does not read them; give the model, or the weights to \
             `sdpoint import`"
                .into()
        }
        Kind::Image(_) => "the model comes first, then the images".into(),
        Kind::Profile => "give the model that it belongs to".into(),
        Kind::Empty | Kind::Archive(_) => "give a model file, or the folder of a run".into(),
        _ => return None,
    };
    let message = format!("'{shown}' is {kind}, not a model");
    Some(Failure::new(Class::Model, message).hint(hint))
}

/// A model at work, with the times that were measured on this machine, if they lie beside its
/// file.
pub fn engine(file: &Path, model: Model, machine: &Machine) -> Result<Engine, Failure> {
    Ok(Engine::new(machine.context()?, model)?.with_profile_beside(file))
}

/// Says where times come from, if they were not measured before.
pub fn note_time_source(engine: &Engine) {
    if *engine.time_source() != TimeSource::Profile {
        note(&format!("{}.", engine.time_source()));
    }
}

/// How many images to run at once: no more than half a gigabyte of feature
/// maps, and no more than training usually takes.
pub fn batch_size(model: &Model) -> Result<usize, Failure> {
    const BYTES: u64 = 1 << 29;
    let cost = model
        .network
        .cost(model.preprocessing.size, Instance::Full)?;
    Ok((BYTES / cost.peak_bytes.max(1)).clamp(1, 128) as usize)
}

/// Names of classes that nobody has named.
pub fn numbered(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|class| class.to_string())
}

/// Refuses data with other classes than the model's: labels would mean
/// something else. A model whose classes are only numbered, as an imported
/// one may be, takes data with as many.
pub fn check_classes(model: &Model, data: &Dataset) -> Result<(), Failure> {
    if model.classes == data.classes() || only_numbered(model, data) {
        return Ok(());
    }
    let (ours, theirs) = (&model.classes, data.classes());
    let differing = std::iter::zip(ours, theirs).find(|(ours, theirs)| ours != theirs);
    let how = match differing {
        Some((one, other)) if ours.len() == theirs.len() => {
            format!(
                "one is {} in the model and {} in the data",
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
    Err(failure.hint("`sdpoint train --init MODEL` teaches a model other classes"))
}

/// Takes the data's names where the model's classes are only numbered.
pub fn name_classes(model: &mut Model, data: &Dataset) {
    if only_numbered(model, data) {
        model.classes = data.classes().to_vec();
    }
}

/// Whether the model's classes have no names and are as many as the data's.
fn only_numbered(model: &Model, data: &Dataset) -> bool {
    let count = data.classes().len();
    model.classes.len() == count && model.classes.iter().cloned().eq(numbered(count))
}

/// The instances that the user listed, or all; `full` always comes first in
/// a model.
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
