//! The instances that a request allows.

use sdpoint::Instance;

use crate::job::{Constraints, Mode};

/// What a request allows, or all requests of a batch together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Demand {
    /// The instances that may answer; unused for a combination.
    pub constraints: Constraints,
    /// One instance, or a combination.
    pub mode: Mode,
}

impl Demand {
    /// A demand that every instance meets.
    pub const ANY: Self = Self {
        constraints: Constraints {
            instance: None,
            max_macs: None,
            min_accuracy: None,
        },
        mode: Mode::Instance,
    };

    /// A demand that only this instance meets.
    pub fn only(instance: Instance) -> Self {
        let constraints = Constraints {
            instance: Some(instance),
            ..Self::ANY.constraints
        };
        Self {
            constraints,
            ..Self::ANY
        }
    }

    /// What both allow; none if they are mutually exclusive for any model.
    pub fn and(&self, other: &Self) -> Option<Self> {
        (self.mode == other.mode).then_some(Self {
            mode: self.mode,
            constraints: self.constraints.and(&other.constraints)?,
        })
    }
}

impl Constraints {
    /// What both allow; none if they name different instances.
    fn and(&self, other: &Self) -> Option<Self> {
        let instance = match (self.instance, other.instance) {
            (Some(a), Some(b)) if a != b => return None,
            (a, b) => a.or(b),
        };
        let smaller = |a: u64, b: u64| a.min(b);
        Some(Self {
            instance,
            max_macs: both(self.max_macs, other.max_macs, smaller),
            min_accuracy: both(self.min_accuracy, other.min_accuracy, f64::max),
        })
    }
}

/// The stricter of two bounds, either of which may be absent.
fn both<N>(a: Option<N>, b: Option<N>, stricter: impl Fn(N, N) -> N) -> Option<N> {
    match (a, b) {
        (Some(a), Some(b)) => Some(stricter(a, b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use sdpoint::core::Record;

    use super::*;

    fn at_most(macs: u64) -> Demand {
        Demand {
            constraints: Constraints {
                max_macs: Some(macs),
                ..Constraints::default()
            },
            ..Demand::ANY
        }
    }

    fn only(name: &str) -> Demand {
        Demand::only(name.parse().unwrap())
    }

    #[test]
    fn bounds_of_both_hold_together() {
        let both = at_most(5).and(&at_most(3)).unwrap();
        assert_eq!(both, at_most(3));
        let both = at_most(5).and(&only("full")).unwrap().constraints;
        assert_eq!(both.max_macs, Some(5));
        let full = |macs| Record::unmeasured(Instance::Full, macs);
        assert!(both.allow(&full(5)));
        assert!(!both.allow(&full(6)));
        let other = Record::unmeasured("0@0.5".parse().unwrap(), 5);
        assert!(!both.allow(&other));
    }

    #[test]
    fn different_instances_and_modes_exclude_each_other() {
        assert_eq!(only("full").and(&only("0@0.5")), None);
        assert_eq!(only("full").and(&Demand::ANY), Some(only("full")));
        let combination = |index| Demand {
            mode: Mode::Combination(index),
            ..Demand::ANY
        };
        assert_eq!(combination(0).and(&Demand::ANY), None);
        assert_eq!(combination(0).and(&combination(1)), None);
        assert_eq!(combination(0).and(&combination(0)), Some(combination(0)));
    }

    #[test]
    fn an_unmeasured_instance_is_not_accurate_enough() {
        let accurate = Constraints {
            min_accuracy: Some(0.8),
            ..Constraints::default()
        };
        let with = |top1| Record {
            top1,
            ..Record::unmeasured(Instance::Full, 1)
        };
        assert!(accurate.allow(&with(Some(0.8))));
        assert!(!accurate.allow(&with(Some(0.79))));
        assert!(!accurate.allow(&with(None)));
    }
}
