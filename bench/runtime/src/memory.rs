//! Resident memory with all instances ready, over that of `full` alone; and the first answer.

use std::num::NonZeroUsize;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use sdpoint::{Context, Engine, Instance};

use crate::subject::{image, images, model};

/// Measures both in processes of their own, by all algorithms and by those that keep weights
/// once.
pub fn run() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let [alone, all] = ["full", "all"].map(|name| folder.path().join(name));
    model(false)?.save(&alone)?;
    model(true)?.save(&all)?;
    println!("ResNet-50 at 224, resident after loading and running every instance once\n");
    println!("| convolutions | full alone | all 35 instances | ratio |");
    println!("| --- | ---: | ---: | ---: |");
    for (name, option) in [
        ("by all algorithms", None),
        ("low memory", Some("--low-memory")),
    ] {
        let [alone, all] = [resident(&alone, option)?, resident(&all, option)?];
        println!(
            "| {name} | {:.1} MB | {:.1} MB | {:.3} |",
            alone / 1e6,
            all / 1e6,
            all / alone
        );
    }
    Ok(())
}

/// The resident bytes that a process of its own prints.
fn resident(file: &Path, option: Option<&str>) -> anyhow::Result<f64> {
    let mut command = Command::new(std::env::current_exe()?);
    let output = command.arg("memory").arg(file).args(option).output()?;
    let text = String::from_utf8(output.stdout)?;
    text.trim().parse().context(text)
}

/// Loads a model, runs all of its instances, and prints the resident bytes.
pub fn measure(file: &Path, low_memory: bool) -> anyhow::Result<()> {
    let mut context = Context::new(None)?;
    if low_memory {
        context = context.with_low_memory();
    }
    let engine = Engine::load_with(Arc::new(context), file)?;
    let data = image();
    for record in engine.records() {
        engine.run(images(&data), record.instance)?;
    }
    println!("{}", resident_now()?);
    Ok(())
}

/// Loads a model, answers once, and prints as JSON the time that this took and the resident
/// memory above that before.
pub fn first(file: &Path, threads: Option<NonZeroUsize>) -> anyhow::Result<()> {
    let data = image();
    let (bare, start) = (resident_now()?, Instant::now());
    let engine = Engine::load_with(Arc::new(Context::new(threads)?), file)?;
    engine.run(images(&data), Instance::Full)?;
    let milliseconds = start.elapsed().as_secs_f64() * 1e3;
    let bytes = resident_now()? - bare;
    println!("{{\"ms\": {milliseconds}, \"bytes\": {bytes}}}");
    Ok(())
}

/// The resident bytes of this process.
fn resident_now() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next());
    let kilobytes: u64 = kilobytes.context("no VmRSS")?.parse()?;
    Ok(kilobytes * 1024)
}
