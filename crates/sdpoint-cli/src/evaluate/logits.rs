//! `evaluate --logits`: what instances predicted for each image, for analyses by other
//! programs.

use std::collections::HashMap;

use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize};
use sdpoint::Model;
use sdpoint::train::{Evaluation, Logits};

use crate::failure::{Class, Failure, Outcome};

/// The most bytes of logits, which are kept in memory until the end.
const MOST: usize = 4 << 30;

/// Refuses what would not fit into memory.
pub fn check_size(images: usize, classes: usize, instances: usize) -> Outcome {
    let bytes = 4.0 * images as f64 * classes as f64 * instances as f64;
    if bytes <= MOST as f64 {
        return Ok(());
    }
    Err(Failure::new(
        Class::Usage,
        format!(
            "--logits would keep {:.0} GiB: {images} images, {classes} classes, {instances} \
             instances",
            bytes / f64::from(1 << 30)
        ),
    )
    .hint("choose fewer instances, such as --instances full,0@0.5"))
}

/// The file: `labels` (I64), and `logits/INSTANCE` (F32, images times classes) for each
/// instance. Unreadable images are left out; the others are in the order of the data.
pub fn file(
    model: &Model,
    data: &str,
    evaluation: &Evaluation,
    logits: &Logits,
) -> Result<Vec<u8>, Failure> {
    let bytes: Vec<Vec<u8>> = (logits.of_instances.iter())
        .map(|values| values.iter().flat_map(|v| v.to_le_bytes()).collect())
        .collect();
    let labels: Vec<u8> = (logits.labels.iter())
        .flat_map(|&label| i64::from(label).to_le_bytes())
        .collect();
    let images = logits.labels.len();
    let shape = vec![images, model.classes.len()];
    let mut tensors = vec![("labels".to_owned(), Dtype::I64, vec![images], &labels)];
    for (record, bytes) in evaluation.records.iter().zip(&bytes) {
        let name = format!("logits/{}", record.instance);
        tensors.push((name, Dtype::F32, shape.clone(), bytes));
    }
    let tensors = tensors
        .into_iter()
        .map(|(name, dtype, shape, bytes)| Ok((name, TensorView::new(dtype, shape, bytes)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>();
    let about = [
        ("sdpoint_logits", "1"),
        ("network", model.network.name()),
        ("data", data),
    ];
    let about = HashMap::from(about.map(|(key, value)| (key.to_owned(), value.to_owned())));
    tensors
        .and_then(|tensors| serialize(tensors, Some(about)))
        .map_err(|error| Failure::new(Class::Model, error.to_string()))
}
