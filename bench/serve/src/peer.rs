//! Another server of the protocol, on the arrivals that `compare` sends.

use std::path::PathBuf;

use sdpoint_serve::simulation::{Arrivals, Phase};

use crate::client::{Client, Form, Requests};
use crate::load;
use crate::subject::Subject;
use crate::summary::Summary;

#[derive(clap::Args)]
pub struct Args {
    /// The server's gRPC address
    address: String,
    /// The model that sdpoint serves: it gives objectives and loads
    #[arg(long)]
    model: PathBuf,
    /// The names of the server's models
    #[arg(long, value_delimiter = ',', default_value = "full,cheap")]
    names: Vec<String>,
    /// Objectives, in service times of one image in the cheapest instance
    #[arg(long, value_delimiter = ',', default_values_t = [15.0, 50.0])]
    objectives: Vec<f64>,
    /// Squared coefficients of variation of the times between arrivals
    #[arg(long, value_delimiter = ',', default_values_t = [1.0, 4.0, 8.0])]
    burstiness: Vec<f64>,
    /// Requests per second that sdpoint answers by `full`, as `compare` prints [default: images
    /// per second by the model's profile]
    #[arg(long)]
    full_rate: Option<f64>,
    /// Loads, in multiples of that rate
    #[arg(long, value_delimiter = ',', default_values_t = [0.25, 0.5, 1.0, 1.5])]
    loads: Vec<f64>,
    /// Seconds of each run
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub async fn run(args: Args) -> anyhow::Result<()> {
    let subject = Subject::load(&args.model)?;
    let client = Client::connect(&args.address).await?;
    let full_rate = args.full_rate.unwrap_or_else(|| subject.full_rate());
    println!("| objective | burstiness | load | model | in time | median | p99 | failed |");
    println!("| ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: |");
    for &objective in &args.objectives {
        let seconds = objective * subject.service_time();
        for &burstiness in &args.burstiness {
            for &load in &args.loads {
                let phases = vec![Phase::steady(args.seconds, load * full_rate)];
                let arrivals: Vec<f64> = Arrivals::new(phases, burstiness, args.seed).collect();
                for name in &args.names {
                    let requests = Requests::new(name, Form::Planes, subject.size);
                    let arrivals = arrivals.clone().into();
                    let samples = load::collect(&client, &requests, arrivals).await?;
                    let summary = Summary::of(&samples, seconds);
                    println!(
                        "| {objective} | {burstiness} | {load} | {name} | {:.2} % | {:.1} ms \
                         | {:.1} ms | {} |",
                        100.0 * summary.attainment,
                        1e3 * summary.median,
                        1e3 * summary.p99,
                        summary.failed
                    );
                }
            }
        }
    }
    Ok(())
}
