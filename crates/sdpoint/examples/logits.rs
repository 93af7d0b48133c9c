//! Computes the logits of a batch of preprocessed images, for comparison with
//! other programs.
//!
//! ```sh
//! cargo run --release --example logits -- MODEL INSTANCE HEIGHT WIDTH < images.f32 > logits.f32
//! ```
//!
//! Input and output are little-endian f32 values: normalised images in NCHW
//! order, and a row of logits for each image.

use std::error::Error;
use std::io::{Read, Write};
use std::sync::Arc;

use sdpoint::engine::InferenceEngine;
use sdpoint::{Context, Images, Instance, Model};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, instance, height, width] = &arguments[..] else {
        return Err("give MODEL INSTANCE HEIGHT WIDTH".into());
    };
    let instance: Instance = instance.parse()?;
    let size: [usize; 2] = [height.parse()?, width.parse()?];
    let model = Model::load(model)?;
    let colours = model.network.input_channels();

    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes)?;
    let (values, _) = bytes.as_chunks::<4>();
    let places = size[0] * size[1];
    let batch = values.len() / (colours * places);
    // NCHW to NHWC.
    let pixels = (0..batch * places).flat_map(|pixel| {
        let (image, place) = (pixel / places, pixel % places);
        (0..colours).map(move |colour| (image * colours + colour) * places + place)
    });
    let data: Vec<f32> = pixels
        .map(|place| f32::from_le_bytes(values[place]))
        .collect();

    let ctx = Arc::new(Context::new(None)?);
    let network = Arc::new(model.network);
    let engine = InferenceEngine::new(ctx, network, &model.weights, &model.statistics)?;
    let images = Images {
        data: &data,
        batch,
        size,
    };
    let logits = engine.run(images, instance)?;
    let bytes: Vec<u8> = logits
        .iter()
        .flat_map(|logit| logit.to_le_bytes())
        .collect();
    std::io::stdout().write_all(&bytes)?;
    Ok(())
}
