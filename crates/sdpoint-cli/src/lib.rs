//! The command `sdpoint`, as a function that other programs can call.

mod calibrate;
mod classes;
mod convert;
mod data;
mod evaluate;
mod export;
mod failure;
mod fetch;
mod import;
mod instances;
mod interrupt;
mod model;
mod networks;
mod output;
mod output_file;
mod path;
mod predict;
mod preprocessing;
mod profile;
mod progress;
mod report;
mod serve;
mod shares;
mod size;
mod text;
mod train;

use std::ffi::OsString;
use std::num::{IntErrorKind, NonZeroUsize, ParseIntError};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use sdpoint::Context;

use failure::Failure;

const EXIT_CODES: &str = "\
Exit codes: 0 success, 2 usage, 3 data, 4 model file or checkpoint, 5 no such instance or budget \
too small, 6 training diverged, 7 files and disk, 130 interrupted. Results go to standard output, \
errors and progress to standard error.";

/// Train one network and choose its inference cost at run time.
///
/// A network trained by stochastic downsampling is many networks in one file:
/// full, and cheaper instances such as 3@0.5, which halves each side of the
/// feature map at the end of block 3.
#[derive(Parser)]
#[command(name = "sdpoint", version, after_help = EXIT_CODES, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    machine: MachineArgs,
}

/// Options for the kernels, common to all commands.
#[derive(clap::Args)]
pub struct MachineArgs {
    /// Number of threads [default: all that the machine offers]
    #[arg(long, global = true, value_name = "N", value_parser = parse_threads,
          allow_hyphen_values = true, help_heading = "Global options")]
    threads: Option<NonZeroUsize>,
    /// Use only algorithms that keep the weights once: less memory, more time. Last bits of results
    /// may differ
    #[arg(long, global = true, help_heading = "Global options")]
    low_memory: bool,
}

fn parse_threads(text: &str) -> Result<NonZeroUsize, String> {
    const MAX_THREADS: usize = Context::MAX_THREADS;
    let threads = text.trim().parse::<NonZeroUsize>().ok();
    threads
        .filter(|threads| threads.get() <= MAX_THREADS)
        .ok_or_else(|| {
            format!(
                "give a number from 1 to {MAX_THREADS}, or omit --threads to use all threads of the \
                 machine"
            )
        })
}

impl MachineArgs {
    /// The context with these options, for several callers.
    pub fn context(&self) -> Result<Arc<Context>, Failure> {
        self.own_context().map(Arc::new)
    }

    /// The context with these options.
    pub fn own_context(&self) -> Result<Context, Failure> {
        let context = Context::new(self.threads)?;
        Ok(match self.low_memory {
            true => context.with_low_memory(),
            false => context,
        })
    }
}

#[derive(Subcommand)]
enum Command {
    Networks(networks::Args),
    Instances(instances::Args),
    Train(Box<train::Args>),
    Calibrate(calibrate::Args),
    Evaluate(evaluate::Args),
    Predict(predict::Args),
    Profile(profile::Args),
    Import(import::Args),
    Export(export::Args),
    Fetch(fetch::Args),
    Serve(Box<serve::Args>),
}

/// The command with all options accepting `-1`, so that the error is about the
/// number, not about an unknown option.
fn with_negative_numbers(command: clap::Command) -> clap::Command {
    let of_options = |argument: clap::Arg| {
        let has_value = argument.get_action().takes_values() && !argument.is_positional();
        argument.allow_negative_numbers(has_value)
    };
    command
        .mut_args(of_options)
        .mut_subcommands(with_negative_numbers)
}

/// Ends the process with a usage error, or the help that was requested.
fn exit(error: &clap::Error) -> ! {
    let source = std::error::Error::source(error);
    let Some(source) = source.and_then(|source| source.downcast_ref::<ParseIntError>()) else {
        error.exit();
    };
    // The standard library's words are about digits in strings.
    let words = match source.kind() {
        IntErrorKind::PosOverflow => "the number is too large",
        IntErrorKind::Zero => "give a whole number of at least 1",
        _ => "give a whole number of at least 0",
    };
    let text = error.render().to_string();
    eprint!("{}", text.replace(&source.to_string(), words));
    std::process::exit(error.exit_code())
}

/// Runs the command with the given arguments, the program's name first, and
/// returns its exit code. Results go to standard output, everything else to
/// standard error.
///
/// `--help`, `--version` and usage errors end the process.
///
/// ```no_run
/// sdpoint_cli::run(["sdpoint", "networks"]);
/// ```
pub fn run(arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> ExitCode {
    let matches = with_negative_numbers(Cli::command()).try_get_matches_from(arguments);
    let Cli { command, machine } = matches
        .and_then(|matches| Cli::from_arg_matches(&matches))
        .unwrap_or_else(|error| exit(&error));
    let outcome = match command {
        Command::Networks(args) => networks::run(&args),
        Command::Instances(args) => instances::run(&args),
        Command::Train(args) => train::run(&args, &machine),
        Command::Calibrate(args) => calibrate::run(&args, &machine),
        Command::Evaluate(args) => evaluate::run(&args, &machine),
        Command::Predict(args) => predict::run(&args, &machine),
        Command::Profile(args) => profile::run(&args, &machine),
        Command::Import(args) => import::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Fetch(args) => fetch::run(&args),
        Command::Serve(args) => serve::run(&args, &machine),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => ExitCode::from(failure.report()),
    }
}
