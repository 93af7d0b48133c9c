//! Optimisation recipes: the hyperparameters of a run, as plain data.

use std::f64::consts::PI;
use std::fmt;
use std::str::FromStr;

use sdpoint_data::Augmentation;
use sdpoint_engine::SgdOptions;
use serde::{Deserialize, Serialize};

use crate::optimizer::Optimizer;

/// The hyperparameters of the optimiser for a whole run.
///
/// Recipes are stored in checkpoints and in model files, where they document
/// how a model was trained. A [`Preset`] has usual values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Recipe {
    /// The number of passes over the training images.
    pub epochs: usize,
    /// The number of images in a step.
    pub batch_size: usize,
    /// The peak learning rate; see [`Recipe::rate_at`].
    pub rate: f64,
    /// The optimiser. Recipes of version 0.1 lack it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub optimizer: Optimizer,
    /// The momentum factor of SGD.
    pub momentum: f64,
    /// Whether SGD uses Nesterov momentum.
    pub nesterov: bool,
    /// The weight decay: added to the gradient as in PyTorch's `SGD`, or for AdamW
    /// taken from the weights directly.
    pub weight_decay: f64,
    /// Whether weight decay applies to the scales and shifts of batch norms, as
    /// in the papers' code.
    pub decay_norms: bool,
    /// The share of all steps in which the learning rate rises to its peak.
    pub warm_up: f64,
    /// How the learning rate falls afterwards.
    pub schedule: Schedule,
    /// Label smoothing: the share of the target that is spread evenly over all
    /// classes.
    pub label_smoothing: f64,
    /// The largest norm of the gradients of all parameters together; larger
    /// gradients are scaled down to it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub clip_norm: Option<f64>,
    /// The decay of an exponential average of the weights, which becomes the model
    /// in place of the last weights; its statistics are computed afterwards.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ema: Option<f64>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// How the learning rate falls from its peak.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Schedule {
    /// Half a cosine from the end of the warm-up to zero, step by step
    /// (Loshchilov and Hutter, arXiv 1608.03983, without restarts).
    Cosine,
    /// Multiplied by `factor` at each milestone.
    Step {
        /// The milestones, in epochs from the start; fractions are allowed.
        milestones: Vec<f64>,
        /// The factor.
        factor: f64,
    },
}

/// A setting that is out of range.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{setting} is {value}; it must be {range}")]
pub struct RecipeError {
    /// The setting.
    pub setting: &'static str,
    /// Its value.
    pub value: String,
    /// The range of allowed values.
    pub range: &'static str,
}

impl Recipe {
    /// The options for [`Sgd`](sdpoint_engine::Sgd).
    pub fn sgd_options(&self) -> SgdOptions {
        let mut options = SgdOptions::default();
        options.momentum = self.momentum as f32;
        options.nesterov = self.nesterov;
        options.weight_decay = self.weight_decay as f32;
        options.decay_norms = self.decay_norms;
        options
    }

    /// The learning rate of a step, counted from zero over all epochs.
    ///
    /// With `T` steps in all and `W = round(warm_up · T)`, it is the product of
    /// the peak rate, the warm-up factor `min(1, (t + 1) / W)` and the factor of
    /// the schedule. That of the cosine is 1 up to step `W` and then
    /// `(1 + cos(π · (t − W) / (T − W))) / 2`; that of the step schedule is
    /// `factor` to the power of the number of milestones passed.
    pub fn rate_at(&self, step: usize, steps_per_epoch: usize) -> f64 {
        let steps = self.epochs * steps_per_epoch;
        let warm = (self.warm_up * steps as f64).round() as usize;
        let ramp = if step < warm {
            (step + 1) as f64 / warm as f64
        } else {
            1.0
        };
        let fall = match &self.schedule {
            Schedule::Cosine => {
                let done = step.saturating_sub(warm) as f64 / (steps - warm).max(1) as f64;
                (1.0 + (PI * done.min(1.0)).cos()) / 2.0
            }
            Schedule::Step { milestones, factor } => {
                let epoch = step as f64 / steps_per_epoch as f64;
                let passed = milestones.iter().filter(|&&at| epoch >= at).count();
                factor.powi(passed as i32)
            }
        };
        self.rate * ramp * fall
    }

    /// The same recipe with another optimiser. If it is of another kind, the rate and
    /// the weight decay become those that are usual for it: 0.001 and 0.05 for
    /// AdamW, 0.1 and 5e-4 for SGD.
    pub fn with_optimizer(self, optimizer: Optimizer) -> Self {
        let [rate, weight_decay] = match (self.optimizer, optimizer) {
            (Optimizer::Sgd, Optimizer::AdamW { .. }) => [0.001, 0.05],
            (Optimizer::AdamW { .. }, Optimizer::Sgd) => [0.1, 5e-4],
            _ => [self.rate, self.weight_decay],
        };
        Self {
            optimizer,
            rate,
            weight_decay,
            ..self
        }
    }

    /// The same recipe over another number of epochs; milestones scale in
    /// proportion.
    pub fn with_epochs(mut self, epochs: usize) -> Self {
        if let Schedule::Step { milestones, .. } = &mut self.schedule {
            for at in milestones {
                *at = *at * epochs as f64 / self.epochs as f64;
            }
        }
        self.epochs = epochs;
        self
    }

    /// Checks that every setting is in range.
    ///
    /// # Errors
    /// For the first setting that is not.
    pub fn check(&self) -> Result<(), RecipeError> {
        const MANY: &str = "between 1 and 1000000";
        let count = |value: usize| (1..=1_000_000).contains(&value);
        let part = |value: f64| (0.0..1.0).contains(&value);
        let check = |good: bool, setting, value: &dyn fmt::Display, range| match good {
            true => Ok(()),
            false => Err(RecipeError {
                setting,
                value: value.to_string(),
                range,
            }),
        };
        let from_zero = "at least 0 and below 1";
        check(
            count(self.epochs),
            "the number of epochs",
            &self.epochs,
            MANY,
        )?;
        check(
            count(self.batch_size),
            "the batch size",
            &self.batch_size,
            MANY,
        )?;
        check(
            self.rate.is_finite() && self.rate > 0.0,
            "the learning rate",
            &self.rate,
            "a number above 0",
        )?;
        check(
            part(self.momentum),
            "the momentum",
            &self.momentum,
            from_zero,
        )?;
        check(
            self.weight_decay.is_finite() && self.weight_decay >= 0.0,
            "the weight decay",
            &self.weight_decay,
            "a number of at least 0",
        )?;
        check(part(self.warm_up), "the warm-up", &self.warm_up, from_zero)?;
        check(
            part(self.label_smoothing),
            "the label smoothing",
            &self.label_smoothing,
            from_zero,
        )?;
        if let Optimizer::AdamW {
            beta1,
            beta2,
            epsilon,
        } = self.optimizer
        {
            check(part(beta1), "the first beta of AdamW", &beta1, from_zero)?;
            check(part(beta2), "the second beta of AdamW", &beta2, from_zero)?;
            check(
                epsilon.is_finite() && epsilon > 0.0,
                "the epsilon of AdamW",
                &epsilon,
                "a number above 0",
            )?;
        }
        if let Some(norm) = self.clip_norm {
            check(
                norm.is_finite() && norm > 0.0,
                "the largest norm of the gradients",
                &norm,
                "a number above 0",
            )?;
        }
        if let Some(decay) = self.ema {
            let range = "above 0 and below 1";
            let good = decay > 0.0 && decay < 1.0;
            check(good, "the decay of the averaged weights", &decay, range)?;
        }
        if let Schedule::Step { milestones, factor } = &self.schedule {
            check(
                *factor > 0.0 && *factor <= 1.0,
                "the schedule's factor",
                factor,
                "above 0 and at most 1",
            )?;
            for at in milestones {
                check(
                    at.is_finite() && *at >= 0.0,
                    "a milestone of the schedule",
                    at,
                    "a number of epochs of at least 0",
                )?;
            }
        }
        Ok(())
    }
}

/// Recipes by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Preset {
    /// `cifar-cosine`: small images in few epochs. Batch 128, peak rate 0.1
    /// after a warm-up of a tenth of the run, cosine to zero, Nesterov
    /// momentum 0.9, weight decay 5e-4, 15 epochs.
    CifarCosine,
    /// `cifar`: the recipe of the Wide ResNet paper (Zagoruyko and Komodakis,
    /// arXiv 1605.07146, section 3). Batch 128, rate 0.1, multiplied by 0.2
    /// after 60, 120 and 160 of 200 epochs, Nesterov momentum 0.9, weight
    /// decay 5e-4.
    Cifar,
    /// `imagenet`: the recipe of the SDPoint authors' code
    /// (github.com/xternalz/SDPoint). Batch 256, rate 0.1, divided by 10
    /// after 40, 75 and 105 of 115 epochs, plain momentum 0.9, weight decay
    /// 1e-4.
    Imagenet,
    /// `modern-small`: small images in many epochs. As [`Preset::CifarCosine`], with
    /// 200 epochs, a warm-up of a fortieth of the run, label smoothing 0.1,
    /// TrivialAugment, random erasing with probability 0.1, and weights averaged
    /// with a decay of 0.999.
    ModernSmall,
    /// `modern-large`: larger images in many epochs, after the recipe of
    /// torchvision's second ResNet-50 weights (Vryniotis, "How to Train
    /// State-Of-The-Art Models Using TorchVision's Latest Primitives", 2021), with
    /// half of its epochs. Batch 256, peak rate 0.125 after a warm-up of a sixtieth
    /// of the run, cosine to zero, momentum 0.9, weight decay 2e-5 except on batch
    /// norms, 300 epochs, label smoothing 0.1, TrivialAugment, random erasing with
    /// probability 0.1, mixup 0.2, CutMix 1, and weights averaged with a decay of
    /// 0.9999.
    ModernLarge,
}

/// A name that is not the name of a preset.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no recipe '{0}'; the recipes are cifar-cosine, cifar, imagenet, modern-small and \
     modern-large"
)]
pub struct UnknownPreset(String);

impl Preset {
    /// All presets.
    pub const ALL: [Preset; 5] = [
        Self::CifarCosine,
        Self::Cifar,
        Self::Imagenet,
        Self::ModernSmall,
        Self::ModernLarge,
    ];

    /// The usual preset for images of `[height, width]`:
    /// [`Preset::CifarCosine`] up to 64 pixels a side, [`Preset::Imagenet`] for
    /// larger ones.
    pub fn for_size(size: [usize; 2]) -> Self {
        match is_small(size) {
            true => Self::CifarCosine,
            false => Self::Imagenet,
        }
    }

    /// The preset with today's usual augmentation for images of `[height, width]`:
    /// [`Preset::ModernSmall`] up to 64 pixels a side, [`Preset::ModernLarge`] for
    /// larger ones.
    pub fn modern(size: [usize; 2]) -> Self {
        match is_small(size) {
            true => Self::ModernSmall,
            false => Self::ModernLarge,
        }
    }

    /// The preset's augmentation beyond crops and mirroring.
    pub fn augmentation(self) -> Augmentation {
        let mut augmentation = Augmentation::default();
        if matches!(self, Self::ModernSmall | Self::ModernLarge) {
            augmentation.trivial = true;
            augmentation.erase = 0.1;
        }
        if self == Self::ModernLarge {
            (augmentation.mixup, augmentation.cutmix) = (0.2, 1.0);
        }
        augmentation
    }

    /// The preset's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::CifarCosine => "cifar-cosine",
            Self::Cifar => "cifar",
            Self::Imagenet => "imagenet",
            Self::ModernSmall => "modern-small",
            Self::ModernLarge => "modern-large",
        }
    }

    /// The preset's hyperparameters; [`Recipe::with_epochs`] makes a shorter or
    /// longer run.
    pub fn recipe(self) -> Recipe {
        let small = Recipe {
            epochs: 15,
            batch_size: 128,
            rate: 0.1,
            optimizer: Optimizer::Sgd,
            momentum: 0.9,
            nesterov: true,
            weight_decay: 5e-4,
            decay_norms: true,
            warm_up: 0.1,
            schedule: Schedule::Cosine,
            label_smoothing: 0.0,
            clip_norm: None,
            ema: None,
        };
        match self {
            Self::CifarCosine => small,
            Self::Cifar => Recipe {
                epochs: 200,
                warm_up: 0.0,
                schedule: Schedule::Step {
                    milestones: vec![60.0, 120.0, 160.0],
                    factor: 0.2,
                },
                ..small
            },
            Self::Imagenet => Recipe {
                epochs: 115,
                batch_size: 256,
                nesterov: false,
                weight_decay: 1e-4,
                warm_up: 0.0,
                schedule: Schedule::Step {
                    milestones: vec![40.0, 75.0, 105.0],
                    factor: 0.1,
                },
                ..small
            },
            Self::ModernSmall => Recipe {
                epochs: 200,
                warm_up: 0.025,
                label_smoothing: 0.1,
                ema: Some(0.999),
                ..small
            },
            Self::ModernLarge => Recipe {
                epochs: 300,
                batch_size: 256,
                rate: 0.125,
                nesterov: false,
                weight_decay: 2e-5,
                decay_norms: false,
                warm_up: 1.0 / 60.0,
                label_smoothing: 0.1,
                ema: Some(0.9999),
                ..small
            },
        }
    }
}

/// Whether images have at most 64 pixels a side.
fn is_small(size: [usize; 2]) -> bool {
    size.iter().all(|&side| side <= 64)
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Preset {
    type Err = UnknownPreset;

    fn from_str(name: &str) -> Result<Self, UnknownPreset> {
        Self::ALL
            .into_iter()
            .find(|preset| preset.name() == name)
            .ok_or_else(|| UnknownPreset(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(left: f64, right: f64) -> bool {
        (left - right).abs() < 1e-12
    }

    #[test]
    fn the_cosine_rises_to_its_peak_and_falls_to_zero() {
        // 15 epochs of 10 steps: 15 steps of warm-up, 135 of cosine.
        let recipe = Preset::CifarCosine.recipe();
        let rates: Vec<f64> = (0..150).map(|t| recipe.rate_at(t, 10)).collect();
        assert!(close(rates[0], 0.1 / 15.0));
        assert!(close(rates[7], 0.1 * 8.0 / 15.0));
        assert!(close(rates[14], 0.1) && close(rates[15], 0.1));
        assert!(close(rates[15 + 45], 0.075), "a third of the cosine");
        assert!(rates[149] > 0.0 && rates[149] < 2e-5);
        assert!(rates[15..].windows(2).all(|pair| pair[1] < pair[0]));
    }

    #[test]
    fn steps_fall_at_the_first_step_of_their_epoch() {
        let recipe = Preset::Imagenet.recipe();
        let rate = |epoch: usize, step: usize| recipe.rate_at(epoch * 5004 + step, 5004);
        assert!(close(rate(0, 0), 0.1) && close(rate(39, 5003), 0.1));
        assert!(close(rate(40, 0), 0.01) && close(rate(74, 5003), 0.01));
        assert!(close(rate(75, 0), 0.001) && close(rate(105, 0), 0.0001));
    }

    #[test]
    fn a_shorter_run_keeps_the_shape_of_the_schedule() {
        let recipe = Preset::Cifar.recipe();
        let short = recipe.clone().with_epochs(20);
        for tenth in 0..20 {
            assert_eq!(
                short.rate_at(tenth * 10, 10),
                recipe.rate_at(tenth * 100, 10),
                "epoch {tenth}"
            );
        }
    }

    #[test]
    fn a_recipe_of_version_0_1_reads_and_writes_as_before() {
        let recipe = Preset::CifarCosine.recipe();
        let text = serde_json::to_string(&recipe).unwrap();
        for new in ["optimizer", "clip_norm", "ema"] {
            assert!(!text.contains(new), "{text}");
        }
        assert_eq!(serde_json::from_str::<Recipe>(&text).unwrap(), recipe);
        let adamw = recipe.clone().with_optimizer(Optimizer::ADAMW);
        assert_eq!((adamw.rate, adamw.weight_decay), (0.001, 0.05));
        let text = serde_json::to_string(&adamw).unwrap();
        assert!(
            text.contains(r#""optimizer":{"adamw":{"beta1":0.9"#),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<Recipe>(&text).unwrap(), adamw);
        assert_eq!(adamw.with_optimizer(Optimizer::Sgd), recipe);
    }

    #[test]
    fn one_step_is_enough_for_a_run() {
        for preset in Preset::ALL {
            let rate = preset.recipe().with_epochs(1).rate_at(0, 1);
            assert!(rate.is_finite() && rate > 0.0, "{preset}: {rate}");
        }
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let good = Preset::CifarCosine.recipe();
        assert_eq!(good.check(), Ok(()));
        for (recipe, name) in [
            (good.clone().with_epochs(0), "epochs"),
            (
                Recipe {
                    batch_size: 0,
                    ..good.clone()
                },
                "batch size",
            ),
            (
                Recipe {
                    rate: f64::NAN,
                    ..good.clone()
                },
                "learning rate",
            ),
            (
                Recipe {
                    warm_up: 1.0,
                    ..good.clone()
                },
                "warm-up",
            ),
            (
                Recipe {
                    momentum: 1.0,
                    ..good.clone()
                },
                "momentum",
            ),
            (
                Recipe {
                    weight_decay: -1.0,
                    ..good.clone()
                },
                "weight decay",
            ),
            (
                Recipe {
                    clip_norm: Some(0.0),
                    ..good.clone()
                },
                "norm of the gradients",
            ),
            (
                Recipe {
                    ema: Some(1.0),
                    ..good.clone()
                },
                "averaged weights",
            ),
            (
                Recipe {
                    optimizer: Optimizer::AdamW {
                        beta1: 0.9,
                        beta2: 1.0,
                        epsilon: 1e-8,
                    },
                    ..good.clone()
                },
                "second beta",
            ),
        ] {
            let message = recipe.check().unwrap_err().to_string();
            assert!(message.contains(name), "{message}");
        }
        let message = "imagnet".parse::<Preset>().unwrap_err().to_string();
        assert!(message.contains("imagenet"), "{message}");
    }
}
