//! Resident memory with all instances ready, over that of `full` alone.

use std::path::Path;
use std::process::Command;

use anyhow::Context;
use sdpoint::Engine;

use crate::subject::{image, images, model};

/// Measures both in processes of their own.
pub fn run() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut bytes = Vec::new();
    for all in [false, true] {
        let file = folder.path().join(format!("{all}.safetensors"));
        model(all)?.save(&file)?;
        let program = std::env::current_exe()?;
        let output = Command::new(program).arg("memory").arg(&file).output()?;
        let text = String::from_utf8(output.stdout)?;
        bytes.push(text.trim().parse::<f64>().context(text)?);
    }
    println!("ResNet-50 at 224, resident after loading and running every instance once");
    println!("full alone:       {:6.1} MB", bytes[0] / 1e6);
    println!("all 35 instances: {:6.1} MB", bytes[1] / 1e6);
    println!("ratio:            {:6.3}", bytes[1] / bytes[0]);
    Ok(())
}

/// Loads a model, runs all of its instances, and prints the resident bytes.
pub fn measure(file: &Path) -> anyhow::Result<()> {
    let engine = Engine::load(file)?;
    let data = image();
    for record in engine.records() {
        engine.run(images(&data), record.instance)?;
    }
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next());
    let kilobytes: u64 = kilobytes.context("no VmRSS")?.parse()?;
    println!("{}", kilobytes * 1024);
    Ok(())
}
