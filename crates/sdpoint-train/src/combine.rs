//! Results of cascades and ensembles, from the logits of their members.

use sdpoint_core::{BlendedCascade, Combination, CombinedRecord, Instance, Stage};
use sdpoint_engine::{
    InstanceMacs, blend, confidences, log_mean_probabilities, log_softmax, margins,
};

use crate::evaluate::Score;

/// The running results of a combination.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    combination: Combination,
    /// The indices of its members in the list of instances.
    members: Vec<usize>,
    score: Score,
    images: usize,
    /// The number of images that each later stage of a cascade ran on.
    again: [usize; 2],
}

impl Tally {
    /// Empty tallies of the combinations whose members are all among
    /// `instances`.
    pub fn of(combinations: &[Combination], instances: &[Instance]) -> Vec<Self> {
        let place = |member| instances.iter().position(|&instance| instance == member);
        let tallies = combinations.iter().filter_map(|combination| {
            let members = combination.members().into_iter().map(place);
            Some(Self {
                members: members.collect::<Option<_>>()?,
                combination: combination.clone(),
                score: Score::default(),
                images: 0,
                again: [0; 2],
            })
        });
        tallies.collect()
    }

    /// Adds a batch, given the logits of all instances.
    pub fn add(&mut self, logits: &[Vec<f32>], labels: &[u32], classes: usize) {
        let members: Vec<&[f32]> = self.members.iter().map(|&m| logits[m].as_slice()).collect();
        let combined = match &self.combination {
            Combination::Ensemble(_) => log_mean_probabilities(&members, classes),
            Combination::Cascade(cascade) => {
                let mut combined = members[0].to_vec();
                for (image, sure) in confidences(members[0], classes).into_iter().enumerate() {
                    if sure < cascade.threshold {
                        let row = image * classes..(image + 1) * classes;
                        combined[row.clone()].copy_from_slice(&members[1][row]);
                        self.again[0] += 1;
                    }
                }
                combined
            }
            Combination::BlendedCascade(cascade) => {
                let (combined, again) = blended(cascade, &members, classes);
                for (sum, count) in std::iter::zip(&mut self.again, again) {
                    *sum += count;
                }
                combined
            }
        };
        self.score.add(&combined, labels, classes);
        self.images += labels.len();
    }

    /// The sums over the images.
    pub fn score(&self) -> &Score {
        &self.score
    }

    /// The mean MACs per image of a cascade, given those of the first stage and
    /// those that each later one adds.
    fn mean_of_stages(&self, macs: &[u64]) -> u64 {
        let later = std::iter::zip(&macs[1..], self.again);
        let sum: f64 = later.map(|(&macs, count)| macs as f64 * count as f64).sum();
        (macs[0] as f64 + sum / self.images.max(1) as f64).round() as u64
    }

    /// The results; `work` must cover all members.
    pub fn record(&self, work: &InstanceMacs) -> CombinedRecord {
        let [top1, top5, loss] = self.score.means();
        let macs = match &self.combination {
            Combination::Ensemble(members) => work.shared(members).shared,
            Combination::Cascade(cascade) => {
                self.mean_of_stages(&work.cascade(cascade.first, cascade.second))
            }
            Combination::BlendedCascade(cascade) => {
                self.mean_of_stages(&work.stages(&cascade.instances()))
            }
        };
        CombinedRecord {
            combination: self.combination.clone(),
            macs,
            top1,
            top5,
            loss,
            test: None,
        }
    }
}

/// The answers of a blended cascade, given the logits of its instances, and the
/// number of images that each later stage ran on.
fn blended(cascade: &BlendedCascade, logits: &[&[f32]], classes: usize) -> (Vec<f32>, [usize; 2]) {
    let stages: Vec<Stage> = cascade.stages().collect();
    let of_stage = |stage: usize| {
        let mut answers = logits[stage].to_vec();
        log_softmax(&mut answers, classes, stages[stage].temperature);
        answers
    };
    let mut answers = of_stage(0);
    let mut open: Vec<usize> = (0..answers.len() / classes).collect();
    let mut again = [0; 2];
    for (index, stage) in stages.iter().enumerate().skip(1) {
        let sure = margins(&answers, classes);
        open.retain(|&image| sure[image] < stages[index - 1].margin);
        let others = of_stage(index);
        for &image in &open {
            let row = image * classes..(image + 1) * classes;
            blend(
                &mut answers[row.clone()],
                &others[row],
                classes,
                stage.weight,
            );
        }
        again[index - 1] = open.len();
    }
    (answers, again)
}
