//! The constraints that a request's parameters express: cost, accuracy, deadline.

use std::time::{Duration, Instant};

use sdpoint::core::{Record, parse_accuracy, parse_macs, select};
use sdpoint::{Budget, BudgetError, Engine};

use super::combination::{cascade, ensemble, named};
use super::error::{ApiError, Kind, quoted};
use super::parameters::{Parameter, Parameters};
use crate::{Constraints, Mode};

/// The maximum time until a deadline: an hour.
const LONGEST_MS: f64 = 3.6e6;

/// The parameters for users; those that only clients of the protocol send are accepted, too.
const KNOWN: [&str; 12] = [
    "budget",
    "macs",
    "instance",
    "min_accuracy",
    "cascade",
    "ensemble",
    "combination",
    "deadline_ms",
    "late",
    "timeout",
    "priority",
    "binary_data_output",
];

/// The forms of a budget, for error messages.
const BUDGETS: &str = "give a share such as 50% or 0.5, multiply-accumulates such as 20M, an \
                       accuracy such as >=80%, or an instance such as 3@0.5";

/// The constraints of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Terms {
    /// The deadline, if the request has one.
    pub deadline: Option<Instant>,
    /// Whether to answer even after the deadline.
    pub late: bool,
    /// The instances that may answer.
    pub constraints: Constraints,
    /// One instance or a combination.
    pub mode: Mode,
}

impl Terms {
    /// Reads the parameters of a request that arrived at `arrival`. Of several deadlines,
    /// including `deadline` from gRPC itself, the earliest applies.
    ///
    /// # Errors
    /// If a parameter is unknown or its value invalid, or if no instance of the model
    /// satisfies all bounds.
    pub fn new(
        parameters: &Parameters,
        engine: &Engine,
        arrival: Instant,
        deadline: Option<Instant>,
    ) -> Result<Self, ApiError> {
        let mut terms = Self {
            deadline,
            ..Self::default()
        };
        for (name, value) in parameters {
            match name.as_str() {
                "budget" => terms.bound(name, value, parse_budget(name, &value.text())?, engine)?,
                "macs" => {
                    let units = || parse_macs(&value.text()).map_err(|e| bad(name, e));
                    let macs = value.count(name, 1).or_else(|_| units())?;
                    terms.bound(name, value, Budget::Macs(macs), engine)?;
                }
                "instance" => {
                    let instance = value.text().parse().map_err(|e| bad(name, e))?;
                    terms.bound(name, value, Budget::Instance(instance), engine)?;
                }
                "min_accuracy" => {
                    let least = parse_accuracy(&value.text()).map_err(|e| bad(name, e))?;
                    terms.bound(name, value, Budget::MinAccuracy(least), engine)?;
                }
                "cascade" => terms.combine(cascade(name, value, engine)?)?,
                "ensemble" => terms.combine(ensemble(name, value, engine)?)?,
                "combination" => terms.combine(named(name, value, engine)?)?,
                "deadline_ms" => {
                    let milliseconds = value.number(name)?;
                    if milliseconds <= 0.0 {
                        return Err(ApiError::invalid("parameter 'deadline_ms' must be above 0"));
                    }
                    terms.sooner(arrival, milliseconds);
                }
                // Zero stands for the server's objective.
                "timeout" => match value.count(name, 0)? {
                    0 => {}
                    microseconds => terms.sooner(arrival, microseconds as f64 / 1e3),
                },
                "late" => terms.late = value.truth(name)?,
                "binary_data_output" | "priority" | "content_type" | "headers" => {}
                name if name.starts_with("triton_") => {}
                name if name.starts_with("sequence_") => {
                    return Err(ApiError::new(
                        Kind::Unsupported,
                        "sequences are not supported",
                    ));
                }
                name => return Err(unknown(name, &[])),
            }
        }
        terms.check(engine.records())?;
        Ok(terms)
    }

    /// Sets a cascade or an ensemble. Like an explicit instance, it never changes.
    fn combine(&mut self, mode: Mode) -> Result<(), ApiError> {
        if self.mode != Mode::Instance {
            return Err(ApiError::invalid(
                "'cascade', 'ensemble' and 'combination' cannot be combined with each other",
            ));
        }
        self.mode = mode;
        Ok(())
    }

    /// Takes the earlier of two deadlines.
    fn sooner(&mut self, arrival: Instant, milliseconds: f64) {
        let time = Duration::from_secs_f64(milliseconds.min(LONGEST_MS) / 1e3);
        let deadline = arrival + time;
        self.deadline = Some(self.deadline.map_or(deadline, |other| other.min(deadline)));
    }

    /// Adds a bound on the instances.
    fn bound(
        &mut self,
        name: &str,
        value: &Parameter,
        budget: Budget,
        engine: &Engine,
    ) -> Result<(), ApiError> {
        let records = engine.records();
        let bounds = &mut self.constraints;
        let most =
            |other: Option<u64>, macs: u64| Some(other.map_or(macs, |other| macs.min(other)));
        match budget {
            Budget::Share(share) => {
                let costliest = records.iter().map(|record| record.macs).max().unwrap_or(0);
                // Tolerates the rounding of a share that was printed and parsed again.
                let macs = (costliest as f64 * share * (1.0 + 1e-9)).floor() as u64;
                bounds.max_macs = most(bounds.max_macs, macs);
            }
            Budget::Macs(macs) => bounds.max_macs = most(bounds.max_macs, macs),
            Budget::MinAccuracy(least) => {
                bounds.min_accuracy = Some(bounds.min_accuracy.unwrap_or(0.0).max(least));
            }
            Budget::Instance(instance) => {
                if bounds.instance.is_some_and(|other| other != instance) {
                    return Err(ApiError::invalid("the request names two instances"));
                }
                bounds.instance = Some(instance);
            }
            _ => {
                return Err(ApiError::invalid(format!(
                    "parameter '{name}' is {}, a time, but bounds the cost: {BUDGETS}; for a time, \
                     use 'deadline_ms'",
                    quoted(&value.text())
                )));
            }
        }
        // Also checked on its own, for a more specific error than that of all bounds together.
        let single = select(records, budget).map_err(|error| bad(name, error));
        single.map(|_| ())
    }

    /// Checks that some instance satisfies all bounds.
    fn check(&self, records: &[Record]) -> Result<(), ApiError> {
        if self.constraints == Constraints::default() {
            return Ok(());
        }
        if self.mode != Mode::Instance {
            return Err(ApiError::invalid(
                "'cascade', 'ensemble' and 'combination' cannot be combined with other constraints \
                 on the instance",
            ));
        }
        if records.iter().any(|record| self.constraints.allow(record)) {
            return Ok(());
        }
        Err(ApiError::invalid(
            "no instance of the model satisfies all parameters together",
        ))
    }
}

/// Checks the name of a parameter of a request that can also have the parameters `others`.
///
/// # Errors
/// If it is unknown.
pub fn check_name(name: &str, others: &[&str]) -> Result<(), ApiError> {
    if KNOWN.contains(&name) {
        Ok(())
    } else {
        Err(unknown(name, others))
    }
}

fn unknown(name: &str, others: &[&str]) -> ApiError {
    let known = [others, &KNOWN].concat().join(", ");
    ApiError::invalid(format!(
        "unknown parameter {}; known ones are {known}",
        quoted(name)
    ))
}

fn bad(name: &str, error: impl std::fmt::Display) -> ApiError {
    ApiError::invalid(format!("parameter '{name}': {error}"))
}

fn parse_budget(name: &str, text: &str) -> Result<Budget, ApiError> {
    text.parse().map_err(|error| match error {
        // Its message proposes a time, too.
        BudgetError::Form(_) => bad(name, format!("{} is not a budget: {BUDGETS}", quoted(text))),
        error => bad(name, error),
    })
}

#[cfg(test)]
mod tests {
    use sdpoint::Instance;

    use super::*;
    use crate::testing;

    fn terms(parameters: &[(&str, Parameter)]) -> Result<Terms, ApiError> {
        let named = parameters
            .iter()
            .map(|(name, value)| ((*name).into(), value.clone()));
        let parameters: Parameters = named.collect();
        Terms::new(&parameters, &testing::engine(), start(), None)
    }

    fn start() -> Instant {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *START.get_or_init(Instant::now)
    }

    #[track_caller]
    fn refused(parameters: &[(&str, Parameter)], texts: &[&str]) {
        let error = terms(parameters).unwrap_err().message;
        for text in texts {
            assert!(error.contains(text), "'{text}' is not in: {error}");
        }
    }

    #[test]
    fn defaults_leave_everything_to_the_server() {
        assert_eq!(terms(&[]).unwrap(), Terms::default());
        let reserved = [
            ("timeout", Parameter::Int(0)),
            ("priority", Parameter::Int(1)),
            ("binary_data_output", Parameter::Bool(true)),
            ("triton_enable_empty_final_response", Parameter::Bool(true)),
        ];
        assert_eq!(terms(&reserved).unwrap(), Terms::default());
    }

    #[test]
    fn bounds_are_read_in_every_form() {
        let engine = testing::engine();
        let costliest = engine
            .records()
            .iter()
            .map(|record| record.macs)
            .max()
            .unwrap();
        for value in ["80%".into(), "0.8".into(), Parameter::Double(0.8)] {
            let macs = terms(&[("budget", value)])
                .unwrap()
                .constraints
                .max_macs
                .unwrap();
            assert_eq!(macs, (costliest as f64 * 0.8).floor() as u64);
        }
        let both = [
            ("budget", Parameter::Int(1)),
            ("macs", Parameter::from(costliest - 1)),
        ];
        let bounds = terms(&both).unwrap().constraints;
        assert_eq!(bounds.max_macs, Some(costliest - 1));
        for value in [Parameter::Double(2e5), "2e5".into(), "200k".into()] {
            let bounds = terms(&[("macs", value)]).unwrap().constraints;
            assert_eq!(bounds.max_macs, Some(200_000));
        }
        let instance = terms(&[("instance", "full".into())])
            .unwrap()
            .constraints
            .instance;
        assert_eq!(instance, Some(Instance::Full));
        let instance = terms(&[("budget", "full".into())])
            .unwrap()
            .constraints
            .instance;
        assert_eq!(instance, Some(Instance::Full));
    }

    #[test]
    fn the_earliest_deadline_counts() {
        let in_ms = |ms: u64| Some(start() + Duration::from_millis(ms));
        let deadline = |parameters: &[(&str, Parameter)]| terms(parameters).unwrap().deadline;
        assert_eq!(
            deadline(&[("deadline_ms", Parameter::Double(8.0))]),
            in_ms(8)
        );
        assert_eq!(deadline(&[("deadline_ms", "8".into())]), in_ms(8));
        let both = [
            ("deadline_ms", Parameter::Int(8)),
            ("timeout", Parameter::Int(5000)),
        ];
        assert_eq!(deadline(&both), in_ms(5));
        let far = [("deadline_ms", Parameter::Double(1e300))];
        assert_eq!(deadline(&far), in_ms(3_600_000));
        let of_grpc = in_ms(3);
        let read = |ms| {
            let parameters = [("deadline_ms".to_owned(), Parameter::Int(ms))].into();
            Terms::new(&parameters, &testing::engine(), start(), of_grpc).unwrap()
        };
        assert_eq!(read(8).deadline, in_ms(3));
        assert_eq!(read(2).deadline, in_ms(2));
        assert!(terms(&[("late", Parameter::Bool(true))]).unwrap().late);
    }

    #[test]
    fn the_listed_parameters_are_known() {
        for name in KNOWN {
            check_name(name, &[]).unwrap();
            if let Err(error) = terms(&[(name, Parameter::Bool(true))]) {
                assert!(!error.message.contains("unknown"), "{name}: {error}");
            }
        }
    }

    #[test]
    fn invalid_parameters_are_explained() {
        refused(
            &[("min_acuracy", "80%".into())],
            &["'min_acuracy'", "min_accuracy"],
        );
        refused(
            &[("budget", "8ms".into())],
            &["'budget' is '8ms', a time", "50%", "'deadline_ms'"],
        );
        refused(&[("budget", "cheap".into())], &["'cheap'", "50%"]);
        refused(&[("budget", "200%".into())], &["'budget'", "at most 100%"]);
        refused(&[("budget", Parameter::Double(0.001))], &["cheapest"]);
        refused(&[("instance", "77@0.5".into())], &["nearest"]);
        refused(&[("instance", "fast".into())], &["'instance'"]);
        refused(&[("macs", "lots".into())], &["'macs'", "lots"]);
        refused(&[("cascade", "20M".into())], &["'cascade'", "share"]);
        refused(&[("cascade", "1%".into())], &["'cascade'", "no cascade"]);
        refused(&[("combination", "9".into())], &["'combination'", "no"]);
        for other in ["instance", "budget"] {
            let both = [("combination", Parameter::Int(0)), (other, "full".into())];
            refused(&both, &["'combination'", "cannot be combined"]);
        }
        let both = [
            ("combination", Parameter::Int(0)),
            ("ensemble", "200%".into()),
        ];
        refused(&both, &["with each other", "'combination'"]);
        refused(&[("deadline_ms", Parameter::Int(0))], &["above 0"]);
        refused(&[("deadline_ms", "soon".into())], &["a number"]);
        refused(&[("timeout", Parameter::Int(-1))], &["whole number"]);
        refused(&[("late", Parameter::Int(1))], &["true or false"]);
        let error = terms(&[("sequence_id", Parameter::Int(1))]).unwrap_err();
        assert_eq!(error.kind, Kind::Unsupported);
        let cheapest = testing::engine()
            .records()
            .iter()
            .map(|r| r.macs)
            .min()
            .unwrap();
        refused(
            &[
                ("instance", "full".into()),
                ("macs", Parameter::from(cheapest)),
            ],
            &["together"],
        );
    }
}
