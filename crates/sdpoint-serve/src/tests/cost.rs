//! What a request may cost, and what it gets.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sdpoint::core::{Cascade, Combination, CombinedRecord};
use sdpoint::{Instance, Model};
use serde_json::{Value, json};

use super::support::*;
use crate::server::Options;
use crate::{Constraints, Limits, Mode, Refusal, Scheduler, SchedulerOptions, testing};

#[test]
fn parameters_choose_the_instance() {
    let server = start(options());
    for (parameters, instance, macs) in [
        (json!({"instance": "1@0.5"}), "1@0.5", 200_784),
        (json!({"budget": "70%"}), "0@0.5", 157_776),
        (json!({"budget": 0.9}), "1@0.5", 200_784),
        (json!({"macs": 160_000}), "0@0.5", 157_776),
        (json!({"macs": "0.2M"}), "0@0.5", 157_776),
        (json!({"min_accuracy": 0.1385}), "1@0.5", 200_784),
    ] {
        let answer = server.infer(&pixels_request(1, parameters.clone())).ok();
        let said = &answer["parameters"];
        assert_eq!(said["instance"], instance, "{parameters}");
        assert_eq!(said["macs"], macs);
        assert!(said["accuracy"].as_f64().unwrap() > 0.1);
        for time in ["queue_us", "compute_us"] {
            assert!(said[time].as_u64().unwrap() < 10_000_000, "{said}");
        }
        let expected = logits(1, instance.parse().unwrap());
        assert_close(&output(&answer, "logits"), &expected);
    }
}

#[test]
fn a_cascade_reports_its_instances() {
    let server = start(options());
    let answer = server
        .infer(&pixels_request(1, json!({"cascade": "80%"})))
        .ok();
    let instance = answer["parameters"]["instance"].as_str().unwrap();
    assert!(["0@0.5", "2@0.5"].contains(&instance), "{instance}");
    let expected = logits(1, instance.parse().unwrap());
    assert_close(&output(&answer, "logits"), &expected);
}

/// A combination is chosen although a cheaper one is more accurate.
#[test]
fn a_combination_is_run_by_its_name() {
    let mut model = Model::load(testing::model_file()).unwrap();
    let ensemble = |names: &[&str], macs, top1| CombinedRecord {
        combination: Combination::Ensemble(names.iter().map(|n| n.parse().unwrap()).collect()),
        macs,
        top1,
        top5: 1.0,
        loss: 1.0,
        test: None,
    };
    let cascade = |threshold, macs| CombinedRecord {
        combination: Combination::Cascade(Cascade {
            first: "0@0.5".parse().unwrap(),
            second: Instance::Full,
            threshold,
        }),
        ..ensemble(&[], macs, 0.13)
    };
    model.combinations = vec![
        ensemble(&["0@0.5", "2@0.5"], 300_000, 0.9),
        ensemble(&["0@0.5", "full"], 400_000, 0.5),
        cascade(0.0, 160_000),
        cascade(1.0, 250_000),
    ];
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("small.safetensors");
    model.save(&file).unwrap();
    let executor = Arc::new(testing::Direct::new(None, 100));
    let server = start_unloaded(options(), executor, &[("small", file)]);
    assert!(server.handle.registry().load_all().is_empty());
    for (value, instance, accuracy) in [
        (json!("0@0.5+full"), "0@0.5+full", 0.5),
        (json!(1), "0@0.5+full", 0.5),
        (json!("0@0.5+2@0.5"), "0@0.5+2@0.5", 0.9),
        // Of the same name, but one is always sure and the other never.
        (json!(2), "0@0.5", 0.13),
        (json!(3), "full", 0.13),
    ] {
        let request = pixels_request(1, json!({"combination": value}));
        let said = &server.infer(&request).ok()["parameters"];
        assert_eq!(said["instance"], instance, "{value}");
        assert_eq!(said["accuracy"], accuracy, "{value}");
    }
    let unescaped = server.post("/predict?combination=0@0.5+full", &[], &png(2));
    assert_eq!(unescaped.ok()["instance"], "0@0.5+full");
    let request = pixels_request(1, json!({"combination": "0@0.5>full"}));
    let error = server.infer(&request).error(400);
    assert!(error.contains("by its number: 2 or 3"), "{error}");
}

#[test]
fn impossible_constraints_are_explained() {
    let server = start(options());
    for (parameters, text) in [
        (json!({"budget": "1%"}), "cheapest"),
        (json!({"instance": "9@0.5"}), "nearest"),
        (json!({"min_accuracy": "99%"}), "most accurate"),
        (json!({"instance": "full", "macs": 200_000}), "together"),
        (json!({"cascade": "1%"}), "cascade"),
        (
            json!({"cascade": "80%", "budget": "80%"}),
            "cannot be combined",
        ),
        (json!({"budgets": "80%"}), "'budgets'"),
    ] {
        let error = server.infer(&pixels_request(1, parameters)).error(400);
        assert!(error.contains(text), "'{text}' is not in: {error}");
    }
    let sequence = server.infer(&pixels_request(1, json!({"sequence_id": 7})));
    sequence.error(501);
}

/// What the executor is handed for a request.
fn job(parameters: Value) -> crate::Job {
    let held = Arc::new(Held::default());
    let server = start_with(options(), held.clone());
    let mut stream = server.connect();
    let body = pixels_request(1, parameters).to_string();
    let path = "/v2/models/small/infer";
    std::io::Write::write_all(&mut stream, &request("POST", path, &[], body.as_bytes())).unwrap();
    eventually("the job arrives", || held.count() == 1);
    held.jobs.lock().unwrap().pop().unwrap().job
}

#[test]
fn the_executor_gets_all_constraints() {
    let plain = job(json!({}));
    assert_eq!(
        (plain.deadline, plain.late, plain.mode),
        (None, false, Mode::Instance)
    );
    assert_eq!(plain.constraints, Constraints::default());
    let bound = job(json!({
        "deadline_ms": 5000, "timeout": 9_000_000, "late": true, "budget": "90%",
        "min_accuracy": 0.13,
    }));
    let time = bound.deadline.unwrap().duration_since(bound.arrival);
    assert_eq!(time, Duration::from_secs(5));
    assert!(bound.late);
    let expected = Constraints {
        instance: None,
        max_macs: Some(219_412),
        min_accuracy: Some(0.13),
    };
    assert_eq!(bound.constraints, expected);
    let cascade = job(json!({"cascade": 0.8}));
    assert_eq!(cascade.mode, Mode::Combination(0));
    let named = job(json!({"combination": "0@0.5+2@0.5", "deadline_ms": 9000, "late": true}));
    assert_eq!(named.mode, Mode::Combination(1));
    assert!(named.late && named.deadline.is_some());
}

#[test]
fn expired_requests_are_not_computed() {
    let server = start(options());
    // Whatever is decoded, the deadline is long over.
    let mut request = pixels_request(1, json!({"timeout": 1}));
    server.infer(&request).error(504);
    request["parameters"] = json!({"timeout": 1, "late": true});
    server.infer(&request).ok();
    let expired = "sdpoint_requests_total{model=\"small\",outcome=\"expired\"}";
    assert!((server.metric(expired) - 1.0).abs() < 1e-9);
    let missed = "sdpoint_deadlines_total{model=\"small\",met=\"false\"}";
    assert!((server.metric(missed) - 2.0).abs() < 1e-9);
}

#[test]
fn a_refusal_suggests_when_to_retry() {
    let held = Arc::new(Held::default());
    let server = start_with(options(), held.clone());
    for (refusal, status, retry) in [
        (
            Refusal::Overloaded {
                reason: "too many requests wait".into(),
                late: false,
                retry_after: Duration::from_millis(1200),
            },
            503,
            Some("2"),
        ),
        (Refusal::Expired, 504, None),
        (Refusal::NoInstance("no instance".into()), 400, None),
        (Refusal::Unavailable, 503, None),
        (Refusal::Failed("it broke".into()), 500, None),
    ] {
        *held.refusal.lock().unwrap() = Some(refusal.clone());
        let answer = server.infer(&pixels_request(1, json!({})));
        assert_eq!(answer.error(status), refusal.to_string());
        assert_eq!(answer.header("retry-after"), retry);
    }
    for (outcome, count) in [("shed", 1), ("expired", 1), ("invalid", 1), ("failed", 1)] {
        let name = format!("sdpoint_requests_total{{model=\"small\",outcome=\"{outcome}\"}}");
        assert_eq!(server.metric(&name) as u64, count, "{outcome}");
    }
}

#[test]
fn disconnected_clients_cancel_their_jobs() {
    let held = Arc::new(Held::default());
    let server = start_with(options(), held.clone());
    let body = pixels_request(1, json!({})).to_string();
    for number in 1..=3 {
        let mut stream = server.connect();
        let path = "/v2/models/small/infer";
        let bytes = request("POST", path, &[], body.as_bytes());
        std::io::Write::write_all(&mut stream, &bytes).unwrap();
        eventually("the job arrives", || held.count() == number);
        drop(stream);
        eventually("the job is given up", || {
            held.jobs.lock().unwrap()[number - 1].answer.is_closed()
        });
    }
    eventually("cancellations are counted", || {
        let name = "sdpoint_requests_total{model=\"small\",outcome=\"cancelled\"}";
        server.metric(name) as u64 == 3
    });
    assert_eq!(server.metric("sdpoint_in_flight_requests") as u64, 0);
    assert_eq!(server.metric("sdpoint_request_memory_bytes") as u64, 0);
}

/// A photo that takes longer to decode than the shortest objectives.
fn photo() -> Vec<u8> {
    static PHOTO: OnceLock<Vec<u8>> = OnceLock::new();
    let encode = || {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, 4000, 4000);
        encoder.set_color(png::ColorType::Rgb);
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(&vec![128; 48_000_000]).unwrap();
        writer.finish().unwrap();
        file
    };
    PHOTO.get_or_init(encode).clone()
}

/// A server that has a millisecond for requests without a deadline, and decodes one file at a
/// time.
fn hurried() -> Running {
    let objective = Duration::from_millis(1);
    let scheduler = Scheduler::start(SchedulerOptions {
        objective,
        ..SchedulerOptions::default()
    });
    let options = Options {
        objective,
        limits: Limits {
            decoders: 1,
            ..Limits::default()
        },
        ..options()
    };
    start_with(options, Arc::new(scheduler.unwrap()))
}

#[test]
fn without_a_deadline_a_photo_is_answered_however_long_it_takes_to_arrive_and_decode() {
    let server = hurried();
    let photo = photo();
    server.post("/predict", &[], &photo).ok();
    let mut slow = server.connect();
    let bytes = request("POST", "/predict", &[], &png(1));
    let (start, end) = bytes.split_at(bytes.len() - 10);
    std::io::Write::write_all(&mut slow, start).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    exchange(&mut slow, end).ok();
    let images: Vec<u8> = (0..100).flat_map(pixels).collect();
    let mut many = pixels_request(1, json!({}));
    many["inputs"][0]["shape"] = json!([100, 32, 32, 3]);
    many["inputs"][0]["data"] = json!(images);
    server.infer(&many).ok();
    // A deadline of its own bounds the whole answer.
    server
        .post("/predict?deadline_ms=1", &[], &photo)
        .error(504);
}

#[test]
fn photos_that_wait_for_longer_than_the_objective_make_room_for_others() {
    let server = hurried();
    let bytes = request("POST", "/predict", &[], &photo());
    let late = request("POST", "/predict?late=true", &[], &photo());
    // The file and its preprocessed pixels.
    let counted = (photo().len() + 4 * 32 * 32 * 3) as f64;
    let mut streams = [&bytes, &bytes, &late, &bytes].map(|bytes| {
        let mut stream = server.connect();
        let before = server.metric("sdpoint_request_memory_bytes");
        std::io::Write::write_all(&mut stream, bytes).unwrap();
        eventually("the file has arrived", || {
            server.metric("sdpoint_request_memory_bytes") >= before + counted
        });
        stream
    });
    let answers = streams
        .each_mut()
        .map(|stream| read_answer(stream).unwrap());
    let statuses = answers.each_ref().map(|answer| answer.status);
    assert_eq!(statuses, [200, 503, 200, 200]);
    let error = answers[1].error(503);
    assert!(error.contains("'late'"), "{error}");
}
