//! The tensors that a network needs.

use std::collections::{HashMap, HashSet};

use sdpoint_core::{Network, Op};

use super::names::unwrapped;

/// The tensors that a network needs, apart from its classifier.
pub(super) struct Layout {
    /// Parameters and then statistics, each with its name and shape.
    pub body: Vec<(String, Vec<usize>)>,
    /// The number of parameters among them.
    pub parameters: usize,
    pub classifier: Option<Linear>,
}

/// A classifier.
pub(super) struct Linear {
    pub name: String,
    pub features: usize,
    pub bias: bool,
}

impl Layout {
    pub fn of(network: &Network) -> Self {
        let classifier = network.layers().last().and_then(|layer| match layer.op {
            Op::Linear {
                in_features, bias, ..
            } => Some(Linear {
                name: layer.name.clone(),
                features: in_features,
                bias,
            }),
            _ => None,
        });
        let of_classifier = |name: &str| {
            let own = classifier.as_ref().and_then(|c| name.strip_prefix(&c.name));
            own.is_some_and(|rest| rest == ".weight" || rest == ".bias")
        };
        let parameters = network.parameters().iter();
        let mut body: Vec<_> = parameters
            .filter(|parameter| !of_classifier(&parameter.name))
            .map(|parameter| (parameter.name.clone(), parameter.shape.clone()))
            .collect();
        let parameters = body.len();
        body.extend(network.norms().iter().flat_map(|norm| {
            ["running_mean", "running_var"]
                .map(|kind| (format!("{}.{kind}", norm.name), vec![norm.channels]))
        }));
        Self {
            body,
            parameters,
            classifier,
        }
    }

    /// The number of tensors.
    pub fn len(&self) -> usize {
        let classifier = self.classifier.as_ref();
        self.body.len() + classifier.map_or(0, |c| 1 + usize::from(c.bias))
    }

    /// The shapes of all but the classifier, by name.
    pub fn shapes(&self) -> HashMap<&str, &[usize]> {
        let body = self.body.iter();
        body.map(|(name, shape)| (&name[..], &shape[..])).collect()
    }

    /// The first components of the names of its tensors.
    fn roots(&self) -> HashSet<&str> {
        let root = |name: &'_ str| name.split('.').next().map(str::len);
        let names = self.body.iter();
        let roots = names.filter_map(|(name, _)| Some(&name[..root(name)?]));
        roots
            .chain(self.classifier.as_ref().map(|c| &c.name[..]))
            .collect()
    }

    /// Whether the names of tensors resemble the network's, so that they may be
    /// parts of a larger network of its kind.
    pub fn related(&self, names: &[String], prefix: &str) -> bool {
        let roots = self.roots();
        let related = |name: &String| {
            let name = unwrapped(name);
            let own = name.strip_prefix(prefix).unwrap_or(&name);
            roots.contains(own.split('.').next().unwrap_or(own))
        };
        names.iter().any(related)
    }
}
