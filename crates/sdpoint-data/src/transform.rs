//! Preprocessing carried out: from an image to the network's input.
//!
//! Evaluation and prediction go through [`Preparer::prepare`], training
//! through [`Preparer::augment`]; both end in the same normalisation.

use fast_image_resize as fir;
use fir::images::{TypedImage, TypedImageRef};
use fir::pixels::U8x3;
use rand::{Rng, RngExt};
use sdpoint_core::{EvalTransform, Interpolation, Preprocessing, TrainTransform};

use crate::error::{DataError, ImageError};
use crate::image::{Image, MAX_SIDE, check_size};

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

/// Preprocessing with its tables and buffers, for one thread.
pub struct Preparer {
    size: [usize; 2],
    train: TrainTransform,
    evaluate: EvalTransform,
    filter: fir::ResizeAlg,
    /// The normalised value of every byte, for each channel.
    normalised: Box<[[f32; 256]; CHANNELS]>,
    resizer: fir::Resizer,
    resized: Vec<u8>,
}

/// A rectangle of a source image, in pixels and parts of pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Area {
    left: f64,
    top: f64,
    width: f64,
    height: f64,
}

/// Where the network's input lies on the (resized) image: its upper left
/// corner, which may be outside, and whether it is mirrored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Window {
    left: isize,
    top: isize,
    flip: bool,
}

impl Preparer {
    /// Checks the preprocessing, which may come from a file of anyone's, and
    /// makes the tables.
    ///
    /// # Errors
    /// A size, statistic or range that cannot be carried out; it is named.
    pub fn new(preprocessing: &Preprocessing) -> Result<Preparer, DataError> {
        check(preprocessing)?;
        let mut normalised = Box::new([[0.0; 256]; CHANNELS]);
        for (channel, table) in normalised.iter_mut().enumerate() {
            let (mean, std) = (preprocessing.mean[channel], preprocessing.std[channel]);
            for (byte, value) in table.iter_mut().enumerate() {
                *value = (byte as f32 / 255.0 - mean) / std;
            }
        }
        Ok(Preparer {
            size: preprocessing.size,
            train: preprocessing.train,
            evaluate: preprocessing.evaluate,
            filter: filter(preprocessing.interpolation),
            normalised,
            resizer: fir::Resizer::new(),
            resized: Vec::new(),
        })
    }

    /// How many values an input has: `height × width × 3`.
    pub fn input_len(&self) -> usize {
        self.size[0] * self.size[1] * CHANNELS
    }

    /// Writes `image` as evaluation and prediction see it to `input` (HWC).
    ///
    /// # Errors
    /// The image is so oblong that resizing it would exceed the limits.
    ///
    /// # Panics
    /// `input` is not [`input_len`](Self::input_len) long.
    pub fn prepare(&mut self, image: &Image, input: &mut [f32]) -> Result<(), ImageError> {
        match self.evaluate {
            EvalTransform::Resize => {
                self.crop(image, whole(image), self.size, Window::default(), input)
            }
            EvalTransform::CenterCrop { resize } => {
                let size = shorter_side_to(image, resize);
                self.crop_middle(image, size, input)
            }
            EvalTransform::SquashCrop { resize } => self.crop_middle(image, resize, input),
        }
    }

    /// Resizes the whole `image` to `size` (height, width) and writes the
    /// middle of that.
    fn crop_middle(
        &mut self,
        image: &Image,
        size: [usize; 2],
        input: &mut [f32],
    ) -> Result<(), ImageError> {
        let window = Window {
            left: centred(size[1], self.size[1]),
            top: centred(size[0], self.size[0]),
            flip: false,
        };
        self.crop(image, whole(image), size, window, input)
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
        match self.train {
            TrainTransform::PadCrop { padding, flip } => {
                let mut shift = || rng.random_range(0..=2 * padding as u32) as isize;
                let (left, top) = (shift(), shift());
                let window = Window {
                    left: left - padding as isize,
                    top: top - padding as isize,
                    flip: flip && rng.random(),
                };
                self.crop(image, whole(image), self.size, window, input)
            }
            TrainTransform::RandomResizedCrop { area, aspect, flip } => {
                let part = random_area(image, area, aspect, rng);
                let window = Window {
                    flip: flip && rng.random(),
                    ..Window::default()
                };
                self.crop(image, part, self.size, window, input)
            }
            TrainTransform::None => self.prepare(image, input),
        }
    }

    /// Resizes `area` of `image` to `size` (height, width), if it is not of
    /// that size already, and normalises what the window shows of it. Outside
    /// the image there is black, as zeros are before normalisation.
    fn crop(
        &mut self,
        image: &Image,
        area: Area,
        size: [usize; 2],
        window: Window,
        input: &mut [f32],
    ) -> Result<(), ImageError> {
        assert_eq!(input.len(), self.input_len(), "length of the input");
        let pixels = if area == whole(image) && size == [image.height(), image.width()] {
            image.pixels()
        } else {
            self.resize(image, area, size)?;
            &self.resized
        };
        let [height, width] = size;
        let [r, g, b] = &*self.normalised;
        let rows = input.chunks_exact_mut(self.size[1] * CHANNELS);
        for (y, row) in (window.top..).zip(rows) {
            let source = match usize::try_from(y) {
                Ok(y) if y < height => &pixels[y * width * CHANNELS..][..width * CHANNELS],
                _ => &[],
            };
            let (source, _) = source.as_chunks::<CHANNELS>();
            let (row, _) = row.as_chunks_mut::<CHANNELS>();
            let normalise = |(x, out): (isize, &mut [f32; CHANNELS])| {
                *out = match usize::try_from(x).ok().and_then(|x| source.get(x)) {
                    Some(&[red, green, blue]) => [
                        r[usize::from(red)],
                        g[usize::from(green)],
                        b[usize::from(blue)],
                    ],
                    None => [0.0; CHANNELS],
                };
            };
            if window.flip {
                (window.left..)
                    .zip(row.iter_mut().rev())
                    .for_each(normalise);
            } else {
                (window.left..).zip(row).for_each(normalise);
            }
        }
        Ok(())
    }

    fn resize(&mut self, image: &Image, area: Area, size: [usize; 2]) -> Result<(), ImageError> {
        let [height, width] = size;
        check_size(width, height)?;
        self.resized.resize(height * width * CHANNELS, 0);
        let failed = |error: &dyn std::fmt::Display| ImageError::Resize(error.to_string());
        let source = TypedImageRef::<U8x3>::from_buffer(
            image.width() as u32,
            image.height() as u32,
            image.pixels(),
        )
        .map_err(|e| failed(&e))?;
        let mut target =
            TypedImage::<U8x3>::from_buffer(width as u32, height as u32, &mut self.resized)
                .map_err(|e| failed(&e))?;
        let options = fir::ResizeOptions::new().resize_alg(self.filter).crop(
            area.left,
            area.top,
            area.width,
            area.height,
        );
        // Of one pixel type: code for all that the crate knows takes a minute to compile.
        self.resizer
            .resize_typed(&source, &mut target, &options)
            .map_err(|e| failed(&e))
    }
}

/// The resizer's filter that is Pillow's of this name; the support of all but
/// the nearest pixel grows with the reduction, as in Pillow.
fn filter(interpolation: Interpolation) -> fir::ResizeAlg {
    let filter = match interpolation {
        Interpolation::Nearest => return fir::ResizeAlg::Nearest,
        Interpolation::Box => fir::FilterType::Box,
        Interpolation::Bilinear => fir::FilterType::Bilinear,
        Interpolation::Hamming => fir::FilterType::Hamming,
        // Catmull and Rom's cubic has a = -0.5.
        Interpolation::Bicubic => fir::FilterType::CatmullRom,
        Interpolation::Lanczos => fir::FilterType::Lanczos3,
    };
    fir::ResizeAlg::Convolution(filter)
}

fn whole(image: &Image) -> Area {
    Area {
        left: 0.0,
        top: 0.0,
        width: image.width() as f64,
        height: image.height() as f64,
    }
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

/// A random part of random shape, drawn as torchvision's `RandomResizedCrop`
/// draws it: an area uniformly, an aspect uniformly in its logarithm; after
/// ten draws that do not fit, the largest central part of an allowed shape.
fn random_area(image: &Image, area: [f32; 2], aspect: [f32; 2], rng: &mut impl Rng) -> Area {
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
            return Area {
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
    Area {
        left: ((width as f64 - w) / 2.0).floor(),
        top: ((height as f64 - h) / 2.0).floor(),
        width: w,
        height: h,
    }
}

fn between([low, high]: [f64; 2], rng: &mut impl Rng) -> f64 {
    low + (high - low) * rng.random::<f64>()
}

fn check(preprocessing: &Preprocessing) -> Result<(), DataError> {
    let refuse = |problem: String| Err(DataError::Preprocessing(problem));
    let Preprocessing {
        size,
        mean,
        std,
        train,
        evaluate,
        interpolation: _,
        exif_orientation: _,
    } = preprocessing;
    if check_size(size[1], size[0]).is_err() {
        return refuse(format!("an input of {}×{} pixels", size[0], size[1]));
    }
    if mean.len() != CHANNELS || std.len() != CHANNELS {
        return refuse(format!(
            "{} means and {} standard deviations where images have {CHANNELS} channels",
            mean.len(),
            std.len()
        ));
    }
    if !mean.iter().all(|m| m.is_finite()) || !std.iter().all(|s| s.is_finite() && *s > 0.0) {
        return refuse(format!(
            "mean {mean:?} and standard deviation {std:?} cannot normalise"
        ));
    }
    match *train {
        TrainTransform::PadCrop { padding, .. } if padding > MAX_SIDE => {
            return refuse(format!("padding of {padding} pixels"));
        }
        TrainTransform::RandomResizedCrop { area, aspect, .. } => {
            let ordered = |[low, high]: [f32; 2]| low > 0.0 && low <= high && high.is_finite();
            if !ordered(area) || area[1] > 1.0 || !ordered(aspect) {
                return refuse(format!("crops of area {area:?} and aspect {aspect:?}"));
            }
        }
        _ => {}
    }
    match *evaluate {
        EvalTransform::CenterCrop { resize } if resize == 0 || resize > MAX_SIDE => {
            refuse(format!("a shorter side of {resize} pixels"))
        }
        EvalTransform::SquashCrop { resize } if check_size(resize[1], resize[0]).is_err() => {
            refuse(format!(
                "{}×{} pixels before the crop",
                resize[0], resize[1]
            ))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
