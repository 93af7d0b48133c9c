//! A long run at a load that keeps changing.

use std::time::{Duration, Instant};

use anyhow::ensure;
use chacha20::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use sdpoint_serve::simulation::{Arrivals, Phase};

use crate::client::{Form, Requests};
use crate::load;
use crate::rates::Rates;
use crate::server::{MODEL, Server, ServerArgs};
use crate::subject::Subject;
use crate::summary::Summary;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    server: ServerArgs,
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// The objective, in service times of one image in the cheapest instance
    #[arg(long, default_value_t = 50.0)]
    objective: f64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Seconds of one load.
const SPAN: f64 = 10.0;

/// How much the memory may grow after the first quarter of the run.
const GROWTH: f64 = 1.05;

pub async fn run(args: Args) -> anyhow::Result<()> {
    let subject = Subject::load(&args.server.model)?;
    let objective = args.objective * subject.service_time();
    let plain = Requests::new(MODEL, Form::Pixels, subject.size);
    let rates = Rates::measure(&args.server, &subject).await?;
    let server = Server::start(&args.server)?;
    let client = server.client(&plain).await?;
    let requests = plain.within(objective);
    let mut rng = ChaCha8Rng::seed_from_u64(args.seed);
    let start = Instant::now();
    let whole = Duration::from_secs_f64(60.0 * args.minutes);
    let (mut early, mut late, mut failed, mut total) = (0, 0, 0, 0);
    let mut from = 0.5;
    println!("| minute | load | requests | in time | accuracy | failed | memory |");
    println!("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    while start.elapsed() < whole {
        let to = rng.random_range(0.1..4.0);
        let phase = Phase {
            seconds: SPAN,
            from: from * rates.full,
            to: to * rates.full,
        };
        let burstiness = rng.random_range(1.0..8.0);
        let arrivals: Vec<f64> = Arrivals::new(vec![phase], burstiness, rng.random()).collect();
        let samples = load::collect(&client, &requests, arrivals.into()).await?;
        let summary = Summary::of(&samples, objective);
        let memory = server.memory()?;
        let at = start.elapsed();
        println!(
            "| {:.1} | {from:.1} to {to:.1} | {} | {:.2} % | {:.2} % | {} | {:.1} MB |",
            at.as_secs_f64() / 60.0,
            samples.len(),
            100.0 * summary.attainment,
            100.0 * summary.accuracy,
            summary.failed,
            memory as f64 / 1e6
        );
        match at < whole / 4 || early == 0 {
            true => early = memory.max(early),
            false => late = memory.max(late),
        }
        failed += summary.failed;
        total += samples.len();
        from = to;
    }
    server.stop()?;
    println!(
        "\n{total} requests, {failed} errors; at most {:.1} MB in the first quarter, {:.1} MB later",
        early as f64 / 1e6,
        late as f64 / 1e6
    );
    ensure!(failed == 0, "{failed} requests failed");
    ensure!(late as f64 <= GROWTH * early as f64, "memory grew");
    Ok(())
}
