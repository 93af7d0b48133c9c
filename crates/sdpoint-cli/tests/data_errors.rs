//! Data that cannot be used is named, with exit code 3.

mod common;

use std::fs;
use std::io::Write;
use std::path::Path;

use common::{fail, photos, run, stderr};
use tempfile::TempDir;

fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    photos(folder.path());
    folder
}

#[track_caller]
fn refused(code: i32, texts: &[&str], kind: &str, root: &Path) -> String {
    let data = format!("{kind}:{}", root.display());
    let out = tempfile::tempdir().unwrap();
    let run = out.path().join("run");
    let run = run.to_str().unwrap();
    let errors = fail(code, texts, &["train", "--data", &data, "--out", run]);
    assert!(!Path::new(run).exists(), "nothing is left behind");
    errors
}

#[test]
fn a_source_of_unknown_form_is_a_usage_error() {
    for source in ["fodler:x", "folder", "imagenet"] {
        fail(
            2,
            &["folder:DIR", "cifar10:DIR"],
            &["train", "--data", source],
        );
    }
}

#[test]
fn a_missing_folder_is_named() {
    refused(
        7,
        &["/no/such/photos"],
        "folder",
        Path::new("/no/such/photos"),
    );
}

#[test]
fn a_missing_split_is_named() {
    let root = folder();
    fs::remove_dir_all(root.path().join("test")).unwrap();
    refused(3, &["no test images"], "folder", root.path());
}

#[test]
fn an_empty_class_is_named() {
    let root = folder();
    fs::create_dir(root.path().join("train/dotted")).unwrap();
    refused(3, &["`dotted`"], "folder", root.path());
}

#[test]
fn classes_that_differ_between_the_splits_are_named() {
    let root = folder();
    let test = root.path().join("test");
    fs::rename(test.join("lying"), test.join("leaning")).unwrap();
    refused(
        3,
        &["only in train: `lying`", "only in test: `leaning`"],
        "folder",
        root.path(),
    );
}

#[test]
fn unreadable_images_are_named_and_counted_up_to_a_limit() {
    let root = folder();
    for number in 0..3 {
        let path = root.path().join(format!("train/lying/broken{number}.png"));
        fs::write(path, b"not an image").unwrap();
    }
    let data = format!("folder:{}", root.path().display());
    let out = root.path().join("run");
    let train = |more: &[&str]| {
        let mut arguments = vec!["train", "--data", &data, "--network", "preresnet8"];
        arguments.extend(["--epochs", "1", "--batch", "43", "--overwrite", "--out"]);
        arguments.push(out.to_str().unwrap());
        arguments.extend(more);
        run(&arguments)
    };
    let output = train(&[]);
    let errors = stderr(&output);
    assert!(output.status.success(), "{errors}");
    assert!(errors.contains("Skipped 3 unreadable"), "{errors}");
    assert!(errors.contains("broken1.png"), "{errors}");

    let output = train(&["--skip-unreadable", "1"]);
    let errors = stderr(&output);
    assert_eq!(output.status.code(), Some(3), "{errors}");
    assert!(
        errors.contains("more than the 1 that may be skipped"),
        "{errors}"
    );
    assert!(errors.contains("--skip-unreadable"), "{errors}");
}

#[test]
fn a_cifar_file_of_the_wrong_size_is_named() {
    let root = tempfile::tempdir().unwrap();
    let names: String = (0..10).map(|class| format!("class{class}\n")).collect();
    fs::write(root.path().join("batches.meta.txt"), names).unwrap();
    let mut file = fs::File::create(root.path().join("data_batch_1.bin")).unwrap();
    file.write_all(&[0; 3073]).unwrap();
    refused(
        3,
        &["data_batch_1.bin has 3073 bytes", "30730000"],
        "cifar10",
        root.path(),
    );
}

#[test]
fn an_archive_that_is_none_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("photos.tar.gz");
    fs::write(&path, b"not an archive").unwrap();
    refused(3, &["photos.tar.gz"], "tar", &path);
}

#[test]
fn options_of_samples_are_for_samples() {
    let root = folder();
    for option in ["--image-key", "--label-key"] {
        for source in [format!("folder:{}", root.path().display()), "shapes".into()] {
            let errors = fail(
                2,
                &[option, "WebDataset", &source],
                &["train", "--data", &source, option, "jpg"],
            );
            assert!(!errors.contains("epoch"), "{errors}");
        }
    }
}
