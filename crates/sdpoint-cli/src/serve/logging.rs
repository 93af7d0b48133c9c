//! The server's log.

use std::io::{self, IsTerminal};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Options for logging.
#[derive(clap::Args)]
pub struct Logging {
    /// Log level; debug logs every request
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log: Level,
    /// Log format
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: Format,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Level {
    Off,
    Error,
    Warn,
    Info,
    Debug,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Text,
    Json,
}

impl Logging {
    /// Starts logging to standard error.
    pub fn start(&self) {
        let level = match self.log {
            Level::Off => LevelFilter::OFF,
            Level::Error => LevelFilter::ERROR,
            Level::Warn => LevelFilter::WARN,
            Level::Info => LevelFilter::INFO,
            Level::Debug => LevelFilter::DEBUG,
        };
        // Libraries log much that is of no use to operators.
        let targets = Targets::new()
            .with_target("sdpoint", level)
            .with_target("sdpoint_serve", level)
            .with_default(level.min(LevelFilter::WARN));
        let registry = tracing_subscriber::registry().with(targets);
        let layer = fmt::layer().with_writer(io::stderr).with_target(false);
        // Keeps a subscriber that the embedding program has set.
        let _ = match self.log_format {
            Format::Text => registry
                .with(layer.with_ansi(io::stderr().is_terminal()))
                .try_init(),
            Format::Json => registry
                .with(layer.json().flatten_event(true).with_current_span(false))
                .try_init(),
        };
    }
}
