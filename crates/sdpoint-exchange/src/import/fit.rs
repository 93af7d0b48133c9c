//! Matches one dictionary of tensors against a network.

use std::collections::{HashMap, HashSet};

use super::classifier::{self, Classifier, Unclear};
use super::error::{ImportError, Misfit, Misshapen};
use super::layout::{Layout, Linear};
use super::names::{Named, Names, Score, unwrapped};
use super::{ClassifierOrigin, ImportOptions, signs};
use crate::checkpoint::{StoredTensor, TensorSet, says_averaged};

/// The source of a parameter's values.
pub(super) enum Source<'c> {
    Tensor {
        name: &'c str,
        tensor: &'c StoredTensor,
    },
    /// Not in the file; zeros have the same effect.
    Zeros,
}

/// The match of one dictionary with a network.
pub(super) struct Fit<'c> {
    pub set: &'c TensorSet,
    pub prefix: String,
    /// Whether the names of dictionary or prefix indicate averaged weights.
    pub averaged: bool,
    /// The sources of the network's parameters and statistics in order, if none
    /// is missing.
    pub sources: Vec<Source<'c>>,
    pub classifier: Option<ClassifierOrigin>,
    pub left_over: Vec<String>,
    pub outside: Vec<String>,
    pub score: Score,
    problem: Option<Problem>,
}

/// Why a dictionary does not fit.
enum Problem {
    Prefixes(Vec<String>),
    Unreadable {
        name: String,
        problem: String,
    },
    Classifier {
        problem: &'static str,
        names: Vec<String>,
    },
    Misfit {
        missing: Vec<String>,
        misshapen: Vec<Misshapen>,
    },
}

impl<'c> Fit<'c> {
    pub fn new(set: &'c TensorSet, layout: &Layout, choice: &ImportOptions) -> Self {
        let names = Names::of(set);
        let shapes = layout.shapes();
        let scores = names.prefixes(&shapes);
        let (prefix, rivals) = prefix(&scores, layout, choice);
        let mut matching = Matching::new(&names, &prefix);
        for (name, shape) in &layout.body {
            matching.take(name, shape);
        }
        let mut fit = Self {
            set,
            averaged: set.is_averaged() || says_averaged(&prefix),
            sources: Vec::new(),
            classifier: None,
            left_over: Vec::new(),
            outside: Vec::new(),
            score: scores.get(&prefix[..]).copied().unwrap_or_default(),
            problem: None,
            prefix,
        };
        if let Some(linear) = &layout.classifier {
            fit.take_classifier(&mut matching, linear, layout);
        }
        fit.account_for(&matching);
        fit.sources = matching.sources;
        let problem = if !rivals.is_empty() {
            Some(Problem::Prefixes(rivals))
        } else if !(matching.missing.is_empty() && matching.misshapen.is_empty()) {
            Some(Problem::Misfit {
                missing: matching.missing,
                misshapen: matching.misshapen,
            })
        } else {
            let unreadable = matching.unreadable.into_iter().next();
            unreadable.map(|(name, problem)| Problem::Unreadable { name, problem })
        };
        fit.problem = problem.or(fit.problem);
        fit
    }

    /// Whether its dictionary was joined from several, and tensors of the one at
    /// this path are used.
    pub fn uses_part(&self, key: &str) -> bool {
        let part = match self.set.key() {
            _ if !self.set.is_joined() => None,
            "" => Some(key),
            own => key
                .strip_prefix(own)
                .and_then(|rest| rest.strip_prefix('.')),
        };
        part.and_then(|part| self.set.name_of_part(part))
            .is_some_and(|part| {
                self.sources.iter().any(|source| match source {
                    Source::Tensor { name, .. } => name
                        .strip_prefix(&part[..])
                        .is_some_and(|rest| rest.starts_with('.')),
                    Source::Zeros => false,
                })
            })
    }

    /// Finds the classifier, whose tensors follow the other parameters.
    fn take_classifier(
        &mut self,
        matching: &mut Matching<'_, 'c>,
        linear: &Linear,
        layout: &Layout,
    ) {
        if matching.taken.is_empty() {
            // What lies elsewhere is not this network's classifier.
            return matching.lacks_classifier(linear);
        }
        let body = layout.shapes();
        let is_body = |name: &str| {
            let own = name.strip_prefix(&self.prefix[..]);
            own.is_some_and(|own| body.contains_key(own))
        };
        let found = classifier::find(
            matching.names,
            &self.prefix,
            &linear.name,
            linear.features,
            is_body,
        );
        let (problem, names) = match found {
            Ok(classifier) => {
                let name = classifier.weight.original;
                let usual = format!("{}{}.weight", self.prefix, linear.name);
                self.classifier = Some(ClassifierOrigin {
                    name: name.strip_suffix(".weight").unwrap_or(name).to_owned(),
                    renamed: classifier.weight.plain != usual,
                    bias: classifier.bias.is_some(),
                    outputs: classifier.outputs,
                });
                return matching.take_classifier(&classifier, linear, layout.parameters);
            }
            Err(Unclear::Missing) => return matching.lacks_classifier(linear),
            Err(Unclear::Several(names)) => ("several layers could be it", names),
            Err(Unclear::Layers(names)) => (
                "it has more layers than the network's single linear layer",
                names,
            ),
        };
        self.problem = Some(Problem::Classifier { problem, names });
    }

    /// Sorts the unused tensors into those with the prefix and those without.
    fn account_for(&mut self, matching: &Matching<'_, 'c>) {
        for named in &matching.names.all {
            // Other objects are not unused tensors.
            let is_object = named
                .entry
                .as_ref()
                .is_err_and(|obstacle| !obstacle.is_tensor);
            if is_object || matching.taken.contains(named.original) {
                continue;
            }
            let own = named.plain.starts_with(&self.prefix[..]);
            let names = if own {
                &mut self.left_over
            } else {
                &mut self.outside
            };
            names.push(named.original.to_owned());
        }
    }

    /// Whether all required tensors are there.
    pub fn fits(&self) -> bool {
        self.problem.is_none()
    }

    /// # Errors
    /// If a required tensor is missing or unusable, or some are unused and
    /// `choice` does not allow that.
    pub fn check(
        &self,
        network: &str,
        layout: &Layout,
        choice: &ImportOptions,
    ) -> Result<(), ImportError> {
        let Some(problem) = &self.problem else {
            if self.left_over.is_empty() || choice.allow_left_over {
                return Ok(());
            }
            return Err(ImportError::LeftOver {
                place: self.place(),
                network: network.to_owned(),
                related: layout.related(&self.left_over, &self.prefix),
                names: self.left_over.clone(),
                sign: signs::of(self.set),
            });
        };
        Err(match problem {
            Problem::Prefixes(prefixes) => ImportError::Prefixes {
                prefixes: prefixes.clone(),
            },
            Problem::Unreadable { name, problem } => ImportError::Unreadable {
                name: name.clone(),
                problem: problem.clone(),
            },
            Problem::Classifier { problem, names } => ImportError::Classifier {
                problem,
                names: names.clone(),
            },
            Problem::Misfit { missing, misshapen } => ImportError::Misfit(Box::new(Misfit {
                place: self.place(),
                network: network.to_owned(),
                needed: layout.len(),
                missing: missing.clone(),
                misshapen: misshapen.clone(),
                left_over: self.left_over.clone(),
                sign: signs::of_missing(missing)
                    .or_else(|| signs::of_misshapen(misshapen))
                    .or_else(|| signs::of(self.set)),
            })),
        })
    }

    /// The part of the file that was matched, for messages.
    fn place(&self) -> String {
        let prefix = match &self.prefix[..] {
            "" => String::new(),
            prefix => format!(" with the prefix '{prefix}'"),
        };
        match self.set.key() {
            "" if prefix.is_empty() => "it".into(),
            "" => format!("its part{prefix}"),
            key => format!("its '{key}'{prefix}"),
        }
    }
}

/// The prefix of the network's names, and all candidates if it is ambiguous.
fn prefix(
    scores: &HashMap<&str, Score>,
    layout: &Layout,
    choice: &ImportOptions,
) -> (String, Vec<String>) {
    if let Some(prefix) = &choice.prefix {
        let prefix = unwrapped(prefix).into_owned();
        let open = prefix.is_empty() || prefix.ends_with('.');
        return (if open { prefix } else { prefix + "." }, Vec::new());
    }
    let mut whole: Vec<&str> = scores
        .iter()
        .filter(|(_, score)| score.shapes == layout.body.len())
        .map(|(&prefix, _)| prefix)
        .collect();
    whole.sort_by_key(|prefix| (prefix.len(), *prefix));
    let wanted = |prefix: &&str| says_averaged(prefix) != choice.plain;
    if whole.len() > 1 && whole.iter().any(wanted) {
        whole.retain(wanted);
    }
    match whole[..] {
        [] => {
            let best = scores.iter().max_by_key(|(prefix, score)| {
                (
                    score.shapes + score.names,
                    std::cmp::Reverse((prefix.len(), **prefix)),
                )
            });
            // A prefix with only a few matching names is a coincidence.
            let best = best.filter(|(_, score)| 2 * score.names > layout.body.len());
            let best = best.map_or(String::new(), |(prefix, _)| (*prefix).to_owned());
            (best, Vec::new())
        }
        [one] => (one.to_owned(), Vec::new()),
        [first, ..] => (
            first.to_owned(),
            whole.iter().map(|prefix| format!("'{prefix}'")).collect(),
        ),
    }
}

/// Matches the network's tensors one by one with those of a dictionary.
struct Matching<'n, 'c> {
    names: &'n Names<'c>,
    prefix: String,
    sources: Vec<Source<'c>>,
    taken: HashSet<&'c str>,
    missing: Vec<String>,
    misshapen: Vec<Misshapen>,
    /// Names of unreadable tensors, and why they are.
    unreadable: Vec<(String, String)>,
}

impl<'n, 'c> Matching<'n, 'c> {
    fn new(names: &'n Names<'c>, prefix: &str) -> Self {
        Self {
            names,
            prefix: prefix.to_owned(),
            sources: Vec::new(),
            taken: HashSet::new(),
            missing: Vec::new(),
            misshapen: Vec::new(),
            unreadable: Vec::new(),
        }
    }

    fn take(&mut self, name: &str, shape: &[usize]) {
        match self.names.get(&format!("{}{name}", self.prefix)) {
            Some(named) => {
                let source = self.source(named, shape);
                self.sources.extend(source);
            }
            None => self.missing.push(format!("{}{name}", self.prefix)),
        }
    }

    fn source(&mut self, named: &Named<'c>, shape: &[usize]) -> Option<Source<'c>> {
        let name = named.original;
        self.taken.insert(name);
        match named.entry {
            Ok(tensor) if squeezed(tensor.shape(), shape.len()) == shape => {
                Some(Source::Tensor { name, tensor })
            }
            Ok(tensor) => {
                self.misshapen.push(Misshapen {
                    name: name.to_owned(),
                    found: tensor.shape().to_vec(),
                    expected: shape.to_vec(),
                });
                None
            }
            Err(obstacle) => {
                self.unreadable
                    .push((name.to_owned(), obstacle.problem.clone()));
                None
            }
        }
    }

    fn lacks_classifier(&mut self, linear: &Linear) {
        let kinds = ["weight", "bias"]
            .into_iter()
            .take(1 + usize::from(linear.bias));
        let names = kinds.map(|kind| format!("{}{}.{kind}", self.prefix, linear.name));
        self.missing.extend(names);
    }

    /// Inserts the classifier's tensors before the statistics.
    fn take_classifier(&mut self, found: &Classifier<'_, 'c>, linear: &Linear, place: usize) {
        let weight = self.source(found.weight, &[found.outputs.max(1), linear.features]);
        let bias = match found.bias {
            // Without the weight, the bias's length is unknown.
            Some(bias) if weight.is_none() => {
                self.taken.insert(bias.original);
                None
            }
            Some(bias) if linear.bias => self.source(bias, &[found.outputs]),
            _ => linear.bias.then_some(Source::Zeros),
        };
        let statistics = self.sources.split_off(place.min(self.sources.len()));
        self.sources.extend(weight.into_iter().chain(bias));
        self.sources.extend(statistics);
    }
}

/// A shape without sides of one element at its end, beyond so many sides: a
/// convolution of 1×1 as a linear layer.
fn squeezed(shape: &[usize], sides: usize) -> &[usize] {
    match shape.get(sides..) {
        Some(rest) if sides == 2 && rest.iter().all(|&side| side == 1) => &shape[..sides],
        _ => shape,
    }
}
