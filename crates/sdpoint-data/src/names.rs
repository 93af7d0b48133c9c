//! Names of files and classes in messages.

use std::ffi::OsStr;
use std::fmt::Write;

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
    let plain = |c: char| c.is_ascii_graphic() || c == ' ';
    let spaces = name.starts_with(' ') || name.ends_with(' ') || name.contains("  ");
    if name.chars().all(plain) && !spaces {
        return format!("`{name}{more}`");
    }
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
