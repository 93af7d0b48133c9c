//! Decodes images, for comparison with other decoders: `decode FILE...` writes
//! beside each file `FILE.rgb`, a line `width height` and the pixels, or
//! `FILE.error` with what is wrong. With `--upright`, images are turned as
//! their EXIF data says.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::PathBuf;

use sdpoint_data::{Image, decode};

fn main() -> io::Result<()> {
    let mut files: Vec<OsString> = std::env::args_os().skip(1).collect();
    let upright = files.first().is_some_and(|first| first == "--upright");
    for file in files.drain(usize::from(upright)..) {
        let beside = |ending: &str| {
            let mut name = file.clone();
            name.push(ending);
            PathBuf::from(name)
        };
        match decode(&fs::read(&file)?) {
            Ok(image) if upright => fs::write(beside(".rgb"), written(&image.upright()))?,
            Ok(image) => fs::write(beside(".rgb"), written(&image))?,
            Err(error) => fs::write(beside(".error"), error.to_string())?,
        }
    }
    Ok(())
}

fn written(image: &Image) -> Vec<u8> {
    let mut bytes = format!("{} {}\n", image.width(), image.height()).into_bytes();
    bytes.extend(image.pixels());
    bytes
}
