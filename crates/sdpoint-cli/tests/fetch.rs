//! `sdpoint fetch` against servers on loopback.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

use common::{fail, succeed};

/// Answers every request with this until the process ends; returns the
/// address.
fn serve(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let request = BufReader::new(stream.try_clone().unwrap());
            request
                .lines()
                .map_while(Result::ok)
                .take_while(|line| !line.is_empty())
                .for_each(drop);
            // The client may have gone.
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    address
}

#[test]
fn a_server_that_refuses_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().to_str().unwrap();
    let address = serve("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    fail(
        7,
        &[&address, "cifar-10-binary.tar.gz", "404"],
        &["fetch", "cifar10", to, "--from", &address],
    );
}

#[test]
fn a_wrong_checksum_is_told_and_the_download_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().to_str().unwrap();
    let address = serve("HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nwrong");
    fail(
        3,
        &["checksum", "03b5dce01913d631647c71ecec9e9cb8"],
        &["fetch", "cifar100", to, "--from", &address],
    );
    assert!(!folder.path().join("cifar-100-binary.tar.gz.part").exists());
}

#[test]
fn what_is_there_is_not_fetched_again() {
    let folder = tempfile::tempdir().unwrap();
    let files = folder.path().join("cifar-100-binary");
    fs::create_dir(&files).unwrap();
    for (name, size) in [("train.bin", 153_700_000), ("test.bin", 30_740_000)] {
        fs::File::create(files.join(name))
            .unwrap()
            .set_len(size)
            .unwrap();
    }
    fs::write(files.join("fine_label_names.txt"), "apple\n").unwrap();
    let to = folder.path().to_str().unwrap();
    let nowhere = "http://127.0.0.1:1";
    let text = succeed(&["fetch", "cifar100", to, "--from", nowhere]);
    assert!(
        text.contains("already") && text.contains("train --data cifar100:"),
        "{text}"
    );
    fail(2, &["cifar10"], &["fetch", "cifar11", to]);
}
