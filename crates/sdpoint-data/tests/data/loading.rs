//! Batches: their order, their content, and that neither depends on threads.

use sdpoint_core::{EvalTransform, Preprocessing, TrainTransform};
use sdpoint_data::{
    Augmentation, Batch, DataError, Dataset, Epoch, Image, Loader, OpenOptions, Source, Split,
    default_preprocessing, epoch_order, open, prepare,
};
use tempfile::TempDir;

use crate::common::{jpeg, write};

fn shapes(count: usize) -> Dataset {
    let mut options = OpenOptions::default();
    options.shapes_train = count;
    open(&Source::Shapes, Split::Train, &options).unwrap()
}

fn epoch(number: u64, first_batch: usize) -> Epoch {
    Epoch {
        seed: 3,
        number,
        first_batch,
    }
}

fn train(dataset: &Dataset, batch_size: usize, threads: usize, epoch: Epoch) -> Vec<Batch> {
    let preprocessing = default_preprocessing(dataset).unwrap();
    let loader = Loader::train(dataset, &preprocessing, batch_size, threads, epoch).unwrap();
    loader.map(Result::unwrap).collect()
}

fn same(a: &[Batch], b: &[Batch]) -> bool {
    let content = |batch: &Batch| (batch.labels.clone(), batch.images.clone());
    a.iter().map(content).eq(b.iter().map(content))
}

#[test]
fn threads_and_resuming_change_nothing() {
    let data = shapes(205);
    let whole = train(&data, 20, 1, epoch(1, 0));
    assert_eq!(whole.len(), 11);
    assert!(same(&whole, &train(&data, 20, 2, epoch(1, 0))));
    assert!(same(&whole, &train(&data, 20, 7, epoch(1, 0))));
    assert!(same(&whole[4..], &train(&data, 20, 3, epoch(1, 4))));
    assert!(train(&data, 20, 3, epoch(1, 11)).is_empty());
    assert!(train(&data, 20, 3, epoch(1, usize::MAX)).is_empty());
    assert!(!same(&whole, &train(&data, 20, 2, epoch(2, 0))));
}

#[test]
fn sizes_are_drawn_for_whole_batches_by_seed_and_place_alone() {
    let data = shapes(205);
    let usual = default_preprocessing(&data).unwrap();
    let ways = [usual.clone(), usual.clone().with_size([20, 24])];
    let mixed = |threads, epoch| -> Vec<Batch> {
        let loader = Loader::train_mixed(&data, &ways, 10, threads, epoch).unwrap();
        loader.map(Result::unwrap).collect()
    };
    let whole = mixed(1, epoch(1, 0));
    let small = |batches: &[Batch]| {
        batches
            .iter()
            .map(|b| b.size == [20, 24])
            .collect::<Vec<_>>()
    };
    let count = small(&whole).iter().filter(|&&small| small).count();
    assert!(
        (4..=17).contains(&count),
        "{count} of {} are small",
        whole.len()
    );
    for batch in &whole {
        let [height, width] = batch.size;
        assert_eq!(batch.images.len(), batch.len() * height * width * 3);
    }
    assert!(same(&whole, &mixed(3, epoch(1, 0))));
    assert!(same(&whole[7..], &mixed(2, epoch(1, 7))));
    assert_ne!(small(&whole), small(&mixed(2, epoch(2, 0))));
    // What has the usual size is what a loader of that size alone gives.
    let alone = train(&data, 10, 2, epoch(1, 0));
    for (mixed, alone) in std::iter::zip(&whole, &alone) {
        assert_eq!(mixed.labels, alone.labels);
        assert!(mixed.size != alone.size || mixed.images == alone.images);
    }
    assert!(Loader::train_mixed(&data, &[], 10, 1, epoch(1, 0)).is_err());
}

#[test]
fn every_image_comes_once_an_epoch_and_the_last_batch_holds_the_rest() {
    let data = shapes(41);
    let batches = train(&data, 8, 2, epoch(0, 0));
    assert_eq!(
        batches.iter().map(Batch::len).collect::<Vec<_>>(),
        [8, 8, 8, 8, 8, 1]
    );
    assert_eq!(batches[5].images.len(), 32 * 32 * 3);
    assert_eq!(batches[0].size, [32, 32]);
    let labels: Vec<u32> = batches.iter().flat_map(|b| b.labels.clone()).collect();
    let expected: Vec<u32> = epoch_order(41, 3, 0)
        .iter()
        .map(|&i| data.label(i))
        .collect();
    assert_eq!(labels, expected);
}

#[test]
fn evaluation_is_what_prediction_does_in_the_order_asked_for() {
    let data = shapes(30);
    let preprocessing = default_preprocessing(&data).unwrap();
    let order = vec![29, 3, 3, 0];
    let loader = Loader::evaluate(&data, &preprocessing, 3, 2, order.clone()).unwrap();
    assert_eq!(loader.left(), 2);
    let values: Vec<f32> = loader.flat_map(|b| b.unwrap().images.clone()).collect();
    let expected: Vec<f32> = order
        .iter()
        .flat_map(|&i| prepare(&data.image(i).unwrap(), &preprocessing).unwrap())
        .collect();
    assert_eq!(values, expected);
    assert!(Loader::evaluate(&data, &preprocessing, 3, 2, vec![30]).is_err());
    assert!(Loader::evaluate(&data, &preprocessing, 0, 2, vec![0]).is_err());
}

#[test]
fn listed_images_can_be_augmented_by_seed_and_number_alone() {
    let data = shapes(60);
    let preprocessing = default_preprocessing(&data).unwrap();
    let order: Vec<usize> = (10..50).rev().collect();
    let augmented = |threads, epoch| -> Vec<Batch> {
        let order = order.clone();
        let loader = Loader::augmented(&data, &preprocessing, 16, threads, order, epoch).unwrap();
        loader.map(Result::unwrap).collect()
    };
    let one = augmented(1, epoch(4, 0));
    assert!(same(&one, &augmented(3, epoch(4, 9))));
    assert!(!same(&one, &augmented(1, epoch(5, 0))));
    let plain = Loader::evaluate(&data, &preprocessing, 16, 2, order.clone()).unwrap();
    let plain: Vec<Batch> = plain.map(Result::unwrap).collect();
    assert!(!same(&one, &plain));
    let labels = |batches: &[Batch]| batches.iter().flat_map(|b| b.labels.clone()).collect();
    let [one, plain]: [Vec<u32>; 2] = [labels(&one), labels(&plain)];
    assert_eq!(one, plain);
    // In training, an image is augmented by the same draws.
    let in_epoch = train(&data, 60, 1, epoch(4, 0));
    let at = epoch_order(60, 3, 4).iter().position(|&i| i == 49).unwrap();
    let first = &augmented(1, epoch(4, 0))[0].images[..32 * 32 * 3];
    assert_eq!(
        first,
        &in_epoch[0].images[at * 32 * 32 * 3..][..32 * 32 * 3]
    );
}

#[test]
fn augmentation_depends_on_seed_epoch_and_place_alone() {
    let data = shapes(105);
    let ways = [default_preprocessing(&data).unwrap()];
    let augmented = |text: &str, threads, epoch| -> Vec<Batch> {
        let augmentation: Augmentation = match text {
            "" => Augmentation::default(),
            _ => text.parse().unwrap(),
        };
        let loader = Loader::train_augmented(&data, &ways, augmentation, 20, threads, epoch);
        loader.unwrap().map(Result::unwrap).collect()
    };
    let mixed = |batches: &[Batch]| batches.iter().map(|b| b.mixed.clone()).collect::<Vec<_>>();
    let usual = train(&data, 20, 1, epoch(1, 0));
    assert!(same(&usual, &augmented("", 2, epoch(1, 0))));
    for text in [
        "trivial",
        "jitter:0.4",
        "erase:0.5",
        "cutout:8",
        "mixup:0.4",
        "cutmix:1",
        "trivial,jitter:0.2,erase:0.2,cutout:4,mixup:0.2,cutmix:1",
    ] {
        let whole = augmented(text, 1, epoch(1, 0));
        assert!(!same(&whole, &usual), "{text}");
        let again = augmented(text, 3, epoch(1, 0));
        assert!(
            same(&whole, &again) && mixed(&whole) == mixed(&again),
            "{text}"
        );
        let resumed = augmented(text, 2, epoch(1, 4));
        assert!(same(&whole[4..], &resumed) && mixed(&whole[4..]) == mixed(&resumed));
        assert!(!same(&whole, &augmented(text, 1, epoch(2, 0))), "{text}");
        let labels = |batches: &[Batch]| -> Vec<u32> {
            batches.iter().flat_map(|b| b.labels.clone()).collect()
        };
        assert_eq!(labels(&whole), labels(&usual), "{text}");
        let mixes = text.contains("mix");
        assert!(whole.iter().all(|batch| batch.mixed.is_some() == mixes));
        assert!(
            whole
                .iter()
                .all(|batch| batch.images.iter().all(|v| v.is_finite()))
        );
    }
    let mut invalid = Augmentation::default();
    invalid.erase = 2.0;
    assert!(Loader::train_augmented(&data, &ways, invalid, 20, 1, epoch(1, 0)).is_err());
}

/// Far more batches than are prepared ahead, most of them dropped at once.
#[test]
fn a_loader_may_be_dropped_at_any_time() {
    let data = shapes(2000);
    let preprocessing = default_preprocessing(&data).unwrap();
    for consumed in [0, 1, 5] {
        let mut loader = Loader::train(&data, &preprocessing, 4, 3, epoch(0, 0)).unwrap();
        for _ in 0..consumed {
            loader.next().unwrap().unwrap();
        }
        drop(loader);
    }
}

#[test]
fn too_many_unreadable_images_end_the_batches_with_an_error() {
    let root = TempDir::new().unwrap();
    for i in 0..40 {
        write(
            root.path(),
            &format!("train/a/{i:02}.jpg"),
            jpeg(8, 8, [9; 3]),
        );
        write(
            root.path(),
            &format!("train/b/{i:02}.jpg"),
            if i % 2 == 0 { "x" } else { "y" },
        );
    }
    let source = Source::Folder(root.path().to_owned());
    let data = open(&source, Split::Train, &OpenOptions::default()).unwrap();
    let preprocessing = default_preprocessing(&shapes(10)).unwrap();
    let loader = Loader::evaluate(&data, &preprocessing, 16, 2, (0..80).collect()).unwrap();
    let outcomes: Vec<_> = loader.collect();
    assert!(outcomes[0].is_ok() && outcomes[1].is_ok());
    let error = outcomes.last().unwrap().as_ref().unwrap_err();
    assert!(
        matches!(error, DataError::TooManyUnreadable { limit: 10, .. }),
        "{error}"
    );
    assert_eq!(outcomes.iter().filter(|o| o.is_err()).count(), 1);
}

/// Images of which one side would become thousands of pixels.
#[test]
fn oblong_images_are_trained_on_and_evaluated() {
    let root = TempDir::new().unwrap();
    write(root.path(), "train/a/0.jpg", jpeg(90, 80, [9; 3]));
    write(root.path(), "train/a/1.jpg", jpeg(300, 2, [200; 3]));
    write(root.path(), "train/b/0.jpg", jpeg(3, 9000, [200; 3]));
    let source = Source::Folder(root.path().to_owned());
    let data = open(&source, Split::Train, &OpenOptions::default()).unwrap();
    assert_eq!(train(&data, 2, 2, epoch(0, 0)).len(), 2);
    let preprocessing = default_preprocessing(&data).unwrap();
    let loader = Loader::evaluate(&data, &preprocessing, 3, 1, vec![0, 1, 2]).unwrap();
    let batch = loader.last().unwrap().unwrap();
    assert_eq!(batch.labels, [0, 0, 1]);
    let len = batch.images.len() / 3;
    assert_eq!(batch.images[len..2 * len], batch.images[2 * len..]);
    assert_eq!(data.skipped(), [""; 0]);
}

/// One unreadable image must give the same batches for any order of loading.
#[test]
fn replaced_images_do_not_depend_on_threads() {
    let root = TempDir::new().unwrap();
    for i in 0..24 {
        let bytes = if i % 5 == 2 {
            b"broken".to_vec()
        } else {
            jpeg(8, 8, [10 * i; 3])
        };
        write(root.path(), &format!("train/c{}/{i:02}.jpg", i % 2), bytes);
    }
    let source = Source::Folder(root.path().to_owned());
    let data = || open(&source, Split::Train, &OpenOptions::default()).unwrap();
    let one = train(&data(), 4, 1, epoch(0, 0));
    assert!(same(&one, &train(&data(), 4, 5, epoch(0, 0))));
}

#[test]
fn small_images_keep_their_size_and_have_their_statistics_measured() {
    let root = TempDir::new().unwrap();
    write(root.path(), "train/a/0.jpg", jpeg(20, 12, [0; 3]));
    write(root.path(), "train/b/0.jpg", jpeg(20, 12, [255; 3]));
    let source = Source::Folder(root.path().to_owned());
    let data = open(&source, Split::Train, &OpenOptions::default()).unwrap();
    let preprocessing = default_preprocessing(&data).unwrap();
    assert_eq!(preprocessing.size, [12, 20]);
    assert_eq!(preprocessing.mean, [0.5; 3]);
    assert_eq!(preprocessing.std, [0.5; 3]);
    assert_eq!(
        preprocessing.train,
        TrainTransform::PadCrop {
            padding: 4,
            flip: true
        }
    );

    write(root.path(), "train/a/1.jpg", jpeg(90, 40, [0; 3]));
    let data = open(&source, Split::Train, &OpenOptions::default()).unwrap();
    let preprocessing = default_preprocessing(&data).unwrap();
    assert_eq!(preprocessing.size, [224, 224]);
    assert_eq!(
        preprocessing.evaluate,
        EvalTransform::CenterCrop { resize: 256 }
    );
}

/// What training sees of `shapes` is what evaluation sees, mirrored at most.
#[test]
fn shapes_are_not_padded() {
    let preprocessing = default_preprocessing(&shapes(20)).unwrap();
    let expected = TrainTransform::PadCrop {
        padding: 0,
        flip: true,
    };
    assert_eq!(preprocessing.train, expected);
}

#[test]
fn preprocessing_that_cannot_be_carried_out_is_refused() {
    let image = Image::new(4, 4, vec![0; 48]).unwrap();
    let sound = Preprocessing {
        train: TrainTransform::None,
        evaluate: EvalTransform::Resize,
        ..Preprocessing::new([4, 4], vec![0.5; 3], vec![0.5; 3])
    };
    assert!(prepare(&image, &sound).is_ok());
    let crop = |area, aspect| TrainTransform::RandomResizedCrop {
        area,
        aspect,
        flip: false,
    };
    for broken in [
        Preprocessing {
            size: [0, 4],
            ..sound.clone()
        },
        Preprocessing {
            size: [1 << 40, 1 << 40],
            ..sound.clone()
        },
        Preprocessing {
            mean: vec![0.5],
            ..sound.clone()
        },
        Preprocessing {
            std: vec![0.5, 0.0, 0.5],
            ..sound.clone()
        },
        Preprocessing {
            std: vec![f32::NAN; 3],
            ..sound.clone()
        },
        Preprocessing {
            train: TrainTransform::PadCrop {
                padding: usize::MAX,
                flip: true,
            },
            ..sound.clone()
        },
        Preprocessing {
            train: crop([0.5, 0.1], [1.0, 1.0]),
            ..sound.clone()
        },
        Preprocessing {
            train: crop([0.1, 2.0], [1.0, 1.0]),
            ..sound.clone()
        },
        Preprocessing {
            train: crop([0.1, 1.0], [0.0, 1.0]),
            ..sound.clone()
        },
        Preprocessing {
            evaluate: EvalTransform::CenterCrop { resize: 0 },
            ..sound.clone()
        },
        Preprocessing {
            evaluate: EvalTransform::CenterCrop { resize: 1 << 40 },
            ..sound.clone()
        },
    ] {
        assert!(
            matches!(prepare(&image, &broken), Err(DataError::Preprocessing(_))),
            "{broken:?}"
        );
    }
}
