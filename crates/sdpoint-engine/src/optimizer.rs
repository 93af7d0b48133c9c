//! Stochastic gradient descent with momentum.

use sdpoint_core::{Network, Role, Weights};
use sdpoint_kernels::{Context, optimizer};

/// The hyperparameters of [`Sgd`] other than the learning rate.
#[derive(Clone, Copy, Debug, PartialEq)]
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
#[derive(Clone, Debug)]
pub struct Sgd {
    options: SgdOptions,
    momentum: Weights,
    /// The weight decay of each parameter.
    decay: Vec<f32>,
}

impl Sgd {
    /// Creates an optimiser for `network` with zero momentum buffers.
    pub fn new(network: &Network, options: SgdOptions) -> Self {
        let decay = |role| match role {
            Role::NormScale | Role::NormShift if !options.decay_norms => 0.0,
            _ => options.weight_decay,
        };
        Self {
            options,
            momentum: Weights::zeros(network),
            decay: network.parameters().iter().map(|p| decay(p.role)).collect(),
        }
    }

    /// Updates the weights with learning rate `rate`.
    ///
    /// # Panics
    /// If the weights or the gradients belong to another network.
    pub fn step(&mut self, ctx: &Context, weights: &mut Weights, gradients: &Weights, rate: f32) {
        assert_eq!(weights.0.len(), self.decay.len(), "another network");
        let all = weights.0.iter_mut().zip(&gradients.0);
        for (((w, g), v), &decay) in all.zip(&mut self.momentum.0).zip(&self.decay) {
            let sgd = optimizer::SgdStep {
                lr: rate,
                momentum: self.options.momentum,
                weight_decay: decay,
                nesterov: self.options.nesterov,
            };
            optimizer::sgd_step(ctx, sgd, w, g, v);
        }
    }

    /// The momentum buffer of each parameter.
    pub fn momentum(&self) -> &Weights {
        &self.momentum
    }

    /// Restores momentum buffers saved from [`Sgd::momentum`].
    ///
    /// # Panics
    /// If they belong to another network.
    pub fn set_momentum(&mut self, momentum: Weights) {
        let lengths = |weights: &Weights| weights.0.iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(
            lengths(&momentum),
            lengths(&self.momentum),
            "another network"
        );
        self.momentum = momentum;
    }
}
