//! `metrics.jsonl`: one line of JSON per epoch, and the same for TensorBoard.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use sdpoint_core::Instance;
use sdpoint_core::atomic::write_atomically;
use sdpoint_core::file::{self, FileError};
use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::events::EventLog;
use crate::folder::EVENTS;

/// The metrics of an epoch: a line of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EpochMetrics {
    /// The epoch, counted from one.
    pub epoch: usize,
    /// The number of steps done at its end, over all epochs.
    pub step: u64,
    /// Mean loss of its training images, each in its step's instance (the
    /// first of several) and with the weights before that step.
    pub train_loss: f64,
    /// The share of correctly classified training images, likewise.
    pub train_accuracy: f64,
    /// The learning rate of its last step.
    pub rate: f64,
    /// The duration of its steps in seconds, waiting for data included.
    pub seconds: f64,
    /// Training images per second.
    pub images_per_second: f64,
    /// Seconds that its steps waited for data.
    pub data_wait_seconds: f64,
    /// The number of steps in each instance.
    pub drawn: BTreeMap<Instance, u64>,
    /// The accuracy of `full` at its end, if measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full: Option<FullMetrics>,
}

/// The accuracy of `full` during training, as in evaluation: with calibrated
/// statistics, and without augmentation and noise.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FullMetrics {
    /// Mean loss of as many training images as calibration uses.
    pub train_loss: f64,
    /// The share of them that is classified correctly.
    pub train_accuracy: f64,
    /// Mean loss of the images held out of training, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val_loss: Option<f64>,
    /// The share of them that is classified correctly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val_accuracy: Option<f64>,
    /// Mean loss of the test images.
    pub test_loss: f64,
    /// The share of them that is classified correctly.
    pub test_accuracy: f64,
}

/// The file, open for appending.
#[derive(Debug)]
pub(crate) struct MetricsLog {
    path: PathBuf,
    file: File,
    /// The same metrics as events.
    events: EventLog,
}

impl MetricsLog {
    /// Opens the file for appending. Removes lines of steps after `step` and
    /// incomplete lines that a crash left: the run writes them again.
    pub(crate) fn open(path: &Path, step: u64) -> Result<Self, TrainError> {
        let bytes = match file::read(path, u64::MAX) {
            Ok(bytes) => bytes,
            Err(FileError::Io(error)) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(TrainError::io("read", path)(error.into())),
        };
        // After a crash, the last line may hold any bytes.
        let text = String::from_utf8_lossy(&bytes);
        let (mut kept, mut epochs) = (String::new(), Vec::new());
        for line in text
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'))
        {
            match serde_json::from_str::<EpochMetrics>(line) {
                Ok(metrics) if metrics.step <= step => {
                    kept.push_str(line);
                    epochs.push(metrics);
                }
                _ => {}
            }
        }
        if kept != text {
            write_atomically(path, |out| out.write_all(kept.as_bytes()))?;
        }
        let mut options = File::options();
        let file = file::open_with(path, options.create(true).append(true))
            .map_err(|error| TrainError::io("open", path)(error.into()))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            events: EventLog::open(&path.with_file_name(EVENTS), step, &epochs)?,
        })
    }

    /// Appends a line and syncs it to disk.
    pub(crate) fn append(&mut self, metrics: &EpochMetrics) -> Result<(), TrainError> {
        let mut line = serde_json::to_string(metrics).expect("plain data has a JSON form");
        line.push('\n');
        self.file
            .write_all(line.as_bytes())
            .and_then(|()| self.file.sync_data())
            .map_err(TrainError::io("write", &self.path))?;
        self.events.append(metrics)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;

    use super::*;

    pub fn metrics(epoch: usize) -> EpochMetrics {
        EpochMetrics {
            epoch,
            step: 10 * epoch as u64,
            train_loss: 1.234567890123456,
            train_accuracy: 0.1,
            rate: 0.1,
            seconds: 1.5,
            images_per_second: 853.3,
            data_wait_seconds: 0.0,
            drawn: [("full", 4), ("0@0.5", 6)]
                .map(|(name, count)| (name.parse().unwrap(), count))
                .into(),
            full: None,
        }
    }

    #[test]
    fn a_line_reads_back_and_names_its_instances() {
        let line = serde_json::to_string(&metrics(1)).unwrap();
        assert!(line.contains(r#""drawn":{"full":4,"0@0.5":6}"#), "{line}");
        assert_eq!(
            serde_json::from_str::<EpochMetrics>(&line).unwrap(),
            metrics(1)
        );
    }

    #[test]
    fn a_resumed_run_drops_later_and_incomplete_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut log = MetricsLog::open(&path, 0).unwrap();
        for epoch in 1..=3 {
            log.append(&metrics(epoch)).unwrap();
        }
        drop(log);
        let whole = fs::read_to_string(&path).unwrap();
        let torn = [whole.as_bytes(), b"{\"epoch\":4,\"st\xff\x00"].concat();
        fs::write(&path, torn).unwrap();
        let mut log = MetricsLog::open(&path, 25).unwrap();
        log.append(&metrics(3)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), whole);
    }

    #[test]
    fn an_unwritable_place_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("no/metrics.jsonl");
        let error = MetricsLog::open(&path, 0).unwrap_err().to_string();
        assert!(error.contains("no/metrics.jsonl"), "{error}");
    }
}
