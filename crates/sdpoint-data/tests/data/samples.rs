//! WebDataset: which member of a sample is its image, and which its class.

use std::path::Path;

use sdpoint_data::{DataError, Dataset, OpenOptions, Source, Split, open};
use tempfile::TempDir;

use crate::common::{BLUE, RED, check, gzip, jpeg, tar, write};

fn options(image_key: Option<&str>, label_key: Option<&str>) -> OpenOptions {
    let mut options = OpenOptions::default();
    options.image_key = image_key.map(str::to_owned);
    options.label_key = label_key.map(str::to_owned);
    options
}

fn shard(
    members: &[(&str, &[u8])],
    compressed: bool,
    options: &OpenOptions,
) -> Result<Dataset, DataError> {
    let folder = TempDir::new().unwrap();
    let archive = tar(members);
    let (name, archive) = match compressed {
        true => ("train-0.tar.gz", gzip(&archive)),
        false => ("train-0.tar", archive),
    };
    write(folder.path(), name, archive);
    // A plain archive is read again for each image.
    let folder = folder.keep();
    let source = Source::Tar(vec![Path::new(&folder).join(name)]);
    open(&source, Split::Train, options)
}

fn of(members: &[(&str, &[u8])], options: &OpenOptions) -> Dataset {
    let packed = shard(members, true, options).unwrap();
    let plain = shard(members, false, options).unwrap();
    assert_eq!(packed.len(), plain.len());
    packed
}

fn refused(members: &[(&str, &[u8])], options: &OpenOptions) -> String {
    shard(members, false, options).unwrap_err().to_string()
}

#[test]
fn a_sample_has_one_image() {
    let (red, blue) = (jpeg(8, 8, RED), jpeg(8, 8, BLUE));
    let members: [(&str, &[u8]); 8] = [
        ("0.jpg", &red),
        ("0.seg.png", &blue),
        ("0.thumb.jpg", &blue),
        ("0.cls", b"0"),
        ("1.cls", b"1"),
        ("1.thumb.jpg", &blue),
        ("1.jpeg", &red),
        ("1.json", b"{}"),
    ];
    let train = of(&members, &options(None, None));
    check(&train, &[("0", RED), ("1", RED)]);
    let kinds = &train.left_out().in_samples;
    assert_eq!(
        (kinds["seg.png"], kinds["thumb.jpg"], kinds["json"]),
        (1, 2, 1)
    );

    let train = of(&members, &options(Some("thumb.jpg"), None));
    check(&train, &[("0", BLUE), ("1", BLUE)]);
}

#[test]
fn two_images_that_could_be_meant_are_an_error_that_says_how() {
    let (red, blue) = (jpeg(8, 8, RED), jpeg(8, 8, BLUE));
    let two: [(&str, &[u8]); 5] = [
        ("a/0.left.jpg", &red),
        ("a/0.right.jpg", &blue),
        ("a/0.cls", b"0"),
        ("a/1.cls", b"1"),
        ("a/1.right.jpg", &blue),
    ];
    let text = refused(&two, &options(None, None));
    for part in [
        "a/0.left.jpg",
        "`left.jpg`, `right.jpg`",
        "--image-key left.jpg",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let train = of(&two, &options(Some("right.jpg"), None));
    check(&train, &[("0", BLUE), ("1", BLUE)]);

    let plain: [(&str, &[u8]); 3] = [("0.jpg", &red), ("0.png", &blue), ("0.cls", b"0")];
    assert!(refused(&plain, &options(None, None)).contains("`jpg`, `png`"));
}

#[test]
fn keys_may_have_dots() {
    let (red, blue) = (jpeg(8, 8, RED), jpeg(8, 8, BLUE));
    let members: [(&str, &[u8]); 8] = [
        ("v1.5/img.001.jpg", &red),
        ("v1.5/img.001.cls", b"rose"),
        ("v1.5/img.002.jpg", &blue),
        ("v1.5/img.002.cls.txt", b"iris\n"),
        ("v1.5/img.jpg", &red),
        ("v1.5/img.cls", b"rose"),
        ("v1.5/img.002.mask.png", &red),
        ("v1.5/img.001.txt", b"a rose"),
    ];
    let train = of(&members, &options(None, None));
    check(&train, &[("rose", RED), ("iris", BLUE), ("rose", RED)]);
}

#[test]
fn names_may_end_in_upper_case() {
    let (red, blue) = (jpeg(8, 8, RED), jpeg(8, 8, BLUE));
    let members: [(&str, &[u8]); 8] = [
        ("IMG_1.JPG", &red),
        ("IMG_1.CLS", b"0"),
        ("IMG_2.Jpeg", &blue),
        ("IMG_2.Cls.TXT", b"1"),
        ("IMG_3.CLS", b"1"),
        ("IMG_3.Png", &blue),
        ("IMG_3.JSON", b"{}"),
        ("IMG_3.SEG.PNG", &red),
    ];
    let train = of(&members, &options(None, None));
    check(&train, &[("0", RED), ("1", BLUE), ("1", BLUE)]);
    let by_key: [(&str, &[u8]); 5] = [
        ("a.JPG", &red),
        ("a.CLS", b"0"),
        ("b.Jpg", &blue),
        ("b.png", &red),
        ("b.cls", b"1"),
    ];
    let train = of(&by_key, &options(Some("jpg"), None));
    check(&train, &[("0", RED), ("1", BLUE)]);

    let labelled: [(&str, &[u8]); 4] = [
        ("a.JPG", &red),
        ("a.JSON", br#"{"label": "rose"}"#),
        ("b.jpg", &blue),
        ("b.Json", br#"{"label": "iris"}"#),
    ];
    let train = of(&labelled, &options(None, Some("label")));
    check(&train, &[("rose", RED), ("iris", BLUE)]);
    let text = refused(&labelled, &options(None, None));
    assert!(text.contains("--label-key NAME, of `label`"), "{text}");
    // Of one key, in either case, only one member may hold the class.
    let twice = [&members[..2], &[("IMG_1.cls", &b"0"[..])]].concat();
    let text = refused(&twice, &options(None, None));
    assert!(text.contains("holds a class of the same sample"), "{text}");
}

#[test]
fn keys_that_come_twice_are_refused_and_corrections_are_not() {
    let (red, blue) = (jpeg(8, 8, RED), jpeg(8, 8, BLUE));
    let sample: [(&str, &[u8]); 4] = [
        ("0.jpg", &red),
        ("0.cls", b"0"),
        ("1.jpg", &blue),
        ("1.cls", b"1"),
    ];
    let twice = [&sample[..], &[("0.jpg", &blue), ("0.cls", b"1")]].concat();
    let text = refused(&twice, &options(None, None));
    assert!(text.contains("two samples of the key `0`"), "{text}");

    let corrected = [&sample[..], &[("0.cls", b"7")]].concat();
    let train = of(&corrected, &options(None, None));
    check(&train, &[("7", RED), ("1", BLUE)]);

    let two = [&sample[..], &[("0.cls.txt", b"7")]].concat();
    let text = refused(&two, &options(None, None));
    assert!(text.contains("holds a class of the same sample"), "{text}");
}

#[test]
fn classes_in_json_members_are_read_by_their_key() {
    let (red, blue) = (jpeg(8, 8, RED), jpeg(8, 8, BLUE));
    let members: [(&str, &[u8]); 4] = [
        ("a.0.jpg", &red),
        ("a.0.json", br#"{"label": 10, "note": {"kind": "rose"}}"#),
        ("a.1.jpg", &blue),
        ("a.1.json", br#"{"label": 9, "note": {"kind": "iris"}}"#),
    ];
    let train = of(&members, &options(None, Some("label")));
    assert_eq!(train.classes(), ["9", "10"]);
    check(&train, &[("10", RED), ("9", BLUE)]);
    let train = of(&members, &options(None, Some("note.kind")));
    check(&train, &[("rose", RED), ("iris", BLUE)]);

    let text = refused(&members, &options(None, None));
    assert!(
        text.contains("--label-key NAME, of `label`, `note`"),
        "{text}"
    );
    let text = refused(&members, &options(None, Some("class")));
    assert!(
        text.contains("no key `class` but `label`, `note`"),
        "{text}"
    );
    let text = refused(&members, &options(None, Some("note")));
    assert!(text.contains("`note` is no class"), "{text}");
    let broken: [(&str, &[u8]); 2] = [("0.jpg", &red), ("0.json", b"{")];
    let text = refused(&broken, &options(None, Some("label")));
    assert!(text.contains("0.json: it is not sound JSON"), "{text}");
}

#[test]
fn a_class_without_an_image_is_counted() {
    let red = jpeg(8, 8, RED);
    let members: [(&str, &[u8]); 6] = [
        ("0.jpg", &red),
        ("0.cls", b"0"),
        ("1.jpg", &red),
        ("1.cls", b"1"),
        ("2.cls", b"1"),
        ("2.txt", b"lost"),
    ];
    let train = of(&members, &options(None, None));
    assert_eq!(train.len(), 2);
    assert_eq!(train.left_out().without_image.number, 1);
}

#[test]
fn options_of_samples_are_refused_for_class_folders() {
    let (red, blue) = (jpeg(8, 8, RED), jpeg(8, 8, BLUE));
    let folders: [(&str, &[u8]); 2] = [("train/a/0.jpg", &red), ("train/b/0.jpg", &blue)];
    for options in [options(Some("jpg"), None), options(None, Some("label"))] {
        let text = refused(&folders, &options);
        assert!(
            text.contains("WebDataset") && text.contains("class folders"),
            "{text}"
        );
    }
    let folder = Source::Folder("there".into());
    let error = open(&folder, Split::Train, &options(Some("jpg"), None)).unwrap_err();
    assert!(
        error.to_string().contains("not for folder:there"),
        "{error}"
    );
}

#[test]
fn all_files_of_an_archive_without_the_split_are_counted() {
    let names: Vec<String> = (0..80).map(|number| format!("{number:02}.txt")).collect();
    let members: Vec<(&str, &[u8])> = names.iter().map(|name| (&name[..], &b""[..])).collect();
    let folder = TempDir::new().unwrap();
    write(folder.path(), "data.tar", tar(&members));
    let source = Source::Tar(vec![folder.path().join("data.tar")]);
    let error = open(&source, Split::Train, &options(None, None)).unwrap_err();
    assert!(error.to_string().contains("and 75 more"), "{error}");
}
