//! The library in a loop, without a server.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sdpoint::{Context, Engine, Images, Instance};

use crate::summary::quantile;

#[derive(clap::Args)]
pub struct Args {
    #[arg(long)]
    model: PathBuf,
    #[arg(long)]
    batch: usize,
    #[arg(long)]
    seconds: f64,
}

/// Prints the median time of a batch in `full`, in seconds.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let context = Arc::new(Context::new(NonZeroUsize::new(1))?);
    let engine = Engine::load_with(context, &args.model)?;
    let size = engine.preprocessing().size;
    let values = args.batch * size[0] * size[1] * engine.network().input_channels();
    let data: Vec<f32> = (0..values)
        .map(|i| (i * 7919 % 1999) as f32 / 999.0 - 1.0)
        .collect();
    let images = Images {
        data: &data,
        batch: args.batch,
        size,
    };
    for _ in 0..3 {
        engine.run(images, Instance::Full)?;
    }
    let end = Instant::now() + Duration::from_secs_f64(args.seconds);
    let mut times = Vec::new();
    while Instant::now() < end {
        times.push(engine.run(images, Instance::Full)?.time.as_secs_f64());
    }
    println!("{}", quantile(times, 0.5));
    Ok(())
}
