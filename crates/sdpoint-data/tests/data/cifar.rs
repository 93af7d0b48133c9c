//! CIFAR in Python's form, and in the archives that it is published in.

use std::fs;
use std::path::{Path, PathBuf};

use sdpoint_data::{DataError, Dataset, OpenOptions, Source, Split, open, open_pair};
use tempfile::TempDir;

use crate::common::{gzip, tar};

fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/cifar");
    fs::read(folder.join(name)).unwrap()
}

/// A pickled dictionary of one list of names.
fn names(key: &str, count: usize) -> Vec<u8> {
    let text = |text: &str| [&[b'U', text.len() as u8], text.as_bytes()].concat();
    let names: Vec<u8> = (0..count)
        .flat_map(|n| text(&format!("class{n}")))
        .collect();
    [b"\x80\x02}(", &text(key)[..], b"](", &names, b"eu."].concat()
}

/// The files of CIFAR-10 with the batch of a fixture for each of theirs.
fn files(batch: &str) -> Vec<(String, Vec<u8>)> {
    let mut files = vec![("batches.meta".to_owned(), names("label_names", 10))];
    files.extend((1..=5).map(|n| (format!("data_batch_{n}"), fixture(batch))));
    files.push(("test_batch".to_owned(), fixture(batch)));
    files
}

fn unpacked(files: &[(String, Vec<u8>)], folder: &str) -> TempDir {
    let root = TempDir::new().unwrap();
    fs::create_dir_all(root.path().join(folder)).unwrap();
    for (name, bytes) in files {
        fs::write(root.path().join(folder).join(name), bytes).unwrap();
    }
    root
}

fn opened(path: PathBuf) -> Result<(Dataset, Dataset), DataError> {
    open_pair(&Source::Cifar10(path), &OpenOptions::default())
}

#[track_caller]
fn check((train, test): (Dataset, Dataset)) {
    assert_eq!((train.len(), test.len()), (15, 3));
    assert_eq!(train.classes()[9], "class9");
    for data in [&train, &test] {
        for index in 0..data.len() {
            let value = 10 * (index % 3 + 1) as u8;
            assert_eq!(data.label(index), [7, 0, 9][index % 3]);
            let image = data.image(index).unwrap();
            assert_eq!(image.pixel(31, 31), [value, value + 1, value + 2]);
        }
    }
}

#[test]
fn pickles_of_both_pythons_and_all_protocols_are_read() {
    for batch in [
        "python2",
        "protocol2",
        "protocol3",
        "protocol4",
        "protocol5",
    ] {
        let root = unpacked(&files(batch), "cifar-10-batches-py");
        check(opened(root.path().to_owned()).unwrap());
        check(opened(root.path().join("cifar-10-batches-py")).unwrap());
    }
}

#[test]
fn the_fine_labels_of_cifar_100_are_taken() {
    let root = unpacked(
        &[
            ("meta".to_owned(), names("fine_label_names", 100)),
            ("train".to_owned(), fixture("fine")),
            ("test".to_owned(), fixture("fine")),
        ],
        "cifar-100-python",
    );
    let source = Source::Cifar100(root.path().to_owned());
    let train = open(&source, Split::Train, &OpenOptions::default()).unwrap();
    let labels: Vec<u32> = (0..3).map(|index| train.label(index)).collect();
    assert_eq!(labels, [70, 0, 99]);
}

#[test]
fn the_archives_as_they_are_published_are_read() {
    let files = files("python2");
    let members: Vec<(String, &[u8])> = files
        .iter()
        .map(|(name, bytes)| (format!("cifar-10-batches-py/{name}"), &bytes[..]))
        .collect();
    let members: Vec<(&str, &[u8])> = members.iter().map(|(name, b)| (&**name, *b)).collect();
    let archive = tar(&members);
    let root = TempDir::new().unwrap();
    for (name, bytes) in [
        ("cifar-10-python.tar.gz", gzip(&archive)),
        ("cifar-10-python.tar", archive),
    ] {
        let path = root.path().join(name);
        fs::write(&path, bytes).unwrap();
        check(opened(path.clone()).unwrap());
        check(opened(root.path().to_owned()).unwrap());

        // The wrong form of a source is told the right one.
        let error = open(
            &Source::Tar(vec![path.clone()]),
            Split::Train,
            &OpenOptions::default(),
        );
        let text = error.unwrap_err().to_string();
        assert!(text.contains("use cifar10:"), "{text}");
        let error = open(
            &Source::Cifar100(root.path().to_owned()),
            Split::Train,
            &OpenOptions::default(),
        );
        let text = error.unwrap_err().to_string();
        assert!(text.contains("no files of cifar100"), "{text}");
        fs::remove_file(path).unwrap();
    }
    let text = opened(root.path().to_owned()).unwrap_err().to_string();
    for part in [
        "cifar-10-batches-bin",
        "cifar-10-batches-py",
        "sdpoint fetch cifar10",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

/// The binary archive, full size: records of zeros, but for the last.
#[test]
fn the_binary_archive_is_read() {
    let mut batch = vec![0; 10_000 * 3073];
    batch[9_999 * 3073..].fill(3);
    let names: String = (0..10).map(|class| format!("class{class}\n")).collect();
    let archive = tar(&[
        ("cifar-10-batches-bin/batches.meta.txt", names.as_bytes()),
        ("cifar-10-batches-bin/test_batch.bin", &batch),
    ]);
    let root = TempDir::new().unwrap();
    let path = root.path().join("cifar-10-binary.tar.gz");
    fs::write(&path, gzip(&archive)).unwrap();
    let source = Source::Cifar10(root.path().to_owned());
    let test = open(&source, Split::Test, &OpenOptions::default()).unwrap();
    assert_eq!((test.len(), test.label(9_999)), (10_000, 3));
    assert_eq!(test.image(9_999).unwrap().pixel(0, 0), [3; 3]);
    let error = open(&source, Split::Train, &OpenOptions::default()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("has no `data_batch_1.bin`"), "{text}");
}

#[test]
fn pickles_that_are_something_else_are_refused_and_never_run() {
    let sound = fixture("python2");
    let refused = |bytes: Vec<u8>| {
        let mut files = files("python2");
        files[1].1 = bytes;
        let root = unpacked(&files, "cifar-10-batches-py");
        let text = opened(root.path().to_owned()).unwrap_err().to_string();
        assert!(text.contains("data_batch_1"), "{text}");
        text
    };
    let evil = b"\x80\x02cposix\nsystem\nU\x0atouch evil\x85R.".to_vec();
    let text = refused(evil);
    assert!(
        text.contains("`posix.system`") && text.contains("is not run"),
        "{text}"
    );
    assert!(refused(fixture("columns")).contains("by columns"));
    for len in [0, 1, 50, sound.len() / 2, sound.len() - 1] {
        refused(sound[..len].to_vec());
    }
    // A list that holds itself, a length beyond the file, values without end.
    refused(b"\x80\x02]q\x00h\x00a.".to_vec());
    refused(b"\x80\x02T\xff\xff\xff\xff.".to_vec());
    refused([&b"\x80\x02]("[..], &b"K\x01".repeat(3_000_000), b"e."].concat());
    // Nothing that a changed byte makes of it panics.
    for at in (0..sound.len()).step_by(7).take(300) {
        for value in [0, b'(', b'e', b'R', b'b', 0xff] {
            let mut changed = sound.clone();
            changed[at] = value;
            let mut files = files("python2");
            files.truncate(1);
            files.push(("test_batch".to_owned(), changed));
            let root = unpacked(&files, "cifar-10-batches-py");
            let source = Source::Cifar10(root.path().to_owned());
            let _ = open(&source, Split::Test, &OpenOptions::default());
        }
    }
    let mut label = sound.clone();
    let at = label.windows(2).position(|w| w == b"K\x07").unwrap();
    label[at + 1] = 10;
    assert!(refused(label).contains("record 0 has label 10"));
}
