//! Operations on RGB pixels of 8 bits per channel. Each is the operation of the
//! same name in Pillow, to the last bit; `fixtures/augmentation.txt` has results
//! of Pillow.

use crate::transform::CHANNELS;

type Pixel = [u8; CHANNELS];

/// What comes into an image from outside: black, as in torchvision.
const OUTSIDE: Pixel = [0; CHANNELS];

/// An image that is being augmented.
#[derive(Debug, Default)]
pub(crate) struct Pixels {
    /// Rows from the top.
    pub data: Vec<Pixel>,
    /// Height and width.
    pub size: [usize; 2],
    /// Memory for results.
    spare: Vec<Pixel>,
}

impl Pixels {
    /// Makes room for an image of `[height, width]`, filled with one colour.
    pub fn reset(&mut self, size: [usize; 2], colour: Pixel) {
        self.size = size;
        self.data.clear();
        self.data.resize(size[0] * size[1], colour);
    }

    /// Takes each pixel from where an affine map leads: the centre of pixel (x, y)
    /// to `(a·x + b·y + c, d·x + e·y + f)`. The nearest pixel is taken.
    pub fn affine(&mut self, [a, b, c, d, e, f]: [f64; 6]) {
        let [height, width] = self.size;
        self.spare.clear();
        for y in 0..height {
            for x in 0..width {
                let (x, y) = (x as f64 + 0.5, y as f64 + 0.5);
                let from = [d * x + e * y + f, a * x + b * y + c].map(f64::floor);
                let inside = from[0] >= 0.0
                    && from[0] < height as f64
                    && from[1] >= 0.0
                    && from[1] < width as f64;
                self.spare.push(match inside {
                    true => self.data[from[0] as usize * width + from[1] as usize],
                    false => OUTSIDE,
                });
            }
        }
        std::mem::swap(&mut self.data, &mut self.spare);
    }

    /// Rotates around the centre, counterclockwise.
    pub fn rotate(&mut self, degrees: f64) {
        let angle = degrees.to_radians();
        let (sin, cos) = (libm::sin(angle), libm::cos(angle));
        let [y, x] = self.size.map(|side| side as f64 / 2.0);
        self.affine([
            cos,
            -sin,
            x - cos * x + sin * y,
            sin,
            cos,
            y - sin * x - cos * y,
        ]);
    }

    /// Black for 0, the image for 1, brighter beyond.
    pub fn brightness(&mut self, factor: f64) {
        self.blend(|_| OUTSIDE, factor);
    }

    /// Grey for 0, the image for 1, more colourful beyond.
    pub fn saturation(&mut self, factor: f64) {
        self.blend(|pixel| [luma(pixel); CHANNELS], factor);
    }

    /// The mean grey for 0, the image for 1, more contrast beyond.
    pub fn contrast(&mut self, factor: f64) {
        let sum: u64 = self.data.iter().map(|&pixel| u64::from(luma(pixel))).sum();
        let mean = sum as f64 / self.data.len().max(1) as f64;
        let mean = (mean + 0.5) as u8;
        self.blend(|_| [mean; CHANNELS], factor);
    }

    /// Smoothed for 0, the image for 1, sharper beyond. Pixels at the border stay.
    pub fn sharpness(&mut self, factor: f64) {
        let [height, width] = self.size;
        self.spare.clear();
        self.spare.extend(&self.data);
        for y in 1..height.saturating_sub(1) {
            for x in 1..width.saturating_sub(1) {
                for channel in 0..CHANNELS {
                    let at = |dy: usize, dx: usize| {
                        u32::from(self.data[(y + dy - 1) * width + x + dx - 1][channel])
                    };
                    let around: u32 = (0..9).map(|i| at(i / 3, i % 3)).sum();
                    let smooth = f64::from(around + 4 * at(1, 1)) / 13.0;
                    self.spare[y * width + x][channel] = (smooth + 0.5) as u8;
                }
            }
        }
        for (pixel, &smooth) in self.data.iter_mut().zip(&self.spare) {
            *pixel = blended(smooth, *pixel, factor);
        }
    }

    /// Keeps the upper bits of each channel.
    pub fn posterize(&mut self, bits: u32) {
        let mask = !(0xff_u32 >> bits.min(8)) as u8;
        self.map(|value| value & mask);
    }

    /// Inverts the values from a threshold on.
    pub fn solarize(&mut self, threshold: f64) {
        self.map(|value| match f64::from(value) < threshold {
            true => value,
            false => 255 - value,
        });
    }

    /// Stretches each channel to all values.
    pub fn auto_contrast(&mut self) {
        for channel in 0..CHANNELS {
            let values = || self.data.iter().map(|pixel| pixel[channel]);
            let (Some(low), Some(high)) = (values().min(), values().max()) else {
                return;
            };
            if high <= low {
                continue;
            }
            let scale = 255.0 / f64::from(high - low);
            let offset = -f64::from(low) * scale;
            for pixel in &mut self.data {
                pixel[channel] = (f64::from(pixel[channel]) * scale + offset) as u8;
            }
        }
    }

    /// Makes the values of each channel equally frequent.
    pub fn equalize(&mut self) {
        for channel in 0..CHANNELS {
            let mut counts = [0usize; 256];
            for pixel in &self.data {
                counts[usize::from(pixel[channel])] += 1;
            }
            let last = counts.iter().rev().find(|&&count| count > 0);
            let step = (self.data.len() - last.copied().unwrap_or(0)) / 255;
            if step == 0 {
                continue;
            }
            let mut below = step / 2;
            let table = counts.map(|count| {
                let value = (below / step).min(255) as u8;
                below += count;
                value
            });
            for pixel in &mut self.data {
                pixel[channel] = table[usize::from(pixel[channel])];
            }
        }
    }

    fn map(&mut self, change: impl Fn(u8) -> u8) {
        for value in self.data.as_flattened_mut() {
            *value = change(*value);
        }
    }

    /// Moves from another image towards this one, or beyond.
    fn blend(&mut self, from: impl Fn(Pixel) -> Pixel, factor: f64) {
        for pixel in &mut self.data {
            *pixel = blended(from(*pixel), *pixel, factor);
        }
    }
}

/// `from` for a factor of 0, `to` for 1.
fn blended(from: Pixel, to: Pixel, factor: f64) -> Pixel {
    // In single precision and rounded down, as Pillow does.
    let factor = factor as f32;
    std::array::from_fn(|channel| {
        let [from, to] = [from, to].map(|pixel| f32::from(pixel[channel]));
        (from + factor * (to - from)) as u8
    })
}

/// The brightness of a pixel (ITU-R 601-2).
fn luma([r, g, b]: Pixel) -> u8 {
    let [r, g, b] = [r, g, b].map(u32::from);
    ((19595 * r + 38470 * g + 7471 * b + 0x8000) >> 16) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 20 × 18 pixels of many colours.
    fn image() -> Pixels {
        let mut pixels = Pixels::default();
        pixels.reset([18, 20], OUTSIDE);
        for (index, value) in pixels.data.as_flattened_mut().iter_mut().enumerate() {
            *value = (40 + (index * 7919 + index / 33 * 5) % 173) as u8;
        }
        pixels
    }

    /// Lines of the name of an operation, its argument and Pillow's result for
    /// [`image`] in hexadecimal digits.
    const PILLOW: &str = include_str!("../../../../fixtures/augmentation.txt");

    #[test]
    fn operations_are_pillows() {
        let mut names = std::collections::BTreeSet::new();
        for line in PILLOW.lines().filter(|line| !line.starts_with('#')) {
            let [name, argument, expected] = line.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{line}");
            };
            let argument: f64 = argument.parse().unwrap();
            let mut pixels = image();
            match name {
                "shear_x" => pixels.affine([1.0, argument, 0.0, 0.0, 1.0, 0.0]),
                "shear_y" => pixels.affine([1.0, 0.0, 0.0, argument, 1.0, 0.0]),
                "translate_x" => pixels.affine([1.0, 0.0, argument, 0.0, 1.0, 0.0]),
                "translate_y" => pixels.affine([1.0, 0.0, 0.0, 0.0, 1.0, argument]),
                "rotate" => pixels.rotate(argument),
                "brightness" => pixels.brightness(argument),
                "saturation" => pixels.saturation(argument),
                "contrast" => pixels.contrast(argument),
                "sharpness" => pixels.sharpness(argument),
                "posterize" => pixels.posterize(argument as u32),
                "solarize" => pixels.solarize(argument),
                "auto_contrast" => pixels.auto_contrast(),
                "equalize" => pixels.equalize(),
                _ => panic!("{name}"),
            }
            let found: String = pixels
                .data
                .as_flattened()
                .iter()
                .map(|v| format!("{v:02x}"))
                .collect();
            assert_eq!(found, expected, "{name} {argument}");
            names.insert(name);
        }
        assert_eq!(names.len(), 13);
    }

    #[test]
    fn images_of_a_pixel_or_one_colour_are_no_special_case() {
        for size in [[1, 1], [1, 5], [300, 2]] {
            let mut pixels = Pixels::default();
            pixels.reset(size, [7, 7, 7]);
            pixels.auto_contrast();
            pixels.equalize();
            pixels.sharpness(1.9);
            pixels.contrast(0.1);
            pixels.rotate(10.0);
            assert_eq!(pixels.data.len(), size[0] * size[1]);
        }
    }
}
