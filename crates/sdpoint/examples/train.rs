//! Trains a network on built-in images, and prints the cost and the accuracy of
//! every instance.
//!
//! ```sh
//! cargo run --release --example train -- FOLDER
//! ```

use std::error::Error;
use std::sync::Arc;

use sdpoint::data::{OpenOptions, Source, open_pair};
use sdpoint::train::{Run, Silent, TrainPlan};
use sdpoint::{Context, zoo};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).ok_or("give a FOLDER")?;
    let (train, test) = open_pair(&Source::Shapes, &OpenOptions::default())?;
    let network = zoo::build("preresnet8", train.classes().len())?;
    let plan = TrainPlan::new(network, &train)?.with_epochs(3);

    let ctx = Arc::new(Context::new(None)?);
    let run = Run::new(&ctx, &train, &test, folder.as_ref());
    let outcome = run.start(plan, &mut Silent)?;
    for record in outcome.finished().ok_or("stopped")?.model.instances {
        let top1 = 100.0 * record.top1.unwrap_or(f64::NAN);
        println!("{:8} {:>9} MACs {top1:6.2} %", record.instance, record.macs);
    }
    Ok(())
}
