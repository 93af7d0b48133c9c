//! Stochastic gradient descent with momentum.

use sdpoint_core::{Network, Role, Weights};
use sdpoint_kernels::{Context, optimizer};

/// The numbers of [`Sgd`] that stay the same from step to step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SgdOptions {
    /// What is kept of the past direction.
    pub momentum: f32,
    /// Whether to look ahead (Sutskever et al., 2013).
    pub nesterov: bool,
    /// The weight of the squared parameters in the loss.
    pub weight_decay: f32,
    /// Whether batch norms' scales and shifts decay too.
    pub decay_norms: bool,
}

/// Stochastic gradient descent with momentum, as PyTorch's `SGD` has it:
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
    /// An optimiser at rest.
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

    /// Moves the weights against the gradients.
    ///
    /// # Panics
    /// If weights or gradients are another network's.
    pub fn step(&mut self, ctx: &Context, weights: &mut Weights, gradients: &Weights, rate: f32) {
        assert_eq!(weights.0.len(), self.decay.len(), "another network");
        let all = weights.0.iter_mut().zip(&gradients.0);
        for (((w, g), v), &decay) in all.zip(&mut self.momentum.0).zip(&self.decay) {
            let sgd = optimizer::Sgd {
                lr: rate,
                momentum: self.options.momentum,
                weight_decay: decay,
                nesterov: self.options.nesterov,
            };
            optimizer::sgd_step(ctx, sgd, w, g, v);
        }
    }

    /// The direction that each parameter moves in.
    pub fn momentum(&self) -> &Weights {
        &self.momentum
    }

    /// Goes on from a direction that [`Sgd::momentum`] gave.
    ///
    /// # Panics
    /// If it is another network's.
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
