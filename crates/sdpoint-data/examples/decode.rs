//! Decodes images, for comparison with other programs.
//!
//! ```text
//! decode FILE...                     as they are stored
//! decode --upright FILE...           turned as their EXIF data says
//! decode --crop SIZE RESIZE FILE...  the middle, as evaluation on ImageNet takes it
//! decode --resize FILTER HEIGHT WIDTH FILE...
//! ```
//!
//! Beside each file it writes `FILE.rgb`, a line `width height` and the pixels,
//! or `FILE.error` with what is wrong.

use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::PathBuf;

use sdpoint_core::{EvalTransform, Interpolation, Preprocessing};
use sdpoint_data::{Image, decode, prepare};

enum View {
    Stored,
    Upright,
    Crop {
        size: usize,
        resize: usize,
    },
    Resize {
        filter: Interpolation,
        size: [usize; 2],
    },
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1).peekable();
    let option = arguments.next_if(|first| first.to_string_lossy().starts_with("--"));
    let mut word = || -> Result<String, Box<dyn Error>> {
        let word = arguments.next().ok_or("an argument is missing")?;
        Ok(word.to_string_lossy().into_owned())
    };
    let view = match option.as_deref().and_then(OsStr::to_str) {
        Some("--upright") => View::Upright,
        Some("--crop") => View::Crop {
            size: word()?.parse()?,
            resize: word()?.parse()?,
        },
        Some("--resize") => View::Resize {
            filter: filter(&word()?)?,
            size: [word()?.parse()?, word()?.parse()?],
        },
        _ => View::Stored,
    };
    for file in arguments {
        let shown = match decode(&fs::read(&file)?) {
            Ok(image) => view.of(&image)?,
            Err(error) => {
                fs::write(beside(&file, ".error"), error.to_string())?;
                continue;
            }
        };
        let mut bytes = format!("{} {}\n", shown.width(), shown.height()).into_bytes();
        bytes.extend(shown.pixels());
        fs::write(beside(&file, ".rgb"), bytes)?;
    }
    Ok(())
}

impl View {
    fn of(&self, image: &Image) -> Result<Image, Box<dyn Error>> {
        Ok(match *self {
            View::Stored => image.clone(),
            View::Upright => image.upright().into_owned(),
            View::Crop { size, resize } => {
                let preprocessing = Preprocessing {
                    evaluate: EvalTransform::CenterCrop { resize },
                    ..Preprocessing::new([size; 2], vec![0.0; 3], vec![1.0; 3])
                };
                prepared(image, &preprocessing)?
            }
            View::Resize { filter, size } => {
                let mut preprocessing = Preprocessing::new(size, vec![0.0; 3], vec![1.0; 3]);
                preprocessing.interpolation = filter;
                preprocessing.evaluate = EvalTransform::Resize;
                prepared(image, &preprocessing)?
            }
        })
    }
}

fn prepared(image: &Image, preprocessing: &Preprocessing) -> Result<Image, Box<dyn Error>> {
    let values = prepare(image, preprocessing)?;
    let bytes = values.iter().map(|value| (value * 255.0).round() as u8);
    let [height, width] = preprocessing.size;
    Ok(Image::new(width, height, bytes.collect())?)
}

fn filter(name: &str) -> Result<Interpolation, Box<dyn Error>> {
    let mut all = Interpolation::ALL.into_iter();
    Ok(all.find(|it| it.name() == name).ok_or("no such filter")?)
}

fn beside(file: &OsStr, ending: &str) -> PathBuf {
    let mut name = OsString::from(file);
    name.push(ending);
    PathBuf::from(name)
}
