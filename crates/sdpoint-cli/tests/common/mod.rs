//! The command `sdpoint` as a process, and small data for it.

// Each test file uses a part of this.
#![allow(dead_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

/// The command with these arguments.
pub fn command<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sdpoint"));
    command.args(arguments);
    command
}

/// Runs the command to its end.
pub fn run<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Output {
    command(arguments).output().expect("the command starts")
}

pub fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).expect("output is text")
}

pub fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).expect("output is text")
}

/// Runs the command, which must succeed, and returns its standard output.
#[track_caller]
pub fn succeed<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> String {
    let output = run(arguments);
    assert!(
        output.status.success(),
        "{:?}\n{}",
        output.status,
        stderr(&output)
    );
    stdout(&output).to_owned()
}

/// Runs the command, which must fail with this exit code and with an error
/// that contains all of these texts, and returns its standard error.
#[track_caller]
pub fn fail<S: AsRef<std::ffi::OsStr>>(code: i32, texts: &[&str], arguments: &[S]) -> String {
    let output = run(arguments);
    let errors = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{errors}");
    assert!(errors.contains("error: "), "{errors}");
    for text in texts {
        assert!(errors.contains(text), "'{text}' is not in: {errors}");
    }
    errors.to_owned()
}

/// Runs the command, which must print an array of JSON objects.
#[track_caller]
pub fn json<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Vec<Value> {
    serde_json::from_str(&succeed(arguments)).expect("the output is an array in JSON")
}

/// A file that an earlier version of the program has written; see
/// `fixtures/models/record.json`.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fixtures/models")
        .join(name)
}

/// Side of the images that the tests draw.
pub const SIDE: usize = 16;

/// Images of each class in the two splits of [`photos`].
pub const IMAGES: [(&str, usize); 2] = [("train", 20), ("test", 10)];

/// A folder with two classes of small images: stripes that lie and stripes
/// that stand.
pub fn photos(root: &Path) {
    for (split, count) in IMAGES {
        for class in ["lying", "standing"] {
            let folder = root.join(split).join(class);
            fs::create_dir_all(&folder).unwrap();
            for number in 0..count {
                png(&folder.join(format!("{number}.png")), class, number);
            }
        }
    }
}

/// Writes one image of [`photos`].
pub fn png(path: &Path, class: &str, number: usize) {
    let value = |x: usize, y: usize, channel: usize| {
        let along = if class == "lying" { y } else { x };
        let stripe = (along + number) / 2 % 2;
        (40 + 150 * stripe + 7 * (number % 5) + 3 * channel) as u8
    };
    let pixels: Vec<u8> = (0..SIDE * SIDE * 3)
        .map(|i| value(i / 3 % SIDE, i / 3 / SIDE, i % 3))
        .collect();
    let mut encoder = png::Encoder::new(fs::File::create(path).unwrap(), SIDE as u32, SIDE as u32);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&pixels).unwrap();
    writer.finish().unwrap();
}

/// A finished run on [`photos`].
pub struct Trained {
    folder: TempDir,
    /// What the training printed.
    pub text: String,
}

impl Trained {
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A path as an argument.
    pub fn argument(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub fn model(&self) -> String {
        self.argument("run/model.safetensors")
    }

    pub fn data(&self) -> String {
        format!("folder:{}", self.argument("photos"))
    }
}

/// Trains once for all tests of a file.
pub fn trained() -> &'static Trained {
    static TRAINED: OnceLock<Trained> = OnceLock::new();
    TRAINED.get_or_init(|| {
        let mut trained = Trained {
            folder: tempfile::tempdir().unwrap(),
            text: String::new(),
        };
        photos(&trained.path("photos"));
        trained.text = succeed(&[
            "train",
            "--data",
            &trained.data(),
            "--network",
            "preresnet8",
            "--epochs",
            "8",
            "--batch",
            "8",
            "--out",
            &trained.argument("run"),
        ]);
        trained
    })
}
