//! Consistency checks of a model, before it is written and after it is read.

use std::collections::HashSet;

use super::{KeptImage, Model};
use crate::combination::{BlendedCascade, Combination, CombinedRecord};
use crate::held_out::HeldOut;
use crate::instance::Instance;
use crate::network::Network;
use crate::preprocessing::Preprocessing;
use crate::record::{Record, Scores};
use crate::shapes::ShapeError;
use crate::weights::Moments;

/// An inconsistency of a model.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Misfit {
    /// The number of class names is not the number of logits.
    #[error("it names {names} classes, but the network has {outputs} outputs")]
    Classes {
        /// The number of class names.
        names: usize,
        /// The number of logits.
        outputs: usize,
    },
    /// The preprocessing does not produce inputs of the network.
    #[error("its preprocessing is wrong: {0}")]
    Preprocessing(String),
    /// The network does not accept images of the preprocessing's size.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// There is no instance `full`, which the others share statistics with.
    #[error("it lacks the instance full")]
    NoFull,
    /// An instance is listed twice.
    #[error("it lists the instance {0} twice")]
    Repeated(Instance),
    /// An instance downsamples at a point that the network does not have.
    #[error("its instance {instance} is at a point that {network} does not have")]
    UnknownPoint {
        /// The instance.
        instance: Instance,
        /// The network's name.
        network: String,
    },
    /// A listed instance has no batch-norm statistics.
    #[error("its instance {0} has no batch-norm statistics: calibrate it")]
    NoStatistics(Instance),
    /// There are statistics of an instance that is not listed.
    #[error("it has statistics of {0}, but does not list that instance")]
    Unlisted(Instance),
    /// An instance is listed among those with parameters of their own without
    /// being able to have any: it is `full`, not listed as an instance, or listed
    /// twice.
    #[error("its instance {0} cannot have parameters of its own: it is full, unlisted or repeated")]
    OwnParameters(Instance),
    /// A measurement is out of range.
    #[error("the {what} of its instance {instance} is {value}, which is impossible")]
    Measurement {
        /// The instance.
        instance: Instance,
        /// The name of the measurement.
        what: &'static str,
        /// Its value.
        value: f64,
    },
    /// A measurement on test images is out of range.
    #[error("the {what} of {name} on test images is {value}, which is impossible")]
    TestMeasurement {
        /// The instance or the combination.
        name: String,
        /// The name of the measurement.
        what: &'static str,
        /// Its value.
        value: f64,
    },
    /// A cascade or an ensemble is invalid.
    #[error("its combination {combination} {problem}")]
    Combination {
        /// The combination.
        combination: Box<Combination>,
        /// What is wrong with it.
        problem: String,
    },
    /// The share of images held out of training is invalid.
    #[error("it names {0}")]
    HeldOut(String),
    /// Accuracies on test images are recorded apart from those on images held out
    /// of training, but none were held out.
    #[error("it has test accuracies of {0} apart from others, but no images held out of training")]
    NothingHeldOut(String),
    /// A test image is invalid, or there are too many.
    #[error("its test images cannot be used: {0}")]
    Samples(String),
    /// A tensor that the network needs is missing.
    #[error("tensor '{0}' is missing")]
    Missing(String),
    /// There are tensors that the network does not use.
    #[error("tensor '{tensor}' does not belong to the network ({count} such tensors in total)")]
    LeftOver {
        /// The first by name.
        tensor: String,
        /// The number of such tensors.
        count: usize,
    },
    /// A tensor has the wrong shape.
    #[error("tensor '{tensor}' has shape {found:?}, but the network needs {expected:?}")]
    TensorShape {
        /// The tensor.
        tensor: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that the network needs.
        expected: Vec<usize>,
    },
    /// A tensor has a value that is infinite or NaN.
    #[error("tensor '{0}' holds values that are not finite")]
    NotFinite(String),
    /// A variance is below zero.
    #[error("tensor '{0}' holds variances below zero")]
    NegativeVariance(String),
    /// There are more tensors than a safetensors header can list.
    #[error("its {0} instances need a longer header than safetensors allows: list fewer")]
    TooManyInstances(usize),
}

/// Checks everything but weights and statistics.
pub(super) fn description(
    network: &Network,
    classes: &[String],
    preprocessing: &Preprocessing,
    instances: &[Record],
) -> Result<(), Misfit> {
    if classes.len() != network.classes() {
        return Err(Misfit::Classes {
            names: classes.len(),
            outputs: network.classes(),
        });
    }
    preprocessing
        .check(network.input_channels())
        .map_err(Misfit::Preprocessing)?;
    network.shapes(preprocessing.size, Instance::Full)?;
    let points: HashSet<_> = network.points().iter().map(|point| point.id()).collect();
    let mut seen = HashSet::new();
    for record in instances {
        let instance = record.instance;
        if !seen.insert(instance) {
            return Err(Misfit::Repeated(instance));
        }
        if instance.point().is_some_and(|id| !points.contains(&id)) {
            return Err(Misfit::UnknownPoint {
                instance,
                network: network.name().to_owned(),
            });
        }
        for (what, value, most) in [
            ("top1", record.top1, 1.0),
            ("top5", record.top5, 1.0),
            ("loss", record.loss, f64::MAX),
        ] {
            if let Some(value) = value
                && !(0.0..=most).contains(&value)
            {
                return Err(Misfit::Measurement {
                    instance,
                    what,
                    value,
                });
            }
        }
    }
    if seen.contains(&Instance::Full) {
        Ok(())
    } else {
        Err(Misfit::NoFull)
    }
}

/// Checks that combinations consist of listed instances and that their
/// measurements are in range.
pub(super) fn combinations(
    instances: &[Record],
    combinations: &[CombinedRecord],
) -> Result<(), Misfit> {
    let listed: HashSet<Instance> = instances.iter().map(|record| record.instance).collect();
    for record in combinations {
        let refuse = |problem: String| {
            let combination = Box::new(record.combination.clone());
            Err(Misfit::Combination {
                combination,
                problem,
            })
        };
        let members = record.combination.members();
        if members.is_empty() {
            return refuse("has no instances".into());
        }
        if let Some(unknown) = members.iter().find(|member| !listed.contains(member)) {
            return refuse(format!("has the instance {unknown}, which is not listed"));
        }
        let threshold = match &record.combination {
            Combination::Cascade(cascade) => cascade.threshold,
            Combination::Ensemble(_) | Combination::BlendedCascade(_) => 0.0,
        };
        if let Combination::BlendedCascade(cascade) = &record.combination
            && let Some(problem) = problem_of_stages(cascade)
        {
            return refuse(problem);
        }
        for (what, value, most) in [
            ("threshold", threshold, f64::MAX),
            ("top1", record.top1, 1.0),
            ("top5", record.top5, 1.0),
            ("loss", record.loss, f64::MAX),
        ] {
            if !(0.0..=most).contains(&value) {
                return refuse(format!("has a {what} of {value}, which is impossible"));
            }
        }
    }
    Ok(())
}

/// Checks the images held out of training, and the measurements on test images
/// that a model then has besides.
pub(super) fn held_out(
    held_out: Option<HeldOut>,
    instances: &[Record],
    combinations: &[CombinedRecord],
) -> Result<(), Misfit> {
    if let Some(held_out) = held_out {
        held_out.check().map_err(Misfit::HeldOut)?;
    }
    let of_instances = instances.iter().filter_map(|record| {
        let test = record.test?;
        Some((record.instance.to_string(), test))
    });
    let of_combinations = combinations.iter().filter_map(|record| {
        let test = record.test?;
        Some((record.combination.to_string(), test))
    });
    for (name, scores) in of_instances.chain(of_combinations) {
        if held_out.is_none() {
            return Err(Misfit::NothingHeldOut(name));
        }
        let Scores { top1, top5, loss } = scores;
        for (what, value, most) in [
            ("top1", top1, 1.0),
            ("top5", top5, 1.0),
            ("loss", loss, f64::MAX),
        ] {
            if !(0.0..=most).contains(&value) {
                return Err(Misfit::TestMeasurement { name, what, value });
            }
        }
    }
    Ok(())
}

/// Checks the number of test images, and that they are of known classes and small PNG files.
pub(super) fn samples(classes: &[String], samples: &[KeptImage]) -> Result<(), Misfit> {
    let refuse = |problem: String| Err(Misfit::Samples(problem));
    let (most, most_bytes) = (KeptImage::MOST, KeptImage::MOST_BYTES);
    if samples.len() > most {
        return refuse(format!("there are {} of at most {most}", samples.len()));
    }
    for (index, sample) in samples.iter().enumerate() {
        if sample.label >= classes.len() {
            return refuse(format!("number {index} is of class {}", sample.label));
        }
        if !sample.png.starts_with(b"\x89PNG\r\n\x1a\n") {
            return refuse(format!("number {index} is not a PNG file"));
        }
        if sample.png.len() > most_bytes {
            let bytes = sample.png.len();
            return refuse(format!(
                "number {index} has {bytes} of at most {most_bytes} bytes"
            ));
        }
    }
    Ok(())
}

/// What is wrong with the stages of a cascade, if anything.
fn problem_of_stages(cascade: &BlendedCascade) -> Option<String> {
    let instances = cascade.instances();
    let repeats = |(index, instance)| instances[..index].contains(instance);
    if instances.iter().enumerate().any(repeats) {
        return Some("runs an instance twice".into());
    }
    if cascade.first.weight != 1.0 {
        let weight = cascade.first.weight;
        return Some(format!(
            "has a weight of {weight} in its first stage, not 1"
        ));
    }
    for stage in cascade.stages() {
        // Bounds that no fit comes near, and that keep logits finite.
        for (what, value, range) in [
            ("temperature", stage.temperature, 1e-3..=1e3),
            ("weight", stage.weight, 0.0..=1.0),
            ("margin", stage.margin, 0.0..=f64::MAX),
        ] {
            if !range.contains(&value) {
                return Some(format!("has a {what} of {value}, which is impossible"));
            }
        }
    }
    None
}

/// Checks that the instances with parameters of their own are listed once, and
/// are not `full`.
pub(super) fn own_parameters(instances: &[Record], tuned: &[Instance]) -> Result<(), Misfit> {
    let mut left: HashSet<Instance> = instances.iter().map(|record| record.instance).collect();
    left.remove(&Instance::Full);
    match tuned.iter().find(|&instance| !left.remove(instance)) {
        Some(&instance) => Err(Misfit::OwnParameters(instance)),
        None => Ok(()),
    }
}

/// Checks that weights and statistics are those that the network and the listed
/// instances need. Only a model in memory can fail this; in a file, tensors are
/// found by name.
pub(super) fn tensors(model: &Model) -> Result<(), Misfit> {
    let parameters = model.network.parameters();
    for (index, parameter) in parameters.iter().enumerate() {
        let name = || parameter.name.clone();
        let data = model.weights.0.get(index);
        let data = data.ok_or_else(|| Misfit::Missing(name()))?;
        if data.len() != parameter.len() {
            return Err(Misfit::TensorShape {
                tensor: name(),
                found: vec![data.len()],
                expected: parameter.shape.clone(),
            });
        }
    }
    if model.weights.0.len() > parameters.len() {
        return Err(Misfit::LeftOver {
            tensor: format!("parameter {}", parameters.len()),
            count: model.weights.0.len() - parameters.len(),
        });
    }
    let norms = model.network.norms();
    for record in &model.instances {
        let instance = record.instance;
        let range = model.network.own_norms(instance);
        let fits = model.statistics.own(instance).is_some_and(|(has, own)| {
            let sized = |moments: &Moments, channels| {
                moments.mean.len() == channels && moments.var.len() == channels
            };
            has == range
                && std::iter::zip(own, &norms[range.clone()])
                    .all(|(moments, norm)| sized(moments, norm.channels))
        });
        if !fits {
            return Err(Misfit::NoStatistics(instance));
        }
    }
    let tuned: Vec<Instance> = model.statistics.tuned().collect();
    own_parameters(&model.instances, &tuned)?;
    for instance in tuned {
        let own = model.statistics.parameters(instance).into_iter().flatten();
        let fits = own.clone().all(|(&index, values)| {
            let parameter = parameters.get(index);
            parameter.is_some_and(|parameter| parameter.len() == values.len())
        });
        let expected = model.network.own_parameters(instance);
        if !fits || !own.map(|(index, _)| index).eq(&expected) {
            return Err(Misfit::OwnParameters(instance));
        }
    }
    let listed: HashSet<Instance> = model.instances.iter().map(|r| r.instance).collect();
    match model.statistics.instances().find(|i| !listed.contains(i)) {
        Some(instance) => Err(Misfit::Unlisted(instance)),
        None => Ok(()),
    }
}

/// Checks values of one tensor.
pub(super) fn values(name: &str, values: &[f32]) -> Result<(), Misfit> {
    // Without an exit within a chunk, so that it is compiled to vectors.
    let finite = |chunk: &[f32]| {
        chunk
            .iter()
            .fold(true, |all, value| all & value.is_finite())
    };
    if !values.chunks(1 << 10).all(finite) {
        return Err(Misfit::NotFinite(name.to_owned()));
    }
    if name.ends_with(".running_var") && values.iter().any(|&value| value < 0.0) {
        return Err(Misfit::NegativeVariance(name.to_owned()));
    }
    Ok(())
}
