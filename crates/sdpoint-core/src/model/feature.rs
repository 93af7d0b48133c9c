//! Optional parts of the format. A file lists those that it has, so that a
//! program that does not support one of them can name it in an error instead of
//! computing something else.

use serde::{Deserialize, Serialize};

use super::Model;
use crate::combination::{Combination, CombinedRecord};
use crate::layer::Op;
use crate::network::Network;
use crate::preprocessing::{EvalTransform, ExifOrientation, Interpolation, Preprocessing};

/// An optional part of the format that a reader must support to use a file that
/// has it. `docs/model-file.md` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Feature {
    /// Cascades whose stages are averaged: `blended_cascade` among the
    /// description's `combinations`.
    BlendedCascades,
    /// Cascades and ensembles: the description's `combinations`.
    Combinations,
    /// Images are rotated according to EXIF: `exif_orientation` of the
    /// preprocessing.
    ExifOrientation,
    /// Accuracies on images held out of training: the description's `held_out`,
    /// and `test` of instances and combinations.
    HeldOut,
    /// A filter other than bilinear: `interpolation` of the preprocessing.
    Interpolation,
    /// Scales, shifts and classifier biases of instances' own: the description's
    /// `own_parameters`.
    OwnParameters,
    /// Layers `relu6` in the network.
    Relu6,
    /// Test images: the description's `samples`.
    Samples,
    /// Images are resized without keeping the aspect ratio, then cropped:
    /// `squash_crop` of the preprocessing.
    SquashCrop,
}

impl Feature {
    /// All features that this program supports, sorted by name.
    pub const ALL: [Feature; 9] = [
        Feature::BlendedCascades,
        Feature::Combinations,
        Feature::ExifOrientation,
        Feature::HeldOut,
        Feature::Interpolation,
        Feature::OwnParameters,
        Feature::Relu6,
        Feature::Samples,
        Feature::SquashCrop,
    ];

    /// The name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Feature::BlendedCascades => "blended_cascades",
            Feature::Combinations => "combinations",
            Feature::ExifOrientation => "exif_orientation",
            Feature::HeldOut => "held_out",
            Feature::Interpolation => "interpolation",
            Feature::OwnParameters => "own_parameters",
            Feature::Relu6 => "relu6",
            Feature::Samples => "samples",
            Feature::SquashCrop => "squash_crop",
        }
    }

    /// The features of a model, sorted by name.
    pub fn of(model: &Model) -> Vec<Feature> {
        used(
            &model.network,
            &model.preprocessing,
            Parts {
                combinations: &model.combinations,
                held_out: model.held_out.is_some(),
                own_parameters: model.statistics.tuned().next().is_some(),
                samples: !model.samples.is_empty(),
            },
        )
    }

    /// Whether files of `version`, which did not list features yet, may have this
    /// one.
    pub(super) fn is_part_of(self, version: u32) -> bool {
        self == Feature::Combinations && version == 2
    }
}

/// Parts of a model that only some files have.
#[derive(Clone, Copy)]
pub(super) struct Parts<'a> {
    pub combinations: &'a [CombinedRecord],
    /// Whether images were held out of training.
    pub held_out: bool,
    /// Whether instances have parameters of their own.
    pub own_parameters: bool,
    /// Whether there are test images.
    pub samples: bool,
}

/// The features of a model with these parts.
pub(super) fn used(
    network: &Network,
    preprocessing: &Preprocessing,
    parts: Parts<'_>,
) -> Vec<Feature> {
    let has = |feature: &Feature| match feature {
        Feature::BlendedCascades => {
            let blended = |record: &CombinedRecord| {
                matches!(record.combination, Combination::BlendedCascade(_))
            };
            parts.combinations.iter().any(blended)
        }
        Feature::Combinations => !parts.combinations.is_empty(),
        Feature::ExifOrientation => preprocessing.exif_orientation != ExifOrientation::default(),
        Feature::HeldOut => parts.held_out,
        Feature::Interpolation => preprocessing.interpolation != Interpolation::default(),
        Feature::OwnParameters => parts.own_parameters,
        Feature::Relu6 => network.layers().iter().any(|layer| layer.op == Op::Relu6),
        Feature::Samples => parts.samples,
        Feature::SquashCrop => {
            matches!(preprocessing.evaluate, EvalTransform::SquashCrop { .. })
        }
    };
    Feature::ALL.into_iter().filter(has).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_about_the_format_lists_every_feature() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/model-file.md");
        let page = std::fs::read_to_string(page).expect("the page is in the repository");
        let (_, table) = page
            .split_once("| feature | what the file has |\n| --- | --- |\n")
            .expect("it has a table of features");
        let rows: Vec<&str> = table
            .lines()
            .map_while(|row| Some(row.strip_prefix("| `")?.split_once('`')?.0))
            .collect();
        assert_eq!(rows, Feature::ALL.map(Feature::name));
        // The reader in Python on the same page accepts them all.
        let (_, python) = page
            .split_once("FEATURES = {")
            .expect("it has a set of features");
        let (python, _) = python.split_once('}').expect("the set ends");
        let names = python.split(',').map(|name| name.trim().trim_matches('"'));
        assert_eq!(
            names.filter(|name| !name.is_empty()).collect::<Vec<_>>(),
            rows
        );
    }
}
