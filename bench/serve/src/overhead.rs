//! What the server adds to the library: latency of one request, throughput of many.

use std::time::{Duration, Instant};

use anyhow::Context;
use sdpoint::{Instance, Model};

use crate::client::{Client, Form, Requests};
use crate::rates::throughput;
use crate::server::{MODEL, Server, ServerArgs, on_core};
use crate::summary::quantile;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    server: ServerArgs,
    /// Rounds, each of the library and then the server
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// The library's batch for the comparison of throughput
    #[arg(long, default_value_t = 32)]
    batch: usize,
    /// Requests in flight for the comparison of throughput
    #[arg(long, default_value_t = 96)]
    in_flight: usize,
}

pub async fn run(args: Args) -> anyhow::Result<()> {
    let size = Model::load(&args.server.model)?.preprocessing.size;
    let plain = Requests::new(MODEL, Form::Planes, size);
    let requests = plain.within(60.0).by(Instance::Full);
    let server = Server::start(&args.server)?;
    let client = server.client(&requests).await?;
    let (mut around, mut added, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    println!(
        "| round | library, 1 image | server, 1 request | of which computing | \
         library, images/s | server, images/s |"
    );
    println!("| ---: | ---: | ---: | ---: | ---: | ---: |");
    for round in 1..=args.rounds {
        let alone = library(&args, 1)?;
        let Latency { whole, computing } = latency(&client, &requests, args.seconds).await?;
        let batches = args.batch as f64 / library(&args, args.batch)?;
        let served = throughput(&client, &requests, args.in_flight, args.seconds).await?;
        println!(
            "| {round} | {:.3} ms | {:.3} ms | {:.3} ms | {batches:.1} | {served:.1} |",
            1e3 * alone,
            1e3 * whole,
            1e3 * computing
        );
        around.push(whole - computing);
        added.push(computing - alone);
        ratios.push(served / batches);
    }
    server.stop()?;
    println!(
        "\nMedians of the rounds: a request takes {:.3} ms besides the computation, which takes \
         {:.3} ms more than in the library; the server answers {:.1} % of the images per second \
         of the library in batches of {}.",
        1e3 * quantile(around, 0.5),
        1e3 * quantile(added, 0.5),
        100.0 * quantile(ratios, 0.5),
        args.batch
    );
    Ok(())
}

/// The library's median time of a batch on the server's core, in seconds. The server idles
/// meanwhile.
fn library(args: &Args, batch: usize) -> anyhow::Result<f64> {
    let output = on_core(args.server.core, &std::env::current_exe()?)
        .arg("library")
        .arg("--model")
        .arg(&args.server.model)
        .args(["--batch", &batch.to_string()])
        .args(["--seconds", &args.seconds.to_string()])
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    text.trim().parse().context("the library gave no time")
}

/// Medians over requests, in seconds.
struct Latency {
    /// From sending a request to its answer.
    whole: f64,
    /// As the answer says.
    computing: f64,
}

/// Sends requests one after the other.
async fn latency(client: &Client, requests: &Requests, seconds: f64) -> anyhow::Result<Latency> {
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let (mut times, mut computing) = (Vec::new(), Vec::new());
    while Instant::now() < end {
        let request = requests.request(times.len());
        let start = Instant::now();
        let answer = client.infer(request).await?;
        times.push(start.elapsed().as_secs_f64());
        computing.extend(answer.computed);
    }
    Ok(Latency {
        whole: quantile(times, 0.5),
        computing: quantile(computing, 0.5),
    })
}
