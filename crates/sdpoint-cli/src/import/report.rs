//! The report of an import.

use std::path::Path;

use sdpoint::Network;
use sdpoint::core::{Op, Preprocessing, format_macs};
use sdpoint::exchange::{Origin, OtherSet};
use serde::Serialize;

use super::preprocessing::described;
use crate::output::{plural, program};

/// The report, as in the JSON output.
#[derive(Serialize)]
pub struct Report<'a> {
    pub model: &'a Path,
    pub network: &'a str,
    #[serde(skip)]
    pub structure: &'a Network,
    pub classes: usize,
    pub parameters: usize,
    /// The number of tensors of the network.
    pub tensors: usize,
    /// The name of the network in the file.
    pub architecture: Option<&'a str>,
    /// Where the tensors were found.
    #[serde(flatten)]
    pub from: Taken<'a>,
    pub left_over: &'a [String],
    /// The configuration next to the weights, if one was read.
    pub config: Option<&'a Path>,
    pub preprocessing: &'a Preprocessing,
    pub macs: u64,
}

/// Where the tensors were found.
#[derive(Serialize)]
pub struct Taken<'a> {
    key: &'a str,
    averaged: bool,
    prefix: &'a str,
    /// Other dictionaries with tensors of a network.
    others: Vec<Other<'a>>,
    /// Tensors without the prefix.
    outside: &'a [String],
    classifier: Option<Classifier<'a>>,
    #[serde(skip)]
    module: Option<&'a str>,
}

#[derive(Serialize)]
struct Other<'a> {
    key: &'a str,
    tensors: usize,
    averaged: bool,
    fits: bool,
}

#[derive(Serialize)]
struct Classifier<'a> {
    name: &'a str,
    bias: bool,
    outputs: usize,
    #[serde(skip)]
    renamed: bool,
}

impl<'a> Taken<'a> {
    pub fn new(origin: &'a Origin) -> Self {
        let other = |other: &'a OtherSet| Other {
            key: &other.key,
            tensors: other.tensors,
            averaged: other.averaged,
            fits: other.fits,
        };
        let classifier = origin.classifier.as_ref();
        Self {
            key: &origin.key,
            averaged: origin.averaged,
            prefix: &origin.prefix,
            others: origin.others.iter().map(other).collect(),
            outside: &origin.outside,
            classifier: classifier.map(|classifier| Classifier {
                name: &classifier.name,
                bias: classifier.bias,
                outputs: classifier.outputs,
                renamed: classifier.renamed,
            }),
            module: origin.module.as_deref(),
        }
    }

    /// Lines of text about everything that is unusual.
    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut taken = match (self.key, self.module) {
            ("", None) => String::new(),
            ("", Some(class)) => format!("the module {class}"),
            (key, None) => format!("'{}'", shown(key)),
            (key, Some(class)) => format!("the module {class} under '{}'", shown(key)),
        };
        if !self.prefix.is_empty() {
            taken += &format!(
                "{} names with the prefix '{}'",
                if taken.is_empty() { "" } else { "," },
                shown(self.prefix)
            );
        }
        if self.averaged {
            taken += if taken.is_empty() { "" } else { "," };
            taken += " averaged weights";
            if self.others.iter().any(|other| !other.averaged) {
                taken += " (--no-ema uses the others)";
            }
        }
        if !taken.is_empty() {
            lines.push(format!("Used: {}.", taken.trim_start()));
        }
        if !self.others.is_empty() {
            let others: Vec<String> = self.others.iter().map(Other::text).collect();
            let usable = self.others.iter().any(|other| other.fits);
            let hint = if usable { "; --key selects them" } else { "" };
            lines.push(format!("Not used: {}{hint}.", few(&others)));
        }
        if !self.outside.is_empty() {
            lines.push(format!(
                "Without the prefix, not used: {}: {}.",
                plural(self.outside.len(), "tensor", "tensors"),
                few(self.outside)
            ));
        }
        lines.extend(self.classifier.as_ref().and_then(|c| c.line()));
        lines
    }
}

impl Other<'_> {
    fn text(&self) -> String {
        let key = match self.key {
            "" => "the top level, '.'".to_owned(),
            key => format!("'{}'", shown(key)),
        };
        let averaged = if self.averaged { ", averaged" } else { "" };
        let fits = if self.fits {
            ""
        } else {
            ", which does not fit"
        };
        format!(
            "{key} ({}{averaged}{fits})",
            plural(self.tensors, "tensor", "tensors")
        )
    }
}

impl Classifier<'_> {
    fn line(&self) -> Option<String> {
        let mut notes = Vec::new();
        if self.renamed {
            notes.push(format!("it is '{}'", shown(self.name)));
        }
        if !self.bias {
            notes.push("it has no bias; zeros were added".into());
        }
        if self.outputs == 1 {
            notes.push(
                "its single output becomes two classes: its sigmoid is the probability of the \
                 second one"
                    .into(),
            );
        }
        (!notes.is_empty()).then(|| format!("Classifier: {}.", notes.join("; ")))
    }
}

/// Properties of the network that the weights do not show.
fn assumed(network: &Network) -> String {
    let has = |wanted: fn(&Op) -> bool| network.layers().iter().any(|layer| wanted(&layer.op));
    let activation = match has(|op| matches!(op, Op::Relu6)) {
        true => "ReLU6",
        false => "ReLU",
    };
    let pool = match has(|op| matches!(op, Op::MaxPool(_))) {
        true => "a max pool without blur, ",
        false => "",
    };
    format!(
        "Assumed, because the weights do not show it: {activation}, {pool}strides in the 3x3 \
         convolutions, a batch-norm epsilon of 1e-5 (docs/import.md)."
    )
}

impl Report<'_> {
    /// The report as text.
    pub fn text(&self) -> String {
        let program = program();
        let model = self.model.display();
        let mut lines = self.from.lines();
        if !self.left_over.is_empty() {
            lines.push(format!("Not used by the network: {}.", few(self.left_over)));
        }
        if let Some(said) = self.architecture.filter(|said| *said != self.network) {
            lines.push(format!("The file calls its network '{}'.", shown(said)));
        }
        if let Some(config) = self.config {
            lines.push(format!("Configuration: {}.", config.display()));
        }
        lines.push(format!("Images: {}.", described(self.preprocessing)));
        lines.push(assumed(self.structure));
        format!(
            "{}: all {} tensors found, {} parameters, {}; {} MACs per image.\n\
             {}\n\
             The model is in {model}, with the single instance full.\n\
             Next:\n  \
             {program} predict {model} IMAGE\n  \
             {program} calibrate {model} --data folder:DIR --ratios 0.5,0.75\n  \
             {program} train --init {model} --data folder:DIR --rate 0.01\n",
            self.network,
            self.tensors,
            format_macs(self.parameters as u64),
            plural(self.classes, "class", "classes"),
            format_macs(self.macs),
            lines.join("\n"),
        )
    }
}

/// The first few names, and the number of others.
fn few(names: &[String]) -> String {
    const MOST: usize = 5;
    let mut text: Vec<String> = names.iter().take(MOST).map(|name| shown(name)).collect();
    match names.len().saturating_sub(MOST) {
        0 => {}
        1 => text.push("and 1 other".into()),
        others => text.push(format!("and {others} others")),
    }
    text.join(", ")
}

/// A name, shortened if very long.
fn shown(name: &str) -> String {
    const MOST: usize = 90;
    match name.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use sdpoint::zoo;

    use super::*;

    #[test]
    fn assumptions_are_those_of_the_network() {
        let of = |name| assumed(&zoo::build(name, 10).expect("it is in the zoo"));
        let resnet = of("resnet18");
        assert!(
            resnet.contains(" ReLU, a max pool without blur,"),
            "{resnet}"
        );
        let mobilenet = of("mobilenet_v2");
        assert!(mobilenet.contains(" ReLU6, strides in"), "{mobilenet}");
    }
}
