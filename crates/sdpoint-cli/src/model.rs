//! Model files that the user names.

use std::path::{Path, PathBuf};

use sdpoint::data::Dataset;
use sdpoint::train::folder::MODEL;
use sdpoint::{Engine, Instance, Model, Profile, TimeSource, zoo};

use crate::Machine;
use crate::failure::{Class, Failure};
use crate::output::note;

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
    Ok(Model::load(file(path.as_ref()))?)
}

/// A model at work, with the times that were measured on this machine, if they lie beside its
/// file.
pub fn engine(file: &Path, model: Model, machine: &Machine) -> Result<Engine, Failure> {
    let engine = Engine::new(machine.context()?, model)?;
    Ok(engine.with_profile(Profile::load_beside(file)))
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
            format!("one is '{one}' in the model and '{other}' in the data")
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
        sdpoint::select(&model.instances, sdpoint::Budget::Instance(instance))?;
    }
    Ok(names.to_vec())
}
