//! Expansion of paths: `~`, `shard-{000..003}.tar` and `*.tar`, which shells do
//! not expand after `tar:` and within quotes.

use std::env;
use std::path::{Path, PathBuf};

use crate::error::DataError;

/// The most paths that a pattern may expand to.
const MAX_PATHS: usize = 100_000;

/// The path with a leading `~` replaced by the home folder, unless there is a
/// file of that name.
pub fn expand_home(path: &Path) -> PathBuf {
    match (path.strip_prefix("~"), env::home_dir()) {
        (Ok(rest), Some(home)) if !path.exists() => home.join(rest),
        _ => path.to_owned(),
    }
}

/// The paths that a pattern expands to. An existing path is never a pattern.
pub(crate) fn expand(pattern: &Path) -> Result<Vec<PathBuf>, DataError> {
    let path = expand_home(pattern);
    let text = match path.to_str() {
        Some(text) if !path.exists() => text,
        _ => return Ok(vec![path]),
    };
    let mut texts = Vec::new();
    braces(text, &mut texts)?;
    let mut paths = Vec::new();
    for text in texts {
        if Path::new(&text).exists() || !text.contains(['*', '?', '[']) {
            paths.push(PathBuf::from(text));
        } else {
            paths.extend(matching(&text)?);
        }
        check_number(pattern, paths.len())?;
    }
    Ok(paths)
}

/// The files that a pattern with `*`, `?` or `[` matches, sorted.
fn matching(text: &str) -> Result<Vec<PathBuf>, DataError> {
    let problem = |problem: String| DataError::Malformed {
        path: text.into(),
        problem,
    };
    let options = glob::MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        require_literal_leading_dot: true,
    };
    let matches = glob::glob_with(text, options)
        .map_err(|error| problem(format!("it is no pattern of file names: {}", error.msg)))?;
    let mut paths = Vec::new();
    for path in matches {
        paths.push(path.map_err(|error| DataError::Io {
            path: error.path().to_owned(),
            error: error.into(),
        })?);
        check_number(Path::new(text), paths.len())?;
    }
    if paths.is_empty() {
        return Err(problem("no file has a name like that".to_owned()));
    }
    Ok(paths)
}

/// Adds the expansions of a text with `{a,b}` or `{000..003}`.
fn braces(text: &str, texts: &mut Vec<String>) -> Result<(), DataError> {
    let Some((before, inside, after)) = first_braces(text) else {
        texts.push(text.to_owned());
        return check_number(Path::new(text), texts.len());
    };
    for choice in choices(inside, text)? {
        braces(&format!("{before}{choice}{after}"), texts)?;
    }
    Ok(())
}

/// The text before, in and after the first pair of braces that can be expanded.
fn first_braces(text: &str) -> Option<(&str, &str, &str)> {
    let mut from = 0;
    while let Some(open) = text[from..].find('{').map(|at| from + at) {
        let close = open + text[open..].find('}')?;
        let inside = &text[open + 1..close];
        if inside.contains(',') || range(inside).is_some() {
            return Some((&text[..open], inside, &text[close + 1..]));
        }
        from = open + 1;
    }
    None
}

fn choices(inside: &str, text: &str) -> Result<Vec<String>, DataError> {
    let Some((first, last, width)) = range(inside) else {
        return Ok(inside.split(',').map(str::to_owned).collect());
    };
    let count = first.abs_diff(last);
    check_number(
        Path::new(text),
        usize::try_from(count).unwrap_or(usize::MAX),
    )?;
    let numbers: Vec<u64> = if first <= last {
        (first..=last).collect()
    } else {
        (last..=first).rev().collect()
    };
    Ok(numbers.iter().map(|n| format!("{n:0width$}")).collect())
}

/// First and last number of `000..003`, and how many digits each has at least.
fn range(inside: &str) -> Option<(u64, u64, usize)> {
    let (first, last) = inside.split_once("..")?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(first) || !digits(last) {
        return None;
    }
    let padded = [first, last]
        .iter()
        .any(|t| t.len() > 1 && t.starts_with('0'));
    let width = if padded {
        first.len().max(last.len())
    } else {
        1
    };
    Some((first.parse().ok()?, last.parse().ok()?, width))
}

fn check_number(pattern: &Path, number: usize) -> Result<(), DataError> {
    if number <= MAX_PATHS {
        return Ok(());
    }
    Err(DataError::Malformed {
        path: pattern.to_owned(),
        problem: format!("it stands for more than {MAX_PATHS} files"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<String> {
        let mut texts = Vec::new();
        braces(text, &mut texts).unwrap();
        texts
    }

    #[test]
    fn braces_are_ranges_and_lists() {
        assert_eq!(texts("a.tar"), ["a.tar"]);
        assert_eq!(
            texts("s-{008..010}.tar"),
            ["s-008.tar", "s-009.tar", "s-010.tar"]
        );
        assert_eq!(texts("{9..11}"), ["9", "10", "11"]);
        assert_eq!(texts("{2..0}"), ["2", "1", "0"]);
        assert_eq!(texts("{a,b}{1..2}"), ["a1", "a2", "b1", "b2"]);
        for plain in ["{}", "{a}", "a{", "}a{", "{a..b}", "{1..}"] {
            assert_eq!(texts(plain), [plain]);
        }
        assert!(braces("{0..99999999999999999999}", &mut Vec::new()).is_ok());
        assert!(braces("{0..9999999}", &mut Vec::new()).is_err());
        assert!(braces(&"{0..99}".repeat(4), &mut Vec::new()).is_err());
    }

    #[test]
    fn patterns_match_sorted_and_a_name_that_is_there_is_itself() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["b.tar", "a.tar", ".c.tar", "x[1].tar", "{1..2}.tar"] {
            std::fs::write(path(name), "").unwrap();
        }
        let found = expand(&path("?.tar")).unwrap();
        assert_eq!(found, [path("a.tar"), path("b.tar")]);
        assert_eq!(expand(&path("x[1].tar")).unwrap(), [path("x[1].tar")]);
        assert_eq!(expand(&path("{1..2}.tar")).unwrap(), [path("{1..2}.tar")]);
        let missing = expand(&path("z*.tar")).unwrap_err().to_string();
        assert!(
            missing.contains("no file has a name like that"),
            "{missing}"
        );
        assert_eq!(expand(&path("z.tar")).unwrap(), [path("z.tar")]);
    }

    #[test]
    fn a_tilde_is_the_users_folder() {
        let home_dir = env::home_dir().unwrap();
        assert_eq!(expand_home(Path::new("~/x")), home_dir.join("x"));
        assert_eq!(expand_home(Path::new("a/~/x")), Path::new("a/~/x"));
        assert_eq!(expand_home(Path::new("~user/x")), Path::new("~user/x"));
    }
}
