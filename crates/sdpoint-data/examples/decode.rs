//! Decodes images, for comparison with other programs.
//!
//! ```text
//! decode FILE...                     as they are stored
//! decode --upright FILE...           turned as their EXIF data says
//! decode --crop SIZE RESIZE FILE...  the middle, as evaluation on ImageNet takes it
//! ```
//!
//! Beside each file it writes `FILE.rgb`, a line `width height` and the pixels,
//! or `FILE.error` with what is wrong.

use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::PathBuf;

use sdpoint_core::{EvalTransform, Preprocessing};
use sdpoint_data::{Image, decode, prepare};

enum View {
    Stored,
    Upright,
    Crop { size: usize, resize: usize },
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1).peekable();
    let option = arguments.next_if(|first| first.to_string_lossy().starts_with("--"));
    let view = match option.as_deref().and_then(OsStr::to_str) {
        Some("--upright") => View::Upright,
        Some("--crop") => {
            let mut number = || -> Result<usize, Box<dyn Error>> {
                let word = arguments.next().ok_or("a number is missing")?;
                Ok(word.to_string_lossy().parse()?)
            };
            let (size, resize) = (number()?, number()?);
            View::Crop { size, resize }
        }
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
                let values = prepare(image, &preprocessing)?;
                let bytes = values.iter().map(|value| (value * 255.0).round() as u8);
                Image::new(size, size, bytes.collect())?
            }
        })
    }
}

fn beside(file: &OsStr, ending: &str) -> PathBuf {
    let mut name = OsString::from(file);
    name.push(ending);
    PathBuf::from(name)
}
