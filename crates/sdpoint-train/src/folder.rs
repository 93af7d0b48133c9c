//! The files in the folder of a run.

use std::fs::{self, File, TryLockError};
use std::path::Path;

use sdpoint_core::file;

use crate::error::TrainError;

/// The state that the run can be resumed from; see
/// [`Checkpoint`](crate::Checkpoint).
pub const CHECKPOINT: &str = "checkpoint.safetensors";
/// One line of JSON per epoch; see [`EpochMetrics`](crate::EpochMetrics).
pub const METRICS: &str = "metrics.jsonl";
/// The same metrics for TensorBoard, which looks for such names.
pub const EVENTS: &str = "events.out.tfevents.sdpoint";
/// The trained model.
pub const MODEL: &str = "model.safetensors";
/// The cost and accuracy of every instance, as a table.
pub const CURVE_CSV: &str = "curve.csv";
/// The cost and accuracy of every instance, as a picture.
pub const CURVE_SVG: &str = "curve.svg";

/// The model that ends at an early exit; the first exit is number 1.
pub fn exit(number: usize) -> String {
    format!("exit{number}.safetensors")
}

/// Locked while a process trains in the folder, so that no other one does.
pub const LOCK: &str = ".lock";

/// Whether this is the name of a file that a run writes into its folder.
pub fn is_run_file(name: &str) -> bool {
    let number = name
        .strip_prefix("exit")
        .and_then(|rest| rest.strip_suffix(".safetensors"));
    [
        CHECKPOINT, METRICS, EVENTS, MODEL, CURVE_CSV, CURVE_SVG, LOCK,
    ]
    .contains(&name)
        || number.is_some_and(|number| number.parse().is_ok_and(|n| name == exit(n)))
}

/// Whether a file is the lock of a run's folder, which any later run in it
/// locks again.
pub fn is_lock(path: &Path) -> bool {
    let beside = |name| path.with_file_name(name).is_file();
    path.file_name() == Some(LOCK.as_ref()) && [CHECKPOINT, METRICS, MODEL].into_iter().any(beside)
}

/// Whether a file belongs to a run in progress: it has the name of a run's
/// file, and its folder is locked.
pub fn is_in_use(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    if !name.is_some_and(is_run_file) {
        return false;
    }
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let lock = file::open(&folder.join(LOCK));
    lock.is_ok_and(|(file, _)| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Creates the folder if necessary, and locks it until the result is dropped.
pub(crate) fn lock(folder: &Path) -> Result<File, TrainError> {
    fs::create_dir_all(folder).map_err(TrainError::io("create the folder", folder))?;
    let path = folder.join(LOCK);
    // Not truncated: a user's file of that name keeps its content.
    let mut options = File::options();
    let options = options.write(true).create(true).truncate(false);
    let file = file::open_with(&path, options)
        .map_err(|error| TrainError::io("open", &path)(error.into()))?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(TrainError::Busy(folder.to_owned())),
        // Some network file systems have no locks; train without one.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(file),
    }
}

/// Checks that no process trains in a folder. A run checks this itself when it
/// locks the folder, but only after it has read images.
///
/// # Errors
/// [`TrainError::Busy`].
pub fn check_idle(folder: &Path) -> Result<(), TrainError> {
    match is_in_use(&folder.join(CHECKPOINT)) {
        true => Err(TrainError::Busy(folder.to_owned())),
        false => Ok(()),
    }
}

/// Checks that a folder holds no files of a run, which a new one would replace.
///
/// # Errors
/// [`TrainError::RunExists`] or [`TrainError::FileExists`].
pub fn check_free(folder: &Path) -> Result<(), TrainError> {
    let Some(found) = files_of_run(folder).next() else {
        return Ok(());
    };
    let folder = folder.to_owned();
    Err(match found.as_str() {
        CHECKPOINT => TrainError::RunExists(folder),
        _ => TrainError::FileExists { folder, found },
    })
}

/// Checks that a folder holds no run, or removes the run with `overwrite`.
pub(crate) fn clear(folder: &Path, overwrite: bool) -> Result<(), TrainError> {
    if !overwrite {
        return check_free(folder);
    }
    for file in files_of_run(folder) {
        let path = folder.join(file);
        fs::remove_file(&path).map_err(TrainError::io("remove", &path))?;
    }
    Ok(())
}

/// The names of the files of a run that a folder has. The checkpoint comes first:
/// without it, the remaining files cannot be resumed.
fn files_of_run(folder: &Path) -> impl Iterator<Item = String> {
    let is_there = move |file: &String| folder.join(file).exists();
    let files = [CHECKPOINT, METRICS, EVENTS, MODEL, CURVE_CSV, CURVE_SVG];
    let files = files.into_iter().map(str::to_owned).filter(is_there);
    files.chain((1..).map(exit).take_while(is_there))
}

/// Removes the temporary files of processes that were killed while writing.
pub(crate) fn sweep(folder: &Path) -> Result<(), TrainError> {
    let list = fs::read_dir(folder).map_err(TrainError::io("list", folder))?;
    for entry in list.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let of_ours = [CHECKPOINT, METRICS, MODEL, CURVE_CSV, CURVE_SVG]
            .iter()
            .any(|file| name.starts_with(&format!(".{file}.")));
        if of_ours && name.ends_with(".tmp") {
            let path = entry.path();
            fs::remove_file(&path).map_err(TrainError::io("remove", &path))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_overwritten_only_on_request() {
        let folder = tempfile::tempdir().unwrap();
        let path = |file| folder.path().join(file);
        fs::write(path("notes.txt"), "mine").unwrap();
        clear(folder.path(), false).unwrap();
        fs::write(path(MODEL), "old").unwrap();
        let error = clear(folder.path(), false).unwrap_err().to_string();
        assert!(
            error.contains(MODEL) && !error.contains("resume"),
            "{error}"
        );
        fs::write(path(CHECKPOINT), "old").unwrap();
        let error = clear(folder.path(), false).unwrap_err().to_string();
        assert!(error.contains("holds a run: resume it"), "{error}");
        assert!(path(MODEL).exists());
        clear(folder.path(), true).unwrap();
        assert!(!path(MODEL).exists() && path("notes.txt").exists());
    }

    #[test]
    fn two_runs_do_not_share_a_folder() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("runs/a");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(LOCK), "a user's").unwrap();
        assert!(!is_in_use(&folder.join(MODEL)));
        let first = lock(&folder).unwrap();
        let error = lock(&folder).unwrap_err();
        assert!(matches!(error, TrainError::Busy(_)), "{error}");
        for name in [MODEL, CHECKPOINT, "exit3.safetensors", LOCK] {
            assert!(is_in_use(&folder.join(name)), "{name}");
        }
        for name in ["other.onnx", "exit.safetensors", "exit03.safetensors"] {
            assert!(!is_in_use(&folder.join(name)), "{name}");
        }
        drop(first);
        lock(&folder).unwrap();
        assert_eq!(fs::read(folder.join(LOCK)).unwrap(), b"a user's");
    }

    #[test]
    fn leftovers_of_killed_writers_are_swept() {
        let folder = tempfile::tempdir().unwrap();
        let path = |file| folder.path().join(file);
        for file in [".model.safetensors.x1y2.tmp", ".other.x1y2.tmp", MODEL] {
            fs::write(path(file), "").unwrap();
        }
        sweep(folder.path()).unwrap();
        assert!(!path(".model.safetensors.x1y2.tmp").exists());
        assert!(path(".other.x1y2.tmp").exists() && path(MODEL).exists());
    }

    #[test]
    fn a_place_where_no_folder_can_be_is_named() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("file");
        fs::write(&file, "").unwrap();
        let error = lock(&file.join("run")).unwrap_err().to_string();
        assert!(error.contains("file/run"), "{error}");
    }
}
