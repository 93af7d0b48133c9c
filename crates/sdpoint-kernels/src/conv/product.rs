//! An implicit matrix product: a [`Problem`] with its tensors. Gathered pixels times packed
//! weights.

use super::epilogue::Finish;
use super::gather::Source;
use super::pack::PackedWeights;
use super::problem::Problem;
use super::tuning;
use crate::shared_mut::SharedMut;

/// A grid of outputs to compute, and the tensors that it is computed from and stored in.
pub(super) struct Product<'a> {
    pub problem: Problem,
    pub source: Source<'a>,
    pub weights: &'a PackedWeights,
    pub output: SharedMut<'a, f32>,
    /// Whether to add to the output rather than replace it.
    pub accumulate: bool,
    pub finish: Finish<'a>,
}

impl Product<'_> {
    /// Whether the output has left the caches since it was used last.
    #[inline(always)]
    pub fn output_is_evicted(&self) -> bool {
        self.output.len() >= tuning::EVICTED_FLOATS
    }

    /// Whether the input has left the caches since it was computed.
    #[inline(always)]
    pub fn input_is_evicted(&self) -> bool {
        self.source.data.len() >= tuning::EVICTED_FLOATS
    }
}
