//! Running a server: readiness, reloading, unloading, ending, counting.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::support::*;
use crate::server::Options;
use crate::testing::{self, Direct};
use crate::{Limits, Refusal};

fn admin() -> Options {
    Options {
        admin: true,
        ..options()
    }
}

#[test]
fn a_server_is_ready_when_its_models_are() {
    let executor = Arc::new(Direct::new(None, 100));
    let models = [
        ("one", testing::model_file()),
        ("two", testing::model_file()),
    ];
    let server = start_unloaded(admin(), executor, &models);
    assert_eq!(server.get("/v2/health/live").status, 200);
    assert_eq!(server.get("/v2/health/ready").status, 503);
    assert_eq!(server.get("/v2/models/one/ready").json()["ready"], false);
    assert!(
        server
            .get("/v2/models/one")
            .error(503)
            .contains("being loaded")
    );
    server.handle.registry().load("one").unwrap();
    assert_eq!(server.get("/v2/models/one/ready").json()["ready"], true);
    assert_eq!(server.get("/v2/health/ready").status, 503);
    server.handle.registry().load("two").unwrap();
    assert_eq!(server.get("/v2/health/ready").status, 200);
    let index = server.post("/v2/repository/index", &[], b"").ok();
    assert_eq!(
        index[1],
        json!({"name": "two", "version": "1", "state": "READY", "reason": ""})
    );
    server
        .post("/v2/repository/models/two/unload", &[], b"{}")
        .ok();
    // The others go on.
    assert_eq!(server.get("/v2/health/ready").status, 200);
    assert!(server.get("/v2/models/two").error(503).contains("unloaded"));
    let index = server
        .post("/v2/repository/index", &[], br#"{"ready": true}"#)
        .ok();
    assert_eq!(index.as_array().unwrap().len(), 1);
    server.post("/v2/repository/models/two/load", &[], b"").ok();
    assert_eq!(server.get("/v2/health/ready").status, 200);
    assert_eq!(
        server.get("/v2/models/two").ok()["properties"]["generation"],
        "2"
    );
}

#[test]
fn model_control_needs_admin() {
    let server = start(options());
    for what in ["load", "unload"] {
        let path = format!("/v2/repository/models/small/{what}");
        assert!(server.post(&path, &[], b"").error(403).contains("--admin"));
    }
    assert_eq!(server.get("/v2/models/small/ready").status, 200);
    let server = start(admin());
    assert!(
        server
            .post("/v2/repository/models/cats/load", &[], b"")
            .error(404)
            .contains("cats")
    );
    let body = br#"{"parameters": {"config": "{}", "file:1/model": "AAAA"}}"#;
    let error = server
        .post("/v2/repository/models/small/load", &[], body)
        .error(400);
    assert!(error.contains("its own file"), "{error}");
}

#[test]
fn a_model_that_cannot_be_loaded_leaves_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("small.safetensors");
    fs::copy(testing::model_file(), &file).unwrap();
    let executor = Arc::new(Direct::new(None, 100));
    let server = start_unloaded(admin(), executor, &[("small", file.clone())]);
    server.handle.registry().load("small").unwrap();
    fs::write(&file, b"no model").unwrap();
    let error = server
        .post("/v2/repository/models/small/load", &[], b"")
        .error(500);
    assert!(error.contains("'small'"), "{error}");
    server.infer(&pixels_request(1, json!({}))).ok();
    // Why the file is not what answers is shown, but not where it is.
    let listed = server.get("/models").ok()["models"][0].clone();
    assert_eq!(listed["state"], "ready");
    let index = server.post("/v2/repository/index", &[], b"").ok();
    for reason in [&listed["reason"], &index[0]["reason"]] {
        let reason = reason.as_str().unwrap();
        assert!(reason.contains("reload failed"), "{reason}");
        assert!(reason.contains("the model file"), "{reason}");
    }
    let folder = file.parent().unwrap().to_str().unwrap();
    for text in [error, listed.to_string(), index.to_string()] {
        assert!(!text.contains(folder), "{text}");
    }
    let loads =
        |result| format!("sdpoint_model_loads_total{{model=\"small\",result=\"{result}\"}}");
    assert_eq!(server.metric(&loads("ok")) as u64, 1);
    assert_eq!(server.metric(&loads("failed")) as u64, 1);
}

#[test]
fn clients_do_not_see_where_model_files_are() {
    let executor = Arc::new(Direct::new(None, 100));
    let missing = std::path::PathBuf::from("/srv/secret/model.safetensors");
    let server = start_unloaded(admin(), executor, &[("gone", missing)]);
    assert_eq!(server.handle.registry().load_all().len(), 1);
    let path = "/v2/models/gone";
    let texts = [
        server.get(path).error(503),
        server
            .post(&format!("{path}/infer"), &[], b"{\"inputs\": []}")
            .error(503),
        server.get(&format!("{path}/ready")).json()["error"].to_string(),
        server.get("/models").ok().to_string(),
        server
            .post("/v2/repository/index", &[], b"")
            .ok()
            .to_string(),
        server
            .post("/v2/repository/models/gone/load", &[], b"")
            .error(500),
    ];
    for text in texts {
        assert!(text.contains("cannot read the model file"), "{text}");
        assert!(!text.contains("/srv"), "{text}");
    }
}

#[test]
fn clients_do_not_see_where_a_damaged_profile_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("small.safetensors");
    fs::copy(testing::model_file(), &file).unwrap();
    fs::write(file.with_extension("profile.json"), b"no profile").unwrap();
    let executor = Arc::new(Direct::new(None, 100));
    let server = start_unloaded(options(), executor, &[("small", file)]);
    server.handle.registry().load("small").unwrap();
    let described = server.get("/models/small").ok();
    let times = described["times"].as_str().unwrap();
    assert!(
        times.contains("profile") && times.contains("cannot be used"),
        "{times}"
    );
    assert!(
        !described
            .to_string()
            .contains(folder.path().to_str().unwrap())
    );
}

#[test]
fn a_model_that_was_unloaded_has_no_part_in_readiness() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("other.safetensors");
    fs::copy(testing::model_file(), &file).unwrap();
    let models = [("other", file.clone()), ("small", testing::model_file())];
    let server = start_unloaded(admin(), Arc::new(Direct::new(None, 100)), &models);
    assert!(server.handle.registry().load_all().is_empty());
    let change = |what: &str| {
        let path = format!("/v2/repository/models/other/{what}");
        server.post(&path, &[], b"")
    };
    let ready = || server.get("/v2/health/ready").status;
    change("unload").ok();
    fs::write(&file, b"no model").unwrap();
    change("load").error(500);
    assert_eq!(ready(), 200);
    let error = server.get("/v2/models/other").error(503);
    assert!(error.contains("safetensors"), "it has the reason: {error}");
    fs::copy(testing::model_file(), &file).unwrap();
    change("load").ok();
    assert_eq!((ready(), server.get("/v2/models/other").status), (200, 200));
}

#[test]
fn reloads_lose_no_request() {
    let server = start(options());
    let registry = server.handle.registry();
    let (done, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for client in 0..4 {
            let (server, done, answered) = (&server, &done, &answered);
            scope.spawn(move || {
                let mut stream = server.connect();
                let mut number = client;
                while !done.load(Ordering::Relaxed) {
                    number = (number + 1) % 8;
                    let body = pixels_request(number, json!({"instance": "full"})).to_string();
                    let path = "/v2/models/small/infer";
                    let bytes = request("POST", path, &[], body.as_bytes());
                    let answer = exchange(&mut stream, &bytes).ok();
                    assert_eq!(answer["id"], number.to_string());
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for _ in 0..20 {
            assert!(registry.load_all().is_empty());
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(answered.load(Ordering::Relaxed) > 20);
    assert_eq!(
        server.get("/v2/models/small").ok()["properties"]["generation"],
        "21"
    );
}

#[test]
fn the_executor_learns_when_answers_were_sent() {
    let held = Arc::new(Held::default());
    let server = start_with(options(), held.clone());
    let ask = |parameters: Value| {
        let mut stream = server.connect();
        let body = pixels_request(0, parameters).to_string();
        let bytes = request("POST", "/v2/models/small/infer", &[], body.as_bytes());
        std::io::Write::write_all(&mut stream, &bytes).unwrap();
        eventually("the job arrives", || held.count() == 1);
        stream
    };
    let sent = |count: usize| {
        eventually("the answer is sent", || {
            held.sent.lock().unwrap().len() == count
        });
        held.sent.lock().unwrap()[count - 1]
    };
    let mut in_time = ask(json!({"deadline_ms": 60_000}));
    held.answer_all();
    assert!(read_answer(&mut in_time).is_some());
    assert!(!sent(1).missed && sent(1).delivery.is_some());

    // Nobody waits for an answer that is late.
    let mut late = ask(json!({"deadline_ms": 20}));
    assert_eq!(read_answer(&mut late).unwrap().status, 504);
    assert!(sent(2).missed && sent(2).delivery.is_none());
    held.answer_all();

    let mut dropped = ask(json!({"deadline_ms": 60_000}));
    let job = held.jobs.lock().unwrap().pop().unwrap();
    job.answer.send(Err(Refusal::Expired)).unwrap();
    assert!(read_answer(&mut dropped).is_some());
    assert!(sent(3).missed && sent(3).delivery.is_none());

    // Requests that allow a late answer have no deadline to miss.
    let mut whenever = ask(json!({"deadline_ms": 20, "late": true}));
    held.answer_all();
    assert!(read_answer(&mut whenever).is_some());
    // Nor have those that were never accepted.
    let refusal = Refusal::Overloaded {
        reason: "too many requests wait".into(),
        late: false,
        retry_after: Duration::from_millis(12),
    };
    *held.refusal.lock().unwrap() = Some(refusal);
    let body = pixels_request(0, json!({})).to_string();
    server.post("/v2/models/small/infer", &[], body.as_bytes());
    assert_eq!(held.sent.lock().unwrap().len(), 3);
}

#[test]
fn shutdown_answers_requests_in_progress() {
    let held = Arc::new(Held::default());
    let mut server = start_with(options(), held.clone());
    let mut streams: Vec<_> = (0..8).map(|_| server.connect()).collect();
    for (number, stream) in streams.iter_mut().enumerate() {
        let body = pixels_request(number, json!({})).to_string();
        let bytes = request("POST", "/v2/models/small/infer", &[], body.as_bytes());
        std::io::Write::write_all(stream, &bytes).unwrap();
    }
    let mut idle = server.connect();
    eventually("all jobs arrive", || held.count() == 8);
    server.stop();
    // A connection without a request ends, and nobody else gets in.
    assert!(read_answer(&mut idle).is_none());
    eventually("no more connections", || {
        let stream = std::net::TcpStream::connect(server.addresses.rest);
        stream.is_err() || {
            let mut stream = stream.unwrap();
            stream
                .set_read_timeout(Some(Duration::from_secs(5)))
                .unwrap();
            read_answer(&mut stream).is_none()
        }
    });
    held.answer_all();
    for (number, stream) in streams.iter_mut().enumerate() {
        let answer = read_answer(stream).expect("the request is answered").ok();
        assert_eq!(answer["id"], number.to_string());
    }
    assert_eq!(server.join(), Ok(()));
}

#[test]
fn metrics_and_readiness_can_be_read_until_the_last_answer() {
    let held = Arc::new(Held::default());
    let mut server = start_with(options(), held.clone());
    let mut stream = server.connect();
    let body = pixels_request(1, json!({})).to_string();
    let bytes = request("POST", "/v2/models/small/infer", &[], body.as_bytes());
    std::io::Write::write_all(&mut stream, &bytes).unwrap();
    eventually("the job arrives", || held.count() == 1);
    let mut watcher = connect(server.addresses.metrics.unwrap());
    let ready = request("GET", "/v2/health/ready", &[], b"");
    exchange(&mut watcher, &ready).ok();
    server.stop();
    eventually("it is not ready any more", || {
        exchange(&mut watcher, &ready).status == 503
    });
    assert_eq!(server.metric("sdpoint_in_flight_requests") as u64, 1);
    held.answer_all();
    read_answer(&mut stream).unwrap().ok();
    assert_eq!(server.join(), Ok(()));
}

#[test]
fn half_a_header_does_not_hold_up_shutdown() {
    let mut server = start(options());
    let mut half = server.connect();
    std::io::Write::write_all(&mut half, b"GET /v2 HTTP/1.1\r\nHost: a\r\nX-").unwrap();
    let _silent = connect(server.addresses.grpc.unwrap());
    eventually("both are connected", || {
        // With the connection that reads the metric.
        server.metric("sdpoint_open_connections") as u64 == 3
    });
    let start = Instant::now();
    assert_eq!(server.join(), Ok(()));
    assert!(start.elapsed() < Limits::default().header_time / 2);
    assert!(read_answer(&mut half).is_none_or(|answer| answer.status == 408));
}

#[test]
fn shutdown_waits_no_longer_than_the_drain_time() {
    let held = Arc::new(Held::default());
    let options = Options {
        drain: Duration::from_millis(200),
        ..options()
    };
    let mut server = start_with(options, held.clone());
    let mut stream = server.connect();
    let body = pixels_request(1, json!({})).to_string();
    let bytes = request("POST", "/v2/models/small/infer", &[], body.as_bytes());
    std::io::Write::write_all(&mut stream, &bytes).unwrap();
    eventually("the job arrives", || held.count() == 1);
    let lost = server.join().unwrap_err();
    assert_eq!((lost.requests, lost.drain), (1, Duration::from_millis(200)));
    assert!(
        lost.to_string().contains("before 1 request could"),
        "{lost}"
    );
    assert!(read_answer(&mut stream).is_none());
}

#[test]
fn metrics_count_outcomes() {
    let server = start(options());
    for number in 0..3 {
        server
            .infer(&pixels_request(number, json!({"instance": "full"})))
            .ok();
    }
    server.infer(&json!({"inputs": []})).error(400);
    server.post("/v2/models/cats/infer", &[], b"{}").error(404);
    for (name, value) in [
        (
            "sdpoint_requests_total{model=\"small\",outcome=\"answered\"}",
            3.0,
        ),
        (
            "sdpoint_requests_total{model=\"small\",outcome=\"invalid\"}",
            1.0,
        ),
        (
            "sdpoint_images_total{model=\"small\",instance=\"full\"}",
            3.0,
        ),
        (
            "sdpoint_recorded_accuracy_total{model=\"small\"}",
            3.0 * 0.1235,
        ),
        ("sdpoint_rated_images_total{model=\"small\"}", 3.0),
        (
            "sdpoint_request_duration_seconds_count{model=\"small\"}",
            3.0,
        ),
        ("sdpoint_batch_images_count{model=\"small\"}", 3.0),
        ("sdpoint_deadlines_total{model=\"small\",met=\"true\"}", 3.0),
        ("sdpoint_model_ready{model=\"small\"}", 1.0),
        ("sdpoint_in_flight_requests", 0.0),
    ] {
        let actual = server.metric(name);
        assert!((actual - value).abs() < 1e-6, "{name}: {actual}");
    }
    // Names of models that are none do not become labels.
    assert!(!server.metrics().contains("cats"));
    let mut stream = connect(server.addresses.metrics.unwrap());
    exchange(&mut stream, &request("GET", "/v2", &[], b"")).error(404);
}
