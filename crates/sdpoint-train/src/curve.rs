//! The cost–accuracy curve, as a table and as a picture.

mod labels;
mod plot;

use std::fmt::Write;

use sdpoint_core::{CombinedRecord, Instance, Record, Scores};

pub use plot::curve_svg;
pub(crate) use plot::{FONT, INK, sealed};

/// Why writing into a string is never checked.
const INFALLIBLE: &str = "writing to a string never fails";

/// The measured instances of one model, drawn in one colour.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// Its instances and combinations.
    pub marks: Vec<Mark>,
}

/// An instance or a combination in the picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    /// Its label.
    pub name: String,
    /// What it stands for.
    pub kind: MarkKind,
    /// Mean multiply-accumulates per image.
    pub macs: u64,
    /// Top-1 accuracy, from 0 to 1, as it is shown.
    pub top1: f64,
    /// The accuracy by which a mark is chosen at its cost. It determines the
    /// Pareto frontier, which may therefore dip.
    pub chosen_by: f64,
}

/// What a mark stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum MarkKind {
    /// The instance without downsampling.
    Full,
    /// Another instance.
    Instance,
    /// A cascade or an ensemble.
    Combination,
}

impl Series {
    /// The measured instances of a model, and its combinations.
    pub fn new(name: impl Into<String>, records: &[Record], combined: &[CombinedRecord]) -> Self {
        let combined = combined.iter().map(|record| Mark {
            name: record.combination.to_string(),
            kind: MarkKind::Combination,
            macs: record.macs,
            top1: record.reported().top1,
            chosen_by: record.top1,
        });
        let marks = records.iter().filter_map(|record| {
            let chosen_by = record.top1.filter(|top1| top1.is_finite())?;
            Some(Mark {
                name: record.instance.to_string(),
                kind: match record.instance {
                    Instance::Full => MarkKind::Full,
                    Instance::At(..) => MarkKind::Instance,
                },
                macs: record.macs,
                top1: record.test.map_or(chosen_by, |test| test.top1),
                chosen_by,
            })
        });
        Self {
            name: name.into(),
            marks: marks.chain(combined).collect(),
        }
    }
}

/// The curve as CSV with a header.
///
/// The columns are `instance`, `point`, `ratio`, `macs` per image, `share` of
/// the most expensive instance's MACs (`full`), `top1` and `top5` from 0 to 1, and mean `loss`
/// in nats, as they are reported. If images were held out of training, `val_top1`, `val_top5`
/// and `val_loss` follow, by which instances are chosen.
/// Values that do not apply or were not measured are empty.
/// Combinations come last, with their mean cost: `0@0.5>full` is a cascade,
/// `full+7@0.5` an ensemble.
pub fn curve_csv(records: &[Record], combined: &[CombinedRecord]) -> String {
    let most = records.iter().map(|record| record.macs).max().unwrap_or(0);
    let held_out = records.iter().any(|record| record.test.is_some());
    let mut text = String::from("instance,point,ratio,macs,share,top1,top5,loss");
    text.push_str(if held_out {
        ",val_top1,val_top5,val_loss\n"
    } else {
        "\n"
    });
    for record in records {
        let point = record.instance.point();
        let point = point.map(|point| point.to_string()).unwrap_or_default();
        let number = |value: Option<f64>| value.map(|v| v.to_string()).unwrap_or_default();
        let recorded = [record.top1, record.top5, record.loss];
        let reported = match record.test {
            Some(Scores { top1, top5, loss }) => [top1, top5, loss].map(Some),
            None => recorded,
        };
        let mut fields = vec![
            record.instance.to_string(),
            point,
            number(record.instance.ratio().map(|ratio| ratio.value())),
            record.macs.to_string(),
            (record.macs as f64 / most.max(1) as f64).to_string(),
        ];
        fields.extend(reported.map(number));
        if held_out {
            fields.extend(recorded.map(number));
        }
        writeln!(text, "{}", fields.join(",")).expect(INFALLIBLE);
    }
    for record in combined {
        let CombinedRecord {
            combination, macs, ..
        } = record;
        let share = *macs as f64 / most.max(1) as f64;
        write!(text, "{combination},,,{macs},{share}").expect(INFALLIBLE);
        let recorded = held_out.then(|| record.scores());
        for Scores { top1, top5, loss } in [record.reported()].into_iter().chain(recorded) {
            write!(text, ",{top1},{top5},{loss}").expect(INFALLIBLE);
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use sdpoint_core::Combination;

    use super::*;

    #[test]
    fn the_table_has_a_line_for_each_instance() {
        let record = |name: &str, macs, top1| Record {
            top1,
            ..Record::unmeasured(name.parse().unwrap(), macs)
        };
        let records = [
            record("full", 400, Some(0.8125)),
            record("stem@0.5", 100, None),
        ];
        let combined = [CombinedRecord {
            combination: Combination::Ensemble(records.iter().map(|r| r.instance).collect()),
            macs: 440,
            top1: 0.875,
            top5: 1.0,
            loss: 0.5,
            test: None,
        }];
        assert_eq!(
            curve_csv(&records, &combined),
            "instance,point,ratio,macs,share,top1,top5,loss\n\
             full,,,400,1,0.8125,,\n\
             stem@0.5,stem,0.5,100,0.25,,,\n\
             full+stem@0.5,,,440,1.1,0.875,1,0.5\n"
        );
        let marks = Series::new("x", &records, &combined).marks;
        let kinds: Vec<MarkKind> = marks.iter().map(|mark| mark.kind).collect();
        assert_eq!(kinds, [MarkKind::Full, MarkKind::Combination]);
    }

    #[test]
    fn test_accuracies_are_reported_and_others_choose() {
        let record = |name: &str, macs, val: f64, test: f64| Record {
            top1: Some(val),
            top5: Some(1.0),
            loss: Some(0.5),
            test: Some(Scores {
                top1: test,
                top5: 0.75,
                loss: 1.5,
            }),
            ..Record::unmeasured(name.parse().unwrap(), macs)
        };
        let records = [
            record("full", 400, 0.75, 0.5),
            record("0@0.5", 100, 0.5, 0.625),
        ];
        let combined = [CombinedRecord {
            combination: Combination::Ensemble(vec![Instance::Full]),
            macs: 400,
            top1: 0.25,
            top5: 1.0,
            loss: 0.5,
            test: records[0].test,
        }];
        assert_eq!(
            curve_csv(&records, &combined),
            "instance,point,ratio,macs,share,top1,top5,loss,val_top1,val_top5,val_loss\n\
             full,,,400,1,0.5,0.75,1.5,0.75,1,0.5\n\
             0@0.5,0,0.5,100,0.25,0.625,0.75,1.5,0.5,1,0.5\n\
             full,,,400,1,0.5,0.75,1.5,0.25,1,0.5\n"
        );
        // By the test images, `full` would not be on the frontier.
        let series = Series::new("x", &records, &combined);
        let frontier = plot::frontier(&series);
        let shown: Vec<(&str, f64)> = frontier.iter().map(|m| (m.name.as_str(), m.top1)).collect();
        assert_eq!(shown, [("0@0.5", 0.625), ("full", 0.5)]);
    }

    #[test]
    fn a_title_of_any_characters_leaves_a_picture_that_viewers_read() {
        let marks = vec![Mark {
            name: "full".into(),
            macs: 400,
            top1: 0.5,
            chosen_by: 0.5,
            kind: MarkKind::Full,
        }];
        let series = [Series {
            name: "x".into(),
            marks,
        }];
        let svg = curve_svg("a\u{1b}\n<b> & c", &series);
        assert!(svg.contains("a  &lt;b&gt; &amp; c"), "{svg}");
    }
}
