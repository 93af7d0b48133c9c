//! An implicit GEMM, gathered pixels times packed weights: a [`Problem`] with its tensors.

use super::epilogue::TileEpilogue;
use super::gather::Source;
use super::pack::PackedWeights;
use super::problem::Problem;
use super::tuning;
use crate::shared_mut::SharedMut;

/// A grid of outputs to compute, its operands, and where to store it.
pub(super) struct Product<'a> {
    pub problem: Problem,
    pub source: Source<'a>,
    pub weights: &'a PackedWeights,
    pub output: SharedMut<'a, f32>,
    /// Whether to add to the output's content rather than replace it.
    pub accumulate: bool,
    pub epilogue: TileEpilogue<'a>,
}

impl Product<'_> {
    /// Whether the output is too large to still be in a core's caches.
    #[inline(always)]
    pub fn output_is_evicted(&self) -> bool {
        self.output.len() >= tuning::EVICTED_FLOATS
    }

    /// Whether the input is too large to still be in a core's caches.
    #[inline(always)]
    pub fn input_is_evicted(&self) -> bool {
        self.source.data.len() >= tuning::EVICTED_FLOATS
    }
}
