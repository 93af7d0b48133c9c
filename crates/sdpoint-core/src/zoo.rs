//! Architectures by name.
//!
//! The builders in [`resnet`] and [`small`] take configurations; this registry
//! maps the established names of architectures to configurations.

pub mod mobilenet;
pub mod resnet;
pub mod small;

use resnet::{Block, ResNetConfig};
use small::WideResNetConfig;

use crate::network::{Network, NetworkError};

/// A network of the zoo, or a representative of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The name, for [`build`].
    pub name: &'static str,
    /// For a member of a family, the pattern of the family's names.
    pub pattern: Option<&'static str>,
    /// The side of the published input images, in pixels.
    pub input: usize,
    /// The published number of classes.
    pub classes: usize,
}

/// An error of building a network by name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ZooError {
    /// No network has this name.
    #[error("there is no network '{name}'; the nearest are {nearest}. Families: {families}")]
    Unknown {
        /// The given name.
        name: String,
        /// The most similar names.
        nearest: String,
        /// The families' patterns.
        families: String,
    },
    /// A family has no member of this depth.
    #[error("there is no network '{name}': {pattern}. The nearest are {nearest}")]
    Depth {
        /// The given name.
        name: String,
        /// The pattern of the family.
        pattern: &'static str,
        /// The family's nearest members.
        nearest: String,
    },
    /// A parameter of a family is out of range.
    #[error("there is no network '{name}': its {what} must be between 1 and {limit}")]
    Range {
        /// The given name.
        name: String,
        /// The parameter.
        what: &'static str,
        /// The largest value that is supported.
        limit: usize,
    },
    /// The number of classes or of input channels is invalid.
    #[error("'{name}' cannot be built: {source}")]
    Network {
        /// The given name.
        name: String,
        /// The cause.
        source: NetworkError,
    },
}

const PRERESNET: &str = "preresnetD with D = 6n + 2, or preresnetD-wC with C channels in the first stage instead of 16 (small images)";
const WIDE: &str = "wrnD-K with D = 6n + 4 and width factor K (small images)";
const RESNEXT29: &str = "resnext29_GxWd with G groups of W channels (small images)";

/// The channels of the first stage in the published networks for small images.
const USUAL_WIDTH: usize = 16;

/// The largest depth, more than any published network has. It bounds the memory
/// of a network built from an untrusted name.
const MAX_DEPTH: usize = 2000;
const MAX_FACTOR: usize = 1000;

/// The configuration for a name.
#[derive(Clone, Copy)]
enum Recipe {
    Post(Block, [usize; 4], usize, usize),
    Pre(Block, [usize; 4]),
    MobileNetV2,
    Wide {
        blocks: usize,
        width: usize,
        widen: usize,
    },
    ResNeXt29 {
        groups: usize,
        width: usize,
    },
}

/// The networks for large images. Those for small images are families.
#[rustfmt::skip]
const LARGE: [(&str, Recipe); 15] = {
    use Block::{Basic, Bottleneck};
    use Recipe::{MobileNetV2, Post, Pre};
    [
        ("resnet18", Post(Basic, [2, 2, 2, 2], 1, 64)),
        ("resnet34", Post(Basic, [3, 4, 6, 3], 1, 64)),
        ("resnet50", Post(Bottleneck, [3, 4, 6, 3], 1, 64)),
        ("resnet101", Post(Bottleneck, [3, 4, 23, 3], 1, 64)),
        ("resnet152", Post(Bottleneck, [3, 8, 36, 3], 1, 64)),
        ("resnext50_32x4d", Post(Bottleneck, [3, 4, 6, 3], 32, 4)),
        ("resnext101_32x4d", Post(Bottleneck, [3, 4, 23, 3], 32, 4)),
        ("resnext152_32x4d", Post(Bottleneck, [3, 8, 36, 3], 32, 4)),
        ("preresnet18-imagenet", Pre(Basic, [2, 2, 2, 2])),
        ("preresnet34-imagenet", Pre(Basic, [3, 4, 6, 3])),
        ("preresnet50-imagenet", Pre(Bottleneck, [3, 4, 6, 3])),
        ("preresnet101-imagenet", Pre(Bottleneck, [3, 4, 23, 3])),
        ("preresnet152-imagenet", Pre(Bottleneck, [3, 8, 36, 3])),
        ("preresnet200-imagenet", Pre(Bottleneck, [3, 24, 36, 3])),
        ("mobilenet_v2", MobileNetV2),
    ]
};

const SMALL: [(&str, &str); 12] = [
    ("preresnet20", PRERESNET),
    ("preresnet32", PRERESNET),
    ("preresnet44", PRERESNET),
    ("preresnet56", PRERESNET),
    ("preresnet110", PRERESNET),
    ("wrn16-2", WIDE),
    ("wrn16-4", WIDE),
    ("wrn16-8", WIDE),
    ("wrn28-10", WIDE),
    ("wrn40-4", WIDE),
    ("resnext29_8x64d", RESNEXT29),
    ("resnext29_16x64d", RESNEXT29),
];

/// Lists all networks for large images, and representatives of the families for
/// small images.
pub fn entries() -> Vec<Entry> {
    let large = LARGE.iter().map(|&(name, _)| Entry {
        name,
        pattern: None,
        input: 224,
        classes: 1000,
    });
    let small = SMALL.iter().map(|&(name, pattern)| Entry {
        name,
        pattern: Some(pattern),
        input: 32,
        classes: 10,
    });
    large.chain(small).collect()
}

/// Returns the side of the published input images of a network, in pixels.
///
/// # Errors
/// If there is no such network.
pub fn input_size(name: &str) -> Result<usize, ZooError> {
    Ok(match recipe(name)? {
        Recipe::Post(..) | Recipe::Pre(..) | Recipe::MobileNetV2 => 224,
        Recipe::Wide { .. } | Recipe::ResNeXt29 { .. } => 32,
    })
}

/// Builds a network by name, for images of three channels.
///
/// # Errors
/// If there is no such network, or the number of classes is out of range.
pub fn build(name: &str, classes: usize) -> Result<Network, ZooError> {
    build_with_channels(name, classes, 3)
}

/// Builds a network by name, for images of `in_channels` channels.
///
/// # Errors
/// If there is no such network, or the number of classes or channels is out of
/// range.
pub fn build_with_channels(
    name: &str,
    classes: usize,
    in_channels: usize,
) -> Result<Network, ZooError> {
    let large = |block, blocks: [usize; 4], groups, base_width| ResNetConfig {
        name: name.to_owned(),
        block,
        blocks: blocks.to_vec(),
        stem_width: 64,
        groups,
        base_width,
        classes,
        in_channels,
    };
    match recipe(name)? {
        Recipe::Post(block, blocks, groups, base_width) => {
            resnet::post_activation(&large(block, blocks, groups, base_width))
        }
        Recipe::Pre(block, blocks) => resnet::pre_activation(&large(block, blocks, 1, 64)),
        Recipe::MobileNetV2 => mobilenet::mobilenet_v2(name, classes, in_channels),
        Recipe::Wide {
            blocks,
            width,
            widen,
        } => small::wide_resnet(&WideResNetConfig {
            name: name.to_owned(),
            blocks,
            width,
            widen,
            classes,
            in_channels,
        }),
        Recipe::ResNeXt29 { groups, width } => {
            small::resnext29(name, groups, width, classes, in_channels)
        }
    }
    .map_err(|source| ZooError::Network {
        name: name.to_owned(),
        source,
    })
}

fn recipe(name: &str) -> Result<Recipe, ZooError> {
    if let Some(&(_, recipe)) = LARGE.iter().find(|(known, _)| *known == name) {
        return Ok(recipe);
    }
    if let Some((depth, width)) = name.strip_prefix("preresnet").and_then(depth_and_width) {
        let member = |d| match width {
            USUAL_WIDTH => format!("preresnet{d}"),
            _ => format!("preresnet{d}-w{width}"),
        };
        let blocks = blocks_per_stage(name, depth, 2, PRERESNET, member)?;
        in_range(name, "width", width)?;
        return Ok(Recipe::Wide {
            blocks,
            width,
            widen: 1,
        });
    }
    if let Some((depth, widen)) = name.strip_prefix("wrn").and_then(|rest| pair(rest, "-")) {
        let blocks = blocks_per_stage(name, depth, 4, WIDE, |d| format!("wrn{d}-{widen}"))?;
        in_range(name, "width factor", widen)?;
        return Ok(Recipe::Wide {
            blocks,
            width: USUAL_WIDTH,
            widen,
        });
    }
    let numbers = name
        .strip_prefix("resnext29_")
        .and_then(|rest| rest.strip_suffix('d'));
    if let Some((groups, width)) = numbers.and_then(|rest| pair(rest, "x")) {
        in_range(name, "number of groups", groups)?;
        in_range(name, "width of a group", width)?;
        return Ok(Recipe::ResNeXt29 { groups, width });
    }
    Err(ZooError::Unknown {
        name: name.to_owned(),
        nearest: nearest(name),
        families: [PRERESNET, WIDE, RESNEXT29].join("; "),
    })
}

/// The blocks per stage `n` of a network of depth `6n + rest`: three stages of
/// `n` blocks of two layers, and `rest` other layers.
fn blocks_per_stage(
    name: &str,
    depth: usize,
    rest: usize,
    pattern: &'static str,
    member: impl Fn(usize) -> String,
) -> Result<usize, ZooError> {
    in_range(name, "depth", depth)?;
    let below = depth.saturating_sub(rest) / 6;
    if below > 0 && 6 * below + rest == depth {
        return Ok(below);
    }
    let mut fitting: Vec<String> = [below, below + 1]
        .into_iter()
        .filter(|&n| n > 0)
        .map(|n| member(6 * n + rest))
        .collect();
    let large = format!("{name}-imagenet");
    if LARGE.iter().any(|(known, _)| *known == large) {
        fitting.push(large);
    }
    Err(ZooError::Depth {
        name: name.to_owned(),
        pattern,
        nearest: fitting.join(", "),
    })
}

fn in_range(name: &str, what: &'static str, value: usize) -> Result<(), ZooError> {
    let limit = if what == "depth" {
        MAX_DEPTH
    } else {
        MAX_FACTOR
    };
    if (1..=limit).contains(&value) {
        return Ok(());
    }
    Err(ZooError::Range {
        name: name.to_owned(),
        what,
        limit,
    })
}

/// Parses a number in canonical form: digits only, without leading zeros.
fn number(text: &str) -> Option<usize> {
    let plain =
        text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

/// Parses `20`, or `20-w12` with a width other than the usual one.
fn depth_and_width(text: &str) -> Option<(usize, usize)> {
    match pair(text, "-w") {
        Some((_, USUAL_WIDTH)) => None,
        None => Some((number(text)?, USUAL_WIDTH)),
        other => other,
    }
}

fn pair(text: &str, separator: &str) -> Option<(usize, usize)> {
    let (left, right) = text.split_once(separator)?;
    Some((number(left)?, number(right)?))
}

/// The three listed names that are most similar to `name`.
fn nearest(name: &str) -> String {
    let name = name.to_lowercase();
    let mut names: Vec<&str> = entries().iter().map(|entry| entry.name).collect();
    names.sort_by_key(|known| strsim::damerau_levenshtein(&name, known));
    names[..3].join(", ")
}
