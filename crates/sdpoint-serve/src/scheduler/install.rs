//! Prepares a model for jobs.

use std::collections::BTreeMap;
use std::sync::Arc;

use sdpoint::{Engine, EngineError};

use super::{Assembler, Model};
use crate::control::{Costs, Demand};

/// The smallest relative gain in time per image for which a batch size is doubled.
const LEAST_GAIN: f64 = 0.02;

/// The maximum batch size is at least this, to amortise the fixed cost of a batch.
const FEW: usize = 4;

impl Model {
    /// Runs every instance once for batches of 1, 2, 4, … up to `max_batch` images, and
    /// measures their latencies unless the model's profile has them. Stops early where
    /// larger batches no longer save time.
    pub(super) fn prepare(
        name: &str,
        engine: Arc<Engine>,
        max_batch: usize,
    ) -> Result<Self, EngineError> {
        let mut tables = BTreeMap::new();
        let mut images = 1;
        let mut last = f64::INFINITY;
        loop {
            engine.warm_up(images)?;
            tables.insert(images, engine.timetable_for(images)?);
            let costs =
                Costs::new(&tables, engine.records()).with_combinations(engine.combinations());
            let time = costs.quickest(&Demand::ANY, images).unwrap_or(0.0);
            let each = time / images as f64;
            let gains = each < (1.0 - LEAST_GAIN) * last;
            last = each;
            if images == max_batch || images >= FEW && !gains {
                return Ok(Self::new(name, engine, costs));
            }
            images = (2 * images).min(max_batch.max(1));
        }
    }

    fn new(name: &str, engine: Arc<Engine>, costs: Costs) -> Self {
        let channels = engine.network().input_channels();
        Self {
            name: name.to_owned(),
            assembler: Assembler::new(engine.preprocessing(), channels),
            threads: engine.machine().threads,
            costs,
            engine,
        }
    }
}
