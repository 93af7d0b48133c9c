//! TensorBoard's event file: the metrics of each epoch, to be watched.
//!
//! The file is a sequence of TensorFlow's records, each a length and a message,
//! both with a checksum. A message is an `Event` of `event.proto`, of which few
//! fields are needed, so that they are written by hand.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use sdpoint_core::file::{self, FileError};

use crate::error::TrainError;
use crate::metrics::EpochMetrics;

/// The file. It is created with the first epoch.
#[derive(Debug)]
pub(crate) struct EventLog {
    path: PathBuf,
    file: Option<File>,
}

impl EventLog {
    /// Opens the file, and cuts off what a run that is resumed after `step` writes
    /// again, or a crash left incomplete. Epochs of `metrics` that it lacks are
    /// added.
    pub fn open(path: &Path, step: u64, metrics: &[EpochMetrics]) -> Result<Self, TrainError> {
        let mut log = Self {
            path: path.to_owned(),
            file: None,
        };
        let last = match file::read(path, u64::MAX) {
            Ok(bytes) => {
                let (len, last) = kept(&bytes, step);
                let file = log.append_to()?;
                file.set_len(len as u64)
                    .map_err(TrainError::io("shorten", path))?;
                if len == 0 {
                    // Not even the first record is left.
                    log.write_record(&version())?;
                }
                last
            }
            Err(FileError::Io(error)) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(TrainError::io("read", path)(error.into())),
        };
        for epoch in metrics {
            if epoch.step <= step && last.is_none_or(|last| epoch.step > last) {
                log.append(epoch)?;
            }
        }
        Ok(log)
    }

    /// Appends the metrics of an epoch.
    pub fn append(&mut self, metrics: &EpochMetrics) -> Result<(), TrainError> {
        if self.file.is_none() {
            self.append_to()?;
            self.write_record(&version())?;
        }
        let mut event = Message::default();
        event.double(1, now());
        event.varint(2, metrics.step);
        let mut summary = Message::default();
        for (tag, value) in scalars(metrics) {
            let mut scalar = Message::default();
            scalar.bytes(1, tag.as_bytes());
            scalar.float(2, value as f32);
            summary.bytes(1, &scalar.0);
        }
        event.bytes(5, &summary.0);
        self.write_record(&event.0)
    }

    /// Opens the file for appending.
    fn append_to(&mut self) -> Result<&File, TrainError> {
        let mut options = File::options();
        let file = file::open_with(&self.path, options.create(true).append(true));
        let file = file.map_err(|error| TrainError::io("open", &self.path)(error.into()))?;
        Ok(self.file.insert(file))
    }

    fn write_record(&mut self, message: &[u8]) -> Result<(), TrainError> {
        let length = (message.len() as u64).to_le_bytes();
        let [of_length, of_message] =
            [&length[..], message].map(|part| masked_crc(part).to_le_bytes());
        let record = [&length[..], &of_length, message, &of_message].concat();
        let file = self.file.as_mut().expect("the file is open");
        file.write_all(&record)
            .map_err(TrainError::io("write", &self.path))
    }
}

/// What is shown, by name.
fn scalars(metrics: &EpochMetrics) -> Vec<(&'static str, f64)> {
    let mut scalars = vec![
        ("loss/train", metrics.train_loss),
        ("accuracy/train", metrics.train_accuracy),
        ("rate", metrics.rate),
        ("images_per_second", metrics.images_per_second),
        ("epoch", metrics.epoch as f64),
    ];
    if let Some(full) = &metrics.full {
        scalars.extend([
            ("loss/full_train", full.train_loss),
            ("accuracy/full_train", full.train_accuracy),
            ("loss/full_test", full.test_loss),
            ("accuracy/full_test", full.test_accuracy),
        ]);
        if let (Some(loss), Some(accuracy)) = (full.val_loss, full.val_accuracy) {
            scalars.extend([("loss/full_val", loss), ("accuracy/full_val", accuracy)]);
        }
    }
    scalars
}

/// The first event of a file, which says what it is and who wrote it.
fn version() -> Vec<u8> {
    let mut source = Message::default();
    source.bytes(1, b"sdpoint");
    let mut event = Message::default();
    event.double(1, now());
    event.bytes(3, b"brain.Event:2");
    event.bytes(10, &source.0);
    event.0
}

/// Seconds since 1970.
fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

/// How many bytes of a file are whole records of steps up to `step`, and the last
/// of these steps.
fn kept(bytes: &[u8], step: u64) -> (usize, Option<u64>) {
    let (mut end, mut last) = (0, None);
    while let Some((message, len)) = record(&bytes[end..]) {
        match step_of(message) {
            Some(found) if found > step => break,
            found => last = found.or(last),
        }
        end += len;
    }
    (end, last)
}

/// The message at the start of some bytes, and the length of its record.
fn record(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    if masked_crc(length) != u32::from_le_bytes(*crc) {
        return None;
    }
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let message = rest.get(..length)?;
    let (crc, _) = rest[length..].split_first_chunk::<4>()?;
    (masked_crc(message) == u32::from_le_bytes(*crc)).then_some((message, 16 + length))
}

/// The step of an event of ours, which comes second, after the time.
fn step_of(message: &[u8]) -> Option<u64> {
    let varint = message.get(9..)?.strip_prefix(&[2 << 3])?;
    let mut step = 0;
    for (index, byte) in varint.iter().take(10).enumerate() {
        step |= u64::from(byte & 0x7f).checked_shl(7 * index as u32)?;
        if byte & 0x80 == 0 {
            return Some(step);
        }
    }
    None
}

/// A protobuf message.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn key(&mut self, field: u64, kind: u64) {
        self.raw_varint(field << 3 | kind);
    }

    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn varint(&mut self, field: u64, value: u64) {
        self.key(field, 0);
        self.raw_varint(value);
    }

    fn double(&mut self, field: u64, value: f64) {
        self.key(field, 1);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.key(field, 2);
        self.raw_varint(bytes.len() as u64);
        self.0.extend(bytes);
    }

    fn float(&mut self, field: u64, value: f32) {
        self.key(field, 5);
        self.0.extend(value.to_le_bytes());
    }
}

/// The checksum of TensorFlow's records: CRC-32C, rotated, plus a constant.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli), bit by bit: there are some hundred bytes per epoch.
fn crc32c(bytes: &[u8]) -> u32 {
    let crc = bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg())
        })
    });
    !crc
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::metrics::FullMetrics;
    use crate::metrics::tests::metrics;

    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    }

    /// The steps of all events.
    fn steps(path: &Path) -> Vec<Option<u64>> {
        let bytes = fs::read(path).unwrap();
        let (mut rest, mut steps) = (&bytes[..], Vec::new());
        while let Some((message, len)) = record(rest) {
            steps.push(step_of(message));
            rest = &rest[len..];
        }
        assert!(rest.is_empty(), "whole records only");
        steps
    }

    #[test]
    fn a_resumed_run_continues_where_its_checkpoint_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events");
        let mut log = EventLog::open(&path, 0, &[]).unwrap();
        assert!(!path.exists(), "nothing to show yet");
        for epoch in [1, 2, 30] {
            log.append(&metrics(epoch)).unwrap();
        }
        drop(log);
        assert_eq!(steps(&path), [None, Some(10), Some(20), Some(300)]);

        // An incomplete record at the end, and one of a later step.
        let mut bytes = fs::read(&path).unwrap();
        bytes.extend(b"\x18\0\0\0\0\0\0\0");
        fs::write(&path, &bytes).unwrap();
        let mut log = EventLog::open(&path, 25, &[metrics(1), metrics(2)]).unwrap();
        assert_eq!(steps(&path), [None, Some(10), Some(20)]);
        log.append(&metrics(3)).unwrap();
        drop(log);
        assert_eq!(steps(&path), [None, Some(10), Some(20), Some(30)]);

        // What is in the metrics alone is added, and a file of something else starts anew.
        let all = [1, 2, 3, 4].map(metrics);
        EventLog::open(&path, 40, &all).unwrap();
        assert_eq!(steps(&path).len(), 5);
        fs::write(&path, "no events").unwrap();
        EventLog::open(&path, 20, &all).unwrap();
        assert_eq!(steps(&path), [None, Some(10), Some(20)]);
    }

    #[test]
    fn all_metrics_are_shown() {
        let mut epoch = metrics(1);
        assert_eq!(scalars(&epoch).len(), 5);
        epoch.full = Some(FullMetrics {
            train_loss: 1.0,
            train_accuracy: 0.5,
            val_loss: Some(1.5),
            val_accuracy: Some(0.25),
            test_loss: 2.0,
            test_accuracy: 0.125,
        });
        let shown = scalars(&epoch);
        assert!(shown.contains(&("loss/full_val", 1.5)), "{shown:?}");
        assert_eq!(shown.len(), 11);
    }
}
