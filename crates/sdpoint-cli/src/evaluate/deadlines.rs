//! `sdpoint evaluate --deadline`: the accuracy of answers given by a deadline.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::time::{Duration, Instant as Clock};

use sdpoint::core::{format_duration, format_macs, parse_duration};
use sdpoint::data::Dataset;
use sdpoint::engine::{cross_entropy, top_k};
use sdpoint::{Engine, Instance};
use serde::Serialize;

use super::Args;
use crate::data::{note_skipped, note_squashed};
use crate::failure::{Class, Failure, Outcome};
use crate::interrupt::Interrupt;
use crate::model::ClassMatch;
use crate::output::{Table, percent, plural, print, print_json};
use crate::output_file::Output;
use crate::progress::Display;
use crate::shares::parse_share;
use crate::{MachineArgs, model, report};

/// A deadline for answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Deadline {
    /// A time after the start of the run.
    Time(Duration),
    /// A share of the time of `full` on this machine.
    Share(f64),
}

impl FromStr for Deadline {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shown = |_| {
            format!(
                "'{text}' is not a deadline: give a time such as 8ms, or a share of full's such as 60%"
            )
        };
        if text.trim().ends_with('%') {
            parse_share(text).map(Self::Share).map_err(shown)
        } else {
            parse_duration(text)
                .map(Self::Time)
                .map_err(|error| shown(error.to_string()))
        }
    }
}

impl fmt::Display for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Time(time) => f.pad(&format_duration(time)),
            // Without rounding errors: 0.07 is 7.000000000000001 %.
            Self::Share(share) => f.pad(&format!("{}%", (share * 1e8).round() / 1e6)),
        }
    }
}

/// Sums over the test images for one deadline.
#[derive(Default)]
struct Tally {
    images: usize,
    right: usize,
    right_in_time: usize,
    in_time: usize,
    loss: f64,
    macs: f64,
    became: BTreeMap<Instance, usize>,
}

#[derive(Serialize)]
struct Row {
    deadline: String,
    deadline_ms: f64,
    /// The share of images answered in time.
    in_time: f64,
    /// Mean MACs, and their share of the MACs of `full`.
    macs: u64,
    share: f64,
    /// The share of images answered correctly and in time.
    top1: f64,
    /// The share of images answered correctly, in time or not.
    top1_if_late: f64,
    loss: f64,
    /// The number of images answered, and of unreadable ones.
    images: usize,
    skipped: usize,
    classes: ClassMatch,
    /// The number of images that each instance answered.
    instances: BTreeMap<String, usize>,
}

/// Classifies each test image alone by each of the deadlines.
pub fn run(
    args: &Args,
    test: &Dataset,
    deadlines: &[Deadline],
    csv: Option<&Output>,
    machine: &MachineArgs,
) -> Outcome {
    let file = model::file(&args.model);
    let loaded = model::load(&file)?;
    let classes = model::check_classes(&loaded, test)?;
    note_squashed(&loaded, test)?;
    let engine = Engine::new(machine.context()?, loaded)?.with_profile_beside(&file);
    model::note_time_source(&engine);
    let interrupt = Interrupt::install()?;
    let mut display = Display::new(interrupt.clone(), 1);
    engine.warm_up(1)?;
    let full = engine.times(1)?[&Instance::Full];
    let times: Vec<Duration> = deadlines
        .iter()
        .map(|deadline| match *deadline {
            Deadline::Time(time) => time,
            Deadline::Share(share) => full.mul_f64(share),
        })
        .collect();
    let mut tallies: Vec<Tally> = times.iter().map(|_| Tally::default()).collect();
    for index in 0..test.len() {
        if interrupt.requested() {
            display.finish();
            return Err(Failure::new(
                Class::Interrupted,
                format!(
                    "interrupted after {index} of {}",
                    plural(test.len(), "image", "images")
                ),
            ));
        }
        let Some(sample) = test.readable(index)? else {
            continue;
        };
        let inputs = engine.prepare([&*sample.image])?;
        for (tally, &allowed) in tallies.iter_mut().zip(&times) {
            let answer = engine.run_by(&inputs, Clock::now() + allowed)?;
            let logits = answer.predictions.logits(0);
            let right = top_k(logits, 1)[0] == sample.label as usize;
            let in_time = answer.time <= allowed;
            tally.images += 1;
            tally.right += usize::from(right);
            tally.in_time += usize::from(in_time);
            tally.right_in_time += usize::from(right && in_time);
            tally.loss += cross_entropy(logits, &[sample.label], logits.len());
            tally.macs += answer.macs;
            for &instance in answer.instances.image(0) {
                *tally.became.entry(instance).or_default() += 1;
            }
        }
        display.answering(index + 1, test.len());
    }
    display.finish();
    note_skipped(&[test]);
    let highest = engine.records().iter().map(|record| record.macs).max();
    let rows: Vec<Row> = deadlines
        .iter()
        .zip(times)
        .zip(tallies)
        .map(|((deadline, time), tally)| {
            let skipped = test.len() - tally.images;
            let highest = highest.unwrap_or(1).max(1);
            tally.row(deadline, time, skipped, highest, classes)
        })
        .collect();
    // Results are printed even if the file cannot be written.
    let written = csv.map_or(Ok(()), |csv| csv.write(table(&rows).as_bytes()));
    if args.json {
        print_json(&rows)?;
    } else {
        print(&(text(&rows, full) + &report::warning(classes, test)))?;
    }
    written
}

impl Tally {
    fn row(
        self,
        deadline: &Deadline,
        time: Duration,
        skipped: usize,
        highest: u64,
        classes: ClassMatch,
    ) -> Row {
        let images = self.images.max(1) as f64;
        let macs = self.macs / images;
        Row {
            deadline: deadline.to_string(),
            deadline_ms: 1e3 * time.as_secs_f64(),
            in_time: self.in_time as f64 / images,
            macs: macs.round() as u64,
            share: macs / highest as f64,
            top1: self.right_in_time as f64 / images,
            top1_if_late: self.right as f64 / images,
            loss: self.loss / images,
            images: self.images,
            skipped,
            classes,
            instances: self
                .became
                .into_iter()
                .map(|(instance, count)| (instance.to_string(), count))
                .collect(),
        }
    }
}

fn text(rows: &[Row], full: Duration) -> String {
    let (images, skipped) = rows.first().map_or((0, 0), |row| (row.images, row.skipped));
    let mut table = Table::new([
        "deadline", "time", "in time", "MACs", "share", "top-1", "if late", "mostly",
    ]);
    for row in rows {
        let most = row.instances.iter().max_by_key(|(_, count)| **count);
        table.row([
            row.deadline.clone(),
            format_duration(Duration::from_secs_f64(row.deadline_ms / 1e3)),
            percent(row.in_time),
            format_macs(row.macs),
            percent(row.share),
            format!("{:.2}%", 100.0 * row.top1),
            format!("{:.2}%", 100.0 * row.top1_if_late),
            most.map_or(String::new(), |(instance, count)| {
                let share = *count as f64 / images.max(1) as f64;
                format!("{instance} ({})", percent(share))
            }),
        ]);
    }
    format!(
        "{}{} ran alone{}, with its instance chosen during the run; full takes \
         {}. MACs are the mean of those computed. Late answers count as wrong in top-1, but not \
         under 'if late'.\n",
        table.text(),
        match images {
            1 => "One image".to_owned(),
            _ => format!("Each of {images} images"),
        },
        report::skipped(skipped),
        format_duration(full)
    )
}

/// The CSV table: columns of the curve that apply to deadlines, and others.
fn table(rows: &[Row]) -> String {
    let mut text = String::from("instance,macs,share,top1,loss,deadline_ms,in_time,top1_if_late\n");
    for row in rows {
        writeln!(
            text,
            "by {},{},{:.6},{:.6},{:.6},{:.6},{:.6},{:.6}",
            row.deadline,
            row.macs,
            row.share,
            row.top1,
            row.loss,
            row.deadline_ms,
            row.in_time,
            row.top1_if_late
        )
        .expect("writing to a string never fails");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_times_or_shares() {
        let read = |text: &str| text.parse::<Deadline>();
        assert_eq!(read("8ms"), Ok(Deadline::Time(Duration::from_millis(8))));
        assert_eq!(read("60%"), Ok(Deadline::Share(0.6)));
        assert_eq!(read("7%").unwrap().to_string(), "7%");
        assert_eq!(read("110%").unwrap().to_string(), "110%");
        for bad in ["", "8", "0ms", "-5%", "0%", "soon", "NaN%"] {
            let error = read(bad).unwrap_err();
            assert!(error.contains("8ms") && error.contains("60%"), "{error}");
        }
    }
}
