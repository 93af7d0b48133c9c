//! The results of the kernels and the engine are the recorded ones, bit for bit.
//!
//! `fixtures/hashes.txt` has the hashes for each instruction set of x86-64; for others, other tests
//! compare with references. A change that is meant to change results records them again and says so:
//!
//! ```sh
//! cargo run --release -p sdpoint-engine --example hashes -- --small > fixtures/hashes.txt
//! ```

#[path = "support/hashes.rs"]
mod hashes;

use sdpoint_engine::Isa;

const RECORDED: &str = include_str!("../../../fixtures/hashes.txt");

#[test]
#[cfg_attr(
    not(target_arch = "x86_64"),
    ignore = "recorded on x86-64; elsewhere the portable kernels have other registers, and so other algorithms"
)]
fn results_are_the_same_bits_as_before() {
    for isa in Isa::available() {
        let prefix = format!("{isa} ");
        let recorded: Vec<&str> = RECORDED
            .lines()
            .filter(|line| line.starts_with(&prefix))
            .collect();
        let found = hashes::small(isa);
        let found: Vec<&str> = found.lines().collect();
        assert_eq!(found.len(), recorded.len(), "lines of {isa}");
        let changed: Vec<String> = std::iter::zip(found, recorded)
            .filter(|(found, recorded)| found != recorded)
            .map(|(found, recorded)| format!("{found}\ninstead of\n{recorded}"))
            .collect();
        assert!(changed.is_empty(), "{}", changed.join("\n"));
    }
}
