//! Runs by a deadline against every fixed instance, idle and under load.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use sdpoint::engine::Context;
use sdpoint::{Engine, Instance, Profile};

use crate::load::Load;
use crate::picture::{Line, draw};
use crate::subject::{image, images, mean, model, quantile};

/// An instance counts as fitting a deadline if it met it this often.
const RELIABLE: f64 = 0.99;

/// Deadlines between the cheapest instance's time and 1.2 × that of `full`.
const DEADLINES: usize = 9;

/// Everything that was run, in seconds.
#[derive(Default)]
struct Log {
    /// Times of each fixed instance.
    fixed: BTreeMap<Instance, Vec<f64>>,
    /// By deadline: what each run became, and its time.
    by: Vec<Vec<(Instance, f64)>>,
}

pub fn run(quick: bool, out: Option<&Path>) -> anyhow::Result<()> {
    let engine = Engine::new(Arc::new(Context::new(None)?), model(true)?)?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("model.safetensors");
    let seconds = if quick { 0.2 } else { 0.6 };
    let measured = engine.measure(1, Duration::from_secs_f64(seconds))?;
    Profile::save_beside(&file, &engine, measured)?;
    let engine = engine.with_profile(Profile::load_beside(&file));
    engine.warm_up(1)?;

    let times = engine.times(1)?;
    let full = times[&Instance::Full].as_secs_f64();
    let cheapest = times
        .values()
        .min()
        .expect("there are instances")
        .as_secs_f64();
    let step = (1.2 * full - cheapest) / (DEADLINES - 1) as f64;
    let deadlines: Vec<f64> = (0..DEADLINES).map(|i| cheapest + i as f64 * step).collect();
    let rounds = if quick { 20 } else { 100 };

    let mut text = format!("{}\n\n", overhead(&engine, rounds)?);
    let idle = collect(&engine, &deadlines, rounds, 1)?;
    writeln!(
        text,
        "### Idle\n\n{}",
        idle_table(&engine, &deadlines, &idle)
    )?;
    let loaded = {
        let _load = Load::start(7)?;
        collect(&engine, &deadlines, rounds, 2)?
    };
    writeln!(
        text,
        "### Another process computing in bursts\n\n{}",
        load_table(&engine, &deadlines, &loaded)
    )?;
    print!("{text}");
    if let Some(out) = out {
        let panels = panels(&engine, &deadlines, &loaded);
        std::fs::create_dir_all(out)?;
        std::fs::write(out.join("under-load.svg"), draw(&panels)?)?;
        std::fs::write(out.join("table.md"), text)?;
    }
    Ok(())
}

/// What a run that may still become anything costs over one that is `full`.
fn overhead(engine: &Engine, rounds: usize) -> anyhow::Result<String> {
    let data = image();
    let (mut fixed, mut undecided) = (Vec::new(), Vec::new());
    for _ in 0..2 * rounds {
        fixed.push(
            engine
                .run(images(&data), Instance::Full)?
                .time
                .as_secs_f64(),
        );
        let far = Instant::now() + Duration::from_secs(3600);
        undecided.push(engine.run_by(images(&data), far)?.time.as_secs_f64());
    }
    let [fixed, undecided] = [fixed, undecided].map(|times| 1e3 * quantile(&times, 0.5));
    Ok(format!(
        "`full`: {fixed:.2} ms; undecided until the last point: {undecided:.2} ms ({:+.2} %).",
        100.0 * (undecided / fixed - 1.0)
    ))
}

/// Runs everything `rounds` times, in an order that is drawn anew each time.
fn collect(engine: &Engine, deadlines: &[f64], rounds: usize, seed: u64) -> anyhow::Result<Log> {
    #[derive(Clone, Copy)]
    enum Job {
        Fixed(Instance),
        By(usize),
    }
    let fixed = engine
        .records()
        .iter()
        .map(|record| Job::Fixed(record.instance));
    let mut jobs: Vec<Job> = fixed.chain((0..deadlines.len()).map(Job::By)).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let data = image();
    let mut log = Log {
        by: vec![Vec::new(); deadlines.len()],
        ..Log::default()
    };
    for _ in 0..rounds {
        jobs.shuffle(&mut rng);
        for &job in &jobs {
            match job {
                Job::Fixed(instance) => {
                    let time = engine.run(images(&data), instance)?.time.as_secs_f64();
                    log.fixed.entry(instance).or_default().push(time);
                }
                Job::By(index) => {
                    let deadline = Instant::now() + Duration::from_secs_f64(deadlines[index]);
                    let answer = engine.run_by(images(&data), deadline)?;
                    log.by[index].push((answer.instance, answer.time.as_secs_f64()));
                }
            }
        }
    }
    Ok(log)
}

fn worth(engine: &Engine, instance: Instance) -> f64 {
    let record = engine
        .record(instance)
        .expect("the instance is the model's");
    100.0 * record.top1.expect("all have an accuracy")
}

fn met(times: impl IntoIterator<Item = f64>, deadline: f64) -> f64 {
    mean(
        times
            .into_iter()
            .map(|time| f64::from(u8::from(time <= deadline))),
    )
}

/// Share met and mean accuracy of the runs by a deadline, and how many
/// different instances they became.
fn ours(engine: &Engine, runs: &[(Instance, f64)], deadline: f64) -> (f64, f64, usize) {
    let mut became: Vec<Instance> = runs.iter().map(|(instance, _)| *instance).collect();
    became.sort();
    became.dedup();
    (
        met(runs.iter().map(|(_, time)| *time), deadline),
        mean(runs.iter().map(|(instance, _)| worth(engine, *instance))),
        became.len(),
    )
}

fn idle_table(engine: &Engine, deadlines: &[f64], log: &Log) -> String {
    let mut text = String::from(
        "| deadline | met | cheapest met | mean accuracy | best fixed, by hindsight | its accuracy | difference |\n\
         | ---: | ---: | ---: | ---: | --- | ---: | ---: |\n",
    );
    let fastest = fastest(log);
    for (&deadline, runs) in deadlines.iter().zip(&log.by) {
        let (share, accuracy, _) = ours(engine, runs, deadline);
        let fitting = log
            .fixed
            .iter()
            .filter(|(_, times)| met(times.iter().copied(), deadline) >= RELIABLE);
        let best = fitting
            .map(|(&instance, _)| (worth(engine, instance), instance))
            .max_by(|a, b| a.0.total_cmp(&b.0));
        let (name, hindsight, difference) = match best {
            Some((best, instance)) => (
                format!("`{instance}`"),
                format!("{best:.2} %"),
                format!("{:+.2}", accuracy - best),
            ),
            None => ("none".into(), "-".into(), "-".into()),
        };
        let _ = writeln!(
            text,
            "| {:.1} ms | {:.1} % | {:.1} % | {accuracy:.2} % | {name} | {hindsight} | {difference} |",
            1e3 * deadline,
            100.0 * share,
            100.0 * met(log.fixed[&fastest].iter().copied(), deadline),
        );
    }
    text
}

fn fastest(log: &Log) -> Instance {
    let median = |times: &[f64]| quantile(times, 0.5);
    let best = log
        .fixed
        .iter()
        .min_by(|a, b| median(a.1).total_cmp(&median(b.1)));
    *best.expect("there are instances").0
}

fn load_table(engine: &Engine, deadlines: &[f64], log: &Log) -> String {
    let mut text = String::from(
        "| deadline | met | mean accuracy | instances | best fixed as accurate | its share met | fixed that meet as often: the most accurate |\n\
         | ---: | ---: | ---: | ---: | --- | ---: | --- |\n",
    );
    for (&deadline, runs) in deadlines.iter().zip(&log.by) {
        let (share, accuracy, became) = ours(engine, runs, deadline);
        let rivals: Vec<(Instance, f64, f64)> = log
            .fixed
            .iter()
            .map(|(&i, times)| (i, worth(engine, i), met(times.iter().copied(), deadline)))
            .collect();
        let rival = rivals
            .iter()
            .filter(|(_, worth, _)| *worth >= accuracy)
            .max_by(|a, b| a.2.total_cmp(&b.2));
        let (name, rival) = match rival {
            Some((instance, worth, met)) => (
                format!("`{instance}` ({worth:.2} %)"),
                format!("{:.1} %", 100.0 * met),
            ),
            None => ("none".into(), "-".into()),
        };
        let steady = rivals
            .iter()
            .filter(|(_, _, met)| *met >= share)
            .max_by(|a, b| a.1.total_cmp(&b.1));
        let steady = steady.map_or("none".into(), |(instance, worth, _)| {
            format!("`{instance}` ({worth:.2} %)")
        });
        let _ = writeln!(
            text,
            "| {:.1} ms | {:.1} % | {accuracy:.2} % | {became} | {name} | {rival} | {steady} |",
            1e3 * deadline,
            100.0 * share,
        );
    }
    text
}

/// Share met and accuracy over deadlines, ours and those of some fixed instances.
fn panels(engine: &Engine, deadlines: &[f64], log: &Log) -> [(&'static str, Vec<Line>); 2] {
    let over = |f: &dyn Fn(usize, f64) -> f64| -> Vec<(f64, f64)> {
        deadlines
            .iter()
            .enumerate()
            .map(|(i, &d)| (1e3 * d, f(i, d)))
            .collect()
    };
    let line = |name: &str, points, wide| Line {
        name: name.to_owned(),
        points,
        wide,
    };
    let mut shares = vec![line(
        "in flight",
        over(&|i, d| 100.0 * ours(engine, &log.by[i], d).0),
        true,
    )];
    let mut accuracies = vec![line(
        "in flight",
        over(&|i, d| ours(engine, &log.by[i], d).1),
        true,
    )];
    let mut fixed: Vec<Instance> = log.fixed.keys().copied().collect();
    fixed.sort_by(|a, b| worth(engine, *a).total_cmp(&worth(engine, *b)));
    for &instance in fixed.iter().step_by(fixed.len() / 4) {
        let times = &log.fixed[&instance];
        let name = instance.to_string();
        let points = over(&|_, d| 100.0 * met(times.iter().copied(), d));
        shares.push(line(&name, points, false));
        accuracies.push(line(&name, over(&|_, _| worth(engine, instance)), false));
    }
    [
        ("deadlines met (%)", shares),
        ("mean accuracy (%)", accuracies),
    ]
}
