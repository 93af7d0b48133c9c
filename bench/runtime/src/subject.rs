//! The network that is measured: ResNet-50 at 224 with random weights. Times
//! and memory do not depend on them; accuracies are made up, see [`accuracy`].

use sdpoint::core::{EvalTransform, Preprocessing, Ratio, TrainTransform};
use sdpoint::engine::initial_weights;
use sdpoint::{Images, Instance, Model, zoo};

pub const SIZE: [usize; 2] = [224, 224];

/// The synthetic accuracy of an instance with a share of the cost: a curve that
/// rises and flattens, from 64 % at no cost to 76 %. Only its order and slope
/// matter here.
fn accuracy(share: f64) -> f64 {
    0.76 - 0.12 * (1.0 - share).powi(2)
}

/// ResNet-50 with the 35 instances of the ratios 0.5 and 0.75, or `full` alone.
pub fn model(all: bool) -> anyhow::Result<Model> {
    let network = zoo::build("resnet50", 1000)?;
    let mut instances = network.instances(&Ratio::DEFAULT);
    instances.truncate(if all { instances.len() } else { 1 });
    let preprocessing = Preprocessing {
        train: TrainTransform::None,
        evaluate: EvalTransform::Resize,
        ..Preprocessing::new(SIZE, vec![0.5; 3], vec![0.25; 3])
    };
    let weights = initial_weights(&network, 0);
    let full = network.cost(SIZE, Instance::Full)?;
    let mut model = Model::new(network, weights, preprocessing, &instances)?;
    for record in &mut model.instances {
        let share = record.macs as f64 / full.macs as f64;
        record.top1 = Some(accuracy(share));
    }
    Ok(model)
}

/// One image.
pub fn image() -> Vec<f32> {
    (0..SIZE[0] * SIZE[1] * 3)
        .map(|i| (i * 7919 % 1999) as f32 / 999.0 - 1.0)
        .collect()
}

pub fn images(data: &[f32]) -> Images<'_> {
    Images {
        data,
        batch: 1,
        size: SIZE,
    }
}

/// A quantile of the numbers.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}

pub fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let (mut sum, mut count) = (0.0, 0);
    for value in values {
        sum += value;
        count += 1;
    }
    sum / f64::from(count.max(1))
}
