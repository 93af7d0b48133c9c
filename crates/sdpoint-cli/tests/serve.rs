//! `sdpoint serve`: start, answers, reload, shutdown and errors.

#![cfg(unix)]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{command, fail, fixture};
use serde_json::Value;

/// A server as a process.
struct Server {
    child: Child,
    rest: String,
    grpc: String,
    metrics: String,
}

impl Server {
    /// Starts the command on free ports, and waits until it is ready.
    fn start(arguments: &[&str]) -> Self {
        Self::spawn(&mut command(&serve(arguments)))
    }

    fn spawn(command: &mut Command) -> Self {
        let mut child = command
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

    /// Ends the server, and returns its exit code and its log.
    fn end(self, signal: &str) -> (Option<i32>, String) {
        self.signal(signal);
        self.wait()
    }

    /// Waits until the server has ended, and returns its exit code and its log.
    fn wait(mut self) -> (Option<i32>, String) {
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

/// The status and body of an HTTP response.
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
fn a_server_answers_reloads_and_shuts_down() {
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
    // As predicted by the program that wrote the model.
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
fn reloads_do_not_overlap() {
    let cats = format!("cats={}", model());
    let server = Server::start(&[&cats, &model(), "--log-format", "json"]);
    let messages = |log: &str| -> Vec<String> {
        let events = log.lines().map(serde_json::from_str::<Value>);
        let said = |event: Value| {
            let message = event["message"].as_str()?;
            let what = event["model"].as_str().unwrap_or(message);
            message.contains("load").then(|| what.to_owned())
        };
        events.filter_map(|event| said(event.unwrap())).collect()
    };
    for _ in 0..10 {
        server.signal("HUP");
    }
    // The last signal is followed by a pass, too.
    let loads = |server: &Server| {
        let (_, metrics) = exchange(&server.metrics, "GET", "/metrics", &[]);
        let name = "sdpoint_model_loads_total{model=\"v2\",result=\"ok\"} ";
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().parse::<u32>().unwrap()
    };
    server.wait_until("the models are loaded again", || loads(&server) >= 2);
    let mut last = 0;
    server.wait_until("no more is loaded", || {
        std::thread::sleep(Duration::from_millis(500));
        std::mem::replace(&mut last, loads(&server)) == last
    });
    let (code, log) = server.end("TERM");
    assert_eq!(code, Some(0), "{log}");
    let messages = messages(&log);
    let passes = messages[2..].chunks(3);
    let whole = ["loading all models again", "cats", "v2"];
    assert!(passes.len() >= 1 && messages[..2] == whole[1..], "{log}");
    for pass in passes {
        assert_eq!(pass, whole, "{log}");
    }
}

#[test]
fn ctrl_c_shuts_down() {
    let server = Server::start(&[&model(), "--log", "off"]);
    let (code, log) = server.end("INT");
    assert_eq!((code, log.as_str()), (Some(0), ""));
}

#[test]
fn reloads_and_shutdown_under_load_lose_no_request() {
    let server = Server::start(&[&model(), "--objective", "30s", "--log", "warn"]);
    let image = image();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut answers = 0;
                    while !done.load(Ordering::Relaxed) {
                        let answer = exchange(&server.rest, "POST", "/predict", &image);
                        assert_eq!(answer.0, 200, "{}", answer.1);
                        answers += 1;
                    }
                    answers
                })
            })
            .collect();
        for generation in 2..6 {
            server.signal("HUP");
            let expected = format!("\"generation\":\"{generation}\"");
            server.wait_until("the model is reloaded", || {
                server.get("/v2/models/v2").1.contains(&expected)
            });
        }
        done.store(true, Ordering::Relaxed);
        let answers: usize = clients.into_iter().map(|c| c.join().unwrap()).sum();
        assert!(answers > 12, "{answers}");
    });

    // Requests that have begun when the server is told to stop are answered.
    let half = image.len() / 2;
    let mut begun: Vec<TcpStream> = (0..8)
        .map(|_| begin(&server.rest, "/predict", &image, half))
        .collect();
    server.wait_until("all bodies have begun", || {
        let (_, metrics) = exchange(&server.metrics, "GET", "/metrics", &[]);
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix("sdpoint_request_memory_bytes "));
        line.unwrap().parse::<f64>().unwrap() >= (8 * half) as f64
    });
    server.signal("TERM");
    server.wait_until("no more connections are accepted", || {
        TcpStream::connect(&server.rest).is_err()
    });
    for stream in &mut begun {
        stream.write_all(&image[half..]).unwrap();
    }
    for mut stream in begun {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let (code, log) = server.wait();
    assert_eq!((code, log.as_str()), (Some(0), ""));
}

#[test]
fn requests_that_are_lost_are_reported() {
    let server = Server::start(&[&model(), "--drain", "200ms", "--log", "off"]);
    let image = image();
    let _begun = begin(&server.rest, "/predict", &image, image.len() / 2);
    server.wait_until("the body has begun", || {
        let (_, metrics) = exchange(&server.metrics, "GET", "/metrics", &[]);
        !metrics.contains("sdpoint_request_memory_bytes 0\n")
    });
    let (code, log) = server.end("TERM");
    assert_eq!(code, Some(130), "{log}");
    assert!(log.contains("before 1 request could be answered"), "{log}");
    assert!(log.contains("hint: --drain"), "{log}");
}

/// A control group with a CPU quota, removed when dropped.
struct Quota(PathBuf);

impl Quota {
    fn new(milliseconds: u32) -> Self {
        let root = Path::new("/sys/fs/cgroup");
        let unified = root.join("cgroup.controllers").exists();
        let parent = if unified {
            root.to_owned()
        } else {
            root.join("cpu")
        };
        let group = parent.join(format!("sdpoint-test-{}", std::process::id()));
        std::fs::create_dir(&group).unwrap();
        let quota = 1000 * milliseconds;
        let (file, text) = match unified {
            true => ("cpu.max", format!("{quota} 100000")),
            false => ("cpu.cfs_quota_us", quota.to_string()),
        };
        std::fs::write(group.join(file), text).unwrap();
        Self(group)
    }

    /// A count from `cpu.stat`.
    fn count(&self, name: &str) -> f64 {
        let text = std::fs::read_to_string(self.0.join("cpu.stat")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim().parse().unwrap()
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
#[ignore = "needs root for a control group, and an idle machine"]
fn half_a_core_is_rarely_throttled() {
    let quota = Quota::new(50);
    let inner = command(&serve(&[&model(), "--objective", "300ms"]));
    let mut outer = Command::new("sh");
    outer
        .args(["-c", "echo $$ > \"$1\" && shift && exec \"$@\"", "sh"])
        .arg(quota.0.join("cgroup.procs"))
        .arg(inner.get_program())
        .args(inner.get_args());
    let server = Server::spawn(&mut outer);
    let image = image();
    let before = ["nr_periods", "nr_throttled"].map(|name| quota.count(name));
    let end = Instant::now() + Duration::from_secs(10);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while Instant::now() < end {
                    let (status, body) = exchange(&server.rest, "POST", "/predict", &image);
                    assert!([200, 503].contains(&status), "{body}");
                }
            });
        }
    });
    let [periods, throttled] = ["nr_periods", "nr_throttled"].map(|name| quota.count(name));
    let share = (throttled - before[1]) / (periods - before[0]);
    let (_, metrics) = exchange(&server.metrics, "GET", "/metrics", &[]);
    let met = |met: &str| -> f64 {
        let name = format!("sdpoint_deadlines_total{{model=\"v2\",met=\"{met}\"}}");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
        line.unwrap().trim().parse().unwrap()
    };
    let attainment = met("true") / (met("true") + met("false"));
    println!("throttled in {share:.2} of the periods; {attainment:.4} of the deadlines met");
    assert!(share < 0.2, "throttled in {share} of the periods");
    assert!(attainment > 0.95, "{attainment}");
    assert_eq!(server.end("TERM").0, Some(0));
}

/// Sends the header of a request, and the first bytes of its body.
fn begin(address: &str, path: &str, body: &[u8], sent: usize) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let all = [head.as_bytes(), &body[..sent]].concat();
    stream.write_all(&all).unwrap();
    stream
}

/// The command with these arguments, on free ports.
fn serve<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [&["serve", "--listen", "127.0.0.1:0"], arguments].concat()
}

#[test]
fn startup_errors_are_reported() {
    let model = model();
    let folder = tempfile::tempdir().unwrap();
    let photo = folder.path().join("photo.png");
    std::fs::write(&photo, image()).unwrap();
    fail(
        4,
        &["model 'photo'", "image", "/predict"],
        &serve(&[photo.to_str().unwrap()]),
    );
    fail(
        7,
        &["model 'b'", "/no/such"],
        &serve(&[&format!("a={model}"), "b=/no/such.safetensors"]),
    );
    fail(2, &["'a='", "a=runs/a"], &serve(&["a="]));
    fail(
        2,
        &["--max-images", "at least 1"],
        &serve(&[&model, "--max-images", "0"]),
    );
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

#[cfg(target_os = "linux")]
#[test]
fn too_few_open_files_for_the_connections_are_warned_about() {
    let model = model();
    let warning = "may open only 200 files";
    for (connections, warned) in [("100", false), ("1000", true)] {
        let arguments = serve(&[&model, "--max-connections", connections]);
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -n 200; exec \"$0\" \"$@\""]);
        shell.arg(env!("CARGO_BIN_EXE_sdpoint")).args(arguments);
        let (code, log) = Server::spawn(&mut shell).end("TERM");
        assert_eq!(code, Some(0), "{log}");
        assert_eq!(log.contains(warning), warned, "{log}");
    }
}

#[test]
fn other_machines_need_a_token_or_insecure() {
    let model = model();
    for address in ["0.0.0.0:0", "[::]:0"] {
        let arguments = ["serve", &model, "--listen", address];
        fail(
            2,
            &["without a token", "--token-file", "--insecure"],
            &arguments,
        );
    }
    let metrics = [
        "serve",
        &model,
        "--listen",
        "127.0.0.1:0",
        "--metrics",
        "0.0.0.0:0",
    ];
    fail(2, &["without a token"], &metrics);
    let server = Server::start(&[&model, "--metrics", "0.0.0.0:0", "--insecure"]);
    assert_eq!(server.end("TERM").0, Some(0));
}
