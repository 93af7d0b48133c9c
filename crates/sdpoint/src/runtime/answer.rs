//! The result of a run.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use sdpoint_core::Instance;

use super::Predictions;

/// The result of classifying a batch of images, whether in one instance, by a
/// deadline, by a cascade or by an ensemble.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Answer {
    /// The predicted classes of each image.
    pub predictions: Predictions,
    /// The instances that made the predictions.
    pub instances: AnsweredBy,
    /// Mean multiply-accumulates per image. Layers that several instances have
    /// in common are computed once and count once.
    pub macs: f64,
    /// Wall-clock time of the run.
    pub time: Duration,
}

/// Which instances made a batch's predictions.
///
/// It displays as `3@0.5` for one instance, as `0@0.5+full` for an ensemble,
/// and as `0@0.5 (5 images), full (3 images)` for a cascade.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AnsweredBy {
    /// One instance made all of them.
    Instance(Instance),
    /// A cascade: for each image, the instance that made its prediction, or the
    /// last one of those that are averaged.
    Cascade(Vec<Instance>),
    /// An ensemble: every prediction averages these instances.
    Ensemble(Vec<Instance>),
}

impl AnsweredBy {
    /// The instances behind the prediction of one image: a single one, or all
    /// members of an ensemble.
    ///
    /// # Panics
    /// If a cascade's batch has no such image.
    pub fn image(&self, image: usize) -> &[Instance] {
        match self {
            Self::Instance(instance) => std::slice::from_ref(instance),
            Self::Cascade(instances) => &instances[image..=image],
            Self::Ensemble(members) => members,
        }
    }

    /// The instance, if a single one made all predictions.
    pub fn single(&self) -> Option<Instance> {
        match self {
            Self::Instance(instance) => Some(*instance),
            Self::Cascade(instances) | Self::Ensemble(instances) => {
                let (&first, others) = instances.split_first()?;
                others.iter().all(|&other| other == first).then_some(first)
            }
        }
    }
}

impl fmt::Display for AnsweredBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(instance) = self.single() {
            return f.pad(&instance.to_string());
        }
        match self {
            Self::Instance(instance) => f.pad(&instance.to_string()),
            Self::Ensemble(members) => {
                let names: Vec<String> = members.iter().map(Instance::to_string).collect();
                f.pad(&names.join("+"))
            }
            Self::Cascade(instances) => {
                let mut counts: BTreeMap<Instance, usize> = BTreeMap::new();
                for &instance in instances {
                    *counts.entry(instance).or_default() += 1;
                }
                let parts = counts.into_iter().map(|(instance, count)| {
                    let plural = if count == 1 { "" } else { "s" };
                    format!("{instance} ({count} image{plural})")
                });
                f.pad(&parts.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_instances_of_every_kind_of_answer_are_known_by_image() {
        let [a, b]: [Instance; 2] = ["0@0.5", "full"].map(|name| name.parse().unwrap());
        let one = AnsweredBy::Instance(a);
        assert_eq!((one.image(7), one.single()), (&[a][..], Some(a)));
        assert_eq!(one.to_string(), "0@0.5");

        let cascade = AnsweredBy::Cascade(vec![a, b, a]);
        assert_eq!((cascade.image(1), cascade.single()), (&[b][..], None));
        let text = cascade.to_string();
        assert!(text.contains("0@0.5 (2 images)") && text.contains("full (1 image)"));
        assert_eq!(AnsweredBy::Cascade(vec![b, b]).to_string(), "full");

        let ensemble = AnsweredBy::Ensemble(vec![a, b]);
        assert_eq!((ensemble.image(0), ensemble.single()), (&[a, b][..], None));
        assert_eq!(ensemble.to_string(), "0@0.5+full");
    }
}
