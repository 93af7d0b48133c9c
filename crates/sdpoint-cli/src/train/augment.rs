//! Options of the augmentation, and the recipes that set it.

use std::str::FromStr;

use sdpoint::core::{Preprocessing, TrainTransform};
use sdpoint::data::Augmentation;
use sdpoint::train::{Preset, TrainPlan};

/// The value of `--augment`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Augment {
    /// Whether images are cropped and mirrored at random.
    crops: bool,
    more: Augmentation,
}

impl FromStr for Augment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts: Vec<&str> = text.split(',').map(str::trim).collect();
        let all = parts.len();
        parts.retain(|&part| part != "none");
        let more = match parts[..] {
            [] => Augmentation::default(),
            _ => parts
                .join(",")
                .parse()
                .map_err(|error| format!("{error}, and none"))?,
        };
        Ok(Self {
            crops: parts.len() == all,
            more,
        })
    }
}

impl Augment {
    /// Changes the preprocessing, before a plan is made of it.
    pub fn prepare(&self, preprocessing: &mut Preprocessing) {
        if !self.crops {
            preprocessing.train = TrainTransform::None;
        }
    }

    pub fn apply(&self, plan: &mut TrainPlan) {
        plan.augmentation = self.more;
    }
}

/// A recipe by name; `modern` depends on the size of the images.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RecipeName {
    Preset(Preset),
    Modern,
}

impl RecipeName {
    pub fn preset(self, size: [usize; 2]) -> Preset {
        match self {
            Self::Preset(preset) => preset,
            Self::Modern => Preset::modern(size),
        }
    }
}

impl FromStr for RecipeName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "modern" => Ok(Self::Modern),
            _ => {
                let preset = name.parse().map(Self::Preset);
                preset.map_err(|error| format!("{error}; modern is one of the last two, by size"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_can_be_combined() {
        let parse = |text: &str| text.parse::<Augment>();
        assert_eq!(parse("none").unwrap().more, Augmentation::default());
        assert!(!parse("none").unwrap().crops);
        let cutout = parse("none,cutout:8").unwrap();
        assert!(!cutout.crops && cutout.more.cutout == 8);
        assert!(parse("trivial").unwrap().crops);
        assert!(
            parse("rotate")
                .unwrap_err()
                .contains("cutmix:ALPHA, and none")
        );
        assert!(parse("").is_err());
        assert_eq!("modern".parse(), Ok(RecipeName::Modern));
        let small = RecipeName::Modern.preset([32, 32]);
        assert_eq!("modern-small".parse(), Ok(RecipeName::Preset(small)));
        assert!(
            "modem"
                .parse::<RecipeName>()
                .unwrap_err()
                .contains("imagenet")
        );
    }
}
