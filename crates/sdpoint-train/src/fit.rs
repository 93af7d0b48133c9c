//! Cascades and ensembles for a given mean cost, fitted on held-out images.

mod blend;

use std::sync::Arc;

use sdpoint_core::{Cascade, Combination, CombinedRecord, Instance};
use sdpoint_data::epoch_order;
use sdpoint_engine::{
    Context, Images, InferenceEngine, InstanceMacs, NormSource, confidences, cross_entropy,
    log_mean_probabilities, top_k,
};

use crate::calibrate::Feed;
use crate::combine::Tally;
use crate::error::TrainError;
use crate::evaluate::Trained;
use crate::observer::Observer;

/// The epoch number that seeds the order of the held-out images; no epoch of
/// training has it.
const HELD_OUT_ORDER: u64 = u64::MAX - 1;

/// The most logits that are kept, over all images and instances: 512 MiB.
const MAX_LOGITS: usize = 1 << 27;

/// The most members of an ensemble. In experiments, a seventh never helped.
const MAX_MEMBERS: usize = 6;

/// Which combinations [`fit_combinations`] looks for, and among which
/// instances.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct FitOptions<'a> {
    /// The instances that may be combined.
    pub instances: &'a [Instance],
    /// The mean costs of the cascades, as shares of the cost of `full`; one
    /// cascade is fitted for each.
    pub cascades: &'a [f64],
    /// Whether cascades are [`BlendedCascade`](sdpoint_core::BlendedCascade)s.
    pub blend: bool,
    /// The costs of the ensembles, likewise.
    pub ensembles: &'a [f64],
    /// The seed that splits the images into two halves.
    pub seed: u64,
}

impl<'a> FitOptions<'a> {
    /// Combines `instances`, with seed 0; no cascade and no ensemble yet.
    pub fn new(instances: &'a [Instance]) -> Self {
        Self {
            instances,
            cascades: &[],
            blend: false,
            ensembles: &[],
            seed: 0,
        }
    }

    /// Sets the mean costs of the cascades, as shares of the cost of `full`.
    pub fn with_cascades(self, cascades: &'a [f64]) -> Self {
        Self { cascades, ..self }
    }

    /// Sets whether cascades average the answers of their stages, of which they
    /// then have up to three.
    pub fn with_blend(self, blend: bool) -> Self {
        Self { blend, ..self }
    }

    /// Sets the costs of the ensembles, as shares of the cost of `full`.
    pub fn with_ensembles(self, ensembles: &'a [f64]) -> Self {
        Self { ensembles, ..self }
    }

    /// Sets the seed that splits the images into two halves.
    pub fn with_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }
}

/// The results of [`fit_combinations`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Fitted {
    /// The combinations, for [`Model::combinations`](sdpoint_core::Model).
    pub records: Vec<CombinedRecord>,
    /// The number of images, in both halves.
    pub images: usize,
    /// The number of images skipped because they are unreadable.
    pub skipped: usize,
}

/// Fits cascades and ensembles on one half of some held-out images, and
/// measures them on the other half. There is no result for a cost that no
/// combination stays within.
///
/// For a cascade, all pairs of instances and all thresholds are tried; the
/// most accurate one whose mean cost stays within the limit on both halves is
/// kept. Knowing the cost on the second half takes no labels, so its labels stay
/// unseen until the accuracy is measured. With [`FitOptions::blend`], each instance
/// first gets the temperature of the lowest loss; then the same search decides by
/// margins and tries some weights for each pair, and adds a third stage to the best
/// pairs where that gains. An ensemble grows greedily by the
/// instance that lowers the loss most, until none does or the cost is reached.
///
/// # Errors
/// If the data cannot be read or does not fit the network, if an instance has
/// no statistics, or if the observer stops it.
pub fn fit_combinations(
    ctx: &Arc<Context>,
    trained: Trained<'_>,
    feed: Feed<'_>,
    options: FitOptions<'_>,
    observer: &mut dyn Observer,
) -> Result<Fitted, TrainError> {
    let Trained {
        network,
        weights,
        statistics,
    } = trained;
    let FitOptions {
        instances,
        cascades,
        blend,
        ensembles,
        seed,
    } = options;
    let size = feed.preprocessing.size;
    let work = InstanceMacs::new(network, size, instances.iter().copied())?;
    let engine = InferenceEngine::new(ctx.clone(), network.clone(), weights, statistics)?;
    let mut order = epoch_order(feed.data.len(), seed, HELD_OUT_ORDER);
    order.truncate(MAX_LOGITS / instances.len().max(1) / network.classes());
    let total = order.len();
    let mut outcomes = Outcomes::default();
    for batch in feed.batches(ctx, order)? {
        let batch = batch?;
        let images = Images {
            data: &batch.images,
            batch: batch.len(),
            size: batch.size,
        };
        let logits = engine.run_all(images, instances, NormSource::Own)?;
        outcomes.add(&logits, &batch.labels);
        observer.evaluating(outcomes.labels.len(), total);
        if observer.stop_requested() {
            return Err(TrainError::Stopped);
        }
    }
    // Only now is the number of readable images known, and so the middle.
    let images = outcomes.labels.len();
    let measured_on = outcomes.split_off(images.div_ceil(2));
    let fitted_on = outcomes;
    let fit = Fit {
        classes: network.classes(),
        work: &work,
        instances,
        outcomes: fitted_on,
        others: &measured_on,
    };
    let full = work.macs(Instance::Full) as f64;
    let mut found = Vec::new();
    let blended = blend.then(|| fit.blended());
    for share in cascades {
        found.extend(match &blended {
            Some(fit) => fit.cascade(share * full).map(Combination::BlendedCascade),
            None => fit.cascade(share * full).map(Combination::Cascade),
        });
    }
    for share in ensembles {
        found.extend(fit.ensemble(share * full).map(Combination::Ensemble));
    }
    let records = Tally::of(&found, instances).into_iter().map(|mut tally| {
        let Outcomes { logits, labels } = &measured_on;
        tally.add(logits, labels, network.classes());
        tally.record(&work)
    });
    Ok(Fitted {
        records: records.collect(),
        images,
        skipped: total - images,
    })
}

/// The logits of every instance for some images.
#[derive(Clone, Debug, Default)]
struct Outcomes {
    /// By instance.
    logits: Vec<Vec<f32>>,
    labels: Vec<u32>,
}

impl Outcomes {
    fn add(&mut self, logits: &[Vec<f32>], labels: &[u32]) {
        self.logits.resize_with(logits.len(), Vec::new);
        for (all, logits) in std::iter::zip(&mut self.logits, logits) {
            all.extend(logits);
        }
        self.labels.extend(labels);
    }

    /// Splits off all but the first `images` images.
    fn split_off(&mut self, images: usize) -> Self {
        let all = self.labels.len().max(1);
        let split = |logits: &mut Vec<f32>| logits.split_off(logits.len() / all * images);
        Self {
            logits: self.logits.iter_mut().map(split).collect(),
            labels: self.labels.split_off(images),
        }
    }
}

/// The search for combinations.
struct Fit<'a> {
    classes: usize,
    work: &'a InstanceMacs,
    instances: &'a [Instance],
    /// Of the half to fit on.
    outcomes: Outcomes,
    /// Of the other half, whose labels are not used.
    others: &'a Outcomes,
}

impl Fit<'_> {
    fn cascade(&self, budget: f64) -> Option<Cascade> {
        let classes = self.classes;
        let outcomes = &self.outcomes;
        let images = outcomes.labels.len();
        let right: Vec<Vec<bool>> = outcomes
            .logits
            .iter()
            .map(|logits| correct(logits, &outcomes.labels, classes))
            .collect();
        let mut best: Option<(usize, Cascade)> = None;
        for (a, &first) in self.instances.iter().enumerate() {
            let sure = confidences(&outcomes.logits[a], classes);
            let mut order: Vec<usize> = (0..images).collect();
            order.sort_by(|&i, &j| sure[i].total_cmp(&sure[j]));
            let mut others = confidences(&self.others.logits[a], classes);
            others.sort_by(f64::total_cmp);
            for (b, &second) in self.instances.iter().enumerate() {
                let [cost, extra] = self.work.cascade(first, second);
                if a == b || cost as f64 > budget || extra == 0 {
                    continue;
                }
                let affordable = (budget - cost as f64) / extra as f64;
                // The highest threshold that stays affordable on the other half.
                let max_threshold = others
                    .get((affordable * others.len() as f64) as usize)
                    .map_or(f64::INFINITY, |&sure| sure);
                let most = images.min((affordable * images as f64) as usize);
                let most = order[..most].partition_point(|&image| sure[image] < max_threshold);
                let (again, hits) = best_cut(&order[..most], &right[a], &right[b]);
                if again > 0 && best.is_none_or(|(most, _)| hits > most) {
                    let below = sure[order[again - 1]];
                    let above = order.get(again).map_or(1.0, |&image| sure[image]);
                    let threshold = f64::midpoint(below, above).min(max_threshold);
                    let cascade = Cascade {
                        first,
                        second,
                        threshold,
                    };
                    best = Some((hits, cascade));
                }
            }
        }
        best.map(|(_, cascade)| cascade)
    }

    fn ensemble(&self, budget: f64) -> Option<Vec<Instance>> {
        let classes = self.classes;
        let Outcomes { logits, labels } = &self.outcomes;
        let mut members: Vec<usize> = Vec::new();
        let mut least = f64::INFINITY;
        while members.len() < MAX_MEMBERS {
            let mut best = None;
            for candidate in (0..self.instances.len()).filter(|i| !members.contains(i)) {
                let with: Vec<usize> = members.iter().copied().chain([candidate]).collect();
                let names: Vec<Instance> = with.iter().map(|&i| self.instances[i]).collect();
                if self.work.shared(&names).shared as f64 > budget {
                    continue;
                }
                let all: Vec<&[f32]> = with.iter().map(|&i| logits[i].as_slice()).collect();
                let mean = log_mean_probabilities(&all, classes);
                let loss = cross_entropy(&mean, labels, classes);
                if loss < least {
                    least = loss;
                    best = Some(candidate);
                }
            }
            match best {
                Some(candidate) => members.push(candidate),
                None => break,
            }
        }
        let names = members.iter().map(|&i| self.instances[i]).collect();
        (members.len() > 1).then_some(names)
    }
}

/// The number of least confident images to run in the second instance for the
/// most correct predictions, and the number of correct predictions then.
/// Images beyond `order` stay with the first instance.
fn best_cut(order: &[usize], first: &[bool], second: &[bool]) -> (usize, usize) {
    let mut right = first.iter().filter(|&&right| right).count();
    let mut best = (0, right);
    for (index, &image) in order.iter().enumerate() {
        right = right + usize::from(second[image]) - usize::from(first[image]);
        if right > best.1 {
            best = (index + 1, right);
        }
    }
    best
}

fn correct(logits: &[f32], labels: &[u32], classes: usize) -> Vec<bool> {
    let rows = logits.chunks_exact(classes).zip(labels);
    rows.map(|(row, &label)| top_k(row, 1) == [label as usize])
        .collect()
}

#[cfg(test)]
mod tests {
    use sdpoint_core::{Ratio, zoo};

    use super::*;

    /// The first instances of a small network, and their work.
    fn instances(count: usize) -> (Vec<Instance>, InstanceMacs) {
        let network = zoo::build("preresnet8", 2).unwrap();
        let instances = network.instances(&[Ratio::DEFAULT[0]])[..count].to_vec();
        let work = InstanceMacs::new(&network, [32, 32], instances.iter().copied()).unwrap();
        (instances, work)
    }

    /// Logits of two classes: whether each image is right, and how confidently.
    fn logits(images: &[(bool, f32)]) -> Vec<f32> {
        let row = |&(right, sure): &(bool, f32)| if right { [sure, 0.0] } else { [0.0, sure] };
        images.iter().flat_map(row).collect()
    }

    #[test]
    fn the_cut_maximises_correct_predictions() {
        let first = [false, true, false, true];
        let second = [true, true, true, false];
        assert_eq!(best_cut(&[0, 1, 2, 3], &first, &second), (3, 4));
        assert_eq!(best_cut(&[0, 1], &first, &second), (1, 3));
        assert_eq!(best_cut(&[], &first, &second), (0, 2));
        assert_eq!(best_cut(&[1, 3], &second, &first), (2, 4));
    }

    #[test]
    fn a_cascade_reruns_what_pays_within_its_budget() {
        let (instances, work) = instances(2);
        let cheap = [(true, 5.0), (false, 1.0), (true, 4.0), (false, 2.0)];
        let fit = Fit {
            classes: 2,
            work: &work,
            instances: &instances,
            outcomes: Outcomes {
                logits: vec![logits(&[(true, 9.0); 4]), logits(&cheap)],
                labels: vec![0; 4],
            },
            others: &Outcomes {
                logits: vec![logits(&[(true, 9.0); 4]), logits(&cheap)],
                labels: vec![0; 4],
            },
        };
        let [cost, extra] = work.cascade(instances[1], instances[0]);
        let budget = |again: f64| cost as f64 + again * extra as f64 + 1.0;
        let sent = |again: f64| {
            let cascade = fit.cascade(budget(again)).unwrap();
            assert_eq!(
                (cascade.first, cascade.second),
                (instances[1], instances[0])
            );
            let sure = confidences(&logits(&cheap), 2);
            sure.iter()
                .filter(|&&sure| sure < cascade.threshold)
                .count()
        };
        assert_eq!(sent(0.25), 1);
        assert_eq!(sent(0.5), 2);
        assert_eq!(sent(0.6), 2, "the other images are right already");
        assert_eq!(fit.cascade(0.5 * cost as f64), None);
        assert_eq!(fit.cascade(budget(0.1)), None);
    }

    #[test]
    fn a_cascade_stays_within_its_cost_on_the_other_half() {
        let (instances, work) = instances(2);
        let fitted_on = [(true, 5.0), (false, 1.0), (true, 4.0), (false, 2.0)];
        let [cost, extra] = work.cascade(instances[1], instances[0]);
        // Images on which the first instance is less confident.
        for others in [
            [1.5, 1.5, 1.6, 1.7],
            [0.5, 0.6, 1.4, 1.5],
            [1.7, 3.0, 5.0, 6.0],
        ] {
            let others = Outcomes {
                logits: vec![
                    logits(&[(true, 9.0); 4]),
                    logits(&others.map(|sure| (true, sure))),
                ],
                labels: vec![0; 4],
            };
            let fit = Fit {
                classes: 2,
                work: &work,
                instances: &instances,
                outcomes: Outcomes {
                    logits: vec![logits(&[(true, 9.0); 4]), logits(&fitted_on)],
                    labels: vec![0; 4],
                },
                others: &others,
            };
            for again in [0.25, 0.5, 0.75] {
                let budget = cost as f64 + again * extra as f64 + 1.0;
                let Some(cascade) = fit.cascade(budget) else {
                    continue;
                };
                let cascade = Combination::Cascade(cascade);
                let mut tally = Tally::of(&[cascade], &instances).remove(0);
                tally.add(&others.logits, &others.labels, 2);
                assert!(tally.record(&work).macs as f64 <= budget, "{again}");
            }
        }
    }

    #[test]
    fn an_ensemble_combines_instances_that_complement_each_other() {
        let (instances, work) = instances(3);
        let a = [(true, 3.0), (true, 3.0), (false, 1.0)];
        let b = [(false, 1.0), (true, 3.0), (true, 3.0)];
        let useless = [(false, 3.0), (false, 3.0), (false, 3.0)];
        let fit = Fit {
            classes: 2,
            work: &work,
            instances: &instances,
            outcomes: Outcomes {
                logits: vec![logits(&a), logits(&useless), logits(&b)],
                labels: vec![0; 3],
            },
            others: &Outcomes::default(),
        };
        let members = fit.ensemble(f64::INFINITY).unwrap();
        assert_eq!(members, [instances[0], instances[2]]);
        assert_eq!(fit.ensemble(1.0), None);
    }
}
