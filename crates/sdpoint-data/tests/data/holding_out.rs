//! Images held out of training.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use sdpoint_core::HeldOut;
use sdpoint_data::{Dataset, OpenOptions, Source, Split, open};

use crate::common::{tar, write};

/// Images are not decoded here.
const CONTENT: &[u8] = b"no image";

/// Paths of `count` images of each of two classes, below the folder of the split.
fn paths(count: usize) -> Vec<String> {
    let of = |class: &'static str| {
        (0..count).map(move |number| format!("{class}/{}/{number}.jpg", number % 3))
    };
    of("cat").chain(of("dog")).collect()
}

fn folder(root: &Path, paths: &[String]) -> Dataset {
    for path in paths {
        write(root, &format!("train/{path}"), CONTENT);
    }
    let source = Source::Folder(root.to_owned());
    open(&source, Split::Train, &OpenOptions::default()).unwrap()
}

/// The held-out images, by class and what is below its folder.
fn held_out(data: &Dataset, share: f64, seed: u64) -> BTreeSet<String> {
    let parts = data.hold_out(&HeldOut { share, seed }).unwrap();
    let names = |part: &Dataset| -> BTreeSet<String> {
        (0..part.len())
            .map(|index| {
                let name = part.image_name(index).replace('\\', "/");
                let (_, below) = name.rsplit_once("train/").unwrap();
                below.to_owned()
            })
            .collect()
    };
    let (held, rest) = (names(&parts.held_out), names(&parts.train));
    assert!(held.is_disjoint(&rest));
    assert_eq!(held.len() + rest.len(), data.len());
    held
}

#[test]
fn an_image_stays_on_its_side_wherever_it_is() {
    let root = tempfile::tempdir().unwrap();
    let all = paths(400);
    let data = folder(root.path(), &all);
    let held = held_out(&data, 0.1, 3);
    assert!((50..115).contains(&held.len()), "{}", held.len());
    assert_eq!(held, held_out(&data, 0.1, 3));
    assert_ne!(held, held_out(&data, 0.1, 4));
    assert!(held.is_subset(&held_out(&data, 0.3, 3)));
    for class in ["cat/", "dog/"] {
        let of_class = held.iter().filter(|path| path.starts_with(class)).count();
        assert!((20..70).contains(&of_class), "{of_class} of {class}");
    }

    // Other images come and go.
    let few = tempfile::tempdir().unwrap();
    let some: Vec<String> = all.iter().step_by(2).cloned().collect();
    let kept: BTreeSet<String> = some.iter().cloned().collect();
    let expected: BTreeSet<String> = held.intersection(&kept).cloned().collect();
    assert_eq!(held_out(&folder(few.path(), &some), 0.1, 3), expected);
    let is_kept = |&index: &usize| {
        let name = data.image_name(index).replace('\\', "/");
        kept.contains(name.rsplit_once("train/").unwrap().1)
    };
    let half: Vec<usize> = (0..data.len()).filter(is_kept).collect();
    assert_eq!(held_out(&data.select(&half).unwrap(), 0.1, 3), expected);

    // The same tree in an archive, and below a folder there.
    for above in ["", "some/set/"] {
        let path = root.path().join("images.tar");
        let members: Vec<String> = all.iter().map(|p| format!("{above}train/{p}")).collect();
        let members: Vec<(&str, &[u8])> = members.iter().map(|m| (m.as_str(), CONTENT)).collect();
        fs::write(&path, tar(&members)).unwrap();
        let source = Source::Tar(vec![path]);
        let data = open(&source, Split::Train, &OpenOptions::default()).unwrap();
        assert_eq!(held_out(&data, 0.1, 3), held);
    }
}

/// A model names the share and the seed only: a later version must find the same
/// images.
#[test]
fn the_choice_is_the_same_in_all_versions() {
    let root = tempfile::tempdir().unwrap();
    let held = held_out(&folder(root.path(), &paths(20)), 0.1, 0);
    let held: Vec<&str> = held.iter().map(String::as_str).collect();
    assert_eq!(held, RECORDED);
}

const RECORDED: [&str; 3] = ["cat/1/19.jpg", "dog/1/1.jpg", "dog/2/5.jpg"];

#[test]
fn tiny_data_sets_keep_an_image_of_each_class_and_hold_out_one() {
    let root = tempfile::tempdir().unwrap();
    for count in 1..6 {
        let data = folder(&root.path().join(count.to_string()), &paths(count));
        for seed in 0..20 {
            for share in [1e-9, 0.05, 0.5] {
                let how = HeldOut { share, seed };
                let Ok(parts) = data.hold_out(&how) else {
                    assert_eq!(count, 1);
                    continue;
                };
                assert!(count > 1 && parts.held_out.len() > 0);
                for class in 0..2 {
                    let train = &parts.train;
                    assert!((0..train.len()).any(|index| train.label(index) == class));
                }
            }
        }
    }
    let data = folder(&root.path().join("5"), &paths(5));
    for share in [0.0, -0.1, 0.51, f64::NAN] {
        let error = data.hold_out(&HeldOut { share, seed: 0 }).unwrap_err();
        assert!(error.to_string().contains("at most 0.5"), "{error}");
    }
}
