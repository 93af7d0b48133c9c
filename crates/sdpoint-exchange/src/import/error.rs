//! Why a checkpoint does not become a network.

use std::fmt;

use sdpoint_core::NetworkError;

/// A tensor of another shape than the network needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misshapen {
    /// Its name.
    pub name: String,
    /// Its shape in the checkpoint.
    pub found: Vec<usize>,
    /// The shape that it should have.
    pub expected: Vec<usize>,
}

impl fmt::Display for Misshapen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = shown(&self.name);
        write!(f, "{name} {:?} for {:?}", self.found, self.expected)
    }
}

/// What a checkpoint lacks, or has otherwise than a network needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// Which tensors of the file come nearest.
    pub place: String,
    /// The network's name.
    pub network: String,
    /// How many tensors it needs.
    pub needed: usize,
    /// Names that the checkpoint lacks.
    pub missing: Vec<String>,
    /// Tensors of other shapes.
    pub misshapen: Vec<Misshapen>,
    /// Names that the network lacks.
    pub left_over: Vec<String>,
    /// What the names say that it computes, if that is no listed network.
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
pub enum ImportError {
    /// Tensors are missing or have other shapes.
    #[error("{0}")]
    Misfit(Box<Misfit>),
    /// The network is there, and more.
    #[error(
        "{network} has no place for {} of the tensors in {place}: {}{}",
        names.len(),
        listed(names),
        sign.as_ref().map_or(String::new(), |sign| format!("\n  {sign}"))
    )]
    LeftOver {
        /// Which tensors of the file fit.
        place: String,
        /// The network's name.
        network: String,
        /// The tensors that it has no place for.
        names: Vec<String>,
        /// Whether they have names like the network's own, so that they are
        /// parts of a larger one.
        related: bool,
        /// What the names say that it computes, if that is no listed network.
        sign: Option<String>,
    },
    /// A tensor that is needed cannot be read.
    #[error("tensor '{}' {problem}", shown(name))]
    Unreadable {
        /// The tensor.
        name: String,
        /// Why, to go on behind the name.
        problem: String,
    },
    /// All but the classifier fits, and that is not clear.
    #[error("the classifier is not clear: {problem}: {}", listed(names))]
    Classifier {
        /// What is unclear.
        problem: &'static str,
        /// The tensors that it is about.
        names: Vec<String>,
    },
    /// The network fits under several prefixes.
    #[error("its tensors fit under several prefixes: {}", listed(prefixes))]
    Prefixes {
        /// The prefixes.
        prefixes: Vec<String>,
    },
    /// No dictionary has the keys that were asked for.
    #[error(
        "it has no dictionary of tensors '{}'; it has {}",
        shown(key),
        listed(keys)
    )]
    NoKey {
        /// The keys asked for.
        key: String,
        /// The keys that there are.
        keys: Vec<String>,
    },
    /// All dictionaries are averages, which were to be passed over.
    #[error("all weights in it are averaged ones: {}", listed(keys))]
    AveragedOnly {
        /// The keys of the dictionaries.
        keys: Vec<String>,
    },
    /// The number of classes cannot be read off the classifier.
    #[error("the number of classes cannot be read off: {0}")]
    Classes(#[from] NetworkError),
    /// A weight that is no floating-point number.
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
    /// A value that is infinite or no number, or too large for single
    /// precision.
    #[error("tensor '{}' holds values that are not finite in single precision", shown(.0))]
    NotFinite(String),
    /// Tensors that share elements, so that they are more than the file.
    #[error(
        "its tensors share their elements: in all they would have more bytes than the file; \
         clone them before they are saved"
    )]
    Shared,
}

fn line(what: &str, items: &[impl fmt::Display]) -> String {
    if items.is_empty() {
        return String::new();
    }
    format!("\n  {what}: {}", listed(items))
}

/// A few of many names, and how many others there are.
pub(super) fn listed(items: &[impl fmt::Display]) -> String {
    const MOST: usize = 5;
    let first = items.iter().take(MOST);
    let mut text: Vec<String> = first.map(|item| shown(&item.to_string())).collect();
    match items.len().saturating_sub(MOST) {
        0 => {}
        1 => text.push("and 1 other".into()),
        others => text.push(format!("and {others} others")),
    }
    text.join(", ")
}

/// A name of a length that can be read.
pub(super) fn shown(name: &str) -> String {
    const MOST: usize = 90;
    match name.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}
