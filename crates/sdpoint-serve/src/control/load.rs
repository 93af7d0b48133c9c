//! Levels of load, for what is learned separately for each.

/// The number of levels: quarters of the capacity of the cheapest instance, and beyond it.
const LEVELS: usize = 5;

/// A value for each level of load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct PerLevel([f64; LEVELS]);

impl PerLevel {
    /// The value of each level from its number and that of the last level.
    pub fn new(value: impl Fn(usize, usize) -> f64) -> Self {
        Self(std::array::from_fn(|level| value(level, LEVELS - 1)))
    }

    /// The value at a load relative to capacity.
    pub fn at(&self, load: f64) -> f64 {
        self.0[level(load)]
    }

    /// The same, to change it.
    pub fn at_mut(&mut self, load: f64) -> &mut f64 {
        &mut self.0[level(load)]
    }
}

fn level(load: f64) -> usize {
    (((LEVELS - 1) as f64 * load) as usize).min(LEVELS - 1)
}
