//! Whole pickled modules of PyTorch, saved by `torch.save(model, path)`.

use std::collections::{BTreeMap, HashSet};

use super::pickle::{Id, Object, Value, Values};
use super::{MAX_SIDES, Part, Setting};

/// The attributes that change what PyTorch's and timm's modules compute.
const SETTINGS: [&str; 10] = [
    "ceil_mode",
    "dilation",
    "eps",
    "groups",
    "kernel_size",
    "output_size",
    "padding",
    "padding_mode",
    "pool_type",
    "stride",
];

/// The number of attributes searched. Those set by `nn.Module` come first,
/// followed by those of the subclass.
const FIRST: usize = 64;

/// Whether an object is a module, by its attributes.
pub(super) fn is_module(values: &Values<'_>, object: &Object) -> bool {
    attribute(values, object, "_modules").is_some()
        || attribute(values, object, "_parameters").is_some()
        || is_script(values, object)
}

/// The parameters, persistent buffers and submodules of a module, by name.
pub(super) fn members<'a>(values: &Values<'a>, object: &Object) -> Vec<(&'a str, Id)> {
    if is_script(values, object) {
        return object
            .state
            .map(|state| named(values, state))
            .unwrap_or_default();
    }
    let within = |name: &str| {
        let dictionary = attribute(values, object, name);
        dictionary.map(|dictionary| named(values, dictionary))
    };
    let passing = passing_buffers(values, object);
    let buffers = within("_buffers").unwrap_or_default();
    let mut all = within("_parameters").unwrap_or_default();
    all.extend(
        buffers
            .into_iter()
            .filter(|(name, _)| !passing.contains(name)),
    );
    all.extend(within("_modules").unwrap_or_default());
    all
}

/// A module without its tensors and submodules.
pub(super) fn part(values: &Values<'_>, object: &Object) -> Part {
    let class = values.class(object);
    let class = class.map(|class| format!("{}.{}", short(class.module), short(class.name)));
    let attributes = object.state.and_then(|state| values.items(state));
    let mut settings = BTreeMap::new();
    for &(key, value) in attributes.unwrap_or_default().iter().take(FIRST) {
        let known = SETTINGS
            .iter()
            .find(|&&name| text(values, key) == Some(name));
        if let Some(&name) = known {
            settings.insert(name, setting(values, value));
        }
    }
    Part {
        class: unmangled(&class.unwrap_or_else(|| "an unknown class".into())),
        settings,
        is_script: is_script(values, object),
    }
}

fn setting(values: &Values<'_>, id: Id) -> Setting {
    let number = |id: Id| match *values.get(id) {
        Value::Int(number) => Some(number as f64),
        Value::Float(number) => Some(number),
        _ => None,
    };
    match values.get(id) {
        Value::None => Setting::None,
        Value::Text(text) => Setting::Text(short(text)),
        Value::Tuple(items) | Value::List(items) if items.len() <= MAX_SIDES => {
            let numbers: Option<Vec<f64>> = items.iter().map(|&item| number(item)).collect();
            numbers.map_or(Setting::Unknown, Setting::Numbers)
        }
        _ => number(id).map_or(Setting::Unknown, |number| Setting::Numbers(vec![number])),
    }
}

/// The name of a class as Python has it: TorchScript adds a package, and numbers
/// classes of the same name.
fn unmangled(class: &str) -> String {
    let own = class.strip_prefix("__torch__.").unwrap_or(class);
    let parts = own
        .split('.')
        .filter(|part| !part.starts_with("___torch_mangle_"));
    parts.collect::<Vec<_>>().join(".")
}

/// The start of a name from a file.
fn short(name: &str) -> String {
    name.chars().take(80).collect()
}

/// The non-persistent buffers, which a state dict leaves out.
fn passing_buffers<'a>(values: &Values<'a>, object: &Object) -> HashSet<&'a str> {
    let set = attribute(values, object, "_non_persistent_buffers_set");
    match set.map(|set| values.get(set)) {
        Some(Value::List(names) | Value::Tuple(names)) => names
            .iter()
            .filter_map(|&name| text(values, name))
            .collect(),
        _ => HashSet::new(),
    }
}

/// Whether it is a module of TorchScript, whose tensors and submodules are
/// ordinary attributes.
fn is_script(values: &Values<'_>, object: &Object) -> bool {
    let class = values.class(object);
    class.is_some_and(|class| class.module.split('.').next() == Some("__torch__"))
}

fn attribute(values: &Values<'_>, object: &Object, name: &str) -> Option<Id> {
    let attributes = values.items(object.state?)?;
    let mut first = attributes.iter().take(FIRST);
    first
        .find(|&&(key, _)| text(values, key) == Some(name))
        .map(|&(_, value)| value)
}

/// The items of a dictionary whose keys are strings.
fn named<'a>(values: &Values<'a>, dictionary: Id) -> Vec<(&'a str, Id)> {
    let items = values.items(dictionary).unwrap_or_default().iter();
    items
        .filter_map(|&(key, value)| Some((text(values, key)?, value)))
        .collect()
}

fn text<'a>(values: &Values<'a>, id: Id) -> Option<&'a str> {
    match *values.get(id) {
        Value::Text(text) => Some(text),
        _ => None,
    }
}
