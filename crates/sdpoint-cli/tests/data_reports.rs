//! What commands say about data that may not be what was meant.

mod common;

use std::fs;
use std::path::Path;

use common::{fail, json, photos, png, run, stderr, stdout, trained};
use sdpoint::Model;
use tempfile::TempDir;

/// The trained model with other names for its classes.
fn with_classes(folder: &TempDir, classes: &[&str]) -> String {
    let mut model = Model::load(trained().model()).unwrap();
    model.classes = classes.iter().map(|&class| class.to_owned()).collect();
    let path = folder.path().join("renamed.safetensors");
    model.save(&path).unwrap();
    path.to_str().unwrap().to_owned()
}

/// What the command prints to standard output and error, if it succeeds.
#[track_caller]
fn printed(arguments: &[&str]) -> (String, String) {
    let output = run(arguments);
    assert!(output.status.success(), "{}", stderr(&output));
    (stdout(&output).to_owned(), stderr(&output).to_owned())
}

fn source(root: &Path) -> String {
    format!("folder:{}", root.display())
}

/// Images of classes, each folder with those of one kind.
fn classes(root: &Path, names: &[&str]) {
    for split in ["train", "test"] {
        for (number, name) in names.iter().enumerate() {
            let folder = root.join(split).join(name);
            fs::create_dir_all(&folder).unwrap();
            let kind = ["lying", "standing"][number % 2];
            for image in 0..3 {
                png(&folder.join(format!("{image}.png")), kind, image);
            }
        }
    }
}

fn train<'a>(data: &'a str, out: &'a str) -> Vec<&'a str> {
    let mut arguments = vec!["train", "--data", data, "--network", "preresnet8"];
    arguments.extend(["--epochs", "1", "--batch", "8", "--out", out]);
    arguments
}

#[test]
fn classes_taken_by_their_order_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let model = with_classes(&folder, &["0", "1"]);
    let data = trained().data();
    let evaluate = ["evaluate", &model, "--data", &data];
    let (text, errors) = printed(&evaluate);
    for said in [&text, &errors] {
        assert!(said.contains("0 is `lying`, 1 is `standing`"), "{said}");
    }
    let by_deadline = ["--deadline", "10s"];
    let (text, _) = printed(&[&evaluate[..], &by_deadline].concat());
    assert!(
        text.contains("Warning: The model's classes are only numbers"),
        "{text}"
    );
    for more in [&[][..], &by_deadline] {
        let how = |model: &str| {
            let rows = json(&[&["evaluate", model, "--data", &data, "--json"], more].concat());
            rows[0]["classes"].as_str().unwrap().to_owned()
        };
        assert_eq!(how(&model), "order");
        assert_eq!(how(&trained().model()), "names");
    }
}

/// Folders are sorted as text.
#[test]
fn numbers_in_another_order_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("data");
    let names: Vec<String> = (0..11).map(|number| number.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    classes(&root, &names);
    let (data, out) = (source(&root), folder.path().join("run"));
    printed(&train(&data, out.to_str().unwrap()));
    let path = out.join("model.safetensors");
    let mut model = Model::load(&path).unwrap();
    assert_eq!(model.classes[2], "10");
    model.classes = names.iter().map(|&name| name.to_owned()).collect();
    model.save(&path).unwrap();
    fail(
        3,
        &["one is `2` in the model but `10` in the data", "--classes"],
        &["evaluate", path.to_str().unwrap(), "--data", &data],
    );
}

#[test]
fn classes_that_look_the_same_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("data");
    classes(&root, &["caf\u{e9}", "cafe\u{301}", "tea"]);
    let (data, out) = (source(&root), folder.path().join("run"));
    let (_, errors) = printed(&train(&data, out.to_str().unwrap()));
    let said = errors.lines().filter(|line| line.contains("look the same"));
    let said: Vec<&str> = said.collect();
    assert_eq!(said.len(), 1, "{errors}");
    for form in [r"(caf\u{e9})", r"(cafe\u{301})"] {
        assert!(said[0].contains(form), "{errors}");
    }
    let model = out.join("model.safetensors");
    let model = model.to_str().unwrap();
    let image = root.join("test/tea/0.png");
    let (text, _) = printed(&["predict", model, image.to_str().unwrap(), "--top", "3"]);
    for form in [r"(caf\u{e9})", r"(cafe\u{301})", "  tea"] {
        assert!(text.contains(form), "{text}");
    }
    let (_, errors) = printed(&["evaluate", model, "--data", &data]);
    assert!(errors.contains("look the same"), "{errors}");
}

/// Writes a grey image of this size.
fn grey(path: &Path, width: u32, height: u32) {
    let mut encoder = png::Encoder::new(fs::File::create(path).unwrap(), width, height);
    encoder.set_color(png::ColorType::Grayscale);
    let mut writer = encoder.write_header().unwrap();
    let pixels = vec![99; (width * height) as usize];
    writer.write_image_data(&pixels).unwrap();
    writer.finish().unwrap();
}

#[test]
fn test_images_of_another_size_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("data");
    photos(&root);
    let data = source(&root);
    let (_, errors) = printed(&["evaluate", &trained().model(), "--data", &data]);
    assert!(!errors.contains("aspect ratio"), "{errors}");
    for entry in fs::read_dir(root.join("test/lying")).unwrap() {
        let name = entry.unwrap().file_name();
        for class in ["lying", "standing"] {
            grey(&root.join("test").join(class).join(&name), 300, 200);
        }
    }
    let out = folder.path().join("run");
    let (_, errors) = printed(&train(&data, out.to_str().unwrap()));
    let expected = "the test images is 200x300 pixels, but all images are resized to 16x16 pixels";
    assert!(errors.contains(expected), "{errors}");
    let (_, errors) = printed(&["evaluate", &trained().model(), "--data", &data]);
    let expected = "images are 200x300 pixels: they are resized to 16, the input of the model";
    assert!(errors.contains(expected), "{errors}");
}

#[test]
fn folders_inside_class_folders_are_reported_for_each_split() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("data");
    photos(&root);
    for split in ["train", "test"] {
        for class in ["lying", "standing"] {
            let class = root.join(split).join(class);
            let aside = root.join("aside");
            fs::rename(&class, &aside).unwrap();
            fs::create_dir(&class).unwrap();
            fs::rename(&aside, class.join("inner")).unwrap();
        }
    }
    let (data, out) = (source(&root), folder.path().join("run"));
    let (_, errors) = printed(&train(&data, out.to_str().unwrap()));
    for split in ["train", "test"] {
        let expected = format!("In the {split} split: all images are in folders inside");
        assert_eq!(errors.matches(&expected).count(), 1, "{errors}");
    }
}

#[test]
fn too_many_unreadable_test_images_end_a_run_before_it_begins() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("data");
    photos(&root);
    for (class, number) in [("lying", 9), ("standing", 9), ("standing", 8)] {
        fs::write(root.join(format!("test/{class}/{number}.png")), "no image").unwrap();
    }
    let (data, out) = (source(&root), folder.path().join("run"));
    let out_text = out.to_str().unwrap();
    let mut arguments = train(&data, out_text);
    arguments.extend(["--skip-unreadable", "2"]);
    let errors = fail(3, &["3 unreadable images"], &arguments);
    assert!(!errors.contains("epoch  "), "{errors}");
    assert!(!out.join("checkpoint.safetensors").exists());
    printed(&[&arguments[..arguments.len() - 1], &["3"]].concat());
}

#[test]
fn a_file_in_the_way_is_not_called_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("curve.csv"), "my,own\n").unwrap();
    let data = trained().data();
    let errors = fail(
        2,
        &["has a file curve.csv, which the run would replace", "--out"],
        &train(&data, out.to_str().unwrap()),
    );
    assert!(!errors.contains("resume"), "{errors}");
    assert_eq!(fs::read(out.join("curve.csv")).unwrap(), b"my,own\n");
}

#[test]
fn a_resumed_run_says_where_its_images_are_looked_for() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    photos(&at("photos"));
    let (data, out) = (source(&at("photos")), at("run"));
    let out = out.to_str().unwrap();
    printed(&train(&data, out));
    fs::rename(at("photos"), at("moved")).unwrap();
    fail(
        7,
        &["No such file", &data, "--data"],
        &["train", "--resume", out],
    );
    let moved = source(&at("moved"));
    printed(&["train", "--resume", out, "--data", &moved]);

    // The same tree in an archive has another order.
    let mut builder = tar::Builder::new(fs::File::create(at("photos.tar")).unwrap());
    builder.append_dir_all(".", at("moved")).unwrap();
    builder.finish().unwrap();
    let packed = format!("tar:{}", at("photos.tar").display());
    let resume = ["train", "--resume", out, "--data", &packed];
    let errors = fail(3, &["began with folder:", "another order"], &resume);
    assert!(!errors.contains("replaced"), "{errors}");
    printed(&[&resume[..], &["--accept-changed-data"]].concat());
}

#[test]
fn a_source_without_a_path_is_named() {
    for (data, form) in [("tar:", "tar:PATH"), ("folder:", "folder:DIR")] {
        let expected = format!("`{data}` lacks a path: give {form}");
        fail(2, &[&expected], &["train", "--data", data]);
    }
}
