//! Times an ONNX model in rten or tract.
//!
//! `sdpoint-peers rten|tract MODEL BATCH SIDE THREADS`
//!
//! Speaks the protocol of `compare.py`: for each line on standard input, which is a number of
//! seconds, it runs the model for so long and prints the median time of a run in milliseconds.
//! Between lines it waits without computing.

use std::io::{self, BufRead, Write};
use std::time::Instant;

use anyhow::{Context, Result, bail};

const WARM_UP: usize = 2;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [peer, model, batch, side, threads] = &arguments[..] else {
        bail!("usage: sdpoint-peers rten|tract MODEL BATCH SIDE THREADS");
    };
    let (batch, side) = (batch.parse()?, side.parse()?);
    let threads = threads.parse()?;
    let shape = [batch, 3, side, side];
    let images: Vec<f32> = (0..shape.iter().product())
        .map(|i: usize| (i * 7919 % 1999) as f32 / 999.0 - 1.0)
        .collect();
    let run = match peer.as_str() {
        "rten" => rten_runner(model, shape, images, threads)?,
        "tract" => tract_runner(model, shape, images, threads)?,
        other => bail!("no peer named {other}"),
    };
    serve(run)
}

type Runner = Box<dyn FnMut() -> Result<()>>;

fn rten_runner(path: &str, shape: [usize; 4], images: Vec<f32>, threads: usize) -> Result<Runner> {
    use rten::{ModelOptions, RunOptions, ThreadPool, ValueOrView};
    use rten_tensor::{AsView, NdTensor};

    let mut options = ModelOptions::with_all_ops();
    let model = options.prepack_weights(true).load_file(path)?;
    let images = NdTensor::from_data(shape, images);
    let pool = std::sync::Arc::new(ThreadPool::with_num_threads(threads));
    Ok(Box::new(move || {
        let options = RunOptions::default().with_thread_pool(Some(pool.clone()));
        model.run_one(ValueOrView::from(images.view()), Some(options))?;
        Ok(())
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
        model.run(tvec!(images.clone().into_tvalue()))?;
        Ok(())
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
