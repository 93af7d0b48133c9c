//! The preprocessing of images for imported weights.

use clap::ValueEnum;
use clap::builder::PossibleValue;
use sdpoint::core::{EvalTransform, ExifOrientation, Interpolation, Preprocessing, TrainTransform};
use sdpoint::data::imagenet_preprocessing;

use super::config::{self, Config};
use super::presets::{self, Preset};
use crate::failure::{Class, Failure};
use crate::output::note;
use crate::preprocessing::{PreprocessingArgs, usual_resize};
use crate::size;

/// Options for the preprocessing.
#[derive(clap::Args)]
pub struct Options {
    /// Preprocessing of a published recipe, also by the weights' name in torchvision or tag in timm;
    /// other options override parts of it
    #[arg(long, value_name = "RECIPE", value_parser = presets::Parser, ignore_case = true)]
    preset: Option<&'static Preset>,
    /// Input size: 224, or HxW [default: that of the published network]
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    input: Option<[usize; 2]>,
    /// Whether to keep the aspect ratio and crop the centre (short-side), or to squash images into
    /// the shape of the input [default: short-side; squash for networks for small images]
    #[arg(long, value_name = "MODE", value_enum, ignore_case = true)]
    resize_mode: Option<ResizeMode>,
    /// Resize the shorter side of images to this many pixels before the centre crop [default: 256 for
    /// an input of 224, others in proportion; with squash, the input size]
    #[arg(long, value_name = "PIXELS")]
    resize: Option<usize>,
    /// Resampling filter [default: bilinear]
    #[arg(long, value_name = "FILTER", value_enum, ignore_case = true)]
    interpolation: Option<Filter>,
    /// Mean of each channel, for values from 0 to 1 [default: ImageNet's]
    #[arg(long, value_name = "R,G,B", value_parser = numbers, allow_hyphen_values = true)]
    mean: Option<Numbers>,
    /// Standard deviation of each channel [default: ImageNet's]
    #[arg(long, value_name = "R,G,B", value_parser = numbers, allow_hyphen_values = true)]
    std: Option<Numbers>,
    #[command(flatten)]
    preparation: PreprocessingArgs,
}

/// How images are resized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ResizeMode {
    /// Resize the shorter side and crop the centre.
    ShortSide,
    /// Resize both sides, ignoring the aspect ratio.
    Squash,
}

/// A filter, by its name in model files.
#[derive(Clone, Copy, Debug)]
struct Filter(Interpolation);

impl ValueEnum for Filter {
    fn value_variants<'a>() -> &'a [Self] {
        static ALL: [Filter; 6] = [
            Filter(Interpolation::ALL[0]),
            Filter(Interpolation::ALL[1]),
            Filter(Interpolation::ALL[2]),
            Filter(Interpolation::ALL[3]),
            Filter(Interpolation::ALL[4]),
            Filter(Interpolation::ALL[5]),
        ];
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.0.name()))
    }
}

#[derive(Clone, Debug)]
struct Numbers(Vec<f32>);

/// Parses numbers separated by commas, also as lists of Python and JSON.
fn numbers(text: &str) -> Result<Numbers, String> {
    let inner = text.trim().trim_matches(['(', ')', '[', ']']);
    let number = |part: &str| {
        let part = part.trim();
        part.parse::<f32>()
            .map_err(|_| format!("'{part}' is not a number"))
    };
    let parts = inner.split(',').filter(|part| !part.trim().is_empty());
    let numbers: Result<Vec<f32>, String> = parts.map(number).collect();
    numbers.map(Numbers)
}

impl Options {
    /// The preprocessing of a network for images of `side` pixels: that of the
    /// preset, of the checkpoint's configuration, or ImageNet's, with the
    /// options applied.
    pub fn preprocessing(
        &self,
        side: usize,
        config: Option<&Config>,
    ) -> Result<Preprocessing, Failure> {
        let mut preprocessing = match (self.preset, config) {
            (Some(preset), _) => preset.preprocessing(),
            (None, Some(config)) => config.preprocessing(self.resize_mode.is_some())?,
            (None, None) => usual(side),
        };
        if let Some(input) = self.input {
            preprocessing = preprocessing.with_size(input);
        }
        preprocessing.evaluate = self.evaluate(&preprocessing);
        if let Some(Filter(filter)) = self.interpolation {
            preprocessing.interpolation = filter;
        }
        for (ours, theirs) in [
            (&mut preprocessing.mean, &self.mean),
            (&mut preprocessing.std, &self.std),
        ] {
            if let Some(Numbers(theirs)) = theirs {
                ours.clone_from(theirs);
            }
        }
        self.preparation.set(&mut preprocessing);
        check(&preprocessing).map_err(|invalid| {
            let config = config.filter(|_| self.preset.is_none() && !self.sets(invalid.setting));
            invalid.failure(config)
        })?;
        question_crop(&preprocessing);
        Ok(preprocessing)
    }

    /// Whether an option decides about a setting.
    fn sets(&self, setting: Setting) -> bool {
        match setting {
            Setting::Mean => self.mean.is_some(),
            Setting::Std => self.std.is_some(),
            Setting::Size => {
                self.input.is_some() || self.resize.is_some() || self.resize_mode.is_some()
            }
        }
    }

    fn evaluate(&self, preprocessing: &Preprocessing) -> EvalTransform {
        let size = preprocessing.size;
        let shorter = size[0].min(size[1]);
        match (self.resize_mode, self.resize, preprocessing.evaluate) {
            (None, None, usual) => usual,
            (Some(ResizeMode::Squash), None, usual @ EvalTransform::SquashCrop { .. }) => usual,
            (Some(ResizeMode::Squash), None, _) => EvalTransform::Resize,
            (Some(ResizeMode::Squash), Some(resize), _)
            | (None, Some(resize), EvalTransform::SquashCrop { .. }) => {
                let scaled =
                    |side: usize| (side as f64 * resize as f64 / shorter as f64).round() as usize;
                EvalTransform::SquashCrop {
                    resize: size.map(scaled),
                }
            }
            (Some(ResizeMode::ShortSide), None, usual @ EvalTransform::CenterCrop { .. }) => usual,
            (Some(ResizeMode::ShortSide), None, EvalTransform::SquashCrop { resize }) => {
                EvalTransform::CenterCrop {
                    resize: resize[0].max(resize[1]),
                }
            }
            (Some(ResizeMode::ShortSide), None, EvalTransform::Resize) => {
                EvalTransform::CenterCrop {
                    resize: size[0].max(size[1]),
                }
            }
            (_, Some(resize), _) => EvalTransform::CenterCrop { resize },
        }
    }
}

/// ImageNet's preprocessing; for networks for small images, without cropping.
fn usual(side: usize) -> Preprocessing {
    let mut preprocessing = imagenet_preprocessing();
    if side < preprocessing.size[0] {
        preprocessing.size = [side; 2];
        preprocessing.evaluate = EvalTransform::Resize;
        preprocessing.train = TrainTransform::PadCrop {
            padding: side / 8,
            flip: true,
        };
    }
    preprocessing
}

/// Plausible deviations of colours from 0 to 1: those that turn them into colours
/// from 0 to 255, 1/255, up to those that change nothing. A thousandth less is
/// 1/255 in three digits, 0.00392.
const STD: std::ops::RangeInclusive<f32> = 0.999 / 255.0..=1.0;

/// A hint for means and deviations that are on no known scale.
const USUAL: &str = "of colours from 0 to 1, means are about 0.5 and deviations about 0.2; ImageNet's \
                     are --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225";

/// The largest value of a channel in a file.
const BYTE: f32 = 255.0;

/// A part of the preprocessing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Setting {
    Mean,
    Std,
    Size,
}

/// Implausible numbers.
struct Invalid {
    setting: Setting,
    problem: String,
    /// What was probably meant, as options.
    hint: Option<String>,
}

impl Invalid {
    fn new(setting: Setting, problem: impl Into<String>) -> Self {
        Self {
            setting,
            problem: problem.into(),
            hint: None,
        }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The failure of the command line, or of the configuration that has the
    /// numbers.
    fn failure(self, config: Option<&Config>) -> Failure {
        let Some(config) = config else {
            let message = format!("the preprocessing is invalid: {}", self.problem);
            let failure = Failure::new(Class::Usage, message);
            return match self.hint {
                Some(hint) => failure.hint(hint),
                None => failure,
            };
        };
        let instead = match self.setting {
            Setting::Mean => "to use other means than the file's, give --mean R,G,B",
            Setting::Std => "to use other deviations than the file's, give --std R,G,B",
            Setting::Size => "to use another size than the file's, give --input and --resize",
        };
        let instead = format!("{instead}; --no-config ignores the whole file");
        config::implausible(config.path(), &self.problem).hint(match self.hint {
            Some(hint) => format!("{hint}; {instead}"),
            None => instead,
        })
    }
}

/// Refuses implausible numbers, with a hint at the probable intention.
fn check(preprocessing: &Preprocessing) -> Result<(), Invalid> {
    /// The number of channels.
    const CHANNELS: usize = 3;
    let (mean, std) = (&preprocessing.mean, &preprocessing.std);
    check_mean(mean, std)?;
    check_std(std)?;
    let size = |problem: String| Invalid::new(Setting::Size, problem);
    preprocessing.check(CHANNELS).map_err(size)?;
    preprocessing.check_crop().map_err(|error| {
        let mut hint = format!("probably meant: --resize {}", usual_resize(error));
        let [height, width] = preprocessing.size;
        if height == width {
            hint += &format!(", or --input {} for the whole image", error.resize);
        }
        size(error.to_string()).hint(hint)
    })
}

/// Requires a finite number for each channel.
fn check_numbers(what: &str, values: &[f32]) -> Result<(), String> {
    match values {
        [_, _, _] => match values.iter().all(|value| value.is_finite()) {
            true => Ok(()),
            false => Err(format!("its {what} are not all finite numbers")),
        },
        _ => Err(format!(
            "it has {} for 3 channels",
            match values.len() {
                1 => format!("1 {}", what.trim_end_matches('s')),
                count => format!("{count} {what}"),
            }
        )),
    }
}

fn check_mean(mean: &[f32], std: &[f32]) -> Result<(), Invalid> {
    let refuse = |problem: String| Invalid::new(Setting::Mean, problem);
    check_numbers("means", mean).map_err(refuse)?;
    if !mean.iter().all(|mean| (0.0..=1.0).contains(mean)) {
        let problem = format!(
            "a mean of {} for colours from 0 to 1",
            outside(mean, 0.0..=1.0)
        );
        return Err(match bytes(mean) {
            true => refuse(problem).hint(format!(
                "these look like values from 0 to 255; probably meant: --mean {} --std {}",
                divided(mean),
                if bytes(std) || *std == [1.0; 3] {
                    divided(std)
                } else {
                    joined(std)
                },
            )),
            false => refuse(problem).hint(USUAL),
        });
    }
    if mean.iter().all(|&mean| mean == 1.0) {
        return Err(refuse("means of 1 are those of white images".into()).hint(
            "probably meant: --mean 0,0,0 --std 1,1,1 for colours from 0 to 1, or --mean 0.5,0.5,0.5 \
             --std 0.5,0.5,0.5 for colours from -1 to 1",
        ));
    }
    Ok(())
}

fn check_std(std: &[f32]) -> Result<(), Invalid> {
    let refuse = |problem: String| Invalid::new(Setting::Std, problem);
    check_numbers("standard deviations", std).map_err(refuse)?;
    if std.iter().all(|std| STD.contains(std)) {
        return Ok(());
    }
    let problem = format!("a standard deviation of {}", outside(std, STD));
    Err(match bytes(std) {
        true => refuse(problem).hint(format!(
            "these look like values from 0 to 255; probably meant: --std {}",
            divided(std)
        )),
        false => refuse(problem).hint(USUAL),
    })
}

/// Asks about a crop that leaves out most of the image.
fn question_crop(preprocessing: &Preprocessing) {
    /// The usual crops have about 7/8 of the resized side; none has half of it.
    const MOST: usize = 2;
    let [height, width] = preprocessing.size;
    let resized = match preprocessing.evaluate {
        EvalTransform::CenterCrop { resize } => [resize; 2],
        EvalTransform::SquashCrop { resize } => resize,
        EvalTransform::Resize => return,
    };
    let crop = [height, width];
    // Of an oblong crop, the longer side decides.
    let is_small = std::iter::zip(resized, crop).all(|(resized, crop)| resized >= MOST * crop);
    if is_small {
        let (usual, part) = (height.max(width) * 8 / 7, 100 * height * width);
        note(&format!(
            "Images are resized to {} and all but the middle {height}x{width} is cut off: {}% of a \
             square image remains. Usual is --resize {usual} for this input.",
            size::text(resized),
            part / (resized[0] * resized[1]).max(1),
        ));
    }
}

/// The first of some values that is out of range.
fn outside(values: &[f32], range: std::ops::RangeInclusive<f32>) -> f32 {
    let mut outside = values.iter().filter(|value| !range.contains(value));
    outside.next().copied().unwrap_or_default()
}

/// Whether values are probably on the scale from 0 to 255: on that from 0 to 1,
/// they would not all be near 0.
fn bytes(values: &[f32]) -> bool {
    const LEAST: f32 = 0.05 * BYTE;
    values.iter().all(|value| (0.0..=BYTE).contains(value))
        && values.iter().any(|&value| value > LEAST)
}

/// Values from 0 to 255 on the scale from 0 to 1, in a few digits: 1 becomes
/// 0.00392, which is within [`STD`].
fn divided(values: &[f32]) -> String {
    let rounded = |value: f32| {
        let digits = if value < 0.01 { 1e5 } else { 1e4 };
        (value * digits).round() / digits
    };
    let values: Vec<f32> = values.iter().map(|value| rounded(value / BYTE)).collect();
    joined(&values)
}

fn joined(values: &[f32]) -> String {
    let values: Vec<String> = values.iter().map(ToString::to_string).collect();
    values.join(",")
}

/// How images are prepared, in words.
pub fn described(preprocessing: &Preprocessing) -> String {
    let filter = preprocessing.interpolation.name();
    let size = size::text(preprocessing.size);
    let [height, width] = preprocessing.size;
    let rotated = match preprocessing.exif_orientation {
        ExifOrientation::Ignore => "",
        ExifOrientation::Apply => "rotated according to their EXIF data, ",
    };
    let resized = match preprocessing.evaluate {
        EvalTransform::Resize => format!("squashed to {size} ({filter})"),
        EvalTransform::CenterCrop { resize } => {
            format!(
                "the shorter side resized to {resize} ({filter}), cropped to the middle {height}x{width}"
            )
        }
        EvalTransform::SquashCrop { resize } => format!(
            "squashed to {} ({filter}), cropped to the middle {height}x{width}",
            size::text(resize)
        ),
    };
    format!(
        "{rotated}{resized}, mean {}, standard deviation {}",
        joined(&preprocessing.mean),
        joined(&preprocessing.std)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_says_whether_images_are_rotated() {
        let mut preprocessing = imagenet_preprocessing();
        let ignored = described(&preprocessing);
        assert!(ignored.starts_with("the shorter side resized to 256 (bilinear), cropped"));
        preprocessing.exif_orientation = ExifOrientation::Apply;
        let applied = described(&preprocessing);
        assert!(
            applied.starts_with("rotated") && applied.ends_with(&ignored),
            "{applied}"
        );
    }
}
