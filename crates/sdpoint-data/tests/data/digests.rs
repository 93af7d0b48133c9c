//! A data set that changed is told from one that only moved.

use std::fs;
use std::path::Path;

use sdpoint_data::{OpenOptions, Source, Split, open};
use tempfile::TempDir;

use crate::common::{BLUE, RED, jpeg, tar, write};

fn digest(root: &Path) -> String {
    let source = Source::Folder(root.to_owned());
    let data = open(&source, Split::Train, &OpenOptions::default()).unwrap();
    data.digest().unwrap()
}

fn photos(root: &Path) {
    write(root, "train/a/1.jpg", jpeg(8, 8, RED));
    write(root, "train/a/2.jpg", jpeg(8, 8, BLUE));
    write(root, "train/b/1.jpg", jpeg(8, 8, BLUE));
}

#[test]
fn replaced_renamed_and_swapped_images_change_it() {
    let first = TempDir::new().unwrap();
    photos(first.path());
    let before = digest(first.path());
    let same = TempDir::new().unwrap();
    photos(same.path());
    assert_eq!(digest(same.path()), before, "another folder");
    write(same.path(), "train/a/notes.txt", "no image");
    assert_eq!(digest(same.path()), before, "what is not read");

    type Change = fn(&Path);
    let changes: [(&str, Change); 4] = [
        ("replaced", |root| {
            write(root, "train/a/1.jpg", jpeg(8, 8, [1, 2, 3]));
        }),
        ("renamed", |root| {
            fs::rename(root.join("train/a/2.jpg"), root.join("train/a/3.jpg")).unwrap();
        }),
        ("moved to another class", |root| {
            fs::rename(root.join("train/a/2.jpg"), root.join("train/b/2.jpg")).unwrap();
        }),
        ("swapped", |root| {
            let (a, b) = (root.join("train/a/1.jpg"), root.join("train/b/1.jpg"));
            let bytes = [&a, &b].map(|path| fs::read(path).unwrap());
            fs::write(a, &bytes[1]).unwrap();
            fs::write(b, &bytes[0]).unwrap();
        }),
    ];
    for (what, change) in changes {
        let root = TempDir::new().unwrap();
        photos(root.path());
        change(root.path());
        assert_ne!(digest(root.path()), before, "{what}");
    }
}

#[test]
fn archives_and_drawn_images_have_one_too() {
    let folder = TempDir::new().unwrap();
    let of = |colour| {
        let image = jpeg(8, 8, colour);
        let members = [("train/a/1.jpg", &image[..]), ("train/b/1.jpg", &image)];
        let path = folder.path().join("x.tar");
        fs::write(&path, tar(&members)).unwrap();
        let source = Source::Tar(vec![path]);
        let data = open(&source, Split::Train, &OpenOptions::default()).unwrap();
        data.digest().unwrap()
    };
    assert_eq!(of(RED), of(RED));
    assert_ne!(of(RED), of(BLUE));

    let shapes = |seed, count| {
        let mut options = OpenOptions::default();
        options.shapes_seed = seed;
        options.shapes_train = count;
        let data = open(&Source::Shapes, Split::Train, &options).unwrap();
        data.digest().unwrap()
    };
    assert_eq!(shapes(0, 100), shapes(0, 100));
    assert_ne!(shapes(0, 100), shapes(1, 100));
    assert_ne!(shapes(0, 100), shapes(0, 101));
}
