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
    for name in checkpoint.names() {
        let tensor = checkpoint.get(name).expect("a listed tensor");
        assert!(tensor.len() <= size);
        if let Some(values) = checkpoint.values(tensor) {
            assert_eq!(values.len(), tensor.len());
        }
    }
    let network = zoo::build("preresnet8", 2).expect("a network of the zoo");
    let _ = import(&checkpoint, &network);
}
