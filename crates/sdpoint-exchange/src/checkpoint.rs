//! Readers of checkpoints written by other programs.
//!
//! Files are untrusted. No code in them is executed; every size is checked
//! against the file's before anything is read; and memory is bounded by the
//! file itself, its list of tensors, and the values that the caller requests.

mod architecture;
mod bytes;
mod data;
mod element;
mod find;
mod foreign;
mod module;
mod module_tree;
mod numpy;
mod option_text;
mod pickle;
mod safetensors;
mod set;
mod shards;
mod storage;
mod torch;
mod zip;

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sdpoint_core::file::{self, FileError};

use data::Data;
use element::Element;
pub(crate) use module_tree::{Part, Setting, Whole};
use set::Content;
pub use set::TensorSet;
pub(crate) use set::{AVERAGES, Entry, Obstacle, says_averaged};

/// The most dimensions of a tensor; those of networks have fewer.
const MAX_SIDES: usize = 8;

/// The most elements of a tensor that repeats its data, as `expand` makes it;
/// others have at most as many as their data.
const MAX_REPEATED: usize = 1 << 20;

/// The tensors of a safetensors file or of a file of `torch.save`.
#[derive(Debug)]
pub struct Checkpoint {
    file: Vec<u8>,
    content: Content,
}

/// A tensor in a checkpoint: its type and shape, and where its elements are in
/// the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTensor {
    element: Element,
    shape: Vec<usize>,
    strides: Vec<usize>,
    /// Index in `data` of its first element.
    offset: usize,
    /// The bytes of the file that it is a view of.
    data: Data,
    /// Whether the bytes of each element are in reverse order.
    big_endian: bool,
}

/// A checkpoint that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The file is missing or cannot be read.
    #[error("cannot read '{}': {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The file's content cannot be used.
    #[error("'{}' cannot be imported: {fault}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        fault: Fault,
    },
}

/// What is wrong with a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The format is unknown.
    #[error("it is neither a safetensors file nor one written by torch.save (.pth, .pt)")]
    Unrecognised,
    /// The file is damaged or malicious.
    #[error("its {format} is damaged: {problem}")]
    Malformed {
        /// The damaged layer of the file's format.
        format: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The file has a known format that contains no weights of PyTorch.
    #[error("{0}")]
    Foreign(String),
    /// A pickle describes more values than any checkpoint of a network.
    #[error(
        "it contains too many objects besides the weights. \
         Save the weights alone: torch.save(model.state_dict(), path)"
    )]
    TooMuch,
    /// The file has more tensors than any network.
    #[error(
        "it contains too many tensors. \
         Save the weights alone: torch.save(model.state_dict(), path)"
    )]
    TooManyTensors,
    /// The file contains no dictionary of tensors.
    #[error(
        "it contains no dictionary of tensors. \
         Save the weights alone: torch.save(model.state_dict(), path)"
    )]
    NoStateDict,
    /// The file is larger than the free memory.
    #[error("it has {0} bytes, more than the free memory")]
    Memory(u64),
    /// The file is a model of this program.
    #[error("it already is a model of sdpoint, which every command accepts as it is")]
    Model,
    /// The file is the state of a training run of this program.
    #[error(
        "it is the state of a training run of sdpoint: `train --resume` continues it, and the \
         trained model is model.safetensors in the same folder"
    )]
    Run,
}

/// The format of a file.
enum Format {
    Zip,
    Pickle,
    Safetensors,
}

impl Format {
    /// The format by the first bytes.
    fn of(start: &[u8]) -> Option<Self> {
        let has_header = start.get(8) == Some(&b'{');
        if start.starts_with(torch::ZIP) {
            Some(Self::Zip)
        } else if (start.first() == Some(&torch::PICKLE) && !has_header)
            || torch::is_old_pickle(start)
        {
            Some(Self::Pickle)
        } else {
            has_header.then_some(Self::Safetensors)
        }
    }
}

/// Refuses a file of another format before all of it is read.
fn check_start(path: &Path) -> Result<(), CheckpointError> {
    const START: u64 = 1 << 12;
    let mut start = Vec::new();
    let (file, _) = file::open(path).map_err(unreadable(path))?;
    let read = file.take(START).read_to_end(&mut start);
    read.map_err(|error| unreadable(path)(error.into()))?;
    match Format::of(&start) {
        Some(_) => Ok(()),
        None => Err(CheckpointError::Unusable {
            path: path.to_owned(),
            fault: foreign::file(&start),
        }),
    }
}

/// Reads a whole file, if it fits into memory.
fn read(path: &Path) -> Result<Vec<u8>, CheckpointError> {
    file::read(path, u64::MAX).map_err(unreadable(path))
}

/// Adds a file's name to the error of reading it, for `map_err`.
fn unreadable(path: &Path) -> impl Fn(FileError) -> CheckpointError {
    move |error| match error {
        FileError::Memory(bytes) => CheckpointError::Unusable {
            path: path.to_owned(),
            fault: Fault::Memory(bytes),
        },
        error => CheckpointError::Read {
            path: path.to_owned(),
            source: error.into(),
        },
    }
}

impl Checkpoint {
    /// Whether a path is that of an index of shards, by its name.
    pub fn is_index(path: &Path) -> bool {
        shards::is_index(path)
    }

    /// Reads a file, or the files that an index of shards lists, such as
    /// `model.safetensors.index.json`.
    ///
    /// # Errors
    /// If a file cannot be read, is of no known format, or is damaged.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, CheckpointError> {
        let path = path.as_ref();
        if Self::is_index(path) {
            return shards::open(path);
        }
        check_start(path)?;
        Self::parse(read(path)?).map_err(|fault| CheckpointError::Unusable {
            path: path.to_owned(),
            fault,
        })
    }

    /// Finds the dictionaries of tensors in a file's content.
    ///
    /// # Errors
    /// If the content is of no known format, damaged, or without tensors.
    pub fn parse(file: Vec<u8>) -> Result<Self, Fault> {
        let content = match Format::of(&file) {
            Some(Format::Zip) => torch::zipped(&file)?,
            Some(Format::Pickle) => torch::pickled(&file)?,
            Some(Format::Safetensors) => Content {
                sets: vec![TensorSet::at_top(safetensors::tensors(&file, 0)?)],
                architectures: Vec::new(),
            },
            None => return Err(foreign::file(&file)),
        };
        Ok(Self { file, content })
    }

    /// The dictionaries of tensors, those at the outermost levels first.
    pub fn sets(&self) -> &[TensorSet] {
        &self.content.sets
    }

    /// The name that the training script gave to the network, saved as `arch`,
    /// `model_name` or the like at the top level, or among its options
    /// (`hyper_parameters`, `args`). It may be wrong: only the tensors tell what can
    /// be imported.
    pub fn architecture(&self) -> Option<&str> {
        self.architectures().next()
    }

    /// All names of the network that the file has, the most specific first. They may
    /// contradict each other.
    pub fn architectures(&self) -> impl Iterator<Item = &str> {
        self.content.architectures.iter().map(String::as_str)
    }

    /// Size of the file in bytes.
    pub(crate) fn size(&self) -> usize {
        self.file.len()
    }

    /// A tensor's values in row-major order; `None` if its elements are not
    /// floating-point numbers.
    pub fn values(&self, tensor: &StoredTensor) -> Option<Vec<f32>> {
        let read = tensor.element.reader()?;
        let size = tensor.element.size();
        let data = tensor.data.read(&self.file)?;
        let value = |bytes: &[u8]| {
            if tensor.big_endian {
                let mut little = [0; 8];
                let little = &mut little[..size];
                little.copy_from_slice(bytes);
                little.reverse();
                read(little)
            } else {
                read(bytes)
            }
        };
        let mut values = Vec::with_capacity(tensor.len());
        let mut index = vec![0; tensor.shape.len()];
        let mut place = tensor.offset;
        // `StoredTensor::new` checked that all elements are within the data.
        for _ in 0..tensor.len() {
            values.push(value(&data[place * size..][..size]));
            for side in (0..index.len()).rev() {
                index[side] += 1;
                place += tensor.strides[side];
                if index[side] < tensor.shape[side] {
                    break;
                }
                place -= tensor.strides[side] * tensor.shape[side];
                index[side] = 0;
            }
        }
        Some(values)
    }
}

impl StoredTensor {
    /// A strided view, if all its elements are within the data and it has no
    /// more elements than the data, or not many more.
    fn new(
        element: Element,
        shape: Vec<usize>,
        strides: Vec<usize>,
        offset: usize,
        data: impl Into<Data>,
    ) -> Result<Self, String> {
        let data = data.into();
        let held = data.len() / element.size();
        let count = shape
            .iter()
            .try_fold(1usize, |count, &side| count.checked_mul(side));
        let last = std::iter::zip(&shape, &strides).try_fold(offset, |last, (&side, &stride)| {
            last.checked_add(side.saturating_sub(1).checked_mul(stride)?)
        });
        match (count, last) {
            (Some(0), _) => {}
            (Some(count), Some(last)) if count <= held.max(MAX_REPEATED) && last < held => {}
            _ => {
                return Err(format!(
                    "of shape {shape:?} needs more than the {held} elements that its data has"
                ));
            }
        }
        // The stride of a dimension of size 1 is never used, so it may be anything.
        let strides = std::iter::zip(&shape, strides)
            .map(|(&side, stride)| if side > 1 { stride } else { 0 })
            .collect();
        Ok(Self {
            element,
            shape,
            strides,
            offset,
            data,
            big_endian: false,
        })
    }

    /// The same tensor, with elements in this byte order.
    fn with_byte_order(mut self, big_endian: bool) -> Self {
        self.big_endian = big_endian;
        self
    }

    /// A contiguous tensor of all of the data.
    fn contiguous(
        element: Element,
        shape: Vec<usize>,
        data: impl Into<Data>,
    ) -> Result<Self, String> {
        let mut strides = vec![1; shape.len()];
        for side in (1..shape.len()).rev() {
            strides[side - 1] = shape[side].saturating_mul(strides[side]);
        }
        Self::new(element, shape, strides, 0, data)
    }

    /// The sizes of its dimensions.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of its elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether its elements are floating-point numbers.
    pub(crate) fn is_float(&self) -> bool {
        self.element.reader().is_some()
    }

    /// The name of the type of its elements, such as `float16`.
    pub fn dtype(&self) -> String {
        self.element.to_string()
    }

    /// Size of its elements in the file, in bytes, without the repeated ones.
    pub(crate) fn bytes(&self) -> usize {
        self.len() * self.element.size() - self.repeated() * self.element.size()
    }

    /// The number of elements that it has beyond those of its data.
    pub(crate) fn repeated(&self) -> usize {
        self.len()
            .saturating_sub(self.data.len() / self.element.size())
    }
}

#[cfg(test)]
mod tests;
