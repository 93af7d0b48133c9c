//! What the targets have in common.

pub mod model;
pub mod seed;

use sdpoint::exchange::{Checkpoint, import};
use sdpoint::zoo;

/// Reads a checkpoint and everything in it.
pub fn checkpoint(file: Vec<u8>) {
    let size = file.len();
    let Ok(checkpoint) = Checkpoint::parse(file) else {
        return;
    };
    for set in checkpoint.sets() {
        for tensor in set.names().filter_map(|name| set.get(name)) {
            assert!(tensor.len() <= size);
            if let Some(values) = checkpoint.values(tensor) {
                assert_eq!(values.len(), tensor.len());
            }
        }
    }
    let network = zoo::build("preresnet8", 2).expect("a network of the zoo");
    if let Err(error) = import(&checkpoint, &network) {
        assert!(error.to_string().len() < 1500);
    }
}
