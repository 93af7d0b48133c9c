//! Runs the experiments of `docs/results.md`, and writes that page.

mod experiment;
mod logits;
mod page;
mod results;
mod runner;
mod summary;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use experiment::Experiment;
use results::Results;
use runner::{Job, RunError, Runner, seconds_left};

const NOTES: &str = "\
An experiment is a file experiments/NAME.toml: a network, methods with their seeds, and what is \
compared. A run that experiments/results.jsonl holds with the same arguments is not done again. \
Ctrl-C stops with a checkpoint, from which the next call continues.

Examples:
  experiments/run --list                          finished and missing runs
  experiments/run --data tar:DIR                  all missing runs, which takes hours
  experiments/run --data tar:DIR --only costs     one experiment
  experiments/run --data tar:DIR --only costs/plain
  experiments/run --page                          the page from the results, without a run
  experiments/run --quick                         a short version on built-in images, in runs/quick

Exit codes: 0 done, 1 a run failed, 2 usage, 130 interrupted.";

/// Run the missing experiments and write docs/results.md
#[derive(Parser)]
#[command(name = "experiments/run", after_help = NOTES, max_term_width = 100)]
struct Args {
    /// The data, as `sdpoint train --data` takes it, such as tar:DIR or cifar10:DIR
    #[arg(long, value_name = "SRC", required_unless_present_any = ["quick", "list", "page"])]
    data: Option<String>,
    /// Only this experiment, or this method of it
    #[arg(long, value_name = "NAME[/METHOD]")]
    only: Option<String>,
    /// Do at most N runs, then write the page
    #[arg(long, value_name = "N")]
    most: Option<usize>,
    /// Small networks on the built-in images, to test everything in minutes
    #[arg(long)]
    quick: bool,
    /// List finished and missing runs, and exit
    #[arg(long, conflicts_with = "page")]
    list: bool,
    /// Write the page and exit
    #[arg(long)]
    page: bool,
    /// Number of threads [default: one per core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// The folder of the experiments
    #[arg(long, value_name = "DIR", default_value = "experiments")]
    experiments: PathBuf,
    /// Folder of the runs [default: runs/experiments; with --quick, runs/quick]
    #[arg(long, value_name = "DIR")]
    runs: Option<PathBuf>,
    /// The file of results [default: results.jsonl beside the experiments; with --quick, in its runs]
    #[arg(long, value_name = "FILE")]
    results: Option<PathBuf>,
    /// The page [default: docs/results.md; with --quick, results.md in its runs]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The command `sdpoint` [default: the one beside this program]
    #[arg(long, value_name = "FILE")]
    sdpoint: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(1)
        }
    }
}

fn run(args: &Args) -> Result<ExitCode, Box<dyn Error>> {
    let mut experiments = Experiment::read_all(&args.experiments)?;
    if args.quick {
        experiments = experiments.into_iter().map(Experiment::quick).collect();
    }
    let runs = args.runs.clone().unwrap_or_else(|| {
        PathBuf::from(if args.quick {
            "runs/quick"
        } else {
            "runs/experiments"
        })
    });
    let beside = |usual: PathBuf, quick: &str| if args.quick { runs.join(quick) } else { usual };
    let file = args.results.clone();
    let file =
        file.unwrap_or_else(|| beside(args.experiments.join("results.jsonl"), "results.jsonl"));
    let output = args.output.clone();
    let output = output.unwrap_or_else(|| beside("docs/results.md".into(), "results.md"));
    let mut results = Results::read(&file)?;
    let jobs = wanted(&experiments, args.only.as_deref())?;
    if args.list {
        list(&jobs, &results);
        return Ok(ExitCode::SUCCESS);
    }
    let mut code = ExitCode::SUCCESS;
    if !args.page {
        let quick = args.quick.then(|| "shapes".to_owned());
        let runner = Runner {
            program: program(args)?,
            data: args.data.clone().or(quick).ok_or("--data is missing")?,
            logits: file.with_file_name("logits"),
            runs,
            threads: args.threads,
        };
        code = work(&runner, &jobs, args.most, &mut results, &file)?;
    }
    write_page(&experiments, &results, &output)?;
    Ok(code)
}

/// The runs selected by `--only`.
fn wanted<'a>(experiments: &'a [Experiment], only: Option<&str>) -> Result<Vec<Job<'a>>, String> {
    let mut jobs = Job::all(experiments);
    if let Some(only) = only {
        let (experiment, method) = match only.split_once('/') {
            Some((experiment, method)) => (experiment, Some(method)),
            None => (only, None),
        };
        jobs.retain(|job| {
            job.experiment.name == experiment
                && method.is_none_or(|method| job.method.name == method)
        });
    }
    if jobs.is_empty() {
        let names: Vec<&str> = experiments.iter().map(|e| e.name.as_str()).collect();
        return Err(format!(
            "there is no such run; the experiments are {}, and --list shows their methods",
            names.join(", ")
        ));
    }
    Ok(jobs)
}

/// The command beside this program.
fn program(args: &Args) -> Result<PathBuf, Box<dyn Error>> {
    if let Some(program) = &args.sdpoint {
        return Ok(program.clone());
    }
    let name = format!("sdpoint{}", std::env::consts::EXE_SUFFIX);
    Ok(std::env::current_exe()?.with_file_name(name))
}

/// Does the missing runs; each is added to the file of results when it is
/// finished.
fn work(
    runner: &Runner,
    jobs: &[Job<'_>],
    most: Option<usize>,
    results: &mut Results,
    file: &Path,
) -> Result<ExitCode, Box<dyn Error>> {
    // The terminal also interrupts the command, which then writes a checkpoint;
    // this program waits for it.
    ctrlc::set_handler(|| {})?;
    let mut failed = Vec::new();
    let mut left: Vec<Job> = jobs
        .iter()
        .filter(|job| !job.complete(results))
        .copied()
        .collect();
    let done = jobs.len() - left.len();
    if done > 0 {
        eprintln!("{done} of {} runs are done already.", jobs.len());
    }
    let most = most.unwrap_or(left.len()).min(left.len());
    for number in 1..=most {
        let job = left.remove(0);
        eprintln!("\n== {} ({number} of {most}{})", job.name(), {
            let all: Vec<Job> = [job].into_iter().chain(left.iter().copied()).collect();
            seconds_left(&all, results).map_or(String::new(), |s| format!(", {} left", span(s)))
        });
        match runner.run(job, results) {
            Ok(run) => results.add(run, file)?,
            Err(RunError::Interrupted) => {
                eprintln!("interrupted; the same command continues");
                return Ok(ExitCode::from(130));
            }
            Err(error @ RunError::Start { .. }) => return Err(error.into()),
            Err(error) => {
                eprintln!("error: {error}");
                failed.push(job.name());
            }
        }
    }
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("failed: {}", failed.join(", "));
    Ok(ExitCode::from(1))
}

fn list(jobs: &[Job<'_>], results: &Results) {
    let mut left = Vec::new();
    for job in jobs {
        let state = match job.done(results) {
            Some(run) if job.complete(results) => format!("done in {}", span(run.seconds)),
            Some(_) => "trained; not all is measured".to_owned(),
            None => "to do".to_owned(),
        };
        println!("{:<36}{state}", job.name());
        if !job.complete(results) {
            left.push(*job);
        }
    }
    let time = match seconds_left(&left, results) {
        Some(seconds) if seconds > 0.0 => format!(", about {}", span(seconds)),
        _ => String::new(),
    };
    println!("{} of {} to do{time}", left.len(), jobs.len());
}

fn write_page(
    experiments: &[Experiment],
    results: &Results,
    output: &Path,
) -> Result<(), Box<dyn Error>> {
    let page = page::page(experiments, results);
    let folder = output.parent().unwrap_or(Path::new(""));
    for (file, svg) in &page.pictures {
        results::write(&folder.join(file), svg)?;
    }
    results::write(output, &page.text)?;
    eprintln!("the page is in {}", output.display());
    Ok(())
}

/// Formats seconds for display.
fn span(seconds: f64) -> String {
    match seconds {
        ..90.0 => format!("{seconds:.0} s"),
        ..5400.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}
