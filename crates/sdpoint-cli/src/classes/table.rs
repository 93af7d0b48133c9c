//! Tables of classes whose first line names the columns: `index,name`.

use super::numbers::in_number_order;
use super::quotes;

/// Headers of the number of a class, the most specific first, without case and
/// punctuation.
const NUMBERS: [&str; 16] = [
    "classid",
    "classindex",
    "classidx",
    "classnumber",
    "labelid",
    "labelindex",
    "labelidx",
    "categoryid",
    "target",
    "index",
    "idx",
    "number",
    "id",
    "nr",
    "no",
    "",
];

/// Headers of its name.
const NAMES: [&str; 11] = [
    "classname",
    "labelname",
    "categoryname",
    "name",
    "label",
    "class",
    "category",
    "names",
    "labels",
    "classes",
    "title",
];

/// Whether a line is probably a header or a comment above a list of names.
pub(super) fn is_above_names(line: &str) -> bool {
    line.starts_with(['#', '%'])
        || line.ends_with(':')
        || NAMES.contains(&&plain(line)[..]) && !line.is_empty()
}

/// The names in a table; `None` if the lines are not one with a header.
pub(super) fn parse(lines: &[&str]) -> Option<Result<Vec<String>, String>> {
    let [header, rows @ ..] = lines else {
        return None;
    };
    let (separator, header) = ['\t', ',', ';', '|'].into_iter().find_map(|separator| {
        let cells = split(header, separator).filter(|cells| is_header(cells))?;
        let all = rows.iter().all(|row| row.contains(separator));
        all.then_some((separator, cells))
    })?;
    (!rows.is_empty()).then(|| names(&header, rows, separator))
}

/// Whether cells are a header: some names of columns, and no numbers.
fn is_header(cells: &[String]) -> bool {
    cells.len() > 1
        && !cells.iter().any(|cell| is_number(cell))
        && cells.iter().any(|cell| NAMES.contains(&&plain(cell)[..]))
}

fn names(header: &[String], rows: &[&str], separator: char) -> Result<Vec<String>, String> {
    let mut columns = vec![Vec::new(); header.len()];
    for (index, row) in rows.iter().enumerate() {
        let line = index + 2;
        let Some(cells) = split(row, separator) else {
            return Err(format!(
                "line {line} has a quotation mark that is not closed"
            ));
        };
        if cells.len() != header.len() {
            return Err(format!(
                "its first line names {} columns, but line {line} has {}: names with the \
                 separator in them need quotation marks",
                header.len(),
                cells.len()
            ));
        }
        for (column, cell) in columns.iter_mut().zip(cells) {
            column.push(cell);
        }
    }
    let place = |known: &[&str], column: usize| {
        let own = plain(&header[column]);
        known.iter().position(|&known| known == own)
    };
    let count = header.len();
    let are_numbers = |&column: &usize| columns[column].iter().all(|cell| number(cell).is_some());
    // `class` and `label` may be the number or the name.
    let numbers = [&NUMBERS[..], &NAMES[..]].into_iter().find_map(|known| {
        let columns = (0..count).filter(are_numbers);
        let known = columns.filter_map(|column| Some((place(known, column)?, column)));
        Some(known.min()?.1)
    });
    let named = (0..count).filter(|&column| Some(column) != numbers);
    let named = named.filter_map(|column| Some((place(&NAMES, column)?, column)));
    let Some((_, named)) = named.min() else {
        return Err("none of the columns that its first line names has names of classes".into());
    };
    let names = std::mem::take(&mut columns[named]);
    if let Some(empty) = names.iter().position(String::is_empty) {
        return Err(format!("line {} has no name", empty + 2));
    }
    match numbers {
        None => Ok(names),
        Some(column) => in_number_order(
            columns[column]
                .iter()
                .filter_map(|cell| number(cell))
                .zip(names),
        ),
    }
}

fn is_number(cell: &str) -> bool {
    !cell.is_empty() && cell.bytes().all(|byte| byte.is_ascii_digit())
}

fn number(cell: &str) -> Option<usize> {
    is_number(cell).then(|| cell.parse().ok())?
}

/// The cells of a line; `None` if a quoted one does not end.
fn split(line: &str, separator: char) -> Option<Vec<String>> {
    let mut cells = Vec::new();
    let mut rest = line;
    loop {
        let start = rest.trim_start_matches(' ');
        let (quoted, behind) = match start.starts_with('"') {
            true => quotes::field(start).map(|(cell, behind)| (Some(cell), behind))?,
            false => (None, start),
        };
        let (cell, next) = match behind.split_once(separator) {
            Some((cell, next)) => (cell, Some(next)),
            None => (behind, None),
        };
        cells.push(match quoted {
            // Anything behind the mark belongs to the cell: `"Weird Al" Yankovic`.
            Some(quoted) if cell.trim().is_empty() => quoted.trim().to_owned(),
            Some(quoted) => format!("\"{quoted}\"{}", cell.trim_end()),
            None => cell.trim().to_owned(),
        });
        match next {
            Some(next) => rest = next,
            None => return Some(cells),
        }
    }
}

/// A header without case, spaces and punctuation.
fn plain(header: &str) -> String {
    let letters = header.chars().filter(|c| c.is_alphanumeric());
    letters.flat_map(char::to_lowercase).collect()
}
