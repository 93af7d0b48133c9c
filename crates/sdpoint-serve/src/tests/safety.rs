//! Who may use the server, and how much of it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::support::*;
use crate::Limits;
use crate::net::token::Tokens;
use crate::server::Options;

const TOKEN: &str = "correct-horse-battery-staple";

fn with_token() -> Options {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), TOKEN).unwrap();
    Options {
        tokens: Tokens::read(file.path()).unwrap(),
        ..options()
    }
}

#[test]
fn a_token_is_needed_for_all_but_probes() {
    let server = start(with_token());
    for path in ["/v2/health/live", "/v2/health/ready"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    for path in [
        "/v2",
        "/v2/models/small",
        "/nothing",
        "/v2/health/live/",
        "/v2/health",
    ] {
        let answer = server.get(path);
        assert!(answer.error(401).contains("Bearer"), "{path}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    }
    let good = format!("Bearer {TOKEN}");
    let get = |path: &str, token: &str| {
        let bytes = request("GET", path, &[("Authorization", token)], b"");
        exchange(&mut server.connect(), &bytes)
    };
    assert_eq!(get("/v2/models/small", &good).status, 200);
    for bad in [
        "Bearer correct-horse-battery-stapl",
        "Basic eA==",
        &good[..20],
        TOKEN,
    ] {
        get("/v2/models/small", bad).error(401);
    }
    let mut metrics = connect(server.addresses.metrics.unwrap());
    exchange(&mut metrics, &request("GET", "/metrics", &[], b"")).error(401);
    let bytes = request("GET", "/metrics", &[("Authorization", &good)], b"");
    let text = exchange(&mut metrics, &bytes).body;
    let text = String::from_utf8(text).unwrap();
    assert!(
        text.contains("sdpoint_unauthenticated_requests_total 10"),
        "{text}"
    );
}

#[test]
fn pages_of_other_origins_are_refused() {
    let server = start(options());
    let host = server.addresses.rest.to_string();
    let from = |origin: &str| {
        let body = pixels_request(1, json!({})).to_string();
        let text = format!(
            "POST /v2/models/small/infer HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\n\
             Content-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        exchange(&mut server.connect(), text.as_bytes())
    };
    from(&format!("http://{host}")).ok();
    from("https://evil.example").error(403);
    from("null").error(403);
    let allowed = Options {
        origins: vec!["https://app.example".parse().unwrap()],
        ..options()
    };
    let server = start(allowed);
    let headers = [
        ("Origin", "https://app.example"),
        ("Access-Control-Request-Method", "POST"),
    ];
    let bytes = request("OPTIONS", "/v2/models/small/infer", &headers, b"");
    let answer = exchange(&mut server.connect(), &bytes);
    assert_eq!(answer.status, 204);
    assert_eq!(
        answer.header("access-control-allow-origin"),
        Some("https://app.example")
    );
    let body = pixels_request(1, json!({})).to_string();
    let answer = server.post("/v2/models/small/infer", &headers[..1], body.as_bytes());
    answer.ok();
    assert_eq!(
        answer.header("access-control-allow-origin"),
        Some("https://app.example")
    );
    let other = [("Origin", "https://other.example")];
    server
        .post("/v2/models/small/infer", &other, body.as_bytes())
        .error(403);
}

#[test]
fn bodies_are_bounded() {
    let server = start(limited(Limits {
        body: 10_000,
        ..Limits::default()
    }));
    let path = "/v2/models/small/infer";
    let answer = server.post(path, &[], &vec![b' '; 10_001]);
    assert!(answer.error(413).contains("10000 bytes"));
    // One whose length is not announced.
    let mut stream = server.connect();
    let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunk = [b"1000\r\n".as_slice(), &[b' '; 4096], b"\r\n"].concat();
    let bytes = [head.as_bytes(), &chunk.repeat(3)].concat();
    exchange(&mut stream, &bytes).error(413);
    // One that is short until it is uncompressed.
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut gzip, &vec![b' '; 1 << 20]).unwrap();
    let bomb = gzip.finish().unwrap();
    assert!(bomb.len() < 10_000);
    let answer = server.post(path, &[("Content-Encoding", "gzip")], &bomb);
    assert!(answer.error(413).contains("decompressed"));
}

#[test]
fn images_are_bounded() {
    let server = start(limited(Limits {
        images: 3,
        pixels: 1000,
        ..Limits::default()
    }));
    let mut request = pixels_request(1, json!({}));
    request["inputs"][0]["shape"] = json!([4, 32, 32, 3]);
    assert!(server.infer(&request).error(400).contains("the limit is 3"));
    assert!(
        server
            .post("/predict", &[], &png(1))
            .error(400)
            .contains("the limit is 1000 pixels")
    );
}

/// The start of a PNG file of this size.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let size = [width.to_be_bytes(), height.to_be_bytes()].concat();
    let header = [b"IHDR".as_slice(), &size, &[8, 2, 0, 0, 0]].concat();
    let mut sum = flate2::Crc::new();
    sum.update(&header);
    let start = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".as_slice();
    [start, &header, &sum.sum().to_be_bytes()].concat()
}

#[test]
fn the_limit_on_pixels_is_that_of_the_server() {
    let server = start(options());
    let problem = |width, height| {
        let answer = server.post("/predict", &[], &png_header(width, height));
        answer.error(400)
    };
    for (width, height) in [(5000, 5000), (9000, 9000), (1 << 30, 1 << 30)] {
        let expected = format!("{width}×{height} pixels; the limit is 16777216 pixels");
        assert!(problem(width, height).contains(&expected));
    }
    let long = problem(40_000, 2);
    assert!(long.contains("the limit is 32768 pixels a side"), "{long}");
}

#[test]
fn memory_for_requests_is_bounded() {
    const MEMORY: usize = 120_000;
    let held = Arc::new(Held::default());
    let server = start_with(
        limited(Limits {
            memory: MEMORY,
            ..Limits::default()
        }),
        held.clone(),
    );
    let body = pixels_request(1, json!({})).to_string();
    assert!((8_000..19_000).contains(&body.len()), "{}", body.len());
    let bytes = request("POST", "/v2/models/small/infer", &[], body.as_bytes());
    // JSON takes twice its length beside itself.
    let fitting = MEMORY / (3 * body.len());
    let mut streams: Vec<_> = (0..fitting).map(|_| server.connect()).collect();
    for stream in &mut streams {
        std::io::Write::write_all(stream, &bytes).unwrap();
    }
    eventually("the jobs arrive", || held.count() == fitting);
    let refused = exchange(&mut server.connect(), &bytes);
    assert!(refused.error(503).contains("memory"));
    assert_eq!(refused.header("retry-after"), Some("1"));
    held.answer_all();
    for stream in &mut streams {
        read_answer(stream).unwrap().ok();
    }
    eventually("memory is free again", || {
        server.metric("sdpoint_request_memory_bytes") as u64 == 0
    });
}

#[test]
fn images_in_flight_per_client_are_bounded() {
    let held = Arc::new(Held::default());
    let server = start_with(
        limited(Limits {
            per_client: 2,
            ..Limits::default()
        }),
        held.clone(),
    );
    let body = pixels_request(1, json!({})).to_string();
    let bytes = request("POST", "/v2/models/small/infer", &[], body.as_bytes());
    let mut streams: Vec<_> = (0..2).map(|_| server.connect()).collect();
    for stream in &mut streams {
        std::io::Write::write_all(stream, &bytes).unwrap();
    }
    eventually("the jobs arrive", || held.count() == 2);
    let error = exchange(&mut server.connect(), &bytes).error(429);
    assert!(error.contains("the limit is 2"), "{error}");
    held.answer_all();
    for stream in &mut streams {
        read_answer(stream).unwrap().ok();
    }
    let again = std::thread::spawn({
        let held = held.clone();
        move || {
            eventually("the job arrives", || held.count() == 1);
            held.answer_all();
        }
    });
    exchange(&mut server.connect(), &bytes).ok();
    again.join().unwrap();
}

/// The head of a request whose body does not come.
const UNFINISHED: &[u8] =
    b"POST /v2/models/small/infer HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{";

#[test]
fn a_client_cannot_take_all_connections() {
    let server = start(limited(Limits {
        connections: 8,
        busy_per_client: 6,
        ..Limits::default()
    }));
    let unfinished = || {
        let mut stream = server.connect();
        std::io::Write::write_all(&mut stream, UNFINISHED).unwrap();
        stream
    };
    let slow: Vec<_> = (0..6).map(|_| unfinished()).collect();
    eventually("the requests have begun", || {
        server.metric("sdpoint_in_flight_requests") as u64 == 6
    });
    let refused = read_answer(&mut unfinished()).unwrap();
    let error = refused.error(429);
    assert!(error.contains("6 connections; the limit is 6"), "{error}");
    assert_eq!(refused.header("connection"), Some("close"));
    // Neither probes nor those that follow are kept out.
    for _ in 0..20 {
        server.get("/v2/health/live").ok();
        server.get("/v2").error(429);
    }
    #[cfg(target_os = "linux")]
    {
        let mut other = connect_from("127.0.0.2", server.addresses.rest);
        exchange(&mut other, &request("GET", "/v2", &[], b"")).ok();
    }
    drop(slow);
    eventually("the client's connections are free again", || {
        server.get("/v2").status == 200
    });
}

/// Slow bodies of one client, many times as many as there are connections.
#[cfg(target_os = "linux")]
#[test]
fn a_flood_of_slow_bodies_leaves_room_for_others() {
    let server = start(limited(Limits {
        connections: 40,
        busy_per_client: Limits::share_of_a_client(40),
        // Longer than the test waits for an answer.
        body_time: Duration::from_secs(600),
        ..Limits::default()
    }));
    let mut flood = Vec::new();
    for _ in 0..200 {
        let mut stream = server.connect();
        let _ = std::io::Write::write_all(&mut stream, UNFINISHED);
        flood.push(stream);
    }
    let body = pixels_request(1, json!({})).to_string();
    let bytes = request("POST", "/v2/models/small/infer", &[], body.as_bytes());
    let mut others: Vec<_> = (0..10)
        .map(|_| connect_from("127.0.0.2", server.addresses.rest))
        .collect();
    for other in &mut others {
        exchange(other, &bytes).ok();
    }
}

/// A connection from another address of this machine.
#[cfg(target_os = "linux")]
fn connect_from(address: &str, to: std::net::SocketAddr) -> std::net::TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let from = std::net::SocketAddr::new(address.parse().unwrap(), 0);
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(from).unwrap();
        socket.connect(to).await.unwrap().into_std().unwrap()
    });
    stream.set_nonblocking(false).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    stream
}

#[test]
fn slow_clients_are_disconnected() {
    let server = start(limited(Limits {
        header_time: Duration::from_millis(200),
        keep_alive: Duration::from_millis(600),
        body_time: Duration::from_millis(300),
        ..Limits::default()
    }));
    let mut silent = server.connect();
    let mut half = server.connect();
    std::io::Write::write_all(&mut half, b"GET /v2 HTTP/1.1\r\nHost: a\r\nX-").unwrap();
    let mut slow = server.connect();
    let head = b"POST /v2/models/small/infer HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{";
    std::io::Write::write_all(&mut slow, head).unwrap();
    read_answer(&mut slow).unwrap().error(408);
    assert!(read_answer(&mut silent).is_none_or(|answer| answer.status == 408));
    assert!(read_answer(&mut half).is_none_or(|answer| answer.status == 408));
    // A connection that asks every now and then stays.
    let mut stream = server.connect();
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(250));
        exchange(&mut stream, &request("GET", "/v2", &[], b"")).ok();
    }
}
