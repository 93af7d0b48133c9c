//! Class names in a text file, one per line, as they are, beside a number, or behind
//! an identifier of WordNet.

use super::{Named, numbers, quotes, table};

/// The names in the lines of a text.
pub(super) fn parse(text: &str) -> Result<Named, String> {
    // Lines end in LF, CR LF or CR.
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    // An empty line is more likely a mistake than a class without a name.
    if let Some(line) = lines.iter().position(|line| line.is_empty()) {
        return Err(format!("line {} is empty", line + 1));
    }
    if let Some(names) = table::parse(&lines) {
        return Ok(Named {
            names: names?,
            identified: None,
        });
    }
    let mut names = numbers::removed(without_commas(without_dashes(lines)))?;
    let mut identified = None;
    let split: Option<Vec<_>> = names.iter().map(|line| word_net(line)).collect();
    if let Some(split) = split.filter(|split| !split.is_empty()) {
        identified = split.first().map(|(id, _)| (*id).to_owned());
        names = numbers::removed(split.into_iter().map(|(_, name)| name).collect())?;
    }
    numbers::check_columns(&names)?;
    Ok(Named {
        names: quotes::removed(names)?,
        identified,
    })
}

/// Lines without the commas at their ends that the items of a list have, if all but
/// the last have one.
fn without_commas(lines: Vec<&str>) -> Vec<&str> {
    let is_list = lines
        .split_last()
        .is_some_and(|(_, lines)| !lines.is_empty() && lines.iter().all(|l| l.ends_with(',')));
    match is_list {
        true => lines
            .into_iter()
            .map(|line| line.strip_suffix(',').unwrap_or(line).trim_end())
            .collect(),
        false => lines,
    }
}

/// Lines without the dashes of a list in YAML, if all have them: `- cat`.
fn without_dashes(lines: Vec<&str>) -> Vec<&str> {
    let items: Option<Vec<&str>> = lines.iter().map(|line| line.strip_prefix("- ")).collect();
    items.map_or(lines, |items| items.into_iter().map(str::trim).collect())
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
