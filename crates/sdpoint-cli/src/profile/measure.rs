//! Measures instances in turns.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sdpoint::Instance;
use sdpoint::engine::StepTime;

use super::Work;
use crate::failure::Failure;
use crate::output::{note, plural, span};

const WARM_UP: usize = 2;
const MIN_ROUNDS: usize = 5;

/// The times of an instance's runs, in milliseconds.
pub struct Samples {
    /// Whole runs, from the shortest to the longest.
    runs: Vec<f64>,
    /// The parts of a run, from the last run.
    pub steps: Vec<StepTime>,
    /// The times of each part.
    step_times: Vec<Vec<f64>>,
}

impl Samples {
    fn new() -> Self {
        Self {
            runs: Vec::new(),
            steps: Vec::new(),
            step_times: Vec::new(),
        }
    }

    fn add(&mut self, run: Duration, steps: Vec<StepTime>) {
        self.runs.push(in_milliseconds(run));
        self.step_times.resize_with(steps.len(), Vec::new);
        for (times, step) in self.step_times.iter_mut().zip(&steps) {
            times.push(in_milliseconds(step.time));
        }
        self.steps = steps;
    }

    fn sort(&mut self) {
        for times in self.step_times.iter_mut().chain([&mut self.runs]) {
            times.sort_by(f64::total_cmp);
        }
    }

    /// The number of runs.
    pub fn runs(&self) -> usize {
        self.runs.len()
    }

    pub fn median_ms(&self) -> f64 {
        median(&self.runs)
    }

    /// The 99th percentile.
    pub fn p99_ms(&self) -> f64 {
        self.runs[(self.runs.len() * 99).div_ceil(100) - 1]
    }

    /// The parts of a run with their median times.
    pub fn step_medians(&self) -> impl Iterator<Item = (&StepTime, f64)> {
        let medians = self.step_times.iter().map(|times| median(times));
        self.steps.iter().zip(medians)
    }
}

/// Measures every instance for about `seconds`, all of them in turns.
pub fn measure(
    work: &mut Work,
    instances: &[Instance],
    seconds: f64,
    layers: bool,
) -> Result<Vec<Samples>, Failure> {
    let budget = seconds * instances.len() as f64;
    let bar = bar(instances.len(), budget);
    for &instance in instances {
        for _ in 0..WARM_UP {
            work.run(instance, layers)?;
        }
    }
    let mut samples: Vec<Samples> = instances.iter().map(|_| Samples::new()).collect();
    let start = Instant::now();
    for round in 0.. {
        if round >= MIN_ROUNDS && start.elapsed().as_secs_f64() >= budget {
            break;
        }
        for (&instance, samples) in instances.iter().zip(&mut samples) {
            let (time, steps) = work.run(instance, layers)?;
            samples.add(time, steps);
        }
        if let Some(bar) = &bar {
            bar.set_position(start.elapsed().as_millis() as u64);
            bar.set_message(format!("{} runs of each", round + 1));
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    samples.iter_mut().for_each(Samples::sort);
    Ok(samples)
}

/// A progress bar on a terminal; otherwise prints a line.
fn bar(instances: usize, budget: f64) -> Option<ProgressBar> {
    if !std::io::stderr().is_terminal() {
        let instances = plural(instances, "instance", "instances");
        note(&format!("timing {instances} for {}", span(budget)));
        return None;
    }
    let milliseconds = (1e3 * budget) as u64;
    let bar = ProgressBar::with_draw_target(Some(milliseconds), ProgressDrawTarget::stderr());
    let template = "{prefix:>11} {bar:24} {percent}% {msg}";
    bar.set_style(ProgressStyle::with_template(template).expect("the template is valid"));
    bar.set_prefix("timing");
    Some(bar)
}

/// The median of sorted values.
fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    } else {
        sorted[middle]
    }
}

fn in_milliseconds(time: Duration) -> f64 {
    1e3 * time.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_percentiles_are_those_of_the_times() {
        let mut samples = Samples::new();
        for milliseconds in (1..=200).rev() {
            samples.add(Duration::from_millis(milliseconds), Vec::new());
        }
        samples.sort();
        assert_eq!(samples.runs(), 200);
        assert!((samples.median_ms() - 100.5).abs() < 1e-9);
        assert!((samples.p99_ms() - 198.0).abs() < 1e-9);
        assert_eq!(median(&[3.0, 4.0, 9.0]), 4.0);
    }
}
