//! Runs ONNX models in rten or tract: times one, or computes the logits of several.
//!
//! `sdpoint-peers logits rten|tract BATCH HEIGHT WIDTH MODEL...`
//!
//! Reads normalised images from standard input and writes each model's logits, one model after
//! the other: single-precision numbers in little-endian order. `tests/peers` compares them.
//!
//! `sdpoint-peers rten|tract MODEL BATCH SIDE THREADS`
//!
//! Implements the protocol of `compare.py`: each line on standard input is a number of seconds,
//! for which it runs the model, and then prints the median time of a run in milliseconds. It
//! sleeps between lines.

use std::io::{self, BufRead, Read, Write};
use std::time::Instant;

use anyhow::{Context, Result, bail};

const WARM_UP: usize = 2;

const USAGE: &str = "usage: sdpoint-peers rten|tract MODEL BATCH SIDE THREADS
       sdpoint-peers logits rten|tract BATCH HEIGHT WIDTH MODEL...";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [mode, peer, batch, height, width, models @ ..] if mode == "logits" => {
            let shape = [batch.parse()?, 3, height.parse()?, width.parse()?];
            logits(peer, shape, models)
        }
        [peer, model, batch, side, threads] => {
            let (batch, side) = (batch.parse()?, side.parse()?);
            let shape = [batch, 3, side, side];
            let images = (0..shape.iter().product())
                .map(|i: usize| (i * 7919 % 1999) as f32 / 999.0 - 1.0)
                .collect();
            serve(runner(peer, model, shape, images, threads.parse()?)?)
        }
        _ => bail!(USAGE),
    }
}

/// Computes the logits of the images on standard input with each model.
fn logits(peer: &str, shape: [usize; 4], models: &[String]) -> Result<()> {
    let mut bytes = Vec::new();
    io::stdin().read_to_end(&mut bytes)?;
    let (values, _) = bytes.as_chunks::<4>();
    let images: Vec<f32> = values.iter().map(|&x| f32::from_le_bytes(x)).collect();
    for model in models {
        let mut run =
            runner(peer, model, shape, images.clone(), 2).with_context(|| model.clone())?;
        let logits = run().with_context(|| model.clone())?;
        let bytes: Vec<u8> = logits.iter().flat_map(|x| x.to_le_bytes()).collect();
        io::stdout().write_all(&bytes)?;
    }
    Ok(())
}

/// A loaded model: each call returns the logits of all images.
type Runner = Box<dyn FnMut() -> Result<Vec<f32>>>;

fn runner(
    peer: &str,
    model: &str,
    shape: [usize; 4],
    images: Vec<f32>,
    threads: usize,
) -> Result<Runner> {
    match peer {
        "rten" => rten_runner(model, shape, images, threads),
        "tract" => tract_runner(model, shape, images, threads),
        other => bail!("no peer named {other}"),
    }
}

fn rten_runner(path: &str, shape: [usize; 4], images: Vec<f32>, threads: usize) -> Result<Runner> {
    use rten::{ModelOptions, RunOptions, ThreadPool, ValueOrView};
    use rten_tensor::{AsView, NdTensor};

    let mut options = ModelOptions::with_all_ops();
    let model = options.prepack_weights(true).load_file(path)?;
    let images = NdTensor::from_data(shape, images);
    let pool = std::sync::Arc::new(ThreadPool::with_num_threads(threads));
    Ok(Box::new(move || {
        let options = RunOptions::default().with_thread_pool(Some(pool.clone()));
        let output = model.run_one(ValueOrView::from(images.view()), Some(options))?;
        Ok(output.into_shape_vec::<f32, 2>()?.1)
    }))
}

fn tract_runner(path: &str, shape: [usize; 4], images: Vec<f32>, threads: usize) -> Result<Runner> {
    use tract_linalg::multithread::{Executor, set_default_executor};
    use tract_onnx::prelude::*;

    set_default_executor(Executor::multithread(threads));
    let model = onnx()
        .model_for_path(path)?
        .with_input_fact(0, f32::fact(shape).into())?
        .into_optimized()?
        .into_runnable()?;
    let images = Tensor::from_shape(&shape, &images)?;
    Ok(Box::new(move || {
        let output = model.run(tvec!(images.clone().into_tvalue()))?;
        let logits = output[0].to_plain_array_view::<f32>()?;
        Ok(logits.iter().copied().collect())
    }))
}

fn serve(mut run: Runner) -> Result<()> {
    for _ in 0..WARM_UP {
        run()?;
    }
    println!("ready");
    for line in io::stdin().lock().lines() {
        let seconds: f64 = line?.trim().parse().context("a number of seconds")?;
        let start = Instant::now();
        let mut times = Vec::new();
        while times.len() < 3 || start.elapsed().as_secs_f64() < seconds {
            let start = Instant::now();
            run()?;
            times.push(1e3 * start.elapsed().as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        println!("{}", times[times.len() / 2]);
        io::stdout().flush()?;
    }
    Ok(())
}
