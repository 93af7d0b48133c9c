//! Results recorded from PyTorch for small networks, and comparisons with
//! them.

#![allow(dead_code)] // No test uses all of it.

#[path = "../../../../fixtures/oracles/networks.rs"]
pub mod networks;

use std::path::Path;
use std::sync::Arc;

use safetensors::SafeTensors;
use sdpoint_core::{Instance, Moments, Network, Statistics, Weights};
use sdpoint_engine::{Context, Images};

use networks::network;

/// A network with random weights, and the results that PyTorch computed.
pub struct Oracle {
    pub network: Arc<Network>,
    bytes: Vec<u8>,
}

impl Oracle {
    pub fn open(name: &str) -> Self {
        Self::open_for(name, name)
    }

    /// Results for a network in another file than that of its weights.
    pub fn open_for(name: &str, file: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../fixtures/oracles")
            .join(format!("{file}.safetensors"));
        Self {
            network: Arc::new(network(name)),
            bytes: std::fs::read(path).unwrap(),
        }
    }

    fn file(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).unwrap()
    }

    /// A recorded tensor.
    pub fn tensor(&self, name: &str) -> Vec<f32> {
        let file = self.file();
        let data = file
            .tensor(name)
            .unwrap_or_else(|_| panic!("{name}"))
            .data();
        data.chunks_exact(4)
            .map(|x| f32::from_le_bytes(x.try_into().unwrap()))
            .collect()
    }

    pub fn labels(&self) -> Vec<u32> {
        let file = self.file();
        let data = file.tensor("labels").unwrap().data();
        data.chunks_exact(8)
            .map(|x| u64::from_le_bytes(x.try_into().unwrap()) as u32)
            .collect()
    }

    /// The instances with recorded results of a kind, such as `logits`.
    pub fn instances(&self, kind: &str) -> Vec<Instance> {
        let file = self.file();
        let mut instances: Vec<Instance> = file
            .names()
            .iter()
            .filter_map(|name| {
                let rest = name.strip_prefix(kind)?.strip_prefix('/')?;
                Some(rest.split('/').next().unwrap().parse().unwrap())
            })
            .collect();
        instances.sort();
        instances.dedup();
        instances
    }

    pub fn weights(&self) -> Weights {
        let parameters = self.network.parameters();
        let tensors = parameters
            .iter()
            .map(|p| self.tensor(&format!("weights/{}", p.name)));
        Weights(tensors.collect())
    }

    /// Recorded moments of all batch norms, under a prefix.
    pub fn moments(&self, prefix: &str) -> Vec<Moments> {
        let norms = self.network.norms();
        let moments = norms.iter().map(|norm| Moments {
            mean: self.tensor(&format!("{prefix}/{}.running_mean", norm.name)),
            var: self.tensor(&format!("{prefix}/{}.running_var", norm.name)),
        });
        moments.collect()
    }

    /// The recorded running statistics, the same for every instance.
    pub fn running_statistics(&self, instances: &[Instance]) -> Statistics {
        let mut statistics = Statistics::default();
        let all = self.moments("weights");
        for &instance in instances {
            let own = all[self.network.own_norms(instance)].to_vec();
            statistics.set(&self.network, instance, own);
        }
        statistics
    }

    /// The recorded input in NHWC order, with its size.
    pub fn input(&self) -> Input {
        let file = self.file();
        let shape = file.tensor("input").unwrap().shape().to_vec();
        let (n, c, h, w) = (shape[0], shape[1], shape[2], shape[3]);
        let nchw = self.tensor("input");
        let mut data = Vec::with_capacity(nchw.len());
        for image in 0..n {
            for pixel in 0..h * w {
                data.extend((0..c).map(|channel| nchw[(image * c + channel) * h * w + pixel]));
            }
        }
        Input {
            data,
            batch: n,
            size: [h, w],
        }
    }
}

pub struct Input {
    pub data: Vec<f32>,
    pub batch: usize,
    pub size: [usize; 2],
}

impl Input {
    pub fn images(&self) -> Images<'_> {
        Images {
            data: &self.data,
            batch: self.batch,
            size: self.size,
        }
    }

    /// Some of the images.
    pub fn part(&self, range: std::ops::Range<usize>) -> Images<'_> {
        let len = self.data.len() / self.batch;
        Images {
            data: &self.data[range.start * len..range.end * len],
            batch: range.len(),
            size: self.size,
        }
    }
}

pub fn context() -> Arc<Context> {
    Arc::new(Context::new(None).unwrap())
}

/// The largest magnitude, or NaN if there is one.
pub fn largest<T: std::borrow::Borrow<f32>>(values: impl IntoIterator<Item = T>) -> f32 {
    values.into_iter().fold(0.0, |largest: f32, value| {
        let value = value.borrow().abs();
        if value.is_nan() {
            value
        } else {
            largest.max(value)
        }
    })
}

/// Asserts that values agree within `tolerance` times the largest expected one.
#[track_caller]
pub fn assert_close(found: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let worst = largest(std::iter::zip(found, expected).map(|(a, b)| a - b));
    let scale = largest(expected);
    assert!(
        worst <= tolerance * scale,
        "{what}: off by {worst:.2e} of {scale:.2e}, {tolerance:.0e} allowed"
    );
}

/// The tolerance of gradients. Each layer rounds twice on their way, and the
/// rounding error of Winograd's algorithm is about ten times that of direct
/// convolution; the largest difference measured is 1.7e-4.
const GRADIENT_TOLERANCE: f32 = 3e-4;

/// Compares the gradients of all parameters with recorded ones, given by name.
#[track_caller]
pub fn assert_gradients(
    oracle: &Oracle,
    found: &[Vec<f32>],
    what: &str,
    recorded: impl Fn(&str) -> Vec<f32>,
) {
    let parameters = oracle.network.parameters();
    let recorded: Vec<Vec<f32>> = parameters.iter().map(|p| recorded(&p.name)).collect();
    // A shift before a batch norm has no effect, so some gradients are zero up to rounding;
    // the tolerance is relative to the others.
    let floor = 2e-3 * largest(recorded.iter().flatten());
    let pairs = found.iter().zip(&recorded);
    for (parameter, (found, expected)) in parameters.iter().zip(pairs) {
        let scale = largest(expected).max(floor);
        let worst = largest(found.iter().zip(expected).map(|(a, b)| a - b));
        let parameter = &parameter.name;
        assert!(
            worst <= GRADIENT_TOLERANCE * scale,
            "{what} {parameter}: off by {worst:.2e} of {scale:.2e}"
        );
    }
}
