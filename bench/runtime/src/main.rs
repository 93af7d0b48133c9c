//! Measures the run-time library: deadlines idle and under load, memory, and
//! what switching between instances costs.
//!
//! `cargo run --release -- deadlines [--quick] [--out FOLDER]`, `memory`,
//! `switching`.

mod deadlines;
mod load;
mod memory;
mod picture;
mod subject;
mod switching;

use std::path::PathBuf;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["deadlines", options @ ..] => {
            let out = options.iter().position(|word| *word == "--out");
            let out = out.and_then(|place| options.get(place + 1));
            deadlines::run(
                options.contains(&"--quick"),
                out.map(PathBuf::from).as_deref(),
            )
        }
        ["memory"] => memory::run(),
        ["memory", file] => memory::measure(file.as_ref()),
        ["switching"] => switching::run(),
        ["load", seed] => load::burn(seed.parse()?),
        _ => anyhow::bail!("say deadlines, memory or switching"),
    }
}
