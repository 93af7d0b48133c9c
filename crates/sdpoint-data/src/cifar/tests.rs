//! CIFAR's files, as the tests write them.

use super::*;
use std::io::{Seek, SeekFrom, Write};

use tempfile::TempDir;

/// A folder with all files of the right size, of zeros but for `record`
/// as the record `at` of the split's last file.
fn written(kind: CifarKind, split: Split, at: usize, record: &[u8]) -> TempDir {
    let root = TempDir::new().unwrap();
    let folder = root.path().join(kind.folder(Form::Binary));
    fs::create_dir(&folder).unwrap();
    let names: String = (0..kind.classes()).map(|c| format!("class{c}\n")).collect();
    fs::write(folder.join(kind.names_file(Form::Binary)), names + "\n").unwrap();
    let (files, records) = (kind.files(Form::Binary, split), kind.records(split));
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
        let (files, records) = (kind.files(Form::Binary, split), kind.records(split));
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
    let folder = root.path().join(CifarKind::Cifar10.folder(Form::Binary));
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
