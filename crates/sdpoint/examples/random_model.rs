//! A model with random weights and statistics of every instance, to try what
//! reads model files; `tests/peers/` compares what is exported of such.
//!
//! ```sh
//! cargo run --release --example random_model -- NETWORK HEIGHT WIDTH OUT [PREPROCESSING]
//! ```
//!
//! PREPROCESSING is JSON as in a model file, instead of a plain one of this
//! size.

use std::error::Error;

#[path = "../tests/support/mod.rs"]
mod support;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, height, width, out, rest @ ..] = &arguments[..] else {
        return Err("give NETWORK HEIGHT WIDTH OUT [PREPROCESSING]".into());
    };
    let mut model = support::model(name, [height.parse()?, width.parse()?]);
    if let [preprocessing, ..] = rest {
        model.preprocessing = serde_json::from_str(preprocessing)?;
    }
    Ok(model.save(out)?)
}
