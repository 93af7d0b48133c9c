//! `cifar10:PATH` and `cifar100:PATH`: the official files, in the binary form
//! or in Python's, unpacked or in the archives that they are published in.
//!
//! An image is 3072 bytes of pixels in either form: all red ones in rows from
//! the top, then all green, then all blue. Source:
//! <https://www.cs.toronto.edu/~kriz/cifar.html>.

mod binary;
mod pickle;
mod python;
mod store;

use std::fs;
use std::path::Path;

use sdpoint_core::file::FileError;

use crate::archive::refuse_archive;
use crate::contents::{Contents, Images};
use crate::error::{DataError, ImageError};
use crate::image::Image;
use crate::left_out::LeftOut;
use crate::split::Split;
use store::{Store, Stored};

const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;

/// Which of the two data sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CifarKind {
    /// 10 classes, 50,000 training and 10,000 test images.
    Cifar10,
    /// 100 classes, 50,000 training and 10,000 test images.
    Cifar100,
}

/// A format in which the data sets are published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Binary,
    Python,
}

impl CifarKind {
    fn name(self) -> &'static str {
        match self {
            CifarKind::Cifar10 => "cifar10",
            CifarKind::Cifar100 => "cifar100",
        }
    }

    /// The folder that the official archive unpacks to.
    pub(crate) fn folder(self, form: Form) -> &'static str {
        match (self, form) {
            (CifarKind::Cifar10, Form::Binary) => "cifar-10-batches-bin",
            (CifarKind::Cifar100, Form::Binary) => "cifar-100-binary",
            (CifarKind::Cifar10, Form::Python) => "cifar-10-batches-py",
            (CifarKind::Cifar100, Form::Python) => "cifar-100-python",
        }
    }

    /// The official archive's name without its ending.
    fn archive(self, form: Form) -> &'static str {
        match (self, form) {
            (CifarKind::Cifar10, Form::Binary) => "cifar-10-binary",
            (CifarKind::Cifar100, Form::Binary) => "cifar-100-binary",
            (CifarKind::Cifar10, Form::Python) => "cifar-10-python",
            (CifarKind::Cifar100, Form::Python) => "cifar-100-python",
        }
    }

    fn classes(self) -> usize {
        match self {
            CifarKind::Cifar10 => 10,
            CifarKind::Cifar100 => 100,
        }
    }

    /// The file of the classes' names.
    fn names_file(self, form: Form) -> &'static str {
        match (self, form) {
            (CifarKind::Cifar10, Form::Binary) => "batches.meta.txt",
            (CifarKind::Cifar100, Form::Binary) => "fine_label_names.txt",
            (CifarKind::Cifar10, Form::Python) => "batches.meta",
            (CifarKind::Cifar100, Form::Python) => "meta",
        }
    }

    /// A split's files.
    fn files(self, form: Form, split: Split) -> &'static [&'static str] {
        match (self, form, split) {
            (CifarKind::Cifar10, Form::Binary, Split::Train) => &[
                "data_batch_1.bin",
                "data_batch_2.bin",
                "data_batch_3.bin",
                "data_batch_4.bin",
                "data_batch_5.bin",
            ],
            (CifarKind::Cifar10, Form::Binary, Split::Test) => &["test_batch.bin"],
            (CifarKind::Cifar100, Form::Binary, Split::Train) => &["train.bin"],
            (CifarKind::Cifar100, Form::Binary, Split::Test) => &["test.bin"],
            (CifarKind::Cifar10, Form::Python, Split::Train) => &[
                "data_batch_1",
                "data_batch_2",
                "data_batch_3",
                "data_batch_4",
                "data_batch_5",
            ],
            (CifarKind::Cifar10, Form::Python, Split::Test) => &["test_batch"],
            (CifarKind::Cifar100, Form::Python, Split::Train) => &["train"],
            (CifarKind::Cifar100, Form::Python, Split::Test) => &["test"],
        }
    }

    /// The folders that the official archives unpack to.
    pub(crate) fn folders(self) -> impl Iterator<Item = &'static str> {
        [Form::Binary, Form::Python]
            .into_iter()
            .map(move |form| self.folder(form))
    }

    /// Whether a file of this name is one of the data set's, in either form.
    pub(crate) fn reads(self, name: &str) -> bool {
        [Form::Binary, Form::Python].into_iter().any(|form| {
            let splits = [Split::Train, Split::Test].into_iter();
            name == self.names_file(form)
                || splits
                    .flat_map(|split| self.files(form, split))
                    .any(|file| *file == name)
        })
    }

    /// How many images each file of a split has.
    fn records(self, split: Split) -> usize {
        match (self, split) {
            (CifarKind::Cifar100, Split::Train) => 50_000,
            _ => 10_000,
        }
    }

    /// Every binary file of the data set, with its size in bytes where it has
    /// one.
    #[cfg(feature = "fetch")]
    pub(crate) fn all_files(self) -> Vec<(&'static str, Option<u64>)> {
        let records = [Split::Train, Split::Test].into_iter().flat_map(|split| {
            let size = (self.records(split) * self.record()) as u64;
            let names = self.files(Form::Binary, split);
            names.iter().map(move |&name| (name, Some(size)))
        });
        records
            .chain([(self.names_file(Form::Binary), None)])
            .collect()
    }

    /// Bytes before a binary record's pixels; the last of them is the label.
    fn label_bytes(self) -> usize {
        match self {
            CifarKind::Cifar10 => 1,
            CifarKind::Cifar100 => 2,
        }
    }

    /// Bytes of a binary record.
    fn record(self) -> usize {
        self.label_bytes() + 3 * PLANE
    }
}

/// The files of a split, in whichever format is present, with their labels.
pub(crate) fn open(kind: CifarKind, root: &Path, split: Split) -> Result<Contents, DataError> {
    let (form, store) = locate(kind, root, split)?;
    let (classes, read): (_, ReadPart) = match form {
        Form::Binary => (binary::names(kind, &store)?, binary::part),
        Form::Python => (python::names(kind, &store)?, python::part),
    };
    let mut labels = Vec::new();
    let mut parts = Vec::new();
    for name in kind.files(form, split) {
        let part = read(kind, split, store.file(name)?, &mut labels)?;
        parts.push((labels.len(), part));
    }
    Ok(Contents {
        classes,
        labels,
        left_out: LeftOut::default(),
        images: Box::new(Records { parts }),
    })
}

/// Reads a file of records and adds its labels.
type ReadPart = fn(CifarKind, Split, Stored, &mut Vec<u32>) -> Result<Part, DataError>;

/// Finds a data set's files: unpacked ones are preferred to archives, and
/// binary ones to Python's.
fn locate(kind: CifarKind, root: &Path, split: Split) -> Result<(Form, Store), DataError> {
    let forms = [Form::Binary, Form::Python];
    if !fs::metadata(root).map_err(DataError::io(root))?.is_dir() {
        refuse_archive(root, false)?;
        for form in forms {
            let store = Store::unpacked(kind, form, root, split)?;
            if store.has(kind.files(form, split)[0]) {
                return Ok((form, store));
            }
        }
        return Err(nothing(kind, root));
    }
    for form in forms {
        for folder in [root.join(kind.folder(form)), root.to_owned()] {
            let mut files = kind.files(form, split).to_vec();
            files.push(kind.names_file(form));
            if files.iter().any(|file| folder.join(file).is_file()) {
                return Ok((form, Store::Folder(folder)));
            }
        }
    }
    for form in forms {
        for end in ["tar.gz", "tar"] {
            let path = root.join(format!("{}.{end}", kind.archive(form)));
            if path.exists() {
                return Ok((form, Store::unpacked(kind, form, &path, split)?));
            }
        }
    }
    Err(nothing(kind, root))
}

fn nothing(kind: CifarKind, root: &Path) -> DataError {
    let name = kind.name();
    let other = match kind {
        CifarKind::Cifar10 => CifarKind::Cifar100,
        CifarKind::Cifar100 => CifarKind::Cifar10,
    };
    let is_other = |form| {
        root.join(other.folder(form)).exists()
            || root
                .join(format!("{}.tar.gz", other.archive(form)))
                .exists()
    };
    let advice = if is_other(Form::Binary) || is_other(Form::Python) {
        format!("the files of the other are there: use {}:DIR", other.name())
    } else {
        format!("`sdpoint fetch {name} DIR` downloads them")
    };
    DataError::Malformed {
        path: root.to_owned(),
        problem: format!(
            "there are no files of {name}: neither {} nor {}, unpacked or as .tar.gz; {advice}",
            kind.folder(Form::Binary),
            kind.folder(Form::Python),
        ),
    }
}

/// A file of records.
struct Part {
    file: Stored,
    /// Offset of the first image's pixels, and stride between images, in bytes.
    first: usize,
    stride: usize,
}

struct Records {
    /// Each with the number of images up to its end.
    parts: Vec<(usize, Part)>,
}

impl Records {
    /// The part that holds an image, and the image's record in it.
    fn place(&self, index: usize) -> (&Part, usize) {
        let part = self.parts.partition_point(|(end, _)| *end <= index);
        let start = part.checked_sub(1).map_or(0, |before| self.parts[before].0);
        (&self.parts[part].1, index - start)
    }

    fn planes(&self, index: usize) -> Result<Vec<u8>, FileError> {
        let (part, record) = self.place(index);
        let offset = part.first + record * part.stride;
        part.file.piece(offset as u64, 3 * PLANE)
    }
}

impl Images for Records {
    fn load(&self, index: usize) -> Result<Image, ImageError> {
        let planes = self.planes(index)?;
        let pixels = (0..PLANE).flat_map(|p| [0, PLANE, 2 * PLANE].map(|plane| planes[plane + p]));
        Image::new(SIDE, SIDE, pixels.collect())
    }

    fn name(&self, index: usize) -> String {
        let (part, record) = self.place(index);
        format!("{} record {record}", part.file.path.display())
    }

    fn key(&self, index: usize) -> String {
        // The same in all formats.
        index.to_string()
    }

    fn stored(&self, _: usize) -> Result<u64, DataError> {
        Ok(3 * PLANE as u64)
    }

    fn bytes(&self, index: usize) -> Option<Vec<u8>> {
        self.planes(index).ok()
    }
}

#[cfg(test)]
mod tests;
