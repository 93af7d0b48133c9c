//! Writes the first images of a data set, a row for each class, to a PNG file:
//! `cargo run -p sdpoint-data --example contact_sheet -- shapes sheet.png`.

use std::error::Error;
use std::fs::File;
use std::io::BufWriter;

use sdpoint_data::{OpenOptions, Split, open};

const COLUMNS: usize = 16;
const SCALE: usize = 2;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let source = arguments
        .next()
        .unwrap_or_else(|| "shapes".to_owned())
        .parse()?;
    let path = arguments.next().unwrap_or_else(|| "sheet.png".to_owned());

    let dataset = open(&source, Split::Train, &OpenOptions::default())?;
    let [cell_height, cell_width] = dataset.native_size()?;
    let (width, height) = (
        COLUMNS * cell_width * SCALE,
        dataset.classes().len() * cell_height * SCALE,
    );
    let mut sheet = vec![0; width * height * 3];
    for class in 0..dataset.classes().len() {
        let indices = (0..dataset.len()).filter(|&i| dataset.label(i) == class as u32);
        for (column, index) in indices.take(COLUMNS).enumerate() {
            let image = dataset.image(index)?;
            for y in 0..cell_height * SCALE {
                for x in 0..cell_width * SCALE {
                    let (from_x, from_y) = (x / SCALE, y / SCALE);
                    if from_x < image.width() && from_y < image.height() {
                        let to = (class * cell_height * SCALE + y) * width
                            + column * cell_width * SCALE
                            + x;
                        sheet[to * 3..][..3].copy_from_slice(&image.pixel(from_x, from_y));
                    }
                }
            }
        }
    }

    let file = BufWriter::new(File::create(&path)?);
    let mut encoder = png::Encoder::new(file, width as u32, height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header()?.write_image_data(&sheet)?;
    println!("{path}: {}", dataset.classes().join(", "));
    Ok(())
}
