//! Activation functions and their gradients.

use rten_simd::Isa;
use rten_simd::ops::{BitOps, NumOps};

/// An activation function, applied to every value of a layer's output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
// Not `non_exhaustive`: the engine and the exporters match all activations.
pub enum Activation {
    /// `x`.
    #[default]
    Identity,
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, 0), 6)`.
    Relu6,
}

impl Activation {
    /// All activations, the identity among them.
    pub const ALL: [Activation; 3] = [Activation::Identity, Activation::Relu, Activation::Relu6];

    /// The least and the largest output, infinite where there is no bound.
    pub fn bounds(self) -> [f32; 2] {
        match self {
            Activation::Identity => [f32::NEG_INFINITY, f32::INFINITY],
            Activation::Relu => [0.0, f32::INFINITY],
            Activation::Relu6 => [0.0, 6.0],
        }
    }

    /// The output for `x`. NaN stays NaN, so that a diverging run is noticed;
    /// SIMD minimum and maximum instructions may replace it by the bound.
    #[inline(always)]
    pub(crate) fn of<I: Isa>(self, isa: I, x: I::F32) -> I::F32 {
        let ops = isa.f32();
        let relu = |x| ops.select(ops.zero(), x, ops.le(x, ops.zero()));
        match self {
            Activation::Identity => x,
            Activation::Relu => relu(x),
            Activation::Relu6 => {
                let six = ops.splat(6.0);
                relu(ops.select(six, x, ops.gt(x, six)))
            }
        }
    }

    /// The gradient with respect to the input: `dy` where the input lies
    /// strictly between the bounds and 0 elsewhere, as in PyTorch. `x` may be
    /// the input or the output, which lie between the bounds alike.
    #[inline(always)]
    pub(crate) fn gradient<I: Isa>(self, isa: I, x: I::F32, dy: I::F32) -> I::F32 {
        let ops = isa.f32();
        let above = |dy| ops.select(dy, ops.zero(), ops.gt(x, ops.zero()));
        match self {
            Activation::Identity => dy,
            Activation::Relu => above(dy),
            Activation::Relu6 => above(ops.select(ops.zero(), dy, ops.ge(x, ops.splat(6.0)))),
        }
    }
}
