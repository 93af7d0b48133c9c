//! `sdpoint serve`: starts, answers, loads models again, ends, and says why it cannot.

#![cfg(unix)]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{command, fail, fixture};
use serde_json::Value;

/// A server in a process of its own.
struct Server {
    child: Child,
    rest: String,
    grpc: String,
    metrics: String,
}

impl Server {
    /// Starts the command on ports that are free, and waits until it is ready.
    fn start(arguments: &[&str]) -> Self {
        let mut child = command(&[&["serve", "--listen", "127.0.0.1:0"], arguments].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command starts");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut address = |name: &str| {
            let line = lines.next().expect("an address is printed").unwrap();
            let (kind, address) = line.split_once(' ').unwrap();
            assert_eq!(kind, name, "{line}");
            let address = address.trim().trim_start_matches("http://");
            address.trim_end_matches("/metrics").to_owned()
        };
        let server = Self {
            rest: address("REST"),
            grpc: address("gRPC"),
            metrics: address("metrics"),
            child,
        };
        server.wait_until("it is ready", || server.get("/v2/health/ready").0 == 200);
        server
    }

    #[track_caller]
    fn wait_until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let start = Instant::now();
        while !is_so() {
            assert!(start.elapsed() < Duration::from_secs(60), "{what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn get(&self, path: &str) -> (u16, String) {
        exchange(&self.rest, "GET", path, &[])
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill")
            .args(["-s", name, &id])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    /// Ends the server, and returns its exit code and what it logged.
    fn end(mut self, signal: &str) -> (Option<i32>, String) {
        self.signal(signal);
        let status = self.child.wait().unwrap();
        let mut log = String::new();
        self.child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut log)
            .unwrap();
        (status.code(), log)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
    }
}

/// Status and body of an answer over HTTP.
fn exchange(address: &str, method: &str, path: &str, body: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

fn model() -> String {
    fixture("v2.safetensors").to_str().unwrap().to_owned()
}

fn image() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("image.png");
    common::png(&file, "lying", 3);
    std::fs::read(file).unwrap()
}

#[test]
fn a_server_answers_and_ends_in_order() {
    let cats = format!("cats={}", model());
    let server = Server::start(&[&cats, &model(), "--objective", "5s", "--log-format", "json"]);
    let (status, body) = exchange(
        &server.rest,
        "POST",
        "/predict?model=cats&instance=full&top=1",
        &image(),
    );
    assert_eq!(status, 200, "{body}");
    let answer: Value = serde_json::from_str(&body).unwrap();
    // What the program that wrote the model said of this image.
    assert_eq!(answer["images"][0]["top"][0]["class"], "disc");
    let probability = answer["images"][0]["top"][0]["probability"]
        .as_f64()
        .unwrap();
    assert!((probability - 0.324_348).abs() < 1e-4, "{probability}");
    assert_eq!(server.get("/v2/models/v2").0, 200);
    assert_eq!(server.get("/v2/models/dogs").0, 404);
    let (status, metrics) = exchange(&server.metrics, "GET", "/metrics", &[]);
    assert_eq!(status, 200);
    let line = "sdpoint_images_total{model=\"cats\",instance=\"full\"} 1";
    assert!(metrics.lines().any(|other| other == line), "{metrics}");
    assert!(TcpStream::connect(&server.grpc).is_ok());

    server.signal("HUP");
    server.wait_until("models are loaded again", || {
        server
            .get("/v2/models/cats")
            .1
            .contains("\"generation\":\"2\"")
            && server
                .get("/v2/models/v2")
                .1
                .contains("\"generation\":\"2\"")
    });
    let (code, log) = server.end("TERM");
    assert_eq!(code, Some(0), "{log}");
    let events: Vec<Value> = log
        .lines()
        .map(|l| serde_json::from_str(l).expect(l))
        .collect();
    let loaded = |event: &&Value| event["message"] == "model loaded";
    assert_eq!(events.iter().filter(loaded).count(), 4, "{log}");
}

#[test]
fn ctrl_c_ends_it_too() {
    let server = Server::start(&[&model(), "--log", "off"]);
    let (code, log) = server.end("INT");
    assert_eq!((code, log.as_str()), (Some(0), ""));
}

/// The command with these arguments, on ports that are free.
fn serve<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [&["serve", "--listen", "127.0.0.1:0"], arguments].concat()
}

#[test]
fn what_cannot_be_served_is_told_before_anything_is() {
    let model = model();
    let folder = tempfile::tempdir().unwrap();
    let photo = folder.path().join("photo.png");
    std::fs::write(&photo, image()).unwrap();
    fail(4, &["image"], &serve(&[photo.to_str().unwrap()]));
    fail(7, &["/no/such"], &serve(&["/no/such.safetensors"]));
    fail(2, &["'a b'", "NAME"], &serve(&[&format!("a b={model}")]));
    fail(2, &["two models", "'v2'"], &serve(&[&model, &model]));
    fail(
        7,
        &["/no/token"],
        &serve(&[&model, "--token-file", "/no/token"]),
    );
    fail(
        2,
        &["https://app.example"],
        &serve(&[&model, "--allow-origin", "app"]),
    );
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    fail(
        7,
        &[&address, "hint"],
        &["serve", &model, "--listen", &address, "--grpc", "off"],
    );
}

#[test]
fn others_reach_it_only_if_somebody_says_who() {
    let model = model();
    for address in ["0.0.0.0:0", "[::]:0"] {
        let arguments = ["serve", &model, "--listen", address];
        fail(2, &["by anybody", "--token-file", "--insecure"], &arguments);
    }
    let metrics = [
        "serve",
        &model,
        "--listen",
        "127.0.0.1:0",
        "--metrics",
        "0.0.0.0:0",
    ];
    fail(2, &["by anybody"], &metrics);
    let server = Server::start(&[&model, "--metrics", "0.0.0.0:0", "--insecure"]);
    assert_eq!(server.end("TERM").0, Some(0));
}
