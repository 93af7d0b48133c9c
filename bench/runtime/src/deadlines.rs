//! Runs with a deadline compared with every fixed instance, idle and under load.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chacha20::ChaCha8Rng;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use sdpoint::profile::Profile;
use sdpoint::{Context, Engine, Instance};

use crate::load::Load;
use crate::picture::{Line, draw};
use crate::subject::{image, images, mean, model, quantile};

/// An instance counts as fitting a deadline if it met it this often.
const RELIABLE: f64 = 0.99;

/// A run counts as disturbed if it took this many times the median: the margin of runs with a
/// deadline.
const DISTURBED: f64 = 1.1;

/// Deadlines between the cheapest instance's time and 1.2 × that of `full`.
const DEADLINES: usize = 9;

/// The default number of rounds, enough to resolve 1 %.
pub const ROUNDS: usize = 60;

/// Runs with each deadline per round, for one of each fixed instance. More, as each deadline is
/// judged by its own runs.
const RUNS_BY: usize = 2;

/// Runs of the cheapest instance that determine the first deadline.
const FIRST_LOOK: usize = 200;

/// The load during the measurement.
#[derive(Clone, Copy, PartialEq)]
pub enum Neighbour {
    /// Nothing.
    None,
    /// Another process that computes in bursts.
    Bursts,
}

/// The results of all runs, in seconds.
struct Log {
    deadlines: Vec<f64>,
    /// Times of each fixed instance.
    fixed: BTreeMap<Instance, Vec<f64>>,
    /// For each deadline, the instance and time of each run.
    by: Vec<Vec<(Instance, f64)>>,
}

pub fn run(neighbour: Neighbour, rounds: usize, picture: Option<&Path>) -> anyhow::Result<()> {
    let engine = Engine::new(Arc::new(Context::new(None)?), model(true)?)?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("model.safetensors");
    let measured = engine.measure(1, Duration::from_millis(400))?;
    Profile::save_beside(&file, &engine, measured)?;
    let engine = engine.with_profile_beside(&file);
    engine.warm_up(1)?;
    let deadlines = deadlines(&engine)?;
    match neighbour {
        Neighbour::None => {
            println!("{}\n", overhead(&engine, rounds)?);
            let log = collect(&engine, deadlines, rounds, 1)?;
            println!("{}", idle_table(&engine, &log));
        }
        Neighbour::Bursts => {
            let load = Load::start(7)?;
            let log = collect(&engine, deadlines, rounds, 2)?;
            drop(load);
            println!("{}", load_table(&engine, &log));
            if let Some(picture) = picture {
                std::fs::write(picture, draw(&panels(&engine, &log))?)?;
            }
        }
    }
    Ok(())
}

/// Deadlines from the 99th percentile of the cheapest instance, without load, to 1.2 times the
/// time of `full`.
fn deadlines(engine: &Engine) -> anyhow::Result<Vec<f64>> {
    let times = engine.times(1)?;
    let cheapest = times.iter().min_by_key(|(_, time)| **time);
    let cheapest = *cheapest.expect("there are instances").0;
    let data = image();
    let runs = (0..FIRST_LOOK).map(|_| Ok(engine.run(images(&data), cheapest)?.time.as_secs_f64()));
    let first = quantile(&runs.collect::<anyhow::Result<Vec<f64>>>()?, RELIABLE);
    let step = (1.2 * times[&Instance::Full].as_secs_f64() - first) / (DEADLINES - 1) as f64;
    Ok((0..DEADLINES).map(|i| first + i as f64 * step).collect())
}

/// The overhead of a run that is undecided until the last point, compared with `full`.
fn overhead(engine: &Engine, rounds: usize) -> anyhow::Result<String> {
    let data = image();
    let far = Duration::from_secs(3600);
    let (mut fixed, mut undecided) = (Vec::new(), Vec::new());
    for _ in 0..4 * rounds {
        let answer = engine.run(images(&data), Instance::Full)?;
        fixed.push(answer.time.as_secs_f64());
        let answer = engine.run_by(images(&data), Instant::now() + far)?;
        undecided.push(answer.time.as_secs_f64());
    }
    let [fixed, undecided] = [fixed, undecided].map(|times| 1e3 * quantile(&times, 0.5));
    Ok(format!(
        "`full`: {fixed:.2} ms; undecided until the last point: {undecided:.2} ms ({:+.2} %).",
        100.0 * (undecided / fixed - 1.0)
    ))
}

/// Runs everything `rounds` times, in a new random order each time.
fn collect(engine: &Engine, deadlines: Vec<f64>, rounds: usize, seed: u64) -> anyhow::Result<Log> {
    #[derive(Clone, Copy)]
    enum Job {
        Fixed(Instance),
        By(usize),
    }
    let fixed = engine
        .records()
        .iter()
        .map(|record| Job::Fixed(record.instance));
    let by = (0..RUNS_BY * deadlines.len()).map(|i| Job::By(i / RUNS_BY));
    let mut jobs: Vec<Job> = fixed.chain(by).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let data = image();
    let mut log = Log {
        by: vec![Vec::new(); deadlines.len()],
        fixed: BTreeMap::new(),
        deadlines,
    };
    for round in 0..rounds {
        eprint!("\rround {round} of {rounds}");
        jobs.shuffle(&mut rng);
        for &job in &jobs {
            match job {
                Job::Fixed(instance) => {
                    let time = engine.run(images(&data), instance)?.time.as_secs_f64();
                    log.fixed.entry(instance).or_default().push(time);
                }
                Job::By(index) => {
                    let allowed = Duration::from_secs_f64(log.deadlines[index]);
                    let answer = engine.run_by(images(&data), Instant::now() + allowed)?;
                    let became = answer
                        .instances
                        .single()
                        .expect("a deadline gives one instance");
                    log.by[index].push((became, answer.time.as_secs_f64()));
                }
            }
        }
    }
    eprintln!();
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

/// Share of met deadlines, mean accuracy, and number of different instances of the runs with a
/// deadline.
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

fn idle_table(engine: &Engine, log: &Log) -> String {
    let mut text = String::from(
        "| deadline | met | cheapest met | mean accuracy | best fixed, by hindsight | its accuracy | difference |\n\
         | ---: | ---: | ---: | ---: | --- | ---: | ---: |\n",
    );
    let fastest = fastest(log);
    let (mut late_by, mut runs_where_it_fits) = (Vec::new(), 0);
    for (&deadline, runs) in log.deadlines.iter().zip(&log.by) {
        let (share, accuracy, _) = ours(engine, runs, deadline);
        let cheapest_met = met(log.fixed[&fastest].iter().copied(), deadline);
        if cheapest_met >= RELIABLE {
            let late = runs.iter().filter(|(_, time)| *time > deadline);
            late_by.extend(late.map(|(_, time)| time / deadline - 1.0));
            runs_where_it_fits += runs.len();
        }
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
            100.0 * cheapest_met,
        );
    }
    let _ = writeln!(
        text,
        "\nOf the {runs_where_it_fits} runs by deadlines that the cheapest instance met in 99 % of \
         its own, {:.2} % were in time.",
        100.0 * (1.0 - late_by.len() as f64 / runs_where_it_fits as f64)
    );
    let _ = writeln!(
        text,
        "Of the runs of fixed instances, {:.2} % took more than {DISTURBED} times their median: so \
         often the machine is not as idle as it seems.",
        100.0 * disturbed(log)
    );
    if !late_by.is_empty() {
        let [half, most] = [0.5, 1.0].map(|share| 100.0 * quantile(&late_by, share));
        let _ = writeln!(
            text,
            "Half of the others were late by up to {half:.1} % of the deadline, the last by \
             {most:.1} %."
        );
    }
    text
}

/// The share of disturbed runs of fixed instances.
fn disturbed(log: &Log) -> f64 {
    let runs = log.fixed.values().flat_map(|times| {
        let usual = quantile(times, 0.5);
        times.iter().map(move |time| *time / usual)
    });
    1.0 - met(runs, DISTURBED)
}

fn fastest(log: &Log) -> Instance {
    let median = |times: &[f64]| quantile(times, 0.5);
    let best = log
        .fixed
        .iter()
        .min_by(|a, b| median(a.1).total_cmp(&median(b.1)));
    *best.expect("there are instances").0
}

/// A fixed instance, compared with the runs with one deadline or with all of them.
struct Rival {
    instance: Instance,
    accuracy: f64,
    met: f64,
}

impl Rival {
    fn name(&self) -> String {
        format!("`{}` ({:.2} %)", self.instance, self.accuracy)
    }
}

fn load_table(engine: &Engine, log: &Log) -> String {
    let mut text = String::from(
        "| deadline | met | mean accuracy | instances | best fixed as accurate | its share met | fixed that meet as often: the most accurate |\n\
         | ---: | ---: | ---: | ---: | --- | ---: | --- |\n",
    );
    let mut row = |deadline: &str, share: f64, accuracy: f64, became: usize, rivals: &[Rival]| {
        let rival = rivals
            .iter()
            .filter(|rival| rival.accuracy >= accuracy)
            .max_by(|a, b| a.met.total_cmp(&b.met));
        let (name, met) = rival.map_or(("none".into(), "-".into()), |rival| {
            (rival.name(), format!("{:.1} %", 100.0 * rival.met))
        });
        let steady = rivals
            .iter()
            .filter(|rival| rival.met >= share)
            .max_by(|a, b| a.accuracy.total_cmp(&b.accuracy));
        let steady = steady.map_or("none".into(), Rival::name);
        let _ = writeln!(
            text,
            "| {deadline} | {:.1} % | {accuracy:.2} % | {became} | {name} | {met} | {steady} |",
            100.0 * share,
        );
    };
    let rivals = |met_by: &dyn Fn(&[f64]) -> f64| -> Vec<Rival> {
        log.fixed
            .iter()
            .map(|(&instance, times)| Rival {
                instance,
                accuracy: worth(engine, instance),
                met: met_by(times),
            })
            .collect()
    };
    let (mut shares, mut accuracies, mut all) = (Vec::new(), Vec::new(), Vec::new());
    for (&deadline, runs) in log.deadlines.iter().zip(&log.by) {
        let (share, accuracy, became) = ours(engine, runs, deadline);
        let rivals = rivals(&|times| met(times.iter().copied(), deadline));
        let name = format!("{:.1} ms", 1e3 * deadline);
        row(&name, share, accuracy, became, &rivals);
        shares.push(share);
        accuracies.push(accuracy);
        all.extend(runs.iter().copied());
    }
    let over_all = rivals(&|times| {
        let each = log.deadlines.iter();
        mean(each.map(|&deadline| met(times.iter().copied(), deadline)))
    });
    let (_, _, became) = ours(engine, &all, 0.0);
    row(
        "all of them",
        mean(shares),
        mean(accuracies),
        became,
        &over_all,
    );
    text
}

/// Share met and accuracy over deadlines, ours and those of some fixed instances.
fn panels(engine: &Engine, log: &Log) -> [(&'static str, Vec<Line>); 2] {
    let over = |f: &dyn Fn(usize, f64) -> f64| -> Vec<(f64, f64)> {
        log.deadlines
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
