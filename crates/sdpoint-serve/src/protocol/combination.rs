//! The parameters that choose a fitted cascade or ensemble: by cost, by name or by number.

use sdpoint::core::{Combination, CombinedRecord};
use sdpoint::{Budget, Engine, Instance};

use super::error::{ApiError, quoted};
use super::parameters::Parameter;
use crate::Mode;

/// The limit on combinations that an error lists.
const LISTED: usize = 8;

/// The most accurate cascade with at most this mean cost.
///
/// # Errors
/// If the value is not a share, or the model has no such cascade.
pub fn cascade(name: &str, value: &Parameter, engine: &Engine) -> Result<Mode, ApiError> {
    let Ok(Budget::Share(share)) = value.text().parse() else {
        return Err(ApiError::invalid(
            "parameter 'cascade' must be a share of the full network's cost, such as 40%",
        ));
    };
    let chosen = engine.choose_cascade(share);
    let chosen = chosen.map_err(|error| bad(name, error))?;
    Ok(mode(engine, chosen))
}

/// The most accurate ensemble with at most this cost.
///
/// # Errors
/// If the value is not a multiple, or the model has no such ensemble.
pub fn ensemble(name: &str, value: &Parameter, engine: &Engine) -> Result<Mode, ApiError> {
    let text = value.text();
    let share = match text.trim().strip_suffix('%') {
        Some(percent) => percent.trim().parse().map(|percent: f64| percent / 100.0),
        None => text.trim().parse(),
    };
    let share = share.ok().filter(|share| (1e-6..=1e3).contains(share));
    let share = share.ok_or_else(|| {
        ApiError::invalid(
            "parameter 'ensemble' must be a multiple of the full network's cost, such as 150%",
        )
    })?;
    let chosen = engine.choose_ensemble(share);
    let chosen = chosen.map_err(|error| bad(name, error))?;
    Ok(mode(engine, chosen))
}

/// The combination of a name, such as `0@0.5>full`, or of a number, from 0, in the order in
/// which the model lists them.
///
/// # Errors
/// If the model has none or several of that name, or none of that number.
pub fn named(name: &str, value: &Parameter, engine: &Engine) -> Result<Mode, ApiError> {
    let all = engine.combinations();
    let text = value.text();
    if let Ok(number) = text.trim().parse::<usize>() {
        if number < all.len() {
            return Ok(Mode::Combination(number));
        }
        return Err(bad(name, none(&format!("number {number}"), all)));
    }
    // An unescaped + of a query is a space.
    let text = text.trim().replace(' ', "+");
    let found: Vec<usize> = (0..all.len())
        .filter(|&index| is_called(&all[index].combination, &text))
        .collect();
    match found[..] {
        [] => Err(bad(name, none(&quoted(&text), all))),
        [index] => Ok(Mode::Combination(index)),
        _ => {
            let numbers: Vec<String> = found.iter().map(usize::to_string).collect();
            Err(bad(
                name,
                format!(
                    "the model has {} combinations {}; choose one by its number: {}",
                    found.len(),
                    quoted(&text),
                    numbers.join(" or ")
                ),
            ))
        }
    }
}

fn mode(engine: &Engine, chosen: &CombinedRecord) -> Mode {
    let mut all = engine.combinations().iter();
    let index = all.position(|other| std::ptr::eq(other, chosen));
    Mode::Combination(index.expect("it is one of the model's combinations"))
}

/// Whether a name is that of a combination, in any spelling of its instances.
fn is_called(combination: &Combination, name: &str) -> bool {
    let between = if combination.is_cascade() { '>' } else { '+' };
    let members = name.split(between).map(|member| member.parse::<Instance>());
    let members: Result<Vec<_>, _> = members.collect();
    members.is_ok_and(|members| members == combination.members())
}

/// Says that there is no such combination, and which there are.
fn none(wanted: &str, all: &[CombinedRecord]) -> String {
    let mut names: Vec<String> = all
        .iter()
        .take(LISTED)
        .map(|record| record.combination.to_string())
        .collect();
    if names.is_empty() {
        return "the model has no cascades or ensembles; sdpoint calibrate fits them".to_owned();
    }
    if all.len() > LISTED {
        names.push("…".to_owned());
    }
    format!(
        "the model has no combination {wanted}; it has {}",
        names.join(", ")
    )
}

fn bad(name: &str, error: impl std::fmt::Display) -> ApiError {
    ApiError::invalid(format!("parameter '{name}': {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn a_combination_is_chosen_by_name_or_number() {
        let engine = testing::engine();
        for (index, record) in engine.combinations().iter().enumerate() {
            let name = record.combination.to_string();
            let spaced = format!(" {} ", name.replace('+', " ").replace("0.5", "0.50"));
            for value in [
                Parameter::Text(name),
                Parameter::Text(spaced),
                Parameter::Text(index.to_string()),
                Parameter::Int(index as i64),
            ] {
                let chosen = named("combination", &value, &engine);
                assert_eq!(chosen, Ok(Mode::Combination(index)), "{value:?}");
            }
        }
    }

    #[test]
    fn a_combination_that_the_model_lacks_is_refused() {
        let engine = testing::engine();
        let has = engine.combinations()[0].combination.to_string();
        for value in ["full>full", "full", "fast", "", "-1", "99", "0@0.5>", ">"] {
            let error = named("combination", &value.into(), &engine).unwrap_err();
            assert!(error.message.contains(&has), "{}", error.message);
            assert!(error.message.contains("'combination'"), "{}", error.message);
        }
        let long = named("combination", &"+".repeat(9999).as_str().into(), &engine);
        assert!(long.unwrap_err().message.len() < 300);
    }
}
