//! The controller, every fixed instance and what is possible at best, on the same arrivals.

use std::fs::{self, File};
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use sdpoint::Instance;
use sdpoint_serve::simulation::{Arrivals, Phase, fluid_bound, ideal};

use crate::client::{Client, Form, Requests};
use crate::load;
use crate::picture::{self, Line};
use crate::rates::Rates;
use crate::server::{MODEL, Server, ServerArgs};
use crate::subject::Subject;
use crate::summary::Summary;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    server: ServerArgs,
    /// Objectives, in service times of one image in the cheapest instance
    #[arg(long, value_delimiter = ',', default_values_t = [15.0, 50.0])]
    objectives: Vec<f64>,
    /// Squared coefficients of variation of the times between arrivals
    #[arg(long, value_delimiter = ',', default_values_t = [1.0, 4.0, 8.0])]
    burstiness: Vec<f64>,
    /// Loads, in multiples of what `full` serves; 3x stands for three times the capacity
    /// of the cheapest instance
    #[arg(long, value_delimiter = ',', default_value = "0.5,1,1.5,2,0.8x,3x")]
    loads: Vec<Load>,
    /// Seconds of each run
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// The controller and the fixed instances take turns, so many each, so that all meet the
    /// same changes of the machine
    #[arg(long, default_value = "5")]
    turns: NonZeroUsize,
    /// Instances to compare with [default: those that no faster one equals in accuracy]
    #[arg(long, value_delimiter = ',')]
    instances: Vec<Instance>,
    /// Replay arrivals from a file, a time in seconds per line, instead of random ones. They
    /// are scaled to each load
    #[arg(long)]
    replay: Option<PathBuf>,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The folder for compare.csv, compare.md and compare.svg
    #[arg(long, default_value = "results")]
    out: PathBuf,
}

/// A rate of requests.
#[derive(Clone, Copy, Debug)]
enum Load {
    /// In multiples of what `full` serves.
    OfFull(f64),
    /// In multiples of what the cheapest instance serves.
    OfCapacity(f64),
}

impl std::str::FromStr for Load {
    type Err = std::num::ParseFloatError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_suffix('x') {
            Some(number) => number.parse().map(Self::OfCapacity),
            None => text.parse().map(Self::OfFull),
        }
    }
}

impl Load {
    /// Requests per second.
    fn rate(self, rates: Rates) -> f64 {
        match self {
            Self::OfFull(load) => load * rates.full,
            Self::OfCapacity(load) => load * rates.cheapest,
        }
    }
}

/// Arrivals at one load, and what must be reached.
struct Scenario {
    /// In service times.
    objective: f64,
    burstiness: f64,
    /// In multiples of what `full` serves.
    load: f64,
    /// In seconds.
    seconds: f64,
    arrivals: Arc<[f64]>,
}

/// The results of a scenario.
struct Row {
    scenario: Scenario,
    chosen: Summary,
    fixed: Vec<(Instance, Summary)>,
}

pub async fn run(args: Args) -> anyhow::Result<()> {
    let subject = Subject::load(&args.server.model)?;
    fs::create_dir_all(&args.out)?;
    let replay = args.replay.as_deref().map(read_arrivals).transpose()?;
    let instances = match args.instances.as_slice() {
        [] => subject.frontier(),
        some => some.to_vec(),
    };
    let requests = Requests::new(MODEL, Form::Pixels, subject.size);
    let rates = Rates::measure(&args.server, &subject).await?;
    let mut csv = File::create(args.out.join("compare.csv"))?;
    writeln!(csv, "{CSV_HEADER}")?;
    let mut rows = Vec::new();
    println!("{}\n{HEADER}", describe(&subject, rates));
    for &objective in &args.objectives {
        // A server has one objective; the controller of another has learned other things.
        let server = Server::start(&args.server)?;
        let client = server.client(&requests).await?;
        for scenario in scenarios(&args, objective, &subject, rates, replay.as_deref()) {
            let row = measure(&client, &requests, scenario, &instances, args.turns.get()).await?;
            write_csv(&mut csv, &row)?;
            println!("{}", cells(&row, &subject, rates));
            rows.push(row);
        }
        server.stop()?;
    }
    let table: String = rows
        .iter()
        .map(|row| cells(row, &subject, rates) + "\n")
        .collect();
    let text = format!("{}\n{HEADER}\n{table}", describe(&subject, rates));
    fs::write(args.out.join("compare.md"), text)?;
    fs::write(args.out.join("compare.svg"), draw(&rows, &subject)?)?;
    Ok(())
}

fn scenarios(
    args: &Args,
    objective: f64,
    subject: &Subject,
    rates: Rates,
    replay: Option<&[f64]>,
) -> Vec<Scenario> {
    let burstiness = match replay {
        Some(_) => &[f64::NAN],
        None => args.burstiness.as_slice(),
    };
    let mut all = Vec::new();
    for &burstiness in burstiness {
        for load in &args.loads {
            let rate = load.rate(rates);
            let arrivals: Vec<f64> = match replay {
                Some(replay) => scaled(replay, rate, args.seconds),
                None => {
                    let phases = vec![Phase::steady(args.seconds, rate)];
                    Arrivals::new(phases, burstiness, args.seed).collect()
                }
            };
            all.push(Scenario {
                objective,
                burstiness,
                load: rate / rates.full,
                seconds: objective * subject.service_time(),
                arrivals: arrivals.into(),
            });
        }
    }
    all
}

fn read_arrivals(file: &Path) -> anyhow::Result<Vec<f64>> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let numbers = text.split_whitespace().map(str::parse);
    let mut arrivals = numbers.collect::<Result<Vec<f64>, _>>()?;
    arrivals.sort_by(f64::total_cmp);
    let first = arrivals
        .first()
        .copied()
        .context("the file has no arrivals")?;
    arrivals.iter_mut().for_each(|at| *at -= first);
    Ok(arrivals)
}

/// The arrivals of the first `seconds`, at this mean rate.
fn scaled(replay: &[f64], rate: f64, seconds: f64) -> Vec<f64> {
    let span = replay.last().copied().unwrap_or(0.0).max(1e-9);
    let factor = replay.len() as f64 / span / rate;
    let scaled = replay.iter().map(|at| at * factor);
    scaled.take_while(|&at| at < seconds).collect()
}

async fn measure(
    client: &Client,
    requests: &Requests,
    scenario: Scenario,
    instances: &[Instance],
    turns: usize,
) -> anyhow::Result<Row> {
    let requests = requests.clone().within(scenario.seconds);
    let fixed = instances
        .iter()
        .map(|&instance| requests.clone().by(instance));
    let policies: Vec<Requests> = std::iter::once(requests.clone()).chain(fixed).collect();
    let mut samples = vec![Vec::new(); policies.len()];
    for part in parts(&scenario.arrivals, turns) {
        for (policy, samples) in policies.iter().zip(&mut samples) {
            let new = load::collect(client, policy, part.arrivals.clone()).await?;
            samples.extend(new.into_iter().map(|sample| load::Sample {
                due: part.start + sample.due,
                ..sample
            }));
        }
    }
    let mut summaries = samples.iter().map(|all| Summary::of(all, scenario.seconds));
    let chosen = summaries.next().expect("the first is the controller");
    Ok(Row {
        fixed: instances.iter().copied().zip(summaries).collect(),
        chosen,
        scenario,
    })
}

/// Arrivals within a part of a run.
struct Part {
    /// In seconds from the start of the run.
    start: f64,
    /// In seconds from the start of the part.
    arrivals: Arc<[f64]>,
}

/// Divides arrivals into parts of equal numbers, or nearly so.
fn parts(arrivals: &[f64], turns: usize) -> impl Iterator<Item = Part> {
    let each = arrivals.len().div_ceil(turns).max(1);
    arrivals.chunks(each).map(|part| Part {
        start: part[0],
        arrivals: part.iter().map(|at| at - part[0]).collect(),
    })
}

impl Row {
    /// The most accurate instance that answers as many requests in time, up to a
    /// twentieth of a point; the one that answers most if none does.
    fn best_fixed(&self) -> Option<&(Instance, Summary)> {
        let least = self.chosen.attainment - 0.0005;
        let equal = self.fixed.iter().filter(|(_, s)| s.attainment >= least);
        let best = equal.max_by(|(_, a), (_, b)| a.accuracy.total_cmp(&b.accuracy));
        best.or_else(|| {
            let all = self.fixed.iter();
            all.max_by(|(_, a), (_, b)| a.attainment.total_cmp(&b.attainment))
        })
    }

    fn of(&self, instance: Instance) -> Option<&Summary> {
        let found = self.fixed.iter().find(|(other, _)| *other == instance);
        found.map(|(_, summary)| summary)
    }
}

fn describe(subject: &Subject, rates: Rates) -> String {
    format!(
        "One image in the cheapest instance ({}) takes {:.3} ms. In a closed loop, the \
         server answers {:.0} requests per second by full and {:.0} by the cheapest instance.\n",
        subject.cheapest(),
        1e3 * subject.service_time(),
        rates.full,
        rates.cheapest
    )
}

const HEADER: &str = "| objective | burstiness | load | in time | cheapest in time | accuracy \
| best fixed | ideal | fluid bound | distance closed | goodput / capacity | p99 / objective \
| refused | refusal p99.9 | dropped | sent late p99 |\n\
|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|";

fn cells(row: &Row, subject: &Subject, rates: Rates) -> String {
    let Scenario {
        objective,
        burstiness,
        load,
        seconds,
        arrivals,
    } = &row.scenario;
    let chosen = &row.chosen;
    let percent = |share: f64| format!("{:.2} %", 100.0 * share);
    let or_dash = |value: Option<f64>| value.map_or("–".to_owned(), percent);
    let rate = load * rates.full;
    let bound = fluid_bound(&subject.costs, rate);
    let best = row.best_fixed().map(|(_, summary)| summary.accuracy);
    // Where a fixed instance reaches the bound, there is no distance.
    let closed = bound
        .zip(best)
        .filter(|(bound, best)| bound - best >= 0.002);
    let closed = closed.map(|(bound, best)| (chosen.accuracy - best) / (bound - best));
    let cheapest = row.of(subject.cheapest());
    [
        format!("| {objective}"),
        match burstiness.is_nan() {
            true => "replay".to_owned(),
            false => burstiness.to_string(),
        },
        format!("{load:.2}"),
        percent(chosen.attainment),
        or_dash(cheapest.map(|summary| summary.attainment)),
        percent(chosen.accuracy),
        or_dash(best),
        percent(ideal(&subject.costs, arrivals, *seconds).accuracy),
        or_dash(bound),
        closed.map_or("–".to_owned(), |closed| format!("{closed:.2}")),
        percent(chosen.goodput / rates.cheapest),
        format!("{:.2}", chosen.p99 / seconds),
        percent(chosen.refused),
        format!("{:.2} ms", 1e3 * chosen.refusal),
        percent(chosen.dropped),
        format!("{:.2} ms |", 1e3 * chosen.lag),
    ]
    .join(" | ")
}

const CSV_HEADER: &str = "objective,burstiness,load,policy,requests,attainment,accuracy,goodput,\
median_ms,p99_ms,refused,refusal_p999_ms,dropped,lag_p99_ms,failed,mix";

fn write_csv(csv: &mut File, row: &Row) -> anyhow::Result<()> {
    let fixed = row
        .fixed
        .iter()
        .map(|(instance, s)| (instance.to_string(), s));
    for (policy, s) in std::iter::once(("controller".to_owned(), &row.chosen)).chain(fixed) {
        let Scenario {
            objective,
            burstiness,
            load,
            arrivals,
            ..
        } = &row.scenario;
        let mix = s
            .mix
            .iter()
            .map(|(instance, share)| format!("{instance}:{share:.4}"));
        let mix: Vec<String> = mix.collect();
        writeln!(
            csv,
            "{objective},{burstiness},{load:.3},{policy},{},{:.5},{:.5},{:.1},{:.3},{:.3},{:.5},\
             {:.3},{:.5},{:.3},{},{}",
            arrivals.len(),
            s.attainment,
            s.accuracy,
            s.goodput,
            1e3 * s.median,
            1e3 * s.p99,
            s.refused,
            1e3 * s.refusal,
            s.dropped,
            1e3 * s.lag,
            s.failed,
            mix.join(" ")
        )?;
    }
    Ok(())
}

/// Accuracy over attainment's complement would hide one of the two, so there are two rows:
/// accuracy and share in time, over the loads that the cheapest instance can serve; a column for
/// each objective, at the middle burstiness.
fn draw(rows: &[Row], subject: &Subject) -> anyhow::Result<String> {
    let mut objectives: Vec<f64> = rows.iter().map(|row| row.scenario.objective).collect();
    objectives.dedup();
    let mut all: Vec<f64> = rows.iter().map(|row| row.scenario.burstiness).collect();
    all.sort_by(f64::total_cmp);
    all.dedup_by(|a, b| a.total_cmp(b).is_eq());
    let middle = all.get(all.len() / 2).copied().unwrap_or(f64::NAN);
    let mut panels = Vec::new();
    type Value = fn(&Summary) -> f64;
    let values: [(&str, Value); 2] = [
        ("accuracy (%)", |s| 100.0 * s.accuracy),
        ("in time (%)", |s| 100.0 * s.attainment),
    ];
    for (what, value) in values {
        for objective in &objectives {
            let chosen = rows.iter().filter(|row| {
                let Scenario {
                    arrivals, seconds, ..
                } = &row.scenario;
                row.scenario.objective == *objective
                    && row.scenario.burstiness.total_cmp(&middle).is_eq()
                    && fluid_bound(&subject.costs, arrivals.len() as f64 / seconds).is_some()
            });
            let mut chosen: Vec<&Row> = chosen.collect();
            chosen.sort_by(|a, b| a.scenario.load.total_cmp(&b.scenario.load));
            let line = |name: &str, of: &dyn Fn(&Row) -> Option<f64>| Line {
                name: name.to_owned(),
                points: chosen
                    .iter()
                    .filter_map(|row| Some((row.scenario.load, of(row)?)))
                    .collect(),
                wide: name == "controller",
            };
            let cheapest = subject.cheapest();
            let mut lines = vec![
                line("controller", &|row| Some(value(&row.chosen))),
                line("best fixed", &|row| Some(value(&row.best_fixed()?.1))),
                line("cheapest", &|row| row.of(cheapest).map(value)),
            ];
            if what.starts_with("accuracy") {
                lines.push(line("ideal", &|row| {
                    let Scenario {
                        arrivals, seconds, ..
                    } = &row.scenario;
                    Some(100.0 * ideal(&subject.costs, arrivals, *seconds).accuracy)
                }));
            }
            panels.push((format!("{what}, {objective} service times"), lines));
        }
    }
    picture::draw(
        &panels,
        objectives.len(),
        "load, in multiples of what full serves",
    )
}
