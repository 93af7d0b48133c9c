//! Class names in a text file, one per line, as they are or behind a number or an
//! identifier of WordNet.

use std::collections::BTreeMap;

use super::{Named, in_order};

/// The names in the lines of a text.
pub(super) fn parse(text: &str) -> Result<Named, String> {
    // Lines end in LF, CR LF or CR.
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    // An empty line is more likely a mistake than a class without a name.
    if let Some(line) = lines.iter().position(|line| line.is_empty()) {
        return Err(format!("line {} is empty", line + 1));
    }
    let mut identified = None;
    let names = match all(&lines, numbered) {
        Some(lines) => by_number(lines)?,
        None => lines.into_iter().map(str::to_owned).collect(),
    };
    let split: Option<Vec<_>> = names.iter().map(|line| word_net(line)).collect();
    let names = match split {
        Some(split) if !split.is_empty() => {
            identified = split.first().map(|(id, _)| (*id).to_owned());
            let names: Vec<&str> = split.into_iter().map(|(_, name)| name).collect();
            match all(&names, numbered) {
                Some(lines) => by_number(lines)?,
                None => names.into_iter().map(str::to_owned).collect(),
            }
        }
        _ => names,
    };
    Ok(Named { names, identified })
}

/// The parts of all lines, if all have them.
fn all<'a, T>(lines: &[&'a str], part: fn(&'a str) -> Option<T>) -> Option<Vec<T>> {
    // A single name may be of any form.
    let parts: Option<Vec<T>> = lines.iter().map(|line| part(line)).collect();
    parts.filter(|parts| !parts.is_empty())
}

/// The number at the start of a line, and the name behind it: `0 cat`, `0: cat`,
/// `0,cat`, `0. cat`.
fn numbered(line: &str) -> Option<(usize, &str)> {
    let end = line.find(|c: char| !c.is_ascii_digit())?;
    let number = line[..end].parse().ok()?;
    let rest = &line[end..];
    let name = match rest.strip_prefix([':', ',', ';', '=', '|', ')']) {
        Some(name) => name,
        // `0.5 litres` and `3D` are names.
        None => rest
            .strip_prefix('.')
            .unwrap_or(rest)
            .strip_prefix(char::is_whitespace)?,
    };
    let name = name.trim_start();
    let name = name.strip_prefix("- ").unwrap_or(name).trim_start();
    // `0 1` and `1 2` are more likely rows of a table.
    let is_name = name.contains(|c: char| !c.is_ascii_digit() && !c.is_whitespace());
    is_name.then_some((number, name))
}

/// The identifier of WordNet at the start of a line, and the name behind it:
/// `n01440764 tench, Tinca tinca`.
fn word_net(line: &str) -> Option<(&str, &str)> {
    const LEAST_DIGITS: usize = 4;
    let digits = line.strip_prefix('n')?;
    let count = digits.find(|c: char| !c.is_ascii_digit())?;
    let (id, rest) = line.split_at(1 + count);
    let name = rest.strip_prefix([' ', '\t', ',', ':', ';'])?.trim_start();
    (count >= LEAST_DIGITS && !name.is_empty()).then_some((id, name))
}

/// The names of numbered lines, in the order of the numbers, which must be those
/// of the classes.
fn by_number(lines: Vec<(usize, &str)>) -> Result<Vec<String>, String> {
    const WAY_OUT: &str =
        "number the classes from 0, or give a JSON list if the numbers are parts of the names";
    let count = lines.len();
    let mut names = BTreeMap::new();
    for (number, name) in lines {
        if let Some(other) = names.insert(number, name.to_owned()) {
            return Err(format!(
                "its lines are numbered, and {number} comes twice, for '{}' and '{}'; {WAY_OUT}",
                crate::output::name(&other),
                crate::output::name(name),
            ));
        }
    }
    if names.keys().copied().eq(1..=count) {
        return Err(format!(
            "its lines are numbered from 1 to {count}, not from 0; {WAY_OUT}"
        ));
    }
    in_order(names).map_err(|problem| format!("its lines are numbered, but {problem}; {WAY_OUT}"))
}
