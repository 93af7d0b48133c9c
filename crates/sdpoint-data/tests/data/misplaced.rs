//! A folder too high, too low or of another form: the one that was meant is
//! named.

use std::fs;
use std::path::Path;

use sdpoint_data::{DataError, OpenOptions, Source, Split, open, open_pair};
use tempfile::TempDir;

use crate::common::{RED, add, jpeg, write};

/// Folders `cat` and `dog` with two images each in `path`.
fn classes(root: &Path, path: &str) {
    for class in ["cat", "dog"] {
        for number in 0..2 {
            let image = format!("{path}/{class}/{number}.jpg");
            write(root, &image, jpeg(8, 8, RED));
        }
    }
}

fn dataset(root: &Path, path: &str) {
    classes(root, &format!("{path}/train"));
    classes(root, &format!("{path}/test"));
}

#[track_caller]
fn refused(root: &Path, path: &str, expected: &[&str]) {
    let source = Source::Folder(root.join(path));
    let error = open(&source, Split::Train, &OpenOptions::default()).unwrap_err();
    let text = error.to_string();
    for part in expected {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}

#[test]
fn the_folder_that_was_meant_is_named() {
    let root = TempDir::new().unwrap();
    let base = root.path();
    dataset(base, "all/photos");
    for path in [
        "all",
        "",
        "all/photos/train",
        "all/photos/train/cat",
        "all/photos/test",
    ] {
        let meant = "all/photos?";
        refused(
            base,
            path,
            &[meant, "did you mean folder:", "no train images"],
        );
    }
    dataset(base, "all/birds");
    refused(base, "all", &["all/birds or folder:", "all/photos?"]);
}

#[test]
fn one_class_is_refused_with_the_classes_inside_it() {
    let root = TempDir::new().unwrap();
    let base = root.path();
    classes(base, "deep/train/images");
    refused(
        base,
        "deep",
        &[
            "`images` is the only class",
            "if `cat`, `dog` are the classes",
        ],
    );
    dataset(base, "twice/train");
    let meant = format!(
        "did you mean folder:{}?",
        base.join("twice/train").display()
    );
    refused(base, "twice", &[&meant]);
    write(base, "one/train/cat/1.jpg", jpeg(8, 8, RED));
    refused(base, "one", &["`cat` is the only class, and at least two"]);
    classes(base, "plain");
    refused(base, "plain", &["put them into a folder `train`"]);
    write(base, "packed/train.tar", "x");
    refused(base, "packed", &["its archives are read by tar:", "packed"]);
    write(base, "zipped/train.zip", "x");
    refused(base, "zipped", &["`train.zip` has to be unpacked first"]);
}

#[test]
fn images_deeper_in_class_folders_are_of_the_outer_class() {
    let root = TempDir::new().unwrap();
    classes(root.path(), "train/day");
    classes(root.path(), "train/night");
    let source = Source::Folder(root.path().to_owned());
    let train = open(&source, Split::Train, &OpenOptions::default()).unwrap();
    assert_eq!((train.classes().len(), train.len()), (2, 8));
    let remark = train.left_out().remark().unwrap();
    assert!(remark.contains("day/cat/0.jpg"), "{remark}");
}

#[test]
fn one_folder_in_each_class_folder_is_reported_too() {
    let root = TempDir::new().unwrap();
    for class in ["cat", "dog"] {
        let inner = format!("train/{class}/images/0.jpg");
        write(root.path(), &inner, jpeg(8, 8, RED));
    }
    let source = Source::Folder(root.path().to_owned());
    let remark = || {
        let train = open(&source, Split::Train, &OpenOptions::default()).unwrap();
        train.left_out().remark()
    };
    assert!(remark().unwrap().contains("cat/images/0.jpg"));
    // One image at the usual place says that the others are meant as they are.
    write(root.path(), "train/dog/1.jpg", jpeg(8, 8, RED));
    assert_eq!(remark(), None);
}

/// Kaggle's `test` has images whose classes nobody tells.
#[test]
fn an_unlabelled_test_folder_gives_way_to_val() {
    let root = TempDir::new().unwrap();
    let base = root.path();
    classes(base, "train");
    classes(base, "val");
    write(base, "test/1.jpg", jpeg(8, 8, RED));
    let check = |source: &Source| {
        let (_, test) = open_pair(source, &OpenOptions::default()).unwrap();
        assert_eq!(test.len(), 4);
        let left_out = test.left_out();
        assert_eq!(
            (&left_out.unlabelled[..], &*left_out.taken),
            (&["test".to_owned()][..], "val")
        );
        let line = "`test`, whose images are in no class folders; `val` is used";
        assert_eq!(left_out.lines(), [line]);
    };
    let source = Source::Folder(base.to_owned());
    check(&source);
    fs::remove_file(base.join("test/1.jpg")).unwrap();
    write(base, "test/unknown/1.jpg", jpeg(8, 8, RED));
    check(&source);

    let mut builder = tar::Builder::new(Vec::new());
    for split in ["train", "val"] {
        for class in ["cat", "dog"] {
            for number in 0..2 {
                let path = format!("set/{split}/{class}/{number}.jpg");
                add(&mut builder, &path, &jpeg(8, 8, RED));
            }
        }
    }
    add(&mut builder, "set/test/1.jpg", &jpeg(8, 8, RED));
    let elsewhere = TempDir::new().unwrap();
    write(elsewhere.path(), "x.tar", builder.into_inner().unwrap());
    check(&Source::Tar(vec![elsewhere.path().join("x.tar")]));

    fs::remove_dir_all(base.join("val")).unwrap();
    let error = open(&source, Split::Test, &OpenOptions::default()).unwrap_err();
    assert!(matches!(error, DataError::OneClass { .. }), "{error}");
}

#[test]
fn names_of_splits_may_be_in_any_case() {
    let root = TempDir::new().unwrap();
    classes(root.path(), "Train");
    classes(root.path(), "TEST");
    let source = Source::Folder(root.path().to_owned());
    assert!(open_pair(&source, &OpenOptions::default()).is_ok());
}

#[test]
fn classes_that_look_the_same_are_told_apart() {
    let root = TempDir::new().unwrap();
    for (split, name) in [("train", "caf\u{e9}"), ("test", "cafe\u{301}")] {
        for class in [name, "tea"] {
            let path = format!("{split}/{class}/1.jpg");
            write(root.path(), &path, jpeg(8, 8, RED));
        }
    }
    let source = Source::Folder(root.path().to_owned());
    let error = open_pair(&source, &OpenOptions::default()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(r"(caf\u{e9})"), "{text}");
    assert!(text.contains(r"(cafe\u{301})"), "{text}");
}
