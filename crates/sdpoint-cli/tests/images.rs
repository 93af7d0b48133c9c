//! Image files of all kinds on the command line.

mod common;

use std::fs;
use std::path::Path;

use common::{fail, json, photos, run, stderr, succeed};
use tempfile::TempDir;

/// A folder of images, and a model that was trained on it for a moment.
fn trained(arguments: &[&str]) -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    photos(folder.path());
    let model = train(folder.path(), arguments);
    (folder, model)
}

fn train(root: &Path, more: &[&str]) -> String {
    let data = format!("folder:{}", root.display());
    let out = root.join("run").display().to_string();
    let mut arguments = vec!["train", "--data", &data, "--network", "preresnet8"];
    arguments.extend([
        "--epochs",
        "1",
        "--batch",
        "20",
        "--overwrite",
        "--out",
        &out,
    ]);
    arguments.extend(more);
    succeed(&arguments);
    out
}

/// The photo of a class, as another kind of file or with something done to it.
fn rewritten(root: &Path, name: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> String {
    let bytes = fs::read(root.join("test/lying/0.png")).unwrap();
    let path = root.join(name);
    fs::write(&path, change(bytes)).unwrap();
    path.display().to_string()
}

#[test]
fn files_that_are_no_readable_image_are_named_as_what_they_are() {
    let (folder, model) = trained(&[]);
    let root = folder.path();
    for (name, bytes, part) in [
        ("a.gif", &b"GIF89a\x01\0\x01\0"[..], "is a GIF image"),
        ("b.jpg", b"\0\0\0\x18ftypheic\0\0", "is a HEIC image"),
        ("c.jpg", b"<!DOCTYPE html><html>", "is an HTML page"),
        ("d.jpg", b"", "is empty"),
        (
            "e.jpg",
            b"\xff\xd8\xff\xe0\0\x10JFIF",
            "is a truncated JPEG image",
        ),
        (
            "f.png",
            b"\x89PNG\r\n\x1a\n\0\0",
            "is a truncated PNG image",
        ),
        (
            "g.webp",
            b"RIFF\xff\0\0\0WEBPVP8 ",
            "is a truncated WebP image",
        ),
    ] {
        let path = rewritten(root, name, |_| bytes.to_vec());
        let errors = fail(3, &[name, part], &["predict", &model, &path]);
        assert_eq!(errors.lines().filter(|line| line.is_empty()).count(), 0);
        assert!(
            !errors.contains("image 0") && !errors.contains("limit"),
            "{errors}"
        );
    }
}

/// A picture that is far longer than wide neither ends a run nor a prediction.
#[test]
fn oblong_images_are_trained_on_and_predicted() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    photos(root);
    let png = oblong(3000, 2);
    fs::write(root.join("train/lying/oblong.png"), &png).unwrap();
    fs::write(root.join("test/standing/oblong.png"), &png).unwrap();
    let data = format!("folder:{}", root.display());
    let out = root.join("run").display().to_string();
    let arguments = [
        "train",
        "--data",
        &data,
        "--network",
        "preresnet8",
        "--epochs",
        "1",
    ];
    let output = run(&[&arguments[..], &["--batch", "20", "--out", &out]].concat());
    let errors = stderr(&output);
    assert!(output.status.success(), "{errors}");
    assert!(!errors.contains("Skipped"), "{errors}");
    let image = root.join("test/standing/oblong.png").display().to_string();
    assert_eq!(json(&["predict", &out, &image, "--json"]).len(), 1);
}

fn oblong(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Grayscale);
    let data: Vec<u8> = (0..width * height).map(|i| i as u8).collect();
    encoder
        .write_header()
        .unwrap()
        .write_image_data(&data)
        .unwrap();
    bytes
}

/// The model says whether pictures are turned, and prediction follows it.
#[test]
fn exif_orientation_goes_into_the_model_and_is_followed() {
    let probabilities = |model: &str, image: &str| -> Vec<f64> {
        let rows = json(&[
            "predict",
            model,
            image,
            "--instance",
            "full",
            "--top",
            "2",
            "--json",
        ]);
        let guesses = rows[0]["top"].as_array().unwrap().clone();
        let mut guesses: Vec<_> = guesses
            .iter()
            .map(|g| (g["label"].as_u64(), g["probability"].as_f64().unwrap()))
            .collect();
        guesses.sort_by_key(|(label, _)| *label);
        guesses.into_iter().map(|(_, p)| p).collect()
    };
    for (option, turns) in [("ignore", false), ("apply", true)] {
        let (folder, model) = trained(&["--exif-orientation", option]);
        let header = fs::read(Path::new(&model).join("model.safetensors")).unwrap();
        let header = String::from_utf8_lossy(&header[..header.len().min(40_000)]).into_owned();
        assert_eq!(header.contains("exif_orientation"), turns);
        let plain = rewritten(folder.path(), "plain.png", |png| png);
        let noted = rewritten(folder.path(), "noted.png", |png| with_orientation(&png, 6));
        let same = probabilities(&model, &plain) == probabilities(&model, &noted);
        assert_eq!(same, !turns, "{option}");
    }
    fail(
        2,
        &["apply", "ignore"],
        &["train", "--exif-orientation", "maybe"],
    );
}

/// A PNG file with a note of how it is to be turned.
fn with_orientation(png: &[u8], number: u8) -> Vec<u8> {
    let mut chunk = b"eXIfMM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    chunk.extend([number, 0, 0]);
    let length = (chunk.len() as u32 - 4).to_be_bytes();
    let crc = crc32(&chunk).to_be_bytes();
    let header = 33;
    [&png[..header], &length, &chunk, &crc, &png[header..]].concat()
}

/// The checksum of a PNG chunk, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = !0;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ (0xedb8_8320 * (crc & 1));
        }
    }
    !crc
}
