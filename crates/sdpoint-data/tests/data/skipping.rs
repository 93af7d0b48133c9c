//! An unreadable image is replaced in training, and left out where it would be
//! counted.

use std::collections::BTreeSet;

use sdpoint_core::{EvalTransform, Preprocessing, TrainTransform};
use sdpoint_data::{
    Batch, DataError, Dataset, Epoch, Loader, OpenOptions, Sizes, Source, Split,
    default_preprocessing, open,
};
use tempfile::TempDir;

use crate::common::{jpeg, write};

/// 12 images in two classes, grey by their numbers, with some unreadable.
fn data(root: &TempDir, unreadable: &[usize], limit: usize) -> Dataset {
    for index in 0..12 {
        let path = format!("test/{}/{index:02}.jpg", ["a", "b"][index / 6]);
        let image = match unreadable.contains(&index) {
            true => b"broken".to_vec(),
            false => jpeg(8, 8, [20 * index as u8; 3]),
        };
        write(root.path(), &path, image);
    }
    let mut options = OpenOptions::default();
    options.skip_limit = Some(limit);
    let source = Source::Folder(root.path().to_owned());
    open(&source, Split::Test, &options).unwrap()
}

fn plain() -> Preprocessing {
    Preprocessing {
        train: TrainTransform::None,
        evaluate: EvalTransform::Resize,
        ..Preprocessing::new([8, 8], vec![0.0; 3], vec![1.0; 3])
    }
}

/// The numbers of the images that came, by their grey, and their labels.
fn came(batches: &[Batch]) -> Vec<(usize, u32)> {
    let images = batches.iter().flat_map(|batch| {
        let first = batch.images.chunks(8 * 8 * 3).map(|image| image[0]);
        first.zip(batch.labels.clone())
    });
    images
        .map(|(grey, label)| ((grey * 255.0 / 20.0).round() as usize, label))
        .collect()
}

#[test]
fn measuring_counts_each_readable_image_once() {
    for unreadable in [
        &[][..],
        &[0],
        &[11],
        &[2, 3],
        &[4, 5, 6, 7],
        &[0, 1, 2, 3, 4],
        &[0, 5, 6, 11],
    ] {
        for (batch_size, threads) in [(4, 1), (4, 3), (5, 2), (12, 2), (1, 2), (100, 1)] {
            let root = TempDir::new().unwrap();
            let data = data(&root, unreadable, 10);
            let order = (0..12).collect();
            let loader = Loader::evaluate(&data, &plain(), batch_size, threads, order).unwrap();
            let batches: Vec<Batch> = loader.map(Result::unwrap).collect();
            assert!(batches.iter().all(|batch| batch.len() > 0));
            let expected: Vec<(usize, u32)> = (0..12)
                .filter(|index| !unreadable.contains(index))
                .map(|index| (index, (index / 6) as u32))
                .collect();
            assert_eq!(came(&batches), expected, "{unreadable:?} {batch_size}");
            assert_eq!(data.skipped().len(), unreadable.len());
        }
    }
}

#[test]
fn training_has_as_many_images_as_without_unreadable_ones() {
    let root = TempDir::new().unwrap();
    let data = data(&root, &[0, 4, 11], 10);
    let epoch = Epoch {
        seed: 0,
        number: 0,
        first_batch: 0,
    };
    let loader = Loader::train(&data, &plain(), 5, 2, epoch).unwrap();
    assert_eq!(loader.left(), 3);
    let batches: Vec<Batch> = loader.map(Result::unwrap).collect();
    let came = came(&batches);
    assert_eq!(came.len(), 12);
    let different: BTreeSet<_> = came.into_iter().collect();
    assert_eq!(different.len(), 9);
}

#[test]
fn a_class_of_unreadable_images_ends_the_work_with_its_name() {
    let root = TempDir::new().unwrap();
    let data = data(&root, &[6, 7, 8, 9, 10, 11], 100);
    let loader = Loader::evaluate(&data, &plain(), 4, 2, (0..12).collect()).unwrap();
    let error = loader.filter_map(Result::err).next().unwrap();
    let text = error.to_string();
    assert!(matches!(error, DataError::UnreadableClass { .. }), "{text}");
    for part in ["class `b`", "test/b/06.jpg", "all 6"] {
        let part = part.replace("all 6", "none of the 6");
        assert!(text.contains(&part), "{part}: {text}");
    }

    let root = TempDir::new().unwrap();
    let checked = super::skipping::data(&root, &[0, 1, 2, 6], 100);
    checked.check_readable(0..12, 3).unwrap();
    assert_eq!(checked.skipped().len(), 4);
    let root = TempDir::new().unwrap();
    let checked = super::skipping::data(&root, &[0, 1, 2, 3, 4, 5], 100);
    assert!(matches!(
        checked.check_readable(0..12, 5),
        Err(DataError::UnreadableClass { .. })
    ));
    let root = TempDir::new().unwrap();
    let checked = super::skipping::data(&root, &[3, 4, 7, 11], 3);
    checked.check_readable(0..10, 2).unwrap();
    assert!(matches!(
        checked.check_readable(10..12, 2),
        Err(DataError::TooManyUnreadable { count: 4, .. })
    ));
}

/// Images of the sizes, `count` of each.
fn sized(sizes: &[([u16; 2], usize)]) -> (TempDir, Dataset) {
    let root = TempDir::new().unwrap();
    let mut number = 0;
    for &([height, width], count) in sizes {
        for _ in 0..count {
            let path = format!("train/{}/{number:03}.jpg", ["a", "b"][number % 2]);
            write(root.path(), &path, jpeg(width, height, [9; 3]));
            number += 1;
        }
    }
    let source = Source::Folder(root.path().to_owned());
    let data = open(&source, Split::Train, &OpenOptions::default()).unwrap();
    (root, data)
}

#[test]
fn the_commonest_size_counts_and_not_the_first() {
    let (_root, data) = sized(&[([20, 30], 2), ([28, 28], 10), ([40, 28], 3)]);
    let sizes = Sizes::of(&data).unwrap();
    assert_eq!(sizes.commonest(), [28, 28]);
    assert_eq!(sizes.range(), Some([[20, 30], [40, 28]]));
    let by_share = sizes.by_share();
    assert_eq!(by_share[0].0, sizes.commonest());
    assert!(by_share.is_sorted_by(|one, next| one.1 >= next.1));
    assert!((by_share.iter().map(|(_, share)| share).sum::<f64>() - 1.0).abs() < 1e-9);
    assert_eq!(data.native_size().unwrap(), [28, 28]);
    assert_eq!(default_preprocessing(&data).unwrap().size, [28, 28]);

    let (_root, data) = sized(&[([28, 28], 6)]);
    assert_eq!(Sizes::of(&data).unwrap().range(), None);
    // A stray photo does not make a set of small images a set of photos.
    let (_root, data) = sized(&[([28, 28], 30), ([100, 90], 1)]);
    assert_eq!(default_preprocessing(&data).unwrap().size, [28, 28]);
    let (_root, data) = sized(&[([28, 28], 10), ([100, 90], 10)]);
    assert_eq!(default_preprocessing(&data).unwrap().size, [224, 224]);
}

#[test]
fn ties_of_sizes_are_broken_alike_in_any_order() {
    let sizes = [([28, 28], 7), ([30, 40], 6), ([32, 32], 7)];
    let reversed: Vec<_> = sizes.iter().rev().copied().collect();
    for sizes in [&sizes[..], &reversed] {
        let (_root, data) = sized(sizes);
        let sizes = Sizes::of(&data).unwrap();
        assert_eq!(sizes.all_commonest(), [[32, 32], [28, 28]]);
        assert_eq!(sizes.commonest(), [32, 32]);
    }
    // More images than the sample has, in the order of the files and in another.
    let (_root, data) = sized(&[([20, 20], 99), ([24, 24], 101), ([28, 28], 100)]);
    let others: Vec<usize> = (0..data.len()).map(|i| i * 7 % data.len()).collect();
    let shuffled = data.select(&others).unwrap();
    assert_eq!(Sizes::of(&shuffled).unwrap(), Sizes::of(&data).unwrap());
}
