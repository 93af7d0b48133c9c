//! What commands write, and above all what they do not: nothing of the user's
//! is destroyed.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::{command, fail, fixture, photos, run, stderr, stdout};
use tempfile::TempDir;

/// A folder with a trained model, weights to import, and a data set.
struct Desk(TempDir);

impl Desk {
    fn new() -> Self {
        let desk = Self(tempfile::tempdir().unwrap());
        fs::copy(fixture("v1.safetensors"), desk.path("m.safetensors")).unwrap();
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: &[u8]) {
        fs::write(self.path(name), content).unwrap();
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    /// The command in this folder, with arguments separated by spaces.
    fn command(&self, arguments: &str) -> Command {
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        let mut command = command(&arguments);
        command.current_dir(self.0.path());
        command
    }

    #[track_caller]
    fn succeed(&self, arguments: &str) -> String {
        let output = self.command(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments}: {}", stderr(&output));
        stdout(&output).to_owned()
    }

    /// The command fails with this exit code and these words before any work,
    /// and everything in the folder is as it was.
    #[track_caller]
    fn refuse(&self, code: i32, words: &[&str], arguments: &str) {
        let before = contents(self.0.path());
        let output = self.command(arguments).output().unwrap();
        let errors = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments}: {errors}");
        for word in words {
            assert!(
                errors.contains(word),
                "{arguments}: no '{word}' in {errors}"
            );
        }
        assert!(!errors.contains("evaluating"), "{arguments}: {errors}");
        assert_eq!(stdout(&output), "", "{arguments}");
        let after = contents(self.0.path());
        assert!(after == before, "{arguments}: files have changed");
    }
}

/// All files beneath a folder, links as what they say.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let about = fs::symlink_metadata(&path).unwrap();
        if about.is_dir() {
            all.extend(contents(&path));
            all.insert(path, Vec::new());
        } else if about.is_symlink() {
            let leads = fs::read_link(&path).unwrap();
            all.insert(path, leads.into_os_string().into_encoded_bytes());
        } else if about.is_file() {
            let content = fs::read(&path).unwrap();
            all.insert(path, content);
        }
    }
    all
}

/// Every command that writes a file, with `OUT` for it and `IN` for the file
/// that it reads.
const WRITERS: [&str; 8] = [
    "export IN --instance full -o OUT",
    "export IN --format safetensors --instance full -o OUT",
    "export IN --format safetensors --instances all -o OUT",
    "export IN --python -o OUT",
    "evaluate IN --data shapes --csv OUT",
    "evaluate IN --data shapes --svg OUT",
    "evaluate IN --data shapes --html OUT",
    "evaluate IN --data shapes --deadline 60% --csv OUT",
];

#[cfg(unix)]
#[test]
fn no_command_writes_to_what_it_reads_under_any_name() {
    let desk = Desk::new();
    fs::create_dir(desk.path("sub")).unwrap();
    std::os::unix::fs::symlink("m.safetensors", desk.path("link")).unwrap();
    std::os::unix::fs::symlink("../link", desk.path("sub/chain")).unwrap();
    std::os::unix::fs::symlink("sub", desk.path("other")).unwrap();
    fs::hard_link(desk.path("m.safetensors"), desk.path("hard")).unwrap();
    let absolute = desk.path("m.safetensors");
    let names = ["m.safetensors", "./m.safetensors", "sub/../m.safetensors"];
    let links = ["link", "sub/chain", "other/../link", "hard"];
    for name in names.into_iter().chain(links).chain(absolute.to_str()) {
        let importing = "import IN --network preresnet8-w2 -o OUT";
        for writer in WRITERS.into_iter().chain([importing]) {
            let arguments = writer.replace("IN", "m.safetensors").replace("OUT", name);
            desk.refuse(2, &["refusing to write to it"], &arguments);
            if name == "hard" {
                desk.refuse(
                    2,
                    &["an input of this command"],
                    &format!("{arguments} --force"),
                );
            }
        }
    }
    // The input under another name is the input all the same.
    desk.refuse(
        2,
        &["an input of this command"],
        "export link --python -o m.safetensors",
    );
    desk.refuse(
        2,
        &["an input of this command"],
        "export hard --python -o link",
    );
}

#[test]
fn what_belongs_to_the_inputs_is_not_written_to_either() {
    let desk = Desk::new();
    photos(&desk.path("photos"));
    desk.write("names.txt", b"a\nb\n");
    fs::create_dir(desk.path("run")).unwrap();
    for file in ["checkpoint.safetensors", "metrics.jsonl"] {
        fs::copy(fixture("run-v1").join(file), desk.path("run").join(file)).unwrap();
    }
    fs::copy(
        desk.path("m.safetensors"),
        desk.path("run/model.safetensors"),
    )
    .unwrap();
    fs::create_dir(desk.path("weights")).unwrap();
    desk.succeed("export m.safetensors --format safetensors --instance full -o weights/w.st");
    fs::copy(desk.path("m.safetensors"), desk.path("weights/other.st")).unwrap();
    let image = "photos/train/lying/0.png";
    for arguments in [
        "export run --instance full -o run/checkpoint.safetensors",
        "export run --python -o run/metrics.jsonl",
        "export run --python -o run/model.safetensors",
        "export run/model.safetensors --python -o run/checkpoint.safetensors",
        &format!("evaluate m.safetensors --data folder:photos --csv {image}"),
        // What is added to a class is read the next time.
        "evaluate m.safetensors --data folder:photos --svg photos/test/lying/new.svg",
        &format!("calibrate m.safetensors --data folder:photos -o {image}"),
        "calibrate m.safetensors --data folder:photos -o photos/train/m.safetensors",
        "import weights/w.st --network preresnet8-w2 --classes names.txt -o names.txt",
        &format!("import weights/w.st --network preresnet8-w2 --classes folder:photos -o {image}"),
        "train --data folder:photos --out photos/train/run",
        "train --data folder:photos --out photos/test",
    ] {
        let force = match arguments.starts_with("train") {
            true => "",
            false => "--force",
        };
        desk.refuse(2, &["an input of this command"], arguments);
        desk.refuse(
            2,
            &["an input of this command"],
            &format!("{arguments} {force}"),
        );
    }
    // Beside the splits there is room.
    desk.succeed("export m.safetensors --python -o photos/net.py");
    desk.succeed("export m.safetensors --python -o photos/net.py");
}

#[test]
fn archives_of_a_data_set_are_not_written_to() {
    let desk = Desk::new();
    fs::create_dir(desk.path("data")).unwrap();
    desk.write("data/train.tar", b"not looked into before that");
    desk.write("data/data_batch_1.bin", b"likewise");
    desk.write("data/a-test.tar", b"likewise");
    fs::create_dir(desk.path("py")).unwrap();
    desk.write("py/cifar-10-python.tar.gz", b"likewise");
    for (source, file) in [
        ("tar:data/train.tar", "data/train.tar"),
        ("tar:data", "data/train.tar"),
        ("tar:data/a-{train,test}.tar", "data/a-test.tar"),
        ("tar:none.tar,data/*.tar", "data/train.tar"),
        ("tar:data/tr?in.t[a]r", "data/train.tar"),
        ("cifar10:data", "data/data_batch_1.bin"),
        ("cifar10:py", "py/cifar-10-python.tar.gz"),
        (
            "cifar10:py/cifar-10-python.tar.gz",
            "py/cifar-10-python.tar.gz",
        ),
    ] {
        for option in ["--csv", "--svg"] {
            let arguments = format!("evaluate m.safetensors --data {source} {option} {file}");
            desk.refuse(2, &["an input of this command"], &arguments);
            desk.refuse(
                2,
                &["an input of this command"],
                &format!("{arguments} --force"),
            );
        }
    }
}

#[cfg(unix)]
#[test]
fn an_image_of_a_data_set_is_safe_under_other_names_too() {
    let desk = Desk::new();
    photos(&desk.path("photos"));
    fs::hard_link(desk.path("photos/test/lying/0.png"), desk.path("hard.png")).unwrap();
    desk.write("mine.png", b"\x89PNG mine");
    std::os::unix::fs::symlink("../../../mine.png", desk.path("photos/test/lying/99.png")).unwrap();
    for name in ["hard.png", "mine.png"] {
        let arguments = format!("evaluate m.safetensors --data folder:photos --csv {name}");
        desk.refuse(2, &["PNG image", "--force"], &arguments);
        desk.refuse(
            2,
            &["an input of this command"],
            &format!("{arguments} --force"),
        );
    }
}

#[cfg(unix)]
#[test]
fn data_behind_links_is_not_written_to() {
    use std::os::unix::fs::symlink;

    let desk = Desk::new();
    photos(&desk.path("set"));
    fs::create_dir(desk.path("store")).unwrap();
    for class in ["lying", "standing"] {
        let real = desk.path("store").join(class);
        fs::rename(desk.path("set/test").join(class), &real).unwrap();
        symlink(&real, desk.path("set/test").join(class)).unwrap();
    }
    fs::create_dir(desk.path("far")).unwrap();
    fs::rename(desk.path("store/lying/0.png"), desk.path("far/0.png")).unwrap();
    symlink("../../far", desk.path("store/lying/more")).unwrap();
    // A link that leads out of the set and around it is not followed.
    symlink("../../..", desk.path("set/train/lying/up")).unwrap();
    fs::hard_link(desk.path("store/standing/1.png"), desk.path("hard.png")).unwrap();
    fs::create_dir(desk.path("tars")).unwrap();
    desk.write("real.tar", b"not looked into before that");
    symlink("../real.tar", desk.path("tars/a.tar")).unwrap();
    for arguments in [
        "evaluate m.safetensors --data folder:set --csv store/lying/1.png",
        "evaluate m.safetensors --data folder:set --csv store/lying/new.csv",
        "evaluate m.safetensors --data folder:set --svg far/0.png",
        "evaluate m.safetensors --data folder:set --svg hard.png",
        "calibrate m.safetensors --data folder:set -o store/standing/2.png",
        "evaluate m.safetensors --data tar:tars --csv real.tar",
        "evaluate m.safetensors --data tar:tars/*.tar --csv real.tar",
    ] {
        desk.refuse(
            2,
            &["an input of this command"],
            &format!("{arguments} --force"),
        );
    }
    for folder in ["store/lying", "store/standing/run", "far"] {
        let arguments = format!("train --data folder:set --out {folder}");
        desk.refuse(2, &["an input of this command"], &arguments);
    }
}

#[test]
fn two_outputs_are_two_files() {
    let desk = Desk::new();
    let both = "evaluate m.safetensors --data shapes --csv a --svg";
    desk.refuse(2, &["--svg and --csv", "same file"], &format!("{both} a"));
    desk.refuse(2, &["same file"], &format!("{both} ./a"));
}

#[test]
fn files_of_other_kinds_are_replaced_with_force_alone() {
    let desk = Desk::new();
    desk.succeed("export m.safetensors --instance full -o full.onnx");
    desk.succeed("export m.safetensors --python -o net.py");
    desk.succeed("export m.safetensors --format safetensors --instance full -o w.safetensors");
    desk.write("notes.txt", b"my notes\n");
    desk.write("script.py", b"print('mine')\n");
    desk.write("other.onnx", b"\x08\x0a\x12\x07pytorch:\x00");
    desk.write("torch.pth", b"PK\x03\x04\0\0archive/data.pkl");
    desk.write("mine.csv", b"name,value\n1,2\n");
    desk.write("photo.png", b"\x89PNG\r\n");
    fs::copy(desk.path("m.safetensors"), desk.path("second.safetensors")).unwrap();
    fs::create_dir(desk.path("run")).unwrap();
    let checkpoint = fixture("run-v1").join("checkpoint.safetensors");
    fs::copy(checkpoint, desk.path("run/checkpoint.safetensors")).unwrap();
    let import = "import w.safetensors --network preresnet8-w2 -o OUT";
    for (file, kind) in [
        ("notes.txt", "text file"),
        ("script.py", "text file"),
        ("other.onnx", "ONNX file"),
        ("torch.pth", "PyTorch file"),
        ("mine.csv", "text file"),
        ("photo.png", "PNG image"),
        ("run/checkpoint.safetensors", "checkpoint of a training run"),
    ] {
        for writer in WRITERS.into_iter().chain([import]) {
            let arguments = writer.replace("IN", "m.safetensors").replace("OUT", file);
            desk.refuse(2, &[file, kind, "--force"], &arguments);
        }
    }
    // A model is not an export, an export not a model, nor another export.
    for writer in WRITERS {
        let arguments = writer
            .replace("IN", "m.safetensors")
            .replace("OUT", "second.safetensors");
        desk.refuse(2, &["a trained model"], &arguments);
    }
    desk.refuse(2, &["ONNX"], &import.replace("OUT", "full.onnx"));
    desk.refuse(
        2,
        &["Python"],
        "export m.safetensors --instance full -o net.py",
    );
    desk.refuse(2, &["ONNX"], "export m.safetensors --python -o full.onnx");

    desk.succeed("export m.safetensors --python -o notes.txt --force");
    assert_eq!(desk.read("notes.txt"), desk.read("net.py"));
}

#[test]
fn files_of_the_same_kind_and_empty_ones_are_replaced() {
    let desk = Desk::new();
    for writer in &WRITERS[..6] {
        let arguments = writer.replace("IN", "m.safetensors");
        desk.succeed(&arguments.replace("OUT", "first"));
        desk.write("second", b"");
        desk.succeed(&arguments.replace("OUT", "second"));
        let sizes = ["first", "second"].map(|name| desk.read(name).len());
        assert_eq!(sizes[0], sizes[1], "{writer}");
        desk.succeed(&arguments.replace("OUT", "second"));
        fs::remove_file(desk.path("first")).unwrap();
        fs::remove_file(desk.path("second")).unwrap();
    }
    let import = "import w --network preresnet8-w2 -o new.safetensors";
    desk.succeed("export m.safetensors --format safetensors --instance full -o w");
    desk.succeed(import);
    desk.succeed(import);
}

#[test]
fn where_nothing_can_be_written_shows_before_the_work() {
    let desk = Desk::new();
    fs::create_dir(desk.path("folder")).unwrap();
    desk.write("protected", b"");
    let mut permissions = fs::metadata(desk.path("protected")).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(desk.path("protected"), permissions).unwrap();
    desk.write("w", b"no weights");
    let import = "import w --network preresnet8-w2 -o OUT";
    let calibrate = "calibrate m.safetensors --data shapes -o OUT";
    for (out, words) in [
        ("no/such/x", "there is no folder 'no/such'"),
        ("folder", "is a folder"),
        ("folder/", "is a folder"),
        ("new/", "add a name"),
        ("m.safetensors/x", "x"),
        ("protected", "write-protected"),
    ] {
        for writer in WRITERS.into_iter().chain([import, calibrate]) {
            let arguments = writer.replace("IN", "m.safetensors").replace("OUT", out);
            desk.refuse(7, &["cannot write", words], &arguments);
        }
    }
    desk.refuse(
        7,
        &["'w' is a file"],
        "export m.safetensors --instances all -o w",
    );
    desk.refuse(7, &["is a file"], "train --data shapes --out m.safetensors");
    desk.refuse(7, &["run"], "train --data shapes --out m.safetensors/run");
}

#[cfg(target_os = "linux")]
#[test]
fn a_folder_that_takes_no_files_shows_before_the_work() {
    // Nobody can make files in /proc, not even the superuser.
    let desk = Desk::new();
    for writer in WRITERS {
        let arguments = writer
            .replace("IN", "m.safetensors")
            .replace("OUT", "/proc/x");
        desk.refuse(7, &["cannot write '/proc/x'"], &arguments);
    }
    desk.refuse(
        7,
        &["/proc"],
        "export m.safetensors --instances all -o /proc/new",
    );
    desk.refuse(7, &["/proc"], "train --data shapes --out /proc/new/run");
}

#[test]
fn calibration_alone_writes_in_place() {
    let desk = Desk::new();
    let before = desk.read("m.safetensors");
    let calibrate = "calibrate m.safetensors --data shapes --images 64 --ratios";
    desk.succeed(&format!("{calibrate} 0.6"));
    let first = desk.read("m.safetensors");
    assert_ne!(first, before);
    desk.succeed(&format!("{calibrate} 0.7 -o ./m.safetensors"));
    assert_ne!(desk.read("m.safetensors"), first);
    desk.write("notes.txt", b"mine");
    desk.refuse(2, &["text file"], &format!("{calibrate} 0.8 -o notes.txt"));
    desk.succeed(&format!("{calibrate} 0.8 -o new.safetensors"));
    desk.succeed(&format!("{calibrate} 0.8 -o new.safetensors"));
}

#[cfg(unix)]
#[test]
fn links_stay_and_what_they_lead_to_is_written() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let desk = Desk::new();
    fs::create_dir(desk.path("sub")).unwrap();
    symlink("sub/real.py", desk.path("link.py")).unwrap();
    for _ in 0..2 {
        desk.succeed("export m.safetensors --python -o link.py");
        assert!(
            fs::symlink_metadata(desk.path("link.py"))
                .unwrap()
                .is_symlink()
        );
        assert!(!desk.read("sub/real.py").is_empty());
    }
    let private = fs::Permissions::from_mode(0o600);
    fs::set_permissions(desk.path("sub/real.py"), private).unwrap();
    desk.succeed("export m.safetensors --python -o link.py");
    let mode = fs::metadata(desk.path("sub/real.py"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    symlink("circle", desk.path("circle")).unwrap();
    desk.refuse(7, &["circle"], "export m.safetensors --python -o circle");
}

#[cfg(target_os = "linux")]
#[test]
fn devices_and_pipes_are_written_to_and_the_terminal_is_not() {
    let desk = Desk::new();
    desk.succeed("export m.safetensors --python -o /dev/null");
    desk.succeed("evaluate m.safetensors --data shapes --csv /dev/null");
    assert!(fs::metadata("/dev/null").unwrap().len() == 0);

    // A full disk shows after the work, whose results are printed still.
    for options in ["--csv /dev/full", "--deadline 1s --csv /dev/full"] {
        let arguments = format!("evaluate m.safetensors --data shapes {options}");
        let output = desk.command(&arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(7));
        assert!(
            stderr(&output).contains("free some space"),
            "{}",
            stderr(&output)
        );
        assert!(stdout(&output).contains("top-1"), "{}", stdout(&output));
    }

    for name in ["/dev/stdout", "/dev/stderr", "/dev/fd/1"] {
        let arguments = format!("evaluate m.safetensors --data shapes --csv {name}");
        desk.refuse(2, &["prints to"], &arguments);
    }
    // Not even where that is a file, which replacing it would cut off.
    let log = fs::File::create(desk.path("log")).unwrap();
    let mut command = desk.command("export m.safetensors --python -o log");
    let status = command.stdout(log).stderr(Stdio::null()).status().unwrap();
    assert_eq!(status.code(), Some(2));
    assert_eq!(desk.read("log"), b"");

    let made = Command::new("mkfifo").arg(desk.path("pipe")).status();
    assert!(made.unwrap().success());
    // Opened for both ends first, so that the pipe has its reader before the
    // command looks for one.
    let both_ends = fs::File::options()
        .read(true)
        .write(true)
        .open(desk.path("pipe"))
        .unwrap();
    let mut pipe = fs::File::open(desk.path("pipe")).unwrap();
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).unwrap();
        bytes
    });
    desk.succeed("export m.safetensors --python -o pipe");
    drop(both_ends);
    desk.succeed("export m.safetensors --python -o net.py");
    assert_eq!(reader.join().unwrap(), desk.read("net.py"));
    let socket = std::os::unix::net::UnixListener::bind(desk.path("socket")).unwrap();
    desk.refuse(
        7,
        &["not a regular file"],
        "export m.safetensors --python -o socket",
    );
    drop(socket);
}

#[test]
fn an_exported_folder_replaces_nothing_else() {
    let desk = Desk::new();
    let export = "export m.safetensors --instances all -o a/b/onnx";
    desk.succeed(export);
    desk.succeed(export);
    let names = contents(&desk.path("a/b/onnx")).len();
    assert_eq!(names, 5);
    // A manifest of something else, and a model under an instance's name.
    desk.write("a/b/onnx/manifest.json", br#"{"name": "app", "icons": []}"#);
    desk.refuse(2, &["manifest.json", "text file"], export);
    fs::remove_file(desk.path("a/b/onnx/manifest.json")).unwrap();
    fs::copy(desk.path("m.safetensors"), desk.path("a/b/onnx/full.onnx")).unwrap();
    desk.refuse(2, &["full.onnx", "trained model"], export);
    let from = "export a/b/onnx/full.onnx --instances all -o a/b/onnx";
    desk.refuse(2, &["an input of this command"], from);
    desk.refuse(2, &["an input of this command"], &format!("{from} --force"));
    desk.succeed(&format!("{export} --force"));
    assert!(desk.read("a/b/onnx/full.onnx").starts_with(b"\x08"));
    // An instance named twice is one file.
    desk.succeed("export m.safetensors --instances full,full -o twice");
}

#[test]
fn a_profile_replaces_profiles_alone() {
    let desk = Desk::new();
    let profile = "profile m.safetensors --save --seconds 0";
    desk.succeed(profile);
    desk.succeed(profile);
    desk.write("m.profile.json", br#"{"user": "me"}"#);
    desk.refuse(2, &["m.profile.json", "text file"], profile);
    desk.succeed(&format!("{profile} --force"));
}

const SMALL: &str = "train --data shapes --network preresnet8-w2 --train-images 20 \
                     --calibration-images 20 --ratios 0.5";

#[test]
fn a_new_run_destroys_neither_its_start_nor_files_that_are_no_runs() {
    let desk = Desk::new();
    desk.succeed(&format!("{SMALL} --epochs 1 --out run"));
    let from = "train --data shapes --train-images 20 --out run --overwrite --init";
    desk.refuse(2, &["an input of this command"], &format!("{from} run"));
    desk.refuse(
        2,
        &["an input of this command"],
        &format!("{from} run/model.safetensors"),
    );
    desk.refuse(
        2,
        &["an input of this command"],
        &format!("{from} ./run/../run/model.safetensors"),
    );
    #[cfg(unix)]
    {
        fs::hard_link(desk.path("run/model.safetensors"), desk.path("hard")).unwrap();
        desk.refuse(2, &["an input of this command"], &format!("{from} hard"));
    }
    // A folder of someone else's with files of such names.
    let overwrite = format!("{SMALL} --epochs 1 --out other --overwrite");
    fs::create_dir(desk.path("other")).unwrap();
    for (name, content, kind) in [
        ("metrics.jsonl", &b"{\"loss\": 1}\n"[..], "text file"),
        ("curve.csv", b"x,y\n1,2\n", "text file"),
        ("model.safetensors", b"PK\x03\x04..data.pkl", "PyTorch"),
        ("exit1.safetensors", b"\x89PNG", "PNG image"),
    ] {
        desk.write(&format!("other/{name}"), content);
        desk.refuse(2, &[name, kind, "move it away"], &overwrite);
        fs::remove_file(desk.path("other").join(name)).unwrap();
    }
    desk.write("other/.lock", b"someone's");
    fs::copy(
        desk.path("m.safetensors"),
        desk.path("other/model.safetensors"),
    )
    .unwrap();
    let protected = |readonly| {
        let path = desk.path("other/model.safetensors");
        let mut permissions = fs::metadata(&path).unwrap().permissions();
        #[allow(clippy::permissions_set_readonly_false)]
        permissions.set_readonly(readonly);
        fs::set_permissions(path, permissions).unwrap();
    };
    protected(true);
    desk.refuse(7, &["write-protected"], &overwrite);
    protected(false);
    desk.succeed(&overwrite);
    desk.succeed(&overwrite);
    assert_eq!(desk.read("other/.lock"), b"someone's");
}

#[test]
fn a_folder_with_a_run_is_refused_before_images_are_read() {
    let desk = Desk::new();
    fs::create_dir(desk.path("run")).unwrap();
    desk.write("run/curve.csv", b"instance\n");
    let train = "train --data folder:none --init none --out run";
    desk.refuse(2, &["has a file curve.csv", "--overwrite"], train);
    desk.write("run/checkpoint.safetensors", b"");
    desk.refuse(2, &["already holds a run", "--resume run"], train);
}

#[test]
fn weights_in_a_folder_are_not_shadowed_by_the_model() {
    let desk = Desk::new();
    fs::create_dir_all(desk.path("tf/sub")).unwrap();
    desk.succeed("export m.safetensors --format safetensors --instance full -o w.st");
    fs::copy(desk.path("w.st"), desk.path("tf/model.pth")).unwrap();
    for output in ["tf/model.safetensors", "tf/new.st", "tf/sub/new.st"] {
        let import = format!("import tf --network preresnet8-w2 -o {output} --force");
        desk.refuse(2, &["is in 'tf', an input of this command"], &import);
    }
    desk.succeed("import tf --network preresnet8-w2 -o new.st");
}

#[test]
fn resuming_does_not_undo_a_calibration() {
    let desk = Desk::new();
    desk.succeed(&format!("{SMALL} --epochs 1 --out run"));
    desk.succeed("train --resume run");
    desk.succeed("calibrate run --data shapes --images 20 --ratios 0.7");
    desk.refuse(
        2,
        &["calibrate", "move that file away"],
        "train --resume run",
    );
    desk.write("run/curve.csv", b"mine\n");
    desk.refuse(2, &["curve.csv", "text file"], "train --resume run");
}

#[test]
fn files_of_a_run_that_is_going_on_are_not_written_to() {
    let desk = Desk::new();
    let mut train = desk.command(&format!("{SMALL} --epochs 1000000 --out run"));
    let mut child = train
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while !desk.path("run/checkpoint.safetensors").exists() {
        assert!(start.elapsed() < Duration::from_secs(60), "no run began");
        sleep(Duration::from_millis(5));
    }
    let try_all = || {
        for (out, option) in [
            ("run/model.safetensors", ""),
            ("run/curve.svg", "--force"),
            ("./run/../run/curve.csv", ""),
            ("run/exit1.safetensors", ""),
            ("run/.lock", "--force"),
            ("run/checkpoint.safetensors", "--force"),
        ] {
            for writer in WRITERS {
                let arguments = writer.replace("IN", "m.safetensors").replace("OUT", out);
                let output = desk
                    .command(&format!("{arguments} {option}"))
                    .output()
                    .unwrap();
                assert_eq!(output.status.code(), Some(2), "{arguments}");
                let errors = stderr(&output);
                assert!(errors.contains("run in progress"), "{errors}");
            }
        }
        let calibrate = "calibrate m.safetensors --data shapes -o run/model.safetensors";
        let output = desk.command(calibrate).output().unwrap();
        assert!(
            stderr(&output).contains("in progress"),
            "{}",
            stderr(&output)
        );
        let again = format!("{SMALL} --epochs 1 --out run --overwrite");
        let output = desk.command(&again).output().unwrap();
        assert!(
            stderr(&output).contains("another process"),
            "{}",
            stderr(&output)
        );
    };
    let tried = std::panic::catch_unwind(std::panic::AssertUnwindSafe(try_all));
    child.kill().unwrap();
    child.wait().unwrap();
    tried.unwrap();
    assert!(!desk.path("run/model.safetensors").exists());
    // Once it has ended, its files are files like others.
    desk.succeed("export m.safetensors --python -o run/net.py");
}

#[test]
fn fetching_replaces_no_files() {
    let folder = tempfile::tempdir().unwrap();
    let set = folder.path().join("cifar-10-batches-bin");
    fs::create_dir(&set).unwrap();
    fs::write(set.join("data_batch_1.bin"), "a user's own").unwrap();
    let to = folder.path().to_str().unwrap();
    let unreachable = "http://127.0.0.1:1";
    fail(
        7,
        &["data_batch_1.bin", "move it away"],
        &["fetch", "cifar10", to, "--from", unreachable],
    );
    assert_eq!(
        fs::read(set.join("data_batch_1.bin")).unwrap(),
        b"a user's own"
    );
    let file = set.join("data_batch_1.bin");
    let output = run(&[
        "fetch",
        "cifar10",
        file.to_str().unwrap(),
        "--from",
        unreachable,
    ]);
    assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));
}

#[test]
fn what_was_edited_is_replaced_with_force_alone() {
    let desk = Desk::new();
    desk.succeed("export m.safetensors --instances all -o onnx");
    for (writer, file) in [
        (WRITERS[0], "full.onnx"),
        (WRITERS[1], "full.st"),
        (WRITERS[3], "net.py"),
        (WRITERS[4], "curve.csv"),
        (WRITERS[5], "curve.svg"),
        ("export IN --instances all -o onnx", "onnx/manifest.json"),
    ] {
        let write = writer.replace("IN", "m.safetensors").replace("OUT", file);
        desk.succeed(&write);
        desk.succeed(&write);
        let mut edited = desk.read(file);
        // A comment, a note in the last column, a changed name.
        match file {
            "curve.csv" => {
                let line = edited.iter().position(|&byte| byte == b'\n').unwrap();
                edited.splice(line..line, *b",note");
            }
            "net.py" => edited.extend(b"# mine\n"),
            _ => {
                let place = edited.windows(8).position(|w| w == b"bilinear");
                let place = place.or_else(|| edited.windows(4).position(|w| w == b"full"));
                let place = place.unwrap_or(edited.len() / 2);
                edited[place] = edited[place].to_ascii_uppercase().max(b'!');
            }
        }
        if file == "curve.svg" {
            edited.splice(0..0, *b"<!-- mine -->");
            edited.rotate_left(13);
        }
        desk.write(file, &edited);
        desk.refuse(2, &["edited since", "--force"], &write);
        assert!(desk.read(file) == edited);
        desk.succeed(&format!("{write} --force"));
        desk.succeed(&write);
    }
}

#[test]
fn a_trained_model_is_replaced_with_force_alone() {
    let desk = Desk::new();
    desk.succeed("export m.safetensors --format safetensors --instance full -o w");
    fs::copy(desk.path("m.safetensors"), desk.path("trained")).unwrap();
    let import = "import w --network preresnet8-w2 -o";
    desk.refuse(
        2,
        &["a trained model", "--force"],
        &format!("{import} trained"),
    );
    desk.succeed(&format!("{import} imported"));
    desk.succeed(&format!("{import} imported"));
    // A calibrated model took work, too.
    let calibrate = "calibrate imported --data shapes --images 64 --ratios 0.6 -o";
    desk.succeed(&format!("{calibrate} calibrated"));
    desk.refuse(2, &["a trained model"], &format!("{import} calibrated"));
    desk.succeed(&format!("{calibrate} calibrated"));
    // Another network's weights are not those of the input.
    desk.succeed("import w --network preresnet8-w2 -o other --mean 0,0,0");
    fs::copy(fixture("v1.safetensors"), desk.path("m.safetensors")).unwrap();
    desk.succeed(&format!("{import} trained --force"));
}

#[test]
fn messages_say_which_input_and_name_files_as_given() {
    let desk = Desk::new();
    photos(&desk.path("photos"));
    for (words, arguments) in [
        (
            "'./m.safetensors' is 'm.safetensors',",
            "export m.safetensors --python -o ./m.safetensors",
        ),
        (
            "'photos/test/lying/x.csv' is in 'photos/test',",
            "evaluate m.safetensors --data folder:photos --csv photos/test/lying/x.csv",
        ),
    ] {
        desk.refuse(2, &[words, "an input of this command"], arguments);
    }
    desk.write("mine.csv", b"a,b\n");
    desk.refuse(
        2,
        &["error: 'mine.csv' exists"],
        "evaluate m.safetensors --data shapes --csv mine.csv",
    );
    #[cfg(target_os = "linux")]
    {
        let errors = fail(
            7,
            &["cannot write '/proc/x.csv'"],
            &[
                "export",
                desk.path("m.safetensors").to_str().unwrap(),
                "--python",
                "-o",
                "/proc/x.csv",
            ],
        );
        assert!(!errors.contains(".tmp"), "{errors}");
    }
}

#[cfg(unix)]
#[test]
fn an_import_is_called_an_imported_model() {
    let desk = Desk::new();
    desk.succeed("export m.safetensors --format safetensors --instance full -o w.st");
    fs::create_dir(desk.path("run")).unwrap();
    let checkpoint = fixture("run-v1").join("checkpoint.safetensors");
    fs::copy(checkpoint, desk.path("run/checkpoint.safetensors")).unwrap();
    let import = "import w.st --network preresnet8-w2 -o";
    desk.refuse(
        2,
        &["checkpoint of a training run", "by an imported model"],
        &format!("{import} run/checkpoint.safetensors"),
    );
    desk.refuse(2, &["a trained model"], &format!("{import} m.safetensors"));
    desk.succeed(&format!("{import} i.st"));
    desk.succeed(&format!("{import} i.st"));
}

#[test]
fn force_is_not_advised_where_it_was_given() {
    let desk = Desk::new();
    photos(&desk.path("photos"));
    fs::hard_link(desk.path("photos/test/lying/0.png"), desk.path("hard.png")).unwrap();
    let arguments = "evaluate m.safetensors --data folder:photos --csv hard.png --force";
    let output = desk.command(arguments).output().unwrap();
    let errors = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(
        errors.contains("a link to an image in 'photos/test'"),
        "{errors}"
    );
    assert!(!errors.contains("--force"), "{errors}");
}

#[test]
fn a_leading_tilde_is_the_home_folder() {
    let desk = Desk::new();
    let home = desk.0.path();
    let succeed = |arguments: &str| {
        let mut command = desk.command(arguments);
        let output = command.env("HOME", home).output().unwrap();
        assert!(output.status.success(), "{arguments}: {}", stderr(&output));
    };
    for (arguments, written) in [
        ("export ~/m.safetensors --python -o ~/net.py", "net.py"),
        (
            "evaluate ~/m.safetensors --data shapes --csv=~/o.csv",
            "o.csv",
        ),
        (
            "evaluate ~/m.safetensors --data shapes --svg=~/o.svg",
            "o.svg",
        ),
        (
            "export ~/m.safetensors --format safetensors --instance full -o ~/w",
            "w",
        ),
        ("import ~/w --network preresnet8-w2 -o ~/i.st", "i.st"),
        ("instances ~/m.safetensors", "m.safetensors"),
    ] {
        succeed(arguments);
        assert!(desk.path(written).exists(), "{arguments}");
    }
    // A file of that name comes first.
    fs::create_dir(desk.path("~")).unwrap();
    fs::copy(desk.path("m.safetensors"), desk.path("~/other")).unwrap();
    succeed("instances ~/other");
}
