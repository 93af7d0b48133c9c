//! The preprocessing of published training recipes.

use std::ffi::OsStr;

use clap::builder::{EnumValueParser, PossibleValue, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Arg, Command, Error, ValueEnum};
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
    /// The names of the weights in torchvision, and their tags in timm.
    weights: &'static [&'static str],
    help: &'static str,
}

/// torchvision: `ImageClassification` with the parameters of each
/// `ResNet*_Weights`. timm: `default_cfgs` in `models/resnet.py`, where the
/// shorter side becomes `floor(input / crop_pct)`.
#[rustfmt::skip]
static ALL: [Preset; 8] = {
    use Interpolation::{Bicubic, Bilinear};
    [
        Preset { name: "torchvision-v1", input: 224, resize: 256, interpolation: Bilinear, normalise: None,
            weights: &["IMAGENET1K_V1", "tv_in1k", "fb_ssl_yfcc100m_ft_in1k", "fb_swsl_ig1b_ft_in1k"],
            help: "IMAGENET1K_V1 of torchvision; timm's tv_in1k, and Facebook's ssl and swsl" },
        Preset { name: "torchvision-v2", input: 224, resize: 232, interpolation: Bilinear, normalise: None,
            weights: &["IMAGENET1K_V2"],
            help: "IMAGENET1K_V2 of torchvision" },
        Preset { name: "timm-tv2", input: 176, resize: 201, interpolation: Bilinear, normalise: None,
            weights: &["tv2_in1k"],
            help: "timm's tv2_in1k: the weights of IMAGENET1K_V2, at their training size" },
        Preset { name: "timm-a1", input: 224, resize: 235, interpolation: Bicubic, normalise: None,
            weights: &["a1_in1k", "b1k_in1k", "b2k_in1k", "c1_in1k", "c2_in1k", "d_in1k"],
            help: "timm's a1_in1k, and b1k, b2k, c1, c2 and d" },
        Preset { name: "timm-a2", input: 224, resize: 235, interpolation: Bicubic, normalise: None,
            weights: &["a2_in1k"],
            help: "timm's a2_in1k" },
        Preset { name: "timm-a3", input: 160, resize: 168, interpolation: Bicubic, normalise: None,
            weights: &["a3_in1k"],
            help: "timm's a3_in1k, at its training size" },
        Preset { name: "timm-ra", input: 224, resize: 256, interpolation: Bicubic, normalise: None,
            weights: &["ra_in1k", "ram_in1k", "racm_in1k", "am_in1k", "bt_in1k", "gluon_in1k"],
            help: "timm's ra_in1k, ram_in1k, am_in1k, bt_in1k and gluon_in1k" },
        Preset { name: "timm-ra4", input: 224, resize: 248, interpolation: Bicubic, normalise: Some([0.5, 0.5]),
            weights: &["ra4_e3600_r224_in1k"],
            help: "timm's ra4_e3600_r224_in1k" },
    ]
};

impl ValueEnum for &'static Preset {
    fn value_variants<'a>() -> &'a [Self] {
        static NAMED: [&Preset; 8] = [
            &ALL[0], &ALL[1], &ALL[2], &ALL[3], &ALL[4], &ALL[5], &ALL[6], &ALL[7],
        ];
        &NAMED
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let value = PossibleValue::new(self.name).help(self.help);
        Some(value.aliases(self.weights))
    }
}

/// Parses the name of a preset or of weights, also with their network in front,
/// as `ResNet50_Weights.IMAGENET1K_V2` and `resnet50.a1_in1k`.
#[derive(Clone)]
pub struct Parser;

impl TypedValueParser for Parser {
    type Value = &'static Preset;

    fn parse_ref(
        &self,
        command: &Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<Self::Value, Error> {
        let text = value.to_string_lossy();
        let name = text.rsplit('.').next().unwrap_or(&text).trim();
        if name.eq_ignore_ascii_case("DEFAULT") {
            let message = format!(
                "'{text}' is IMAGENET1K_V2 for some networks of torchvision, IMAGENET1K_V1 for \
                 others: give one of these\n"
            );
            return Err(Error::raw(ErrorKind::InvalidValue, message).with_cmd(command));
        }
        EnumValueParser::new().parse_ref(command, argument, OsStr::new(name))
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let presets = Self::Value::value_variants().iter();
        Some(Box::new(presets.filter_map(ValueEnum::to_possible_value)))
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
