//! One instance of a network as an ONNX model.
//!
//! Batch norms after a convolution are folded into it; the others remain batch
//! norms. The size of images is that of the model's preprocessing; the batch
//! size is dynamic. Only operators that every runtime supports are used.

mod fold;
mod graph;
mod lower;
mod pool;
mod proto;

use sdpoint_core::seal::{BLANK, SEAL, seal};
use sdpoint_core::{Instance, Model, Record};

use crate::error::ExportError;
use crate::preprocessing::ExportedPreprocessing;
use proto::{Message, entry};

/// The opset version, that of ONNX 1.12 (2022).
const OPSET: u64 = 17;

/// The version of the format that came with [`OPSET`].
const IR_VERSION: u64 = 8;

/// The name of the input: normalised images, `[batch, colours, height, width]`.
pub const ONNX_INPUT: &str = "images";

/// The name of the output: logits, `[batch, classes]`.
pub const ONNX_OUTPUT: &str = "logits";

/// The size limit of protocol buffers.
const MAX_BYTES: usize = i32::MAX as usize;

/// An instance of a model as the bytes of an ONNX file.
///
/// The metadata has, as JSON unless it is plain text: `network`,
/// `instance`, `macs`, `classes` in the order of the logits, `preprocessing` as
/// [`ExportedPreprocessing`], and a [seal](sdpoint_core::seal).
///
/// # Errors
/// If the model does not have the instance, or is too large for ONNX.
pub fn onnx(model: &Model, instance: Instance) -> Result<Vec<u8>, ExportError> {
    let record = model
        .record(instance)
        .ok_or(ExportError::NoInstance(instance))?;
    if model.weights.count().saturating_mul(size_of::<f32>()) > MAX_BYTES {
        return Err(ExportError::TooLarge);
    }
    let mut message = Message::default();
    message.int(1, IR_VERSION);
    message.text(2, "sdpoint");
    message.text(3, env!("CARGO_PKG_VERSION"));
    for (key, value) in metadata(model, record)? {
        message.message(14, &entry(key, &value));
    }
    let mut operators = Message::default();
    operators.int(2, OPSET);
    message.message(8, &operators);

    let graph = lower::graph(model, instance)?;
    let network = &model.network;
    let [height, width] = model.preprocessing.size;
    let input = [network.input_channels(), height, width];
    let graph = graph.finish(
        &format!("{}-{instance}", network.name()),
        (ONNX_INPUT, &input),
        (ONNX_OUTPUT, &[network.classes()]),
    );
    message.message(7, &graph);
    let mut bytes = message.into_bytes();
    seal(&mut bytes);
    if bytes.len() > MAX_BYTES {
        return Err(ExportError::TooLarge);
    }
    Ok(bytes)
}

fn metadata(model: &Model, record: &Record) -> Result<[(&'static str, String); 6], ExportError> {
    Ok([
        (SEAL, BLANK.to_owned()),
        ("network", model.network.name().to_owned()),
        ("instance", record.instance.to_string()),
        ("macs", record.macs.to_string()),
        ("classes", serde_json::to_string(&model.classes)?),
        (
            "preprocessing",
            serde_json::to_string(&ExportedPreprocessing::from(&model.preprocessing))?,
        ),
    ])
}
