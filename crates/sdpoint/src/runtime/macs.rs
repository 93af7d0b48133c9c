//! Multiply-accumulates of runs, cached by image size.

use std::collections::HashMap;

use sdpoint_core::Instance;
use sdpoint_engine::{EngineError, InstanceMacs};

use super::{Engine, MOST_REMEMBERED, lock};

/// What a run computes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Computation {
    Single(Instance),
    /// The first and the second instance.
    Cascade([Instance; 2]),
    /// The instances of a blended cascade.
    Stages(Vec<Instance>),
    Ensemble(Vec<Instance>),
}

/// The MACs of one image, and those that each later stage of a cascade adds, by
/// height and width of the images.
pub(super) type MacsCache = HashMap<([usize; 2], Computation), [u64; 3]>;

impl Engine {
    /// The MACs of one image of `[height, width]`, and those that each later stage
    /// of a cascade adds for an image that it runs on.
    pub(super) fn macs(
        &self,
        size: [usize; 2],
        computation: Computation,
    ) -> Result<[u64; 3], EngineError> {
        let key = (size, computation);
        if let Some(&macs) = lock(&self.macs).get(&key) {
            return Ok(macs);
        }
        let work = |instances: &[Instance]| {
            InstanceMacs::new(self.network(), size, instances.iter().copied())
        };
        let macs = match &key.1 {
            Computation::Single(instance) => [self.network().cost(size, *instance)?.macs, 0, 0],
            Computation::Cascade(both) => {
                let [first, second] = work(both)?.cascade(both[0], both[1]);
                [first, second, 0]
            }
            Computation::Stages(stages) => {
                let macs = work(stages)?.stages(stages);
                std::array::from_fn(|stage| macs.get(stage).copied().unwrap_or(0))
            }
            Computation::Ensemble(members) => [work(members)?.shared(members).shared, 0, 0],
        };
        let mut cache = lock(&self.macs);
        // Every instance of a model has an entry after a warm-up.
        if cache.len() >= MOST_REMEMBERED * self.records.len().max(1) {
            cache.clear();
        }
        cache.insert(key, macs);
        Ok(macs)
    }
}
