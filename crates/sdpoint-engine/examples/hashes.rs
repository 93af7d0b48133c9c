//! Prints hashes of what the kernels and the engine compute: of convolutions of every
//! algorithm, and of logits, losses and gradients of every instance of networks of all kinds,
//! with each instruction set of the machine. Compare the output before and after a change that
//! should not change a bit:
//!
//! ```sh
//! cargo run --release -p sdpoint-engine --example hashes > before.txt
//! cargo run --release -p sdpoint-engine --example hashes -- --small > fixtures/hashes.txt
//! ```
//!
//! `--small` prints what the tests compare (`tests/hashes.rs`); names of instruction sets
//! select some of them.

#[path = "../tests/support/hashes.rs"]
mod hashes;

use sdpoint_engine::Isa;

/// Networks of all kinds at sizes that reach every algorithm.
const NETWORKS: &[hashes::Case] = &[
    ("preresnet20", [32, 32], 6),
    ("wrn16-4", [32, 32], 3),
    ("wrn16-2", [25, 37], 2),
    ("resnext29_8x64d", [32, 32], 1),
    ("resnext29_16x4d", [32, 32], 2),
    ("resnet18", [64, 64], 3),
    ("resnet18", [112, 96], 1),
    ("resnet50", [64, 64], 2),
    ("resnet50", [112, 112], 1),
    ("resnext50_32x4d", [96, 96], 1),
    ("preresnet18-imagenet", [64, 64], 2),
    ("preresnet50-imagenet", [64, 64], 2),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let small = arguments.iter().any(|argument| argument == "--small");
    let named: Vec<Isa> = arguments
        .iter()
        .filter(|argument| *argument != "--small")
        .map(|name| name.parse().unwrap_or_else(|error| panic!("{error}")))
        .collect();
    let isas = if named.is_empty() {
        Isa::available()
    } else {
        named
    };
    for isa in isas {
        let lines = if small {
            hashes::small(isa)
        } else {
            hashes::lines(isa, hashes::LAYERS, NETWORKS)
        };
        print!("{lines}");
    }
}
