//! Initialisation of weights for training.

use chacha20::ChaCha8Rng;
use rand::{Rng, RngExt, SeedableRng};
use sdpoint_core::{Network, Op, Role, Weights};

/// Draws random weights. The same seed gives the same bits on every machine.
///
/// Convolutions are drawn from a normal distribution with variance
/// `2 / fan_out`, where `fan_out` is kernel area times output channels over
/// groups (He et al., "Delving Deep into Rectifiers", 2015); linear layers,
/// weights and biases, from the uniform distribution on
/// `±1/√(input features)`, as in PyTorch. Batch norms start as the identity,
/// biases of convolutions at zero.
pub fn initial_weights(network: &Network, seed: u64) -> Weights {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let weights = network.parameters().iter().map(|parameter| {
        let len = parameter.len();
        match (&network.layer(parameter.layer).op, parameter.role) {
            (Op::Conv(conv), Role::Weight) => {
                let fan_out = conv.kernel[0] * conv.kernel[1] * conv.out_channels / conv.groups;
                let std = (2.0 / fan_out as f64).sqrt();
                (0..len)
                    .map(|_| (std * standard_normal(&mut rng)) as f32)
                    .collect()
            }
            (Op::Linear { in_features, .. }, _) => {
                let bound = 1.0 / (*in_features as f64).sqrt();
                (0..len)
                    .map(|_| (bound * (2.0 * rng.random::<f64>() - 1.0)) as f32)
                    .collect()
            }
            (_, Role::NormScale) => vec![1.0; len],
            _ => vec![0.0; len],
        }
    });
    Weights(weights.collect())
}

/// Draws from the standard normal distribution by Marsaglia's polar method.
///
/// The logarithm comes from the crate `libm`: the last bit of the system's
/// differs between platforms.
fn standard_normal(rng: &mut impl Rng) -> f64 {
    loop {
        let u = 2.0 * rng.random::<f64>() - 1.0;
        let v = 2.0 * rng.random::<f64>() - 1.0;
        let s = u * u + v * v;
        if s > 0.0 && s < 1.0 {
            return u * (-2.0 * libm::log(s) / s).sqrt();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdpoint_core::{Conv, NetworkBuilder};

    fn network() -> Network {
        let mut b = NetworkBuilder::new("net", 16);
        let x = b.conv("conv", b.input(), Conv::square(16, 64, 3, 1));
        let x = b.batch_norm("bn", x, 64);
        let x = b.layer("pool", Op::GlobalAvgPool, &[x]);
        let op = Op::Linear {
            in_features: 64,
            out_features: 1000,
            bias: true,
        };
        b.layer("fc", op, &[x]);
        b.finish().unwrap()
    }

    #[test]
    fn weights_have_the_specified_variance() {
        let weights = initial_weights(&network(), 1);
        let moments = |data: &[f32]| {
            let mean = data.iter().map(|&x| f64::from(x)).sum::<f64>() / data.len() as f64;
            let squares = data.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
            (mean, squares / data.len() as f64)
        };
        let (mean, var) = moments(&weights.0[0]);
        let expected = 2.0 / (9.0 * 64.0);
        assert!(mean.abs() < 0.002 && (var / expected - 1.0).abs() < 0.05);
        let (mean, var) = moments(&weights.0[3]);
        assert!(mean.abs() < 0.002 && (var * 3.0 * 64.0 - 1.0).abs() < 0.02);
        assert!(weights.0[1].iter().all(|&x| x == 1.0));
    }

    #[test]
    fn a_seed_gives_the_same_weights_everywhere() {
        let weights = initial_weights(&network(), 7);
        assert_eq!(weights, initial_weights(&network(), 7));
        assert_ne!(weights, initial_weights(&network(), 8));
    }
}
