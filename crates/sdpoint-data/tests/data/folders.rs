//! Class folders: what is found, and what is said when something is not.

use crate::common::{is_colour, jpeg, png, write};
use sdpoint_data::{DataError, Dataset, OpenOptions, Source, Split, open, open_pair};
use tempfile::TempDir;

fn source(root: &TempDir) -> Source {
    Source::Folder(root.path().to_owned())
}

fn opened(root: &TempDir, split: Split) -> Result<Dataset, DataError> {
    open(&source(root), split, &OpenOptions::default())
}

/// `train/` with `count` images of each of two colours.
fn two_classes(count: usize) -> TempDir {
    let root = TempDir::new().unwrap();
    for i in 0..count {
        write(
            root.path(),
            &format!("train/red/{i:03}.jpg"),
            jpeg(8, 8, [220, 30, 30]),
        );
        write(
            root.path(),
            &format!("train/blue/{i:03}.jpg"),
            jpeg(8, 8, [30, 30, 220]),
        );
    }
    root
}

#[test]
fn classes_are_sorted_and_images_found_at_any_depth() {
    let root = two_classes(2);
    let grey = png(
        6,
        9,
        png::ColorType::Grayscale,
        png::BitDepth::Eight,
        &[99; 54],
    );
    write(root.path(), "train/grey/deep/er/a.PNG", grey);
    write(
        root.path(),
        "train/grey/b.JPEG",
        jpeg(10, 12, [120, 120, 120]),
    );
    write(root.path(), "train/grey/notes.txt", "not an image");
    write(root.path(), "train/readme.txt", "not a class");

    let train = opened(&root, Split::Train).unwrap();
    assert_eq!(train.classes(), ["blue", "grey", "red"]);
    assert_eq!(train.len(), 6);
    assert_eq!(
        (0..6).map(|i| train.label(i)).collect::<Vec<_>>(),
        [0, 0, 1, 1, 2, 2]
    );
    assert!(is_colour(&train.image(0).unwrap(), [30, 30, 220]));
    assert_eq!(train.image(3).unwrap().pixel(0, 0), [99; 3]);
    assert!(train.image_name(3).ends_with("train/grey/deep/er/a.PNG"));
}

#[test]
fn the_test_split_may_be_called_val_and_test_is_preferred() {
    let root = two_classes(1);
    for class in ["red", "blue"] {
        write(
            root.path(),
            &format!("val/{class}/0.jpg"),
            jpeg(4, 4, [0; 3]),
        );
    }
    let (train, test) = open_pair(&source(&root), &OpenOptions::default()).unwrap();
    assert_eq!((train.len(), test.len()), (2, 2));
    for class in ["red", "blue", "red/more"] {
        write(
            root.path(),
            &format!("test/{class}/0.jpg"),
            jpeg(4, 4, [0; 3]),
        );
    }
    let test = opened(&root, Split::Test).unwrap();
    assert_eq!(test.len(), 3);
    assert_eq!(test.left_out().unused, ["val"]);
}

#[test]
fn missing_folders_are_named_with_what_is_there() {
    let message = |root: &TempDir, split| opened(root, split).unwrap_err().to_string();
    let root = two_classes(1);
    let text = message(&root, Split::Test);
    assert!(
        text.contains("`test`, `val`") && text.contains("found `train`"),
        "{text}"
    );

    let root = TempDir::new().unwrap();
    assert!(message(&root, Split::Train).contains("found nothing"));
    write(root.path(), "train/loose.jpg", jpeg(4, 4, [0; 3]));
    assert!(message(&root, Split::Train).contains("found `loose.jpg`"));

    let missing = Source::Folder(root.path().join("absent"));
    let text = open(&missing, Split::Train, &OpenOptions::default())
        .unwrap_err()
        .to_string();
    assert!(text.contains("absent: No such file"), "{text}");
}

#[test]
fn empty_classes_and_different_classes_are_named() {
    let root = two_classes(1);
    write(root.path(), "train/green/notes.txt", "");
    let text = opened(&root, Split::Train).unwrap_err().to_string();
    assert!(
        text.contains("no JPEG, PNG or WebP image for class `green`"),
        "{text}"
    );

    let root = two_classes(1);
    write(root.path(), "test/red/0.jpg", jpeg(4, 4, [0; 3]));
    write(root.path(), "test/pink/0.jpg", jpeg(4, 4, [0; 3]));
    let text = open_pair(&source(&root), &OpenOptions::default())
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("only in train: `blue`; only in test: `pink`"),
        "{text}"
    );
}

#[test]
fn an_unreadable_image_is_replaced_by_the_next_and_named() {
    let root = two_classes(2);
    write(root.path(), "train/blue/001.jpg", "no image at all");
    let train = opened(&root, Split::Train).unwrap();
    assert!(matches!(train.image(1), Err(DataError::Image { .. })));

    let sample = train.sample(1).unwrap();
    assert_eq!(sample.label, 1);
    assert!(is_colour(&sample.image, [220, 30, 30]));
    train.sample(1).unwrap();
    let skipped = train.skipped();
    assert_eq!(skipped.len(), 1, "counted once: {skipped:?}");
    assert!(
        skipped[0].contains("blue/001.jpg is not an image of a supported format"),
        "{skipped:?}"
    );
}

#[test]
fn more_unreadable_images_than_allowed_are_an_error() {
    let root = two_classes(4);
    for i in [0, 2, 3] {
        write(root.path(), &format!("train/red/{i:03}.jpg"), "broken");
    }
    let mut options = OpenOptions::default();
    options.skip_limit = Some(2);
    let train = open(&source(&root), Split::Train, &options).unwrap();
    assert!(train.sample(4).is_ok());
    let text = train.sample(6).unwrap_err().to_string();
    assert!(text.contains("3 unreadable images"), "{text}");
    assert!(text.contains("more than the 2"), "{text}");
    assert!(text.contains("red/000.jpg"), "{text}");
}

#[test]
fn a_split_without_a_single_readable_image_is_an_error() {
    let root = TempDir::new().unwrap();
    write(root.path(), "train/a/0.jpg", "broken");
    write(root.path(), "train/b/0.jpg", "broken");
    let train = opened(&root, Split::Train).unwrap();
    let text = train.sample(0).unwrap_err().to_string();
    assert!(
        text.contains("the only image of class `a` cannot be read")
            && text.contains("train/a/0.jpg"),
        "{text}"
    );
}

#[test]
fn a_balanced_selection_takes_as_many_of_each_class() {
    let root = two_classes(6);
    for i in 0..20 {
        write(
            root.path(),
            &format!("train/many/{i:03}.jpg"),
            jpeg(4, 4, [0; 3]),
        );
    }
    let train = opened(&root, Split::Train).unwrap();
    let chosen = train.balanced(9, 1).unwrap();
    let labels: Vec<u32> = (0..9).map(|i| chosen.label(i)).collect();
    assert_eq!(labels, [0, 0, 0, 1, 1, 1, 2, 2, 2]);

    let names = |d: &Dataset| (0..d.len()).map(|i| d.image_name(i)).collect::<Vec<_>>();
    assert_eq!(names(&chosen), names(&train.balanced(9, 1).unwrap()));
    assert_ne!(names(&chosen), names(&train.balanced(9, 2).unwrap()));
    // The small classes give all they have.
    assert_eq!(train.balanced(30, 1).unwrap().len(), 30);
    assert_eq!(train.balanced(99, 1).unwrap().len(), 32);
    assert!(train.balanced(0, 1).is_err());
}
