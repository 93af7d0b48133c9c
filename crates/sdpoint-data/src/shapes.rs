//! `shapes`: images that the program draws itself, so that it can be tried
//! without data and without a network.
//!
//! Ten figures, 32×32 pixels, of any size, place, turn and colour, on a
//! darker, textured ground with specks and strokes about them, under noise. Some
//! classes differ only in details of a pixel or two (a hole, the number of
//! corners), which a network that throws resolution away early cannot see.
//!
//! An image depends on the seed, the split and its number alone, and is the
//! same on every machine: only operations that IEEE 754 rounds exactly are
//! used, and directions come from a table rather than from a library's sine.

mod canvas;
mod figure;
mod turn;

use rand::{Rng, RngExt};
use sdpoint_core::words::plural;

use crate::contents::{Contents, Images};
use crate::error::{DataError, ImageError};
use crate::image::Image;
use crate::left_out::LeftOut;
use crate::options::OpenOptions;
use crate::random::{Use, stream};
use crate::split::Split;
use canvas::{Canvas, Colour, SIDE, Texture};
use figure::Figure;
use turn::direction;

/// Opens one split: numbers and labels only, images are drawn when loaded.
pub(crate) fn open(split: Split, options: &OpenOptions) -> Result<Contents, DataError> {
    let (split, count) = match split {
        Split::Train => (0, options.shapes_train),
        Split::Test => (1, options.shapes_test),
    };
    let classes = Figure::NAMES.len();
    if count < classes {
        return Err(DataError::Option(format!(
            "{} of shapes are too few: there are {classes} classes",
            plural(count, "image", "images")
        )));
    }
    Ok(Contents {
        classes: Figure::NAMES.iter().map(|&name| name.to_owned()).collect(),
        labels: (0..count).map(class_of).collect(),
        left_out: LeftOut::default(),
        images: Box::new(Shapes {
            seed: options.shapes_seed,
            split,
        }),
    })
}

struct Shapes {
    seed: u64,
    split: u64,
}

impl Images for Shapes {
    fn load(&self, index: usize) -> Result<Image, ImageError> {
        let mut rng = stream(Use::Drawing, self.seed, self.split, index as u64);
        Image::new(SIDE, SIDE, draw(class_of(index), &mut rng))
    }

    fn name(&self, index: usize) -> String {
        format!("shapes image {index}")
    }

    fn key(&self, index: usize) -> String {
        format!("{} {} {index}", self.seed, self.split)
    }

    fn stored(&self, _: usize) -> Result<u64, DataError> {
        Ok(0)
    }

    fn bytes(&self, _: usize) -> Option<Vec<u8>> {
        None
    }
}

/// Classes take turns, so that any run of images is balanced.
fn class_of(index: usize) -> u32 {
    (index % Figure::NAMES.len()) as u32
}

fn draw(class: u32, rng: &mut impl Rng) -> Vec<u8> {
    let ground = Colour::dark(rng);
    let ink = Colour::bright(rng);
    let mut canvas = Canvas::new(&Texture::random(ground, rng));
    for _ in 0..rng.random_range(1..=4) {
        speck(&mut canvas, rng);
    }
    for _ in 0..rng.random_range(0..=2) {
        stroke(&mut canvas, rng);
    }

    let radius: f32 = rng.random_range(3.0..8.0);
    let room = SIDE as f32 - 2.0 * radius;
    let centre = [0; 2].map(|_| radius + room * rng.random::<f32>());
    let [cos, sin] = direction(rng.random());
    let figure = Figure::new(class, rng);
    canvas.fill(centre, radius, &Texture::random(ink, rng), |x, y| {
        figure.contains((x * cos + y * sin) / radius, (y * cos - x * sin) / radius)
    });
    canvas.finish(rng)
}

/// A dot about the size of a ring's hole.
fn speck(canvas: &mut Canvas, rng: &mut impl Rng) {
    let radius: f32 = rng.random_range(0.7..2.0);
    let centre = [0; 2].map(|_| rng.random_range(0.0..SIDE as f32));
    let paint = Texture::plain(Colour::random(rng));
    canvas.fill(centre, radius, &paint, |x, y| {
        x * x + y * y <= radius * radius
    });
}

/// A straight line about as wide as a frame's side.
fn stroke(canvas: &mut Canvas, rng: &mut impl Rng) {
    let half_length: f32 = rng.random_range(3.0..8.0);
    let half_width: f32 = rng.random_range(0.4..1.0);
    let centre = [0; 2].map(|_| rng.random_range(0.0..SIDE as f32));
    let [cos, sin] = direction(rng.random());
    let paint = Texture::plain(Colour::random(rng));
    canvas.fill(centre, half_length + half_width, &paint, |x, y| {
        (x * cos + y * sin).abs() <= half_length && (y * cos - x * sin).abs() <= half_width
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(seed: u64, split: u64, index: usize) -> Image {
        Shapes { seed, split }.load(index).unwrap()
    }

    #[test]
    fn seed_split_and_number_each_give_another_image() {
        assert_eq!(image(1, 0, 5), image(1, 0, 5));
        assert_ne!(image(1, 0, 5), image(2, 0, 5));
        assert_ne!(image(1, 0, 5), image(1, 1, 5));
        assert_ne!(image(1, 0, 5), image(1, 0, 15));
    }

    /// FNV-1a over the first hundred images, recorded: another machine,
    /// compiler or version of a dependency must draw them to the last bit.
    #[test]
    fn images_are_the_same_on_every_machine() {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for index in 0..100 {
            for &byte in image(0, 0, index).pixels() {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
            }
        }
        assert_eq!(hash, 0x99eb_4a68_d6d8_3b28, "{hash:#x}");
    }

    #[test]
    fn classes_are_balanced() {
        let options = OpenOptions {
            shapes_train: 40,
            ..OpenOptions::default()
        };
        let contents = open(Split::Train, &options).unwrap();
        for class in 0..10 {
            assert_eq!(contents.labels.iter().filter(|&&l| l == class).count(), 4);
        }
    }

    #[test]
    fn too_few_images_for_the_classes_are_refused() {
        let options = OpenOptions {
            shapes_test: 9,
            ..OpenOptions::default()
        };
        assert!(matches!(
            open(Split::Test, &options),
            Err(DataError::Option(_))
        ));
    }
}
