//! What commands print: tables and numbers for people, JSON for programs.

use std::borrow::Cow;
use std::io::{self, Write};

use sdpoint::format_macs;
use serde::Serialize;

use crate::failure::{Failure, Outcome};

/// Writes text to standard output.
pub fn print(text: &str) -> Outcome {
    write(&printable(text))
}

fn write(text: &str) -> Outcome {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|error| Failure::output(&error))
}

/// Writes a line to standard error. A closed standard error stops nothing.
pub fn note(text: &str) {
    let _ = io::stderr()
        .lock()
        .write_all(format!("{}\n", printable(text)).as_bytes());
}

/// Text without characters that steer the terminal: names of tensors and
/// classes come from files of anyone's.
pub fn printable(text: &str) -> Cow<'_, str> {
    let steers = |c: char| c.is_control() && c != '\n' && c != '\t';
    if !text.contains(steers) {
        return text.into();
    }
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if steers(c) {
            plain.extend(c.escape_default());
        } else {
            plain.push(c);
        }
    }
    plain.into()
}

/// Writes a value as JSON to standard output, an array's elements a line each.
pub fn print_json<T: Serialize>(rows: &[T]) -> Outcome {
    let lines: Result<Vec<String>, _> = rows.iter().map(serde_json::to_string).collect();
    let lines = lines.map_err(|error| Failure::output(&error.into()))?;
    // JSON has escapes of its own.
    write(&format!("[\n{}\n]\n", lines.join(",\n")))
}

/// Rows of text in aligned columns.
///
/// The first column is aligned to the left, the others, numbers mostly, to
/// the right.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these column titles.
    pub fn new<const N: usize>(titles: [&str; N]) -> Self {
        Self {
            rows: vec![titles.map(str::to_owned).into()],
        }
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    /// The text, a line a row.
    pub fn text(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                if column == 0 {
                    line.push_str(&format!("{cell:<width$}"));
                } else {
                    line.push_str(&format!("  {cell:>width$}"));
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A number of bytes with three digits: `16.1MB`.
pub fn bytes(value: u64) -> String {
    format!("{}B", format_macs(value))
}

/// A part of one in per cent: `34.5%`.
pub fn percent(part: f64) -> String {
    format!("{:.1}%", 100.0 * part)
}

/// A number with its noun: `1 class`, `10 classes`.
pub fn plural(number: usize, one: &str, many: &str) -> String {
    let noun = if number == 1 { one } else { many };
    format!("{number} {noun}")
}

/// A span of time for people: `48 s`, `3 min 20 s`, `2 h 5 min`.
pub fn span(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s} s"),
        (h, m, _) => format!("{h} h {m} min"),
    }
}

/// The program as the user called it, for commands to copy.
pub fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "sdpoint".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_told_in_two_units() {
        assert_eq!(span(0.4), "0 s");
        assert_eq!(span(59.6), "1 min 0 s");
        assert_eq!(span(7500.0), "2 h 5 min");
    }

    #[test]
    fn text_does_not_steer_the_terminal() {
        let text = "a name\tof two\nlines: é 猫";
        assert!(matches!(printable(text), Cow::Borrowed(same) if same == text));
        assert_eq!(
            printable("\u{1b}[2Jgone\u{9b}1m\r"),
            "\\u{1b}[2Jgone\\u{9b}1m\\r"
        );
    }

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(["name", "MACs"]);
        table.row(["a".into(), "1".into()]);
        table.row(["longer".into(), "12345".into()]);
        assert_eq!(
            table.text(),
            "name     MACs\na           1\nlonger  12345\n"
        );
    }
}
