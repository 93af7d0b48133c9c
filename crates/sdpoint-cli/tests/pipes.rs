//! No command waits for a pipe that lies where a file is expected.
#![cfg(unix)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::{command, photos, trained};
use tempfile::TempDir;

fn pipe(path: &Path) {
    let _ = fs::remove_file(path);
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// Waits for a command, which must not take longer than a minute.
fn finished(mut child: Child) -> Option<std::process::Output> {
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            child.wait().unwrap();
            return None;
        }
        sleep(Duration::from_millis(10));
    }
    Some(child.wait_with_output().unwrap())
}

/// The command fails and says that it found a pipe at `path`.
#[track_caller]
fn refused(path: &Path, arguments: &[&str]) {
    let mut command = command(arguments);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let output = finished(command.spawn().unwrap());
    let output = output.unwrap_or_else(|| panic!("{arguments:?} waits"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{arguments:?}: {errors}");
    let name = path.file_name().unwrap().to_str().unwrap();
    for words in [name, "is a named pipe, not a file"] {
        assert!(errors.contains(words), "{arguments:?}: {errors}");
    }
}

/// A copy of the trained run and its data.
struct Copy(TempDir);

impl Copy {
    fn new() -> Self {
        let copy = Self(tempfile::tempdir().unwrap());
        fs::create_dir(copy.path("run")).unwrap();
        for entry in fs::read_dir(trained().path("run")).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name();
            fs::copy(entry.path(), copy.path("run").join(name)).unwrap();
        }
        photos(&copy.path("photos"));
        copy
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }
}

#[test]
fn files_of_a_run_may_be_pipes() {
    for file in [
        "checkpoint.safetensors",
        "metrics.jsonl",
        ".lock",
        "curve.svg",
    ] {
        let copy = Copy::new();
        pipe(&copy.path("run").join(file));
        let (run, data) = (copy.text("run"), format!("folder:{}", copy.text("photos")));
        refused(
            &copy.path("run").join(file),
            &["train", "--resume", &run, "--data", &data],
        );
    }
    let copy = Copy::new();
    fs::create_dir(copy.path("new")).unwrap();
    pipe(&copy.path("new/.lock"));
    let (new, data) = (copy.text("new"), format!("folder:{}", copy.text("photos")));
    let train = [
        "train",
        "--data",
        &data,
        "--network",
        "preresnet8",
        "--epochs",
        "1",
    ];
    refused(
        &copy.path("new/.lock"),
        &[&train[..], &["--out", &new]].concat(),
    );
}

#[test]
fn inputs_may_be_pipes() {
    let copy = Copy::new();
    let there = copy.path("pipe");
    pipe(&there);
    let (place, model) = (copy.text("pipe"), copy.text("run/model.safetensors"));
    let (out, data) = (copy.text("out"), trained().data());
    for arguments in [
        &["evaluate", &place, "--data", &data][..],
        &["predict", &model, &place],
        &["predict", &place, &place],
        &["export", &place, "--python", "-o", &out],
        &["calibrate", &place, "--data", &data, "-o", &out],
        &["import", &place, "--network", "preresnet8", "-o", &out],
        &["train", "--init", &place, "--data", &data, "--out", &out],
        &["evaluate", &model, "--data", &format!("tar:{place}")],
        &["evaluate", &model, "--data", &format!("folder:{place}")],
        &["evaluate", &model, "--data", &format!("cifar10:{place}")],
        &["profile", &place],
    ] {
        refused(&there, arguments);
    }
}

/// The user has not named these, so nobody reads from the pipes.
#[test]
fn files_beside_a_model_and_in_a_folder_may_be_pipes() {
    let copy = Copy::new();
    let model = copy.text("run/model.safetensors");
    let profile = copy.path("run/model.profile.json");
    pipe(&profile);
    refused(
        &profile,
        &["profile", &model, "--save", "--seconds", "0.01"],
    );
    fs::create_dir(copy.path("all")).unwrap();
    let exported = copy.path("all/full.onnx");
    pipe(&exported);
    let all = copy.text("all");
    refused(
        &exported,
        &["export", &model, "--instances", "all", "-o", &all],
    );
}

#[test]
fn the_lock_of_a_run_is_not_an_output() {
    let copy = Copy::new();
    let (model, lock) = (copy.text("run/model.safetensors"), copy.text("run/.lock"));
    let data = trained().data();
    common::fail(
        2,
        &[".lock' belongs to the run in its folder"],
        &["evaluate", &model, "--data", &data, "--csv", &lock],
    );
    assert!(fs::read(copy.path("run/.lock")).unwrap().is_empty());
}

/// Nothing is computed for a pipe that nobody reads from, and a reader gets
/// everything, also if it is the only one for the whole time of the work.
#[test]
fn an_output_may_be_a_pipe_that_is_read() {
    let copy = Copy::new();
    let there = copy.path("pipe");
    pipe(&there);
    let (model, out, data) = (
        copy.text("run/model.safetensors"),
        copy.text("pipe"),
        trained().data(),
    );
    let commands = [
        &["export", &model, "--python", "-o", &out][..],
        &["export", &model, "--instance", "full", "-o", &out],
        &["evaluate", &model, "--data", &data, "--csv", &out],
        &["calibrate", &model, "--data", &data, "-o", &out],
    ];
    for arguments in commands {
        let mut child = command(arguments);
        child.stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = finished(child.spawn().unwrap());
        let output = output.unwrap_or_else(|| panic!("{arguments:?} waits"));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(7), "{arguments:?}: {errors}");
        assert!(errors.contains("nothing reads from"), "{errors}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
    for arguments in commands {
        let source = there.clone();
        // Opening the pipe for reading waits for its writer.
        let reader = std::thread::spawn(move || fs::read(source).unwrap());
        sleep(Duration::from_millis(300));
        let mut child = command(arguments);
        child.stdout(Stdio::null()).stderr(Stdio::piped());
        let output = finished(child.spawn().unwrap()).unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        assert!(!reader.join().unwrap().is_empty(), "{arguments:?}");
    }
}
