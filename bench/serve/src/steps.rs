//! How fast the mix of instances follows a step of the load.

use std::fs;
use std::path::PathBuf;

use sdpoint::Instance;
use sdpoint_serve::simulation::{Arrivals, Phase};

use crate::client::{Form, Requests};
use crate::load::{self, Outcome, Sample};
use crate::picture;
use crate::rates::Rates;
use crate::server::{MODEL, Server, ServerArgs};
use crate::subject::Subject;
use crate::summary::Summary;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    server: ServerArgs,
    /// The objective, in service times of one image in the cheapest instance
    #[arg(long, default_value_t = 15.0)]
    objective: f64,
    /// Loads before, during and after, in multiples of what `full` serves
    #[arg(long, value_delimiter = ',', default_values_t = [0.5, 3.0, 0.5])]
    loads: Vec<f64>,
    /// Seconds of each load
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Change the load evenly from one to the next instead of in steps
    #[arg(long)]
    ramp: bool,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The folder for steps.svg
    #[arg(long, default_value = "results")]
    out: PathBuf,
}

/// The windows over which shares are taken, in objectives.
const WINDOW: f64 = 10.0;

pub async fn run(args: Args) -> anyhow::Result<()> {
    let subject = Subject::load(&args.server.model)?;
    let objective = args.objective * subject.service_time();
    let requests = Requests::new(MODEL, Form::Pixels, subject.size).within(objective);
    let rates = Rates::measure(&args.server, &subject).await?;
    let server = Server::start(&args.server)?;
    let client = server
        .client(&Requests::new(MODEL, Form::Pixels, subject.size))
        .await?;
    let arrivals: Vec<f64> = Arrivals::new(phases(&args, rates), 1.0, args.seed).collect();
    let samples = load::collect(&client, &requests, arrivals.into()).await?;
    server.stop()?;
    let summary = Summary::of(&samples, objective);
    println!(
        "objective {:.1} ms, in time {:.2} %, mean accuracy {:.2} %",
        1e3 * objective,
        100.0 * summary.attainment,
        100.0 * summary.accuracy
    );
    if !args.ramp {
        report(&args, &samples, objective, subject.most_accurate());
    }
    fs::create_dir_all(&args.out)?;
    let end = samples.last().map_or(1.0, |sample| sample.due);
    let names: Vec<Instance> = summary.mix.keys().copied().collect();
    let steps = (0..200).map(|step| {
        let from = end * f64::from(step) / 200.0;
        let shares = names
            .iter()
            .map(|&name| share(&samples, name, from, from + end / 200.0));
        (from, shares.map(|share| share.unwrap_or(0.0)).collect())
    });
    let steps: Vec<(f64, Vec<f64>)> = steps.collect();
    let labels: Vec<String> = names.iter().map(Instance::to_string).collect();
    let loads: Vec<String> = args.loads.iter().map(f64::to_string).collect();
    let title = format!("Answers by instance; load {} of full's", loads.join(", "));
    let name = if args.ramp { "ramp.svg" } else { "steps.svg" };
    fs::write(
        args.out.join(name),
        picture::stack(&title, &labels, &steps)?,
    )?;
    Ok(())
}

fn phases(args: &Args, rates: Rates) -> Vec<Phase> {
    let rates: Vec<f64> = args.loads.iter().map(|load| load * rates.full).collect();
    match args.ramp {
        false => rates
            .iter()
            .map(|&rate| Phase::steady(args.seconds, rate))
            .collect(),
        true => rates
            .windows(2)
            .map(|pair| Phase {
                seconds: args.seconds,
                from: pair[0],
                to: pair[1],
            })
            .collect(),
    }
}

/// The share of the most accurate instance and the mean accuracy of the answers, two objectives
/// and a second after each step, and at the end of the load.
fn report(args: &Args, samples: &[Sample], objective: f64, best: Instance) {
    println!("Share of {best}, the most accurate instance, and mean accuracy:\n");
    println!("| load | 2 objectives after the step | 1 s after | at the end |");
    println!("| ---: | ---: | ---: | ---: |");
    let window = WINDOW * objective;
    for (number, load) in args.loads.iter().enumerate() {
        let start = number as f64 * args.seconds;
        let end = start + args.seconds;
        let shares = [start + 2.0 * objective, start + 1.0, end - window].map(|from| {
            let share = share(samples, best, from, from + window);
            share.map_or("–".to_owned(), |share| {
                let accuracy = accuracy(samples, from, from + window);
                format!("{:.0} %, {:.2} %", 100.0 * share, 100.0 * accuracy)
            })
        });
        println!("| {load} | {} |", shares.join(" | "));
    }
}

/// The mean recorded accuracy of the answers to requests that were due in a span.
fn accuracy(samples: &[Sample], from: f64, to: f64) -> f64 {
    let due = samples.iter().filter(|s| (from..to).contains(&s.due));
    let known = due.filter_map(|sample| match sample.outcome {
        Outcome::Answered { accuracy, .. } => accuracy,
        _ => None,
    });
    let accuracies: Vec<f64> = known.collect();
    accuracies.iter().sum::<f64>() / accuracies.len().max(1) as f64
}

/// The share of an instance among the answers to requests that were due in a span.
fn share(samples: &[Sample], wanted: Instance, from: f64, to: f64) -> Option<f64> {
    let mut counts = [0; 2];
    for sample in samples.iter().filter(|s| (from..to).contains(&s.due)) {
        if let Outcome::Answered { instance, .. } = sample.outcome {
            counts[usize::from(instance == Some(wanted))] += 1;
        }
    }
    let all = counts[0] + counts[1];
    (all > 0).then(|| f64::from(counts[1]) / f64::from(all))
}
