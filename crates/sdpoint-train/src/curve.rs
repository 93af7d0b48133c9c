//! The cost–accuracy curve: as a table, and as a picture.

mod labels;
mod plot;

use std::fmt::Write;

use sdpoint_core::{Instance, Record};

pub use plot::curve_svg;

/// The measured instances of one model, to be drawn in one colour.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// What the legend calls it.
    pub name: String,
    /// Its instances.
    pub marks: Vec<Mark>,
}

/// One instance in a picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mark {
    /// Which instance.
    pub instance: Instance,
    /// Multiply-accumulates for an image.
    pub macs: u64,
    /// Share (0 to 1) of images whose first guess is right.
    pub top1: f64,
}

impl Series {
    /// Those of a model's instances that were measured.
    pub fn new(name: impl Into<String>, records: &[Record]) -> Self {
        let marks = records.iter().filter_map(|record| {
            Some(Mark {
                instance: record.instance,
                macs: record.macs,
                top1: record.top1.filter(|top1| top1.is_finite())?,
            })
        });
        Self {
            name: name.into(),
            marks: marks.collect(),
        }
    }
}

/// The curve as a table with a heading: `instance`, `point`, `ratio`, `macs`
/// for an image, `share` of the dearest instance's MACs, `top1` and `top5`
/// as shares from 0 to 1, and mean `loss` in nats. What does not apply or
/// was not measured is left empty.
pub fn curve_csv(records: &[Record]) -> String {
    let most = records.iter().map(|record| record.macs).max().unwrap_or(0);
    let mut text = String::from("instance,point,ratio,macs,share,top1,top5,loss\n");
    for record in records {
        let point = record.instance.point();
        let point = point.map(|point| point.to_string()).unwrap_or_default();
        let number = |value: Option<f64>| value.map(|v| v.to_string()).unwrap_or_default();
        let fields = [
            record.instance.to_string(),
            point,
            number(record.instance.ratio().map(|ratio| ratio.value())),
            record.macs.to_string(),
            (record.macs as f64 / most.max(1) as f64).to_string(),
            number(record.top1),
            number(record.top5),
            number(record.loss),
        ];
        writeln!(text, "{}", fields.join(",")).expect("a string takes all");
    }
    text
}

#[cfg(test)]
mod tests {
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
        assert_eq!(
            curve_csv(&records),
            "instance,point,ratio,macs,share,top1,top5,loss\n\
             full,,,400,1,0.8125,,\n\
             stem@0.5,stem,0.5,100,0.25,,,\n"
        );
        assert_eq!(Series::new("x", &records).marks.len(), 1);
    }
}
