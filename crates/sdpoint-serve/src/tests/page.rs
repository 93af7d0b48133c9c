//! The page, and the endpoints that it reads.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use sdpoint::Model;
use sdpoint::core::KeptImage;
use serde_json::json;

use super::support::*;
use crate::server::Options;
use crate::testing::{self, Direct};
use crate::{Refusal, Tokens};

fn with_token(token: &str) -> Options {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "{token}").unwrap();
    Options {
        tokens: Tokens::read(file.path()).unwrap(),
        ..options()
    }
}

#[test]
fn the_page_and_its_files_are_served_with_a_strict_policy() {
    let server = start(options());
    let page = server.get("/");
    assert_eq!(page.status, 200);
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    let html = String::from_utf8(page.body).unwrap();
    let linked: Vec<&str> = html
        .split('"')
        .filter(|part| part.starts_with("/page/"))
        .collect();
    assert!(linked.len() >= 3, "{linked:?}");
    for path in linked {
        let file = server.get(path);
        assert_eq!(file.status, 200, "{path}");
        let policy = file.header("content-security-policy").unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"));
        assert_eq!(file.header("x-content-type-options"), Some("nosniff"));
    }
    assert_eq!(server.get("/page/none.js").status, 404);
    assert_eq!(server.post("/", &[], b"").status, 405);
}

#[test]
fn the_page_needs_no_token_but_what_it_shows_does() {
    let token = "0123456789abcdef";
    let server = start(with_token(token));
    assert_eq!(server.get("/").status, 200);
    assert_eq!(server.get("/page/main.js").status, 200);
    let bearer = format!("Bearer {token}");
    for path in [
        "/models",
        "/models/small",
        "/models/small/load",
        "/models/small/samples/0",
        "/page/",
        "/pages",
    ] {
        server.get(path).error(401);
    }
    for path in ["/models", "/models/small", "/models/small/load"] {
        let request = request("GET", path, &[("Authorization", &bearer)], b"");
        exchange(&mut server.connect(), &request).ok();
    }
}

#[test]
fn other_host_names_see_nothing() {
    let server = start(options());
    let get = |path: &str, host: &str| {
        let text = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n");
        exchange(&mut server.connect(), text.as_bytes())
    };
    for path in ["/", "/page/main.js", "/models", "/models/small"] {
        assert!(get(path, "evil.example").error(403).contains("local name"));
        assert_eq!(get(path, "127.0.0.1:8080").status, 200);
    }
    // Programs may use any name.
    assert_eq!(get("/v2/models/small", "service.example").status, 200);
    let other = start(with_token("0123456789abcdef"));
    let text = b"GET / HTTP/1.1\r\nHost: cats.example\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(exchange(&mut other.connect(), text).status, 200);
}

#[test]
fn models_are_listed_with_the_limits() {
    let executor = Arc::new(Direct::new(None, 100));
    let models = [
        ("one", testing::model_file()),
        ("two", testing::model_file()),
    ];
    let server = start_unloaded(options(), executor, &models);
    server.handle.registry().load("one").unwrap();
    server.handle.registry().unload("two").unwrap();
    let list = server.get("/models").ok();
    let generation = &server.get("/models/one").ok()["generation"];
    assert!(generation.is_u64());
    assert_eq!(
        list["models"][0],
        json!({"name": "one", "state": "ready", "reason": null, "generation": generation})
    );
    assert_eq!(list["models"][1]["state"], "unavailable");
    assert_eq!(list["models"][1]["reason"], "the model was unloaded");
    assert_eq!(list["objective_ms"], 10_000.0);
    assert_eq!(list["max_images"], 256);
    assert_eq!(list["max_pixels"], 1 << 24);
    server.get("/models/two").error(503);
    assert!(server.get("/models/cats").error(404).contains("cats"));
    server.get("/models/cats/load").error(404);
}

#[test]
fn a_curve_has_every_instance_and_combination() {
    let server = start(options());
    let model = server.get("/models/small").ok();
    assert_eq!(model["input"], json!([32, 32]));
    assert_eq!(model["classes"], 10);
    assert_eq!(model["samples"], json!([]));
    assert_eq!(model["exif_orientation"], "ignore");
    let rows = model["instances"].as_array().unwrap();
    let names: Vec<&str> = rows
        .iter()
        .map(|row| row["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "full",
            "0@0.5",
            "1@0.5",
            "2@0.5",
            "0@0.5>2@0.5",
            "0@0.5+2@0.5"
        ]
    );
    let kinds: Vec<&str> = rows
        .iter()
        .map(|row| row["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds[3..], ["instance", "cascade", "ensemble"]);
    let numbers: Vec<_> = rows.iter().map(|row| row["combination"].as_u64()).collect();
    assert_eq!(numbers, [None, None, None, None, Some(0), Some(1)]);
    let number = |row: usize, key: &str| rows[row][key].as_f64().unwrap();
    assert_eq!((number(0, "share"), number(0, "top1")), (1.0, 0.1235));
    assert!(rows.iter().all(|row| row["ms"].as_f64().unwrap() > 0.0));
    // A cascade takes at least as long as its first instance, an ensemble longer.
    assert!(number(4, "ms") >= number(1, "ms"));
    assert!(number(5, "ms") > number(1, "ms"));
}

#[test]
fn load_is_counted_by_second_and_instance() {
    let server = start(options());
    let load = server.get("/models/small/load").ok();
    assert_eq!(load["seconds"], json!([]));
    assert_eq!(
        (&load["in_time"], &load["p99_ms"]),
        (&json!(null), &json!(null))
    );
    for number in 0..3 {
        server
            .infer(&pixels_request(number, json!({"instance": "0@0.5"})))
            .ok();
    }
    server
        .infer(&pixels_request(0, json!({"ensemble": "200%"})))
        .ok();
    // Invalid requests are no load.
    server.infer(&json!({"inputs": []})).error(400);
    let load = server.get("/models/small/load").ok();
    let seconds = load["seconds"].as_array().unwrap();
    let sum = |of: &dyn Fn(&serde_json::Value) -> &serde_json::Value| {
        seconds
            .iter()
            .filter_map(|second| of(second).as_u64())
            .sum::<u64>()
    };
    assert_eq!(sum(&|second| &second["answered"]), 4);
    assert_eq!(sum(&|second| &second["in_time"]), 4);
    assert_eq!(sum(&|second| &second["refused"]), 0);
    assert_eq!(sum(&|second| &second["images"]["0@0.5"]), 3);
    assert_eq!(sum(&|second| &second["images"]["0@0.5+2@0.5"]), 1);
    assert!(
        seconds
            .iter()
            .all(|s| s["p50_ms"].as_f64() <= s["p99_ms"].as_f64())
    );
    let last = seconds.last().unwrap()["at"].as_u64().unwrap();
    let after = server.get(&format!("/models/small/load?after={last}")).ok();
    assert_eq!(after["seconds"], json!([]));
    for bad in ["?after=x", "?after=-1", "?since=3"] {
        server.get(&format!("/models/small/load{bad}")).error(400);
    }
}

#[test]
fn refused_requests_and_the_queue_are_shown() {
    let held = Arc::new(Held::default());
    let server = start_with(options(), held.clone());
    let body = pixels_request(1, json!({})).to_string();
    let bytes = request("POST", "/v2/models/small/infer", &[], body.as_bytes());
    let mut stream = server.connect();
    stream.write_all(&bytes).unwrap();
    eventually("the job arrives", || held.count() == 1);
    assert_eq!(server.get("/models/small/load").ok()["queued_images"], 1);
    *held.refusal.lock().unwrap() = Some(Refusal::Overloaded {
        reason: "the queue is full".into(),
        late: false,
        retry_after: Duration::from_secs(1),
    });
    server.infer(&pixels_request(1, json!({}))).error(503);
    let load = server.get("/models/small/load").ok();
    let last = load["seconds"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&last["refused"], &last["refused_images"]),
        (&json!(1), &json!(1))
    );
    held.answer_all();
    read_answer(&mut stream).unwrap().ok();
}

#[test]
fn kept_test_images_are_served_as_files() {
    let mut model = Model::load(testing::model_file()).unwrap();
    model.classes[3] = "<img src=x onerror=alert(1)>".into();
    model.samples = vec![KeptImage {
        label: 3,
        png: png(5),
    }];
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("small.safetensors");
    model.save(&file).unwrap();
    let executor = Arc::new(Direct::new(None, 100));
    let server = start_unloaded(options(), executor, &[("small", file)]);
    assert!(server.handle.registry().load_all().is_empty());
    let samples = &server.get("/models/small").ok()["samples"];
    assert_eq!(*samples, json!([{"label": 3, "class": model.classes[3]}]));
    let image = server.get("/models/small/samples/0");
    assert_eq!(image.status, 200);
    assert_eq!(image.header("content-type"), Some("image/png"));
    assert_eq!(image.body, png(5));
    for missing in ["1", "-1", "x", "99999999999999999999"] {
        let error = server
            .get(&format!("/models/small/samples/{missing}"))
            .error(404);
        assert!(error.contains("has 1 test image,"), "{error}");
    }
}

#[test]
fn an_ensemble_answers_with_the_mean() {
    let server = start(options());
    let answer = server
        .post("/predict?ensemble=150%25&top=10", &[], &png(2))
        .ok();
    assert_eq!(answer["instance"], "0@0.5+2@0.5");
    assert_eq!(answer["accuracy"], 0.133);
    let engine = testing::engine();
    let inputs = engine.decode([png(2)]).unwrap();
    let members = ["0@0.5", "2@0.5"].map(|name| name.parse().unwrap());
    let expected = engine.run_ensemble(&inputs, &members).unwrap();
    let expected = expected.predictions.top(0, 1)[0].probability;
    let actual = answer["images"][0]["top"][0]["probability"]
        .as_f64()
        .unwrap();
    assert!((actual - f64::from(expected)).abs() < 1e-5);
    for (query, part) in [
        ("combination=full%2Bfull", "0@0.5>2@0.5, 0@0.5+2@0.5"),
        ("combination=2", "no combination number 2"),
        ("combination=1&budget=70%25", "cannot be combined"),
        ("combination=1&instance=full", "cannot be combined"),
        ("combination=1&cascade=90%25", "cannot be combined"),
        ("ensemble=1%25", "ensemble"),
        ("ensemble=many", "150%"),
        ("ensemble=200%25&cascade=90%25", "cannot be combined"),
        ("ensemble=200%25&instance=full", "cannot be combined"),
    ] {
        let error = server
            .post(&format!("/predict?{query}"), &[], &png(2))
            .error(400);
        assert!(error.contains(part), "{error}");
    }
}
