//! Generates `docs/results.md`. The only hand-written text on it is in the
//! experiments' files.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use sdpoint_core::format_macs;
use sdpoint_train::{Series as Drawn, curve_svg};

use crate::experiment::{Experiment, Method, OWN, run_in};
use crate::results::{Results, Run, Watched};
use crate::runner::{Job, seconds_left};
use crate::summary::{Curves, Value, runs};

/// The page and its pictures, each with its path relative to the page.
#[derive(Debug, PartialEq)]
pub struct Page {
    pub text: String,
    pub pictures: Vec<(PathBuf, String)>,
}

/// The folder of the pictures, beside the page.
const PICTURES: &str = "results";

const INTRODUCTION: &str = "\
# Results

Does the method do what it claims on real images, and what do the alternatives achieve?
`experiments/run` generates this page from
[`experiments/results.jsonl`](../experiments/results.jsonl), which has a summary of every
run. Runs that are still missing are listed at the end of each part.

```sh
experiments/run --data tar:DIR        # does the missing runs, then writes this page
experiments/run --list                # finished and missing runs, and how long these take
experiments/run --quick               # a short version of all, on built-in images
```

Accuracy is top-1 on the test images, in per cent; for several seeds, the mean ± the sample
standard deviation. Costs are shares of the multiply-accumulates of the baseline's full
network. The accuracy *at a cost* is that of the instance that a budget of this cost selects:
the most accurate one, as measured on images held out of training, that costs no more. Runs
with `--val-share 0` held out none; there, test images both select and judge, which makes
accuracies at a cost slightly too high, the more so the more instances there are. The *area*
is the mean of this accuracy over all costs of a range; where no instance is cheap enough, it
counts as zero. It sums up a whole curve in one number, and larger is better.
";

/// Generates the page.
pub fn page(experiments: &[Experiment], results: &Results) -> Page {
    let mut page = Page {
        text: INTRODUCTION.to_owned(),
        pictures: Vec::new(),
    };
    for experiment in experiments {
        part(&mut page, experiment, results);
    }
    page
}

/// A string takes all.
macro_rules! put {
    ($text:expr, $($arguments:tt)*) => {
        writeln!($text, $($arguments)*).expect("a string takes all")
    };
}

fn part(page: &mut Page, experiment: &Experiment, results: &Results) {
    let text = &mut page.text;
    put!(
        text,
        "\n## {}\n\n{}",
        experiment.title,
        experiment.about.trim()
    );
    let curves = |name: &str| {
        let series = experiment.series.iter().find(|series| series.name == name);
        series.map(|series| Curves::of(results, experiment, series))
    };
    let reference = curves(&experiment.baseline).and_then(|baseline| baseline.most());
    for picture in &experiment.pictures {
        let shown: Vec<Curves> = picture
            .series
            .iter()
            .filter_map(|name| curves(name))
            .collect();
        let drawn: Vec<Drawn> = shown
            .iter()
            .filter(|curves| !curves.seeds.is_empty())
            .map(|curves| Drawn {
                name: curves.name.clone(),
                marks: curves.mean(),
            })
            .collect();
        if drawn.is_empty() {
            continue;
        }
        let file = format!("{PICTURES}/{}.svg", picture.file);
        put!(text, "\n![{}]({file})", picture.title);
        page.pictures
            .push((file.into(), curve_svg(&picture.title, &drawn)));
    }
    let text = &mut page.text;
    match reference {
        Some(reference) => costs(text, experiment, results, reference),
        None => put!(
            text,
            "\nThe baseline, {}, was not run yet: there is nothing to compare.",
            experiment.baseline
        ),
    }
    full_networks(text, experiment, results);
    gaps(text, experiment, results);
    if let Some(findings) = &experiment.findings {
        put!(text, "\n### What it shows\n\n{}", findings.trim());
    }
    instances(text, experiment, results);
    commands(text, experiment);
    missing(text, experiment, results);
}

/// Accuracy at some costs and the area, for each series that has a run.
fn costs(text: &mut String, experiment: &Experiment, results: &Results, reference: u64) {
    let macs = |share: f64| share * reference as f64;
    let range = experiment.area.map(macs);
    let all = experiment.series.iter();
    let all: Vec<Curves> = all
        .map(|series| Curves::of(results, experiment, series))
        .collect();
    let baseline = all.iter().find(|curves| curves.name == experiment.baseline);
    let baseline = baseline.and_then(|curves| curves.area(range));
    let [from, to] = experiment.area.map(|share| 100.0 * share);
    let mut heading = "| series | seeds |".to_owned();
    let mut rule = "| --- | ---: |".to_owned();
    for budget in &experiment.budgets {
        write!(heading, " at {:.0} % |", 100.0 * budget).expect("a string takes all");
        rule.push_str(" ---: |");
    }
    // Of a single cost there is no curve.
    let curved = experiment.budgets.len() > 1;
    if curved {
        heading.push_str(&format!(
            " area, {from:.0} to {to:.0} % | against the baseline |"
        ));
        rule.push_str(" ---: | ---: |");
    }
    put!(text, "\n{heading}\n{rule}",);
    for curves in all.iter().filter(|curves| !curves.seeds.is_empty()) {
        let mut row = format!("| {} | {} |", curves.name, curves.seeds.len());
        let cell = |value: Option<Value>| {
            let text = value.map_or("–".to_owned(), |value| value.text(100.0, 2));
            format!(" {text} |")
        };
        for &budget in &experiment.budgets {
            row.push_str(&cell(curves.at(macs(budget))));
        }
        if !curved {
            put!(text, "{row}");
            continue;
        }
        let area = curves.area(range);
        row.push_str(&cell(area));
        let against = match (area, baseline) {
            _ if curves.name == experiment.baseline => " baseline |".to_owned(),
            (Some(area), Some(baseline)) => {
                format!(" {:+.2} |", 100.0 * (area.mean - baseline.mean))
            }
            _ => " – |".to_owned(),
        };
        put!(text, "{row}{against}");
    }
    put!(
        text,
        "\nThe baseline is {}, whose full network costs {} multiply-accumulates per image.",
        experiment.baseline,
        format_macs(reference)
    );
}

/// The full network of each method that has a run, and how far it overfits.
fn full_networks(text: &mut String, experiment: &Experiment, results: &Results) {
    let methods = experiment.methods.iter();
    let all = methods.map(|method| (method, runs(results, experiment, method)));
    let all: Vec<(&Method, Vec<&Run>)> = all.filter(|(_, runs)| !runs.is_empty()).collect();
    if all.is_empty() {
        return;
    }
    put!(
        text,
        "\nThe full network of each method. The training loss is that of the last epoch's steps, \
         on augmented images and in the instances that were drawn."
    );
    let work = work_of_baseline(experiment, results);
    if work.is_some() {
        put!(
            text,
            "The work is the multiply-accumulates of training as shares of the baseline's."
        );
    }
    let baseline = runs_of_baseline(experiment, results);
    let paired = all.iter().any(|(_, runs)| runs.len() > 1);
    if paired {
        put!(
            text,
            "The difference of accuracy is that from the baseline's run of the same seed, in points."
        );
    }
    let column = |shown: bool, heading| if shown { heading } else { "" };
    let mut heading = "| method | seeds | accuracy |".to_owned();
    heading.push_str(column(paired, " difference |"));
    heading.push_str(" test loss | training loss | gap |");
    heading.push_str(column(experiment.calibration_error, " calibration error |"));
    heading.push_str(column(work.is_some(), " work |"));
    let columns = heading.matches('|').count() - 2;
    put!(text, "\n{heading}\n| --- |{}", " ---: |".repeat(columns));
    for (method, runs) in all {
        let of = |value: &dyn Fn(&Run) -> Option<f64>| -> Option<Value> {
            let values: Option<Vec<f64>> = runs.iter().map(|run| value(run)).collect();
            Value::of(&values?)
        };
        let cell = |value: Option<Value>, unit, digits| {
            value.map_or("–".to_owned(), |value| value.text(unit, digits))
        };
        let top1 = |run: &Run| Some(run.full(OWN)?.top1);
        let mut row = format!("| `{}`: {} |", method.name, method.about);
        row.push_str(&format!(
            " {} | {} |",
            runs.len(),
            cell(of(&top1), 100.0, 2)
        ));
        if paired {
            let difference = |run: &Run| {
                let same = baseline.iter().find(|other| other.seed == run.seed)?;
                Some(top1(run)? - top1(same)?)
            };
            row.push_str(
                &match baseline.iter().any(|run| run.method == method.name) {
                    true => " baseline |".to_owned(),
                    false => format!(" {} |", cell(of(&difference), 100.0, 2)),
                },
            );
        }
        let loss = of(&|run| Some(run.full(OWN)?.loss));
        let train = of(&|run| run.train_loss.last().copied());
        let gap = of(&|run| Some(run.full(OWN)?.loss - run.train_loss.last()?));
        for value in [loss, train, gap] {
            row.push_str(&format!(" {} |", cell(value, 1.0, 3)));
        }
        if experiment.calibration_error {
            let error = of(&|run| run.calibration_error);
            row.push_str(&format!(" {} |", cell(error, 100.0, 2)));
        }
        if let Some(work) = work {
            let share = of(&|run| Some(work_of(experiment, results, run)? / work));
            row.push_str(&format!(" {} |", cell(share.map(Value::mean_only), 1.0, 3)));
        }
        put!(text, "{row}");
    }
}

/// The multiply-accumulates of a run, and of the run that it started from.
fn work_of(experiment: &Experiment, results: &Results, run: &Run) -> Option<f64> {
    let mut work = run.macs? as f64;
    for start in run.arguments.iter().filter_map(|argument| run_in(argument)) {
        let method = experiment.method(start)?;
        let all = runs(results, experiment, method);
        let start = all.into_iter().find(|other| other.seed == run.seed)?;
        work += work_of(experiment, results, start)?;
    }
    Some(work)
}

/// The runs of the baseline's first method.
fn runs_of_baseline<'a>(experiment: &Experiment, results: &'a Results) -> Vec<&'a Run> {
    let mut series = experiment.series.iter();
    let baseline = series.find(|series| series.name == experiment.baseline);
    let first = baseline.and_then(|baseline| baseline.parts.first());
    let method = first.and_then(|part| experiment.method(&part.method));
    method.map_or(Vec::new(), |method| runs(results, experiment, method))
}

/// The mean work of the runs of the baseline's first method.
fn work_of_baseline(experiment: &Experiment, results: &Results) -> Option<f64> {
    let all = runs_of_baseline(experiment, results);
    let work: Option<Vec<f64>> = (all.iter())
        .map(|run| work_of(experiment, results, run))
        .collect();
    Some(Value::of(&work?)?.mean)
}

/// The gap between the full network's losses on test and training images during
/// training.
fn gaps(text: &mut String, experiment: &Experiment, results: &Results) {
    let mut rows: BTreeMap<(usize, &str), Vec<&Watched>> = BTreeMap::new();
    for method in &experiment.methods {
        for run in runs(results, experiment, method) {
            for full in &run.full {
                rows.entry((full.epoch, &method.name))
                    .or_default()
                    .push(full);
            }
        }
    }
    if rows.is_empty() {
        return;
    }
    put!(
        text,
        "\nThe full network in the course of training, with calibrated statistics and without \
         augmentation.\n\n| epoch | method | test loss | training loss | gap |\n\
         | ---: | --- | ---: | ---: | ---: |"
    );
    for ((epoch, method), all) in rows {
        let of = |value: &dyn Fn(&Watched) -> f64| {
            let values: Vec<f64> = all.iter().map(|full| value(full)).collect();
            Value::of(&values).map_or("–".into(), |value| value.text(1.0, 3))
        };
        put!(
            text,
            "| {epoch} | `{method}` | {} | {} | {} |",
            of(&|full| full.test_loss),
            of(&|full| full.train_loss),
            of(&|full| full.test_loss - full.train_loss)
        );
    }
}

/// Every instance of every series of more than one.
fn instances(text: &mut String, experiment: &Experiment, results: &Results) {
    let mut tables = String::new();
    for series in &experiment.series {
        let curves = Curves::of(results, experiment, series);
        let mean = curves.mean();
        if mean.len() < 2 {
            continue;
        }
        put!(
            tables,
            "\n{} ({}):\n\n| instance | MACs | accuracy |\n| --- | ---: | ---: |",
            series.name,
            seeds(curves.seeds.len())
        );
        for mark in mean {
            let same = |one: &Vec<sdpoint_train::Mark>| {
                let found = one.iter().find(|other| other.name == mark.name);
                found.map(|found| found.top1)
            };
            let all: Vec<f64> = curves.seeds.iter().filter_map(same).collect();
            let accuracy = Value::of(&all).map_or("–".into(), |value| value.text(100.0, 2));
            put!(
                tables,
                "| `{}` | {} | {accuracy} |",
                mark.name,
                format_macs(mark.macs)
            );
        }
    }
    if !tables.is_empty() {
        put!(
            text,
            "\n<details>\n<summary>All instances</summary>\n{tables}\n</details>"
        );
    }
}

fn seeds(count: usize) -> String {
    match count {
        1 => "one seed".to_owned(),
        _ => format!("mean of {count} seeds"),
    }
}

/// The commands of each method's runs.
fn commands(text: &mut String, experiment: &Experiment) {
    put!(
        text,
        "\n<details>\n<summary>Commands</summary>\n\n\
         `experiments/run --data tar:DIR --only {}` calls, for each seed:\n\n```sh",
        experiment.name
    );
    for method in &experiment.methods {
        let seeds: Vec<String> = method.seeds.iter().map(u64::to_string).collect();
        let arguments = experiment.train_arguments(method, 0);
        let arguments = &arguments[..arguments.len() - 2];
        put!(
            text,
            "# {}: {}; seeds {}\nsdpoint train --data tar:DIR {} --seed SEED --out RUN",
            method.name,
            method.about,
            seeds.join(", "),
            arguments.join(" ")
        );
        for measure in &method.measures {
            let mut model = match &measure.model {
                Some(file) => format!("RUN/{file}"),
                None => "RUN".to_owned(),
            };
            if let Some(more) = &measure.calibrate {
                let calibrated = format!("{}.safetensors", measure.name);
                put!(
                    text,
                    "sdpoint calibrate {model} --data tar:DIR {} -o {calibrated}",
                    more.join(" ")
                );
                model = calibrated;
            }
            let more: String = measure.evaluate.iter().map(|a| format!(" {a}")).collect();
            put!(text, "sdpoint evaluate {model} --data tar:DIR{more}");
        }
    }
    put!(text, "```\n\n</details>");
}

/// Missing runs, and results that no run here provides.
fn missing(text: &mut String, experiment: &Experiment, results: &Results) {
    let jobs = Job::all(std::slice::from_ref(experiment));
    let left: Vec<Job> = jobs
        .iter()
        .filter(|job| !job.complete(results))
        .copied()
        .collect();
    if left.is_empty() && experiment.missing.is_empty() {
        return put!(text, "\nAll {} runs are done.", jobs.len());
    }
    put!(
        text,
        "\n### Still missing\n\n{} of {} runs are done.",
        jobs.len() - left.len(),
        jobs.len()
    );
    if !left.is_empty()
        && let Some(seconds) = seconds_left(&left, results)
    {
        put!(
            text,
            "The others would take about {:.1} hours on the same machine.",
            seconds / 3600.0
        );
    }
    let mut list = String::new();
    for method in &experiment.methods {
        let seeds = left.iter().filter(|job| job.method.name == method.name);
        let seeds: Vec<String> = seeds.map(|job| job.seed.to_string()).collect();
        if !seeds.is_empty() {
            let (name, about) = (&method.name, &method.about);
            put!(list, "- `{name}`, {about}: seed {}", seeds.join(", "));
        }
    }
    for what in &experiment.missing {
        put!(list, "- {what}");
    }
    if !list.is_empty() {
        put!(text, "\n{}", list.trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::tests::TEXT;
    use crate::results::tests::run;

    fn experiment() -> Experiment {
        let pictures = "\n[[picture]]\nfile = \"costs\"\ntitle = \"Costs\"\nseries = [\"plain\", \"smaller\"]\n";
        let missing = "missing = [\"early exits\"]\nfindings = \"Plain is best.\"\n";
        Experiment::parse("costs", &format!("{missing}{TEXT}{pictures}")).unwrap()
    }

    #[test]
    fn a_page_without_runs_claims_nothing() {
        let page = page(&[experiment()], &Results::default());
        assert!(page.pictures.is_empty());
        assert!(page.text.contains("0 of 3 runs are done"), "{}", page.text);
        assert!(page.text.contains("nothing to compare"));
        assert!(
            page.text
                .contains("- `plain`, every step in full: seed 0, 1\n")
        );
        assert!(page.text.contains("- early exits"));
        assert!(
            page.text
                .contains("sdpoint evaluate RUN --data tar:DIR --bn shared")
        );
    }

    #[test]
    fn the_work_of_training_is_that_of_all_runs_behind_a_method() {
        let text = TEXT.replace(
            "network = \"{network}-w12\"",
            "arguments = [\"--init\", \"{run:plain}\"]",
        );
        let experiment = Experiment::parse("costs", &text).unwrap();
        let mut results = Results::default();
        for (name, macs) in [("plain", 200), ("narrow", 50)] {
            let method = experiment.method(name).unwrap();
            let arguments = experiment.train_arguments(method, 0);
            let mut run = run(name, 0, &arguments, &[("full", 100, 0.8)]);
            run.macs = Some(macs);
            results.runs.push(run);
        }
        let text = |results: &Results| page(std::slice::from_ref(&experiment), results).text;
        let shown = text(&results);
        assert!(shown.contains(" gap | work |\n"), "{shown}");
        assert!(shown.contains(" | 1.000 |\n") && shown.contains(" | 1.250 |\n"));
        // Of runs that did not count it, nothing is shown.
        for run in &mut results.runs {
            run.macs = None;
        }
        assert!(!text(&results).contains("| work |"));
    }

    #[test]
    fn of_a_single_cost_no_area_is_shown() {
        let mut experiment = experiment();
        let mut results = Results::default();
        let arguments = experiment.train_arguments(experiment.method("plain").unwrap(), 0);
        let run = run("plain", 0, &arguments, &[("full", 100, 0.8)]);
        results.runs.push(run);
        let text = |experiment: &Experiment| page(std::slice::from_ref(experiment), &results).text;
        assert!(text(&experiment).contains(" % | against the baseline |"));
        experiment.budgets = vec![1.0];
        let text = text(&experiment);
        assert!(
            text.contains("| plain | 1 | 80.00 |\n") && !text.contains("against the baseline |")
        );
    }

    #[test]
    fn full_networks_are_compared_seed_by_seed() {
        let mut experiment = experiment();
        experiment.calibration_error = true;
        experiment.methods[1].seeds = vec![0, 1];
        let mut results = Results::default();
        for (name, seed, top1) in [
            ("plain", 0, 0.80),
            ("plain", 1, 0.84),
            ("narrow", 0, 0.79),
            ("narrow", 1, 0.81),
        ] {
            let method = experiment.method(name).unwrap();
            let arguments = experiment.train_arguments(method, seed);
            let own = [("full", 100, top1), ("0@0.5", 50, 0.5)];
            let mut run = run(name, seed, &arguments, &own);
            run.calibration_error = Some(0.05);
            results.runs.push(run);
        }
        let text = page(&[experiment], &results).text;
        let row = "| 80.00 ± 1.41 | -2.00 ± 1.41 | 0.200 ± 0.014 | 0.100 ± 0.000 | 0.100 ± 0.014 \
                   | 5.00 ± 0.00 |";
        assert!(text.contains(row), "{text}");
        assert!(
            text.contains(" difference | test loss | training loss | gap | calibration error |\n")
        );
    }

    #[test]
    fn numbers_are_those_of_the_runs() {
        let experiment = experiment();
        let mut results = Results::default();
        for (seed, top1) in [(0, 0.80), (1, 0.82)] {
            let method = experiment.method("plain").unwrap();
            let arguments = experiment.train_arguments(method, seed);
            let own = [("full", 100, top1), ("0@0.5", 50, top1 - 0.2)];
            let mut run = run("plain", seed, &arguments, &own);
            run.full.push(Watched {
                epoch: 10,
                train_loss: 0.5,
                test_loss: 1.0 + seed as f64,
            });
            results.runs.push(run);
        }
        let page = page(&[experiment], &results);
        let row = "| plain | 2 | 61.00 ± 1.41 | 81.00 ± 1.41 | 57.50 ± 1.41 | baseline |";
        // Of 40 to 100: nothing up to 50, then 0.61 in the mean up to 100.
        let row = row.replace("57.50 ± 1.41", "50.83 ± 1.18");
        assert!(page.text.contains(&row), "{}", page.text);
        let full = "| `plain`: every step in full | 2 | 81.00 ± 1.41 | baseline | 0.190 ± 0.014 | 0.100 ± 0.000 | 0.090 ± 0.014 |";
        assert!(page.text.contains(full), "{}", page.text);
        assert!(
            page.text.contains("| `0@0.5` | 50 | 61.00 ± 1.41 |"),
            "{}",
            page.text
        );
        let gap = "| 10 | `plain` | 1.500 ± 0.707 | 0.500 ± 0.000 | 1.000 ± 0.707 |";
        assert!(page.text.contains(gap), "{}", page.text);
        assert!(page.text.contains("### What it shows\n\nPlain is best.\n"));
        assert!(page.text.contains("2 of 3 runs are done"));
        assert!(page.text.contains("- `narrow`, fewer channels: seed 0\n"));
        let [(file, svg)] = &page.pictures[..] else {
            panic!("{:?}", page.pictures)
        };
        assert_eq!(file.to_str(), Some("results/costs.svg"));
        assert!(svg.contains("<svg") && page.text.contains("(results/costs.svg)"));
    }
}
