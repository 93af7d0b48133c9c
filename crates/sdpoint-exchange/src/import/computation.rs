//! Compares what a whole pickled module computes with a network, as far as the
//! classes and attributes of its submodules tell.
//!
//! The code of `forward` is not in the file. What a module is not known to
//! compute is refused where it is between the network's layers, and ignored
//! beside them, where losses and metrics are.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use sdpoint_core::{Conv, Instance, Layer, LayerId, Network, Op, Window};

use super::error::ImportError;
use super::fit::{Fit, Source};
use super::names::unwrapped;
use crate::checkpoint::{Part, Setting, Whole};

/// Modules that change nothing at inference, from any library.
const INERT: [&str; 21] = [
    "AlphaDropout",
    "DeQuantStub",
    "DropBlock",
    "DropBlock2d",
    "DropPath",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "FakeDropPath",
    "FeatureAlphaDropout",
    "Flatten",
    "FloatFunctional",
    "Identity",
    "ModuleDict",
    "ModuleList",
    "ParameterDict",
    "ParameterList",
    "QuantStub",
    "Sequential",
    "StochasticDepth",
];

/// Classes of convolutions, linear layers and batch norms.
const CONVS: [&str; 1] = ["Conv2d"];
const LINEARS: [&str; 3] = ["Linear", "NonDynamicallyQuantizableLinear", "Conv2d"];
const NORMS: [&str; 8] = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNormAct2d",
    "FrozenBatchNorm2d",
    "FrozenBatchNormAct2d",
    "NaiveSyncBatchNorm",
    "SyncBatchNorm",
    "SyncBatchNormAct",
];

/// The values of timm's `pool_type` that are a mean.
const MEANS: [&str; 3] = ["avg", "fast", "fastavg"];

/// Refuses a whole module that computes something else than the network, on
/// images of `size` if it is known.
pub(super) fn check(
    network: &Network,
    fit: &Fit<'_>,
    size: Option<[usize; 2]>,
) -> Result<(), ImportError> {
    let Some(whole) = fit.set.whole() else {
        return Ok(());
    };
    let comparison = Comparison::new(network, fit, whole, size);
    let modules: Vec<String> = whole
        .parts
        .iter()
        .filter_map(|(path, part)| {
            let difference = comparison.difference(path, part)?;
            Some(match &path[..] {
                "" => format!("the whole {difference}"),
                path => format!("'{path}' {difference}"),
            })
        })
        .collect();
    if modules.is_empty() {
        return Ok(());
    }
    Err(ImportError::Computation {
        network: network.name().to_owned(),
        modules,
    })
}

struct Comparison<'c> {
    network: &'c Network,
    whole: &'c Whole,
    prefix: &'c str,
    /// The network's layers by the paths of the modules that have their tensors.
    layers: HashMap<&'c str, &'c Layer>,
    /// The network's layers without tensors by their names.
    by_name: HashMap<&'c str, &'c Layer>,
    /// The number of tensors under each path, and of those that are used.
    tensors: BTreeMap<&'c str, [usize; 2]>,
    /// The paths of modules that contain others.
    containers: BTreeSet<&'c str>,
    /// The path of the classifier, and the number of its outputs.
    classifier: Option<&'c str>,
    outputs: usize,
    /// The sides of the images, if known.
    size: Option<[usize; 2]>,
}

impl<'c> Comparison<'c> {
    fn new(
        network: &'c Network,
        fit: &'c Fit<'_>,
        whole: &'c Whole,
        size: Option<[usize; 2]>,
    ) -> Self {
        let parameters = network.parameters();
        let sources = fit.sources.iter().enumerate();
        let sources = sources.filter_map(|(index, source)| match source {
            Source::Tensor { name, .. } => Some((index, *name)),
            Source::Zeros => None,
        });
        let sources: Vec<(usize, &str)> = sources.collect();
        let used: BTreeSet<&str> = sources.iter().map(|&(_, name)| name).collect();
        let layers = sources.iter().filter_map(|&(index, name)| {
            let layer = network.layer(parameters.get(index)?.layer);
            Some((parent(name)?, layer))
        });
        let mut tensors: BTreeMap<&str, [usize; 2]> = BTreeMap::new();
        for name in fit.set.names() {
            for path in ancestors(name) {
                let [all, own] = tensors.entry(path).or_default();
                *all += 1;
                *own += usize::from(used.contains(name));
            }
        }
        let plain = network.layers().iter();
        Self {
            network,
            whole,
            prefix: &fit.prefix,
            layers: layers.collect(),
            by_name: plain.map(|layer| (&layer.name[..], layer)).collect(),
            tensors,
            containers: whole.parts.keys().filter_map(|path| parent(path)).collect(),
            classifier: fit.classifier.as_ref().map(|found| &found.name[..]),
            outputs: fit.classifier.as_ref().map_or(0, |found| found.outputs),
            size,
        }
    }

    /// How a module differs from the network, as a predicate; `None` if it does
    /// not, or does not matter.
    fn difference(&self, path: &str, part: &Part) -> Option<String> {
        if let Some(layer) = self.layers.get(path) {
            return layer_differs(layer, part);
        }
        let plain = unwrapped(path);
        let own = if self.prefix.is_empty() {
            Some(&*plain)
        } else {
            plain.strip_prefix(self.prefix)
        };
        let in_sequence = parent(path).is_some_and(|parent| {
            let parent = self.whole.parts.get(parent);
            parent.is_some_and(|parent| parent.name() == "Sequential")
        });
        // Parts with tensors of their own that the network does not use are reported
        // by these. In a sequence, nothing can be left out.
        if let Some(unused) = ancestors_and_self(path).find(|path| self.is_unused(path)) {
            let skipped = own.is_none() && in_sequence && unused == path;
            return skipped.then(|| format!("({}) comes before or after the network", part.name()));
        }
        if let Some(layer) = own.and_then(|own| self.by_name.get(own))
            && !self.containers.contains(path)
        {
            match layer.op {
                Op::MaxPool(window) => return pool_differs(window, part),
                Op::Relu | Op::Relu6 => return self.activation_differs(part),
                _ => {}
            }
        }
        self.other_differs(path, part, own, in_sequence)
    }

    /// As [`Self::difference`], of a module without tensors that is no layer of
    /// the network by its name.
    fn other_differs(
        &self,
        path: &str,
        part: &Part,
        own: Option<&str>,
        in_sequence: bool,
    ) -> Option<String> {
        let strict = own.is_some() || in_sequence;
        let depth = own.map_or(0, |own| own.matches('.').count());
        let is_container = self.containers.contains(path);
        let last = path.rsplit('.').next().unwrap_or(path);
        match part.name() {
            "Identity" if own.is_some() && self.replaces_activation(path, last) => {
                self.activation_differs(part)
            }
            name if INERT.contains(&name) => None,
            name if name.ends_with("Loss") || name.contains("Metric") => None,
            _ if part.class.starts_with("torchmetrics.") => None,
            "ReLU" | "ReLU6" if in_sequence && own.is_none() => {
                Some(format!("is {}, before or after the network", part.name()))
            }
            "ReLU" | "ReLU6" if in_sequence && self.follows_classifier(path) => {
                Some(format!("is {}, after the classifier", part.name()))
            }
            "ReLU" | "ReLU6" => self.activation_differs(part),
            "MaxPool2d" => {
                let mut pools = self.network.layers().iter();
                let pool = pools.find_map(|layer| match layer.op {
                    Op::MaxPool(window) => Some(window),
                    _ => None,
                });
                match pool {
                    Some(window) => pool_differs(window, part),
                    None => Some("is a max pool, which the network does not have".into()),
                }
            }
            "AdaptiveAvgPool2d" | "AdaptiveAvgPool1d" => {
                let one = part.pair("output_size").is_none_or(|size| size == [1.0; 2]);
                (!one).then(|| "pools to more than one pixel".into())
            }
            // The last pooling of networks for one size of images.
            "AvgPool2d" if depth == 0 && own.is_some() => self.mean_differs(part),
            "FastAdaptiveAvgPool"
            | "FastAdaptiveAvgPool2d"
            | "GlobalAvgPool2d"
            | "GlobalAveragePooling" => None,
            "SelectAdaptivePool2d" => match part.settings.get("pool_type") {
                Some(Setting::Text(kind)) if !MEANS.contains(&&kind[..]) => {
                    Some(format!("pools by '{kind}', not by the mean"))
                }
                _ => None,
            },
            // A single output is imported as two classes by its sigmoid, and the softmax
            // is applied by whoever uses the logits.
            "Sigmoid" if self.outputs == 1 && depth < 2 => None,
            "Softmax" | "LogSoftmax" if self.outputs > 1 && depth < 2 => None,
            name if part.is_of_pytorch() && !is_container => Some(format!("is {name}")),
            name if strict && !is_container => {
                Some(format!("is {name}, whose computation is not known"))
            }
            "Normalize" => Some("normalises images; give --mean and --std instead".into()),
            _ => None,
        }
    }

    /// Whether a module of a sequence comes after the classifier, which is in the same
    /// sequence or in another module of it. Of names that are no numbers, the order
    /// is not known.
    fn follows_classifier(&self, path: &str) -> bool {
        let sequence = parent(path).unwrap_or_default();
        let within = |path: &'c str| match sequence {
            "" => Some(path),
            _ => path.strip_prefix(sequence)?.strip_prefix('.'),
        };
        let Some(classifier) = self.classifier.and_then(within) else {
            return false;
        };
        let number = |name: &str| name.parse::<usize>().ok();
        let own = number(path.rsplit('.').next().unwrap_or(path));
        let other = number(classifier.split('.').next().unwrap_or(classifier));
        match (own, other) {
            (Some(own), Some(other)) => own.cmp(&other) == Ordering::Greater,
            _ => true,
        }
    }

    /// Whether a pool of a fixed window is not the mean of the last feature map.
    fn mean_differs(&self, part: &Part) -> Option<String> {
        if let Some(differs) = sides_differ(part, "padding", [0; 2]) {
            return Some(differs);
        }
        // TorchScript stores the window in its code.
        part.settings.get("kernel_size")?;
        let Some(window) = part.pair("kernel_size") else {
            return Some("has an unreadable kernel size".into());
        };
        let map = self.last_map()?;
        (map != window).then(|| {
            format!(
                "averages windows of {}, not the whole feature map of {}",
                product(window),
                product(map)
            )
        })
    }

    /// The sides of what the network pools at the end.
    fn last_map(&self) -> Option<[f64; 2]> {
        let shapes = self.network.shapes(self.size?, Instance::Full).ok()?;
        let layers = self.network.layers().iter();
        let pool = layers.rev().find(|layer| layer.op == Op::GlobalAvgPool)?;
        let input: LayerId = *pool.inputs.first()?;
        let shape = shapes.passed_on(input);
        Some([shape.height as f64, shape.width as f64])
    }

    /// Whether a module has the name of an activation, and is none of timm's
    /// placeholders in norms.
    fn replaces_activation(&self, path: &str, last: &str) -> bool {
        let named = last.starts_with("relu") || last.starts_with("act");
        named && !parent(path).is_some_and(|parent| self.layers.contains_key(parent))
    }

    fn activation_differs(&self, part: &Part) -> Option<String> {
        let has = |op: Op| self.network.layers().iter().any(|layer| layer.op == op);
        let (name, other) = (part.name(), if has(Op::Relu6) { "ReLU6" } else { "ReLU" });
        let fits = match name {
            "ReLU" => has(Op::Relu),
            "ReLU6" => has(Op::Relu6),
            _ => false,
        };
        (!fits).then(|| format!("is {name}, not {other}"))
    }

    /// Whether it has tensors, and the network uses none of them.
    fn is_unused(&self, path: &str) -> bool {
        matches!(self.tensors.get(path), Some(&[_, 0]))
    }
}

fn layer_differs(layer: &Layer, part: &Part) -> Option<String> {
    let (classes, what) = match layer.op {
        Op::Conv(_) => (&CONVS[..], "a convolution"),
        Op::BatchNorm { .. } => (&NORMS[..], "a batch norm"),
        Op::Linear { .. } => (&LINEARS[..], "a linear layer"),
        // No other layers have tensors.
        _ => return None,
    };
    if !classes.contains(&part.name()) {
        return Some(format!("is {}, not only {what}", part.name()));
    }
    match layer.op {
        Op::Conv(conv) => conv_differs(&conv, part),
        Op::BatchNorm { eps, .. } => match part.settings.get("eps") {
            None => None,
            Some(Setting::Numbers(found)) if found[..] == [f64::from(eps)] => None,
            Some(Setting::Numbers(found)) if found.iter().all(|&found| found as f32 == eps) => None,
            Some(Setting::Numbers(found)) => Some(match found[..] {
                [found] => format!("has an epsilon of {found}, not {eps}"),
                _ => "has an unreadable epsilon".into(),
            }),
            Some(_) => Some("has an unreadable epsilon".into()),
        },
        _ => None,
    }
}

fn conv_differs(conv: &Conv, part: &Part) -> Option<String> {
    if let Some(Setting::Text(mode)) = part.settings.get("padding_mode")
        && mode != "zeros"
        && conv.padding != [0; 2]
    {
        return Some(format!("pads by '{mode}', not with zeros"));
    }
    let stride = sides_differ(part, "stride", conv.stride);
    let dilation = || match conv.kernel {
        [1, 1] => None,
        _ => sides_differ(part, "dilation", [1; 2]),
    };
    let padding = || match part.settings.get("padding") {
        Some(Setting::Text(mode)) => {
            let same = conv.kernel.map(|kernel| kernel / 2);
            let fits = match &mode[..] {
                "valid" => conv.padding == [0; 2],
                "same" => conv.padding == same && conv.stride == [1; 2],
                _ => false,
            };
            let expected = text(conv.padding.map(|side| side as f64));
            (!fits).then(|| format!("has padding '{mode}', not {expected}"))
        }
        _ => sides_differ(part, "padding", conv.padding),
    };
    let groups = || sides_differ(part, "groups", [conv.groups; 2]);
    stride.or_else(dilation).or_else(padding).or_else(groups)
}

fn pool_differs(window: Window, part: &Part) -> Option<String> {
    if part.name() != "MaxPool2d" {
        return Some(format!("is {}, not a max pool", part.name()));
    }
    if part
        .settings
        .get("ceil_mode")
        .is_some_and(|mode| *mode != Setting::Numbers(vec![0.0]))
    {
        return Some("rounds sizes up (ceil_mode)".into());
    }
    let stride = match part.settings.get("stride") {
        Some(Setting::None) => sides_differ(part, "kernel_size", window.stride),
        _ => sides_differ(part, "stride", window.stride),
    };
    sides_differ(part, "kernel_size", window.kernel)
        .or(stride)
        .or_else(|| sides_differ(part, "padding", window.padding))
        .or_else(|| sides_differ(part, "dilation", [1; 2]))
}

/// Whether an attribute has other values for height and width than the layer.
fn sides_differ(part: &Part, name: &str, expected: [usize; 2]) -> Option<String> {
    // TorchScript stores these in its code.
    part.settings.get(name)?;
    let expected = expected.map(|side| side as f64);
    let what = name.replace('_', " ");
    match part.pair(name) {
        Some(found) if found == expected => None,
        Some(found) => Some(format!(
            "has {what} {}, not {}",
            text(found),
            text(expected)
        )),
        None => Some(format!("has an unreadable {what}")),
    }
}

/// A number, or two of them that differ.
fn text([height, width]: [f64; 2]) -> String {
    if height == width {
        height.to_string()
    } else {
        format!("{height}x{width}")
    }
}

/// Two numbers as a product.
fn product([height, width]: [f64; 2]) -> String {
    format!("{height}x{width}")
}

/// The path of the module that contains another module or a tensor; that of the
/// root is empty.
fn parent(path: &str) -> Option<&str> {
    match path.rfind('.') {
        Some(dot) => Some(&path[..dot]),
        None => (!path.is_empty()).then_some(""),
    }
}

/// The paths of all modules that contain it, the innermost first.
fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(parent(path), |path| parent(path))
}

fn ancestors_and_self(path: &str) -> impl Iterator<Item = &str> {
    std::iter::once(path).chain(ancestors(path))
}
