//! A canvas of 32×32 pixels that figures are painted on with soft edges.

use rand::{Rng, RngExt};

use super::turn::direction;

/// Pixels on each side.
pub(super) const SIDE: usize = 32;

/// Points on each side of a pixel at which coverage is sampled.
const SAMPLES: usize = 4;

/// Red, green and blue in 0..=255.
#[derive(Clone, Copy)]
pub(super) struct Colour([f32; 3]);

impl Colour {
    /// Any colour, for what is in the way.
    pub fn random(rng: &mut impl Rng) -> Colour {
        Self::between(15.0, 240.0, rng)
    }

    /// A colour of the ground, darker than that of any figure.
    pub fn dark(rng: &mut impl Rng) -> Colour {
        Self::between(10.0, 120.0, rng)
    }

    /// A colour of a figure.
    pub fn bright(rng: &mut impl Rng) -> Colour {
        Self::between(135.0, 245.0, rng)
    }

    fn between(low: f32, high: f32, rng: &mut impl Rng) -> Colour {
        Colour([0; 3].map(|_| rng.random_range(low..high)))
    }
}

/// A colour with soft bands across it.
pub(super) struct Texture {
    colour: Colour,
    /// Largest departure from the colour, in each channel.
    depth: [f32; 3],
    /// Bands a pixel, along each axis.
    frequency: [f32; 2],
    phase: f32,
}

impl Texture {
    pub fn plain(colour: Colour) -> Texture {
        Texture {
            colour,
            depth: [0.0; 3],
            frequency: [0.0; 2],
            phase: 0.0,
        }
    }

    pub fn random(colour: Colour, rng: &mut impl Rng) -> Texture {
        let period: f32 = rng.random_range(2.5..14.0);
        Texture {
            colour,
            depth: [0; 3].map(|_| rng.random_range(-30.0..30.0)),
            frequency: direction(rng.random()).map(|d| d / period),
            phase: rng.random(),
        }
    }

    fn at(&self, x: f32, y: f32) -> [f32; 3] {
        let [fx, fy] = self.frequency;
        let t = x * fx + y * fy + self.phase;
        let wave = 4.0 * (t - t.floor() - 0.5).abs() - 1.0;
        std::array::from_fn(|c| self.colour.0[c] + self.depth[c] * wave)
    }
}

/// The picture being painted.
pub(super) struct Canvas {
    pixels: Vec<[f32; 3]>,
}

impl Canvas {
    pub fn new(ground: &Texture) -> Canvas {
        let at = |i: usize| ground.at((i % SIDE) as f32, (i / SIDE) as f32);
        Canvas {
            pixels: (0..SIDE * SIDE).map(at).collect(),
        }
    }

    /// Paints what `contains` covers, given in pixels from `centre` and
    /// nowhere farther from it than `reach`.
    pub fn fill(
        &mut self,
        centre: [f32; 2],
        reach: f32,
        paint: &Texture,
        contains: impl Fn(f32, f32) -> bool,
    ) {
        let [columns, rows] = centre.map(|c| {
            let first = (c - reach).floor().max(0.0) as usize;
            let end = ((c + reach).ceil().max(0.0) as usize).min(SIDE);
            first..end
        });
        let offset = |sample: usize| (sample as f32 + 0.5) / SAMPLES as f32;
        for row in rows {
            for column in columns.clone() {
                let (x, y) = (column as f32, row as f32);
                let covered = (0..SAMPLES * SAMPLES)
                    .filter(|s| {
                        contains(
                            x + offset(s % SAMPLES) - centre[0],
                            y + offset(s / SAMPLES) - centre[1],
                        )
                    })
                    .count();
                let part = covered as f32 / (SAMPLES * SAMPLES) as f32;
                let pixel = &mut self.pixels[row * SIDE + column];
                for (value, paint) in pixel.iter_mut().zip(paint.at(x, y)) {
                    *value += part * (paint - *value);
                }
            }
        }
    }

    /// The picture's bytes, with noise of a random strength on each.
    pub fn finish(self, rng: &mut impl Rng) -> Vec<u8> {
        let strength: f32 = rng.random_range(6.0..36.0);
        let mut grain = vec![[0; 2]; self.pixels.len() * 3];
        rng.fill_bytes(grain.as_flattened_mut());
        self.pixels
            .as_flattened()
            .iter()
            .zip(grain)
            .map(|(value, [a, b])| {
                // The sum of two uniform draws: a triangle from -1 to 1.
                let noise = (f32::from(a) + f32::from(b)) / 255.0 - 1.0;
                (value + strength * noise).round() as u8
            })
            .collect()
    }
}
