//! Random arrivals.

use chacha20::ChaCha8Rng;
use rand::SeedableRng;
use rand_distr::{Distribution, Gamma};

/// Times of arrivals: a renewal process whose intervals have a gamma distribution,
/// at a rate that may change over time.
#[derive(Debug)]
pub struct Arrivals {
    phases: Vec<Phase>,
    intervals: Gamma<f64>,
    rng: ChaCha8Rng,
    now: f64,
    phase: usize,
    /// When the phase began.
    began: f64,
}

/// A time span over which the rate of arrivals changes linearly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Phase {
    /// Its length, in seconds.
    pub seconds: f64,
    /// Requests per second at its start.
    pub from: f64,
    /// Requests per second at its end.
    pub to: f64,
}

impl Phase {
    /// A constant rate.
    pub fn steady(seconds: f64, rate: f64) -> Self {
        Self {
            seconds,
            from: rate,
            to: rate,
        }
    }
}

impl Arrivals {
    /// Arrivals through all phases. `burstiness` is the squared coefficient of
    /// variation of the intervals: 1 for a Poisson process, more for bursts.
    ///
    /// # Panics
    /// If the burstiness or a rate is not positive.
    pub fn new(phases: Vec<Phase>, burstiness: f64, seed: u64) -> Self {
        let intervals = Gamma::new(1.0 / burstiness, burstiness);
        assert!(phases.iter().all(|p| p.from > 0.0 && p.to > 0.0), "rates");
        Self {
            phases,
            intervals: intervals.expect("a positive burstiness"),
            rng: ChaCha8Rng::seed_from_u64(seed),
            now: 0.0,
            phase: 0,
            began: 0.0,
        }
    }
}

impl Iterator for Arrivals {
    type Item = f64;

    fn next(&mut self) -> Option<f64> {
        let phase = *self.phases.get(self.phase)?;
        let passed = (self.now - self.began) / phase.seconds;
        let rate = phase.from + passed * (phase.to - phase.from);
        self.now += self.intervals.sample(&mut self.rng) / rate;
        while self.now >= self.began + self.phases.get(self.phase)?.seconds {
            self.began += self.phases[self.phase].seconds;
            self.phase += 1;
        }
        Some(self.now)
    }
}
