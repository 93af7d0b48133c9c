//! Progress: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sdpoint::train::{EpochMetrics, Observer, Progress};

use crate::interrupt::Interrupt;
use crate::output::{note, percent, span};

/// The time between plain lines during long epochs.
const LINE_EVERY: Duration = Duration::from_secs(60);

/// Shows the progress of a run, and stops it on Ctrl-C.
pub struct Display {
    interrupt: Interrupt,
    /// The number of images in a step, to estimate the remaining time.
    batch_size: usize,
    bar: Option<ProgressBar>,
    phase: Option<Phase>,
    last_line: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Training,
    Calibrating,
    Evaluating,
    Answering,
}

impl Display {
    /// A display on standard error.
    pub fn new(interrupt: Interrupt, batch_size: usize) -> Self {
        let bar = std::io::stderr()
            .is_terminal()
            .then(|| ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()));
        Self {
            interrupt,
            batch_size,
            bar,
            phase: None,
            last_line: Instant::now(),
        }
    }

    /// Removes the bar, before results are printed.
    pub fn finish(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => note(text),
        }
    }

    fn enter(&mut self, phase: Phase, steps: u64) {
        if self.phase == Some(phase) {
            return;
        }
        self.phase = Some(phase);
        let name = match phase {
            Phase::Training => "training",
            Phase::Calibrating => "calibrating",
            Phase::Evaluating => "evaluating",
            Phase::Answering => "classifying",
        };
        let Some(bar) = &self.bar else {
            match phase {
                Phase::Training => {}
                Phase::Calibrating | Phase::Evaluating => note(&format!("{name} all instances")),
                Phase::Answering => note("classifying by each deadline"),
            }
            return;
        };
        let template = "{prefix:>11} {bar:24} {pos}/{len} {msg}";
        bar.set_style(ProgressStyle::with_template(template).expect("the template is valid"));
        bar.reset();
        bar.set_length(steps);
        bar.set_prefix(name);
    }

    /// `done` images were classified by each deadline.
    pub fn answering(&mut self, done: usize, images: usize) {
        self.images(Phase::Answering, done, images);
    }

    fn images(&mut self, phase: Phase, done: usize, images: usize) {
        self.enter(phase, images as u64);
        if let Some(bar) = &self.bar {
            bar.set_message("images");
            bar.set_length(images as u64);
            bar.set_position(done as u64);
        }
    }
}

impl Observer for Display {
    fn stop_requested(&self) -> bool {
        self.interrupt.requested()
    }

    fn step(&mut self, progress: &Progress) {
        self.enter(Phase::Training, progress.steps);
        let left = (progress.steps - progress.step) as f64 * self.batch_size as f64;
        let message = format!(
            "epoch {}/{}  train loss {:.3}  accuracy {}  {:.0} images/s  {} left",
            progress.epoch + 1,
            progress.epochs,
            progress.smooth_loss,
            percent(progress.smooth_accuracy),
            progress.images_per_second,
            span(left / progress.images_per_second),
        );
        if let Some(bar) = &self.bar {
            bar.set_position(progress.step);
            bar.set_message(message);
        } else if self.last_line.elapsed() > LINE_EVERY {
            self.last_line = Instant::now();
            note(&format!(
                "step {}/{}  {message}",
                progress.step, progress.steps
            ));
        }
    }

    fn epoch(&mut self, metrics: &EpochMetrics) {
        self.last_line = Instant::now();
        self.line(&format!(
            "epoch {:>3}  train loss {:.4}  accuracy {:>6}  rate {:.4}  {:>6.0} images/s  took {}",
            metrics.epoch,
            metrics.train_loss,
            percent(metrics.train_accuracy),
            metrics.rate,
            metrics.images_per_second,
            span(metrics.seconds),
        ));
        if let Some(full) = &metrics.full {
            self.line(&format!(
                "           full: loss {:.4} and accuracy {} on training images, {}{:.4} and {} on test images",
                full.train_loss,
                percent(full.train_accuracy),
                match (full.val_loss, full.val_accuracy) {
                    (Some(loss), Some(accuracy)) => {
                        format!("{loss:.4} and {} on held-out images, ", percent(accuracy))
                    }
                    _ => String::new(),
                },
                full.test_loss,
                percent(full.test_accuracy),
            ));
        }
    }

    fn calibrating(&mut self, done: usize, images: usize) {
        self.images(Phase::Calibrating, done, images);
    }

    fn evaluating(&mut self, done: usize, images: usize) {
        self.images(Phase::Evaluating, done, images);
    }

    fn note(&mut self, message: &str) {
        self.line(message);
    }
}
