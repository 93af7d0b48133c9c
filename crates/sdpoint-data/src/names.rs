//! Names of files and classes in messages.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt::Write;

use unicode_security::skeleton;

/// How many names a message shows.
const SHOWN: usize = 5;

/// Characters of a name that a message shows.
const LONGEST: usize = 100;

/// Names in backquotes, separated by commas; at most five of them.
pub(crate) fn quoted<S: AsRef<str>>(names: &[S]) -> String {
    let mut text = names
        .iter()
        .take(SHOWN)
        .map(|n| format!("`{}`", n.as_ref()))
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > SHOWN {
        text += &format!(" and {} more", names.len() - SHOWN);
    }
    text
}

/// A name for a message in which it must be distinguishable from others: a name
/// with characters outside ASCII, or with invisible spaces, is followed by its
/// escaped form.
///
/// `é` may be one character or an `e` and an accent, which look the same;
/// Unicode has letters of several scripts that do, and some that do not show.
///
/// ```
/// use sdpoint_data::visible_name;
/// assert_eq!(visible_name("cafe"), "`cafe`");
/// assert_eq!(visible_name("café"), r"`café` (caf\u{e9})");
/// assert_eq!(visible_name("cafe\u{301}"), "`cafe\u{301}` (cafe\\u{301})");
/// ```
///
/// Of a name of more than a hundred characters, the first hundred are shown.
pub fn visible_name(name: &str) -> String {
    let (name, more) = match name.char_indices().nth(LONGEST) {
        None => (name, ""),
        Some((end, _)) => (&name[..end], "…"),
    };
    if is_plain(name) {
        return format!("`{name}{more}`");
    }
    let spaces = has_odd_spaces(name);
    let mut escaped = String::new();
    for c in name.chars() {
        if c.is_ascii_graphic() || (c == ' ' && !spaces) {
            escaped.push(c);
        } else {
            escaped.extend(c.escape_unicode());
        }
    }
    format!("`{name}{more}` ({escaped}{more})")
}

/// Whether a name is ASCII without invisible spaces.
fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_graphic() || c == ' ';
    name.chars().all(plain) && !has_odd_spaces(name)
}

/// Whether spaces of a name are easily overlooked.
fn has_odd_spaces(name: &str) -> bool {
    name.starts_with(' ') || name.ends_with(' ') || name.contains("  ")
}

/// Whether each of some different names looks like another of them: in another
/// Unicode normal form, with letters of another script, or with characters that
/// do not show. Names in plain ASCII (`0` and `O`) are not taken for each other.
///
/// ```
/// use sdpoint_data::look_alike;
/// let names = ["caf\u{e9}", "tea", "cafe\u{301}"].map(str::to_owned);
/// assert_eq!(look_alike(&names), [true, false, true]);
/// ```
pub fn look_alike(names: &[String]) -> Vec<bool> {
    let looks: Vec<String> = names.iter().map(|name| look(name)).collect();
    // How many names have this look, and whether one is not plain.
    let mut groups: HashMap<&str, (usize, bool)> = HashMap::new();
    for (name, look) in names.iter().zip(&looks) {
        let (count, unusual) = groups.entry(look).or_default();
        *count += 1;
        *unusual |= !is_plain(name);
    }
    let alike = |look: &String| matches!(groups[look.as_str()], (2.., true));
    looks.iter().map(alike).collect()
}

/// The same text for names that look the same.
fn look(name: &str) -> String {
    let shown = name
        .chars()
        .filter(|c| !is_invisible(*c))
        .collect::<String>();
    let words = shown.split_whitespace().collect::<Vec<_>>().join(" ");
    skeleton(&words).collect()
}

/// Whether a character does not show: of zero width, a mark of direction, a
/// variant of the character before, or a control character.
fn is_invisible(c: char) -> bool {
    (c.is_control() && !c.is_whitespace())
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}' | '\u{e0000}'..='\u{e0fff}')
}

/// At most five names as [`visible_name`] shows them, separated by commas.
pub(crate) fn visible(names: &[String]) -> String {
    let shown = names.iter().take(SHOWN).map(|name| visible_name(name));
    let mut text = shown.collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text += &format!(" and {} more", names.len() - SHOWN);
    }
    text
}

/// A file's name as text. Bytes that are not valid UTF-8 become `\xNN`, so that
/// different names remain different.
pub(crate) fn text_of(name: &OsStr) -> String {
    let mut text = String::new();
    for chunk in name.as_encoded_bytes().utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            write!(text, "\\x{byte:02x}").expect("a string takes all");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_look_the_same_are_found() {
        for (one, other) in [
            ("caf\u{e9}", "cafe\u{301}"),
            ("\u{212b}ngstrom", "A\u{30a}ngstrom"),
            ("\u{1112}\u{1161}\u{11ab}", "\u{d55c}"),
            ("paper", "p\u{430}per"),
            ("cat", "cat "),
            ("a b", "a  b"),
            ("a b", "a\u{a0}b"),
            ("cat", "c\u{200b}at"),
            ("cat", "\u{feff}cat"),
            ("\u{2764}", "\u{2764}\u{fe0f}"),
        ] {
            let names = [one, "other", other].map(str::to_owned);
            assert_eq!(look_alike(&names), [true, false, true], "{names:?}");
        }
    }

    #[test]
    fn other_names_are_not_taken_for_each_other() {
        for names in [
            ["0", "O", "o"],
            ["1", "l", "I"],
            ["rn", "m", "Cat"],
            ["\u{e9}t\u{e9}", "ete", "\u{e8}te"],
            ["\u{732b}", "\u{72ac}", "\u{72d7}"],
        ] {
            let names = names.map(str::to_owned);
            assert_eq!(look_alike(&names), [false; 3], "{names:?}");
        }
    }
}
