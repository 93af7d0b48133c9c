//! The modules of a whole pickled module: what the names and shapes of its
//! tensors do not say about its computation.

use std::collections::BTreeMap;

/// A whole module, as a tree of modules.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Whole {
    /// The modules by their paths, `layer1.0.conv1`; that of the root is empty.
    pub parts: BTreeMap<String, Part>,
}

/// A module without its tensors.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Part {
    /// The full name of its class, `torch.nn.modules.conv.Conv2d`.
    pub class: String,
    /// Its attributes that change what it computes.
    pub settings: BTreeMap<&'static str, Setting>,
    /// Whether it was compiled to TorchScript, which keeps few attributes.
    pub is_script: bool,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Setting {
    None,
    /// A number or a tuple of numbers.
    Numbers(Vec<f64>),
    Text(String),
    /// Anything else.
    Unknown,
}

impl Whole {
    /// The root.
    pub fn root(&self) -> Option<&Part> {
        self.parts.get("")
    }
}

impl Part {
    /// The name of its class without the modules of Python.
    pub fn name(&self) -> &str {
        self.class.rsplit('.').next().unwrap_or(&self.class)
    }

    /// Whether the class is one of PyTorch's own.
    pub fn is_of_pytorch(&self) -> bool {
        self.class.starts_with("torch.nn.")
    }

    /// A number or a pair of numbers as a pair.
    pub fn pair(&self, name: &str) -> Option<[f64; 2]> {
        match self.settings.get(name)? {
            Setting::Numbers(numbers) => match numbers[..] {
                [both] => Some([both; 2]),
                [height, width] => Some([height, width]),
                _ => None,
            },
            _ => None,
        }
    }
}
