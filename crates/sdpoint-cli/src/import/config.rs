//! The `config.json` that timm stores next to the weights.
//!
//! Names and shapes of tensors do not determine what a network computes. This
//! file does, so networks that sdpoint cannot compute are refused.

use std::path::{Path, PathBuf};

use sdpoint::core::file::{self, FileError};
use sdpoint::core::{EvalTransform, Interpolation, Preprocessing};
use sdpoint::data::imagenet_preprocessing;
use sdpoint::zoo;
use serde_json::{Map, Value};

use crate::failure::{Class, Failure};
use crate::output::plural;
use crate::text;

/// The maximum size of a configuration, in bytes.
const MAX_BYTES: u64 = 4 << 20;

/// The networks of timm that sdpoint computes, with the same names.
const NETWORKS: [&str; 7] = [
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x4d",
];

/// The channels of images.
const CHANNELS: u64 = 3;

/// The hint for weights of another network: there is no way around it.
const WRONG: &str = "in a different network, the weights would give wrong predictions";

/// The hint for a file that cannot be understood.
const IGNORE: &str = "correct it, or give --no-config to import the weights without this file";

/// The hint for a way of resizing that sdpoint does not have.
const RESIZING: &str =
    "to resize in another way than the file says, give --resize-mode, and --resize if necessary";

/// Prefixes and a suffix of older names that timm gave to [`NETWORKS`].
const OLD_PREFIXES: [&str; 5] = ["tv_", "gluon_", "ssl_", "swsl_", "legacy_tv_"];
const OLD_SUFFIX: &str = "_v1b";

/// Settings that change what a network computes, each with the values that
/// sdpoint supports, if any.
#[rustfmt::skip]
const COMPUTATION: [(&str, &[&str]); 14] = [
    ("aa_layer", &[]),
    ("act_layer", &["relu"]),
    ("attn_layer", &[]),
    ("avg_down", &["false"]),
    ("block", &[]),
    ("block_args", &["{}"]),
    ("block_reduce_first", &["1"]),
    ("down_kernel_size", &["1"]),
    ("features_only", &["false"]),
    ("global_pool", &["avg"]),
    ("norm_layer", &["batchnorm2d", "batchnorm"]),
    ("output_stride", &["32"]),
    ("replace_stem_pool", &["false"]),
    ("stem_type", &[]),
];

/// Settings that affect only training, or that the tensors show.
const HARMLESS: [&str; 13] = [
    "base_width",
    "cardinality",
    "channels",
    "checkpoint_path",
    "drop_block_rate",
    "drop_path_rate",
    "drop_rate",
    "exportable",
    "in_chans",
    "layers",
    "num_classes",
    "stem_width",
    "zero_init_last",
];

/// The contents of a `config.json`.
pub struct Config {
    path: PathBuf,
    /// The network, as listed.
    pub network: &'static str,
    /// The number of classes.
    pub classes: Option<u64>,
    /// The names of the classes, in the order of the logits.
    pub labels: Option<Vec<String>>,
    images: Map<String, Value>,
}

impl Config {
    /// Reads a configuration; `None` if the file is that of something else.
    pub fn read(path: &Path) -> Result<Option<Self>, Failure> {
        let Value::Object(mut all) = parsed(path)? else {
            return Err(unreadable(path, "it holds no JSON object"));
        };
        refuse_transformers(path, &all)?;
        let architecture = match all.get("architecture") {
            None => return Ok(None),
            Some(_) => text_of(&all, "architecture")
                .filter(|name| !name.is_empty())
                .ok_or_else(|| invalid(path, "architecture", all.get("architecture")))?,
        };
        let network = network_of(&architecture).ok_or_else(|| {
            refused(
                path,
                &format!(
                    "that the network is timm's {architecture}, which sdpoint does not support"
                ),
            )
        })?;
        let images = match all.remove("pretrained_cfg") {
            Some(Value::Object(images)) => images,
            // Older files have all settings in one object.
            _ => all.clone(),
        };
        let arguments = match all.remove("model_args") {
            Some(Value::Object(arguments)) => arguments,
            _ => Map::new(),
        };
        for settings in [&all, &images, &arguments] {
            check(path, settings)?;
            check_channels(path, settings)?;
        }
        let unknown = arguments.iter().find(|(name, value)| {
            let known = HARMLESS.contains(&&name[..]) || COMPUTATION.iter().any(|(k, _)| k == name);
            !known && !value.is_null()
        });
        if let Some((name, value)) = unknown {
            let what = format!("{name}: {}, which sdpoint does not know", brief(value));
            return Err(refused(path, &what));
        }
        let setting = |name: &str| {
            let value = all.get(name).or_else(|| images.get(name));
            value.filter(|value| !value.is_null()).cloned()
        };
        let classes = setting("num_classes").map(|classes| {
            whole(&classes).ok_or_else(|| invalid(path, "num_classes", Some(&classes)))
        });
        let labels = setting("label_names").map(|names| {
            let labels = serde_json::from_value(names.clone());
            labels.map_err(|_| invalid(path, "label_names", Some(&names)))
        });
        Ok(Some(Self {
            path: path.to_owned(),
            network,
            classes: classes.transpose()?,
            labels: labels.transpose()?,
            images,
        }))
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The preprocessing, with defaults for missing settings. `resized` is whether
    /// the user has set how images are resized.
    pub fn preprocessing(&self, resized: bool) -> Result<Preprocessing, Failure> {
        let mut preprocessing = imagenet_preprocessing();
        let images = &self.images;
        let wrong = |name: &str| invalid(&self.path, name, images.get(name));
        if let Some(size) = images.get("input_size").filter(|size| !size.is_null()) {
            match sides(size).as_deref() {
                Some(&[CHANNELS, height, width]) => {
                    preprocessing = preprocessing.with_size([height, width].map(|s| s as usize))
                }
                _ => return Err(wrong("input_size")),
            }
        }
        for (name, values) in [
            ("mean", &mut preprocessing.mean),
            ("std", &mut preprocessing.std),
        ] {
            if let Some(numbers) = images.get(name).filter(|numbers| !numbers.is_null()) {
                let numbers = numbers.as_array().ok_or_else(|| wrong(name))?.iter();
                let numbers = numbers.map(|number| Some(number.as_f64()? as f32));
                *values = numbers.collect::<Option<_>>().ok_or_else(|| wrong(name))?;
            }
        }
        if let Some(value) = images.get("interpolation").filter(|value| !value.is_null()) {
            let filter = value.as_str().ok_or_else(|| wrong("interpolation"))?;
            let mut filters = Interpolation::ALL.into_iter();
            let found = filters.find(|known| known.name() == filter);
            preprocessing.interpolation = found.ok_or_else(|| {
                let filter = brief(value);
                let what = format!("interpolation: {filter}, which sdpoint does not support");
                Failure::new(Class::Model, says(&self.path, &what)).hint(
                    "to use another filter than the file's, give --interpolation FILTER; \
                     --no-config ignores the whole file",
                )
            })?;
        } else {
            // The default of timm.
            preprocessing.interpolation = Interpolation::Bicubic;
        }
        if !resized {
            preprocessing.evaluate = self.crop(preprocessing.size)?;
        }
        Ok(preprocessing)
    }

    /// timm resizes to `floor(input / crop_pct)` before the crop.
    fn crop(&self, size: [usize; 2]) -> Result<EvalTransform, Failure> {
        /// The default of timm.
        const USUAL: f64 = 0.875;
        let part = match self.images.get("crop_pct") {
            None | Some(Value::Null) => USUAL,
            Some(part) => part
                .as_f64()
                .ok_or_else(|| invalid(&self.path, "crop_pct", Some(part)))?,
        };
        if !(part > 0.0 && part <= 1.0) {
            let what = format!("a crop_pct of {part}, which is not between 0 and 1");
            return Err(Failure::new(Class::Model, says(&self.path, &what)).hint(RESIZING));
        }
        let resize = size.map(|side| (side as f64 / part).floor() as usize);
        let mode = match self.images.get("crop_mode") {
            None | Some(Value::Null) => String::new(),
            mode => text_of(&self.images, "crop_mode")
                .ok_or_else(|| invalid(&self.path, "crop_mode", mode))?,
        };
        match &mode[..] {
            "" | "center" if resize[0] == resize[1] => {
                Ok(EvalTransform::CenterCrop { resize: resize[0] })
            }
            "squash" if resize == size => Ok(EvalTransform::Resize),
            "squash" => Ok(EvalTransform::SquashCrop { resize }),
            "" | "center" => {
                let what =
                    "an input that is not square, for which timm has a special way of resizing";
                Err(Failure::new(Class::Model, says(&self.path, what)).hint(RESIZING))
            }
            mode => {
                let what = format!("the crop_mode '{mode}', which sdpoint does not support");
                Err(Failure::new(Class::Model, says(&self.path, &what)).hint(RESIZING))
            }
        }
    }
}

/// Networks of timm with the tensor names and shapes of a listed one, and how
/// their computation differs.
const SAME_TENSORS: [(&str, &str); 2] = [
    ("resnetblur", "blur pooling"),
    ("resnetaa", "average pooling against aliasing"),
];

/// Refuses a checkpoint that says that its network computes something else than the
/// listed one with the same tensors, which is `network` if that is known. Any other name
/// decides nothing: the tensors do.
pub fn check_architecture(path: &Path, said: &str, network: Option<&str>) -> Result<(), Failure> {
    let name = plain(said);
    let is_of = |other: &str| {
        let rest = name.strip_prefix(other);
        rest.is_some_and(|rest| network.is_none_or(|network| network == format!("resnet{rest}")))
    };
    match SAME_TENSORS.iter().find(|(other, _)| is_of(other)) {
        None => Ok(()),
        Some((_, what)) => {
            let path = path.display();
            let message = format!(
                "'{path}' cannot be imported: it calls its network '{said}', which has {what}; \
                 sdpoint does not support it"
            );
            let hint = "--no-config ignores the name in the file; if it is right, predictions \
                        will be wrong";
            Err(Failure::new(Class::Model, message).hint(hint))
        }
    }
}

/// The name of an architecture without the hub's and timm's additions:
/// `timm/resnet50.a1_in1k` is `resnet50`.
fn plain(said: &str) -> String {
    let name = said.rsplit('/').next().unwrap_or(said);
    let name = name.split('.').next().unwrap_or(name);
    name.to_lowercase()
}

/// The listed network that a checkpoint's own name for its network is probably of.
pub fn listed(said: &str) -> Option<String> {
    let name = plain(said);
    match network_of(&name) {
        Some(network) => Some(network.into()),
        None => zoo::input_size(&name).is_ok().then_some(name),
    }
}

/// The listed network of an architecture of timm.
fn network_of(architecture: &str) -> Option<&'static str> {
    // Drop the tag of the weights.
    let name = architecture.split('.').next()?;
    let name = OLD_PREFIXES
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix))
        .unwrap_or(name);
    let name = name.strip_suffix(OLD_SUFFIX).unwrap_or(name);
    if name == "mobilenetv2_100" {
        return Some("mobilenet_v2");
    }
    NETWORKS.into_iter().find(|&network| network == name)
}

/// Refuses the configuration of a network of Hugging Face transformers.
fn refuse_transformers(path: &Path, all: &Map<String, Value>) -> Result<(), Failure> {
    const WRAPPER: &str = "timm_wrapper";
    match text_of(all, "model_type") {
        Some(kind) if kind != WRAPPER => Err(refused(
            path,
            &format!("that this is a '{kind}' of Hugging Face transformers"),
        )
        .hint("weights of ResNets from timm and torchvision can be imported")),
        _ => Ok(()),
    }
}

/// Refuses settings that sdpoint does not support.
fn check(path: &Path, settings: &Map<String, Value>) -> Result<(), Failure> {
    for (name, allowed) in COMPUTATION {
        let Some(value) = settings.get(name) else {
            continue;
        };
        let text = match value {
            Value::Null => continue,
            Value::String(text) if text.is_empty() => continue,
            Value::String(text) => text.to_lowercase(),
            value => value.to_string(),
        };
        if !allowed.contains(&&text[..]) {
            let what = format!("{name}: {}, which sdpoint does not support", brief(value));
            return Err(refused(path, &what));
        }
    }
    Ok(())
}

/// Refuses images of other channels than red, green and blue.
fn check_channels(path: &Path, settings: &Map<String, Value>) -> Result<(), Failure> {
    let inputs = settings.get("input_size").and_then(sides);
    let channels = settings.get("in_chans").and_then(whole);
    let other = inputs
        .filter(|sides| sides.len() == 3)
        .map(|sides| sides[0])
        .into_iter()
        .chain(channels)
        .find(|&channels| channels != CHANNELS);
    match other {
        // Sides in another order, such as height, width and channels.
        None | Some(5..) => Ok(()),
        Some(channels) => {
            let grey = if channels == 1 { " (grey)" } else { "" };
            let what = format!(
                "that images have {}{grey}, which sdpoint does not support: images have 3, RGB",
                plural(channels as usize, "channel", "channels")
            );
            Err(Failure::new(Class::Model, says(path, &what))
                .hint("train the network on RGB images, or repeat the grey channel three times"))
        }
    }
}

/// The sides of an `input_size`, if all are whole numbers.
fn sides(size: &Value) -> Option<Vec<u64>> {
    size.as_array()?.iter().map(whole).collect()
}

/// A number without a fraction, also if it is written as a float: 224.0.
fn whole(value: &Value) -> Option<u64> {
    /// Floats are exact up to here.
    const MOST: f64 = (1u64 << 53) as f64;
    value.as_u64().or_else(|| {
        let number = value.as_f64()?;
        ((0.0..=MOST).contains(&number) && number.fract() == 0.0).then_some(number as u64)
    })
}

/// The failure of a network that sdpoint does not compute.
fn refused(path: &Path, what: &str) -> Failure {
    Failure::new(Class::Model, says(path, what)).hint(WRONG)
}

/// The failure of a setting that does not have the right form.
fn invalid(path: &Path, name: &str, value: Option<&Value>) -> Failure {
    let message = format!(
        "'{}' has an invalid '{name}': {}",
        path.display(),
        brief(value.unwrap_or(&Value::Null))
    );
    Failure::new(Class::Model, message).hint(IGNORE)
}

/// The failure of a file that cannot be understood.
fn unreadable(path: &Path, problem: &str) -> Failure {
    let message = format!("'{}' cannot be read: {problem}", path.display());
    Failure::new(Class::Model, message).hint(IGNORE)
}

/// The failure of numbers for the preprocessing that cannot be right.
pub fn implausible(path: &Path, problem: &str) -> Failure {
    let message = format!("'{}' has invalid preprocessing: {problem}", path.display());
    Failure::new(Class::Model, message)
}

fn says(path: &Path, what: &str) -> String {
    format!("'{}' says {what}", path.display())
}

/// The value in a file of JSON, as Python writes it.
fn parsed(path: &Path) -> Result<Value, Failure> {
    let text = match file::read(path, MAX_BYTES) {
        Ok(bytes) => text::decode(&bytes),
        Err(FileError::TooLarge(_)) => Err(format!("it has more than {MAX_BYTES} bytes")),
        Err(error) => {
            let error = std::io::Error::from(error);
            let message = format!("cannot read '{}': {error}", path.display());
            return Err(Failure::io(message, error.kind()).hint(IGNORE));
        }
    };
    let value = text.and_then(|text| {
        serde_json::from_str(&with_quoted_nan(&text)).map_err(|error| match error.is_eof() {
            true => "it ends within its JSON: it is truncated".into(),
            false => format!("it is not JSON: {error}"),
        })
    });
    value.map_err(|problem| unreadable(path, &problem))
}

/// JSON with strings for the `NaN`, `Infinity` and `-Infinity` that Python writes. A
/// setting that must be a number is invalid then.
fn with_quoted_nan(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(place) = rest.find(['"', 'N', 'I', '-']) {
        let (before, from) = rest.split_at(place);
        out.push_str(before);
        let number = [
            ("NaN", r#""NaN""#),
            ("Infinity", r#""Infinity""#),
            ("-Infinity", r#""-Infinity""#),
        ]
        .into_iter()
        .find(|(number, _)| from.starts_with(number));
        let (taken, written) = match number {
            Some((number, quoted)) => (number.len(), quoted),
            None if from.starts_with('"') => {
                let end = string_end(from);
                (end, &from[..end])
            }
            None => (1, &from[..1]),
        };
        out.push_str(written);
        rest = &from[taken..];
    }
    out + rest
}

/// The length of the JSON string at the start of a text.
fn string_end(text: &str) -> usize {
    let mut escaped = false;
    for (place, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return place + 1,
            _ => {}
        }
    }
    text.len()
}

fn text_of(settings: &Map<String, Value>, name: &str) -> Option<String> {
    let text = settings.get(name)?.as_str()?;
    Some(text.chars().take(80).collect())
}

/// A value, shortened.
fn brief(value: &Value) -> String {
    value.to_string().chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn architectures_of_timm_map_to_listed_networks() {
        for (name, network) in [
            ("resnet50.a1_in1k", Some("resnet50")),
            ("tv_resnet34", Some("resnet34")),
            ("gluon_resnet18_v1b", Some("resnet18")),
            ("swsl_resnext101_32x4d", Some("resnext101_32x4d")),
            ("resnet18d", None),
            ("resnetblur18", None),
            ("resnet", None),
            ("", None),
        ] {
            assert_eq!(network_of(name), network, "{name}");
        }
    }

    #[test]
    fn numbers_of_python_become_strings() {
        for (text, json) in [
            (
                r#"{"a": NaN, "b": [-Infinity, Infinity, -1]}"#,
                r#"{"a": "NaN", "b": ["-Infinity", "Infinity", -1]}"#,
            ),
            (
                r#"{"NaN": "a \" NaN", "b\\": NaN}"#,
                r#"{"NaN": "a \" NaN", "b\\": "NaN"}"#,
            ),
            (r#"{"None": "un"#, r#"{"None": "un"#),
            ("Nö", "Nö"),
        ] {
            assert_eq!(with_quoted_nan(text), json);
        }
    }

    #[test]
    fn only_the_name_of_another_computation_is_refused() {
        let check = |said| check_architecture(Path::new("net.pth"), said, None);
        for decided_by_tensors in ["resnet18", "tv_resnet18", "net", "preresnet20", "resnet34"] {
            assert!(check(decided_by_tensors).is_ok(), "{decided_by_tensors}");
        }
        for other in ["resnetblur18", "resnetaa50", "timm/resnetblur50.bt_in1k"] {
            assert!(check(other).is_err(), "{other}");
        }
        // With the tensors of another network, the name is merely wrong.
        let check = |network| check_architecture(Path::new("net.pth"), "resnetaa50", Some(network));
        assert!(check("resnet50").is_err());
        assert!(check("resnet18").is_ok());
        for (said, network) in [
            ("resnet18", Some("resnet18")),
            ("timm/resnet50.a1_in1k", Some("resnet50")),
            ("ResNet34", Some("resnet34")),
            ("wrn16-4", Some("wrn16-4")),
            ("net", None),
            ("resnet18d", None),
        ] {
            assert_eq!(listed(said).as_deref(), network, "{said}");
        }
    }
}
