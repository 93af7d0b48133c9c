//! Does the missing runs one after another, by calling the command `sdpoint` as
//! a user would.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sdpoint_train::folder;

use crate::experiment::{Experiment, Measure, Method, OWN, run_in};
use crate::logits;
use crate::results::{self, Results, ResultsError, Run, read_calibration_error, read_curve};

/// The file with a run's arguments, in its folder. A run with other arguments is
/// not resumed.
const ARGUMENTS: &str = "arguments.json";

/// The locations of the command, the data and the runs.
#[derive(Debug)]
pub struct Runner {
    /// The command `sdpoint`.
    pub program: PathBuf,
    /// The data, as `--data` takes it.
    pub data: String,
    /// A folder of folders of runs, `EXPERIMENT/METHOD-SEED`.
    pub runs: PathBuf,
    /// A folder for the logits that are kept.
    pub logits: PathBuf,
    pub threads: Option<usize>,
}

/// A run of an experiment.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    pub experiment: &'a Experiment,
    pub method: &'a Method,
    pub seed: u64,
}

/// Why a run has no result.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The command was interrupted and has written a checkpoint.
    #[error("interrupted")]
    Interrupted,
    #[error("`sdpoint {command}` ended with {status}")]
    Failed { command: String, status: String },
    #[error("{} cannot be started: {error}", program.display())]
    Start {
        program: PathBuf,
        error: std::io::Error,
    },
    #[error(
        "{} holds another run, of the arguments '{found}' where '{wanted}' are wanted: \
         move it away",
        folder.display()
    )]
    OtherRun {
        folder: PathBuf,
        found: String,
        wanted: String,
    },
    #[error(transparent)]
    Results(#[from] ResultsError),
}

impl<'a> Job<'a> {
    /// All runs of some experiments in order of priority: the first seed of each
    /// method comes before any second one.
    pub fn all(experiments: &'a [Experiment]) -> Vec<Self> {
        let mut jobs = Vec::new();
        for experiment in experiments {
            let most = experiment.methods.iter().map(|method| method.seeds.len());
            for round in 0..most.max().unwrap_or(0) {
                for method in &experiment.methods {
                    let seed = method.seeds.get(round);
                    jobs.extend(seed.map(|&seed| Self {
                        experiment,
                        method,
                        seed,
                    }));
                }
            }
        }
        jobs
    }

    /// The name of the run and its folder.
    pub fn name(&self) -> String {
        format!(
            "{}/{}-{}",
            self.experiment.name, self.method.name, self.seed
        )
    }

    /// The arguments with the folders of the runs that they name: `{run:METHOD}`
    /// is that of another method with the same seed.
    fn with_places(&self, arguments: &[String], runs: &Path) -> Vec<String> {
        let place = |argument: &String| match run_in(argument) {
            Some(method) => {
                let method = self.experiment.method(method).unwrap_or(self.method);
                let name = Self { method, ..*self }.name();
                runs.join(name).display().to_string()
            }
            None => argument.clone(),
        };
        arguments.iter().map(place).collect()
    }

    pub fn arguments(&self) -> Vec<String> {
        self.experiment.train_arguments(self.method, self.seed)
    }

    /// The recorded result of the run, if its arguments are the same.
    pub fn done<'r>(&self, results: &'r Results) -> Option<&'r Run> {
        let (experiment, method) = (&self.experiment.name, &self.method.name);
        results.find(experiment, method, self.seed, &self.arguments())
    }

    /// Whether the run and all its measures are recorded.
    pub fn complete(&self, results: &Results) -> bool {
        self.done(results).is_some_and(|run| {
            let mut measures = self.method.measures.iter();
            measures.all(|measure| run.measures.contains_key(&measure.name))
                && (run.calibration_error.is_some() || !self.experiment.calibration_error)
        })
    }
}

impl Runner {
    /// Trains or resumes, and does the missing measurements.
    ///
    /// # Errors
    /// If the command fails or is interrupted, or its files cannot be read.
    pub fn run(&self, job: Job<'_>, results: &Results) -> Result<Run, RunError> {
        let out = self.runs.join(job.name());
        let arguments = job.arguments();
        self.train(job, &out, &arguments)?;
        self.keep_logits(job, &out)?;
        let mut run = Run::summarise(
            &job.experiment.name,
            &job.method.name,
            job.seed,
            arguments,
            self.version()?,
            &out,
        )?;
        let before = job.done(results);
        run.measures
            .insert(OWN.to_owned(), read_curve(&out.join(folder::CURVE_CSV))?);
        if job.experiment.calibration_error {
            let known = before.and_then(|run| run.calibration_error);
            run.calibration_error = Some(match known {
                Some(error) => error,
                None => self.calibration_error(&out)?,
            });
        }
        for measure in &job.method.measures {
            let known = before.and_then(|run| run.measures.get(&measure.name));
            let measured = match known {
                Some(measured) => measured.clone(),
                None => self.measure(&out, measure)?,
            };
            run.measures.insert(measure.name.clone(), measured);
        }
        Ok(run)
    }

    fn train(&self, job: Job<'_>, out: &Path, arguments: &[String]) -> Result<(), RunError> {
        let note = out.join(ARGUMENTS);
        let holds_a_run = out.join(folder::CHECKPOINT).exists();
        if holds_a_run {
            let found = fs::read_to_string(&note).unwrap_or_default();
            let found: Vec<String> = serde_json::from_str(&found).unwrap_or_default();
            if found != arguments {
                return Err(RunError::OtherRun {
                    folder: out.to_owned(),
                    found: found.join(" "),
                    wanted: arguments.join(" "),
                });
            }
            if out.join(folder::MODEL).exists() {
                return Ok(());
            }
        } else {
            let text = serde_json::to_string(arguments).expect("strings have a JSON form");
            results::write(&note, &text)?;
        }
        let place = out.display().to_string();
        let mut command = vec!["train", "--data", &self.data];
        let with_places = job.with_places(arguments, &self.runs);
        if holds_a_run {
            command.extend(["--resume", &place]);
        } else {
            command.extend(with_places.iter().map(String::as_str));
            command.extend(["--out", &place]);
        }
        self.sdpoint(&command, &out.join("train.txt"))
    }

    /// Keeps the logits of the method's instances.
    fn keep_logits(&self, job: Job<'_>, out: &Path) -> Result<(), RunError> {
        let kept = format!("{}.safetensors", job.name().replace('/', "-"));
        let kept = self.logits.join(kept);
        if job.method.logits.is_empty() || kept.exists() {
            return Ok(());
        }
        let file = |name: &str| out.join(name).display().to_string();
        let instances = job.method.logits.join(",");
        let logits = file("logits.safetensors");
        let model = file(folder::MODEL);
        let more = ["--instances", &instances, "--logits", &logits];
        self.evaluate(&model, &more, &out.join("logits.txt"))?;
        Ok(logits::keep(Path::new(&logits), &kept)?)
    }

    /// Measures the expected calibration error of the full network.
    fn calibration_error(&self, out: &Path) -> Result<f64, RunError> {
        let file = out.join("full.json");
        let model = out.join(folder::MODEL).display().to_string();
        self.evaluate(&model, &["--instances", "full", "--json"], &file)?;
        Ok(read_calibration_error(&file)?)
    }

    /// Does an additional measurement of a trained model.
    fn measure(&self, out: &Path, measure: &Measure) -> Result<Vec<results::Measured>, RunError> {
        let file = |ending: &str| out.join(format!("{}.{ending}", measure.name));
        let text = |path: PathBuf| path.display().to_string();
        let log = file("txt");
        let file_of_run = measure.model.as_deref().unwrap_or(folder::MODEL);
        let mut model = text(out.join(file_of_run));
        if let Some(more) = &measure.calibrate {
            let calibrated = text(file("safetensors"));
            let mut command = vec!["calibrate", &model, "--data", &self.data, "-o", &calibrated];
            command.extend(more.iter().map(String::as_str));
            self.sdpoint(&command, &log)?;
            model = calibrated;
        }
        let csv = text(file("csv"));
        let mut more = vec!["--csv", &csv];
        more.extend(measure.evaluate.iter().map(String::as_str));
        self.evaluate(&model, &more, &log)?;
        Ok(read_curve(&file("csv"))?)
    }

    /// Evaluates a model on the data.
    fn evaluate(&self, model: &str, more: &[&str], log: &Path) -> Result<(), RunError> {
        let mut command = vec!["evaluate", model, "--data", &self.data];
        command.extend(more);
        self.sdpoint(&command, log)
    }

    /// Calls the command, with standard output to a file, and progress and errors
    /// to the terminal.
    fn sdpoint(&self, arguments: &[&str], log: &Path) -> Result<(), RunError> {
        let start = |error| RunError::Start {
            program: self.program.clone(),
            error,
        };
        let output = File::create(log).map_err(start)?;
        let mut command = Command::new(&self.program);
        command.args(arguments).stdin(Stdio::null()).stdout(output);
        if let Some(threads) = self.threads {
            command.args(["--threads", &threads.to_string()]);
        }
        let status = command.status().map_err(start)?;
        match status.code() {
            Some(0) => Ok(()),
            Some(130) => Err(RunError::Interrupted),
            _ => Err(RunError::Failed {
                command: arguments.join(" "),
                status: status.to_string(),
            }),
        }
    }

    /// `sdpoint 0.1.0`
    fn version(&self) -> Result<String, RunError> {
        let output = Command::new(&self.program).arg("--version").output();
        let output = output.map_err(|error| RunError::Start {
            program: self.program.clone(),
            error,
        })?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

/// Estimated seconds of the missing runs, from the finished runs of the same
/// method, or otherwise from the mean of their experiment.
pub fn seconds_left(left: &[Job<'_>], results: &Results) -> Option<f64> {
    let mean = |method: Option<&str>, job: &Job<'_>| {
        let seconds: Vec<f64> = results
            .runs
            .iter()
            .filter(|run| run.experiment == job.experiment.name)
            .filter(|run| method.is_none_or(|method| run.method == method))
            .map(|run| run.seconds)
            .collect();
        (!seconds.is_empty()).then(|| seconds.iter().sum::<f64>() / seconds.len() as f64)
    };
    let each = left
        .iter()
        .map(|job| mean(Some(&job.method.name), job).or_else(|| mean(None, job)));
    each.sum()
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::experiment::tests::TEXT;
    use crate::results::tests::run;

    #[test]
    fn first_seeds_come_first() {
        let experiments = [Experiment::parse("costs", TEXT).unwrap()];
        let names: Vec<String> = Job::all(&experiments).iter().map(Job::name).collect();
        assert_eq!(names, ["costs/plain-0", "costs/narrow-0", "costs/plain-1"]);
    }

    #[test]
    fn a_run_can_start_from_that_of_another_method() {
        let text = TEXT.replace(
            "network = \"{network}-w12\"",
            "arguments = [\"--init\", \"{run:plain}\"]",
        );
        let experiments = [Experiment::parse("costs", &text).unwrap()];
        let job = Job::all(&experiments)[1];
        let arguments = job.with_places(&job.arguments(), Path::new("runs"));
        let place = Path::new("runs")
            .join("costs/plain-0")
            .display()
            .to_string();
        assert!(
            arguments.join(" ").contains(&format!("--init {place} ")),
            "{arguments:?}"
        );
        assert!(!arguments.contains(&"--network".to_owned()));
    }

    #[test]
    fn a_run_is_complete_with_all_its_measures() {
        let experiments = [Experiment::parse("costs", TEXT).unwrap()];
        let jobs = Job::all(&experiments);
        let mut results = Results::default();
        results
            .runs
            .push(run("narrow", 0, &jobs[1].arguments(), &[]));
        assert!(jobs[1].done(&results).is_some() && !jobs[1].complete(&results));
        results.runs[0].measures.insert("shared".into(), Vec::new());
        assert!(jobs[1].complete(&results) && !jobs[0].complete(&results));
        let mut rated = experiments.clone();
        rated[0].calibration_error = true;
        let job = Job::all(&rated)[1];
        assert!(!job.complete(&results));
        results.runs[0].calibration_error = Some(0.1);
        assert!(job.complete(&results));
        assert_eq!(seconds_left(&[jobs[0], jobs[2]], &results), Some(200.0));
        assert_eq!(seconds_left(&[jobs[0]], &Results::default()), None);
    }

    /// A replacement of `sdpoint` that records its arguments and exits with the
    /// code in a file.
    fn program(folder: &Path) -> PathBuf {
        let path = folder.join("sdpoint");
        let script = "#!/bin/sh\necho \"$*\" >> \"$(dirname \"$0\")/calls\"\n\
                      exit $(cat \"$(dirname \"$0\")/code\")\n";
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn runs_are_started_resumed_and_kept_from_others_folders() {
        let folder = tempfile::tempdir().unwrap();
        let experiments = [Experiment::parse("costs", TEXT).unwrap()];
        let job = Job::all(&experiments)[0];
        let runner = Runner {
            program: program(folder.path()),
            data: "shapes".into(),
            runs: folder.path().join("runs"),
            logits: folder.path().join("logits"),
            threads: Some(2),
        };
        let call = |code: &str| {
            fs::write(folder.path().join("code"), code).unwrap();
            let outcome = runner.run(job, &Results::default());
            let calls = fs::read_to_string(folder.path().join("calls")).unwrap_or_default();
            (
                outcome.unwrap_err(),
                calls.lines().last().unwrap_or_default().to_owned(),
            )
        };
        let out = runner.runs.join("costs/plain-0");
        let (error, called) = call("130");
        assert!(matches!(error, RunError::Interrupted), "{error}");
        let expected = format!(
            "train --data shapes --network preresnet20 --epochs 20 --train-images 5000 \
             --method plain --seed 0 --out {} --threads 2",
            out.display()
        );
        assert_eq!(called, expected);

        fs::write(out.join(folder::CHECKPOINT), "").unwrap();
        let (error, called) = call("3");
        assert!(error.to_string().contains("exit status: 3"), "{error}");
        let expected = format!("train --data shapes --resume {} --threads 2", out.display());
        assert_eq!(called, expected);

        fs::write(out.join(ARGUMENTS), "[\"--epochs\",\"7\"]").unwrap();
        let (error, _) = call("0");
        let text = error.to_string();
        assert!(
            text.contains("--epochs 7") && text.contains("plain-0"),
            "{text}"
        );
    }
}
