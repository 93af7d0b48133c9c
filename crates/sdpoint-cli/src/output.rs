//! Output of commands: text for people, JSON for programs.

use std::borrow::Cow;
use std::io::{self, Write};

use sdpoint::core::format_macs;
pub use sdpoint::core::words::plural;
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

/// Writes a line to standard error; errors of that are ignored.
pub fn note(text: &str) {
    let _ = io::stderr()
        .lock()
        .write_all(format!("{}\n", printable(text)).as_bytes());
}

/// Escapes characters that control the terminal: names of tensors and classes
/// come from untrusted files.
pub fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, |c| is_control(c) && c != '\n' && c != '\t')
}

/// As [`printable`], for text on one line.
pub fn one_line(text: &str) -> Cow<'_, str> {
    escaped(text, is_control)
}

/// A name from a file, such as that of a class, shortened to fit on a line. JSON
/// output has the whole name.
pub fn name(text: &str) -> Cow<'_, str> {
    const SHOWN: usize = 100;
    match text.char_indices().nth(SHOWN) {
        None => one_line(text),
        Some((end, _)) => format!("{}…", one_line(&text[..end])).into(),
    }
}

/// Whether a character is not simply visible: control characters, line breaks,
/// marks that change the direction of text, and characters of zero width, which
/// make different names look the same.
fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

fn escaped(text: &str, bad: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&bad) {
        return text.into();
    }
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if bad(c) {
            plain.extend(c.escape_default());
        } else {
            plain.push(c);
        }
    }
    plain.into()
}

/// Writes a JSON array to standard output, one element per line.
pub fn print_json<T: Serialize>(rows: &[T]) -> Outcome {
    let lines: Result<Vec<String>, _> = rows.iter().map(serde_json::to_string).collect();
    let lines = lines.map_err(|error| Failure::output(&error.into()))?;
    // JSON has escapes of its own.
    write(&format!("[\n{}\n]\n", lines.join(",\n")))
}

/// Rows of text in aligned columns.
///
/// The first column is aligned to the left, the others to the right.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these column titles.
    pub fn new<'a>(titles: impl IntoIterator<Item = &'a str>) -> Self {
        let titles = titles.into_iter();
        Self {
            rows: vec![titles.map(|title| one_line(title).into_owned()).collect()],
        }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells = cells.into_iter();
        self.rows
            .push(cells.map(|cell| one_line(&cell).into_owned()).collect());
    }

    /// The text, one line per row.
    pub fn text(&self) -> String {
        // Longer cells stick out instead of widening their column.
        const WIDEST: usize = 120;
        let length = |cell: &String| cell.chars().count();
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            let widths = cells.map(length).filter(|&width| width <= WIDEST);
            widths.max().unwrap_or(0)
        };
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                let padding = " ".repeat(width.saturating_sub(length(cell)));
                if column == 0 {
                    line.extend([cell, &*padding]);
                } else {
                    line.extend(["  ", &padding, cell]);
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

/// A duration: `48 s`, `3 min 20 s`, `2 h 5 min`.
pub fn span(seconds: f64) -> String {
    let seconds = match seconds.round() as u64 {
        0 if seconds > 0.0 => return "less than 1 s".into(),
        seconds => seconds,
    };
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s} s"),
        (h, m, _) => format!("{h} h {m} min"),
    }
}

/// The program as the user invoked it, for commands to copy.
pub fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "sdpoint".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units() {
        assert_eq!(span(0.0), "0 s");
        assert_eq!(span(0.4), "less than 1 s");
        assert_eq!(span(59.6), "1 min 0 s");
        assert_eq!(span(7500.0), "2 h 5 min");
    }

    #[test]
    fn text_does_not_control_the_terminal() {
        let text = "a name\tof two\nlines: é 猫";
        assert!(matches!(printable(text), Cow::Borrowed(same) if same == text));
        assert_eq!(
            printable("\u{1b}[2Jgone\u{9b}1m\r"),
            "\\u{1b}[2Jgone\\u{9b}1m\\r"
        );
    }

    #[test]
    fn names_stay_on_one_line() {
        assert_eq!(name("猫 é"), "猫 é");
        assert_eq!(name("a\nb\tc"), "a\\nb\\tc");
        for mark in [
            '\u{202e}', '\u{2066}', '\u{200f}', '\u{200b}', '\u{2028}', '\u{feff}',
        ] {
            let shown = name(&format!("a{mark}b")).into_owned();
            assert_eq!(shown, format!("a{}b", mark.escape_default()));
            assert!(!printable(&format!("a{mark}b")).contains(mark));
        }
        let long = "é".repeat(70_000);
        assert_eq!(name(&long).chars().count(), 101);
        let mut table = Table::new(["name", "value"]);
        table.row([long.clone(), "1".into()]);
        table.row(["a\nb".into(), "2".into()]);
        let text = table.text();
        assert_eq!(text.lines().count(), 3);
        assert!(text.contains(&long) && text.ends_with("\na\\nb      2\n"));
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
