//! Nests a network's layers into modules, by the dots in their names.

use std::ops::Range;

use sdpoint_core::{LayerId, Network};

use crate::error::ExportError;

/// A member of a module.
#[derive(Debug)]
pub(super) enum Item {
    Layer(LayerId),
    Sequence(Sequence),
}

/// Members named 0, 1, 2, … of a container, where each takes the output of the
/// one before.
#[derive(Debug)]
pub(super) struct Sequence {
    pub name: String,
    /// The input of the first.
    pub source: LayerId,
    pub children: Vec<Child>,
}

/// A member of a sequence: one layer, or a module of several.
#[derive(Debug)]
pub(super) struct Child {
    pub layers: Range<usize>,
    pub is_block: bool,
}

impl Sequence {
    /// The layer whose output is its output.
    pub fn output(&self) -> LayerId {
        let end = self.children.last().map_or(1, |child| child.layers.end);
        LayerId(end - 1)
    }
}

/// The members of a module that consists of `layers`, whose names have
/// `depth` components before their own.
pub(super) fn items(
    network: &Network,
    layers: Range<usize>,
    depth: usize,
) -> Result<Vec<Item>, ExportError> {
    let mut items = Vec::new();
    let mut index = layers.start;
    while index < layers.end {
        let own = own_name(network, index, depth);
        identifier(network, index, own[0])?;
        if own.len() == 1 {
            items.push(Item::Layer(LayerId(index)));
            index += 1;
            continue;
        }
        let in_container = |&other: &usize| {
            let name = own_name(network, other, depth);
            name.len() > 1 && name[0] == own[0]
        };
        let end = (index..layers.end).take_while(in_container).count() + index;
        items.push(Item::Sequence(sequence(
            network,
            own[0],
            index..end,
            depth,
        )?));
        index = end;
    }
    Ok(items)
}

fn sequence(
    network: &Network,
    name: &str,
    layers: Range<usize>,
    depth: usize,
) -> Result<Sequence, ExportError> {
    let mut children: Vec<Child> = Vec::new();
    let mut index = layers.start;
    while index < layers.end {
        let number = children.len().to_string();
        let count = (index..layers.end)
            .take_while(|&other| own_name(network, other, depth)[1] == number)
            .count();
        let is_block = own_name(network, index, depth).len() > 2;
        let child = index..index + count;
        let alike = child
            .clone()
            .all(|other| (own_name(network, other, depth).len() > 2) == is_block);
        if count == 0 || !alike || (!is_block && count > 1) {
            return Err(refuse(
                network,
                index,
                "it is not a member number 0, 1, 2, … of its container",
            ));
        }
        index += count;
        children.push(Child {
            layers: child,
            is_block,
        });
    }
    let source = network.layers()[layers.start].inputs.first().copied();
    let sequence = Sequence {
        name: name.to_owned(),
        source: source.unwrap_or(LayerId(0)),
        children,
    };
    check_chain(network, &sequence)?;
    Ok(sequence)
}

/// Checks that each member takes the output of the one before only, and that
/// inner tensors are not used outside.
fn check_chain(network: &Network, sequence: &Sequence) -> Result<(), ExportError> {
    let mut before = sequence.source;
    for child in &sequence.children {
        let inside = |id: &LayerId| child.layers.contains(&id.0);
        for index in child.layers.clone() {
            let mut from_outside = network.layers()[index]
                .inputs
                .iter()
                .filter(|id| !inside(id));
            if from_outside.any(|&id| id != before) {
                return Err(refuse(
                    network,
                    index,
                    "its container is fed by more than one tensor",
                ));
            }
        }
        let last = child.layers.end - 1;
        for (index, layer) in network.layers().iter().enumerate().skip(child.layers.end) {
            if layer.inputs.iter().any(|id| inside(id) && id.0 != last) {
                return Err(refuse(
                    network,
                    index,
                    "it uses a tensor from within a container",
                ));
            }
        }
        before = LayerId(last);
    }
    // Tensors between members must not be used elsewhere.
    for pair in sequence.children.windows(2) {
        let (last, end) = (pair[0].layers.end - 1, pair[1].layers.end);
        let later = &network.layers()[end..];
        if let Some(place) = later
            .iter()
            .position(|layer| layer.inputs.contains(&LayerId(last)))
        {
            return Err(refuse(
                network,
                end + place,
                "it uses a tensor from within a container",
            ));
        }
    }
    Ok(())
}

/// The components of a layer's name after those of its module.
fn own_name(network: &Network, index: usize, depth: usize) -> Vec<&str> {
    network.layers()[index]
        .name
        .split('.')
        .skip(depth)
        .collect()
}

/// Checks that a name can be an attribute. Names come from model files, and
/// anything else could be code.
fn identifier(network: &Network, index: usize, name: &str) -> Result<(), ExportError> {
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let plain = name.bytes().all(letters) && name.starts_with(|c: char| c.is_ascii_alphabetic());
    if plain && !TAKEN.contains(&name) {
        return Ok(());
    }
    Err(refuse(network, index, "its name cannot be an attribute's"))
}

/// Python's keywords, and attributes of the modules themselves.
#[rustfmt::skip]
const TAKEN: [&str; 61] = [
    "False", "None", "True", "and", "as", "assert", "async", "await", "break", "class", "continue",
    "def", "del", "elif", "else", "except", "finally", "for", "from", "global", "if", "import",
    "in", "is", "lambda", "nonlocal", "not", "or", "pass", "raise", "return", "try", "while",
    "with", "yield",
    "add_module", "apply", "arrange", "buffers", "calibrate", "children", "cpu", "cuda", "draw",
    "eval", "forward", "half", "instances", "load_state_dict", "modules", "parameters", "points",
    "register_buffer", "register_parameter", "sdpoint", "state_dict", "to", "train", "training",
    "type", "use",
];

pub(super) fn refuse(network: &Network, index: usize, problem: &str) -> ExportError {
    ExportError::Python {
        layer: network.layers()[index].name.clone(),
        problem: problem.into(),
    }
}
