//! `sdpoint profile --save`: writes the latency profile of a model.

use std::path::Path;
use std::time::Duration;

use sdpoint::core::format_macs;
use sdpoint::profile::{BatchProfile, Profile};
use sdpoint::{Engine, Instance};
use serde::Serialize;

use super::{Args, milliseconds};
use crate::failure::Outcome;
use crate::output::{Table, note, percent, plural, print, print_json, span};
use crate::output_file::{Kind, Outputs};
use crate::{MachineArgs, model};

/// The result for an instance, as in the JSON output.
#[derive(Serialize)]
struct Row {
    instance: Instance,
    batch: usize,
    threads: usize,
    median_ms: f64,
    p90_ms: f64,
    macs: u64,
}

pub fn run(args: &Args, path: &Path, machine: &MachineArgs) -> Outcome {
    let file = model::file(path);
    let profile = Profile::path(&file);
    let mut outputs = Outputs::new(&args.replacing).reads(&file);
    outputs.derived("--save", &profile, Kind::Profile)?;
    let engine = Engine::new(machine.context()?, model::load(&file)?)?;
    let instances = engine.records().len();
    note(&format!(
        "timing {} for {}",
        plural(instances, "instance", "instances"),
        span(args.seconds * instances as f64)
    ));
    let time = Duration::from_secs_f64(args.seconds);
    let profile = engine.measure(args.batch, time)?;
    let threads = engine.machine().threads;
    let rows = rows(&profile, threads);
    let kept = Profile::save_beside(&file, &engine, profile)?;
    if args.json {
        return print_json(&rows);
    }
    print(&format!(
        "{}\nBatch {} on {}; saved in {}.\n",
        table(&rows).text(),
        args.batch,
        engine.machine(),
        kept.display()
    ))
}

fn rows(profile: &BatchProfile, threads: usize) -> Vec<Row> {
    let times = profile.instances.iter();
    times
        .map(|time| Row {
            instance: time.instance,
            batch: profile.batch,
            threads,
            median_ms: 1e3 * time.median,
            p90_ms: 1e3 * time.p90,
            macs: time.macs,
        })
        .collect()
}

fn table(rows: &[Row]) -> Table {
    let full = rows.iter().find(|row| row.instance == Instance::Full);
    let [macs, time] = full.map_or([1.0; 2], |full| [full.macs as f64, full.median_ms]);
    let mut table = Table::new(["instance", "MACs", "share", "median", "of full", "p90"]);
    for row in rows {
        table.row([
            row.instance.to_string(),
            format_macs(row.macs),
            percent(row.macs as f64 / macs),
            milliseconds(row.median_ms),
            percent(row.median_ms / time),
            milliseconds(row.p90_ms),
        ]);
    }
    table
}
