//! Measures the run-time library: deadlines idle and under load, memory, the first answer, and
//! the cost of switching between instances.
//!
//! `cargo run --release -- deadlines`, `deadlines-under-load`, `memory` or `switching`;
//! `bench/peers/compare.py` runs `model` and `first`.

mod deadlines;
mod load;
mod memory;
mod picture;
mod subject;
mod switching;

use deadlines::{Neighbour, ROUNDS};

const USAGE: &str = "\
say what to measure:
  deadlines [--rounds N]
  deadlines-under-load [--rounds N] [--svg FILE]
  memory
  switching
  model FILE
  first FILE [--threads N]";

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let option = |name: &str| {
        let place = words.iter().position(|word| *word == name);
        place.and_then(|place| words.get(place + 1)).copied()
    };
    let rounds = || option("--rounds").map_or(Ok(ROUNDS), str::parse);
    if words.iter().any(|word| ["--help", "-h"].contains(word)) {
        println!("{USAGE}");
        return Ok(());
    }
    match words.as_slice() {
        ["deadlines", ..] => deadlines::run(Neighbour::None, rounds()?, None),
        ["deadlines-under-load", ..] => {
            let picture = option("--svg").map(str::as_ref);
            deadlines::run(Neighbour::Bursts, rounds()?, picture)
        }
        ["memory"] => memory::run(),
        ["memory", file] => memory::measure(file.as_ref(), false),
        ["memory", file, "--low-memory"] => memory::measure(file.as_ref(), true),
        ["model", file] => Ok(subject::model(false)?.save(file)?),
        ["first", file, ..] => {
            let threads = option("--threads").map(str::parse).transpose()?;
            memory::first(file.as_ref(), threads)
        }
        ["switching"] => switching::run(),
        ["load", seed] => load::burn(seed.parse()?),
        _ => anyhow::bail!(USAGE),
    }
}
