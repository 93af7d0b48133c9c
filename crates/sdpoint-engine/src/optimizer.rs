//! Stochastic gradient descent with momentum.

use sdpoint_core::{Network, Role, Weights};
use sdpoint_kernels::{Context, optimizer};

/// The hyperparameters of [`Sgd`] other than the learning rate.
///
/// The default is plain SGD: no momentum and no weight decay.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct SgdOptions {
    /// The momentum factor.
    pub momentum: f32,
    /// Whether to use Nesterov momentum (Sutskever et al., 2013).
    pub nesterov: bool,
    /// The weight decay (L2 penalty).
    pub weight_decay: f32,
    /// Whether weight decay applies to the scales and shifts of batch norms.
    pub decay_norms: bool,
}

/// Stochastic gradient descent with momentum, with the update of PyTorch's
/// `SGD`:
///
/// ```text
/// g ← gradient + weight_decay · w
/// v ← momentum · v + g
/// w ← w − rate · (nesterov ? g + momentum · v : v)
/// ```
///
/// Weights and momentum buffers belong to the caller, who can store them.
#[derive(Clone, Debug)]
pub struct Sgd {
    options: SgdOptions,
    /// The weight decay of each parameter.
    decay: Vec<f32>,
}

/// What one step of [`Sgd`] reads and updates.
#[derive(Debug)]
pub struct SgdStep<'a> {
    /// The weights, which are updated.
    pub weights: &'a mut Weights,
    /// The momentum buffer of each parameter, which is updated; zeros
    /// ([`Weights::zeros`]) before the first step.
    pub momentum: &'a mut Weights,
    /// The gradients of the weights.
    pub gradients: &'a Weights,
    /// The learning rate.
    pub rate: f32,
}

impl Sgd {
    /// Creates an optimiser for `network`.
    pub fn new(network: &Network, options: SgdOptions) -> Self {
        let decay = |role| match role {
            Role::NormScale | Role::NormShift if !options.decay_norms => 0.0,
            _ => options.weight_decay,
        };
        Self {
            options,
            decay: network.parameters().iter().map(|p| decay(p.role)).collect(),
        }
    }

    /// Updates the weights and the momentum.
    ///
    /// # Panics
    /// If weights, momentum or gradients belong to another network.
    pub fn step(&self, ctx: &Context, step: SgdStep<'_>) {
        let SgdStep {
            weights,
            momentum,
            gradients,
            rate,
        } = step;
        for values in [&*weights, &*momentum, gradients] {
            assert_eq!(values.0.len(), self.decay.len(), "another network");
        }
        let all = weights.0.iter_mut().zip(&gradients.0);
        for (((w, g), v), &decay) in all.zip(&mut momentum.0).zip(&self.decay) {
            let sgd = optimizer::SgdUpdate {
                lr: rate,
                momentum: self.options.momentum,
                weight_decay: decay,
                nesterov: self.options.nesterov,
            };
            optimizer::sgd_step(ctx, sgd, w, g, v);
        }
    }
}
