use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn parse(json: &Value, binary: &[u8]) -> Result<InferRequest, ApiError> {
    JsonRequest::parse(json.to_string().as_bytes())?.into_request(Bytes::copy_from_slice(binary))
}

fn input(datatype: &str, shape: &Value, data: &Value) -> Value {
    json!({"inputs": [{"name": "x", "datatype": datatype, "shape": shape, "data": data}]})
}

#[track_caller]
fn refused(json: &Value, binary: &[u8], text: &str) {
    let error = parse(json, binary).unwrap_err().message;
    assert!(error.contains(text), "'{text}' is not in: {error}");
}

#[test]
fn every_field_arrives() {
    let request = parse(
        &json!({
            "id": "42",
            "parameters": {"deadline_ms": 8.5, "late": true, "timeout": 7, "instance": "full"},
            "inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1, 2.5, -3, 4]}],
            "outputs": [{"name": "logits", "parameters": {"classification": 2}}, {"name": "b"}],
            "model_name": "small", "model_version": null,
        }),
        &[],
    )
    .unwrap();
    assert_eq!(request.id.as_deref(), Some("42"));
    let parameters: Parameters = [
        ("deadline_ms".into(), Parameter::Double(8.5)),
        ("late".into(), Parameter::Bool(true)),
        ("timeout".into(), Parameter::Int(7)),
        ("instance".into(), "full".into()),
    ]
    .into();
    assert_eq!(request.parameters, parameters);
    assert_eq!(request.inputs[0].shape, [2, 2]);
    assert_eq!(
        request.inputs[0].data,
        Data::Floats(vec![1.0, 2.5, -3.0, 4.0])
    );
    let classification = &request.outputs[0].parameters["classification"];
    assert_eq!(*classification, Parameter::Int(2));
    assert_eq!(request.outputs[1].name, "b");
}

#[test]
fn what_may_be_left_out_may_be_null() {
    let request = parse(
        &json!({
            "id": null, "parameters": null, "outputs": null,
            "inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "parameters": null,
                        "data": [1]}],
        }),
        &[],
    );
    assert_eq!(request.unwrap().id, None);
}

#[test]
fn elements_are_flat_or_nested_as_the_shape_is() {
    let shape = json!([2, 1, 3]);
    let flat = parse(&input("FP32", &shape, &json!([1, 2, 3, 4, 5, 6])), &[]).unwrap();
    let nested = parse(
        &input("FP32", &shape, &json!([[[1, 2, 3]], [[4, 5, 6]]])),
        &[],
    )
    .unwrap();
    assert_eq!(flat, nested);
    for (data, text) in [
        (json!([[1, 2, 3], [4, 5, 6]]), "nested as [2,3]"),
        (json!([[[1, 2, 3]], [[4, 5]]]), "differ in length"),
        (json!([[[1, 2, 3]], [4, 5, 6]]), "same depth"),
        (json!([[1], 2]), "same depth"),
        (json!([2, [1]]), "same depth"),
        (json!(1), "must be a list"),
        (json!({"a": 1}), "numbers or strings"),
        (json!([true]), "numbers or strings"),
        (json!([null]), "numbers or strings"),
        (json!([1, "a"]), "mixes"),
        (json!(["a", 1]), "mixes"),
        (json!([1e39]), "beyond the range"),
    ] {
        refused(&input("FP32", &shape, &data), &[], text);
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let text = format!(
        r#"{{"inputs": [{{"name": "x", "shape": [1], "datatype": "FP32", "data": {deep}}}]}}"#
    );
    assert!(JsonRequest::parse(text.as_bytes()).is_err());
}

#[test]
fn byte_strings_are_base64() {
    for text in ["/9g=", "/9g"] {
        let request = parse(&input("BYTES", &json!([1]), &json!([text])), &[]).unwrap();
        let file = Bytes::from_static(&[0xff, 0xd8]);
        assert_eq!(request.inputs[0].data, Data::Strings(vec![file]));
    }
    refused(
        &input("BYTES", &json!([1]), &json!(["a file"])),
        &[],
        "base64",
    );
    refused(&input("BYTES", &json!([1]), &json!([1])), &[], "base64");
    refused(&input("FP32", &json!([1]), &json!(["1"])), &[], "numbers");
}

#[test]
fn binary_tensors_follow_in_order() {
    let tensor = |name: &str, size: Value| {
        json!({"name": name, "shape": [1], "datatype": "UINT8",
               "parameters": {"binary_data_size": size}})
    };
    let two = json!({"inputs": [tensor("a", json!(1)), tensor("b", json!(2))]});
    let request = parse(&two, b"abb").unwrap();
    let raw = |bytes: &'static [u8]| Data::Raw(Bytes::from_static(bytes));
    assert_eq!(request.inputs[0].data, raw(b"a"));
    assert_eq!(request.inputs[1].data, raw(b"bb"));
    refused(&two, b"abbb", "1 bytes after");
    refused(&two, b"ab", "only 1 bytes are left");
    for size in [json!(-1), json!(1.5), json!("x"), json!(true)] {
        refused(
            &json!({"inputs": [tensor("a", size)]}),
            b"a",
            "whole number",
        );
    }
    let huge = json!({"inputs": [tensor("a", json!(u64::MAX))]});
    refused(&huge, b"a", "only 1 bytes");
    let mut both = two.clone();
    both["inputs"][0]["data"] = json!([1]);
    refused(&both, b"abb", "both");
    let neither = json!({"inputs": [{"name": "a", "shape": [1], "datatype": "UINT8"}]});
    refused(&neither, b"", "neither");
}

#[test]
fn lists_are_bounded() {
    let output = json!({"name": "logits"});
    let many = json!({"inputs": [], "outputs": vec![output; 17]});
    refused(&many, &[], "at most 16");
    let shape = json!({"inputs": [{"name": "", "shape": vec![1; 17], "datatype": "FP32"}]});
    refused(&shape, &[], "at most 16");
    let parameters: serde_json::Map<String, Value> =
        (0..65).map(|key| (key.to_string(), json!(1))).collect();
    refused(
        &json!({"inputs": [], "parameters": parameters}),
        &[],
        "at most 64",
    );
}

#[test]
fn fields_of_another_type_are_named() {
    for (json, text) in [
        (
            json!([]),
            "with the key 'inputs'; to send an image file, set the header",
        ),
        (json!({}), "the JSON has no 'inputs' at line 1 column 2"),
        (
            json!({"inputs": {}}),
            "'inputs' must be a list of at most 16, not an object at line 1 column 10",
        ),
        (
            json!({"inputs": ["x"]}),
            "'inputs' must be a list of objects, not a string",
        ),
        (
            json!({"inputs": [], "outputs": 1}),
            "'outputs' must be a list of at most 16, not 1",
        ),
        (
            json!({"inputs": [], "id": 42}),
            "'id' must be a string, not 42",
        ),
        (
            json!({"inputs": [], "parameters": {"a": [1]}}),
            "parameter 'a' must be true, false, a number or a string, not a list",
        ),
        (
            json!({"inputs": [], "parameters": 1.5}),
            "'parameters' must be an object of at most 64 parameters, not 1.5",
        ),
        (
            json!({"inputs": [{"shape": [1], "datatype": "FP32"}]}),
            "'inputs' has no 'name'",
        ),
        (
            json!({"inputs": [{"name": "", "shape": [-1], "datatype": "FP32"}]}),
            "'shape' must be a list of whole numbers of at least 0, not -1",
        ),
        (
            json!({"inputs": [{"name": "", "shape": [1.5], "datatype": "FP32"}]}),
            "'shape' must be a list of whole numbers of at least 0, not 1.5",
        ),
        (
            json!({"inputs": [{"name": "", "shape": true, "datatype": "FP32"}]}),
            "'shape' must be a list of at most 16, not true",
        ),
        (
            json!({"inputs": [{"name": "", "shape": [1], "datatype": "FP32", "data": {}}]}),
            "'data' must be numbers or strings, in a flat list or nested like the shape, not an object",
        ),
        (input("FLOAT", &json!([1]), &json!([1])), "'FLOAT'"),
    ] {
        refused(&json, &[], text);
    }
    // A list is refused at its start, not read into memory.
    let long = json!({"inputs": [], "parameters": {"a": vec![0; 100_000]}});
    refused(
        &long,
        &[],
        "true, false, a number or a string, not a list at line 1 column",
    );
    let nan = br#"{"inputs": [{"name":"x","shape":[1],"datatype":"FP32","data":[NaN]}]}"#;
    assert!(JsonRequest::parse(nan).is_err());
}

#[test]
fn unknown_and_repeated_keys_are_named() {
    for (json, text) in [
        (
            json!({"inputs": [], "macs": 1}),
            "unknown key 'macs' in the JSON, expected one of 'id',",
        ),
        (
            json!({"inputs": [{"name": "", "budget": 1}]}),
            "unknown key 'budget' in 'inputs'",
        ),
        (
            json!({"inputs": [], "outputs": [{"name": "", "classification": 1}]}),
            "unknown key 'classification' in 'outputs', expected 'name' or 'parameters' at line 1",
        ),
    ] {
        refused(&json, &[], text);
    }
    for (json, text) in [
        (
            r#"{"inputs": [], "inputs": []}"#,
            "the JSON has more than one 'inputs'",
        ),
        (
            r#"{"inputs": [], "parameters": {"macs": 1, "macs": 2}}"#,
            "'macs' is given twice",
        ),
    ] {
        let error = JsonRequest::parse(json.as_bytes()).unwrap_err().message;
        assert!(error.contains(text), "'{text}' is not in: {error}");
    }
    // The answer does not repeat what is long.
    let long = json!({"inputs": [], "`, expected ".repeat(9999): 1});
    let error = parse(&long, &[]).unwrap_err().message;
    assert!(error.len() < 400, "{}", error.len());
}

proptest! {
    #[test]
    fn any_bytes_give_a_request_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = JsonRequest::parse(&bytes);
    }

    /// Cutting and altering a good request never panics.
    #[test]
    fn damaged_requests_give_a_request_or_an_error(
        end in 0usize..200, at in 0usize..200, byte in any::<u8>(), tail in 0usize..9,
    ) {
        let good = json!({
            "id": "1", "parameters": {"a": 1},
            "inputs": [{"name": "x", "shape": [2, 1], "datatype": "UINT8",
                        "parameters": {"binary_data_size": 2}, "data": [[1], [2]]}],
        });
        let mut text = good.to_string().into_bytes();
        text.truncate(end.max(1));
        let at = at % text.len();
        text[at] = byte;
        if let Ok(request) = JsonRequest::parse(&text) {
            let _ = request.into_request(vec![0; tail].into());
        }
    }
}
