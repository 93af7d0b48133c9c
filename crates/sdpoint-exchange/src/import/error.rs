//! Errors of the import.

use std::fmt;

use sdpoint_core::NetworkError;

/// A tensor of the wrong shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misshapen {
    /// Its name.
    pub name: String,
    /// Its shape in the checkpoint.
    pub found: Vec<usize>,
    /// The shape that the network needs.
    pub expected: Vec<usize>,
}

impl fmt::Display for Misshapen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = shown(&self.name);
        write!(f, "{name} {:?} for {:?}", self.found, self.expected)
    }
}

/// The differences between a checkpoint and the tensors that a network needs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Misfit {
    /// The part of the file that fits best, for messages.
    pub place: String,
    /// The network's name.
    pub network: String,
    /// The number of tensors that it needs.
    pub needed: usize,
    /// Names of tensors that the checkpoint lacks.
    pub missing: Vec<String>,
    /// Tensors of the wrong shape.
    pub misshapen: Vec<Misshapen>,
    /// Names of tensors that the network does not use.
    pub left_over: Vec<String>,
    /// A feature of an unsupported network that the names indicate.
    pub sign: Option<String>,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} does not fit {}, which needs {} tensors: {} missing, {} of another shape, {} left \
             over{}{}{}",
            self.place,
            self.network,
            self.needed,
            self.missing.len(),
            self.misshapen.len(),
            self.left_over.len(),
            line("missing", &self.missing),
            line("of another shape", &self.misshapen),
            line("left over", &self.left_over),
        )?;
        match &self.sign {
            Some(sign) => write!(f, "\n  {sign}"),
            None => Ok(()),
        }
    }
}

/// A checkpoint that does not fit a network.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// Tensors are missing or have the wrong shape.
    #[error("{0}")]
    Misfit(Box<Misfit>),
    /// All required tensors are there, and others that the network does not use.
    #[error(
        "{network} has no place for {} of the tensors in {place}: {}{}",
        names.len(),
        listed(names),
        sign.as_ref().map_or(String::new(), |sign| format!("\n  {sign}"))
    )]
    LeftOver {
        /// The part of the file that fits, for messages.
        place: String,
        /// The network's name.
        network: String,
        /// The tensors that it does not use.
        names: Vec<String>,
        /// Whether their names resemble the network's own, so that they are
        /// probably parts of a larger network.
        related: bool,
        /// A feature of an unsupported network that the names indicate.
        sign: Option<String>,
    },
    /// The tensors fit, but the modules that were saved with them compute
    /// something else.
    #[error(
        "the saved module computes something else than {network}:{}",
        lines(modules)
    )]
    Computation {
        /// The network's name.
        network: String,
        /// The modules by their paths, each with what is different.
        modules: Vec<String>,
    },
    /// A required tensor cannot be read.
    #[error("tensor '{}' {problem}", shown(name))]
    Unreadable {
        /// The tensor.
        name: String,
        /// Why: a predicate, shown after the name.
        problem: String,
    },
    /// Everything fits but the classifier, which is ambiguous.
    #[error("the classifier is not clear: {problem}: {}", listed(names))]
    Classifier {
        /// What is ambiguous.
        problem: &'static str,
        /// The tensors concerned.
        names: Vec<String>,
    },
    /// The network fits under several prefixes.
    #[error("its tensors fit under several prefixes: {}", listed(prefixes))]
    Prefixes {
        /// The prefixes.
        prefixes: Vec<String>,
    },
    /// There is no dictionary at the requested path.
    #[error(
        "it has no dictionary of tensors {}; it has {}",
        place(key),
        listed(keys)
    )]
    NoKey {
        /// The requested path.
        key: String,
        /// The paths of all dictionaries.
        keys: Vec<String>,
    },
    /// All dictionaries are averaged weights, which were excluded.
    #[error("it has averaged weights only: {}", listed(keys))]
    AveragedOnly {
        /// The paths of the dictionaries.
        keys: Vec<String>,
    },
    /// The classifier's number of outputs is not a valid number of classes.
    #[error("the classifier's number of outputs is not usable: {0}")]
    Classes(#[from] NetworkError),
    /// A weight is not of a floating-point type.
    #[error(
        "tensor '{}' holds {dtype}; weights can be float32, float16, bfloat16 or float64",
        shown(name)
    )]
    Dtype {
        /// The tensor.
        name: String,
        /// The type of its elements.
        dtype: String,
    },
    /// A value is infinite, NaN, or too large for single precision.
    #[error("tensor '{}' holds values that are not finite in single precision", shown(.0))]
    NotFinite(String),
    /// A variance is below zero.
    #[error("tensor '{}' holds negative variances", shown(.0))]
    Negative(String),
    /// Tensors share elements, so that together they are larger than the file.
    #[error(
        "its tensors share their elements: in all they would have more bytes than the file; \
         clone them before they are saved"
    )]
    Shared,
}

/// A path to a dictionary, in words.
fn place(key: &str) -> String {
    match key {
        "" => "at its top level".into(),
        key => format!("'{}'", shown(key)),
    }
}

fn line(what: &str, items: &[impl fmt::Display]) -> String {
    if items.is_empty() {
        return String::new();
    }
    format!("\n  {what}: {}", listed(items))
}

/// The first few names, and the number of others.
pub(super) fn listed(items: &[impl fmt::Display]) -> String {
    few(items).join(", ")
}

/// As [`listed`], each on a line.
fn lines(items: &[impl fmt::Display]) -> String {
    few(items)
        .iter()
        .map(|item| format!("\n  {item}"))
        .collect()
}

fn few(items: &[impl fmt::Display]) -> Vec<String> {
    const MOST: usize = 5;
    let first = items.iter().take(MOST);
    let mut text: Vec<String> = first.map(|item| shown(&item.to_string())).collect();
    match items.len().saturating_sub(MOST) {
        0 => {}
        1 => text.push("and 1 other".into()),
        others => text.push(format!("and {others} others")),
    }
    text
}

/// A name, shortened for messages.
pub(super) fn shown(name: &str) -> String {
    const MOST: usize = 90;
    match name.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}
