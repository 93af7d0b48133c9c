//! Images in tar archives, plain and compressed, sound and hostile.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use sdpoint_data::{DataError, Dataset, OpenOptions, Source, Split, open, open_pair};
use tempfile::TempDir;

use crate::common::{is_colour, jpeg};

const RED: [u8; 3] = [220, 30, 30];
const BLUE: [u8; 3] = [30, 30, 220];

/// A tar archive of the given members; a path that ends in `/` is a folder.
fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        if path.ends_with('/') {
            header.set_entry_type(tar::EntryType::Directory);
        }
        builder.append_data(&mut header, path, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn written(folder: &TempDir, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    path
}

fn source(path: &Path) -> Source {
    Source::Tar(vec![path.to_owned()])
}

fn opened(path: &Path, split: Split) -> Result<Dataset, DataError> {
    open(&source(path), split, &OpenOptions::default())
}

fn message(path: &Path, split: Split) -> String {
    opened(path, split).unwrap_err().to_string()
}

/// Class and colour of every image.
fn check(dataset: &Dataset, expected: &[(&str, [u8; 3])]) {
    let classes: Vec<&str> = (0..dataset.len())
        .map(|i| dataset.classes()[dataset.label(i) as usize].as_str())
        .collect();
    assert_eq!(
        classes,
        expected.iter().map(|(class, _)| *class).collect::<Vec<_>>()
    );
    for (index, (_, colour)) in expected.iter().enumerate() {
        assert!(
            is_colour(&dataset.image(index).unwrap(), *colour),
            "image {index}"
        );
    }
}

#[test]
fn one_archive_may_hold_both_splits_plain_or_compressed() {
    let folder = TempDir::new().unwrap();
    let (red, blue) = (jpeg(8, 8, RED), jpeg(8, 8, BLUE));
    let long = format!("set/train/red/{}/long.jpg", "deep/".repeat(40));
    let archive = tar(&[
        ("set/", b""),
        ("set/train/", b""),
        ("set/train/red/", b""),
        (&long, &red),
        ("set/train/blue/1.jpg", &blue),
        ("set/train/blue/._1.jpg", b"a resource fork"),
        ("set/val/blue/1.jpg", &blue),
        ("set/val/red/1.JPG", &red),
        ("set/readme.txt", b"about the set"),
    ]);
    for (name, bytes) in [
        ("both.tar", archive.clone()),
        ("both.tar.gz", gzip(&archive)),
    ] {
        let path = written(&folder, name, bytes);
        let (train, test) = open_pair(&source(&path), &OpenOptions::default()).unwrap();
        check(&train, &[("red", RED), ("blue", BLUE)]);
        check(&test, &[("blue", BLUE), ("red", RED)]);
        assert_eq!(train.classes(), ["blue", "red"]);
        assert!(
            train
                .image_name(1)
                .ends_with(&format!("{name}: set/train/blue/1.jpg"))
        );
    }
}

#[test]
fn a_folder_or_list_of_archives_is_split_by_their_names() {
    let folder = TempDir::new().unwrap();
    let (red, blue) = (jpeg(8, 8, RED), jpeg(8, 8, BLUE));
    let a = written(
        &folder,
        "set-train.tar.gz",
        gzip(&tar(&[
            ("train/red/1.jpg", &red),
            ("train/blue/1.jpg", &blue),
        ])),
    );
    let b = written(
        &folder,
        "set-test.tar",
        tar(&[("red/1.jpg", &red), ("blue/1.jpg", &blue)]),
    );
    written(&folder, "notes.txt", "not an archive");
    for source in [source(folder.path()), Source::Tar(vec![a, b])] {
        let (train, test) = open_pair(&source, &OpenOptions::default()).unwrap();
        check(&train, &[("red", RED), ("blue", BLUE)]);
        check(&test, &[("red", RED), ("blue", BLUE)]);
    }
}

#[test]
fn webdataset_shards_give_classes_by_number_or_by_name() {
    let folder = TempDir::new().unwrap();
    let (red, blue) = (jpeg(8, 8, RED), jpeg(8, 8, BLUE));
    let first = tar(&[
        ("000000.cls", b"10\n"),
        ("000000.jpg", &red),
        ("000000.json", b"{}"),
        ("000001.jpg", &blue),
        ("000001.cls", b"9"),
    ]);
    written(&folder, "train-000000.tar", &first);
    written(&folder, "train-000001.tar.gz", gzip(&first));
    written(&folder, "val-000000.tar", &first);
    let (train, _) = open_pair(&source(folder.path()), &OpenOptions::default()).unwrap();
    assert_eq!(train.classes(), ["9", "10"], "numbers sort by value");
    check(
        &train,
        &[("10", RED), ("9", BLUE), ("10", RED), ("9", BLUE)],
    );

    let named = tar(&[
        ("a.jpg", &red),
        ("a.cls", b"rose"),
        ("b.jpg", &blue),
        ("b.cls", b"iris"),
    ]);
    let path = written(&folder, "named-train.tar", named);
    let train = opened(&path, Split::Train).unwrap();
    check(&train, &[("rose", RED), ("iris", BLUE)]);
}

#[test]
fn what_is_missing_is_named() {
    let folder = TempDir::new().unwrap();
    let red = jpeg(8, 8, RED);
    let path = written(
        &folder,
        "train-0.tar",
        tar(&[("a.jpg", &red), ("b.cls", b"1")]),
    );
    let text = message(&path, Split::Train);
    assert!(
        text.contains("train-0.tar/a.jpg: there is no `a.cls`"),
        "{text}"
    );

    let path = written(&folder, "train-1.tar", tar(&[("a.jpg", &red)]));
    assert!(message(&path, Split::Train).contains("no class folder"));

    let path = written(
        &folder,
        "x.tar",
        tar(&[("cat/a.jpg", &red), ("notes.txt", b"")]),
    );
    let text = message(&path, Split::Train);
    assert!(
        text.contains("no train images") && text.contains("found `cat/a.jpg`"),
        "{text}"
    );

    let path = written(
        &folder,
        "train-2.tar",
        tar(&[("train/a/1.jpg", &red), ("train/b/", b"")]),
    );
    assert!(message(&path, Split::Train).contains("no JPEG or PNG image for class `b`"));
    assert!(message(&path, Split::Test).contains("train-2.tar"));

    let empty = TempDir::new().unwrap();
    assert!(message(empty.path(), Split::Train).contains("expected an archive"));
    assert!(message(&empty.path().join("no.tar"), Split::Train).contains("No such file"));
}

#[test]
fn broken_archives_are_refused() {
    let folder = TempDir::new().unwrap();
    let red = jpeg(64, 64, RED);
    let sound = tar(&[("train/a/1.jpg", &red)]);
    let cut = &sound[..sound.len() - 1024 - red.len() / 2 / 512 * 512 - 512];
    for (name, bytes) in [("cut.tar", cut.to_vec()), ("cut.tar.gz", gzip(cut))] {
        let path = written(&folder, name, bytes);
        let text = message(&path, Split::Train);
        assert!(
            text.contains("train/a/1.jpg: not a sound tar archive"),
            "{text}"
        );
    }
    let packed = gzip(&sound);
    let path = written(&folder, "cut2.tar.gz", &packed[..packed.len() / 2]);
    assert!(message(&path, Split::Train).contains("not a sound tar archive"));
    let path = written(&folder, "noise.tar", [0x5a; 2048]);
    assert!(message(&path, Split::Train).contains("not a sound tar archive"));
}

/// A header may promise any size: memory is taken for what is there.
#[test]
fn sizes_that_headers_promise_are_checked() {
    let folder = TempDir::new().unwrap();
    for (size, expected) in [
        (1 << 40, "exceeds the limit"),
        (1 << 20, "ends within a member"),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_path("train/a/1.jpg").unwrap();
        header.set_size(size);
        header.set_mode(0o644);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend([7; 4096]);
        for (name, bytes) in [("big.tar", bytes.clone()), ("big.tar.gz", gzip(&bytes))] {
            let text = message(&written(&folder, name, bytes), Split::Train);
            assert!(text.contains(expected), "{name} {size}: {text}");
        }
    }
}

#[test]
fn a_decompression_bomb_stops_at_the_limit() {
    let folder = TempDir::new().unwrap();
    let zeros = vec![0; 8 << 20];
    for member in ["train/a/1.jpg", "train/a/1.bin"] {
        let bomb = gzip(&tar(&[(member, &zeros)]));
        assert!(bomb.len() < 100_000);
        let path = written(&folder, "bomb.tar.gz", bomb);
        let options = OpenOptions {
            archive_bytes: 1 << 20,
            ..OpenOptions::default()
        };
        let text = open(&source(&path), Split::Train, &options)
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("exceeds the limit of 1048576 bytes"),
            "{text}"
        );
        assert!(text.contains("a plain .tar is read in place"), "{text}");
    }
}

/// Paths are names only: nothing is ever written where they point.
#[test]
fn paths_that_lead_elsewhere_are_only_names() {
    let folder = TempDir::new().unwrap();
    let red = jpeg(8, 8, RED);
    let mut archive = tar(&[("train/a/xx/1.jpg", &red)]);
    let name = b"train/../../1.jpg";
    archive[..name.len()].copy_from_slice(name);
    archive[148..156].copy_from_slice(b"        ");
    let sum: u32 = archive[..512].iter().map(|&b| u32::from(b)).sum();
    archive[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let path = written(&folder, "x.tar", archive);
    let train = opened(&path, Split::Train).unwrap();
    check(&train, &[("..", RED)]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}
