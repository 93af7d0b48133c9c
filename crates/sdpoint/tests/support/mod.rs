//! Models of small networks with random weights.

#[allow(dead_code)] // The list of all names is for others.
#[path = "../../../../fixtures/oracles/networks.rs"]
mod networks;

use chacha20::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use sdpoint::core::{Moments, Preprocessing, Ratio, Role, Statistics, Weights};
use sdpoint::engine::initial_weights;
use sdpoint::{Instance, Model, Network};

/// A network of the zoo, or one of the small ones that results were recorded
/// of, with ten classes. `NAME-exits` is the network that puts out the logits
/// of all exits, `NAME-exit1` what ends at the first.
pub fn network(name: &str) -> Network {
    let parts = name.rsplit_once("-exit");
    let Some((whole, exit)) = parts else {
        return networks::network(name);
    };
    let whole = networks::network(whole);
    match exit.parse::<usize>() {
        Ok(number) => whole.exits().unwrap().swap_remove(number - 1),
        Err(_) => whole.with_exits().unwrap(),
    }
}

/// A model with statistics of every instance, all of them different, and
/// parameters of its own for every third, for images of `size` (height, width).
pub fn model(name: &str, size: [usize; 2]) -> Model {
    let network = network(name);
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut uniform = |count: usize, [low, high]: [f32; 2]| -> Vec<f32> {
        (0..count)
            .map(|_| low + (high - low) * rng.random::<f32>())
            .collect()
    };
    let Weights(mut weights) = initial_weights(&network, 0);
    for (parameter, values) in std::iter::zip(network.parameters(), &mut weights) {
        let range = match parameter.role {
            Role::Weight => continue,
            Role::NormScale => [0.5, 1.5],
            Role::Bias | Role::NormShift => [-0.5, 0.5],
        };
        *values = uniform(values.len(), range);
    }
    let mut statistics = Statistics::default();
    let instances = network.instances(&Ratio::DEFAULT);
    let norms = network.norms();
    for &instance in &instances {
        let own = match instance {
            Instance::Full => 0..norms.len(),
            other => network.own_norms(other),
        };
        let moments = norms[own].iter().map(|norm| Moments {
            mean: uniform(norm.channels, [-0.3, 0.3]),
            var: uniform(norm.channels, [0.5, 1.5]),
        });
        statistics.set(&network, instance, moments.collect());
    }
    // A third of the instances have parameters of their own.
    for &instance in instances.iter().skip(1).step_by(3) {
        let own = network.own_parameters(instance).into_iter();
        let mut values = |index: usize| uniform(network.parameters()[index].len(), [0.4, 1.4]);
        let own = own.map(|index| (index, values(index))).collect();
        statistics.set_parameters(&network, instance, own);
    }
    let preprocessing = Preprocessing::new(size, vec![0.48, 0.46, 0.41], vec![0.23, 0.22, 0.24]);
    let mut model = Model::new(network, Weights(weights), preprocessing, &instances).unwrap();
    model.statistics = statistics;
    for class in &mut model.classes {
        *class = format!("class {class}");
    }
    model
}
