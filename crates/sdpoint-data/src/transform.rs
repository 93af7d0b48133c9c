//! Preprocessing of images: resizing, cropping, augmentation and normalisation.
//!
//! Evaluation and prediction go through [`Preparer::prepare`], training
//! through [`Preparer::augment`]; both end in the same normalisation.

mod resize;

use std::borrow::Cow;
use std::ops::Range;

use rand::{Rng, RngExt};
use sdpoint_core::{EvalTransform, ExifOrientation, Preprocessing, TrainTransform};

use crate::augment::{Augmentation, Pixels};
use crate::error::{DataError, ImageError};
use crate::image::Image;
use crate::limits::MAX_PIXELS;
use resize::{Crop, Resizer, whole};

/// Channels of every image.
pub const CHANNELS: usize = 3;

/// Prepares `image` as evaluation does: `height × width × 3` values (HWC).
///
/// # Errors
/// The preprocessing cannot be carried out, on any image or on this one. To
/// prepare many images, keep a [`Preparer`].
pub fn prepare(image: &Image, preprocessing: &Preprocessing) -> Result<Vec<f32>, DataError> {
    let mut preparer = Preparer::new(preprocessing)?;
    let mut input = vec![0.0; preparer.input_len()];
    preparer
        .prepare(image, &mut input)
        .map_err(|error| DataError::Image {
            name: "the image".to_owned(),
            error,
        })?;
    Ok(input)
}

/// If a resized image has more than this many times the pixels of the network's
/// input, only those inside the crop are computed. The resizer's 16-bit weights
/// may then round differently, by 1 or 2 of 255.
const OBLONG: usize = 8;

/// Preprocessing with its tables and buffers, for one thread.
pub struct Preparer {
    size: [usize; 2],
    train: TrainTransform,
    evaluate: EvalTransform,
    resizer: Resizer,
    /// Whether the EXIF orientation is applied.
    turn: bool,
    /// The normalised value of every byte, for each channel.
    normalised: Box<[[f32; 256]; CHANNELS]>,
    /// The mean colour.
    mean: [u8; CHANNELS],
    /// Augmentation beyond crops and mirroring.
    augmentation: Augmentation,
    /// The image before normalisation, where it is augmented.
    pixels: Pixels,
}

/// What part of an image becomes the network's input.
struct Framing {
    /// The area that is resized.
    area: Crop,
    /// Its height and width then.
    size: [usize; 2],
    window: CropWindow,
}

/// The crop of the (resized) image that becomes the network's input: its upper
/// left corner, which may be outside of the image, whether it is mirrored, and
/// what is outside of the image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct CropWindow {
    left: isize,
    top: isize,
    flip: bool,
    border: Border,
}

/// The pixels outside of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Border {
    /// Black: zero before normalisation, as torchvision's `CenterCrop` pads.
    #[default]
    Black,
    /// The mean colour: zero after normalisation.
    Mean,
}

impl Preparer {
    /// Checks the preprocessing, which may be untrusted, and computes tables.
    ///
    /// # Errors
    /// If a size, statistic or range is invalid; the error names it.
    pub fn new(preprocessing: &Preprocessing) -> Result<Preparer, DataError> {
        preprocessing
            .check(CHANNELS)
            .map_err(DataError::Preprocessing)?;
        let normalised = preprocessing.normalised_bytes();
        let normalised = normalised.try_into().expect("as many channels as checked");
        Ok(Preparer {
            size: preprocessing.size,
            train: preprocessing.train,
            evaluate: preprocessing.evaluate,
            resizer: Resizer::new(preprocessing.interpolation),
            turn: preprocessing.exif_orientation == ExifOrientation::Apply,
            normalised,
            mean: std::array::from_fn(|channel| {
                (255.0 * preprocessing.mean[channel])
                    .round()
                    .clamp(0.0, 255.0) as u8
            }),
            augmentation: Augmentation::default(),
            pixels: Pixels::default(),
        })
    }

    /// Adds augmentation of training images beyond crops and mirroring. Images
    /// are not mixed with each other: a [`Loader`](crate::Loader) does that.
    pub fn with_augmentation(self, augmentation: Augmentation) -> Preparer {
        Preparer {
            augmentation,
            ..self
        }
    }

    /// The number of values of an input: `height × width × 3`.
    pub fn input_len(&self) -> usize {
        self.size[0] * self.size[1] * CHANNELS
    }

    /// Prepares `image` for evaluation or prediction and writes it to `input`
    /// (HWC).
    ///
    /// # Errors
    /// The image cannot be resized.
    ///
    /// # Panics
    /// `input` is not [`input_len`](Self::input_len) long.
    pub fn prepare(&mut self, image: &Image, input: &mut [f32]) -> Result<(), ImageError> {
        let image = &*self.turned(image);
        let framing = self.for_evaluation(image);
        self.normalise(image, &framing, input)
    }

    /// The image as the preprocessing sees it.
    fn turned<'a>(&self, image: &'a Image) -> Cow<'a, Image> {
        match self.turn {
            true => image.upright(),
            false => Cow::Borrowed(image),
        }
    }

    fn for_evaluation(&self, image: &Image) -> Framing {
        let size = match self.evaluate {
            EvalTransform::Resize => self.size,
            EvalTransform::CenterCrop { resize } => shorter_side_to(image, resize),
            EvalTransform::SquashCrop { resize } => resize,
        };
        let window = match self.evaluate {
            EvalTransform::Resize => CropWindow::default(),
            _ => CropWindow {
                left: centred(size[1], self.size[1]),
                top: centred(size[0], self.size[0]),
                ..CropWindow::default()
            },
        };
        Framing {
            area: whole(image),
            size,
            window,
        }
    }

    fn for_training(&self, image: &Image, rng: &mut impl Rng) -> Framing {
        match self.train {
            TrainTransform::PadCrop { padding, flip } => {
                let mut shift = || rng.random_range(0..=2 * padding as u32) as isize;
                let (left, top) = (shift(), shift());
                let window = CropWindow {
                    left: left - padding as isize,
                    top: top - padding as isize,
                    flip: flip && rng.random(),
                    border: Border::Mean,
                };
                Framing {
                    area: whole(image),
                    size: self.size,
                    window,
                }
            }
            TrainTransform::RandomResizedCrop { area, aspect, flip } => {
                let area = random_area(image, area, aspect, rng);
                let window = CropWindow {
                    flip: flip && rng.random(),
                    ..CropWindow::default()
                };
                Framing {
                    area,
                    size: self.size,
                    window,
                }
            }
            TrainTransform::None => self.for_evaluation(image),
        }
    }

    /// Writes `image`, augmented by draws from `rng`, to `input` (HWC).
    ///
    /// # Errors
    /// As for [`prepare`](Self::prepare).
    ///
    /// # Panics
    /// `input` is not [`input_len`](Self::input_len) long.
    pub fn augment(
        &mut self,
        image: &Image,
        rng: &mut impl Rng,
        input: &mut [f32],
    ) -> Result<(), ImageError> {
        let image = &*self.turned(image);
        let framing = self.for_training(image, rng);
        if self.augmentation.changes_pixels() {
            self.change_pixels(image, &framing, rng, input)?;
        } else {
            self.normalise(image, &framing, input)?;
        }
        self.augmentation.erase(input, self.size, rng);
        Ok(())
    }

    /// Writes the framed part of an image, normalised.
    fn normalise(
        &mut self,
        image: &Image,
        framing: &Framing,
        input: &mut [f32],
    ) -> Result<(), ImageError> {
        assert_eq!(input.len(), self.input_len(), "length of the input");
        let [r, g, b] = &*self.normalised;
        let normalise = |&[red, green, blue]: &[u8; CHANNELS]| {
            [
                r[usize::from(red)],
                g[usize::from(green)],
                b[usize::from(blue)],
            ]
        };
        let (pixels, _) = input.as_chunks_mut::<CHANNELS>();
        pixels.fill(match framing.window.border {
            Border::Black => normalise(&[0; CHANNELS]),
            Border::Mean => [0.0; CHANNELS],
        });
        frame(
            &mut self.resizer,
            image,
            framing,
            self.size,
            pixels,
            normalise,
        )
    }

    /// As [`normalise`](Self::normalise), after a change of the pixels.
    fn change_pixels(
        &mut self,
        image: &Image,
        framing: &Framing,
        rng: &mut impl Rng,
        input: &mut [f32],
    ) -> Result<(), ImageError> {
        assert_eq!(input.len(), self.input_len(), "length of the input");
        let pixels = &mut self.pixels;
        let outside = match framing.window.border {
            Border::Black => [0; CHANNELS],
            Border::Mean => self.mean,
        };
        pixels.reset(self.size, outside);
        let copy = |&pixel: &[u8; CHANNELS]| pixel;
        frame(
            &mut self.resizer,
            image,
            framing,
            self.size,
            &mut pixels.data,
            copy,
        )?;
        self.augmentation.change(pixels, rng);
        let (outputs, _) = input.as_chunks_mut::<CHANNELS>();
        for (output, pixel) in outputs.iter_mut().zip(&pixels.data) {
            *output = std::array::from_fn(|channel| {
                self.normalised[channel][usize::from(pixel[channel])]
            });
        }
        Ok(())
    }
}

/// Resizes the framed area of `image`, unless it has its size already, and writes
/// what the window shows to an input of `[height, width]`. What is outside of the
/// image stays.
fn frame<T>(
    resizer: &mut Resizer,
    image: &Image,
    framing: &Framing,
    [height, width]: [usize; 2],
    input: &mut [T],
    convert: impl Fn(&[u8; CHANNELS]) -> T,
) -> Result<(), ImageError> {
    let &Framing { area, size, window } = framing;
    let rows = visible(window.top, height, size[0]);
    let columns = visible(window.left, width, size[1]);
    if rows.is_empty() || columns.is_empty() {
        return Ok(());
    }
    // Where what is shown begins in the window.
    let top = (rows.start as isize - window.top) as usize;
    let left = (columns.start as isize - window.left) as usize;
    let most = (OBLONG * height * width).min(MAX_PIXELS);
    let shown = resizer.show(image, area, size, [rows, columns], most)?;
    let lines = input.chunks_exact_mut(width).skip(top);
    for (line, source) in lines.zip(shown.rows()) {
        let write = |(out, pixel): (&mut T, &[u8; CHANNELS])| *out = convert(pixel);
        if window.flip {
            line.iter_mut().rev().skip(left).zip(source).for_each(write);
        } else {
            line[left..].iter_mut().zip(source).for_each(write);
        }
    }
    Ok(())
}

/// The part of `side` pixels that a window of `len` pixels from `start` on shows.
fn visible(start: isize, len: usize, side: usize) -> Range<usize> {
    let clamp = |at: isize| at.clamp(0, side as isize) as usize;
    clamp(start)..clamp(start + len as isize)
}

/// Height and width with the shorter side `resize` pixels long and the longer
/// one in proportion, rounded down as torchvision's `Resize` does.
fn shorter_side_to(image: &Image, resize: usize) -> [usize; 2] {
    let (height, width) = (image.height(), image.width());
    if height < width {
        [resize, resize * width / height]
    } else {
        [resize * height / width, resize]
    }
}

/// Where a window of `crop` pixels starts in the middle of `side` pixels,
/// rounded as torchvision's `CenterCrop` does: half-way cases to even inside
/// the image, outwards where the window is the longer one.
fn centred(side: usize, crop: usize) -> isize {
    if side >= crop {
        ((side - crop) as f64 / 2.0).round_ties_even() as isize
    } else {
        -(((crop - side) / 2) as isize)
    }
}

/// A random crop as drawn by torchvision's `RandomResizedCrop`: the area
/// uniformly, the aspect ratio uniformly in its logarithm; after ten draws that
/// do not fit, the largest centre crop of an allowed aspect ratio.
fn random_area(image: &Image, area: [f32; 2], aspect: [f32; 2], rng: &mut impl Rng) -> Crop {
    const DRAWS: usize = 10;
    let (width, height) = (image.width(), image.height());
    let log_aspect = aspect.map(|a| f64::from(a).ln());
    for _ in 0..DRAWS {
        let area = width as f64 * height as f64 * between(area.map(f64::from), rng);
        let aspect = between(log_aspect, rng).exp();
        let w = (area * aspect).sqrt().round_ties_even() as usize;
        let h = (area / aspect).sqrt().round_ties_even() as usize;
        if (1..=width).contains(&w) && (1..=height).contains(&h) {
            let left = rng.random_range(0..=(width - w) as u32);
            let top = rng.random_range(0..=(height - h) as u32);
            return Crop {
                left: f64::from(left),
                top: f64::from(top),
                width: w as f64,
                height: h as f64,
            };
        }
    }
    let [narrowest, widest] = aspect.map(f64::from);
    let shape = (width as f64 / height as f64).clamp(narrowest, widest);
    let w = (height as f64 * shape)
        .round_ties_even()
        .clamp(1.0, width as f64);
    let h = (width as f64 / shape)
        .round_ties_even()
        .clamp(1.0, height as f64);
    Crop {
        left: ((width as f64 - w) / 2.0).floor(),
        top: ((height as f64 - h) / 2.0).floor(),
        width: w,
        height: h,
    }
}

fn between([low, high]: [f64; 2], rng: &mut impl Rng) -> f64 {
    low + (high - low) * rng.random::<f64>()
}

#[cfg(test)]
mod tests;
