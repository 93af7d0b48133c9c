//! Options for how training steps share instances.

use sdpoint::train::{Draw, Menu, TrainPlan};

use super::METHOD;
use crate::size;

/// Settings of how steps train instances besides full, and when.
#[derive(clap::Args)]
#[group(multiple = true)]
pub struct SharingArgs {
    /// Distribution of instances as a list: each with its probability; the others that are cheaper
    /// than full share the rest equally
    #[arg(long, help_heading = METHOD, value_name = "INSTANCE=P,...", conflicts_with = "draw")]
    menu: Option<Menu>,
    /// With --method sdpoint, draw an instance for each of N equal parts of a batch
    /// [default: 1]
    #[arg(long, help_heading = METHOD, value_name = "N")]
    parts: Option<usize>,
    /// With --method branched, the number of instances that are trained besides full, each on an
    /// equal part of the batch [default: 4]
    #[arg(long, help_heading = METHOD, value_name = "N")]
    branches: Option<usize>,
    /// With --method branched, the weight of the branches' mean loss; that of full has weight 1
    /// [default: 1]
    #[arg(long, help_heading = METHOD, value_name = "X")]
    branch_weight: Option<f64>,
    /// With --method branched, the temperature of full's predictions [default: 1]
    #[arg(long, help_heading = METHOD, value_name = "T")]
    temperature: Option<f64>,
    /// With --method branched, the share of the steps over which --distill rises from 0
    /// [default: 33.3%]
    #[arg(long, help_heading = METHOD, value_name = "X%", value_parser = parse_part)]
    distill_ramp: Option<f64>,
    /// With --method branched, branches are full on smaller images, of sizes drawn from these, rather
    /// than instances: for comparison
    #[arg(long, help_heading = METHOD, value_name = "N,N", value_delimiter = ',',
          value_parser = size::parse)]
    branch_scales: Vec<[usize; 2]>,
    /// Late shrinking: train full alone in this share of the steps, from the beginning
    /// [default: 0%]
    #[arg(long, help_heading = METHOD, value_name = "X%", value_parser = parse_part)]
    shrink_after: Option<f64>,
    /// The probability of full in the last step; over the last third of the steps, it changes
    /// there from that of --draw [default: no change]
    #[arg(long, help_heading = METHOD, value_name = "P", value_parser = parse_part)]
    full_at_end: Option<f64>,
}

impl SharingArgs {
    /// Changes the settings of a plan to those that were given.
    pub fn apply(&self, plan: &mut TrainPlan) {
        if let Some(menu) = &self.menu {
            plan.draw = Draw::Menu(menu.clone());
        }
        set(&mut plan.parts, self.parts);
        let branching = &mut plan.branching;
        set(&mut branching.branches, self.branches);
        set(&mut branching.weight, self.branch_weight);
        set(&mut branching.temperature, self.temperature);
        set(&mut branching.ramp, self.distill_ramp);
        plan.branch_scales.clone_from(&self.branch_scales);
        set(&mut plan.phases.shrink_after, self.shrink_after);
        plan.phases.full_at_end = self.full_at_end;
    }
}

fn set<T>(setting: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *setting = value;
    }
}

/// A share from 0 to 1, such as `50%` or `0.5`.
fn parse_part(text: &str) -> Result<f64, String> {
    let text = text.trim();
    let (number, unit) = match text.strip_suffix('%') {
        Some(percent) => (percent, 100.0),
        None => (text, 1.0),
    };
    match number.trim().parse::<f64>() {
        Ok(value) if unit == 1.0 && value > 1.0 && value <= 100.0 => {
            Err(format!("a share is at most 1: did you mean {text}%?"))
        }
        Ok(value) if (0.0..=unit).contains(&value) => Ok(value / unit),
        _ => Err("give a share from 0 to 1, such as 50% or 0.5".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_percentages_or_fractions() {
        assert_eq!(parse_part("50%"), Ok(0.5));
        assert_eq!(parse_part(" 0.25 "), Ok(0.25));
        assert_eq!(parse_part("0"), Ok(0.0));
        assert_eq!(parse_part("100%"), Ok(1.0));
        assert!(parse_part("50").unwrap_err().contains("50%?"));
        for bad in ["", "%", "-1", "nan", "200", "101%"] {
            assert!(parse_part(bad).is_err(), "{bad}");
        }
    }
}
