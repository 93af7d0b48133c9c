//! Downloads from a server on loopback that behaves and misbehaves.

use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::TempDir;

use super::*;

/// What the server does with one request.
#[derive(Clone, Copy)]
enum Answer {
    /// Sends what is asked for, minding a range.
    Honest,
    /// As [`Answer::Honest`], but hangs up after this many bytes of the body.
    BreakAfter(usize),
    /// Sends the whole whatever the range.
    IgnoreRange,
    /// Sends another range than asked for.
    WrongRange,
    NotFound,
}

/// A server for one file; it answers each request as the list says, the last
/// entry for all that follow, and records the `Range` of each.
struct Server {
    address: String,
    ranges: Arc<Mutex<Vec<Option<String>>>>,
}

impl Server {
    fn start(content: Vec<u8>, answers: Vec<Answer>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let ranges = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&ranges);
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let answer = answers[number.min(answers.len() - 1)];
                // The client may hang up first; that is its business.
                let _ = respond(stream.unwrap(), &content, answer, &record);
            }
        });
        Server { address, ranges }
    }

    fn ranges(&self) -> Vec<Option<String>> {
        self.ranges.lock().unwrap().clone()
    }
}

fn respond(
    mut stream: TcpStream,
    content: &[u8],
    answer: Answer,
    record: &Mutex<Vec<Option<String>>>,
) -> io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        request.push(byte[0]);
    }
    let request = String::from_utf8_lossy(&request).to_ascii_lowercase();
    let range = request
        .lines()
        .find_map(|l| l.strip_prefix("range: bytes="))
        .map(str::to_owned);
    record.lock().unwrap().push(range.clone());
    let start: usize = range.map_or(0, |r| r.trim_end_matches('-').parse().unwrap());
    let close = "Connection: close\r\n\r\n";
    let whole = || {
        format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{close}",
            content.len()
        )
    };
    let (head, body) = match answer {
        Answer::NotFound => (format!("HTTP/1.1 404 Not Found\r\n{close}"), &[][..]),
        Answer::IgnoreRange => (whole(), content),
        _ if start == 0 => (whole(), content),
        _ if start >= content.len() => (
            format!("HTTP/1.1 416 Range Not Satisfiable\r\n{close}"),
            &[][..],
        ),
        _ => {
            let first = if matches!(answer, Answer::WrongRange) {
                start + 1
            } else {
                start
            };
            let (rest, last) = (&content[first..], content.len() - 1);
            let len = rest.len();
            let head = format!(
                "HTTP/1.1 206 Partial Content\r\nContent-Length: {len}\r\n\
                 Content-Range: bytes {first}-{last}/{}\r\n{close}",
                content.len()
            );
            (head, rest)
        }
    };
    stream.write_all(head.as_bytes())?;
    let sent = if let Answer::BreakAfter(bytes) = answer {
        bytes
    } else {
        body.len()
    };
    stream.write_all(&body[..sent.min(body.len())])
}

/// An archive with two files of a data set and some that are none of it.
fn packed() -> Vec<u8> {
    let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::none()));
    let noise: Vec<u8> = (0..200_000u32)
        .map(|i| (i.wrapping_mul(i) >> 7) as u8)
        .collect();
    for (path, bytes) in [
        ("set/names.txt", &b"cat\ndog\n"[..]),
        ("set/data.bin", &noise),
        ("set/readme.html", b"no part of it"),
        ("elsewhere/data.bin", b"no part of it either"),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, bytes).unwrap();
    }
    builder.into_inner().unwrap().finish().unwrap()
}

fn archive(content: &[u8]) -> Archive {
    let md5 = Md5::digest(content)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect::<String>();
    Archive {
        name: "set.tar.gz",
        md5,
        folder: "set",
        files: vec![("data.bin", Some(200_000)), ("names.txt", None)],
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn assert_complete(folder: &TempDir) {
    assert_eq!(names(folder.path()), ["set"]);
    assert_eq!(names(&folder.path().join("set")), ["data.bin", "names.txt"]);
    assert_eq!(
        fs::read(folder.path().join("set/names.txt")).unwrap(),
        b"cat\ndog\n"
    );
}

#[test]
fn an_archive_is_downloaded_checked_and_unpacked_once() {
    let content = packed();
    let (archive, folder) = (archive(&content), TempDir::new().unwrap());
    let server = Server::start(content.clone(), vec![Answer::Honest]);
    let mut told = Vec::new();
    let fetched = archive.fetch(folder.path(), &server.address, |have, total| {
        told.push((have, total))
    });
    assert_eq!(fetched.unwrap(), Fetched::Downloaded);
    assert_complete(&folder);
    let len = content.len() as u64;
    assert_eq!(
        (told[0], told[told.len() - 1]),
        ((0, Some(len)), (len, Some(len)))
    );

    let again = archive.fetch(folder.path(), &server.address, |_, _| ());
    assert_eq!(again.unwrap(), Fetched::AlreadyThere);
    assert_eq!(server.ranges().len(), 1);
}

#[test]
fn a_broken_download_goes_on_where_it_broke() {
    let content = packed();
    let (archive, folder) = (archive(&content), TempDir::new().unwrap());
    let server = Server::start(
        content,
        vec![
            Answer::BreakAfter(70_000),
            Answer::BreakAfter(5),
            Answer::Honest,
        ],
    );
    archive
        .fetch(folder.path(), &server.address, |_, _| ())
        .unwrap();
    assert_complete(&folder);
    let expected = [None, Some("70000-".to_owned()), Some("70005-".to_owned())];
    assert_eq!(server.ranges(), expected);
}

#[test]
fn a_later_run_goes_on_after_the_attempts_are_used_up() {
    let content = packed();
    let (archive, folder) = (archive(&content), TempDir::new().unwrap());
    let dead = Server::start(content.clone(), vec![Answer::BreakAfter(1000)]);
    let error = archive
        .fetch(folder.path(), &dead.address, |_, _| ())
        .unwrap_err()
        .to_string();
    assert!(error.contains("gave up after 5 attempts"), "{error}");
    assert_eq!(names(folder.path()), ["set", "set.tar.gz.part"]);

    let server = Server::start(content, vec![Answer::Honest]);
    archive
        .fetch(folder.path(), &server.address, |_, _| ())
        .unwrap();
    assert_eq!(server.ranges(), [Some("5000-".to_owned())]);
    assert_complete(&folder);
}

#[test]
fn a_server_without_ranges_starts_over() {
    let content = packed();
    let (archive, folder) = (archive(&content), TempDir::new().unwrap());
    let server = Server::start(
        content,
        vec![Answer::BreakAfter(70_000), Answer::IgnoreRange],
    );
    archive
        .fetch(folder.path(), &server.address, |_, _| ())
        .unwrap();
    assert_complete(&folder);
    assert_eq!(server.ranges().len(), 2);
}

#[test]
fn another_range_than_asked_for_is_refused() {
    let content = packed();
    let (archive, folder) = (archive(&content), TempDir::new().unwrap());
    let server = Server::start(content, vec![Answer::BreakAfter(700), Answer::WrongRange]);
    let error = archive
        .fetch(folder.path(), &server.address, |_, _| ())
        .unwrap_err()
        .to_string();
    assert!(error.contains("asked for bytes from 700 on"), "{error}");
}

/// The run before was stopped between the download and the unpacking.
#[test]
fn a_part_that_is_whole_already_is_used() {
    let content = packed();
    let (archive, folder) = (archive(&content), TempDir::new().unwrap());
    fs::write(folder.path().join("set.tar.gz.part"), &content).unwrap();
    let server = Server::start(content, vec![Answer::Honest]);
    archive
        .fetch(folder.path(), &server.address, |_, _| ())
        .unwrap();
    assert_complete(&folder);
}

#[test]
fn a_wrong_checksum_deletes_the_download() {
    let content = packed();
    let (archive, folder) = (archive(&content), TempDir::new().unwrap());
    let mut damaged = content.clone();
    damaged[5000] ^= 1;
    let server = Server::start(damaged, vec![Answer::Honest]);
    let error = archive
        .fetch(folder.path(), &server.address, |_, _| ())
        .unwrap_err();
    assert!(matches!(error, DataError::Checksum { .. }));
    let text = error.to_string();
    assert!(
        text.contains(&archive.md5) && text.contains("fetch it again"),
        "{text}"
    );
    assert_eq!(names(folder.path()), ["set"]);
    assert!(names(&folder.path().join("set")).is_empty());
}

#[test]
fn refusals_are_told_with_the_address() {
    let content = packed();
    let (archive, folder) = (archive(&content), TempDir::new().unwrap());
    let server = Server::start(content, vec![Answer::NotFound]);
    let error = archive
        .fetch(folder.path(), &server.address, |_, _| ())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("/set.tar.gz: the server answers 404 Not Found"),
        "{error}"
    );
    assert_eq!(server.ranges().len(), 1, "not asked again");
}

#[test]
fn archives_that_are_not_the_data_set_are_refused() {
    let content = packed();
    let server = Server::start(content.clone(), vec![Answer::Honest]);
    for (files, expected) in [
        (
            vec![("data.bin", Some(200_001))],
            "set/data.bin is not the expected file",
        ),
        (vec![("more.bin", None)], "does not hold all files"),
    ] {
        let archive = Archive {
            files,
            ..archive(&content)
        };
        let folder = TempDir::new().unwrap();
        let error = archive
            .fetch(folder.path(), &server.address, |_, _| ())
            .unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn files_of_the_users_are_not_replaced() {
    let content = packed();
    let archive = archive(&content);
    let server = Server::start(content, vec![Answer::Honest]);
    for (name, bytes, requests) in [
        // Another size shows before the download, other names after it.
        ("data.bin", &b"a user's own"[..], 0),
        ("names.txt", b"Katze\nHund\n", 1),
    ] {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("set").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        let before = server.ranges().len();
        let error = archive
            .fetch(folder.path(), &server.address, |_, _| ())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(name) && error.contains("move it away"),
            "{error}"
        );
        assert_eq!(fs::read(&path).unwrap(), bytes);
        assert_eq!(server.ranges().len() - before, requests);
    }

    // The same content stays, and what is missing comes.
    let folder = TempDir::new().unwrap();
    fs::create_dir_all(folder.path().join("set")).unwrap();
    fs::write(folder.path().join("set/names.txt"), "cat\ndog\n").unwrap();
    archive
        .fetch(folder.path(), &server.address, |_, _| ())
        .unwrap();
    assert_complete(&folder);
}

#[test]
fn files_that_are_there_are_not_fetched_again() {
    let folder = TempDir::new().unwrap();
    for (name, size) in CifarKind::Cifar10.all_files() {
        let path = folder.path().join("cifar-10-batches-bin").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        File::create(path)
            .unwrap()
            .set_len(size.unwrap_or(10))
            .unwrap();
    }
    let unreachable = "http://127.0.0.1:1";
    let fetched = fetch(CifarKind::Cifar10, folder.path(), unreachable, |_, _| ());
    assert_eq!(fetched.unwrap(), Fetched::AlreadyThere);
    let other = fetch(CifarKind::Cifar100, folder.path(), unreachable, |_, _| ());
    assert!(
        other
            .unwrap_err()
            .to_string()
            .starts_with("http://127.0.0.1:1/cifar-100-binary")
    );
}
