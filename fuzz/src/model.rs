//! Model files, and what a program does with one that it could read.

use std::num::NonZeroUsize;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use sdpoint::core::{Combination, Record};
use sdpoint::engine::Isa;
use sdpoint::{Budget, Context, Engine, Images, Instance, Model, Network};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// Networks that compute more for an image are not run, nor are those whose
/// tensors take more bytes: time is better spent on many small ones.
const MOST_MACS: u64 = 1 << 18;
const MOST_BYTES: u64 = 1 << 20;

/// More instances than this are not run.
const MOST_INSTANCES: usize = 6;

/// Described tensors with more values than this together are not made.
const MOST_VALUES: usize = 1 << 16;

/// What stands before the digest, in the header's JSON within JSON.
const BEFORE: &[u8] = b"\\\"sha256\\\":\\\"";

/// One thread, so that what happens can be repeated.
pub static CONTEXT: LazyLock<Arc<Context>> = LazyLock::new(|| {
    let context = Context::with_isa(NonZeroUsize::new(1), Isa::available()[0]);
    Arc::new(context.expect("no thread is needed"))
});

/// In memory where the system has such a folder, because files are synced.
static FOLDER: LazyLock<TempDir> = LazyLock::new(|| {
    let made = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    made.expect("a temporary folder")
});

/// Gives the bytes of a model file the digest that they should have, so that
/// what lies behind that check is reached.
pub fn seal(bytes: &mut [u8]) {
    let found = bytes.windows(BEFORE.len()).position(|part| part == BEFORE);
    let Some(start) = found.map(|place| place + BEFORE.len()) else {
        return;
    };
    let Some(place) = bytes.get_mut(start..start + 64) else {
        return;
    };
    place.fill(b'0');
    let digest: String = Sha256::digest(&*bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    bytes[start..start + 64].copy_from_slice(digest.as_bytes());
}

/// A model file with this description, and with all tensors that it needs.
/// Nothing if it describes no network, or too large a one.
pub fn described(description: &str) -> Option<Vec<u8>> {
    let mut document: Map<String, Value> = serde_json::from_str(description).ok()?;
    let network: Network = serde_json::from_value(document.get("network")?.clone()).ok()?;
    let instances: Vec<Record> = serde_json::from_value(document.get("instances")?.clone()).ok()?;
    let own = document.get("own_parameters").cloned();
    let own: Vec<Instance> = serde_json::from_value(own.unwrap_or(json!([]))).ok()?;
    let parameters = network.parameters().iter();
    let mut tensors: Vec<(String, Vec<usize>)> = parameters
        .map(|p| (p.name.clone(), p.shape.clone()))
        .collect();
    let norms = network.norms();
    for record in &instances {
        let prefix = match record.instance.point() {
            None => String::new(),
            Some(_) => format!("instances/{}/", record.instance),
        };
        for norm in &norms[network.own_norms(record.instance)] {
            for kind in ["running_mean", "running_var"] {
                let name = format!("{prefix}{}.{kind}", norm.name);
                tensors.push((name, vec![norm.channels]));
            }
        }
    }
    for instance in own.into_iter().filter(|&instance| network.has(instance)) {
        for index in network.own_parameters(instance) {
            let parameter = &network.parameters()[index];
            let name = format!("instances/{instance}/{}", parameter.name);
            tensors.push((name, parameter.shape.clone()));
        }
    }
    document.entry("version").or_insert(json!(3));
    // The digest comes before what is of free form; see `seal`.
    let mut text = format!("{{\"sha256\":\"{}\"", "0".repeat(64));
    for (key, value) in document.iter().filter(|(key, _)| *key != "sha256") {
        text.push_str(&format!(",{}:{value}", json!(key)));
    }
    text.push('}');
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!({ "sdpoint": text }));
    let mut end = 0usize;
    for (name, shape) in tensors {
        let len = shape
            .iter()
            .try_fold(1, |len: usize, &side| len.checked_mul(side))?;
        let start = end;
        end = end.checked_add(len).filter(|&end| end <= MOST_VALUES)?;
        let place = [4 * start, 4 * end];
        let info = json!({ "dtype": "F32", "shape": shape, "data_offsets": place });
        header.insert(name, info);
    }
    let header = Value::Object(header).to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    // Any weights will do, as long as variances are not negative.
    bytes.extend((0..end).flat_map(|i| ((i % 13) as f32 / 8.0).to_le_bytes()));
    seal(&mut bytes);
    Some(bytes)
}

/// Does with a model that was read what programs do: writes it, reads it
/// again, and runs it.
pub fn exercise(model: Model) {
    let path = FOLDER.path().join("model.safetensors");
    model.save(&path).expect("what was read can be written");
    let again = Model::load(&path).expect("what was written can be read");
    assert_eq!(again, model, "it comes back as it was");
    let size = model.preprocessing.size;
    let mut small = model.instances.len() <= MOST_INSTANCES;
    for record in &model.instances {
        let cost = model.network.cost(size, record.instance);
        let cost = cost.expect("a model's instances run on its own images");
        small &= cost.macs <= MOST_MACS && cost.peak_bytes <= MOST_BYTES;
    }
    let engine = Engine::new(CONTEXT.clone(), model).expect("a model that was read fits itself");
    if small {
        run(&engine, 2).expect("a model runs on its own images");
    }
}

fn run(engine: &Engine, batch: usize) -> Result<(), sdpoint::RunError> {
    let size = engine.preprocessing().size;
    let len = batch * size[0] * size[1] * engine.network().input_channels();
    let data: Vec<f32> = (0..len).map(|i| (i % 7) as f32 / 3.0 - 1.0).collect();
    let images = Images {
        data: &data,
        batch,
        size,
    };
    for record in engine.records() {
        let answer = engine.run(images, record.instance)?;
        assert_eq!(answer.predictions.len(), batch);
        answer.predictions.top(batch - 1, 2);
    }
    for budget in [
        Budget::Share(0.5),
        Budget::Macs(100),
        Budget::MinAccuracy(0.5),
        Budget::Latency(Duration::from_micros(50)),
    ] {
        // Whether one fits is the model's affair.
        let _ = engine.choose(budget);
    }
    for allowed in [Duration::ZERO, Duration::from_micros(50), Duration::MAX / 2] {
        if let Some(deadline) = Instant::now().checked_add(allowed) {
            engine.run_by(images, deadline)?;
        }
    }
    for record in engine.combinations() {
        match &record.combination {
            Combination::Cascade(cascade) => drop(engine.run_cascade(images, cascade)?),
            Combination::Ensemble(members) => drop(engine.run_ensemble(images, members)?),
            Combination::BlendedCascade(cascade) => {
                drop(engine.run_blended_cascade(images, cascade)?);
            }
        }
    }
    Ok(())
}
