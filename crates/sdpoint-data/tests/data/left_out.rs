//! What is not read is counted, and the same of folders and archives.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use sdpoint_data::{Dataset, LeftOut, OpenOptions, Source, Split, open, read_file};
use tempfile::TempDir;

use crate::common::{BLUE, RED, add, check, gzip, jpeg, write};

fn train(source: Source) -> Dataset {
    open(&source, Split::Train, &OpenOptions::default()).unwrap()
}

fn folder(root: &Path) -> Dataset {
    train(Source::Folder(root.to_owned()))
}

/// Two classes, and everything that programs leave beside them.
const TREE: [(&str, bool); 15] = [
    ("train/a/1.jpg", true),
    ("train/a/deep/er/2.JPG", true),
    ("train/b/1.jpg", true),
    ("train/a/notes.txt", false),
    ("train/a/video.mp4", false),
    ("train/a/README", false),
    ("train/loose.jpg", false),
    ("train/labels.csv", false),
    ("train/a/._1.jpg", false),
    ("train/a/.ipynb_checkpoints/1.jpg", false),
    ("train/.ipynb_checkpoints/1.jpg", false),
    ("train/b/@eaDir/1.jpg/SYNO_THUMB.jpg", false),
    ("train/__MACOSX/b/1.jpg", false),
    ("train/b/.thumbnails/large/1.png", false),
    ("train/b/Thumbs.db", false),
];

fn expected(left_out: &LeftOut) {
    let kinds: Vec<(&str, u64)> = left_out
        .other_kinds
        .iter()
        .map(|(kind, number)| (kind.as_str(), *number))
        .collect();
    assert_eq!(
        kinds,
        [("", 1), ("csv", 1), ("db", 1), ("mp4", 1), ("txt", 1)]
    );
    assert_eq!(left_out.hidden.number, 6, "{:?}", left_out.hidden);
    assert_eq!(left_out.loose.number, 1);
    assert_eq!(left_out.loose.example, "loose.jpg");
    assert_eq!(left_out.lines().len(), 3, "{:?}", left_out.lines());
}

#[test]
fn folders_and_archives_follow_the_same_rules() {
    let root = TempDir::new().unwrap();
    let mut builder = tar::Builder::new(Vec::new());
    for (path, _) in TREE {
        let colour = if path.starts_with("train/b") {
            BLUE
        } else {
            RED
        };
        write(root.path(), path, jpeg(8, 8, colour));
        add(&mut builder, path, &jpeg(8, 8, colour));
    }
    let archive = builder.into_inner().unwrap();
    let elsewhere = TempDir::new().unwrap();
    write(elsewhere.path(), "x.tar", &archive);
    write(elsewhere.path(), "x.tar.gz", gzip(&archive));
    for source in [
        Source::Folder(root.path().to_owned()),
        Source::Tar(vec![elsewhere.path().join("x.tar")]),
        Source::Tar(vec![elsewhere.path().join("x.tar.gz")]),
    ] {
        let train = train(source);
        assert_eq!(train.classes(), ["a", "b"]);
        check(&train, &[("a", RED), ("a", RED), ("b", BLUE)]);
        expected(train.left_out());
    }
}

#[test]
fn links_in_folders_are_followed_and_circles_noticed() {
    let root = TempDir::new().unwrap();
    let base = root.path();
    write(base, "train/a/1.jpg", jpeg(8, 8, RED));
    write(base, "train/b/1.jpg", jpeg(8, 8, BLUE));
    write(base, "pool/deep/2.jpg", jpeg(8, 8, RED));
    let link = |target: &str, path: &str| symlink(target, base.join(path)).unwrap();
    link("../../pool", "train/a/pool");
    link("../../pool/deep/2.jpg", "train/a/linked.jpg");
    link("../pool/deep", "train/c");
    // To itself, to what is above, and a second time to the same.
    link(".", "train/a/self");
    link("..", "train/a/up");
    link("../../..", "train/a/out");
    link("../../pool", "train/a/pool2");
    link("gone.jpg", "train/b/gone.jpg");
    link("x.jpg", "train/b/x.jpg");
    let train = folder(base);
    check(
        &train,
        &[("a", RED), ("a", RED), ("a", RED), ("b", BLUE), ("c", RED)],
    );
    let left_out = train.left_out();
    assert_eq!(left_out.repeated_folders.number, 4, "{left_out:?}");
    assert_eq!(left_out.broken_links.number, 2, "{left_out:?}");
}

/// Opening a pipe blocks until somebody writes into it.
#[test]
fn pipes_sockets_and_devices_hold_nobody_up() {
    let root = TempDir::new().unwrap();
    let base = root.path();
    write(base, "train/a/1.jpg", jpeg(8, 8, RED));
    write(base, "train/b/1.jpg", jpeg(8, 8, BLUE));
    let pipe = base.join("train/a/pipe.jpg");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let _socket = std::os::unix::net::UnixListener::bind(base.join("train/a/s.jpg")).unwrap();
    symlink("/dev/zero", base.join("train/a/zero.jpg")).unwrap();
    symlink(&pipe, base.join("train/b/link.jpg")).unwrap();
    let train = folder(base);
    check(&train, &[("a", RED), ("b", BLUE)]);
    assert_eq!(train.left_out().special.number, 4);
    write(base, "train/b/2.jpg", jpeg(8, 8, BLUE));

    // A file may become one after it was listed.
    let listed = folder(base);
    fs::remove_file(base.join("train/b/1.jpg")).unwrap();
    fs::rename(&pipe, base.join("train/b/1.jpg")).unwrap();
    let text = listed.image(1).unwrap_err().to_string();
    assert!(text.contains("is a named pipe, not a file"), "{text}");
    let again = folder(base);
    assert_eq!(again.left_out().special.number, 3);
    assert_eq!(again.left_out().broken_links.number, 1);
    for (path, kind) in [
        ("train/b/1.jpg", "is a named pipe, not a file"),
        ("train/a/s.jpg", "is a socket"),
        ("train/a/zero.jpg", "is a device"),
        ("train/a", "is a folder"),
    ] {
        let error = read_file(&base.join(path)).unwrap_err().to_string();
        assert!(error.contains(kind), "{error}");
    }
    for source in ["tar:", "folder:", "cifar10:", "cifar100:"] {
        let source = format!("{source}{}", base.join("train/b/1.jpg").display());
        let error = open(
            &source.parse().unwrap(),
            Split::Train,
            &OpenOptions::default(),
        );
        let text = error.unwrap_err().to_string();
        assert!(text.contains("is a named pipe"), "{text}");
    }
}

#[test]
fn no_more_of_a_file_is_read_than_the_limit() {
    let root = TempDir::new().unwrap();
    write(root.path(), "train/a/1.jpg", jpeg(8, 8, RED));
    write(root.path(), "train/b/1.jpg", jpeg(8, 8, BLUE));
    let file = fs::File::create(root.path().join("train/b/2.jpg")).unwrap();
    file.set_len(sdpoint_data::MAX_FILE + 1).unwrap();
    let train = folder(root.path());
    let text = train.image(2).unwrap_err().to_string();
    assert!(text.contains("has more than 268435456 bytes"), "{text}");
}

#[test]
fn a_class_without_images_is_named_with_what_is_there() {
    let root = TempDir::new().unwrap();
    write(root.path(), "train/a/1.jpg", jpeg(8, 8, RED));
    write(root.path(), "train/b/1.heic", "x");
    write(root.path(), "train/c/.hidden/1.jpg", jpeg(8, 8, RED));
    let source = Source::Folder(root.path().to_owned());
    let error = open(&source, Split::Train, &OpenOptions::default()).unwrap_err();
    let text = error.to_string();
    for part in ["`b`, `c`", "1 .heic", "hidden"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}
