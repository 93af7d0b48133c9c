//! Images in tar archives, plain and compressed, sound and hostile.

use std::fs;
use std::path::{Path, PathBuf};

use sdpoint_data::{DataError, Dataset, OpenOptions, Source, Split, open, open_pair};
use tempfile::TempDir;

use crate::common::{BLUE, RED, add, add_link, check, gzip, jpeg, tar};

fn written(folder: &TempDir, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    path
}

fn source(path: &Path) -> Source {
    Source::Tar(vec![path.to_owned()])
}

fn opened(path: &Path, split: Split) -> Result<Dataset, DataError> {
    open(&source(path), split, &OpenOptions::default())
}

fn message(path: &Path, split: Split) -> String {
    opened(path, split).unwrap_err().to_string()
}

#[test]
fn one_archive_may_hold_both_splits_plain_or_compressed() {
    let folder = TempDir::new().unwrap();
    let (red, blue) = (jpeg(8, 8, RED), jpeg(8, 8, BLUE));
    let long = format!("set/train/red/{}/long.jpg", "deep/".repeat(40));
    let archive = tar(&[
        ("set/", b""),
        ("set/train/", b""),
        ("set/train/red/", b""),
        (&long, &red),
        ("set/train/blue/1.jpg", &blue),
        ("set/train/blue/._1.jpg", b"a resource fork"),
        ("set/val/blue/1.jpg", &blue),
        ("set/val/red/1.JPG", &red),
        ("set/readme.txt", b"about the set"),
    ]);
    for (name, bytes) in [
        ("both.tar", archive.clone()),
        ("both.tar.gz", gzip(&archive)),
    ] {
        let path = written(&folder, name, bytes);
        let (train, test) = open_pair(&source(&path), &OpenOptions::default()).unwrap();
        check(&train, &[("red", RED), ("blue", BLUE)]);
        check(&test, &[("blue", BLUE), ("red", RED)]);
        assert_eq!(train.classes(), ["blue", "red"]);
        assert!(
            train
                .image_name(1)
                .ends_with(&format!("{name}: set/train/blue/1.jpg"))
        );
    }
}

#[test]
fn a_folder_or_list_of_archives_is_split_by_their_names() {
    let folder = TempDir::new().unwrap();
    let (red, blue) = (jpeg(8, 8, RED), jpeg(8, 8, BLUE));
    let a = written(
        &folder,
        "set-train.tar.gz",
        gzip(&tar(&[
            ("train/red/1.jpg", &red),
            ("train/blue/1.jpg", &blue),
        ])),
    );
    let b = written(
        &folder,
        "set-test.tar",
        tar(&[("red/1.jpg", &red), ("blue/1.jpg", &blue)]),
    );
    written(&folder, "notes.txt", "not an archive");
    for source in [source(folder.path()), Source::Tar(vec![a, b])] {
        let (train, test) = open_pair(&source, &OpenOptions::default()).unwrap();
        check(&train, &[("red", RED), ("blue", BLUE)]);
        check(&test, &[("red", RED), ("blue", BLUE)]);
    }
}

#[test]
fn webdataset_shards_give_classes_by_number_or_by_name() {
    let folder = TempDir::new().unwrap();
    let (red, blue) = (jpeg(8, 8, RED), jpeg(8, 8, BLUE));
    let first = tar(&[
        ("000000.cls", b"10\n"),
        ("000000.jpg", &red),
        ("000000.json", b"{}"),
        ("000001.jpg", &blue),
        ("000001.cls", b"9"),
    ]);
    written(&folder, "train-000000.tar", &first);
    written(&folder, "train-000001.tar.gz", gzip(&first));
    written(&folder, "val-000000.tar", &first);
    let (train, _) = open_pair(&source(folder.path()), &OpenOptions::default()).unwrap();
    assert_eq!(train.classes(), ["9", "10"], "numbers sort by value");
    check(
        &train,
        &[("10", RED), ("9", BLUE), ("10", RED), ("9", BLUE)],
    );

    let named = tar(&[
        ("a.jpg", &red),
        ("a.cls", b"rose"),
        ("b.jpg", &blue),
        ("b.cls", b"iris"),
    ]);
    let path = written(&folder, "named-train.tar", named);
    let train = opened(&path, Split::Train).unwrap();
    check(&train, &[("rose", RED), ("iris", BLUE)]);
}

#[test]
fn what_is_missing_is_named() {
    let folder = TempDir::new().unwrap();
    let red = jpeg(8, 8, RED);
    let path = written(
        &folder,
        "train-0.tar",
        tar(&[("a.jpg", &red), ("b.cls", b"1")]),
    );
    let text = message(&path, Split::Train);
    assert!(
        text.contains("train-0.tar/a.jpg: there is no `a.cls`"),
        "{text}"
    );

    let path = written(&folder, "train-1.tar", tar(&[("a.jpg", &red)]));
    let text = message(&path, Split::Train);
    assert!(
        text.contains("a .cls member for each image")
            && text.contains("1 image outside the class folders: `a.jpg`"),
        "{text}"
    );

    let path = written(
        &folder,
        "x.tar",
        tar(&[("cat/a.jpg", &red), ("notes.txt", b"")]),
    );
    let text = message(&path, Split::Train);
    assert!(
        text.contains("no train images") && text.contains("found `cat/a.jpg`"),
        "{text}"
    );

    let path = written(
        &folder,
        "train-2.tar",
        tar(&[("train/a/1.jpg", &red), ("train/b/", b"")]),
    );
    assert!(message(&path, Split::Train).contains("no JPEG, PNG or WebP image for class `b`"));
    assert!(message(&path, Split::Test).contains("train-2.tar"));

    let empty = TempDir::new().unwrap();
    assert!(message(empty.path(), Split::Train).contains("expected an archive"));
    assert!(message(&empty.path().join("no.tar"), Split::Train).contains("No such file"));
}

#[test]
fn broken_archives_are_refused() {
    let folder = TempDir::new().unwrap();
    let red = jpeg(64, 64, RED);
    let sound = tar(&[("train/a/1.jpg", &red)]);
    let cut = &sound[..sound.len() - 1024 - red.len() / 2 / 512 * 512 - 512];
    for (name, bytes) in [("cut.tar", cut.to_vec()), ("cut.tar.gz", gzip(cut))] {
        let path = written(&folder, name, bytes);
        let text = message(&path, Split::Train);
        let problem = "train/a/1.jpg: the archive is truncated";
        assert!(text.contains(problem), "{text}");
    }
    let packed = gzip(&sound);
    let path = written(&folder, "cut2.tar.gz", &packed[..packed.len() / 2]);
    assert!(message(&path, Split::Train).contains("compressed data ends too early"));
    let flipped = [&packed[..packed.len() - 8], &[1, 2, 3, 4, 0, 8, 0, 0]].concat();
    let path = written(&folder, "flipped.tar.gz", flipped);
    assert!(message(&path, Split::Train).contains("compressed data is invalid"));
    let path = written(&folder, "noise.tar", [0xfa; 2048]);
    assert!(message(&path, Split::Train).contains("it is not a tar archive"));
    let mut header = sound.clone();
    header[148] ^= 1;
    let path = written(&folder, "header.tar", &header);
    assert!(message(&path, Split::Train).contains("its first header is invalid"));
    let two = tar(&[("train/a/1.jpg", &red), ("train/b/1.jpg", &red)]);
    let second = 512 + red.len().next_multiple_of(512);
    let mut header = two.clone();
    header[second + 148] ^= 1;
    for (name, bytes) in [
        ("second.tar", header.clone()),
        ("second.tar.gz", gzip(&header)),
    ] {
        let text = message(&written(&folder, name, bytes), Split::Train);
        assert!(
            text.contains("what follows the member `train/a/1.jpg`"),
            "{text}"
        );
    }
    // Cut within a header, or within the blocks of the end.
    for end in [second + 100, 2 * second + 100] {
        let text = message(&written(&folder, "half.tar", &two[..end]), Split::Train);
        assert!(text.contains("it is truncated"), "{text}");
    }
}

#[test]
fn files_that_are_no_archives_are_named() {
    let folder = TempDir::new().unwrap();
    for (content, kind) in [
        (
            &b"name,class\n1.jpg,cat\n"[..],
            "it is a text file, not a tar",
        ),
        (b"<!doctype html><html>404", "it is an HTML page, not a tar"),
        (b"{\"error\": 404}", "it is a JSON document, not a tar"),
        (&jpeg(64, 64, RED), "it is a JPEG image, not a tar"),
        (b"\x93NUMPY\x01\0", "it is a NumPy array, not a tar"),
        (&gzip(b"only text"), "it is a gzip file of something else"),
        (b"", "it is empty"),
    ] {
        let text = message(&written(&folder, "x.tar", content), Split::Train);
        assert!(text.contains(kind), "{text}");
    }
}

/// GNU's old format, and its version 1.0 in attributes, where the data starts
/// with a map.
#[test]
fn sparse_members_are_named() {
    let folder = TempDir::new().unwrap();
    let red = jpeg(64, 64, RED);
    let mut old = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNUSparse);
    header.set_size(red.len() as u64);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.set_real_size(200_000);
    gnu.sparse[0].set_offset(0);
    gnu.sparse[0].set_length(red.len() as u64);
    gnu.sparse[1].set_offset(200_000);
    gnu.sparse[1].set_length(0);
    old.append_data(&mut header, "train/a/1.jpg", &red[..])
        .unwrap();

    let mut new = tar::Builder::new(Vec::new());
    let attributes = [
        ("GNU.sparse.major", &b"1"[..]),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"train/a/1.jpg"),
        ("GNU.sparse.realsize", b"200000"),
    ];
    new.append_pax_extensions(attributes).unwrap();
    let map = [format!("1\n0\n{}\n", red.len()).as_bytes(), &[0; 512]].concat();
    let content = [&map[..512], &red].concat();
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    new.append_data(&mut header, "train/a/GNUSparseFile.0/1.jpg", &content[..])
        .unwrap();

    for archive in [old.into_inner().unwrap(), new.into_inner().unwrap()] {
        for (name, bytes) in [("x.tar", archive.clone()), ("x.tar.gz", gzip(&archive))] {
            let text = message(&written(&folder, name, bytes), Split::Train);
            let expected = format!("{name}/train/a/1.jpg: it is stored as a sparse file");
            assert!(text.contains(&expected), "{text}");
        }
    }
}

/// A header may promise any size: memory is taken for what is there.
#[test]
fn sizes_that_headers_promise_are_checked() {
    let folder = TempDir::new().unwrap();
    for (size, expected) in [
        (1 << 40, "exceeds the limit"),
        (1 << 20, "ends within this member"),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_path("train/a/1.jpg").unwrap();
        header.set_size(size);
        header.set_mode(0o644);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend([7; 4096]);
        for (name, bytes) in [("big.tar", bytes.clone()), ("big.tar.gz", gzip(&bytes))] {
            let text = message(&written(&folder, name, bytes), Split::Train);
            assert!(text.contains(expected), "{name} {size}: {text}");
        }
    }
}

#[test]
fn a_decompression_bomb_stops_at_the_limit() {
    let folder = TempDir::new().unwrap();
    let zeros = vec![0; 8 << 20];
    for member in ["train/a/1.jpg", "train/a/1.bin"] {
        let bomb = gzip(&tar(&[(member, &zeros)]));
        assert!(bomb.len() < 100_000);
        let path = written(&folder, "bomb.tar.gz", bomb);
        let mut options = OpenOptions::default();
        options.archive_bytes = 1 << 20;
        let text = open(&source(&path), Split::Train, &options)
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("exceeds the limit of 1048576 bytes"),
            "{text}"
        );
        assert!(text.contains("a plain .tar is read in place"), "{text}");
    }
}

/// Paths are names only: nothing is ever written where they point, and none
/// that leads out of the archive is a class.
#[test]
fn paths_that_lead_elsewhere_are_counted() {
    let folder = TempDir::new().unwrap();
    let red = jpeg(8, 8, RED);
    let mut archive = tar(&[("train/a/xx/1.jpg", &red)]);
    let name = b"train/../../1.jpg";
    archive[..name.len()].copy_from_slice(name);
    archive[148..156].copy_from_slice(b"        ");
    let sum: u32 = archive[..512].iter().map(|&b| u32::from(b)).sum();
    archive[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    archive.truncate(archive.len() - 1024);
    archive.extend(tar(&[("train/a/1.jpg", &red), ("train/b/1.jpg", &red)]));
    let path = written(&folder, "x.tar", archive);
    let train = opened(&path, Split::Train).unwrap();
    check(&train, &[("a", RED), ("b", RED)]);
    let outside = &train.left_out().outside;
    assert_eq!(
        (outside.number, &*outside.example),
        (1, "train/../../1.jpg")
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

/// What `tar -r` and `tar -u` append counts in place of what was there.
#[test]
fn members_that_come_again_replace_the_earlier_ones() {
    let folder = TempDir::new().unwrap();
    let (red, blue) = (jpeg(8, 8, RED), jpeg(8, 8, BLUE));
    let archive = tar(&[
        ("train/a/1.jpg", &blue),
        ("./train/b/1.jpg", &blue),
        ("train/b/2.jpg", &red),
        ("./train/a/1.jpg", &red),
        ("train/b/1.jpg", &red),
    ]);
    for (name, bytes) in [("x.tar", archive.clone()), ("x.tar.gz", gzip(&archive))] {
        let train = opened(&written(&folder, name, bytes), Split::Train).unwrap();
        check(&train, &[("b", RED), ("a", RED), ("b", RED)]);
        assert_eq!(train.left_out().replaced.number, 2);
    }
}

#[test]
fn links_count_as_what_they_lead_to() {
    use tar::EntryType::{Link, Symlink};
    let folder = TempDir::new().unwrap();
    let (red, blue) = (jpeg(8, 8, RED), jpeg(8, 8, BLUE));
    let mut builder = tar::Builder::new(Vec::new());
    add(&mut builder, "pool/red.dat", &red);
    add(&mut builder, "pool/more/1.jpg", &blue);
    add(&mut builder, "train/a/1.jpg", &red);
    add_link(&mut builder, Link, "train/a/2.jpg", "pool/red.dat");
    add_link(
        &mut builder,
        Symlink,
        "train/b/1.jpg",
        "../../pool/more/1.jpg",
    );
    add_link(&mut builder, Symlink, "train/b/2.jpg", "1.jpg");
    add_link(&mut builder, Symlink, "train/c", "../pool/more");
    // A circle, one by way of another, what is missing, and what is outside.
    add_link(&mut builder, Symlink, "train/a/up", "..");
    add_link(&mut builder, Symlink, "train/a/x.jpg", "y.jpg");
    add_link(&mut builder, Symlink, "train/a/y.jpg", "x.jpg");
    add_link(&mut builder, Link, "train/a/z.jpg", "pool/gone.jpg");
    add_link(&mut builder, Symlink, "train/a/passwd.jpg", "/etc/passwd");
    add_link(
        &mut builder,
        Symlink,
        "train/a/above.jpg",
        "../../../above.jpg",
    );
    let archive = builder.into_inner().unwrap();
    for (name, bytes) in [("x.tar", archive.clone()), ("x.tar.gz", gzip(&archive))] {
        let train = opened(&written(&folder, name, bytes), Split::Train).unwrap();
        check(
            &train,
            &[
                ("c", BLUE),
                ("a", RED),
                ("a", RED),
                ("b", BLUE),
                ("b", BLUE),
            ],
        );
        let left_out = train.left_out();
        assert_eq!(left_out.broken_links.number, 3, "{left_out:?}");
        assert_eq!(left_out.outside.number, 2, "{left_out:?}");
        assert_eq!(left_out.repeated_folders.number, 1, "{left_out:?}");
    }
}

/// Paths made of links that are made of links: time must not double with each.
#[test]
fn links_of_links_end() {
    let folder = TempDir::new().unwrap();
    let red = jpeg(8, 8, RED);
    let mut builder = tar::Builder::new(Vec::new());
    add(&mut builder, "train/a/1.jpg", &red);
    add(&mut builder, "train/b/1.jpg", &red);
    add_link(&mut builder, tar::EntryType::Symlink, "train/l0", ".");
    for level in 1..40 {
        let target = format!("l{0}/l{0}/l{0}", level - 1);
        let path = format!("train/l{level}");
        add_link(&mut builder, tar::EntryType::Symlink, &path, &target);
    }
    let path = written(&folder, "x.tar", builder.into_inner().unwrap());
    check(
        &opened(&path, Split::Train).unwrap(),
        &[("a", RED), ("b", RED)],
    );
}

#[test]
fn an_archive_cut_between_members_is_noticed() {
    let folder = TempDir::new().unwrap();
    let red = jpeg(8, 8, RED);
    let whole = tar(&[
        ("train/a/1.jpg", &red),
        ("train/b/1.jpg", &red),
        ("train/b/2.jpg", &red),
    ]);
    let member = (whole.len() - 1024) / 3;
    for (end, sound) in [
        (whole.len(), true),
        // One block of zeros is what some programs leave.
        (whole.len() - 512, true),
        (whole.len() - 1024, false),
        (2 * member, false),
        (member + 512, false),
        (0, false),
    ] {
        let cut = &whole[..end];
        for (name, bytes) in [("x.tar", cut.to_vec()), ("x.tar.gz", gzip(cut))] {
            let found = opened(&written(&folder, name, bytes), Split::Train);
            match found {
                Ok(data) => assert!(sound && data.len() == 3, "{name} {end}"),
                Err(error) => {
                    let text = error.to_string();
                    assert!(
                        !sound && (text.contains("truncated") || text.contains("empty")),
                        "{end}: {text}"
                    );
                }
            }
        }
    }
    // Cut after the end of the archive, but within its checksum.
    let packed = gzip(&whole);
    let path = written(&folder, "y.tar.gz", &packed[..packed.len() - 4]);
    assert!(message(&path, Split::Train).contains("compressed data ends too early"));
    // Zeros after the end, as tapes have them.
    let padded = [&packed[..], &[0; 100]].concat();
    let path = written(&folder, "z.tar.gz", padded);
    assert_eq!(opened(&path, Split::Train).unwrap().len(), 3);
}

/// Programs that unpack read the first archive alone, without a word.
#[test]
fn data_after_the_end_of_an_archive_is_refused() {
    let folder = TempDir::new().unwrap();
    let (red, blue) = (jpeg(8, 8, RED), jpeg(8, 8, BLUE));
    let first = tar(&[("train/a/1.jpg", &red), ("train/b/1.jpg", &blue)]);
    let second = tar(&[("train/a/2.jpg", &red), ("train/b/2.jpg", &blue)]);
    let zeros = [0; 20_480];
    let after_end = "more data follows the end of the tar archive";
    let after_gzip = "other data follows the compressed archive";
    for (bytes, words) in [
        ([&first[..], &second].concat(), after_end),
        ([&first[..], &zeros, &second].concat(), after_end),
        ([&first[..], b"x"].concat(), after_end),
        (gzip(&[&first[..], &second].concat()), after_end),
        ([gzip(&first), gzip(&second)].concat(), after_end),
        ([gzip(&first), second.clone()].concat(), after_gzip),
        (
            [&gzip(&first), &zeros[..], &gzip(&second)].concat(),
            after_gzip,
        ),
        ([gzip(&first), b"x".to_vec()].concat(), after_gzip),
    ] {
        let text = message(&written(&folder, "x.tar", bytes), Split::Train);
        assert!(text.contains(words), "{text}");
    }
    // Padding, and one archive in several gzip streams, as pigz writes them.
    let (start, end) = first.split_at(1000);
    for bytes in [
        [&first[..], &zeros].concat(),
        gzip(&[&first[..], &zeros].concat()),
        [gzip(start), gzip(end)].concat(),
        [gzip(start), gzip(&[]), gzip(end)].concat(),
    ] {
        let path = written(&folder, "y.tar", bytes);
        assert_eq!(opened(&path, Split::Train).unwrap().len(), 2);
    }
}

/// A hard link is what its target was when the link was made.
#[test]
fn a_hard_link_keeps_what_was_replaced_later() {
    use tar::EntryType::{Link, Symlink};
    let folder = TempDir::new().unwrap();
    let (red, blue) = (jpeg(8, 8, RED), jpeg(8, 8, BLUE));
    let mut builder = tar::Builder::new(Vec::new());
    add(&mut builder, "train/a/1.jpg", &red);
    add_link(&mut builder, Link, "train/b/1.jpg", "train/a/1.jpg");
    add_link(&mut builder, Symlink, "train/b/2.jpg", "../a/1.jpg");
    // A link to a link, and through a linked folder, which is gone in the end.
    add_link(&mut builder, Link, "train/b/3.jpg", "train/b/1.jpg");
    add_link(&mut builder, Symlink, "other", "train/a");
    add_link(&mut builder, Link, "train/b/4.jpg", "other/1.jpg");
    // Of a symbolic link it is another symbolic link.
    add_link(&mut builder, Link, "train/a/2.jpg", "train/b/2.jpg");
    add(&mut builder, "other", b"a file now");
    add(&mut builder, "train/a/1.jpg", &blue);
    // Its target comes too late.
    add_link(&mut builder, Link, "train/b/5.jpg", "train/a/9.jpg");
    add(&mut builder, "train/a/9.jpg", &blue);
    let archive = builder.into_inner().unwrap();
    for (name, bytes) in [("x.tar", archive.clone()), ("x.tar.gz", gzip(&archive))] {
        let train = opened(&written(&folder, name, bytes), Split::Train).unwrap();
        check(
            &train,
            &[
                ("b", RED),
                ("b", BLUE),
                ("b", RED),
                ("b", RED),
                ("a", BLUE),
                ("a", BLUE),
                ("a", BLUE),
            ],
        );
        assert_eq!(train.left_out().broken_links.number, 1);
    }
}

/// Files and folders of one path: the later one is unpacked, unless a folder
/// would be lost.
#[test]
fn folders_and_files_of_one_path_are_as_after_unpacking() {
    use tar::EntryType::Symlink;
    let folder = TempDir::new().unwrap();
    let (red, blue) = (jpeg(8, 8, RED), jpeg(8, 8, BLUE));
    let mut builder = tar::Builder::new(Vec::new());
    add(&mut builder, "train/a", b"a file");
    add(&mut builder, "train/a/", b"");
    add(&mut builder, "train/a/1.jpg", &red);
    // Not without a member for the folder.
    add(&mut builder, "train/b/1.jpg", &blue);
    add(&mut builder, "train/b/2.jpg", &blue);
    add(&mut builder, "train/b/2.jpg/3.jpg", &blue);
    // An empty folder makes way, the other does not.
    add(&mut builder, "train/b/4.jpg/", b"");
    add(&mut builder, "train/b/4.jpg", &blue);
    add(&mut builder, "train/b", b"a file");
    // Through a link to a folder, and one that a folder replaces.
    add_link(&mut builder, Symlink, "train/c", "a");
    add(&mut builder, "train/c/5.jpg", &red);
    add(&mut builder, "train/c/", b"");
    add(&mut builder, "train/c/6.jpg", &blue);
    add_link(&mut builder, Symlink, "out", "/tmp");
    add(&mut builder, "out/7.jpg", &red);
    let archive = builder.into_inner().unwrap();
    for (name, bytes) in [("x.tar", archive.clone()), ("x.tar.gz", gzip(&archive))] {
        let train = opened(&written(&folder, name, bytes), Split::Train).unwrap();
        check(
            &train,
            &[
                ("a", RED),
                ("b", BLUE),
                ("b", BLUE),
                ("b", BLUE),
                ("a", RED),
                ("c", BLUE),
            ],
        );
        let left_out = train.left_out();
        assert_eq!(left_out.obstructed.number, 2, "{left_out:?}");
        assert_eq!(left_out.outside.number, 1, "{left_out:?}");
        // `train/a` and `train/c` are folders of the split, not in it.
        assert_eq!(left_out.replaced.number, 3, "{left_out:?}");
    }
}

#[test]
fn lists_and_patterns_of_archives_are_written_as_in_a_shell() {
    let folder = TempDir::new().unwrap();
    let red = jpeg(8, 8, RED);
    for number in 0..4 {
        let name = format!("train-00{number}.tar");
        let classes = ["train/a/1.jpg", "train/b/1.jpg"].map(|path| (path, &red[..]));
        written(&folder, &name, tar(&classes));
    }
    let found = |pattern: &str| {
        let source = format!("tar:{}", folder.path().join(pattern).display());
        let source: Source = source.parse().unwrap();
        open(&source, Split::Train, &OpenOptions::default())
    };
    assert_eq!(found("train-{000..002}.tar").unwrap().len(), 6);
    assert_eq!(found("train-{000,003}.tar").unwrap().len(), 4);
    assert_eq!(found("train-*.tar").unwrap().len(), 8);
    assert_eq!(found("train-00[1-3].tar").unwrap().len(), 6);
    let missing = found("train-{002..004}.tar").unwrap_err().to_string();
    assert!(missing.contains("train-004.tar"), "{missing}");
    let missing = found("none-*.tar").unwrap_err().to_string();
    assert!(
        missing.contains("no file has a name like that"),
        "{missing}"
    );
}

#[test]
fn archives_of_other_kinds_are_called_by_their_names() {
    let folder = TempDir::new().unwrap();
    for (name, start, kind, way_out) in [
        (
            "x.tar.zst",
            &b"\x28\xb5\x2f\xfd"[..],
            "a Zstandard file",
            "zstd -dc",
        ),
        ("x.tar.xz", b"\xfd7zXZ\0", "an XZ file", "x.tar.xz > "),
        ("x.tar.bz2", b"BZh9", "a bzip2 file", "bzip2 -dc"),
        ("x.zip", b"PK\x03\x04", "a ZIP archive", "unzip"),
        ("x.7z", b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "7z x"),
        ("x.rar", b"Rar!\x1a\x07\x01", "a RAR archive", "unrar x"),
        // The first bytes tell, whatever the name.
        ("named.tar", b"PK\x03\x04", "a ZIP archive", "folder:DIR"),
        ("y.tar", b"\xfd7zXZ\0", "an XZ file", "y-plain.tar`"),
    ] {
        let path = written(&folder, name, [start, &[1; 600]].concat());
        for source in [source(&path), Source::Folder(path.clone())] {
            let error = open(&source, Split::Train, &OpenOptions::default()).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(kind) && text.contains(way_out), "{text}");
        }
    }
    let only = TempDir::new().unwrap();
    written(&only, "train.zip", b"PK\x03\x04 and so on");
    assert!(message(only.path(), Split::Train).contains("a ZIP archive"));

    let red = jpeg(8, 8, RED);
    let members = [("train/a/1.jpg", &red[..]), ("train/b/1.jpg", &red)];
    written(&only, "x.tar", tar(&members));
    let train = opened(only.path(), Split::Train).unwrap();
    assert_eq!(train.left_out().other_kinds["zip"], 1);

    let path = written(&folder, "x.tar.gz", gzip(&tar(&members)));
    let error = open(&Source::Folder(path), Split::Train, &OpenOptions::default());
    assert!(error.unwrap_err().to_string().contains("use tar:"));
}

#[test]
fn no_archive_counts_twice() {
    let folder = TempDir::new().unwrap();
    let (red, blue) = (jpeg(8, 8, RED), jpeg(8, 8, BLUE));
    let archive = tar(&[("train/red/1.jpg", &red), ("train/blue/1.jpg", &blue)]);
    let path = written(&folder, "a.tar", &archive);
    let copy = written(&folder, "copy.tar", &archive);
    let twice = |paths: Vec<PathBuf>| {
        let opened = open(&Source::Tar(paths), Split::Train, &OpenOptions::default());
        opened.map(|_| ()).map_err(|error| error.to_string())
    };
    // A copy is another file: who has made it may mean it.
    twice(vec![path.clone(), copy]).unwrap();
    let error = twice(vec![path.clone(), path.clone()]).unwrap_err();
    assert!(
        error.contains("a.tar") && error.contains("given twice"),
        "{error}"
    );
    fs::create_dir(folder.path().join("sub")).unwrap();
    let error = twice(vec![path.clone(), folder.path().join("sub/../a.tar")]).unwrap_err();
    assert!(error.contains("same file as"), "{error}");
    let error = twice(vec![folder.path().to_owned(), path.clone()]).unwrap_err();
    assert!(error.contains("given twice"), "{error}");
    #[cfg(unix)]
    for (name, hard) in [("hard.tar", true), ("soft.tar", false)] {
        let link = folder.path().join("sub").join(name);
        match hard {
            true => fs::hard_link(&path, &link).unwrap(),
            false => std::os::unix::fs::symlink(&path, &link).unwrap(),
        }
        let error = twice(vec![path.clone(), link]).unwrap_err();
        assert!(error.contains(name) && error.contains("a.tar'"), "{error}");
    }
}
