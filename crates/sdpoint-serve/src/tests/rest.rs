//! The protocol over HTTP.

use std::io::Write;

use sdpoint::Instance;
use serde_json::{Value, json};

use super::support::*;

/// Pixels as the model's normalised values, NCHW.
fn planes(number: usize) -> Vec<f32> {
    let engine = crate::testing::engine();
    let preprocessing = engine.preprocessing();
    let pixels = pixels(number);
    let value = |channel: usize, cell: usize| {
        let (mean, std) = (preprocessing.mean[channel], preprocessing.std[channel]);
        (f32::from(pixels[3 * cell + channel]) / 255.0 - mean) / std
    };
    (0..3)
        .flat_map(|channel| (0..1024).map(move |cell| value(channel, cell)))
        .collect()
}

#[test]
fn metadata_describes_server_and_models() {
    let server = start(options());
    for path in ["/v2", "/v2/"] {
        let body = server.get(path).ok();
        assert_eq!(body["name"], "sdpoint");
        assert_eq!(body["version"], env!("CARGO_PKG_VERSION"));
        let extensions = body["extensions"].as_array().unwrap();
        assert!(extensions.contains(&json!("binary_tensor_data")));
        assert!(extensions.contains(&json!("statistics")));
    }
    assert_eq!(server.get("/v2/health/live").ok()["live"], true);
    assert_eq!(server.get("/v2/health/ready").ok()["ready"], true);
    for prefix in ["/v2/models/small", "/v2/models/small/versions/1"] {
        let ready = server.get(&format!("{prefix}/ready")).ok();
        assert_eq!(ready, json!({"name": "small", "ready": true}));
        let metadata = server.get(prefix).ok();
        assert_eq!(metadata["name"], "small");
        assert_eq!(metadata["versions"], json!(["1"]));
        let inputs = json!([
            {"name": "images", "datatype": "FP32", "shape": [-1, 3, 32, 32]},
            {"name": "pixels", "datatype": "UINT8", "shape": [-1, 32, 32, 3]},
            {"name": "encoded", "datatype": "BYTES", "shape": [-1]},
        ]);
        assert_eq!(metadata["inputs"], inputs);
        let outputs = json!([
            {"name": "logits", "datatype": "FP32", "shape": [-1, 10]},
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]},
        ]);
        assert_eq!(metadata["outputs"], outputs);
        let config = server.get(&format!("{prefix}/config")).ok();
        assert_eq!(config["max_batch_size"], 0);
        assert_eq!(config["input"][0]["dims"], json!([-1, 3, 32, 32]));
        assert!(
            config["input"]
                .as_array()
                .unwrap()
                .iter()
                .all(|i| i["optional"] == true)
        );
    }
}

#[test]
fn unknown_paths_and_methods_get_json_errors() {
    let server = start(options());
    server.get("/nothing").error(404);
    for kind in ["systemsharedmemory", "cudasharedmemory"] {
        let status = server.get(&format!("/v2/{kind}/status")).error(501);
        assert!(status.contains("shared memory"), "{status}");
        let register = format!("/v2/{kind}/region/a/register");
        server.post(&register, &[], b"{}").error(501);
    }
    assert!(server.get("/v2/models/cats").error(404).contains("'cats'"));
    assert!(
        server
            .get("/v2/models/small/versions/2")
            .error(404)
            .contains("version 1")
    );
    server.get("/v2/models/small/infer").error(405);
    server.post("/v2", &[], b"").error(405);
    assert!(
        server
            .post("/v2/models/cats/infer", &[], b"{}")
            .error(404)
            .contains("'cats'")
    );
    for path in [
        "/v2/models/%ff",
        "/v2/models/..%2f..%2fetc",
        "/v2/models/a%0d%0ab",
    ] {
        let answer = server.get(path);
        assert!((400..=404).contains(&answer.status), "{path}");
        assert!(answer.json()["error"].is_string());
    }
    let long = format!("/v2/models/{}", "x".repeat(10_000));
    assert!(server.get(&long).error(404).len() < 200);
}

#[test]
fn every_form_of_an_image_gives_the_same() {
    let server = start(options());
    let full = json!({"instance": "full"});
    let expected = logits(5, Instance::Full);
    let base64 = {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(png(5))
    };
    let planes = planes(5);
    let rows: Vec<Value> = planes
        .chunks(1024)
        .map(|channel| json!(channel.chunks(32).collect::<Vec<_>>()))
        .collect();
    for (name, datatype, shape, data) in [
        ("images", "FP32", json!([1, 3, 32, 32]), json!(planes)),
        ("images", "FP32", json!([1, 3, 32, 32]), json!([rows])),
        ("pixels", "UINT8", json!([1, 32, 32, 3]), json!(pixels(5))),
        ("encoded", "BYTES", json!([1]), json!([base64])),
    ] {
        let answer = server.infer(&json!({
            "parameters": full,
            "inputs": [{"name": name, "datatype": datatype, "shape": shape, "data": data}],
        }));
        let answer = answer.ok();
        assert_eq!(answer["model_name"], "small");
        assert_eq!(answer["model_version"], "1");
        assert!(answer.get("id").is_none());
        assert_close(&output(&answer, "logits"), &expected);
        let sum: f32 = output(&answer, "probabilities").iter().sum();
        assert!((sum - 1.0).abs() < 1e-5);
    }
    let raw: Vec<u8> = planes
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let file = png(5);
    let framed = [&(file.len() as u32).to_le_bytes()[..], &file].concat();
    for (name, datatype, shape, tail) in [
        ("images", "FP32", json!([1, 3, 32, 32]), raw),
        ("pixels", "UINT8", json!([1, 32, 32, 3]), pixels(5)),
        ("encoded", "BYTES", json!([1]), framed),
    ] {
        let answer = binary(&server, name, datatype, &shape, &tail, &json!({}));
        assert_close(&binary_output(&answer, 0), &expected);
    }
}

/// An inference request with a binary tensor, and binary outputs.
fn binary(
    server: &Running,
    name: &str,
    datatype: &str,
    shape: &Value,
    tail: &[u8],
    more: &Value,
) -> Answer {
    let mut head = json!({
        "id": "b",
        "parameters": {"binary_data_output": true, "instance": "full"},
        "inputs": [{"name": name, "datatype": datatype, "shape": shape,
                    "parameters": {"binary_data_size": tail.len()}}],
    });
    if let Some(more) = more.as_object() {
        head.as_object_mut().unwrap().extend(more.clone());
    }
    let head = head.to_string();
    let length = head.len().to_string();
    let headers = [
        ("Inference-Header-Content-Length", length.as_str()),
        ("Content-Type", "application/octet-stream"),
    ];
    server.post(
        "/v2/models/small/infer",
        &headers,
        &[head.as_bytes(), tail].concat(),
    )
}

/// The head of a binary answer, and what follows it.
fn divided(answer: &Answer) -> (Value, &[u8]) {
    assert_eq!(
        answer.status,
        200,
        "{}",
        String::from_utf8_lossy(&answer.body)
    );
    let length = answer.header("inference-header-content-length").unwrap();
    let (head, tail) = answer.body.split_at(length.parse().unwrap());
    (serde_json::from_slice(head).unwrap(), tail)
}

fn binary_output(answer: &Answer, number: usize) -> Vec<f32> {
    let (head, mut tail) = divided(answer);
    for output in head["outputs"].as_array().unwrap().iter().take(number) {
        tail = &tail[output["parameters"]["binary_data_size"].as_u64().unwrap() as usize..];
    }
    let size = &head["outputs"][number]["parameters"]["binary_data_size"];
    let (values, _) = tail[..size.as_u64().unwrap() as usize].as_chunks::<4>();
    values
        .iter()
        .map(|&bytes| f32::from_le_bytes(bytes))
        .collect()
}

#[test]
fn outputs_are_those_requested_in_the_form_requested() {
    let server = start(options());
    let outputs = json!({"outputs": [
        {"name": "probabilities", "parameters": {"classification": 3}},
        {"name": "logits", "parameters": {"binary_data": false}},
    ]});
    let answer = binary(
        &server,
        "pixels",
        "UINT8",
        &json!([1, 32, 32, 3]),
        &pixels(7),
        &outputs,
    );
    let (head, tail) = divided(&answer);
    assert_eq!(head["id"], "b");
    assert_eq!(head["outputs"][0]["datatype"], "BYTES");
    assert_eq!(head["outputs"][0]["shape"], json!([1, 3]));
    assert_close(&output(&head, "logits"), &logits(7, Instance::Full));
    let length = u32::from_le_bytes(*tail.first_chunk().unwrap()) as usize;
    let first = std::str::from_utf8(&tail[4..4 + length]).unwrap();
    let (value, rest) = first.split_once(':').unwrap();
    let (index, class) = rest.split_once(':').unwrap();
    assert_eq!(
        crate::testing::engine().classes()[index.parse::<usize>().unwrap()],
        class
    );
    assert!(value.parse::<f32>().unwrap() > 0.1);
    let many = json!({"outputs": [{"name": "logits", "parameters": {"classification": 99}}]});
    let mut request = pixels_request(7, json!({}));
    request["outputs"] = many["outputs"].clone();
    let answer = server.infer(&request).ok();
    assert_eq!(answer["outputs"][0]["shape"], json!([1, 10]));
    assert_eq!(answer["outputs"][0]["data"].as_array().unwrap().len(), 10);
    assert_eq!(answer["id"], "7");
}

#[test]
fn a_body_without_json_is_an_image() {
    let server = start(options());
    let headers = [("Inference-Header-Content-Length", "0")];
    let answer = server.post("/v2/models/small/infer", &headers, &png(2));
    let (head, _) = divided(&answer);
    assert_eq!(head["outputs"].as_array().unwrap().len(), 2);
    assert_eq!(binary_output(&answer, 0).len(), 10);
}

#[test]
fn the_query_of_an_inference_has_parameters() {
    let server = start(options());
    let infer = |query: &str, headers: &[(&str, &str)], body: &[u8]| {
        server.post(&format!("/v2/models/small/infer?{query}"), headers, body)
    };
    let raw = [("Inference-Header-Content-Length", "0")];
    let answer = infer("instance=0@0.5", &raw, &png(2));
    let (head, _) = divided(&answer);
    assert_eq!(head["parameters"]["instance"], "0@0.5");
    let answer = infer("binary_data_output=false&budget=80%25", &raw, &png(2)).ok();
    assert_eq!(answer["parameters"]["instance"], "0@0.5");
    let json = pixels_request(2, json!({"deadline_ms": 60_000})).to_string();
    let answer = infer("instance=full", &[], json.as_bytes()).ok();
    assert_eq!(answer["parameters"]["instance"], "full");
    for (query, problem) in [
        ("deadline_ms=9", "'deadline_ms' is given twice"),
        ("macs=1M&macs=2M", "'macs' is given twice"),
        ("model=small", "unknown parameter 'model'"),
    ] {
        let error = infer(query, &[], json.as_bytes()).error(400);
        assert!(error.contains(problem), "{error}");
    }
}

#[test]
fn several_images_are_answered_in_order() {
    let server = start(options());
    let all: Vec<u8> = (0..5).flat_map(pixels).collect();
    let answer = binary(
        &server,
        "pixels",
        "UINT8",
        &json!([5, 32, 32, 3]),
        &all,
        &json!({}),
    );
    let values = binary_output(&answer, 0);
    for (number, row) in values.chunks(10).enumerate() {
        assert_close(row, &logits(number, Instance::Full));
    }
}

#[test]
fn bodies_may_be_compressed() {
    let server = start(options());
    let body = pixels_request(3, json!({"instance": "full"})).to_string();
    let expected = logits(3, Instance::Full);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(body.as_bytes()).unwrap();
    let mut deflate = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    deflate.write_all(body.as_bytes()).unwrap();
    for (encoding, body) in [
        ("gzip", gzip.finish().unwrap()),
        ("deflate", deflate.finish().unwrap()),
        ("identity", body.into_bytes()),
    ] {
        let headers = [("Content-Encoding", encoding)];
        let answer = server.post("/v2/models/small/infer", &headers, &body);
        assert_close(&output(&answer.ok(), "logits"), &expected);
        let damaged = server.post("/v2/models/small/infer", &headers, &body[..body.len() / 2]);
        assert_eq!(damaged.status, 400);
    }
    let unknown = server.post(
        "/v2/models/small/infer",
        &[("Content-Encoding", "br")],
        b"x",
    );
    assert!(unknown.error(415).contains("'br'"));
}

#[test]
fn non_finite_outputs_need_the_binary_form() {
    let server = start(options());
    let huge: Vec<u8> = std::iter::repeat_n(f32::MAX.to_le_bytes(), 3072)
        .flatten()
        .collect();
    let shape = json!([1, 3, 32, 32]);
    let answer = binary(&server, "images", "FP32", &shape, &huge, &json!({}));
    assert_eq!(binary_output(&answer, 0).len(), 10);
    let plain = json!({"parameters": {}});
    let answer = binary(&server, "images", "FP32", &shape, &huge, &plain);
    assert!(answer.error(400).contains("binary data"));
}

#[test]
fn inputs_must_be_finite() {
    let server = start(options());
    for value in [f32::NAN, f32::INFINITY] {
        let mut values = planes(1);
        values[1024 + 33] = value;
        let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let shape = json!([1, 3, 32, 32]);
        let answer = binary(&server, "images", "FP32", &shape, &raw, &json!({}));
        let error = answer.error(400);
        assert!(
            error.contains("'images'") && error.contains("[0,1,1,1]"),
            "{error}"
        );
    }
}

#[test]
fn statistics_count_as_triton_does() {
    let server = start(options());
    for number in 0..3 {
        server.infer(&pixels_request(number, json!({}))).ok();
    }
    server.infer(&json!({"inputs": []})).error(400);
    let all = server.get("/v2/models/stats").ok();
    let stats = server.get("/v2/models/small/stats").ok();
    assert_eq!(
        all["model_stats"][0]["name"],
        stats["model_stats"][0]["name"]
    );
    let stats = &stats["model_stats"][0];
    assert_eq!(
        (&stats["name"], &stats["version"]),
        (&json!("small"), &json!("1"))
    );
    assert_eq!(stats["inference_count"], 3);
    assert_eq!(stats["execution_count"], 3);
    assert_eq!(stats["inference_stats"]["success"]["count"], 3);
    assert_eq!(stats["inference_stats"]["fail"]["count"], 1);
    assert_eq!(stats["batch_stats"][0]["batch_size"], 1);
    assert_eq!(stats["batch_stats"][0]["compute_infer"]["count"], 3);
    assert!(
        stats["inference_stats"]["compute_infer"]["ns"]
            .as_u64()
            .unwrap()
            > 0
    );
}

#[test]
fn predict_takes_a_body_or_a_form() {
    let server = start(options());
    let answer = server
        .post("/predict?budget=80%25&top=2", &[], &png(4))
        .ok();
    assert_eq!(answer["model"], "small");
    assert_eq!(answer["instance"], "0@0.5");
    assert_eq!(answer["macs"], 157_776);
    let top = answer["images"][0]["top"].as_array().unwrap();
    assert_eq!(top.len(), 2);
    assert!(top[0]["probability"].as_f64() > top[1]["probability"].as_f64());
    let mut form = Vec::new();
    for (name, file, value) in [
        ("image", Some("a.png"), png(4)),
        ("image", Some("b.png"), png(5)),
        ("instance", None, b"full".to_vec()),
        ("top", None, b"1".to_vec()),
    ] {
        form.extend(b"--XyZ\r\nContent-Disposition: form-data; name=\"");
        form.extend(name.as_bytes());
        if let Some(file) = file {
            form.extend(b"\"; filename=\"");
            form.extend(file.as_bytes());
        }
        form.extend(b"\"\r\n\r\n");
        form.extend(value);
        form.extend(b"\r\n");
    }
    form.extend(b"--XyZ--\r\n");
    let headers = [("Content-Type", "multipart/form-data; boundary=XyZ")];
    let answer = server.post("/predict", &headers, &form).ok();
    assert_eq!(answer["instance"], "full");
    assert_eq!(answer["images"][1]["name"], "b.png");
    assert_eq!(answer["images"][0]["top"].as_array().unwrap().len(), 1);
    server
        .post("/predict", &headers, b"--XyZ\r\nnothing")
        .error(400);
    assert!(
        server
            .post("/predict", &[], b"")
            .error(400)
            .contains("no image")
    );
    assert!(
        server
            .post("/predict", &[], b"text")
            .error(400)
            .starts_with("the image is ")
    );
    let mut form = b"--XyZ\r\n".to_vec();
    for file in [png(1), b"text".to_vec(), png(2)] {
        form.extend(b"Content-Disposition: form-data; name=\"image\"; filename=\"a.png\"\r\n\r\n");
        form.extend(file);
        form.extend(b"\r\n--XyZ\r\n");
    }
    form.truncate(form.len() - 2);
    form.extend(b"--\r\n");
    let error = server.post("/predict", &headers, &form).error(400);
    assert!(error.starts_with("image 2 of 3 is "), "{error}");
    assert!(
        server
            .post("/predict?model=cats", &[], &png(1))
            .error(404)
            .contains("'cats'")
    );
    let error = server.post("/predict?size=3", &[], &png(1)).error(400);
    for text in ["'size'", "model, top, budget"] {
        assert!(error.contains(text), "{error}");
    }
    let error = server.post("/predict?top=0", &[], &png(1)).error(400);
    assert!(
        error.contains("'top' is '0'") && error.contains("at least 1"),
        "{error}"
    );
    let json = pixels_request(1, json!({})).to_string();
    let error = server.post("/predict", &[], json.as_bytes()).error(400);
    assert!(error.contains("/v2/models/NAME/infer"), "{error}");
}

#[test]
fn a_parameter_that_is_given_twice_is_named() {
    let server = start(options());
    for query in ["top=1&top=2", "model=small&model=small", "macs=1M&macs=9M"] {
        let error = server
            .post(&format!("/predict?{query}"), &[], &png(1))
            .error(400);
        let name = query.split('=').next().unwrap();
        assert_eq!(error, format!("parameter '{name}' is given twice"));
    }
    // Once in the query, and once in the form.
    let field = "--XyZ\r\nContent-Disposition: form-data; name=\"late\"\r\n\r\ntrue\r\n--XyZ--\r\n";
    let headers = [("Content-Type", "multipart/form-data; boundary=XyZ")];
    let error = server
        .post("/predict?late=false", &headers, field.as_bytes())
        .error(400);
    assert_eq!(error, "parameter 'late' is given twice");
}
