//! `sdpoint serve`: serves models over the Open Inference Protocol.

mod address;
mod logging;
mod named;
mod signals;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use sdpoint::core::parse_duration;
use sdpoint::engine::return_freed_blocks_from;
use sdpoint_serve::{
    Addresses, Executor, Limits, Metrics, ModelError, Options, Origin, Registry, Scheduler,
    SchedulerOptions, Server, Tokens,
};

use crate::failure::{Class, Failure, Outcome};
use crate::output::print;
use crate::output_file::Kind;
use crate::{MachineArgs, path};
use address::Listen;
use logging::Logging;
use signals::Signals;

const EXAMPLES: &str = "\
Examples:
  sdpoint serve runs/shapes --objective 50ms
  sdpoint serve cats=runs/a/model.safetensors birds=b.safetensors
  sdpoint serve MODEL --listen 0.0.0.0:8080 --token-file TOKENS

  curl --data-binary @photo.jpg 'http://127.0.0.1:8080/predict?budget=60%25'
  curl -F image=@photo.jpg -F deadline_ms=20 http://127.0.0.1:8080/predict
  curl http://127.0.0.1:8080/v2/models/shapes

The server implements the Open Inference Protocol, version 2, over REST and gRPC, so clients for \
KServe and Triton work with it. A request contains normalised images (FP32), pixels (UINT8) or \
JPEG, PNG and WebP files (BYTES). Its parameters limit the cost of the answer: budget, macs, \
instance, min_accuracy, cascade, deadline_ms. Under load, answers come from cheaper instances, and \
requests without a deadline that cannot be answered within --objective are refused.

A model is served under the name before =, or else that of its run's folder or its file. SIGHUP \
reloads all models without losing a request. SIGTERM and Ctrl-C answer the requests in progress \
and exit.

The server only listens on this machine unless --token-file restricts access or --insecure opens \
it to everyone. It does not encrypt; for TLS, use a reverse proxy.";

/// Serve models over HTTP and gRPC, at a cost that follows the load
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Model files or run folders, optionally with a name: NAME=PATH
    #[arg(value_name = "MODEL", required = true)]
    models: Vec<String>,
    /// Time in which requests without a deadline are answered once received and decoded
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = parse_duration)]
    objective: Duration,
    #[command(flatten)]
    listen: Listen,
    /// Require one of the tokens in this file, one per line, as the header
    /// Authorization: Bearer TOKEN
    #[arg(long, value_name = "FILE", value_parser = path::parser())]
    token_file: Option<PathBuf>,
    /// Accept requests from other machines without a token
    #[arg(long, conflicts_with = "token_file")]
    insecure: bool,
    /// Let web pages of this origin use the server, such as https://app.example
    #[arg(long, value_name = "ORIGIN")]
    allow_origin: Vec<Origin>,
    /// Let clients load and unload models
    #[arg(long)]
    admin: bool,
    /// Time limit for requests in progress at shutdown
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    drain: Duration,
    #[command(flatten)]
    logging: Logging,
    #[command(flatten)]
    bounds: Bounds,
}

/// Limits on requests.
#[derive(clap::Args)]
#[command(next_help_heading = "Limits")]
struct Bounds {
    /// Images per request
    #[arg(long, value_name = "N", default_value = "256")]
    max_images: NonZeroUsize,
    /// Megabytes per request
    #[arg(long, value_name = "MB", default_value = "64")]
    max_body: NonZeroUsize,
    /// Megabytes of all requests in memory
    #[arg(long, value_name = "MB", default_value = "512")]
    max_memory: NonZeroUsize,
    /// Megapixels per image file, at most 64
    #[arg(long, value_name = "M", default_value = "16",
          value_parser = RangedU64ValueParser::<usize>::new().range(1..=64))]
    max_pixels: usize,
    /// Open connections
    #[arg(long, value_name = "N", default_value = "1000")]
    max_connections: NonZeroUsize,
    /// Connections with a request in progress per client address, or /64 network of IPv6
    /// [default: three quarters of --max-connections]
    #[arg(long, value_name = "N")]
    max_connections_per_client: Option<NonZeroUsize>,
    /// Images in flight per client address, or /64 network of IPv6
    #[arg(long, value_name = "N", default_value = "4096")]
    max_per_client: NonZeroUsize,
}

impl Bounds {
    fn limits(&self, threads: usize) -> Limits {
        const MEGA: usize = 1 << 20;
        let connections = self.max_connections.get();
        let of_a_client = self.max_connections_per_client;
        Limits {
            connections,
            busy_per_client: of_a_client
                .map_or_else(|| Limits::share_of_a_client(connections), NonZeroUsize::get),
            body: self.max_body.get().saturating_mul(MEGA),
            memory: self.max_memory.get().saturating_mul(MEGA),
            images: self.max_images.get(),
            pixels: self.max_pixels * MEGA,
            per_client: self.max_per_client.get(),
            decoders: threads,
            parsers: threads,
            ..Limits::default()
        }
    }
}

/// How long the threads that serve connections linger while a batch is computed. It delays
/// refusals, which should come within 5 ms.
const LINGER: Duration = Duration::from_micros(800);

/// Blocks of at least this many bytes, such as long bodies and decoded photos, are returned to the
/// system when they are freed, so that the process takes little more than `--max-memory`.
const LARGE_BLOCK: usize = 4 << 20;

pub fn run(args: &Args, machine: &MachineArgs) -> Outcome {
    let context = machine.own_context()?;
    let options = options(args, context.threads())?;
    let files = named::files(&args.models)?;
    args.logging.start();
    return_freed_blocks_from(LARGE_BLOCK);
    let metrics = Arc::new(Metrics::default());
    let scheduling = SchedulerOptions {
        objective: args.objective,
        ..SchedulerOptions::default()
    };
    let scheduler = Scheduler::start(scheduling).map_err(no_threads)?;
    let computing = scheduler.computing();
    let interlude = computing.clone();
    let context = Arc::new(context.with_interlude(move || interlude.give_way()));
    let executor: Arc<dyn Executor> = Arc::new(scheduler);
    let registry = Registry::new(files, context, executor.clone(), &metrics)?;
    // A second thread on the same core would only take turns with the first.
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.min(2))
        .thread_name("serve")
        .on_thread_park(move || computing.linger(LINGER))
        .enable_all()
        .build()
        .map_err(no_threads)?;
    let accepted = executor.clone();
    let outcome = runtime.block_on(async {
        // Registered before models are loaded, so that no signal is lost.
        let signals = Signals::new()?;
        let server = Server::bind(options, registry, executor, metrics).await?;
        print(&announcement(&server.addresses()))?;
        serve(server, signals).await
    });
    // A model that is being loaded and files that are being decoded are not waited for, nor are
    // accepted requests after an error or a second signal.
    runtime.shutdown_background();
    if outcome.is_err() {
        std::mem::forget(accepted);
    }
    outcome
}

fn no_threads(error: std::io::Error) -> Failure {
    Failure::io(format!("cannot start threads: {error}"), error.kind())
}

fn options(args: &Args, threads: usize) -> Result<Options, Failure> {
    let listen = args.listen.addresses()?;
    let tokens = match &args.token_file {
        Some(file) => Tokens::read(file)?,
        None => Tokens::default(),
    };
    if tokens.is_empty() && !args.insecure {
        args.listen.check_local(&listen)?;
    }
    Ok(Options {
        rest: listen.rest,
        grpc: listen.grpc,
        metrics: listen.metrics,
        tokens,
        origins: args.allow_origin.clone(),
        admin: args.admin,
        objective: args.objective,
        drain: args.drain,
        limits: args.bounds.limits(threads),
    })
}

/// The addresses, for people and scripts.
fn announcement(addresses: &Addresses) -> String {
    let mut text = format!("REST     http://{}\n", addresses.rest);
    if let Some(address) = addresses.grpc {
        text.push_str(&format!("gRPC     {address}\n"));
    }
    if let Some(address) = addresses.metrics {
        text.push_str(&format!("metrics  http://{address}/metrics\n"));
    }
    text
}

/// Serves until a signal, or until a model fails to load at the start.
async fn serve(server: Server, mut signals: Signals) -> Outcome {
    let handle = server.app();
    let loading = {
        let handle = handle.clone();
        tokio::task::spawn_blocking(move || handle.registry().load_all())
    };
    let mut outcome = Ok(());
    let stop = async {
        let failed = tokio::select! {
            failed = loading => failed.unwrap_or_default(),
            () = signals.stop() => return,
        };
        if let Some(error) = failed.into_iter().next() {
            outcome = Err(explain(error));
            return;
        }
        tracing::info!("ready");
        signals.reload_until_stop(&handle).await;
    };
    // The second signal ends the process at once.
    let mut again = Signals::new()?;
    let insist = async {
        again.stop().await;
        again.stop().await;
    };
    tokio::select! {
        ended = server.run(stop) => match (outcome, ended) {
            (Ok(()), Err(lost)) => Err(Failure::from_error(Class::Interrupted, &lost)
                .hint("--drain gives requests in progress more time")),
            (outcome, _) => outcome,
        },
        () = insist => Err(Failure::new(Class::Interrupted, "shut down without answering all requests")),
    }
}

/// The error that other commands report for this model file, with the model's name.
fn explain(error: ModelError) -> Failure {
    let ModelError::Load { name, file, .. } = &error else {
        return error.into();
    };
    let (name, is_image) = (name.clone(), matches!(Kind::of(file), Ok(Kind::Image(_))));
    let failure = match crate::model::load(file) {
        Err(failure) => failure,
        Ok(_) => error.into(),
    };
    let failure = failure.of(&format!("model '{name}'"));
    if is_image {
        return failure.hint(
            "serve takes models; send images to the running server, as in `curl --data-binary \
             @photo.jpg http://127.0.0.1:8080/predict`",
        );
    }
    failure
}
