//! The update of the weights: the optimiser, the limit on gradients, and the
//! average of the weights.

use sdpoint_core::{Network, Role, Weights};
use sdpoint_engine::{Context, Sgd, SgdStep};
use serde::{Deserialize, Serialize};

use crate::recipe::Recipe;

/// The optimiser of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Optimizer {
    /// Stochastic gradient descent with [`Recipe::momentum`]; see [`Sgd`].
    #[default]
    Sgd,
    /// Adam with decoupled weight decay (Loshchilov and Hutter, "Decoupled
    /// Weight Decay Regularization", arXiv 1711.05101), with the update of
    /// PyTorch's `AdamW`. In step `t`, counted from 1:
    ///
    /// ```text
    /// w ← w − rate · weight_decay · w
    /// m ← beta1 · m + (1 − beta1) · gradient
    /// v ← beta2 · v + (1 − beta2) · gradient²
    /// w ← w − rate · m / (1 − beta1^t) / (√(v / (1 − beta2^t)) + epsilon)
    /// ```
    #[serde(rename = "adamw")]
    AdamW {
        /// The decay of the mean of gradients.
        beta1: f64,
        /// The decay of the mean of squared gradients.
        beta2: f64,
        /// Keeps the divisor above zero.
        epsilon: f64,
    },
}

impl Optimizer {
    /// AdamW with the usual parameters: 0.9, 0.999 and 1e-8.
    pub const ADAMW: Self = Self::AdamW {
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
    };

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sgd => "sgd",
            Self::AdamW { .. } => "adamw",
        }
    }
}

/// Updates the weights after each step.
#[derive(Debug)]
pub(crate) struct Updater {
    rule: Rule,
    clip_norm: Option<f64>,
    ema: Option<f64>,
    /// The gradients, scaled down.
    clipped: Weights,
}

#[derive(Debug)]
enum Rule {
    Sgd(Sgd),
    AdamW(AdamW),
}

/// What an update reads and changes.
pub(crate) struct Update<'a> {
    pub weights: &'a mut Weights,
    /// The momentum of SGD, or the mean of gradients of AdamW.
    pub momentum: &'a mut Weights,
    /// The mean of squared gradients, for AdamW.
    pub second_moment: Option<&'a mut Weights>,
    /// The average of the weights, if the recipe has one.
    pub average: Option<&'a mut Weights>,
    pub gradients: &'a Weights,
    pub rate: f64,
    /// The number of the step, from zero.
    pub step: u64,
}

impl Updater {
    pub fn new(network: &Network, recipe: &Recipe) -> Self {
        let rule = match recipe.optimizer {
            Optimizer::Sgd => Rule::Sgd(Sgd::new(network, recipe.sgd_options())),
            Optimizer::AdamW {
                beta1,
                beta2,
                epsilon,
            } => Rule::AdamW(AdamW {
                beta1: beta1 as f32,
                beta2: beta2 as f32,
                epsilon: epsilon as f32,
                decay: decay(network, recipe),
            }),
        };
        let clipped = match recipe.clip_norm {
            Some(_) => Weights::zeros(network),
            None => Weights(Vec::new()),
        };
        Self {
            rule,
            clip_norm: recipe.clip_norm,
            ema: recipe.ema,
            clipped,
        }
    }

    /// Updates the weights and the state of the optimiser.
    pub fn update(&mut self, ctx: &Context, update: Update<'_>) {
        let Update {
            weights,
            momentum,
            second_moment,
            average,
            gradients,
            rate,
            step,
        } = update;
        let scale = self.clip_norm.map_or(1.0, |most| clip(gradients, most));
        let gradients = if scale < 1.0 {
            for (clipped, gradients) in std::iter::zip(&mut self.clipped.0, &gradients.0) {
                clipped.clear();
                clipped.extend(gradients.iter().map(|g| scale * g));
            }
            &self.clipped
        } else {
            gradients
        };
        match &self.rule {
            Rule::Sgd(sgd) => {
                let step = SgdStep {
                    weights,
                    momentum,
                    gradients,
                    rate: rate as f32,
                };
                sgd.step(ctx, step);
            }
            Rule::AdamW(adamw) => {
                let second = second_moment.expect("a run with AdamW has second moments");
                adamw.step(weights, [momentum, second], gradients, rate, step);
            }
        }
        if let (Some(decay), Some(average)) = (self.ema, average) {
            add_to_average(average, weights, decay, step);
        }
    }
}

/// The factor by which gradients are scaled so that their norm over all
/// parameters is at most `most` (Pascanu et al., "On the difficulty of training
/// recurrent neural networks", arXiv 1211.5063), as in PyTorch's
/// `clip_grad_norm_`. Gradients that are not finite stay as they are: the run
/// ends with them.
fn clip(gradients: &Weights, most: f64) -> f32 {
    let squares = gradients
        .0
        .iter()
        .flatten()
        .map(|&g| f64::from(g) * f64::from(g));
    let norm = squares.sum::<f64>().sqrt();
    if norm.is_finite() && norm > most {
        (most / (norm + 1e-6)) as f32
    } else {
        1.0
    }
}

/// `average ← d · average + (1 − d) · weights`, with `d` the smaller of the decay
/// and `(1 + t) / (10 + t)` in step `t`, counted from zero, so that the first
/// weights, which are random, are soon forgotten.
///
/// Averages of the weights go back to Polyak and Juditsky ("Acceleration of
/// Stochastic Approximation by Averaging", 1992); with an exponential decay they
/// are used by Szegedy et al. (arXiv 1512.00567).
fn add_to_average(average: &mut Weights, weights: &Weights, decay: f64, step: u64) {
    let t = step as f64;
    let share = (1.0 - decay.min((1.0 + t) / (10.0 + t))) as f32;
    let all = std::iter::zip(&mut average.0, &weights.0);
    for (average, weight) in all.flat_map(|(a, w)| std::iter::zip(a, w)) {
        *average += share * (weight - *average);
    }
}

/// The weight decay of each parameter.
fn decay(network: &Network, recipe: &Recipe) -> Vec<f32> {
    let decay = |role| match role {
        Role::NormScale | Role::NormShift if !recipe.decay_norms => 0.0,
        _ => recipe.weight_decay as f32,
    };
    network.parameters().iter().map(|p| decay(p.role)).collect()
}

/// See [`Optimizer::AdamW`].
///
/// The loops are plain so that the compiler vectorises them; each operation is
/// one that IEEE 754 rounds exactly, so that results are the same on every
/// machine. The update takes a small part of a step.
#[derive(Debug)]
struct AdamW {
    beta1: f32,
    beta2: f32,
    epsilon: f32,
    /// By parameter.
    decay: Vec<f32>,
}

impl AdamW {
    fn step(
        &self,
        weights: &mut Weights,
        [first, second]: [&mut Weights; 2],
        gradients: &Weights,
        rate: f64,
        step: u64,
    ) {
        let t = step as f64 + 1.0;
        let [unbias1, unbias2] =
            [self.beta1, self.beta2].map(|beta| 1.0 - libm::pow(f64::from(beta), t));
        let factor = (rate / unbias1) as f32;
        let root = (1.0 / unbias2.sqrt()) as f32;
        let moments = std::iter::zip(&mut first.0, &mut second.0);
        let all = std::iter::zip(&mut weights.0, &gradients.0);
        for (((w, g), (m, v)), &decay) in all.zip(moments).zip(&self.decay) {
            let keep = (1.0 - rate * f64::from(decay)) as f32;
            let moments = m.iter_mut().zip(v);
            for ((w, &g), (m, v)) in w.iter_mut().zip(g).zip(moments) {
                *m = self.beta1 * *m + (1.0 - self.beta1) * g;
                *v = self.beta2 * *v + (1.0 - self.beta2) * (g * g);
                *w = keep * *w - factor * (*m / (root * v.sqrt() + self.epsilon));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use sdpoint_core::zoo;

    use super::*;
    use crate::recipe::Preset;

    fn filled(network: &Network, value: impl Fn(usize) -> f32) -> Weights {
        let mut weights = Weights::zeros(network);
        for (index, weight) in weights.0.iter_mut().flatten().enumerate() {
            *weight = value(index);
        }
        weights
    }

    fn norm(weights: &Weights) -> f64 {
        let squares = weights.0.iter().flatten().map(|&w| f64::from(w).powi(2));
        squares.sum::<f64>().sqrt()
    }

    /// The first weight after each of three steps of PyTorch 2.15's `AdamW` with
    /// these settings, from a weight of 0.5 and these gradients.
    #[test]
    fn adamw_is_pytorchs() {
        let network = zoo::build("preresnet8", 3).unwrap();
        let mut recipe = Preset::CifarCosine.recipe();
        recipe.optimizer = Optimizer::ADAMW;
        recipe.weight_decay = 0.05;
        let mut updater = Updater::new(&network, &recipe);
        let ctx = Context::new(None).unwrap();
        let mut weights = filled(&network, |_| 0.5);
        let [mut momentum, mut second] = [(); 2].map(|()| Weights::zeros(&network));
        for (step, (gradient, expected)) in
            [(0.2f32, PYTORCH[0]), (-0.1, PYTORCH[1]), (0.3, PYTORCH[2])]
                .into_iter()
                .enumerate()
        {
            updater.update(
                &ctx,
                Update {
                    weights: &mut weights,
                    momentum: &mut momentum,
                    second_moment: Some(&mut second),
                    average: None,
                    gradients: &filled(&network, |_| gradient),
                    rate: 0.01,
                    step: step as u64,
                },
            );
            let found = weights.0[0][0];
            assert!((found - expected).abs() < 1e-6, "{found} for {expected}");
        }
    }

    const PYTORCH: [f32; 3] = [0.489_75, 0.486_841_74, 0.480_245_1];

    #[test]
    fn gradients_are_scaled_to_the_norm() {
        let network = zoo::build("preresnet8", 3).unwrap();
        let large = filled(&network, |index| (index as f32).sin());
        let scale = clip(&large, 0.5);
        assert!((norm(&large) * f64::from(scale) - 0.5).abs() < 1e-4);
        assert_eq!(clip(&large, 2.0 * norm(&large)), 1.0);
        let mut broken = large.clone();
        broken.0[0][0] = f32::NAN;
        assert_eq!(clip(&broken, 0.5), 1.0);

        // With plain SGD, a step is the gradients scaled.
        let mut recipe = Preset::CifarCosine.recipe();
        (recipe.momentum, recipe.nesterov, recipe.weight_decay) = (0.0, false, 0.0);
        recipe.clip_norm = Some(0.5);
        let mut updater = Updater::new(&network, &recipe);
        let mut weights = Weights::zeros(&network);
        let ctx = Context::new(None).unwrap();
        updater.update(
            &ctx,
            Update {
                weights: &mut weights,
                momentum: &mut Weights::zeros(&network),
                second_moment: None,
                average: None,
                gradients: &large,
                rate: 2.0,
                step: 0,
            },
        );
        assert!((norm(&weights) - 1.0).abs() < 1e-3);
    }

    #[test]
    fn the_average_forgets_the_first_weights() {
        let network = zoo::build("preresnet8", 3).unwrap();
        let mut average = filled(&network, |_| 1.0);
        let later = filled(&network, |_| 0.0);
        // In the first step, nine tenths are new.
        add_to_average(&mut average, &later, 0.999, 0);
        assert!((average.0[0][0] - 0.1).abs() < 1e-6);
        add_to_average(&mut average, &later, 0.999, 1_000_000);
        assert!((average.0[0][0] - 0.0999).abs() < 1e-6);
    }
}
