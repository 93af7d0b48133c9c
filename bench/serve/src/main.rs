//! Measures `sdpoint serve` under open-loop load; `bench/serve/run` prepares what this
//! needs, and pins the server and the load generator to a core each.

mod client;
mod compare;
mod library;
mod load;
mod overhead;
mod peer;
mod picture;
mod rates;
mod server;
mod soak;
mod steps;
mod subject;
mod summary;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    about = "Measure `sdpoint serve` under open-loop load",
    max_term_width = 100
)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write a model with random weights and synthetic accuracies
    Model(subject::ModelArgs),
    /// Compare the controller with every fixed instance on the same arrivals
    Compare(compare::Args),
    /// Raise the load in a step, and lower it again
    Steps(steps::Args),
    /// Compare latency and throughput with those of the library
    Overhead(overhead::Args),
    /// Run for a long time at a changing load, and watch memory and errors
    Soak(soak::Args),
    /// Load another server of the Open Inference Protocol over gRPC
    Peer(peer::Args),
    /// Time the library in a loop; `overhead` calls this on the server's core
    #[command(hide = true)]
    Library(library::Args),
}

fn main() -> anyhow::Result<()> {
    match Args::parse().command {
        Command::Model(args) => subject::write(&args),
        Command::Compare(args) => run(compare::run(args)),
        Command::Steps(args) => run(steps::run(args)),
        Command::Overhead(args) => run(overhead::run(args)),
        Command::Soak(args) => run(soak::run(args)),
        Command::Peer(args) => run(peer::run(args)),
        Command::Library(args) => library::run(&args),
    }
}

/// Runs on one thread: the load generator has one core.
fn run(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build()?;
    runtime.block_on(work)
}
