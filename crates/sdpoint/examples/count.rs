//! Runs an instance so many times on one thread, for programs that count instructions and memory
//! accesses; the difference between two numbers of runs is what one takes.
//!
//! ```sh
//! cargo build --release --example count
//! valgrind --tool=cachegrind --cache-sim=yes target/release/examples/count resnet50 full 2
//! ```

use std::error::Error;
use std::num::NonZeroUsize;
use std::sync::Arc;

use sdpoint::{Context, Engine, Images, Instance};

#[path = "../tests/support/mod.rs"]
mod support;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [network, instance, runs] = &arguments[..] else {
        return Err("give NETWORK INSTANCE RUNS".into());
    };
    let size = [224, 224];
    let context = Arc::new(Context::new(NonZeroUsize::new(1))?);
    let engine = Engine::new(context, support::model(network, size))?;
    let images = Images {
        data: &vec![0.5; size[0] * size[1] * engine.network().input_channels()],
        batch: 1,
        size,
    };
    let instance: Instance = instance.parse()?;
    for _ in 0..runs.parse()? {
        engine.run(images, instance)?;
    }
    Ok(())
}
