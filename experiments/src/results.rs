//! The results of runs: a small file with one line of JSON per run, from which
//! the page is generated.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use sdpoint_core::atomic::write_atomically;
use sdpoint_data::Source;
use sdpoint_train::{Checkpoint, EpochMetrics, TrainError, folder};
use serde::{Deserialize, Serialize};

/// All finished runs.
#[derive(Debug, Default, PartialEq)]
pub struct Results {
    pub runs: Vec<Run>,
}

/// One finished run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    pub experiment: String,
    pub method: String,
    pub seed: u64,
    /// The arguments of `sdpoint train`, without locations.
    pub arguments: Vec<String>,
    /// The data set's name.
    pub data: String,
    /// Program and version.
    pub program: String,
    /// The instruction set, which affects rounding.
    pub isa: String,
    /// Seconds of all training steps; depends on the machine.
    pub seconds: f64,
    /// By epoch, as `metrics.jsonl` has it: mean loss of the steps, each in
    /// its instance and on augmented images.
    pub train_loss: Vec<f64>,
    /// Likewise, the training accuracy.
    pub train_accuracy: Vec<f64>,
    /// The multiply-accumulates of all steps; none for runs of versions that did
    /// not count them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub macs: Option<u64>,
    /// The expected calibration error of the full network on the test images, if it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration_error: Option<f64>,
    /// The full network during training, if it was measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub full: Vec<Watched>,
    /// By the measure's name.
    pub measures: BTreeMap<String, Vec<Measured>>,
}

/// The full network at the end of an epoch, under the conditions of
/// evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watched {
    pub epoch: usize,
    pub train_loss: f64,
    pub test_loss: f64,
}

/// One instance or combination on the test images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    pub instance: String,
    pub macs: u64,
    pub top1: f64,
    pub loss: f64,
    /// The accuracy on images held out of training, if the run held some out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val_top1: Option<f64>,
}

/// Results that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ResultsError {
    #[error("{}: {error}", path.display())]
    Io {
        path: PathBuf,
        error: std::io::Error,
    },
    #[error("{} line {line}: {problem}", path.display())]
    Line {
        path: PathBuf,
        line: usize,
        problem: String,
    },
    #[error(transparent)]
    Run(#[from] TrainError),
    #[error("{0}")]
    Data(#[from] sdpoint_data::DataError),
}

impl Results {
    /// Reads a file; empty if there is none yet.
    ///
    /// # Errors
    /// If the file cannot be read, or a line is invalid.
    pub fn read(path: &Path) -> Result<Self, ResultsError> {
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            read => read.map_err(|error| io(path, error))?,
        };
        let run = |(index, line): (usize, &str)| {
            serde_json::from_str(line).map_err(|error| ResultsError::Line {
                path: path.to_owned(),
                line: index + 1,
                problem: error.to_string(),
            })
        };
        let runs = text.lines().enumerate().map(run);
        Ok(Self {
            runs: runs.collect::<Result<_, _>>()?,
        })
    }

    /// Adds a run, replacing an older one of the same name, and writes the file.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn add(&mut self, run: Run, path: &Path) -> Result<(), ResultsError> {
        let key = |run: &Run| (run.experiment.clone(), run.method.clone(), run.seed);
        self.runs.retain(|other| key(other) != key(&run));
        self.runs.push(run);
        self.runs.sort_by_key(key);
        let mut text = String::new();
        for run in &self.runs {
            text.push_str(&serde_json::to_string(run).expect("plain data has a JSON form"));
            text.push('\n');
        }
        write(path, &text)
    }

    /// The run of a method with a seed, if it was done with these arguments.
    pub fn find(
        &self,
        experiment: &str,
        method: &str,
        seed: u64,
        arguments: &[String],
    ) -> Option<&Run> {
        self.runs.iter().find(|run| {
            (run.experiment.as_str(), run.method.as_str(), run.seed) == (experiment, method, seed)
                && run.arguments == arguments
        })
    }
}

impl Run {
    /// Summarises the files in a finished run's folder; the caller adds its
    /// measures.
    ///
    /// # Errors
    /// If a file is missing or damaged.
    pub fn summarise(
        experiment: &str,
        method: &str,
        seed: u64,
        arguments: Vec<String>,
        program: String,
        folder: &Path,
    ) -> Result<Self, ResultsError> {
        let checkpoint = Checkpoint::read(folder)?;
        let path = folder.join(folder::METRICS);
        let text = fs::read_to_string(&path).map_err(|error| io(&path, error))?;
        let epochs = text.lines().enumerate().map(|(index, line)| {
            serde_json::from_str(line).map_err(|error| ResultsError::Line {
                path: path.clone(),
                line: index + 1,
                problem: error.to_string(),
            })
        });
        let epochs: Vec<EpochMetrics> = epochs.collect::<Result<_, _>>()?;
        let by_epoch = |value: fn(&EpochMetrics) -> f64| {
            epochs
                .iter()
                .map(|epoch| rounded(value(epoch), 5))
                .collect()
        };
        let full = epochs.iter().filter_map(|epoch| {
            let full = epoch.full?;
            Some(Watched {
                epoch: epoch.epoch,
                train_loss: rounded(full.train_loss, 5),
                test_loss: rounded(full.test_loss, 5),
            })
        });
        let macs: u64 = epochs.iter().map(|epoch| epoch.macs).sum();
        Ok(Self {
            experiment: experiment.to_owned(),
            method: method.to_owned(),
            seed,
            arguments,
            data: checkpoint.plan.data.parse::<Source>()?.name(),
            program,
            isa: checkpoint.counters.isa,
            seconds: rounded(epochs.iter().map(|epoch| epoch.seconds).sum(), 0),
            train_loss: by_epoch(|epoch| epoch.train_loss),
            train_accuracy: by_epoch(|epoch| epoch.train_accuracy),
            macs: (macs > 0).then_some(macs),
            calibration_error: None,
            full: full.collect(),
            measures: BTreeMap::new(),
        })
    }

    /// The measured `full` network.
    pub fn full(&self, measure: &str) -> Option<&Measured> {
        let measured = self.measures.get(measure)?;
        measured.iter().find(|one| one.instance == "full")
    }
}

/// Reads a `curve.csv`: instances and combinations with cost and accuracy.
///
/// # Errors
/// If it cannot be read, or is not such a table.
pub fn read_curve(path: &Path) -> Result<Vec<Measured>, ResultsError> {
    let text = fs::read_to_string(path).map_err(|error| io(path, error))?;
    let mut lines = text.lines();
    let heading: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
    let bad = |line: usize, problem: String| ResultsError::Line {
        path: path.to_owned(),
        line,
        problem,
    };
    let column = |name: &str| {
        let place = heading.iter().position(|&title| title == name);
        place.ok_or_else(|| bad(1, format!("there is no column '{name}'")))
    };
    let [instance, macs, top1, loss] = ["instance", "macs", "top1", "loss"].map(column);
    let [instance, macs, top1, loss] = [instance?, macs?, top1?, loss?];
    let val_top1 = column("val_top1").ok();
    let mut rows = Vec::new();
    for (index, line) in lines.enumerate() {
        let cells: Vec<&str> = line.split(',').collect();
        let cell = |place: usize| {
            let cell = cells.get(place).copied();
            cell.ok_or_else(|| bad(index + 2, format!("column {} is missing", place + 1)))
        };
        let number = |place: usize| {
            let text = cell(place)?;
            let value = text.parse::<f64>().ok().filter(|value| value.is_finite());
            value.ok_or_else(|| bad(index + 2, format!("'{text}' is no number")))
        };
        rows.push(Measured {
            instance: cell(instance)?.to_owned(),
            macs: number(macs)? as u64,
            top1: rounded(number(top1)?, 5),
            loss: rounded(number(loss)?, 5),
            val_top1: match val_top1 {
                Some(column) => Some(rounded(number(column)?, 5)),
                None => None,
            },
        });
    }
    Ok(rows)
}

/// Reads the expected calibration error of the only instance in a file of `sdpoint evaluate
/// --json`.
///
/// # Errors
/// If it cannot be read, or is not such a file.
pub fn read_calibration_error(path: &Path) -> Result<f64, ResultsError> {
    #[derive(Deserialize)]
    struct Row {
        ece: f64,
    }
    let text = fs::read_to_string(path).map_err(|error| io(path, error))?;
    let invalid = |error: serde_json::Error| io(path, error.into());
    let [row]: [Row; 1] = serde_json::from_str(&text).map_err(invalid)?;
    Ok(rounded(row.ece, 5))
}

/// Writes a text file atomically.
///
/// # Errors
/// If it cannot be written.
pub fn write(path: &Path, text: &str) -> Result<(), ResultsError> {
    write_bytes(path, text.as_bytes())
}

/// Writes a file atomically.
///
/// # Errors
/// If it cannot be written.
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<(), ResultsError> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|error| io(folder, error))?;
    }
    write_atomically(path, |out| out.write_all(bytes))
        .map_err(|error| io(path, std::io::Error::new(error.kind(), error.to_string())))
}

/// The error for a file.
pub fn io(path: &Path, error: std::io::Error) -> ResultsError {
    ResultsError::Io {
        path: path.to_owned(),
        error,
    }
}

fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A run with one measure of these instances: name, MACs and accuracy.
    pub fn run(method: &str, seed: u64, arguments: &[String], own: &[(&str, u64, f64)]) -> Run {
        let measured = own.iter().map(|&(instance, macs, top1)| Measured {
            instance: instance.into(),
            macs,
            top1,
            loss: 1.0 - top1,
            val_top1: None,
        });
        Run {
            experiment: "costs".into(),
            method: method.into(),
            seed,
            arguments: arguments.to_vec(),
            data: "cifar10".into(),
            program: "sdpoint 0.1.0".into(),
            isa: "avx2".into(),
            seconds: 100.0,
            train_loss: vec![2.0, 0.1],
            train_accuracy: vec![0.2, 0.9],
            macs: None,
            calibration_error: None,
            full: Vec::new(),
            measures: [("own".to_owned(), measured.collect())].into(),
        }
    }

    #[test]
    fn a_run_is_found_again_if_its_arguments_are_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.jsonl");
        let mut results = Results::read(&path).unwrap();
        assert_eq!(results, Results::default());
        let arguments = ["--epochs".to_owned(), "2".to_owned()];
        let own = [("full", 100, 0.8125)];
        for seed in [1, 0] {
            results
                .add(run("plain", seed, &arguments, &own), &path)
                .unwrap();
        }
        results
            .add(run("plain", 1, &arguments, &own), &path)
            .unwrap();
        let read = Results::read(&path).unwrap();
        assert_eq!(read, results);
        assert_eq!(read.runs.len(), 2);
        assert!(read.find("costs", "plain", 1, &arguments).is_some());
        assert!(read.find("costs", "plain", 1, &arguments[..1]).is_none());
        assert!(read.find("costs", "plain", 2, &arguments).is_none());
        assert!(read.find("other", "plain", 1, &arguments).is_none());
    }

    #[test]
    fn damage_is_named_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.jsonl");
        let mut results = Results::default();
        results.add(run("plain", 0, &[], &[]), &path).unwrap();
        let whole = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{whole}{}", &whole[..whole.len() / 2])).unwrap();
        let error = Results::read(&path).unwrap_err().to_string();
        assert!(error.contains("results.jsonl line 2"), "{error}");
    }

    #[test]
    fn the_calibration_error_is_that_of_a_single_instance() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("full.json");
        let read = |text: &str| {
            fs::write(&path, text).unwrap();
            read_calibration_error(&path).map_err(|error| error.to_string())
        };
        let row = r#"{"instance": "full", "top1": 0.5, "ece": 0.03125}"#;
        assert_eq!(read(&format!("[{row}]")).unwrap(), 0.03125);
        for bad in [format!("[{row},{row}]"), "[]".into(), "[{".into()] {
            assert!(read(&bad).unwrap_err().contains("full.json"));
        }
    }

    #[test]
    fn curves_are_read_by_their_headings() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("curve.csv");
        let read = |text: &str| {
            fs::write(&path, text).unwrap();
            read_curve(&path).map_err(|error| error.to_string())
        };
        let heading = "instance,point,ratio,macs,share,top1,top5,loss\n";
        let rows = read(&format!(
            "{heading}full,,,400,1,0.8125,1,0.5\n0@0.5>full,,,200,0.5,0.75,1,0.6\n"
        ));
        let rows = rows.unwrap();
        assert_eq!(rows[0].macs, 400);
        assert_eq!(
            (rows[1].instance.as_str(), rows[1].top1, rows[1].loss),
            ("0@0.5>full", 0.75, 0.6)
        );
        assert_eq!(rows[0].val_top1, None);
        let with_val = heading.replace('\n', ",val_top1,val_top5,val_loss\n");
        let rows = read(&format!("{with_val}full,,,400,1,0.8125,1,0.5,0.75,1,0.6\n")).unwrap();
        assert_eq!((rows[0].top1, rows[0].val_top1), (0.8125, Some(0.75)));
        assert!(read("instance,macs\n").unwrap_err().contains("'top1'"));
        let torn = read(&format!("{heading}full,,,400,1,0.8")).unwrap_err();
        assert!(torn.contains("line 2"), "{torn}");
        let bad = read(&format!("{heading}full,,,400,1,NaN,1,0\n")).unwrap_err();
        assert!(bad.contains("'NaN'"), "{bad}");
    }
}
