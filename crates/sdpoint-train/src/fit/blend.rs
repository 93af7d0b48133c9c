//! Fitting of cascades whose stages are averaged.

use sdpoint_core::{BlendedCascade, Instance, Stage};
use sdpoint_engine::{InstanceMacs, blend, cross_entropy, log_softmax, margins};

use super::{Fit, Outcomes, best_cut, correct};

/// The weights that are tried for a later stage.
const WEIGHTS: [f64; 5] = [0.5, 0.625, 0.75, 0.875, 1.0];

/// The number of pairs of instances that a third stage is tried for.
const BEST_PAIRS: usize = 12;

/// The shares of the affordable images that are tried for the second of three
/// stages.
const SECOND_SHARES: [f64; 5] = [0.3, 0.45, 0.6, 0.75, 0.9];

/// The temperatures that are considered, as logarithms.
const LOG_TEMPERATURES: [f64; 2] = [-1.4, 1.4];

impl<'a> Fit<'a> {
    /// The search for blended cascades.
    pub fn blended(&self) -> BlendFit<'a> {
        let Outcomes { logits, labels } = &self.outcomes;
        let temperatures: Vec<f64> = logits
            .iter()
            .map(|logits| temperature(logits, labels, self.classes))
            .collect();
        let half = |outcomes: &Outcomes| Half::new(&outcomes.logits, &temperatures, self.classes);
        BlendFit {
            classes: self.classes,
            work: self.work,
            instances: self.instances,
            fitted: half(&self.outcomes),
            others: half(self.others),
            right: logits
                .iter()
                .map(|logits| correct(logits, labels, self.classes))
                .collect(),
            labels: labels.clone(),
            temperatures,
        }
    }
}

/// The search for blended cascades; see [`Fit`].
pub(super) struct BlendFit<'a> {
    classes: usize,
    work: &'a InstanceMacs,
    instances: &'a [Instance],
    temperatures: Vec<f64>,
    /// The half to fit on.
    fitted: Half,
    labels: Vec<u32>,
    /// Whether each instance is right about each image of the half to fit on.
    right: Vec<Vec<bool>>,
    /// The other half, whose labels are not used.
    others: Half,
}

/// The log-probabilities of some images at the fitted temperatures.
struct Half {
    /// By instance.
    answers: Vec<Vec<f32>>,
    /// By instance, the margin of each image.
    margins: Vec<Vec<f64>>,
    images: usize,
}

impl Half {
    fn new(logits: &[Vec<f32>], temperatures: &[f64], classes: usize) -> Self {
        let answers = std::iter::zip(logits, temperatures).map(|(logits, &temperature)| {
            let mut answers = logits.clone();
            log_softmax(&mut answers, classes, temperature);
            answers
        });
        let answers: Vec<Vec<f32>> = answers.collect();
        Self {
            margins: answers.iter().map(|a| margins(a, classes)).collect(),
            images: answers.first().map_or(0, |a| a.len() / classes),
            answers,
        }
    }

    /// The images by ascending margin in an instance.
    fn order(&self, instance: usize) -> Vec<usize> {
        sorted(&self.margins[instance])
    }

    /// The answers to some images of an instance and, with a weight, of a second.
    fn blended(
        &self,
        images: &[usize],
        [first, second]: [usize; 2],
        weight: f64,
        classes: usize,
    ) -> Vec<f32> {
        let mut all = Vec::with_capacity(images.len() * classes);
        for &image in images {
            let row = image * classes..(image + 1) * classes;
            let mut answer = self.answers[first][row.clone()].to_vec();
            blend(&mut answer, &self.answers[second][row], classes, weight);
            all.extend(answer);
        }
        all
    }
}

/// A pair of stages with the most correct predictions.
#[derive(Clone, Copy)]
struct Pair {
    /// Indices of the instances.
    members: [usize; 2],
    weight: f64,
    margin: f64,
    hits: usize,
}

impl BlendFit<'_> {
    /// The most accurate cascade whose mean cost is at most `budget` on both
    /// halves.
    pub fn cascade(&self, budget: f64) -> Option<BlendedCascade> {
        let mut pairs = Vec::new();
        for first in 0..self.instances.len() {
            let orders = [self.fitted.order(first), self.others.order(first)];
            for second in (0..self.instances.len()).filter(|&second| second != first) {
                pairs.extend(self.pair([first, second], &orders, budget));
            }
        }
        pairs.sort_by_key(|pair| std::cmp::Reverse(pair.hits));
        let best = *pairs.first()?;
        let mut cascade = BlendedCascade {
            first: self.stage(best.members[0], 1.0, best.margin),
            second: self.stage(best.members[1], best.weight, 0.0),
            third: None,
        };
        let mut hits = best.hits;
        for pair in pairs.iter().take(BEST_PAIRS) {
            for third in 0..self.instances.len() {
                if pair.members.contains(&third) {
                    continue;
                }
                if let Some((more, longer)) = self.triple(*pair, third, budget)
                    && more > hits
                {
                    (hits, cascade) = (more, longer);
                }
            }
        }
        Some(cascade)
    }

    fn stage(&self, instance: usize, weight: f64, margin: f64) -> Stage {
        Stage {
            instance: self.instances[instance],
            temperature: self.temperatures[instance],
            weight,
            margin,
        }
    }

    /// The best weight and margin of a pair; `orders` are those of its first
    /// instance in both halves.
    fn pair(&self, members: [usize; 2], orders: &[Vec<usize>; 2], budget: f64) -> Option<Pair> {
        let stages = members.map(|member| self.instances[member]);
        let macs = self.work.stages(&stages);
        let (cost, extra) = (macs[0] as f64, macs[1] as f64);
        if cost > budget || extra == 0.0 {
            return None;
        }
        let affordable = (budget - cost) / extra;
        let [first, _] = members;
        let cut = Cut {
            margins: &self.fitted.margins[first],
            order: &orders[0],
            others: sorted_values(&self.others.margins[first], &orders[1]),
            most: [
                affordable * self.fitted.images as f64,
                affordable * self.others.images as f64,
            ],
        };
        let open = cut.open();
        let mut best: Option<Pair> = None;
        for weight in WEIGHTS {
            let answers = self.fitted.blended(open, members, weight, self.classes);
            let mut again = vec![false; self.fitted.images];
            for (&image, right) in open.iter().zip(self.right_about(open, &answers)) {
                again[image] = right;
            }
            let (count, hits) = best_cut(open, &self.right[first], &again);
            if count > 0 && best.is_none_or(|best| hits > best.hits) {
                best = Some(Pair {
                    members,
                    weight,
                    margin: cut.margin(count),
                    hits,
                });
            }
        }
        best
    }

    /// The best third stage of a kind for a pair, with the number of correct
    /// predictions.
    fn triple(&self, pair: Pair, third: usize, budget: f64) -> Option<(usize, BlendedCascade)> {
        let [first, second] = pair.members;
        let stages = [first, second, third].map(|member| self.instances[member]);
        let macs = self.work.stages(&stages);
        let [cost, second_cost, third_cost] = [0, 1, 2].map(|stage| macs[stage] as f64);
        if cost > budget || second_cost == 0.0 || third_cost == 0.0 {
            return None;
        }
        let affordable = (budget - cost) / second_cost;
        let halves = [&self.fitted, &self.others];
        let orders = halves.map(|half| half.order(first));
        let mut best: Option<(usize, BlendedCascade)> = None;
        for share in SECOND_SHARES {
            let margin = {
                let order = &orders[0];
                let count = (share * affordable.min(1.0) * order.len() as f64) as usize;
                match order.get(count) {
                    Some(&image) if count > 0 => self.fitted.margins[first][image],
                    _ => continue,
                }
            };
            // The images that reach the second stage in each half, and what is left
            // for the third.
            let open = [0, 1].map(|half| {
                let margins = &halves[half].margins[first];
                let count = orders[half].partition_point(|&image| margins[image] < margin);
                &orders[half][..count]
            });
            let left = [0, 1].map(|half| {
                let images = halves[half].images as f64;
                ((budget - cost) * images - second_cost * open[half].len() as f64) / third_cost
            });
            if left.iter().any(|&left| left < 1.0) {
                continue;
            }
            let answers = [0, 1].map(|half| {
                halves[half].blended(open[half], [first, second], pair.weight, self.classes)
            });
            let found = self.third(open[0], &answers, third, left);
            let closed = orders[0][open[0].len()..].iter();
            let closed = closed.filter(|&&image| self.right[first][image]).count();
            if let Some((hits, weight, third_margin)) = found
                && best.is_none_or(|(most, _)| closed + hits > most)
            {
                let cascade = BlendedCascade {
                    first: self.stage(first, 1.0, margin),
                    second: self.stage(second, pair.weight, third_margin),
                    third: Some(self.stage(third, weight, 0.0)),
                };
                best = Some((closed + hits, cascade));
            }
        }
        best
    }

    /// The best weight of a third stage, and the margin below which it runs, given
    /// the answers to the images that reach the second stage in each half. Returns
    /// the number of correct predictions, the weight and the margin.
    fn third(
        &self,
        open: &[usize],
        answers: &[Vec<f32>; 2],
        third: usize,
        most: [f64; 2],
    ) -> Option<(usize, f64, f64)> {
        let classes = self.classes;
        let sure = answers.each_ref().map(|answers| margins(answers, classes));
        let order = sorted(&sure[0]);
        let cut = Cut {
            margins: &sure[0],
            order: &order,
            others: sorted_values(&sure[1], &sorted(&sure[1])),
            most,
        };
        let right: Vec<bool> = self.right_about(open, &answers[0]).collect();
        let candidates = cut.open();
        let mut best: Option<(usize, f64, f64)> = None;
        for weight in WEIGHTS {
            let mut again = vec![false; open.len()];
            for &place in candidates {
                let mut answer = answers[0][place * classes..(place + 1) * classes].to_vec();
                let image = open[place];
                let row = image * classes..(image + 1) * classes;
                blend(
                    &mut answer,
                    &self.fitted.answers[third][row],
                    classes,
                    weight,
                );
                again[place] = self.right_about(&[image], &answer).all(|right| right);
            }
            let (count, hits) = best_cut(candidates, &right, &again);
            if count > 0 && best.is_none_or(|(most, ..)| hits > most) {
                best = Some((hits, weight, cut.margin(count)));
            }
        }
        best
    }

    /// Whether answers to some images of the half to fit on are right.
    fn right_about<'a>(
        &'a self,
        images: &'a [usize],
        answers: &'a [f32],
    ) -> impl Iterator<Item = bool> + 'a {
        let rows = answers.chunks_exact(self.classes);
        images.iter().zip(rows).map(|(&image, row)| {
            let label = self.labels[image];
            correct(row, &[label], self.classes)[0]
        })
    }
}

/// Where images may be divided into sure and unsure ones.
struct Cut<'a> {
    /// The margin of each image of the half to fit on.
    margins: &'a [f64],
    /// Those images by ascending margin.
    order: &'a [usize],
    /// The margins of the other half, ascending.
    others: Vec<f64>,
    /// The number of unsure images that either half can afford.
    most: [f64; 2],
}

impl Cut<'_> {
    /// The highest margin that the other half can afford.
    fn max_margin(&self) -> f64 {
        let sure = self.others.get(self.most[1] as usize);
        sure.copied().unwrap_or(f64::INFINITY)
    }

    /// The images that may be unsure.
    fn open(&self) -> &[usize] {
        let most = self.order.len().min(self.most[0] as usize);
        let max = self.max_margin();
        let count = self.order[..most].partition_point(|&image| self.margins[image] < max);
        &self.order[..count]
    }

    /// The margin below which the `count` least sure images are.
    fn margin(&self, count: usize) -> f64 {
        let below = self.margins[self.order[count - 1]];
        let above = self
            .order
            .get(count)
            .map_or(1.0, |&image| self.margins[image]);
        f64::midpoint(below, above).min(self.max_margin())
    }
}

/// The indices of values in ascending order.
fn sorted(values: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&i, &j| values[i].total_cmp(&values[j]));
    order
}

fn sorted_values(values: &[f64], order: &[usize]) -> Vec<f64> {
    order.iter().map(|&index| values[index]).collect()
}

/// The temperature at which the cross-entropy is lowest, by golden-section search
/// over its logarithm.
fn temperature(logits: &[f32], labels: &[u32], classes: usize) -> f64 {
    let loss = |log: f64| {
        let scaled: Vec<f32> = logits
            .iter()
            .map(|z| (f64::from(*z) / log.exp()) as f32)
            .collect();
        cross_entropy(&scaled, labels, classes)
    };
    let golden = (5f64.sqrt() - 1.0) / 2.0;
    let [mut low, mut high] = LOG_TEMPERATURES;
    let mut inner = [high - golden * (high - low), low + golden * (high - low)];
    let mut losses = inner.map(loss);
    // 20 steps narrow the range to 2e-4 of a logarithm.
    for _ in 0..20 {
        if losses[0] <= losses[1] {
            high = inner[1];
            inner = [high - golden * (high - low), inner[0]];
            losses = [loss(inner[0]), losses[0]];
        } else {
            low = inner[0];
            inner = [inner[1], low + golden * (high - low)];
            losses = [losses[1], loss(inner[1])];
        }
    }
    f64::midpoint(low, high).exp()
}

#[cfg(test)]
mod tests {
    use sdpoint_core::{Combination, Ratio, zoo};

    use super::*;
    use crate::combine::Tally;

    #[test]
    fn the_temperature_is_that_of_the_lowest_loss() {
        // Two classes; nine of ten images are right, whatever the logits say.
        let logits: Vec<f32> = (0..100).flat_map(|_| [6.0, 0.0]).collect();
        let labels: Vec<u32> = (0..100).map(|image| u32::from(image % 10 == 0)).collect();
        let found = temperature(&logits, &labels, 2);
        // p = 0.9 where 6 / T = ln 9.
        assert!((found - 6.0 / 9f64.ln()).abs() < 0.01, "{found}");
    }

    /// Outcomes of `images` images in three instances, each of which sees the label
    /// with noise of its own.
    fn outcomes(images: usize, noise: [f64; 3], seed: u64) -> Outcomes {
        let mut state = seed;
        let mut random = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) as f64 / (1u64 << 31) as f64 - 0.5
        };
        let labels: Vec<u32> = (0..images as u32).map(|image| image % 3).collect();
        let mut logits = vec![Vec::new(); 3];
        for &label in &labels {
            for (logits, noise) in std::iter::zip(&mut logits, noise) {
                for class in 0..3 {
                    let signal = if class == label { 2.0 } else { 0.0 };
                    logits.push((signal + noise * (random() + random() + random())) as f32);
                }
            }
        }
        Outcomes { logits, labels }
    }

    #[test]
    fn blended_cascades_stay_within_their_cost_and_gain() {
        let network = zoo::build("preresnet8", 3).unwrap();
        let instances = network.instances(&[Ratio::DEFAULT[0]]);
        let instances = [instances[1], instances[2], instances[0]];
        let work = InstanceMacs::new(&network, [32, 32], instances).unwrap();
        let noise = [3.0, 2.6, 2.2];
        let others = outcomes(3000, noise, 2);
        let fit = Fit {
            classes: 3,
            work: &work,
            instances: &instances,
            outcomes: outcomes(3000, noise, 1),
            others: &others,
        };
        let blended = fit.blended();
        let full = work.macs(Instance::Full) as f64;
        let tally = |combination: Combination| {
            let mut tally = Tally::of(&[combination], &instances).remove(0);
            tally.add(&others.logits, &others.labels, 3);
            tally.record(&work)
        };
        let (mut longest, mut gained, mut saved) = (0, 0.0, 0.0);
        for share in [0.6, 0.7, 0.8, 0.9, 1.1] {
            let found = blended.cascade(share * full).unwrap();
            let record = tally(Combination::BlendedCascade(found));
            assert!(
                record.macs as f64 <= share * full + 1.0,
                "{share}: {record:?}"
            );
            let plain = tally(Combination::Cascade(fit.cascade(share * full).unwrap()));
            assert!(record.top1 > plain.top1 - 0.005, "{record:?} {plain:?}");
            gained += record.top1 - plain.top1;
            saved += plain.loss - record.loss;
            longest = longest.max(found.stages().count());
        }
        // Independent errors average out; replaced answers do not.
        assert!(gained > 0.02 && saved > 0.0, "{gained} {saved}");
        assert_eq!(longest, 3, "a third stage gains somewhere");
        assert_eq!(blended.cascade(0.1 * full), None);
    }
}
