//! `cifar10:DIR` and `cifar100:DIR`: the official binary files.
//!
//! A record is the label (for CIFAR-100 the coarse one, then the fine one)
//! and 3072 bytes of pixels: all red ones in rows from the top, then all
//! green, then all blue. Source: <https://www.cs.toronto.edu/~kriz/cifar.html>.

use std::fs;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use crate::dataset::{Contents, Images};
use crate::error::{DataError, ImageError};
use crate::file::{open_file, read_at};
use crate::image::Image;

use crate::source::Split;

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

impl CifarKind {
    /// The folder that the official archive unpacks to.
    pub(crate) fn folder(self) -> &'static str {
        match self {
            CifarKind::Cifar10 => "cifar-10-batches-bin",
            CifarKind::Cifar100 => "cifar-100-binary",
        }
    }

    fn classes(self) -> usize {
        match self {
            CifarKind::Cifar10 => 10,
            CifarKind::Cifar100 => 100,
        }
    }

    /// The file of the classes' names, one a line.
    fn names_file(self) -> &'static str {
        match self {
            CifarKind::Cifar10 => "batches.meta.txt",
            CifarKind::Cifar100 => "fine_label_names.txt",
        }
    }

    /// A split's files and how many records each has.
    fn files(self, split: Split) -> (&'static [&'static str], usize) {
        match (self, split) {
            (CifarKind::Cifar10, Split::Train) => (
                &[
                    "data_batch_1.bin",
                    "data_batch_2.bin",
                    "data_batch_3.bin",
                    "data_batch_4.bin",
                    "data_batch_5.bin",
                ],
                10_000,
            ),
            (CifarKind::Cifar10, Split::Test) => (&["test_batch.bin"], 10_000),
            (CifarKind::Cifar100, Split::Train) => (&["train.bin"], 50_000),
            (CifarKind::Cifar100, Split::Test) => (&["test.bin"], 10_000),
        }
    }

    /// Every file of the data set, with its size in bytes where it has one.
    #[cfg(feature = "fetch")]
    pub(crate) fn all_files(self) -> Vec<(&'static str, Option<u64>)> {
        let records = [Split::Train, Split::Test].into_iter().flat_map(|split| {
            let (names, records) = self.files(split);
            names
                .iter()
                .map(move |&name| (name, Some((records * self.record()) as u64)))
        });
        records.chain([(self.names_file(), None)]).collect()
    }

    /// Bytes before a record's pixels; the last of them is the label.
    fn label_bytes(self) -> usize {
        match self {
            CifarKind::Cifar10 => 1,
            CifarKind::Cifar100 => 2,
        }
    }

    /// Bytes of a record.
    fn record(self) -> usize {
        self.label_bytes() + 3 * PLANE
    }
}

/// Checks the files of a split and reads their labels.
pub(crate) fn open(kind: CifarKind, root: &Path, split: Split) -> Result<Contents, DataError> {
    let nested = root.join(kind.folder());
    let folder = if nested.is_dir() {
        nested
    } else {
        root.to_owned()
    };
    let classes = read_names(&folder.join(kind.names_file()), kind.classes())?;
    let (names, records) = kind.files(split);
    let mut labels = Vec::with_capacity(names.len() * records);
    let mut files = Vec::new();
    for name in names {
        files.push(read_labels(kind, folder.join(name), records, &mut labels)?);
    }
    Ok(Contents {
        classes,
        labels,
        images: Box::new(Records {
            kind,
            records,
            files,
        }),
    })
}

fn read_names(path: &Path, expected: usize) -> Result<Vec<String>, DataError> {
    let text = fs::read_to_string(path).map_err(DataError::io(path))?;
    let names = text
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .map(str::to_owned);
    let names: Vec<String> = names.collect();
    if names.len() != expected {
        return Err(DataError::Malformed {
            path: path.to_owned(),
            problem: format!(
                "{} class names where {expected} are expected; remove it and fetch it again",
                names.len()
            ),
        });
    }
    Ok(names)
}

fn read_labels(
    kind: CifarKind,
    path: PathBuf,
    records: usize,
    labels: &mut Vec<u32>,
) -> Result<PathBuf, DataError> {
    let (file, len) = open_file(&path)?;
    let expected = (records * kind.record()) as u64;
    if len != expected {
        return Err(DataError::FileSize {
            path,
            expected: format!("{expected} ({records} records of {})", kind.record()),
            actual: len,
        });
    }
    let mut record = vec![0; kind.record()];
    let mut reader = BufReader::with_capacity(1 << 16, file);
    for number in 0..records {
        reader
            .read_exact(&mut record)
            .map_err(DataError::io(&path))?;
        let label = u32::from(record[kind.label_bytes() - 1]);
        if label as usize >= kind.classes() {
            return Err(DataError::Label {
                path,
                record: number,
                label,
                classes: kind.classes(),
            });
        }
        labels.push(label);
    }
    Ok(path)
}

struct Records {
    kind: CifarKind,
    /// Records in each file.
    records: usize,
    files: Vec<PathBuf>,
}

impl Images for Records {
    fn load(&self, index: usize) -> Result<Image, ImageError> {
        let file = &self.files[index / self.records];
        let start = index % self.records * self.kind.record() + self.kind.label_bytes();
        let planes = read_at(file, start as u64, 3 * PLANE)?;
        let pixels = (0..PLANE).flat_map(|p| [0, PLANE, 2 * PLANE].map(|plane| planes[plane + p]));
        Image::new(SIDE, SIDE, pixels.collect())
    }

    fn name(&self, index: usize) -> String {
        let file = &self.files[index / self.records];
        format!("{} record {}", file.display(), index % self.records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, SeekFrom, Write};

    use tempfile::TempDir;

    /// A folder with all files of the right size, of zeros but for `record`
    /// as the record `at` of the split's last file.
    fn written(kind: CifarKind, split: Split, at: usize, record: &[u8]) -> TempDir {
        let root = TempDir::new().unwrap();
        let folder = root.path().join(kind.folder());
        fs::create_dir(&folder).unwrap();
        let names: String = (0..kind.classes()).map(|c| format!("class{c}\n")).collect();
        fs::write(folder.join(kind.names_file()), names + "\n").unwrap();
        let (files, records) = kind.files(split);
        for name in files {
            let mut file = fs::File::create(folder.join(name)).unwrap();
            file.set_len((records * kind.record()) as u64).unwrap();
            if name == files.last().unwrap() {
                file.seek(SeekFrom::Start((at * kind.record()) as u64))
                    .unwrap();
                file.write_all(record).unwrap();
            }
        }
        root
    }

    fn record(labels: &[u8]) -> Vec<u8> {
        let planes = (0..3u8).flat_map(|c| (0..PLANE).map(move |p| 64 * c + (p % 61) as u8));
        labels.iter().copied().chain(planes).collect()
    }

    #[test]
    fn planes_become_pixels_in_both_formats() {
        for (kind, labels, split) in [
            (CifarKind::Cifar10, &[7][..], Split::Train),
            (CifarKind::Cifar100, &[3, 99], Split::Train),
            (CifarKind::Cifar100, &[3, 42], Split::Test),
        ] {
            let root = written(kind, split, 9_999, &record(labels));
            let contents = open(kind, root.path(), split).unwrap();
            let (files, records) = kind.files(split);
            let index = (files.len() - 1) * records + 9_999;
            assert_eq!(contents.labels.len(), files.len() * records);
            assert_eq!(contents.labels[index], u32::from(*labels.last().unwrap()));
            assert_eq!(contents.classes.len(), kind.classes());
            let image = contents.images.load(index).unwrap();
            assert_eq!(image.pixel(0, 0), [0, 64, 128]);
            assert_eq!(image.pixel(5, 1), [37, 101, 165]);
        }
    }

    #[test]
    fn the_files_may_lie_in_the_folder_itself() {
        let root = written(CifarKind::Cifar10, Split::Test, 0, &record(&[1]));
        let folder = root.path().join(CifarKind::Cifar10.folder());
        assert_eq!(
            open(CifarKind::Cifar10, &folder, Split::Test)
                .unwrap()
                .labels[0],
            1
        );
    }

    #[test]
    fn a_wrong_size_is_named_with_the_right_one() {
        let root = written(CifarKind::Cifar10, Split::Test, 0, &[]);
        let path = root.path().join("cifar-10-batches-bin/test_batch.bin");
        fs::write(&path, [0; 100]).unwrap();
        let message = open(CifarKind::Cifar10, root.path(), Split::Test)
            .err()
            .unwrap()
            .to_string();
        assert!(
            message.contains("test_batch.bin has 100 bytes"),
            "{message}"
        );
        assert!(
            message.contains("30730000 (10000 records of 3073)"),
            "{message}"
        );
    }

    #[test]
    fn a_label_out_of_range_is_named_with_its_record() {
        let root = written(CifarKind::Cifar100, Split::Test, 12, &record(&[0, 100]));
        let message = open(CifarKind::Cifar100, root.path(), Split::Test)
            .err()
            .unwrap()
            .to_string();
        assert!(
            message.contains("test.bin: record 12 has label 100"),
            "{message}"
        );
    }

    #[test]
    fn missing_files_and_missing_names_are_named() {
        let root = written(CifarKind::Cifar10, Split::Test, 0, &[]);
        let message = open(CifarKind::Cifar10, root.path(), Split::Train)
            .err()
            .unwrap()
            .to_string();
        assert!(message.contains("data_batch_1.bin"), "{message}");
        fs::write(
            root.path().join("cifar-10-batches-bin/batches.meta.txt"),
            "cat\n",
        )
        .unwrap();
        let message = open(CifarKind::Cifar10, root.path(), Split::Test)
            .err()
            .unwrap()
            .to_string();
        assert!(
            message.contains("batches.meta.txt: 1 class names where 10"),
            "{message}"
        );
    }
}
