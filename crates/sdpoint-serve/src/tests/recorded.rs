//! Requests of real clients, byte for byte as `tests/serve/run record` has kept them.

use std::io::{Read, Write};
use std::path::Path;

use prost::Message;
use sdpoint::Instance;

use super::support::*;
use crate::protocol::grpc::inference::ModelInferResponse;
use crate::testing;

fn recorded(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tests/recorded");
    std::fs::read(folder.join(name)).unwrap()
}

/// What the library says of the image that the clients have sent.
fn expected() -> Vec<f32> {
    let pixels: Vec<u8> = (0..32 * 32 * 3)
        .map(|at: usize| (at * 7 % 256) as u8)
        .collect();
    let image = sdpoint::Image::new(32, 32, pixels).unwrap();
    let engine = testing::engine();
    let inputs = engine.prepare([&image]).unwrap();
    engine
        .run(&inputs, Instance::Full)
        .unwrap()
        .predictions
        .logits(0)
        .to_vec()
}

#[test]
fn json_of_real_clients_is_answered() {
    let server = start(options());
    for name in ["tritonclient-http-json.bin", "kserve-json.bin"] {
        let answer = exchange(&mut server.connect(), &recorded(name)).ok();
        assert_eq!(answer["id"], "7", "{name}");
        assert_close(&output(&answer, "logits"), &expected());
    }
}

#[test]
fn binary_tensors_of_real_clients_are_answered() {
    let server = start(options());
    for name in ["tritonclient-http-binary.bin", "kserve-binary.bin"] {
        let answer = exchange(&mut server.connect(), &recorded(name));
        assert_eq!(answer.status, 200, "{name}");
        let Some(length) = answer.header("inference-header-content-length") else {
            // KServe's client sends bytes and wants JSON.
            assert_close(&output(&answer.json(), "logits"), &expected());
            continue;
        };
        let (_, tail) = answer.body.split_at(length.parse().unwrap());
        let values = tail
            .as_chunks::<4>()
            .0
            .iter()
            .map(|&bytes| f32::from_le_bytes(bytes));
        assert_close(&values.collect::<Vec<f32>>(), &expected());
    }
}

/// The client's bytes are those of HTTP/2 frames; of the server's, the data frames are
/// enough to know the answer.
#[test]
fn messages_of_a_real_grpc_client_are_answered() {
    let server = start(options());
    let mut stream = connect(server.addresses.grpc.unwrap());
    stream
        .write_all(&recorded("tritonclient-grpc.bin"))
        .unwrap();
    let mut message = Vec::new();
    loop {
        let mut head = [0; 9];
        stream
            .read_exact(&mut head)
            .expect("the answer has a message");
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).unwrap();
        const DATA: u8 = 0;
        if head[3] == DATA {
            message.extend(payload);
        }
        // One byte for compression, four for the length.
        if let Some(length) = message.get(1..5).and_then(|bytes| bytes.first_chunk()) {
            let length = u32::from_be_bytes(*length) as usize;
            if message.len() >= 5 + length {
                break;
            }
        }
    }
    let answer = ModelInferResponse::decode(&message[5..]).unwrap();
    assert_eq!(
        (answer.model_name.as_str(), answer.id.as_str()),
        ("small", "7")
    );
    let raw = &answer.raw_output_contents[0];
    let values = raw
        .as_chunks::<4>()
        .0
        .iter()
        .map(|&bytes| f32::from_le_bytes(bytes));
    assert_close(&values.collect::<Vec<f32>>(), &expected());
}
