//! Runs that are interrupted, killed, refused a file, or diverge.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::{command, fail, photos, run, stderr, succeed};
use tempfile::TempDir;

/// Data and folders of runs.
struct Bench(TempDir);

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        photos(&folder.path().join("photos"));
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A run of 60 steps with a checkpoint after each.
    fn train(&self, out: &str, more: &[&str]) -> Vec<String> {
        self.train_epochs("12", out, more)
    }

    /// A run of five steps an epoch with a checkpoint after each.
    fn train_epochs(&self, epochs: &str, out: &str, more: &[&str]) -> Vec<String> {
        let data = format!("folder:{}", self.path("photos").display());
        let out = self.path(out);
        let mut arguments = vec!["train", "--data", &data, "--network", "preresnet8"];
        arguments.extend([
            "--epochs",
            epochs,
            "--batch",
            "8",
            "--checkpoint-every",
            "0",
        ]);
        arguments.extend(["--out", out.to_str().unwrap()]);
        arguments.extend(more);
        arguments.into_iter().map(str::to_owned).collect()
    }

    fn resume(&self, out: &str) -> Vec<String> {
        let out = self.path(out);
        [
            "train",
            "--resume",
            out.to_str().unwrap(),
            "--checkpoint-every",
            "0",
        ]
        .map(str::to_owned)
        .into()
    }

    #[track_caller]
    fn assert_same_results(&self, one: &str, other: &str) {
        for file in ["model.safetensors", "curve.csv", "curve.svg"] {
            let read = |run: &str| fs::read(self.path(run).join(file)).unwrap();
            assert!(read(one) == read(other), "{file} differs");
        }
        let drawn = |run: &str| {
            let text = fs::read_to_string(self.path(run).join("metrics.jsonl")).unwrap();
            let line = |line: &str| {
                let mut value: serde_json::Value = serde_json::from_str(line).unwrap();
                for time in ["seconds", "images_per_second", "data_wait_seconds"] {
                    value.as_object_mut().unwrap().remove(time);
                }
                value
            };
            text.lines().map(line).collect::<Vec<_>>()
        };
        assert_eq!(drawn(one), drawn(other));
    }
}

fn quietly(arguments: &[String]) -> Child {
    let mut command = command(arguments);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

fn signal(child: &Child, name: &str) {
    let id = child.id().to_string();
    assert!(
        Command::new("kill")
            .args([name, &id])
            .status()
            .unwrap()
            .success()
    );
}

fn wait_for(path: &Path) {
    let start = Instant::now();
    while !path.exists() {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "{} never came",
            path.display()
        );
        sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_run_killed_at_random_moments_ends_with_the_same_bytes() {
    let bench = Bench::new();
    let start = Instant::now();
    succeed(&bench.train("whole", &[]));
    let whole = start.elapsed();

    let mut child = quietly(&bench.train("killed", &[]));
    wait_for(&bench.path("killed/checkpoint.safetensors"));
    // Moments that differ from one execution of the test to the next.
    let mut seed = u64::from(std::process::id()) ^ start.elapsed().as_nanos() as u64;
    let mut kills = 0;
    for _ in 0..8 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        sleep(whole.mul_f64((seed >> 40) as f64 / (1 << 24) as f64 / 3.0));
        let ended = child.try_wait().unwrap().is_some();
        if !ended {
            child.kill().unwrap();
            kills += 1;
        }
        child.wait().unwrap();
        child = quietly(&bench.resume("killed"));
    }
    assert!(child.wait().unwrap().success());
    assert!(kills > 0, "no kill came in time");
    bench.assert_same_results("whole", "killed");
}

#[cfg(unix)]
#[test]
fn ctrl_c_leaves_a_checkpoint_and_says_how_to_go_on() {
    let bench = Bench::new();
    let arguments = bench.train_epochs("1000", "stopped", &[]);
    for name in ["-INT", "-TERM"] {
        let arguments = if name == "-INT" {
            arguments.clone()
        } else {
            bench.resume("stopped")
        };
        let child = command(&arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        wait_for(&bench.path("stopped/checkpoint.safetensors"));
        sleep(Duration::from_millis(200));
        signal(&child, name);
        let output = child.wait_with_output().unwrap();
        let errors = stderr(&output);
        assert_eq!(output.status.code(), Some(130), "{errors}");
        assert!(errors.contains("error: interrupted after step"), "{errors}");
        assert!(errors.contains("train --resume"), "{errors}");
        assert!(!bench.path("stopped/model.safetensors").exists());
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let bench = Bench::new();
    succeed(&bench.train("one", &["--threads", "1"]));
    succeed(&bench.train("three", &["--threads", "3"]));
    bench.assert_same_results("one", "three");
}

#[test]
fn a_run_is_not_overwritten_by_accident() {
    let bench = Bench::new();
    let short = |more: &[&str]| bench.train_epochs("1", "run", more);
    succeed(&short(&[]));
    fail(2, &["already holds a run"], &short(&[]));
    succeed(&short(&["--overwrite"]));
    let out = bench.path("run");
    let out = out.to_str().unwrap();
    fail(
        2,
        &["cannot be used with"],
        &["train", "--resume", out, "--epochs", "3"],
    );
    fail(
        2,
        &["holds no run"],
        &["train", "--resume", bench.path("none").to_str().unwrap()],
    );
}

#[test]
fn a_damaged_checkpoint_is_refused() {
    let bench = Bench::new();
    let out = bench.path("run");
    succeed(&bench.train("run", &[]));
    let path = out.join("checkpoint.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let hint = "hint: restore the file from a backup";
    fail(
        4,
        &[
            "checkpoint.safetensors' is damaged",
            "checksum",
            hint,
            "--out",
        ],
        &bench.resume("run"),
    );
    let file = fs::File::options().write(true).open(&path).unwrap();
    for (length, problem) in [(40_000, "truncated"), (100, "truncated"), (0, "is empty")] {
        file.set_len(length).unwrap();
        let words = ["checkpoint.safetensors' is damaged", problem, hint];
        fail(4, &words, &bench.resume("run"));
    }
}

#[test]
fn a_file_of_a_run_is_answered_with_its_folder() {
    let bench = Bench::new();
    succeed(&bench.train_epochs("1", "run", &[]));
    let run_folder = bench.path("run");
    let named = format!("--resume {}", run_folder.display());
    fs::create_dir(bench.path("run/onnx")).unwrap();
    for (inside, what) in [
        ("checkpoint.safetensors", "is a file"),
        ("model.safetensors", "is a file"),
        ("metrics.jsonl", "is a file"),
        ("onnx", "is a folder inside a run"),
        ("last.safetensors", "does not exist"),
    ] {
        let path = run_folder.join(inside);
        let shown = format!("'{}' {what}", path.display());
        let words = [&shown, "needs the folder of a run", &named];
        fail(2, &words, &["train", "--resume", path.to_str().unwrap()]);
    }
    let output = command(&["train", "--resume", "checkpoint.safetensors"])
        .current_dir(&run_folder)
        .output()
        .unwrap();
    let errors = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains("--resume ."), "{errors}");
    #[cfg(unix)]
    {
        let link = bench.path("link");
        std::os::unix::fs::symlink(run_folder.join("model.safetensors"), &link).unwrap();
        let link = link.to_str().unwrap();
        fail(2, &["is a file", "/run"], &["train", "--resume", link]);
    }
    #[cfg(unix)]
    {
        let pipe = bench.path("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        for (path, what) in [
            (pipe.to_str().unwrap(), "is a named pipe"),
            ("/dev/null", "is a device"),
        ] {
            let words = [what, "needs the folder of a run"];
            fail(2, &words, &["train", "--resume", path]);
        }
    }
    // A model by the name of a checkpoint.
    let other = bench.path("other");
    fs::create_dir(&other).unwrap();
    fs::copy(
        bench.path("run/model.safetensors"),
        other.join("checkpoint.safetensors"),
    )
    .unwrap();
    let words = ["is a model, not the state of a run", "--init"];
    fail(4, &words, &bench.resume("other"));
    let alone = bench.path("photos/train/lying/0.png");
    let words = ["0.png' is a file", "has a checkpoint.safetensors"];
    fail(2, &words, &["train", "--resume", alone.to_str().unwrap()]);
}

/// --accept-changed-data is suggested only where it lets the run continue.
#[test]
fn other_numbers_of_images_cannot_be_accepted() {
    let bench = Bench::new();
    let out = bench.path("run");
    succeed(&bench.train_epochs("1", "run", &[]));
    let resume = ["train", "--resume", out.to_str().unwrap()];
    let accepted = [&resume[..], &["--accept-changed-data"]].concat();
    let image = bench.path("photos/train/lying/0.png");
    let moved = bench.path("photos/test/lying/more.png");
    fs::rename(&image, &moved).unwrap();
    for arguments in [&resume[..], &accepted] {
        let words = ["39 training images, but had 40", "restore them"];
        let errors = fail(3, &words, arguments);
        assert!(!errors.contains("accept"), "{errors}");
    }
    // The test images may be more or fewer.
    fs::copy(&moved, &image).unwrap();
    fail(3, &["the test images", "--accept-changed-data"], &resume);
    succeed(&accepted);
    // The same number in all, but the classes of those held out differ.
    for number in 1..20 {
        let name = |class: &str| bench.path(&format!("photos/train/{class}/{number}.png"));
        let to = name("standing").with_file_name(format!("moved{number}.png"));
        fs::rename(name("lying"), to).unwrap();
    }
    let errors = fail(3, &[], &resume);
    let works = run(&accepted).status.success();
    assert_eq!(errors.contains("--accept-changed-data"), works, "{errors}");
}

#[test]
fn data_that_changed_is_refused() {
    let bench = Bench::new();
    succeed(&bench.train("run", &["--train-images", "32"]));
    let resume = bench.resume("run");
    succeed(&resume);
    fs::remove_file(bench.path("photos/train/lying/0.png")).unwrap();
    fs::remove_dir_all(bench.path("photos/train/standing")).unwrap();
    fs::remove_dir_all(bench.path("photos/test/standing")).unwrap();
    fail(3, &["`lying` is the only class"], &resume);
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run_with_advice() {
    let bench = Bench::new();
    fail(
        6,
        &["finite", "lower learning rate"],
        &bench.train("run", &["--rate", "1e30"]),
    );
    assert!(bench.path("run/checkpoint.safetensors").exists());
    assert!(!bench.path("run/model.safetensors").exists());
}

/// A limit on the size of files stands in for a full disk: writing fails in
/// the middle of a file in the same way.
#[cfg(unix)]
#[test]
fn a_full_disk_leaves_older_files_whole() {
    let bench = Bench::new();
    succeed(&bench.train("run", &[]));
    let read = |file: &str| fs::read(bench.path("run").join(file)).unwrap();
    let (checkpoint, model) = (read("checkpoint.safetensors"), read("model.safetensors"));

    let limited = |arguments: &[String]| {
        let limit = "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\"";
        Command::new("sh")
            .args(["-c", limit, env!("CARGO_BIN_EXE_sdpoint")])
            .args(arguments)
            .output()
            .unwrap()
    };
    let output = limited(&bench.train("full", &[]));
    let errors = stderr(&output);
    assert_eq!(output.status.code(), Some(7), "{errors}");
    assert!(errors.contains("checkpoint.safetensors"), "{errors}");
    assert!(errors.contains("free some space"), "{errors}");
    let left: Vec<_> = fs::read_dir(bench.path("full")).unwrap().collect();
    let whole = |entry: &std::io::Result<fs::DirEntry>| {
        entry.as_ref().unwrap().metadata().unwrap().len() == 0
    };
    assert!(left.iter().all(whole), "{left:?}");

    let data = format!("folder:{}", bench.path("photos").display());
    let model_path = bench.path("run/model.safetensors");
    let model_path = model_path.to_str().unwrap();
    let arguments = ["calibrate", model_path, "--data", &data].map(str::to_owned);
    let output = limited(&arguments);
    assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));
    assert!(read("model.safetensors") == model && read("checkpoint.safetensors") == checkpoint);
    assert!(run(&["instances", model_path]).status.success());
}
