//! Damaged and hostile checkpoints: every outcome is a value or an error.
//!
//! `fuzz/` searches for others with the same function.

mod support;

use proptest::prelude::*;
use proptest::sample::Index;
use sdpoint_exchange::{Checkpoint, import};
use support::{CHECKPOINTS, OTHERS, fixture, tiny};

/// All that a file's content decides.
fn exercise(file: Vec<u8>) {
    let size = file.len();
    let Ok(checkpoint) = Checkpoint::parse(file) else {
        return;
    };
    for set in checkpoint.sets() {
        for name in set.names() {
            let Some(tensor) = set.get(name) else {
                continue;
            };
            // A tensor has no more elements than the file has bytes.
            assert!(tensor.len() <= size, "{name}");
            if let Some(values) = checkpoint.values(tensor) {
                assert_eq!(values.len(), tensor.len(), "{name}");
            }
        }
    }
    if let Err(error) = import(&checkpoint, &tiny()) {
        let length = error.to_string().len();
        assert!((1..1500).contains(&length), "{error}");
    }
}

fn files() -> Vec<Vec<u8>> {
    let names = CHECKPOINTS.iter().chain(&OTHERS).map(|name| fixture(name));
    names.map(|path| std::fs::read(path).unwrap()).collect()
}

#[test]
fn every_truncation_is_an_error() {
    for file in files() {
        for length in (0..file.len()).step_by(97) {
            assert!(
                Checkpoint::parse(file[..length].to_vec()).is_err(),
                "{length}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn changed_bytes_do_no_harm(
        file in any::<Index>(),
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 1..8),
        // Most of a pickle, a header or a list of files lies at an end.
        near in prop::option::of(0usize..4096),
    ) {
        let files = files();
        let mut file = file.get(&files).clone();
        for (place, value) in changes {
            let place = match near {
                Some(near) if near % 2 == 0 => place.index(near + 1).min(file.len() - 1),
                Some(near) => file.len() - 1 - place.index(near + 1).min(file.len() - 1),
                None => place.index(file.len()),
            };
            file[place] = value;
        }
        exercise(file);
    }

    #[test]
    fn pieces_moved_about_do_no_harm(
        file in any::<Index>(),
        from in any::<Index>(),
        to in any::<Index>(),
        length in 1usize..600,
    ) {
        let files = files();
        let mut file = file.get(&files).clone();
        let from = from.index(file.len());
        let end = (from + length).min(file.len());
        let piece = file[from..end].to_vec();
        let to = to.index(file.len());
        file.splice(to..to, piece);
        exercise(file);
    }
}
