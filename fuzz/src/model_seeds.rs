//! Writes small model files to start from: `model_seeds FOLDER`.

use std::path::PathBuf;

use sdpoint::engine::initial_weights;
use sdpoint::{
    Cascade, Combination, CombinedRecord, Conv, EvalTransform, Instance, Model, NetworkBuilder, Op,
    PointId, Preprocessing, Ratio, Record, Statistics, TrainTransform,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or("name a folder")?);
    std::fs::create_dir_all(&folder)?;
    let mut model = model()?;
    model.save(folder.join("plain"))?;
    let [first, second] = [1, 0].map(|index| model.instances[index].instance);
    let cascade = Combination::Cascade(Cascade {
        first,
        second,
        threshold: 0.5,
    });
    for combination in [cascade, Combination::Ensemble(vec![first, second])] {
        model.combinations.push(CombinedRecord {
            combination,
            macs: 100,
            top1: 0.5,
            top5: 1.0,
            loss: 0.7,
        });
    }
    model.save(folder.join("combined"))?;
    Ok(())
}

fn model() -> Result<Model, Box<dyn std::error::Error>> {
    let mut b = NetworkBuilder::new("small", 3);
    let x = b.conv("conv1", b.input(), Conv::square(3, 1, 1, 1));
    let y = b.batch_norm("bn1", x, 1);
    let sum = b.add("add", y, x);
    b.point(PointId::Block(0), sum);
    let y = b.batch_norm("bn2", sum, 1);
    let y = b.layer("pool", Op::GlobalAvgPool, &[y]);
    let op = Op::Linear {
        in_features: 1,
        out_features: 2,
        bias: true,
    };
    b.layer("fc", op, &[y]);
    let network = b.finish()?;
    let all = network.instances(&[Ratio::DEFAULT[0]]);
    let statistics = Statistics::identity_for(&network, &all);
    let mut instances = Vec::new();
    for instance in all {
        let macs = network.cost([4, 4], instance)?.macs;
        instances.push(Record::unmeasured(instance, macs));
    }
    assert_eq!(instances[0].instance, Instance::Full);
    Ok(Model {
        weights: initial_weights(&network, 0),
        network,
        statistics,
        classes: vec!["cat".into(), "dog".into()],
        preprocessing: Preprocessing {
            size: [4, 4],
            mean: vec![0.5; 3],
            std: vec![0.5; 3],
            train: TrainTransform::None,
            evaluate: EvalTransform::Resize,
        },
        instances,
        combinations: Vec::new(),
        training: "seed".into(),
    })
}
