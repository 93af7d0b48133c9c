//! Clients that mean harm, or are broken.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::support::*;
use crate::{Limits, Scheduler, SchedulerOptions};

const INFER: &str = "/v2/models/small/infer";

/// Numbers that look random, the same every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

#[test]
fn wrong_lengths_of_the_binary_extension_are_refused() {
    let server = start(options());
    let tail = pixels(1);
    let head = |size: Value| {
        json!({"inputs": [{"name": "pixels", "datatype": "UINT8", "shape": [1, 32, 32, 3],
                           "parameters": {"binary_data_size": size}}]})
        .to_string()
    };
    let good = head(json!(3072));
    let send = |head: &str, length: &str, tail: &[u8]| {
        let headers = [("Inference-Header-Content-Length", length)];
        server.post(INFER, &headers, &[head.as_bytes(), tail].concat())
    };
    send(&good, &good.len().to_string(), &tail).ok();
    for length in [
        "1",
        "99999999",
        "18446744073709551616",
        "-1",
        "",
        "0x10",
        "1.0",
    ] {
        send(&good, length, &tail).error(400);
    }
    for size in [
        json!(3071),
        json!(3073),
        json!(0),
        json!(u64::MAX),
        json!(-1),
        json!("a"),
    ] {
        let head = head(size);
        send(&head, &head.len().to_string(), &tail).error(400);
    }
    for tail in [&tail[..3071], &[], &[tail.as_slice(), b"x"].concat()] {
        send(&good, &good.len().to_string(), tail).error(400);
    }
}

#[test]
fn huge_shapes_allocate_nothing() {
    let server = start(options());
    for shape in [
        json!([1_u64 << 63, 32, 32, 3]),
        json!([u64::MAX, 32, 32, 3]),
        json!([1_u64 << 40, 32, 32, 3]),
        json!([1, 1_u64 << 32, 1_u64 << 32, 3]),
        json!([0, 32, 32, 3]),
        json!([]),
        json!([-1, 32, 32, 3]),
        json!([1e300, 32, 32, 3]),
    ] {
        let mut request = pixels_request(1, json!({}));
        request["inputs"][0]["shape"] = shape;
        server.infer(&request).error(400);
    }
}

#[test]
fn image_bombs_are_refused_by_their_header() {
    let server = start(options());
    let mut bomb = Vec::new();
    let mut encoder = png::Encoder::new(&mut bomb, 30_000, 30_000);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().unwrap();
    let mut rows = writer.stream_writer().unwrap();
    for _ in 0..30 {
        rows.write_all(&vec![0; 90_000]).unwrap();
    }
    drop(rows);
    drop(writer);
    assert!(
        server
            .post("/predict", &[], &bomb)
            .error(400)
            .contains("30000")
    );
    let mut bomb = Vec::new();
    let mut encoder = png::Encoder::new(&mut bomb, 5000, 4000);
    encoder.set_color(png::ColorType::Grayscale);
    encoder
        .write_header()
        .unwrap()
        .write_image_data(&vec![0; 20_000_000])
        .unwrap();
    let error = server.post("/predict", &[], &bomb).error(400);
    assert!(error.contains("5000×4000"), "{error}");
}

#[test]
fn a_half_closed_connection_ends() {
    let server = start(options());
    let mut stream = server.connect();
    stream
        .write_all(b"POST /v2/models/small/infer HTTP/1.1\r\nHost: a\r\nContent-Le")
        .unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    let mut stream = server.connect();
    stream
        .write_all(
            b"POST /v2/models/small/infer HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n{",
        )
        .unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    stream.read_to_end(&mut rest).unwrap();
    eventually("nothing is left of them", || {
        server.metric("sdpoint_in_flight_requests") as u64 == 0
            && server.metric("sdpoint_open_connections") as u64 == 1
    });
}

#[test]
fn idle_connections_make_room() {
    let server = start(limited(Limits {
        connections: 64,
        ..Limits::default()
    }));
    let mut idle: Vec<TcpStream> = Vec::new();
    for _ in 0..1000 {
        idle.push(server.connect());
        if idle.len().is_multiple_of(250) {
            // A thousand idle connections are no reason not to answer.
            assert_eq!(server.infer(&pixels_request(1, json!({}))).status, 200);
        }
    }
    // With the connection that reads the metric.
    assert!(server.metric("sdpoint_open_connections") as u64 <= 64 + 1);
}

/// The connections of metrics have places of their own, so they make no room for others.
#[test]
fn idle_connections_for_metrics_stay() {
    let server = start(limited(Limits {
        connections: 4,
        ..Limits::default()
    }));
    let mut watcher = connect(server.addresses.metrics.unwrap());
    let ready = request("GET", "/v2/health/ready", &[], b"");
    exchange(&mut watcher, &ready).ok();
    let idle: Vec<TcpStream> = (0..40).map(|_| server.connect()).collect();
    server.get("/v2").ok();
    drop(idle);
    exchange(&mut watcher, &ready).ok();
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = start(options());
    let mut stream = server.connect();
    let mut all = Vec::new();
    for number in 0..20 {
        let body = pixels_request(number % 8, json!({"instance": "full"})).to_string();
        all.extend(request("POST", INFER, &[], body.as_bytes()));
        all.extend(request("GET", "/v2/health/live", &[], b""));
    }
    let mut writer = stream.try_clone().unwrap();
    let writing = std::thread::spawn(move || writer.write_all(&all).unwrap());
    for number in 0..20 {
        let answer = read_answer(&mut stream).unwrap().ok();
        assert_eq!(answer["id"], (number % 8).to_string());
        assert_close(
            &output(&answer, "logits"),
            &logits(number % 8, sdpoint::Instance::Full),
        );
        assert_eq!(read_answer(&mut stream).unwrap().ok()["live"], true);
    }
    writing.join().unwrap();
}

#[test]
fn malformed_requests_are_refused() {
    let server = start(options());
    for bytes in [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /v2/models/small/infer HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v2/models/small/infer HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        b"GET /v2\0 HTTP/1.1\r\n\r\n",
        &b"X".repeat(200_000),
        &[b"GET /v2 HTTP/1.1\r\n".as_slice(), &b"A: b\r\n".repeat(1000)].concat(),
    ] {
        let mut stream = server.connect();
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let answer = read_answer(&mut stream);
        assert!(answer.is_none_or(|answer| answer.status >= 400));
    }
    server.get("/v2").ok();
}

#[test]
fn a_request_names_its_host_once() {
    let server = start(options());
    let status = |text: &str| {
        let answer = exchange(&mut server.connect(), text.as_bytes());
        if answer.status == 400 {
            assert!(answer.error(400).contains("Host header"));
        }
        answer.status
    };
    assert_eq!(status("GET /v2 HTTP/1.1\r\n\r\n"), 400);
    assert_eq!(status("GET /v2/health/live HTTP/1.1\r\n\r\n"), 400);
    assert_eq!(
        status("GET /v2 HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        400
    );
    assert_eq!(status("GET /v2 HTTP/1.1\r\nHost: a\r\n\r\n"), 200);
    assert_eq!(status("GET /v2 HTTP/1.0\r\n\r\n"), 200);
}

/// Ten thousand requests, each a good one that was cut, altered or extended somewhere.
#[test]
fn ten_thousand_damaged_requests_change_nothing() {
    let server = start(options());
    let json = json!({
        "id": "1", "parameters": {"budget": "80%", "deadline_ms": 1000},
        "inputs": [{"name": "encoded", "datatype": "BYTES", "shape": [1],
                    "data": ["iVBORw0KGgo="]}],
        "outputs": [{"name": "logits", "parameters": {"classification": 2}}],
    })
    .to_string();
    let head = json!({
        "inputs": [{"name": "pixels", "datatype": "UINT8", "shape": [1, 32, 32, 3],
                    "parameters": {"binary_data_size": 3072}}],
    })
    .to_string();
    let length = head.len().to_string();
    let headers = [("Inference-Header-Content-Length", length.as_str())];
    let good = [
        request("POST", INFER, &[], json.as_bytes()),
        request(
            "POST",
            INFER,
            &headers,
            &[head.as_bytes(), &pixels(1)].concat(),
        ),
        request("POST", "/predict?top=2", &[], &png(1)),
    ];
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for number in 0..10_000 {
        let mut bytes = good[number % good.len()].clone();
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len());
            match random.below(4) {
                0 => bytes[at] = random.next() as u8,
                1 => bytes[at] ^= 1 << random.below(8),
                2 => {
                    bytes.remove(at);
                }
                _ => bytes.insert(at, b"0123456789\"[]{},:\r\n-"[random.below(20)]),
            }
        }
        if random.below(4) == 0 {
            bytes.truncate(random.below(bytes.len()));
        }
        let mut stream = server.connect();
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(Shutdown::Write);
        if let Some(answer) = read_answer(&mut stream) {
            assert!(
                answer.status != 500,
                "{}",
                String::from_utf8_lossy(&answer.body)
            );
        }
    }
    let answer = server
        .infer(&pixels_request(1, json!({"instance": "full"})))
        .ok();
    assert_close(
        &output(&answer, "logits"),
        &logits(1, sdpoint::Instance::Full),
    );
    eventually("nothing is left of them", || {
        server.metric("sdpoint_in_flight_requests") as u64 == 0
            && server.metric("sdpoint_request_memory_bytes") as u64 == 0
    });
}

/// Requests of one to three images for two instances, in batches with those of other
/// connections; some of them given up while they are sent, and some while they are computed:
/// each answer belongs to its request.
fn answers_match_their_requests(requests: usize) {
    let scheduling = SchedulerOptions {
        objective: options().objective,
        ..SchedulerOptions::default()
    };
    let scheduler = Scheduler::start(scheduling).unwrap();
    let server = Arc::new(start_with(options(), Arc::new(scheduler)));
    let instances = ["full", "0@0.5"];
    let expected = instances.map(|instance| {
        let instance = instance.parse().unwrap();
        [0, 1, 2, 3, 4, 5, 6, 7].map(|number| logits(number, instance))
    });
    std::thread::scope(|scope| {
        for client in 0..8 {
            let (server, expected) = (&server, &expected);
            scope.spawn(move || {
                let mut random = Random(client as u64 + 1);
                let mut stream = server.connect();
                for request_number in 0..requests / 8 {
                    let images = 1 + random.below(3);
                    let numbers: Vec<usize> = (0..images).map(|_| random.below(8)).collect();
                    let instance = random.below(2);
                    let id = format!("{client}-{request_number}");
                    let data: Vec<u8> = numbers.iter().flat_map(|&n| pixels(n)).collect();
                    let body = json!({
                        "id": id,
                        "parameters": {"instance": instances[instance]},
                        "inputs": [{"name": "pixels", "datatype": "UINT8",
                                    "shape": [images, 32, 32, 3], "data": data}],
                    });
                    let bytes = request("POST", INFER, &[], body.to_string().as_bytes());
                    let sent = match random.below(20) {
                        0 => random.below(bytes.len()),
                        1 => bytes.len(),
                        _ => {
                            let answer = exchange(&mut stream, &bytes).ok();
                            assert_eq!(answer["id"], id);
                            let expected = numbers.iter().map(|&n| &expected[instance][n][..]);
                            let expected = expected.collect::<Vec<_>>().concat();
                            assert_close(&output(&answer, "logits"), &expected);
                            continue;
                        }
                    };
                    stream.write_all(&bytes[..sent]).unwrap();
                    stream = server.connect();
                }
            });
        }
    });
    eventually("nothing is left of them", || {
        server.metric("sdpoint_in_flight_requests") as u64 == 0
    });
}

#[test]
fn answers_match_their_requests_8_000() {
    answers_match_their_requests(8_000);
}

#[test]
#[ignore = "takes minutes: cargo test -p sdpoint-serve --lib -- --ignored"]
fn answers_match_their_requests_100_000() {
    answers_match_their_requests(100_000);
}

#[test]
fn clients_that_do_not_read_are_disconnected() {
    let server = start(limited(Limits {
        write_time: Duration::from_millis(300),
        ..Limits::default()
    }));
    let mut stream = server.connect();
    // Answers that nobody reads fill all buffers between the two.
    let one = request("GET", "/v2/models/small/config", &[], b"");
    let mut writer = stream.try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        let many = one.repeat(1000);
        while writer.write_all(&many).is_ok() {}
    });
    eventually("the connection ends", || {
        server.metric("sdpoint_open_connections") as u64 == 1
    });
    writing.join().unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
}
