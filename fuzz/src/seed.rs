//! Small models to start from.

use sdpoint::core::{
    BlendedCascade, Cascade, Combination, CombinedRecord, Conv, EvalTransform, HeldOut,
    NetworkBuilder, Op, PointId, Preprocessing, Ratio, Stage, TrainTransform, Window,
};
use sdpoint::engine::initial_weights;
use sdpoint::{Instance, Model, Network, NetworkError, ShapeError};

type Failure = Box<dyn std::error::Error>;

/// Some fifty multiply-accumulates, one point.
pub fn small() -> Result<Model, Failure> {
    let mut b = NetworkBuilder::new("small", 3);
    let x = b.conv("conv1", b.input(), Conv::square(3, 1, 1, 1));
    let y = b.batch_norm("bn1", x, 1);
    let sum = b.add("add", y, x);
    b.point(PointId::Block(0), sum);
    let y = b.batch_norm("bn2", sum, 1);
    let y = b.layer("pool", Op::GlobalAvgPool, &[y]);
    b.layer("fc", linear(1, 2), &[y]);
    Ok(model(b.finish()?, [4, 4])?)
}

/// Every kind of layer, a stem, and two blocks.
pub fn varied() -> Result<Model, Failure> {
    Ok(model(varied_network()?, [9, 8])?)
}

fn varied_network() -> Result<Network, NetworkError> {
    let mut b = NetworkBuilder::new("varied", 2);
    let x = b.conv("conv1", b.input(), Conv::square(2, 4, 3, 1));
    let x = b.batch_norm("bn1", x, 4);
    let x = b.relu("relu1", x);
    let x = b.layer("maxpool", Op::MaxPool(Window::square(3, 2, 1)), &[x]);
    b.point(PointId::Stem, x);
    let y = b.conv("conv2", x, Conv::square(4, 4, 3, 1).grouped(4));
    let y = b.batch_norm("bn2", y, 4);
    let sum = b.add("add1", y, x);
    b.point(PointId::Block(0), sum);
    let x = b.relu("relu2", sum);
    let left = b.conv("conv3", x, Conv::square(4, 3, 1, 2));
    let right = b.layer("avgpool", Op::AvgPool(Window::square(2, 2, 0)), &[x]);
    let right = b.conv("conv4", right, Conv::square(4, 3, 1, 1));
    let x = b.layer("concat", Op::Concat, &[left, right]);
    b.point(PointId::Block(1), x);
    let x = b.batch_norm("bn3", x, 6);
    let x = b.layer("pool", Op::GlobalAvgPool, &[x]);
    b.layer("fc", linear(6, 3), &[x]);
    b.finish()
}

fn linear(in_features: usize, out_features: usize) -> Op {
    Op::Linear {
        in_features,
        out_features,
        bias: true,
    }
}

fn model(network: Network, size: [usize; 2]) -> Result<Model, ShapeError> {
    let instances = network.instances(&[Ratio::DEFAULT[0]]);
    let colours = network.input_channels();
    let preprocessing = Preprocessing {
        train: TrainTransform::None,
        evaluate: EvalTransform::Resize,
        ..Preprocessing::new(size, vec![0.5; colours], vec![0.5; colours])
    };
    let weights = initial_weights(&network, 0);
    let mut model = Model::new(network, weights, preprocessing, &instances)?;
    model.training = "seed".into();
    Ok(model)
}

/// The model with a cascade, an ensemble and a blended cascade of its first two
/// instances, of which the cheaper one has parameters of its own, and with images
/// held out.
pub fn combined(mut model: Model) -> Model {
    let [first, second] = [1, 0].map(|index| model.instances[index].instance);
    let cascade = Combination::Cascade(Cascade {
        first,
        second,
        threshold: 0.5,
    });
    let stage = |instance| Stage {
        instance,
        temperature: 1.5,
        weight: if instance == first { 1.0 } else { 0.5 },
        margin: 0.25,
    };
    let blended = Combination::BlendedCascade(BlendedCascade {
        first: stage(first),
        second: stage(second),
        third: None,
    });
    for combination in [cascade, Combination::Ensemble(vec![first, second]), blended] {
        model.combinations.push(CombinedRecord {
            combination,
            macs: 100,
            top1: 0.5,
            top5: 1.0,
            loss: 0.7,
            test: None,
        });
    }
    model.held_out = Some(HeldOut {
        share: 0.1,
        seed: 0,
    });
    let own = model.network.own_parameters(first).into_iter();
    let own = own.map(|index| (index, model.weights.0[index].clone()));
    let own = own.collect();
    let network = &model.network;
    model.statistics.set_parameters(network, first, own);
    for record in &mut model.instances {
        record.top1 = Some(if record.instance == Instance::Full {
            0.75
        } else {
            0.5
        });
    }
    model
}
