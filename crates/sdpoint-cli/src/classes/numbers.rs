//! Numbers of classes, before or behind their names.

use std::collections::{BTreeMap, BTreeSet};

use super::{in_order, several_columns};
use crate::output::name as shown;

/// A line that has a name and a number.
struct Numbered<'a> {
    number: usize,
    name: &'a str,
    /// Whether a comma or the like is between them, not only a space.
    separated: bool,
}

/// The names of lines, in the order of their numbers if they have some.
pub(super) fn removed(lines: Vec<&str>) -> Result<Vec<&str>, String> {
    if let Some(numbered) = all(&lines, first).filter(|lines| are_named(lines)) {
        check_third_column(&numbered)?;
        return by_number(numbered);
    }
    if let Some(numbered) = all(&lines, last).filter(|lines| are_named(lines)) {
        // Numbers behind a space may be parts of the names: `nose 1`, `nose 2`.
        if numbered.iter().all(|line| line.separated) {
            check_third_column(&numbered)?;
            return by_number(numbered);
        }
        if lines.len() > 1 && is_counted(&numbered) && are_distinct(&numbered) {
            return by_number(numbered);
        }
    }
    if let [header, rows @ ..] = &lines[..]
        && let Some(rows) = all(rows, first).or_else(|| all(rows, last))
        && rows.len() > 1
        && is_counted(&rows)
        && are_distinct(&rows)
    {
        return Err(format!(
            "its first line, '{}', has no number, but all others are numbered: remove it if it \
             is a header",
            shown(header)
        ));
    }
    Ok(lines)
}

/// Refuses lines that all have several columns. Commas are common in names, and do not count.
pub(super) fn check_columns(lines: &[&str]) -> Result<(), String> {
    let separates = |&separator: &char| lines.iter().all(|line| line.contains(separator));
    match ['\t', ';', '|'].iter().any(separates) {
        true if lines.len() > 1 => Err(several_columns(lines[0])),
        _ => Ok(()),
    }
}

/// The parts of all lines, if all have them.
fn all<'a>(
    lines: &[&'a str],
    part: fn(&'a str) -> Option<Numbered<'a>>,
) -> Option<Vec<Numbered<'a>>> {
    let parts: Option<Vec<_>> = lines.iter().map(|line| part(line)).collect();
    parts.filter(|parts| !parts.is_empty())
}

/// The number at the start of a line, and the name behind it: `0 cat`, `0: cat`,
/// `0,cat`, `0. cat`, `"0","cat"`.
fn first(line: &str) -> Option<Numbered<'_>> {
    let quoted = line.strip_prefix('"');
    let digits = quoted.unwrap_or(line);
    let end = digits.find(|c: char| !c.is_ascii_digit())?;
    let number = digits[..end].parse().ok()?;
    let rest = match quoted {
        Some(_) => digits[end..].strip_prefix('"')?,
        None => &digits[end..],
    };
    let separator = rest
        .trim_start()
        .strip_prefix([':', ',', ';', '=', '|', ')']);
    let (name, separated) = match separator {
        Some(name) => (name, true),
        // `0.5 litres` and `3D` are names.
        None => {
            let name = rest.strip_prefix('.').unwrap_or(rest);
            (
                name.strip_prefix(char::is_whitespace)?,
                rest.starts_with('\t'),
            )
        }
    };
    let name = name.trim_start();
    let name = name.strip_prefix("- ").unwrap_or(name).trim_start();
    named(number, name, separated)
}

/// The number at the end of a line, and the name before it: `cat 0`, `cat: 0`,
/// `cat,0`, `"cat","0"`.
fn last(line: &str) -> Option<Numbered<'_>> {
    let quoted = line.strip_suffix('"');
    let digits = quoted.unwrap_or(line);
    let start = digits.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    let number = digits[start..].parse().ok()?;
    let rest = match quoted {
        Some(_) => digits[..start].strip_suffix('"')?,
        None => &digits[..start],
    };
    let name = rest.trim_end();
    let (name, separated) = match name.strip_suffix([':', ',', ';', '=', '|']) {
        Some(name) => (name.trim_end(), true),
        None if name.len() == rest.len() => return None,
        None => (name, rest[name.len()..].contains('\t')),
    };
    let name = name.strip_suffix(" -").unwrap_or(name).trim_end();
    named(number, name, separated)
}

fn named(number: usize, name: &str, separated: bool) -> Option<Numbered<'_>> {
    // `0 1 2` is more likely a row of a table.
    let is_name = !is_number(name) || !name.contains(char::is_whitespace);
    (!name.is_empty() && is_name).then_some(Numbered {
        number,
        name,
        separated,
    })
}

fn is_number(name: &str) -> bool {
    !name.contains(|c: char| !c.is_ascii_digit() && !c.is_whitespace())
}

/// Whether names that are numbers themselves, as of digits, have one of a class for certain:
/// `0 7`, `1 9`.
fn are_named(lines: &[Numbered<'_>]) -> bool {
    !lines.iter().any(|line| is_number(line.name)) || (is_counted(lines) && are_distinct(lines))
}

/// Refuses lines whose names all end in another number behind a separator: `0,cat,500`.
fn check_third_column(lines: &[Numbered<'_>]) -> Result<(), String> {
    let has_third = |line: &Numbered<'_>| {
        line.separated && last(line.name).is_some_and(|third| third.separated)
    };
    match lines.len() > 1 && lines.iter().all(has_third) {
        true => Err(several_columns(lines[0].name)),
        false => Ok(()),
    }
}

/// Whether the numbers are those of the classes, counted from 0 or from 1.
fn is_counted(lines: &[Numbered<'_>]) -> bool {
    let numbers: BTreeSet<usize> = lines.iter().map(|line| line.number).collect();
    let count = lines.len();
    numbers.len() == count
        && (numbers.iter().copied().eq(0..count) || numbers.iter().copied().eq(1..=count))
}

/// Whether the names differ without the numbers.
fn are_distinct(lines: &[Numbered<'_>]) -> bool {
    let names: BTreeSet<&str> = lines.iter().map(|line| line.name).collect();
    names.len() == lines.len()
}

/// The names of numbered lines, in the order of the numbers, which must be those
/// of the classes.
fn by_number(lines: Vec<Numbered<'_>>) -> Result<Vec<&str>, String> {
    in_number_order(lines.iter().map(|line| (line.number, line.name)))
}

/// As [`by_number`], from numbers and names.
pub(super) fn in_number_order<T: AsRef<str>>(
    lines: impl IntoIterator<Item = (usize, T)>,
) -> Result<Vec<T>, String> {
    const WAY_OUT: &str =
        "number the classes from 0, or give a JSON list if the numbers are parts of the names";
    let mut names = BTreeMap::new();
    let mut count = 0;
    for (number, name) in lines {
        count += 1;
        if let Some(other) = names.get(&number) {
            let other: &T = other;
            return Err(format!(
                "its lines are numbered, and {number} comes twice, for '{}' and '{}'; {WAY_OUT}",
                shown(other.as_ref()),
                shown(name.as_ref()),
            ));
        }
        names.insert(number, name);
    }
    if names.keys().copied().eq(1..=count) {
        return Err(format!(
            "its lines are numbered from 1 to {count}, not from 0; {WAY_OUT}"
        ));
    }
    in_order(names).map_err(|problem| format!("its lines are numbered, but {problem}; {WAY_OUT}"))
}
