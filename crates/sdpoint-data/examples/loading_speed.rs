//! Tells how many images a second the loader delivers:
//! `cargo run --release -p sdpoint-data --example loading_speed -- shapes 1`.
//! The first epoch decodes (or draws), later ones find small images decoded.

use std::error::Error;
use std::time::Instant;

use sdpoint_data::{Epoch, Loader, OpenOptions, Split, default_preprocessing, open};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let source = arguments
        .next()
        .unwrap_or_else(|| "shapes".to_owned())
        .parse()?;
    let threads = arguments.next().map_or(Ok(1), |text| text.parse())?;

    let start = Instant::now();
    let dataset = open(&source, Split::Train, &OpenOptions::default())?;
    println!(
        "{dataset:?} opened in {:.2} s",
        start.elapsed().as_secs_f64()
    );
    let preprocessing = default_preprocessing(&dataset)?;
    println!(
        "mean {:?}, deviation {:?}",
        preprocessing.mean, preprocessing.std
    );
    for number in 0..3 {
        let start = Instant::now();
        let epoch = Epoch {
            seed: 0,
            number,
            first_batch: 0,
        };
        let mut images = 0;
        for batch in Loader::train(&dataset, &preprocessing, 128, threads, epoch)? {
            images += batch?.len();
        }
        let seconds = start.elapsed().as_secs_f64();
        println!("epoch {number}: {:.0} images/s", images as f64 / seconds);
    }
    Ok(())
}
