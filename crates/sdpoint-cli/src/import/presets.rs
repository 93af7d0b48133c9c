//! The preprocessing of published training recipes.

use clap::ValueEnum;
use clap::builder::PossibleValue;
use sdpoint::core::{EvalTransform, Interpolation, Preprocessing};
use sdpoint::data::imagenet_preprocessing;

/// A published recipe's preprocessing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preset {
    name: &'static str,
    /// The side of the input, and the shorter side of the image before the crop.
    input: usize,
    resize: usize,
    interpolation: Interpolation,
    /// Mean and standard deviation of all channels, if not those of ImageNet.
    normalise: Option<[f32; 2]>,
    help: &'static str,
}

/// torchvision: `ImageClassification` with the parameters of each
/// `ResNet*_Weights`. timm: `default_cfgs` in `models/resnet.py`, where the
/// shorter side becomes `floor(input / crop_pct)`.
#[rustfmt::skip]
static ALL: [Preset; 7] = {
    use Interpolation::{Bicubic, Bilinear};
    [
        Preset { name: "torchvision-v1", input: 224, resize: 256, interpolation: Bilinear, normalise: None,
            help: "IMAGENET1K_V1 of torchvision; timm's tv_in1k, and Facebook's ssl and swsl" },
        Preset { name: "torchvision-v2", input: 224, resize: 232, interpolation: Bilinear, normalise: None,
            help: "IMAGENET1K_V2 of torchvision" },
        Preset { name: "timm-a1", input: 224, resize: 235, interpolation: Bicubic, normalise: None,
            help: "timm's a1_in1k, and b1k, b2k, c1, c2 and d" },
        Preset { name: "timm-a2", input: 224, resize: 235, interpolation: Bicubic, normalise: None,
            help: "timm's a2_in1k" },
        Preset { name: "timm-a3", input: 160, resize: 168, interpolation: Bicubic, normalise: None,
            help: "timm's a3_in1k, at its training size" },
        Preset { name: "timm-ra", input: 224, resize: 256, interpolation: Bicubic, normalise: None,
            help: "timm's ra_in1k, ram_in1k, am_in1k, bt_in1k and gluon_in1k" },
        Preset { name: "timm-ra4", input: 224, resize: 248, interpolation: Bicubic, normalise: Some([0.5, 0.5]),
            help: "timm's ra4_e3600_r224_in1k" },
    ]
};

impl ValueEnum for &'static Preset {
    fn value_variants<'a>() -> &'a [Self] {
        static NAMED: [&Preset; 7] = [
            &ALL[0], &ALL[1], &ALL[2], &ALL[3], &ALL[4], &ALL[5], &ALL[6],
        ];
        &NAMED
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name).help(self.help))
    }
}

impl Preset {
    /// The preprocessing.
    pub fn preprocessing(&self) -> Preprocessing {
        let mut preprocessing = Preprocessing {
            size: [self.input; 2],
            evaluate: EvalTransform::CenterCrop {
                resize: self.resize,
            },
            interpolation: self.interpolation,
            ..imagenet_preprocessing()
        };
        if let Some([mean, std]) = self.normalise {
            preprocessing.mean.fill(mean);
            preprocessing.std.fill(std);
        }
        preprocessing
    }
}
