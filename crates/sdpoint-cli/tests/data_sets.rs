//! Data sets as they are found: unreadable images, what is left out, and
//! images that change while a run rests.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{command, fail, json, photos, png, run, stderr, succeed, trained};
use serde_json::Value;
use tempfile::TempDir;

/// A copy of the photos without some test images, each by its class and
/// number, in place of which there is something unreadable.
fn with_broken(broken: &[(&str, usize)]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    photos(root.path());
    for (class, number) in broken {
        let path = root.path().join(format!("test/{class}/{number}.png"));
        fs::write(path, "no image").unwrap();
    }
    root
}

fn source(root: &TempDir) -> String {
    format!("folder:{}", root.path().display())
}

/// The share of the readable test images that `predict` gets right.
fn counted_by_hand(model: &str, root: &TempDir, instance: &str) -> (f64, usize) {
    let (mut right, mut all) = (0, 0);
    for class in ["lying", "standing"] {
        let folder = root.path().join("test").join(class);
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if fs::read(&path).unwrap() == b"no image" {
                continue;
            }
            let image = path.to_str().unwrap();
            let rows = json(&["predict", model, image, "--instance", instance, "--json"]);
            right += usize::from(rows[0]["top"][0]["class"] == class);
            all += 1;
        }
    }
    (right as f64 / all as f64, all)
}

/// A model that is often wrong, so that an image more or less shows.
fn poor_model() -> &'static str {
    static MODEL: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    MODEL.get_or_init(|| {
        let t = trained();
        let out = t.argument("poor");
        succeed(&[
            "train",
            "--data",
            &t.data(),
            "--network",
            "preresnet8",
            "--epochs",
            "1",
            "--batch",
            "8",
            "--rate",
            "0.001",
            "--seed",
            "3",
            "--val-share",
            "0",
            "--out",
            &out,
        ]);
        format!("{out}/model.safetensors")
    })
}

#[test]
fn unreadable_test_images_are_left_out_of_every_count() {
    for model in [trained().model(), poor_model().to_owned()] {
        for broken in [
            &[("lying", 0)][..],
            &[("standing", 9)],
            &[("lying", 3), ("lying", 4), ("standing", 2)],
            &[
                ("lying", 0),
                ("lying", 1),
                ("lying", 2),
                ("lying", 5),
                ("standing", 9),
            ],
        ] {
            let root = with_broken(broken);
            let rows = json(&["evaluate", &model, "--data", &source(&root), "--json"]);
            for row in &rows {
                assert_eq!(row["images"], 20 - broken.len(), "{row}");
                assert_eq!(row["skipped"], broken.len(), "{row}");
            }
            let (top1, images) = counted_by_hand(&model, &root, "full");
            assert_eq!(images, 20 - broken.len());
            assert_eq!(rows[0]["instance"], "full");
            assert!(
                (rows[0]["top1"].as_f64().unwrap() - top1).abs() < 1e-9,
                "{broken:?}"
            );
        }
    }
    let root = with_broken(&[("lying", 0), ("standing", 9)]);
    let csv = root.path().join("curve.csv");
    let csv = csv.to_str().unwrap();
    let model = trained().model();
    let data = source(&root);
    let text = succeed(&["evaluate", &model, "--data", &data, "--csv", csv]);
    assert!(
        text.contains("Measured on 18 images (2 unreadable ones were skipped)"),
        "{text}"
    );
    let header = fs::read_to_string(csv).unwrap();
    let expected = "instance,point,ratio,macs,share,top1,top5,loss,val_top1,val_top5,val_loss\n";
    assert!(header.starts_with(expected), "{header}");

    let rows = json(&[
        "evaluate",
        &model,
        "--data",
        &source(&root),
        "--deadline",
        "10s",
        "--json",
    ]);
    assert_eq!(
        (&rows[0]["images"], &rows[0]["skipped"]),
        (&18.into(), &2.into())
    );
    let (top1, _) = counted_by_hand(&model, &root, "full");
    assert!((rows[0]["top1"].as_f64().unwrap() - top1).abs() < 1e-9);

    let out = root.path().join("combined.safetensors");
    let out = out.to_str().unwrap();
    let mut calibrate = vec!["calibrate", poor_model(), "--data", &data];
    calibrate.extend(["--cascade", "95%", "--ensemble", "300%", "-o", out]);
    let text = succeed(&calibrate);
    assert!(
        text.contains("one half of 18 test images (2 unreadable"),
        "{text}"
    );
}

#[test]
fn a_class_of_unreadable_images_ends_the_work_before_it_is_lost() {
    let broken: Vec<(&str, usize)> = (0..10).map(|number| ("lying", number)).collect();
    let root = with_broken(&broken);
    let expected = ["class `lying`", "test/lying/0.png", "none of the 10 images"];
    let model = trained().model();
    fail(
        3,
        &expected,
        &["evaluate", &model, "--data", &source(&root)],
    );
    let out = root.path().join("run");
    fail(
        3,
        &expected,
        &[
            "train",
            "--data",
            &source(&root),
            "--out",
            out.to_str().unwrap(),
        ],
    );
    assert!(!out.exists(), "nothing was trained");
}

#[test]
fn what_is_left_out_is_told_line_by_line() {
    let root = with_broken(&[]);
    let add = |path: &str| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x").unwrap();
    };
    add("test/lying/notes.txt");
    add("test/lying/.ipynb_checkpoints/0.png");
    add("test/loose.png");
    let output = run(&[
        "evaluate",
        &trained().model(),
        "--data",
        &source(&root),
        "--json",
    ]);
    assert!(output.status.success());
    let errors = stderr(&output);
    for line in [
        "Skipped in the test split: 1 file of other kinds: 1 .txt",
        "Skipped in the test split: 1 hidden file or folder: `lying/.ipynb_checkpoints`",
        "Skipped in the test split: 1 image outside the class folders: `loose.png`",
    ] {
        assert!(
            errors.lines().any(|l| l == line),
            "'{line}' is not in: {errors}"
        );
    }
    serde_json::from_slice::<Vec<Value>>(&output.stdout).expect("output is JSON alone");
}

fn short_run(data: &str, out: &Path, more: &[&str]) -> Vec<String> {
    let mut arguments = vec!["train", "--data", data, "--network", "preresnet8"];
    arguments.extend([
        "--epochs",
        "1",
        "--batch",
        "8",
        "--out",
        out.to_str().unwrap(),
    ]);
    arguments.extend(more);
    arguments.into_iter().map(str::to_owned).collect()
}

#[test]
fn images_that_changed_are_noticed_when_a_run_goes_on() {
    let first = with_broken(&[]);
    let out = first.path().join("run");
    succeed(&short_run(&source(&first), &out, &[]));
    let resume = |data: &TempDir, more: &[&str]| {
        let data = source(data);
        let mut arguments = vec!["train", "--resume", out.to_str().unwrap(), "--data", &data];
        arguments.extend(more);
        run(&arguments)
    };
    let moved = with_broken(&[]);
    assert!(
        resume(&moved, &[]).status.success(),
        "the same in another place"
    );

    type Change = fn(PathBuf);
    let changes: [(&str, Change); 4] = [
        ("test images", |root| {
            png(&root.join("test/lying/0.png"), "standing", 5)
        }),
        ("training images", |root| {
            fs::rename(
                root.join("train/lying/3.png"),
                root.join("train/lying/x.png"),
            )
            .unwrap();
        }),
        ("training images", |root| {
            let (a, b) = (
                root.join("train/lying/3.png"),
                root.join("train/standing/3.png"),
            );
            fs::rename(&a, root.join("t")).unwrap();
            fs::rename(&b, &a).unwrap();
            fs::rename(root.join("t"), &b).unwrap();
        }),
        ("training images", |root| {
            let (a, b) = (
                root.join("train/lying/3.png"),
                root.join("train/standing/x.png"),
            );
            fs::rename(&a, &b).unwrap();
        }),
    ];
    for (what, change) in changes {
        let other = with_broken(&[]);
        change(other.path().to_owned());
        let output = resume(&other, &[]);
        let errors = stderr(&output);
        assert_eq!(output.status.code(), Some(3), "{errors}");
        assert!(errors.contains(what), "{errors}");
        assert!(errors.contains("--accept-changed-data"), "{errors}");
        let output = resume(&other, &["--accept-changed-data"]);
        assert!(output.status.success(), "{}", stderr(&output));
        // What the run has from now on are the changed images.
        fs::remove_dir_all(&out).unwrap();
        succeed(&short_run(&source(&first), &out, &[]));
    }
    fail(2, &["--resume"], &["train", "--accept-changed-data"]);
}

#[test]
fn images_are_mirrored_unless_told_not_to() {
    let root = with_broken(&[]);
    let flip = |more: &[&str]| {
        let out = root.path().join("run");
        let mut more = more.to_vec();
        more.push("--overwrite");
        succeed(&short_run(&source(&root), &out, &more));
        let model = fs::read(out.join("model.safetensors")).unwrap();
        let text = String::from_utf8_lossy(&model);
        let found = |value: &str| text.contains(&format!(r#"\"flip\":{value}"#));
        assert!(found("true") != found("false"));
        found("true")
    };
    assert!(flip(&[]));
    assert!(!flip(&["--no-flip"]));
}

#[test]
fn mixed_sizes_are_told_with_the_one_that_is_taken() {
    let root = with_broken(&[]);
    let small = root.path().join("train/lying/0.png");
    let mut encoder = png::Encoder::new(fs::File::create(small).unwrap(), 12, 20);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&[7; 12 * 20 * 3]).unwrap();
    writer.finish().unwrap();
    let out = root.path().join("run");
    let output = run(&short_run(&source(&root), &out, &[]));
    let errors = stderr(&output);
    assert!(output.status.success(), "{errors}");
    assert!(
        errors.contains("images have several sizes") && errors.contains("all are resized to 16,"),
        "{errors}"
    );
}

/// Writes an image of one colour, of this height and width.
fn plain(path: &Path, [height, width]: [u32; 2]) {
    let mut encoder = png::Encoder::new(fs::File::create(path).unwrap(), width, height);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().unwrap();
    let pixels = vec![7; (height * width * 3) as usize];
    writer.write_image_data(&pixels).unwrap();
    writer.finish().unwrap();
}

#[test]
fn the_commonest_of_mixed_sizes_are_told() {
    // Of 40 training images.
    let with = |sizes: &[(usize, [u32; 2])]| {
        let root = with_broken(&[]);
        let mut numbers = 0..20;
        for &(count, size) in sizes {
            for number in numbers.by_ref().take(count) {
                for class in ["lying", "standing"] {
                    plain(
                        &root.path().join(format!("train/{class}/{number}.png")),
                        size,
                    );
                }
            }
        }
        root
    };
    let notes = |root: &TempDir, more: &[&str]| {
        let more = [&["--overwrite"], more].concat();
        let output = run(&short_run(&source(root), &root.path().join("run"), &more));
        let errors = stderr(&output).to_owned();
        assert!(output.status.success(), "{errors}");
        errors
    };
    let root = with(&[(6, [20, 12]), (3, [24, 24])]);
    let errors = notes(&root, &[]);
    for part in [
        "several sizes: 55% are 16x16, 30% 20x12, 15% 24x24;",
        "all are resized to 16, the most common one",
        "--input N or --input HxW",
    ] {
        assert!(errors.contains(part), "{part}: {errors}");
    }
    assert!(!notes(&root, &["--input", "20x12"]).contains("several sizes"));
    let many: Vec<_> = (0..12).map(|more| (1, [17 + more, 16])).collect();
    let errors = notes(&with(&many), &[]);
    assert!(errors.contains("40% are 16x16, 5% "), "{errors}");
    assert!(errors.contains(", 45% others;"), "{errors}");
    // As many images of 16x16 remain.
    let errors = notes(&with(&[(10, [20, 12])]), &[]);
    for part in [
        "The training images have several sizes",
        "2 of them are equally common; all are resized to 16, the largest of these",
    ] {
        assert!(errors.contains(part), "{part}: {errors}");
    }
    // Three in ten are too large for a set of small images.
    let root = with(&[(6, [80, 70])]);
    let out = root.path().join("run");
    let words = [
        "several sizes: 70% are 16x16, 30% 80x70. Only 70% are small",
        "an input of 224",
        "such as --input 32",
        "weight decay",
    ];
    // The run ends before it trains.
    fail(
        2,
        &words,
        &short_run(&source(&root), &out, &["--weight-decay=-1"]),
    );
}

#[cfg(unix)]
#[test]
fn a_pipe_among_images_holds_nothing_up() {
    let root = with_broken(&[]);
    let pipe = root.path().join("pipe.png");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let image = root.path().join("test/lying/0.png");
    let mut predict = command(&["predict", &trained().model(), "--json"]);
    let output = predict.arg(&pipe).arg(&image).output().unwrap();
    let errors = stderr(&output);
    assert_eq!(output.status.code(), Some(3), "{errors}");
    assert!(
        errors.contains("pipe.png' is a named pipe, not a file"),
        "{errors}"
    );
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(rows.len(), 1);
}

/// A shard of WebDataset with the photos, labelled by `.json` members, and
/// with a second image in each sample.
fn shard(folder: &Path, split: &str) {
    let mut builder =
        tar::Builder::new(fs::File::create(folder.join(format!("{split}-0.tar"))).unwrap());
    let photos = folder.join("photos");
    let mut add = |name: String, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, bytes).unwrap();
    };
    for class in ["lying", "standing"] {
        for number in 0..10 {
            let image = fs::read(photos.join(format!("{split}/{class}/{number}.png"))).unwrap();
            add(format!("v1.0/{class}.{number}.a.png"), &image);
            add(format!("v1.0/{class}.{number}.b.png"), &image);
            let label = format!(r#"{{"kind": "{class}"}}"#);
            add(format!("v1.0/{class}.{number}.json"), label.as_bytes());
        }
    }
    builder.finish().unwrap();
}

#[test]
fn samples_are_read_as_told_and_again_when_the_run_goes_on() {
    let root = tempfile::tempdir().unwrap();
    photos(&root.path().join("photos"));
    for split in ["train", "test"] {
        shard(root.path(), split);
    }
    let data = format!("tar:{}/*.tar", root.path().display());
    let out = root.path().join("run");
    fail(
        3,
        &["--label-key NAME, of `kind`"],
        &short_run(&data, &out, &[]),
    );
    let kind = ["--label-key", "kind"];
    fail(
        3,
        &["`a.png`, `b.png`", "--image-key"],
        &short_run(&data, &out, &kind),
    );
    let both = [&kind[..], &["--image-key", "b.png"]].concat();
    succeed(&short_run(&data, &out, &both));
    succeed(&["train", "--resume", out.to_str().unwrap()]);
}

#[test]
fn a_folder_that_was_not_meant_is_refused_with_the_one_that_was() {
    let root = tempfile::tempdir().unwrap();
    photos(&root.path().join("photos"));
    for path in ["", "photos/train", "photos/train/lying"] {
        let data = format!("folder:{}", root.path().join(path).display());
        fail(
            3,
            &["did you mean folder:", "photos?"],
            &["train", "--data", &data],
        );
    }
    let zip = root.path().join("photos.zip");
    fs::write(&zip, b"PK\x03\x04").unwrap();
    let data = format!("tar:{}", zip.display());
    fail(
        3,
        &["a ZIP archive", "folder:DIR"],
        &["train", "--data", &data],
    );
}
