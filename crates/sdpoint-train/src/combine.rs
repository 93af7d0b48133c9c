//! Results of cascades and ensembles, from the logits of their members.

use sdpoint_core::{Combination, CombinedRecord, Instance};
use sdpoint_engine::{InstanceMacs, confidences, log_mean_probabilities};

use crate::evaluate::Score;

/// The running results of a combination.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    combination: Combination,
    /// The indices of its members in the list of instances.
    members: Vec<usize>,
    score: Score,
    images: usize,
    /// The number of images that a cascade's second instance ran on.
    again: usize,
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
                again: 0,
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
                        self.again += 1;
                    }
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

    /// The results; `work` must cover all members.
    pub fn record(&self, work: &InstanceMacs) -> CombinedRecord {
        let [top1, top5, loss] = self.score.means();
        let macs = match &self.combination {
            Combination::Ensemble(members) => work.shared(members).shared,
            Combination::Cascade(cascade) => {
                let again = self.again as f64 / self.images.max(1) as f64;
                let [first, extra] = work.cascade(cascade.first, cascade.second);
                (first as f64 + again * extra as f64).round() as u64
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
